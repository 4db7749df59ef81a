//! From which severity on sessions of older revisions want to hear log messages.
//!
//! A session whose server is its own says so to that server. Here is what sessions said that the
//! gateway keeps: their stateless servers are told with every request, their older ones once per session,
//! and what is sent anyway stays here. A session that says nothing hears what its servers choose.
//!
//! Told to the other proxies ([`crate::neighbours`]), and lost with one that is started anew: there such
//! a session hears from `info` on again until its client sets a level anew.

use std::time::Duration;

use moka::sync::Cache;
use weir_model::bounds;

use crate::mcp::level::Level;

/// Levels of sessions, by nonce.
#[derive(Debug, Clone)]
pub struct Levels(Cache<String, Level>);

impl Default for Levels {
    fn default() -> Self {
        let age = Duration::from_secs(bounds::SESSION_SECS_MAX.unsigned_abs());
        Self(Cache::builder().max_capacity(bounds::LOGGING_SESSIONS_MAX).time_to_idle(age).build())
    }
}

impl Levels {
    /// From now on.
    pub fn set(&self, session: &str, level: Level) {
        self.0.insert(session.to_owned(), level);
    }

    /// What the session said; none when it said nothing here.
    pub fn get(&self, session: &str) -> Option<Level> {
        self.0.get(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_session_counts() {
        let levels = Levels::default();
        assert_eq!(levels.get("a"), None);
        for name in ["error", "debug"] {
            let level = Level::parse(name).unwrap();
            levels.set("a", level);
            assert_eq!(levels.get("a"), Some(level));
        }
        assert_eq!(levels.get("b"), None);
    }
}
