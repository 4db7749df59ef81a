//! One JSON-RPC message from a client, read lazily.
//!
//! The envelope and the top level of `params` are parsed once; everything below stays raw until
//! somebody has to look. What a phase needs later are slices of the body (reference counted, not
//! copied).

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;
use weir_model::reason::{Reason, Refusal};

use super::members::{self, Members};

/// A JSON-RPC id: answered exactly as it was received, compared by what it means.
#[derive(Debug, Clone)]
pub struct Id {
    raw: Bytes,
    key: Box<str>,
}

impl Id {
    /// The JSON text as received.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }
    /// Equal for equal ids: `"a"` and `"\u0061"`, `1` and `1.0`.
    pub fn key(&self) -> &str {
        &self.key
    }

    fn read(raw: &RawValue, body: &Bytes) -> Result<Self, Refusal> {
        let key = id_key(raw).ok_or_else(|| {
            invalid("id is no string or integer").hint("The id must be a string or an integer.")
        })?;
        Ok(Self { raw: slice(body, raw.get()), key: key.into() })
    }
}

/// The [`Id::key`] of a raw id; none when it is no string or integer.
pub fn id_key(raw: &RawValue) -> Option<String> {
    let text = raw.get();
    match text.as_bytes().first()? {
        b'"' => members::text(raw).map(|t| format!("s{t}")),
        b'-' | b'0'..=b'9' => integer(text).map(|n| format!("n{n}")),
        _ => None,
    }
}

/// The integer that a JSON number stands for, without leading noise: `1`, `1.0` and `1e0` are one.
fn integer(text: &str) -> Option<Cow<'_, str>> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if !text.contains(['.', 'e', 'E']) {
        return Some(Cow::Borrowed(if text == "-0" { "0" } else { text }));
    }
    let number: f64 = text.parse().ok()?;
    (number.fract() == 0.0 && number.abs() <= EXACT).then(|| Cow::Owned(format!("{number:.0}")))
}

/// One message.
#[derive(Debug)]
pub enum Message {
    /// Wants an answer.
    Request {
        /// Of the request.
        id: Id,
        /// Of the request.
        method: Box<str>,
        /// An object.
        params: Params,
    },
    /// Wants none.
    Notification {
        /// Of the notification.
        method: Box<str>,
        /// An object.
        params: Params,
    },
    /// The client's answer to a request of a server (older revisions).
    Response {
        /// Of the server's request.
        id: Id,
    },
}

impl Message {
    /// The id that an answer has to carry.
    pub fn id(&self) -> Option<&Id> {
        match self {
            Self::Request { id, .. } => Some(id),
            _ => None,
        }
    }
    /// The method, where there is one.
    pub fn method(&self) -> Option<&str> {
        match self {
            Self::Request { method, .. } | Self::Notification { method, .. } => Some(method),
            Self::Response { .. } => None,
        }
    }
    /// The parameters, where there are some.
    pub fn params(&self) -> Option<&Params> {
        match self {
            Self::Request { params, .. } | Self::Notification { params, .. } => Some(params),
            Self::Response { .. } => None,
        }
    }
}

/// A refusal of the envelope, with the id when that much could be read.
#[derive(Debug)]
pub struct Unreadable {
    /// Why.
    pub refusal: Refusal,
    /// For the answer.
    pub id: Option<Bytes>,
}

impl From<Refusal> for Unreadable {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, id: None }
    }
}

fn invalid(detail: &str) -> Refusal {
    Refusal::new(Reason::InvalidRequest, detail)
}

/// A part of the body as a reference-counted slice.
fn slice(body: &Bytes, part: &str) -> Bytes {
    body.slice_ref(part.as_bytes())
}

/// Reads one message.
///
/// # Errors
/// [`Reason::MalformedJson`], [`Reason::TooDeep`], [`Reason::DuplicateKey`],
/// [`Reason::InvalidRequest`] and [`Reason::InvalidParams`].
pub fn read(body: &Bytes) -> Result<Message, Unreadable> {
    let text = members::scan(body).map_err(Refusal::from)?;
    if text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('[') {
        return Err(invalid("a batch")
            .hint("Send one message; batches exist in revision 2025-03-26 only.")
            .into());
    }
    let members = Members::parse(text).map_err(Refusal::from)?;
    // The id first, so that every later refusal can carry it.
    let id = match members.get("id") {
        Some(raw) => Some(Id::read(raw, body)?),
        None => None,
    };
    let raw = id.as_ref().map(|id| id.raw.clone());
    read_kind(&members, id, body).map_err(|refusal| Unreadable { refusal, id: raw })
}

