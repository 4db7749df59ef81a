//! What a server of an older revision was told of its client's log level: once, before the first
//! call that finds that the client wants another one.

use bytes::Bytes;
use parking_lot::Mutex;

use super::raw;
use crate::mcp::level::Level;

/// The level that a server knows of, in one session.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<Option<Level>>);

impl Told {
    /// `params` of `logging/setLevel` where the server has to be told, which is noted as done: a
    /// server that fails at it is not asked with every call. `offer` is its answer to `initialize`.
    pub(crate) fn news(&self, wanted: Option<Level>, offer: &[u8]) -> Option<Bytes> {
        let level = wanted?;
        let mut told = self.0.lock();
        if *told == Some(level) {
            return None;
        }
        raw::at(offer, &["capabilities", "logging"])?;
        *told = Some(level);
        Some(format!(r#"{{"level":"{}"}}"#, level.as_str()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_log_are_told_once() {
        let level = Level::parse;
        let logs = br#"{"capabilities":{"logging":{}}}"#;
        let told = Told::default();
        assert_eq!(told.news(None, logs), None);
        assert_eq!(told.news(level("error"), br#"{"capabilities":{}}"#), None);
        assert_eq!(told.news(level("error"), logs).unwrap(), r#"{"level":"error"}"#);
        assert_eq!(told.news(level("error"), logs), None);
        assert_eq!(told.news(level("debug"), logs).unwrap(), r#"{"level":"debug"}"#);
    }
}
