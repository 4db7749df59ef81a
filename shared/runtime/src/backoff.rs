//! How long to wait before the next try: doubling, capped, with jitter.
//!
//! The jitter keeps a fleet that lost one peer from coming back in one wave. A seed makes the
//! sequence repeatable, which simulations need; without one it differs per process and use.

use std::time::Duration;

/// The waits of one series of tries.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    tries: u32,
    state: u64,
}

impl Backoff {
    /// Waits that start around `first` and never exceed `cap`; the jitter is random.
    pub fn new(first: Duration, cap: Duration) -> Self {
        let mut seed = [0u8; 8];
        // Without entropy the jitter is merely predictable; a wait is still right.
        let _ = aws_lc_rs::rand::fill(&mut seed);
        Self::seeded(first, cap, u64::from_ne_bytes(seed))
    }

    /// The same, repeatable.
    pub fn seeded(first: Duration, cap: Duration, seed: u64) -> Self {
        Self { first: first.min(cap), cap, tries: 0, state: seed }
    }

    /// The next wait: between half and all of `first * 2^tries`, capped.
    pub fn next_wait(&mut self) -> Duration {
        let full = self.first.saturating_mul(1u32.checked_shl(self.tries).unwrap_or(u32::MAX));
        let full = full.min(self.cap);
        self.tries = self.tries.saturating_add(1);
        let half = full / 2;
        let spread = u64::try_from((full - half).as_nanos()).unwrap_or(u64::MAX);
        let extra = if spread == 0 { 0 } else { self.random() % (spread + 1) };
        half + Duration::from_nanos(extra)
    }

    /// Starts over: the peer is well again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// Tries since the start or the last reset.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Waits for [`Self::next_wait`].
    pub async fn sleep(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }

    /// SplitMix64: good enough to spread waits, and four lines long.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_secs(5);

    #[test]
    fn waits_double_up_to_the_cap_with_jitter_below() {
        for seed in 0..200 {
            let mut backoff = Backoff::seeded(FIRST, CAP, seed);
            for step in 0..70u32 {
                let full =
                    FIRST.saturating_mul(1u32.checked_shl(step).unwrap_or(u32::MAX)).min(CAP);
                let wait = backoff.next_wait();
                assert!(wait >= full / 2 && wait <= full, "seed {seed} step {step}: {wait:?}");
            }
            backoff.reset();
            assert!(backoff.next_wait() <= FIRST);
        }
    }

    #[test]
    fn a_seed_repeats_and_two_seeds_differ() {
        let waits = |seed| {
            let mut backoff = Backoff::seeded(FIRST, CAP, seed);
            (0..8).map(|_| backoff.next_wait()).collect::<Vec<_>>()
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
    }
}
