//! The difference of two texts, line by line.

use std::fmt::Write as _;

/// Longest text, in lines, that is compared line by line; longer ones are shown whole.
const LINES_MAX: usize = 2_000;
/// Unchanged lines around a change.
const AROUND: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Both,
    Old,
    New,
}

/// Lines that are gone begin with `-`, new ones with `+`; far from changes nothing is shown.
pub(super) fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let script = if old.len().max(new.len()) > LINES_MAX {
        let gone = old.iter().map(|line| (Side::Old, *line));
        gone.chain(new.iter().map(|line| (Side::New, *line))).collect()
    } else {
        script(&old, &new)
    };
    let mut text = String::new();
    let mut skipped = false;
    for (at, (side, line)) in script.iter().enumerate() {
        let near = script[at.saturating_sub(AROUND)..(at + AROUND + 1).min(script.len())]
            .iter()
            .any(|(side, _)| *side != Side::Both);
        if !near {
            skipped = true;
            continue;
        }
        if std::mem::take(&mut skipped) {
            text += "  ...\n";
        }
        let mark = match side {
            Side::Both => ' ',
            Side::Old => '-',
            Side::New => '+',
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{mark} {line}");
    }
    text
}

/// The shortest way from one to the other, by longest common subsequence.
fn script<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(Side, &'a str)> {
    let width = new.len() + 1;
    let mut common = vec![0_u16; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut script) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            script.push((Side::Both, old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len()
            || i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]
        {
            script.push((Side::Old, old[i]));
            i += 1;
        } else {
            script.push((Side::New, new[j]));
            j += 1;
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_marked_and_the_rest_is_left_out() {
        let old = "1\n2\n3\n4\n5\n6\n7\n";
        let new = "1\n2\n3\n4\nfive\n6\n7\n8\n";
        assert_eq!(difference(old, new), "  ...\n  3\n  4\n- 5\n+ five\n  6\n  7\n+ 8\n");
        assert_eq!(difference(old, old), "");
        assert_eq!(difference("", "a\n"), "+ a\n");
        assert_eq!(difference("a\n", ""), "- a\n");
    }
}
