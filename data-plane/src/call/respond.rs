//! Phase 9: the one place that picks HTTP statuses and JSON-RPC errors.
//!
//! A refusal becomes an answer by its reason alone. Stateless clients get the status of the table
//! of reasons; older ones get JSON-RPC errors with 200 once a request could be read, since their
//! libraries take other statuses for a broken transport. What fails below JSON-RPC, and what is
//! about tokens and sessions, has its own status in every revision. The audit record is closed
//! before the answer leaves, or moves into the stream that answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use serde_json::json;
use weir_model::audit::Outcome;
use weir_model::reason::{Reason, Refusal};

use super::Stop;
use super::record::Record;
use super::relay::Flow;
use super::resume::{Again, Rest};
use crate::mcp::batch::Item;
use crate::mcp::session;
use crate::replay::{self, Frames};

/// How to answer, as far as it is known yet.
#[derive(Debug, Default)]
pub struct Reply {
    /// The request's id, raw; none for messages without an answer.
    pub id: Option<Bytes>,
    /// The client's era.
    pub modern: Option<bool>,
    /// Bytes of the body.
    pub request_bytes: u64,
    /// The client takes no stream: it gets the last message alone.
    pub whole: bool,
    /// The client may ask for its streams again.
    pub again: Option<Again>,
    /// `WWW-Authenticate`, should the caller turn out to lack something.
    pub challenge: Option<HeaderValue>,
}

/// What the phases came to.
#[derive(Debug)]
pub enum Answer {
    /// A result.
    Result {
        /// The `result` member.
        raw: Bytes,
        /// How the call ended.
        outcome: Outcome,
        /// The session that `initialize` opened.
        session: Option<String>,
    },
    /// A JSON-RPC error of the server.
    Error {
        /// The `error` member.
        raw: Bytes,
        /// Its code.
        code: i64,
    },
    /// A stream.
    Stream(Box<Flow>),
    /// The rest of a stream that the client had before.
    Again(Rest),
    /// Each item is a call of its own, with its own answer.
    Batch(Vec<Item>),
    /// Taken note of.
    Accepted,
    /// Another one answers, and writes the record.
    HandedOver,
    /// Another proxy has answered, and writes the record.
    Elsewhere(Box<Response<Body>>),
    /// The session is over.
    Ended,
}

