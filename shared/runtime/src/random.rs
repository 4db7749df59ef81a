//! Random bytes for names that are given out with every request.
//!
//! Asking the operating system for each costs a system call. A thread keeps some of what it was
//! given, and gives every byte out once.

use std::cell::RefCell;

/// Names that one answer of the operating system is enough for.
const POOL: usize = 256;

thread_local! {
    static LEFT: RefCell<Vec<[u8; 16]>> = const { RefCell::new(Vec::new()) };
}

/// 128 bits that nobody can guess and nothing else was ever given.
///
/// # Panics
/// When the operating system has no randomness to give.
pub fn name() -> [u8; 16] {
    LEFT.with_borrow_mut(|left| match left.pop() {
        Some(name) => name,
        None => {
            let mut bytes = [0; 16 * POOL];
            aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
            left.extend(bytes.as_chunks().0);
            left.pop().unwrap_or_default()
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_never_alike() {
        let draw = || (0..3 * POOL).map(|_| name()).collect::<Vec<_>>();
        let others = std::thread::spawn(draw).join().expect("a thread that draws");
        let all: HashSet<_> = draw().into_iter().chain(others).collect();
        assert_eq!(all.len(), 6 * POOL);
        assert!(!all.contains(&[0; 16]));
    }
}
