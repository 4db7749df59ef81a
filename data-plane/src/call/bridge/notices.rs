//! What a server of an older revision says on the side of a call, for a stateless client: progress
//! that it asked for, and log messages from the level that its request names.

use bytes::Bytes;

use crate::call::forward::Scope;
use crate::mcp::envelope::utf8;
use crate::mcp::level::Level;
use crate::mcp::members::Members;

const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// What one request wants to hear.
#[derive(Debug, Clone, Default)]
pub struct Notices {
    /// Its progress token, raw.
    token: Option<Bytes>,
    /// From which level on; none hears nothing.
    level: Option<Level>,
}

impl Notices {
    /// Of a request's `_meta`.
    pub fn of(scope: Scope<'_>) -> Self {
        let meta = scope.call.message().and_then(|m| m.params()).and_then(|p| p.meta.as_ref());
        let Some(members) = meta.and_then(|raw| Members::parse(utf8(raw)).ok()) else {
            return Self::default();
        };
        let token = members.get("progressToken");
        Self {
            token: token.map(|raw| Bytes::copy_from_slice(raw.get().as_bytes())),
            level: members.text(LOG_LEVEL).and_then(|text| Level::parse(&text)),
        }
    }

    /// The notification as this request gets it; none when it does not.
    pub fn pass(&self, raw: Bytes) -> Option<Bytes> {
        let text = std::str::from_utf8(&raw).ok()?;
        let members = Members::parse(text).ok()?;
        let params = members.get("params").map(|raw| Members::parse(raw.get()));
        match (members.text("method")?.as_ref(), params) {
            ("notifications/message", Some(Ok(params))) => {
                let said = params.text("level").and_then(|text| Level::parse(&text))?;
                (said >= self.level?).then_some(raw)
            }
            ("notifications/progress", Some(Ok(params))) => {
                let ours = params.get("progressToken")?.get();
                let token = utf8(self.token.as_ref()?);
                // A retry may name another token than the call that it goes on with.
                Some(if ours == token {
                    raw
                } else {
                    crate::mcp::adapt::replaced(&raw, ours, token)
                })
            }
            // Statelessly, what is not about the request has no place on its stream.
            ("notifications/message" | "notifications/progress", _) => None,
            (method, _) if method.ends_with("/list_changed") => None,
            ("notifications/resources/updated" | "notifications/cancelled", _) => None,
            ("notifications/elicitation/complete" | "notifications/tasks/status", _) => None,
            _ => Some(raw),
        }
    }
}

/// True for a log message below a level that a client of an older revision has set.
pub fn too_quiet(raw: &[u8], level: Level) -> bool {
    let below = || -> Option<bool> {
        let members = Members::parse(std::str::from_utf8(raw).ok()?).ok()?;
        if members.text("method")? != "notifications/message" {
            return None;
        }
        let params = Members::parse(members.get("params")?.get()).ok()?;
        Some(Level::parse(&params.text("level")?)? < level)
    };
    below() == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_hear_what_they_asked_for() {
        let log = |level: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":1.0}}}}"#
            )
        };
        let progress =
            r#"{"method":"notifications/progress","params":{"progressToken":"a","progress":1}}"#;
        let quiet = Notices::default();
        let warned =
            Notices { token: Some(Bytes::from_static(b"7")), level: Level::parse("warning") };
        let changed = r#"{"method":"notifications/tools/list_changed"}"#.to_owned();
        let own = r#"{"method":"notifications/vendor/x"}"#.to_owned();
        for (notices, message, expected) in [
            (&quiet, log("emergency"), None),
            (&warned, log("info"), None),
            (&warned, log("loud"), None),
            (&warned, log("warning"), Some(log("warning"))),
            (&warned, log("alert"), Some(log("alert"))),
            (&quiet, progress.to_owned(), None),
            (&warned, progress.to_owned(), Some(progress.replace("\"a\"", "7"))),
            (&warned, changed, None),
            (&quiet, own.clone(), Some(own)),
        ] {
            let got = notices.pass(Bytes::from(message.clone()));
            assert_eq!(got.as_deref(), expected.as_deref().map(str::as_bytes), "{message}");
        }
    }

    #[test]
    fn sessions_hear_from_the_level_that_they_set() {
        let log = |level: &str| {
            format!(r#"{{"method":"notifications/message","params":{{"level":"{level}"}}}}"#)
        };
        let warning = Level::parse("warning").unwrap();
        for (message, quiet) in [
            (log("info"), true),
            (log("warning"), false),
            (log("alert"), false),
            (log("loud"), false),
            (r#"{"method":"notifications/progress","params":{"level":"info"}}"#.to_owned(), false),
            ("x".to_owned(), false),
        ] {
            assert_eq!(too_quiet(message.as_bytes(), warning), quiet, "{message}");
        }
    }
}