fn read_kind(members: &Members<'_>, id: Option<Id>, body: &Bytes) -> Result<Message, Refusal> {
    if members.text("jsonrpc").as_deref() != Some("2.0") {
        return Err(invalid("jsonrpc is not 2.0").hint("The member jsonrpc must be \"2.0\"."));
    }
    let answers = ["result", "error"].iter().filter(|m| members.get(m).is_some()).count();
    let Some(method) = members.get("method") else {
        return match (id, answers) {
            (Some(id), 1) => Ok(Message::Response { id }),
            _ => Err(invalid("neither a method nor one answer")),
        };
    };
    if answers > 0 {
        return Err(invalid("a method beside an answer"));
    }
    let method = members::text(method).ok_or_else(|| invalid("method is no string"))?;
    let params = Params::read(members.get("params"), body)?;
    let method = method.into_owned().into_boxed_str();
    Ok(match id {
        Some(id) => Message::Request { id, method, params },
        None => Message::Notification { method, params },
    })
}

/// What a completion is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// `ref/prompt`, by name.
    Prompt(String),
    /// `ref/resource`, by URI or template.
    Resource(String),
}

/// The top level of `params`: the members that the gateway acts on, and the raw rest.
#[derive(Debug, Default)]
pub struct Params {
    /// The whole object; none when there was none.
    pub raw: Option<Bytes>,
    /// `name` of tools and prompts.
    pub name: Option<String>,
    /// `uri` of resources.
    pub uri: Option<String>,
    /// `taskId`.
    pub task: Option<String>,
    /// `cursor` of lists.
    pub cursor: Option<String>,
    /// `arguments`, raw.
    pub arguments: Option<Bytes>,
    /// `_meta`, raw object.
    pub meta: Option<Bytes>,
    /// `ref` of a completion.
    pub reference: Option<Reference>,
    /// True for a call that is to run as a task (2025-11-25).
    pub augmented: bool,
    /// True when this repeats a call with `inputResponses` or `requestState`.
    pub retry: bool,
}

impl Params {
    fn read(raw: Option<&RawValue>, body: &Bytes) -> Result<Self, Refusal> {
        let Some(raw) = raw.filter(|raw| raw.get() != "null") else {
            return Ok(Self::default());
        };
        if !members::is_object(raw) {
            return Err(Refusal::new(Reason::InvalidParams, "params is no object")
                .hint("The member params must be an object."));
        }
        let members = Members::parse(raw.get()).map_err(Refusal::from)?;
        let mut params = Self { raw: Some(slice(body, raw.get())), ..Self::default() };
        for (name, value) in members.iter() {
            match name {
                "name" => params.name = Some(string(name, value)?),
                "uri" => params.uri = Some(string(name, value)?),
                "taskId" => params.task = Some(string(name, value)?),
                "cursor" => params.cursor = Some(string(name, value)?),
                "arguments" => params.arguments = Some(object(name, value, body)?),
                "_meta" => params.meta = Some(object(name, value, body)?),
                "ref" => params.reference = Some(reference(value)?),
                "task" => params.augmented = true,
                "inputResponses" | "requestState" => params.retry = true,
                _ => {}
            }
        }
        Ok(params)
    }

    /// The whole object as text; `{}` when there was none.
    pub fn text(&self) -> &str {
        self.raw.as_deref().map_or("{}", utf8)
    }
}

/// Slices of a scanned body are UTF-8.
pub fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("a slice of text that was checked to be UTF-8")
}

fn wrong_type(name: &str, wanted: &str) -> Refusal {
    Refusal::new(Reason::InvalidParams, format!("params.{name} is no {wanted}"))
        .hint(format!("The parameter {name} must be a {wanted}."))
}

fn string(name: &str, value: &RawValue) -> Result<String, Refusal> {
    members::text(value).map(Cow::into_owned).ok_or_else(|| wrong_type(name, "string"))
}

fn object(name: &str, value: &RawValue, body: &Bytes) -> Result<Bytes, Refusal> {
    if members::is_object(value) {
        Ok(slice(body, value.get()))
    } else {
        Err(wrong_type(name, "JSON object"))
    }
}

