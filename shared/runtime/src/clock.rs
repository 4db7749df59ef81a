//! Time that a test can hold in its hand.
//!
//! Code that stamps records or compares with an expiry takes a [`Clock`]; code that only waits
//! uses tokio's timers, which tests pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time, of day and monotonic.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Milliseconds since the Unix epoch. May step back when the system's clock is corrected.
    fn now_ms(&self) -> u64;
    /// Never steps back.
    fn monotonic(&self) -> Instant;
    /// Seconds since the Unix epoch.
    fn now_secs(&self) -> u64 {
        self.now_ms() / 1000
    }
}

/// A clock that components share.
pub type SharedClock = Arc<dyn Clock>;

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// As a [`SharedClock`].
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// A clock that moves only when told to. Clones show the same time.
#[derive(Debug, Clone)]
pub struct ManualClock {
    start: Instant,
    start_ms: u64,
    elapsed_ms: Arc<AtomicU64>,
}

impl ManualClock {
    /// Stands still at this time.
    pub fn at_ms(start_ms: u64) -> Self {
        Self { start: Instant::now(), start_ms, elapsed_ms: Arc::default() }
    }
    /// Moves on.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.elapsed_ms.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.start_ms + self.elapsed_ms.load(Ordering::SeqCst)
    }
    fn monotonic(&self) -> Instant {
        self.start + Duration::from_millis(self.elapsed_ms.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_both_times_together() {
        let clock = ManualClock::at_ms(1_000);
        let before = clock.monotonic();
        clock.clone().advance(Duration::from_millis(2_500));
        assert_eq!(clock.now_ms(), 3_500);
        assert_eq!(clock.now_secs(), 3);
        assert_eq!(clock.monotonic() - before, Duration::from_millis(2_500));
    }

    #[test]
    fn the_system_clock_is_past_2025() {
        assert!(SystemClock.now_secs() > 1_735_689_600);
    }
}
