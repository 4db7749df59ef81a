//! Answers of one era for clients of the other, on raw bytes.
//!
//! Only the members that the eras disagree on are touched (`resultType`, `ttlMs`, `cacheScope`); all other bytes stay as the server sent them.

use bytes::{Bytes, BytesMut};
use weir_model::reason::{Reason, Refusal};

use super::envelope::utf8;
use super::members::{self, Members};
use super::methods::Method;

/// What the answer's bytes have to be checked and changed for.
#[derive(Debug, Clone, Copy)]
pub struct Adapt {
    /// The client speaks a stateless revision.
    pub front_modern: bool,
    /// The server spoke one.
    pub back_modern: bool,
    /// Of the request.
    pub method: &'static Method,
}

impl Adapt {
    /// The result as the client's era has it.
    ///
    /// # Errors
    /// [`Reason::UpstreamProtocol`] when it is no object, [`Reason::CannotBridge`] when the server
    /// wants input that an older client cannot be asked for here.
    pub fn result(&self, raw: Bytes) -> Result<Bytes, Refusal> {
        let touched = self.front_modern != self.back_modern || self.method.cacheable;
        if !touched {
            return Ok(raw);
        }
        match (self.front_modern, self.back_modern) {
            (true, _) => self.for_modern(&raw),
            (false, true) => for_legacy(&raw),
            (false, false) => Ok(raw),
        }
    }

    /// A JSON-RPC error as the client's era has it, and its code.
    pub fn error(&self, raw: Bytes) -> (Bytes, i64) {
        /// Of revisions up to 2025-11-25: resource not found.
        const NOT_FOUND: i64 = -32002;
        const INVALID_PARAMS: i64 = -32602;
        let read = |text: &str| -> Option<(i64, Option<Bytes>)> {
            let members = Members::parse(text).ok()?;
            let code = members.get("code")?;
            let number: i64 = code.get().parse().ok()?;
            if number != NOT_FOUND || !self.front_modern {
                return Some((number, None));
            }
            let mut edits = Edits::new(text);
            edits.replace(code.get(), "-32602");
            Some((INVALID_PARAMS, Some(edits.apply(&raw))))
        };
        let Some((code, changed)) = std::str::from_utf8(&raw).ok().and_then(read) else {
            return (raw, -32603);
        };
        (changed.unwrap_or_else(|| raw.clone()), code)
    }

