//! Calendar facts of a moment, UTC.

/// A moment as rules read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    seconds: i64,
    pub hour: i64,
    pub minute: i64,
    /// 1 is Monday, 7 is Sunday.
    pub weekday: i64,
}

impl Moment {
    pub(super) fn at(seconds: i64) -> Self {
        let of_day = seconds.rem_euclid(86_400);
        // The epoch was a Thursday.
        let weekday = (seconds.div_euclid(86_400) + 3).rem_euclid(7) + 1;
        Self { seconds, hour: of_day / 3_600, minute: of_day / 60 % 60, weekday }
    }

    /// `2026-11-23T09:30:00Z`; moments out of range are the epoch's first second.
    pub(super) fn iso(self) -> String {
        let stamp =
            jiff::Timestamp::from_second(self.seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_weekdays_and_hours() {
        let cases = [
            (0, (0, 0, 4), "1970-01-01T00:00:00Z"),
            (-1, (23, 59, 3), "1969-12-31T23:59:59Z"),
            (1_795_426_200, (9, 30, 1), "2026-11-23T09:30:00Z"),
            (1_795_910_399, (23, 59, 6), "2026-11-28T23:59:59Z"),
        ];
        for (seconds, (hour, minute, weekday), iso) in cases {
            let moment = Moment::at(seconds);
            assert_eq!((moment.hour, moment.minute, moment.weekday), (hour, minute, weekday));
            assert_eq!(moment.iso(), iso);
        }
    }
}
