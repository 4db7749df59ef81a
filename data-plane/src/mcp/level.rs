//! Severities of log messages.

/// A severity of RFC 5424, as `logging/setLevel` and `_meta` name it. Ordered: the more severe is
/// the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(usize);

/// Least severe first.
const NAMES: [&str; 8] =
    ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

impl Level {
    /// What a client of an older revision hears that has not said from which level on: the
    /// specification leaves that to the server, and a stateless one needs to be told.
    pub const UNSAID: Self = Self(1);

    /// The level of that name.
    pub fn parse(name: &str) -> Option<Self> {
        NAMES.iter().position(|known| *known == name).map(Self)
    }

    /// On the wire.
    pub fn as_str(self) -> &'static str {
        NAMES[self.0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_read_back() {
        let all = NAMES.map(|name| Level::parse(name).unwrap());
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(all.iter().all(|level| Level::parse(level.as_str()) == Some(*level)));
        assert_eq!(Level::UNSAID.as_str(), "info");
        for other in ["", "Info", "loud"] {
            assert_eq!(Level::parse(other), None, "{other}");
        }
    }
}