/// The body of an answer.
pub enum Body {
    /// All of it.
    Whole(Option<Bytes>),
    /// Frame by frame.
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Whole(_) => "Whole",
            Self::Stream(_) => "Stream",
        })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Stream(stream) => {
                stream.as_mut().poll_next(context).map(|next| next.map(|b| Ok(Frame::data(b))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Answers, and closes the record (or hands it to the stream).
pub async fn finish(
    result: Result<Answer, Stop>,
    reply: Reply,
    mut record: Record,
) -> Response<Body> {
    record.facts.request_bytes = reply.request_bytes;
    let result = match result {
        Ok(Answer::Stream(flow)) if reply.whole => Box::pin(flow.settle()).await,
        result => result,
    };
    let request_id = HeaderValue::from_str(&record.facts.request_id).ok();
    let (mut response, outcome) = match result {
        Ok(Answer::Stream(flow)) => {
            record.streams();
            let mut response = stream(*flow, reply, record);
            put(&mut response, "x-request-id", request_id);
            return response;
        }
        Ok(Answer::Again(rest)) => {
            let mut response = events(rest.into_stream(record));
            put(&mut response, "x-request-id", request_id);
            return response;
        }
        Ok(answer) => {
            if let Answer::Result { raw, .. } | Answer::Error { raw, .. } = &answer {
                record.answered(raw);
            }
            answered(answer, &reply)
        }
        Err(stop) => {
            tracing::info!(
                reason = %stop.truth.unwrap_or(stop.refusal.reason),
                detail = %stop.refusal.detail,
                "refused"
            );
            let outcome = Outcome::Refused(stop.truth.unwrap_or(stop.refusal.reason));
            (refused(&stop.refusal, &reply), outcome)
        }
    };
    let bytes = http_body::Body::size_hint(response.body()).exact().unwrap_or_default();
    if let Err(reason) = record.close(outcome, bytes).await {
        response = refused(&reason.into(), &reply);
    }
    put(&mut response, "x-request-id", request_id);
    response
}

/// The answer when not even a record could be opened.
pub fn unrecorded(reason: Reason) -> Response<Body> {
    refused(&reason.into(), &Reply::default())
}

fn answered(answer: Answer, reply: &Reply) -> (Response<Body>, Outcome) {
    let none = Bytes::from_static(b"null");
    let id = reply.id.as_ref().unwrap_or(&none);
    match answer {
        Answer::Result { raw, outcome, session } => {
            let mut response = json(StatusCode::OK, enveloped(id, "result", &raw));
            if let Some(session) = session {
                put(&mut response, session::HEADER, HeaderValue::from_str(&session).ok());
            }
            (response, outcome)
        }
        Answer::Error { raw, code } => {
            let status = upstream_status(code, reply.modern == Some(true));
            (json(status, enveloped(id, "error", &raw)), Outcome::ProtocolError(code))
        }
        Answer::Ended => (empty(StatusCode::NO_CONTENT), Outcome::Success),
        Answer::Accepted
        | Answer::Stream(_)
        | Answer::Again(_)
        | Answer::Batch(_)
        | Answer::Elsewhere(_)
        | Answer::HandedOver => (empty(StatusCode::ACCEPTED), Outcome::Success),
    }
}

fn stream(flow: Flow, reply: Reply, record: Record) -> Response<Body> {
    let id = reply.id.clone().unwrap_or_else(|| Bytes::from_static(b"null"));
    let frames: Frames = Box::pin(flow.into_stream(id, record));
    events(match reply.again {
        Some(again) => again.track(frames, reply.id),
        None => replay::plain(frames),
    })
}

/// An answer that is a stream of events.
pub fn events(frames: Pin<Box<dyn Stream<Item = Bytes> + Send>>) -> Response<Body> {
    let mut response = Response::new(Body::Stream(frames));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// True for an error of the server that has a status of its own.
pub fn has_status(code: i64, modern: bool) -> bool {
    upstream_status(code, modern) != StatusCode::OK
}

/// The status under which a stateless client gets an error of the server (transports, table of
/// required answers); in-band errors are answered with 200.
fn upstream_status(code: i64, modern: bool) -> StatusCode {
    match code {
        -32601 if modern => StatusCode::NOT_FOUND,
        -32022..=-32020 if modern => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

/// The answer to a refusal.
pub fn refused(refusal: &Refusal, reply: &Reply) -> Response<Body> {
    let status = status(refusal.reason, reply);
    if let (Reason::InvalidArguments, Some(id)) = (refusal.reason, &reply.id) {
        return json(StatusCode::OK, tool_error(refusal, id, reply.modern == Some(true)));
    }
    let mut error = error_object(refusal);
    if reply.modern == Some(false) && is_missing_resource(refusal) {
        error = error.replacen("\"code\":-32602", "\"code\":-32002", 1);
    }
    let body = match &reply.id {
        Some(id) => enveloped(id, "error", error.as_bytes()),
        None => format!(r#"{{"jsonrpc":"2.0","error":{error}}}"#).into(),
    };
    let mut response = json(status, body);
    if let Some(secs) = refusal.retry_after_secs {
        put(&mut response, "retry-after", Some(secs.into()));
    }
    if refusal.reason == Reason::MethodNotAllowed {
        let allowed = if reply.modern == Some(false) { "POST, GET, DELETE" } else { "POST" };
        put(&mut response, "allow", Some(HeaderValue::from_static(allowed)));
    }
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        put(&mut response, "www-authenticate", reply.challenge.clone());
    }
    response
}

/// Revisions up to 2025-11-25 have a code of their own for it.
fn is_missing_resource(refusal: &Refusal) -> bool {
    let about_uri = refusal.data.as_ref().is_some_and(|data| data.get("uri").is_some());
    refusal.reason == Reason::UnknownTarget && about_uri
}

/// The status of a refusal.
fn status(reason: Reason, reply: &Reply) -> StatusCode {
    let own = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let in_band = match reason {
        // Below JSON-RPC, or about tokens and sessions: the same in every revision.
        Reason::MalformedJson
        | Reason::InvalidRequest
        | Reason::DuplicateKey
        | Reason::TooDeep
        | Reason::BodyTooLarge
        | Reason::HeadersTooLarge
        | Reason::RequestTimeout
        | Reason::HeaderMismatch
        | Reason::UnsupportedVersion
        | Reason::MethodNotAllowed
        | Reason::NotAcceptable
        | Reason::UnsupportedMediaType
        | Reason::OriginRefused
        | Reason::HostRefused
        | Reason::SessionMissing
        | Reason::SessionUnknown
        | Reason::Unauthenticated
        | Reason::TokenInvalid
        | Reason::TokenExpired
        | Reason::TokenAudience
        | Reason::TokenRevoked
        | Reason::IdentityUnavailable
        | Reason::InsufficientScope
        | Reason::UnknownEndpoint => false,
        // What an endpoint does not have: an error of the call, not of the transport.
        Reason::UnknownTarget | Reason::Denied | Reason::Cancelled => true,
        _ => reply.modern == Some(false),
    };
    if in_band && reply.id.is_some() { StatusCode::OK } else { own }
}

/// Broken arguments are told to the model as a failed tool, so that it can correct itself.
fn tool_error(refusal: &Refusal, id: &[u8], modern: bool) -> Bytes {
    let mut result = json!({
        "content": [{ "type": "text", "text": refusal.message() }],
        "isError": true,
    });
    if modern {
        result["resultType"] = "complete".into();
    }
    enveloped(id, "result", result.to_string().as_bytes())
}

/// The `error` member for a refusal.
pub fn error_object(refusal: &Refusal) -> String {
    let reason = refusal.reason;
    let mut error = json!({ "code": reason.code(), "message": refusal.message() });
    match &refusal.data {
        Some(data) => error["data"] = (**data).clone(),
        // Codes of our own come with their label; those of the specification mean what it says.
        None if reason.code() > 0 => error["data"] = json!({ "reason": reason.label() }),
        None => {}
    }
    // Where there are no headers to say it in: in batches, on streams, and for whoever reads bodies.
    let data = error.get_mut("data").and_then(serde_json::Value::as_object_mut);
    if let (Some(secs), Some(data)) = (refusal.retry_after_secs, data) {
        data.insert("retryAfterSecs".to_owned(), secs.into());
    }
    error.to_string()
}

/// `{"jsonrpc":"2.0","id":…,"member":`.
pub fn put_head(out: &mut BytesMut, id: &[u8], member: &str) {
    out.put_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.put_slice(id);
    out.put_slice(b",\"");
    out.put_slice(member.as_bytes());
    out.put_slice(b"\":");
}

fn enveloped(id: &[u8], member: &str, raw: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(raw.len() + id.len() + 48);
    put_head(&mut out, id, member);
    out.put_slice(raw);
    out.put_u8(b'}');
    out.freeze()
}

/// A JSON body.
pub fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::Whole(Some(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A public JSON document.
pub fn document(body: Bytes) -> Response<Body> {
    let mut response = json(StatusCode::OK, body);
    put(&mut response, "cache-control", Some(HeaderValue::from_static("public, max-age=300")));
    // Browser clients look for the issuer too; there is nothing secret here.
    put(&mut response, "access-control-allow-origin", Some(HeaderValue::from_static("*")));
    response
}

/// No body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Whole(None));
    *response.status_mut() = status;
    response
}

fn put(response: &mut Response<Body>, name: &'static str, value: Option<HeaderValue>) {
    if let Some(value) = value {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}