fn reference(value: &RawValue) -> Result<Reference, Refusal> {
    if !members::is_object(value) {
        return Err(wrong_type("ref", "JSON object"));
    }
    let members = Members::parse(value.get()).map_err(Refusal::from)?;
    let part = |name: &str| members.text(name).map(Cow::into_owned);
    match members.text("type").as_deref() {
        Some("ref/prompt") => part("name").map(Reference::Prompt),
        Some("ref/resource") => part("uri").map(Reference::Resource),
        _ => None,
    }
    .ok_or_else(|| wrong_type("ref", "ref/prompt with a name or ref/resource with a uri"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Reason {
        match read(&Bytes::copy_from_slice(text.as_bytes())) {
            Ok(message) => panic!("{text} was read as {message:?}"),
            Err(unreadable) => unreadable.refusal.reason,
        }
    }

    fn good(text: &str) -> Message {
        read(&Bytes::copy_from_slice(text.as_bytes())).unwrap_or_else(|e| panic!("{text}: {e:?}"))
    }

    #[test]
    fn every_broken_envelope_has_its_reason() {
        let deep = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"arguments":{{"a":{}{}}}}}}}"#,
            "[".repeat(5_000),
            "]".repeat(5_000)
        );
        let table: &[(&str, Reason)] = &[
            ("", Reason::MalformedJson),
            ("{", Reason::MalformedJson),
            ("\u{feff}{}", Reason::MalformedJson),
            ("nonsense", Reason::MalformedJson),
            ("\"text\"", Reason::MalformedJson),
            (r#"["2.0",1,"tools/call",{}]"#, Reason::InvalidRequest),
            (r#"  [{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, Reason::InvalidRequest),
            (r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#, Reason::DuplicateKey),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"b"}"#, Reason::DuplicateKey),
            (r#"{"jsonrpc":"2.0","id":1,"x":0,"x":0,"method":"b"}"#, Reason::DuplicateKey),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"b","params":{"name":"a","name":"b"}}"#,
                Reason::DuplicateKey,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"b","params":{"name":"a","n\u0061me":"b"}}"#,
                Reason::DuplicateKey,
            ),
            (r#"{"jsonrpc":"2.0","id":null,"method":"b"}"#, Reason::InvalidRequest),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"b"}"#, Reason::InvalidRequest),
            (r#"{"jsonrpc":"2.0","id":{},"method":"b"}"#, Reason::InvalidRequest),
            (r#"{"jsonrpc":"2.0","id":true,"method":"b"}"#, Reason::InvalidRequest),
            (r#"{"jsonrpc":"1.0","id":1,"method":"b"}"#, Reason::InvalidRequest),
            (r#"{"id":1,"method":"b"}"#, Reason::InvalidRequest),
            (r#"{"jsonrpc":"2.0","id":1}"#, Reason::InvalidRequest),
            (r#"{"jsonrpc":"2.0","result":{}}"#, Reason::InvalidRequest),
            (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, Reason::InvalidRequest),
            (r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#, Reason::InvalidRequest),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, Reason::InvalidRequest),
            (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":[1]}"#, Reason::InvalidParams),
            (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":1}}"#, Reason::InvalidParams),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"arguments":[]}}"#,
                Reason::InvalidParams,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"ref":{"type":"x"}}}"#,
                Reason::InvalidParams,
            ),
            (&deep, Reason::TooDeep),
        ];
        for (text, reason) in table {
            assert_eq!(refused(text), *reason, "{}", &text[..text.len().min(90)]);
        }
    }

    #[test]
    fn refusals_after_the_id_carry_it() {
        let body = Bytes::from_static(br#"{"jsonrpc":"1.0","id":"x","method":"m"}"#);
        assert_eq!(read(&body).unwrap_err().id.unwrap(), Bytes::from_static(b"\"x\""));
    }

    #[test]
    fn ids_are_kept_as_received_and_compared_by_meaning() {
        let table = [
            ("1", "n1"),
            ("1.0", "n1"),
            ("10e-1", "n1"),
            ("-0", "n0"),
            ("12345678901234567890123", "n12345678901234567890123"),
            ("\"1\"", "s1"),
            ("\"\\u0061\"", "sa"),
        ];
        for (raw, key) in table {
            let message = good(&format!(r#"{{"jsonrpc":"2.0","id":{raw},"method":"m"}}"#));
            let id = message.id().unwrap();
            assert_eq!((utf8(id.raw()), id.key()), (raw, key));
        }
    }

    #[test]
    fn kinds_and_views() {
        let call = good(
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a\n","arguments":{"n":1.10},"_meta":{"progressToken":1},"x":[]}}"#,
        );
        let params = call.params().unwrap();
        assert_eq!(params.name.as_deref(), Some("a\n"));
        assert_eq!(params.arguments.as_deref(), Some(&br#"{"n":1.10}"#[..]));
        assert!(params.meta.is_some() && !params.retry);
        let note = good(r#"{"jsonrpc":"2.0","method":"notifications/initialized","params":null}"#);
        assert!(matches!(&note, Message::Notification { params, .. } if params.raw.is_none()));
        let answer = good(r#"{"jsonrpc":"2.0","id":"s","error":{"code":1,"message":""}}"#);
        assert!(matches!(answer, Message::Response { id } if id.key() == "ss"));
        let complete = good(
            r#"{"jsonrpc":"2.0","id":7,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"}}}"#,
        );
        let reference = complete.params().unwrap().reference.clone();
        assert_eq!(reference, Some(Reference::Prompt("p".into())));
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends_in_an_answer(text: String, id in "[0-9a-z\"\\\\.{}-]{0,8}") {
            let _ = read(&Bytes::from(text));
            let _ = read(&Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#)));
        }
    }
}