    fn for_modern(&self, raw: &Bytes) -> Result<Bytes, Refusal> {
        let text = text_of(raw)?;
        let members = read(text)?;
        let mut edits = Edits::new(text);
        if members.get("resultType").is_none() {
            edits.add(r#""resultType":"complete""#);
        }
        let complete = members.text("resultType").is_none_or(|t| t == "complete");
        if self.method.cacheable && complete {
            if members.get("ttlMs").is_none() {
                edits.add(r#""ttlMs":0"#);
            }
            // What a caller gets depends on what it may see: nobody may share it.
            match members.get("cacheScope") {
                None => edits.add(r#""cacheScope":"private""#),
                Some(scope) if scope.get() == r#""private""# => {}
                Some(scope) => edits.replace(scope.get(), r#""private""#),
            }
        }
        Ok(edits.apply(raw))
    }
}

fn for_legacy(raw: &Bytes) -> Result<Bytes, Refusal> {
    let text = text_of(raw)?;
    let members = read(text)?;
    if members.text("resultType").is_some_and(|kind| kind != "complete") {
        return Err(Refusal::new(Reason::CannotBridge, "the server wants input or made a task"));
    }
    let gone = |name: &str| matches!(name, "resultType" | "ttlMs" | "cacheScope");
    if !members.iter().any(|(name, _)| gone(name)) {
        return Ok(raw.clone());
    }
    let mut out = BytesMut::with_capacity(raw.len());
    out.extend_from_slice(b"{");
    for (name, value) in members.iter().filter(|(name, _)| !gone(name)) {
        if out.len() > 1 {
            out.extend_from_slice(b",");
        }
        out.extend_from_slice(quoted(name).as_bytes());
        out.extend_from_slice(b":");
        out.extend_from_slice(value.get().as_bytes());
    }
    out.extend_from_slice(b"}");
    Ok(out.freeze())
}

/// `raw` with the value `part`, a slice of it, replaced.
pub fn replaced(raw: &Bytes, part: &str, value: &str) -> Bytes {
    let mut edits = Edits::new(utf8(raw));
    edits.replace(part, value);
    edits.apply(raw)
}

/// A JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn text_of(raw: &Bytes) -> Result<&str, Refusal> {
    std::str::from_utf8(raw).map_err(|_| broken("the result is not UTF-8"))
}

fn read(text: &str) -> Result<Members<'_>, Refusal> {
    Members::parse(text).map_err(|_| broken("the result is no JSON object"))
}

fn broken(detail: &str) -> Refusal {
    Refusal::new(Reason::UpstreamProtocol, detail)
}

/// Changes to the text of one object, which stays as it is everywhere else.
struct Edits<'a> {
    text: &'a str,
    added: Vec<&'static str>,
    replaced: Vec<(std::ops::Range<usize>, &'a str)>,
}

impl<'a> Edits<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, added: Vec::new(), replaced: Vec::new() }
    }
    fn add(&mut self, member: &'static str) {
        self.added.push(member);
    }
    fn replace(&mut self, part: &str, value: &'a str) {
        self.replaced.push((members::position(self.text, part), value));
    }
    fn apply(self, raw: &Bytes) -> Bytes {
        if self.added.is_empty() && self.replaced.is_empty() {
            return raw.clone();
        }
        let mut out = BytesMut::with_capacity(self.text.len() + 96);
        let open = self.text.find('{').map_or(0, |at| at + 1);
        out.extend_from_slice(&self.text.as_bytes()[..open]);
        out.extend_from_slice(self.added.join(",").as_bytes());
        let empty = self.text[open..].trim_start().starts_with('}');
        if !self.added.is_empty() && !empty {
            out.extend_from_slice(b",");
        }
        let mut at = open;
        for (range, value) in self.replaced {
            out.extend_from_slice(&self.text.as_bytes()[at..range.start]);
            out.extend_from_slice(value.as_bytes());
            at = range.end;
        }
        out.extend_from_slice(&self.text.as_bytes()[at..]);
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::super::methods;
    use super::*;

    fn adapted(front: bool, back: bool, method: &str, raw: &'static str) -> Result<String, Reason> {
        let method = methods::find(method).unwrap();
        Adapt { front_modern: front, back_modern: back, method }
            .result(Bytes::from_static(raw.as_bytes()))
            .map(|bytes| utf8(&bytes).to_owned())
            .map_err(|refusal| refusal.reason)
    }

    #[test]
    fn results_get_and_lose_what_their_era_has() {
        let call = "tools/call";
        let read = "resources/read";
        type Row = (bool, bool, &'static str, &'static str, Result<&'static str, Reason>);
        let table: &[Row] = &[
            (
                true,
                false,
                call,
                r#"{"content":[]}"#,
                Ok(r#"{"resultType":"complete","content":[]}"#),
            ),
            (true, false, call, "{ }", Ok(r#"{"resultType":"complete" }"#)),
            (
                true,
                false,
                read,
                r#"{"contents":[1.10]}"#,
                Ok(
                    r#"{"resultType":"complete","ttlMs":0,"cacheScope":"private","contents":[1.10]}"#,
                ),
            ),
            (true, true, call, r#"{"x": 1}"#, Ok(r#"{"x": 1}"#)),
            (
                true,
                true,
                read,
                r#"{"resultType":"complete","ttlMs":5,"cacheScope":"public","c":1}"#,
                Ok(r#"{"resultType":"complete","ttlMs":5,"cacheScope":"private","c":1}"#),
            ),
            (
                true,
                true,
                read,
                r#"{"resultType":"input_required","requestState":"s"}"#,
                Ok(r#"{"resultType":"input_required","requestState":"s"}"#),
            ),
            (
                false,
                true,
                read,
                r#"{"resultType":"complete","a": 1.0,"ttlMs":0,"cacheScope":"x","b":"\u0061"}"#,
                Ok(r#"{"a":1.0,"b":"\u0061"}"#),
            ),
            (false, true, call, r#"{"resultType":"input_required"}"#, Err(Reason::CannotBridge)),
            (false, false, call, r#"{"resultType":"x"}"#, Ok(r#"{"resultType":"x"}"#)),
            (true, false, call, "[]", Err(Reason::UpstreamProtocol)),
        ];
        for (front, back, method, raw, expected) in table {
            let got = adapted(*front, *back, method, raw);
            assert_eq!(got, expected.map(str::to_owned), "{method} {raw}");
        }
    }
}
