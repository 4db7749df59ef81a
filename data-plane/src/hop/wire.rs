//! How a question and its answer look on the wire: `POST /v1/{verb}` with the holding in headers.
//!
//! 200 streams the answer. 404: no such thing for this owner, or in this life of the process. 503:
//! no room. 422: refused, with the refusal as JSON.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::reason::{Reason, Refusal};

use super::{Ask, Body, Holder, Lost, whole};

const PATH: &str = "/v1/";
const EPOCH: &str = "weir-epoch";
const HOLDING: &str = "weir-holding";
const OWNER: &str = "weir-owner";
/// Longest refusal.
pub(super) const REFUSAL_BYTES_MAX: usize = 64 * 1024;
/// Longest verb.
const VERB_CHARS_MAX: usize = 40;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    reason: Reason,
    detail: String,
    hint: Option<String>,
    data: Option<Box<serde_json::Value>>,
    retry_after_secs: Option<u64>,
}

/// What a request asks for, besides its body.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) epoch: String,
    pub(super) holding: String,
    pub(super) owner: Digest,
    pub(super) verb: String,
}

/// Writes a question.
pub(super) fn request(holder: &Holder, ask: Ask) -> Result<Request<Body>, http::Error> {
    Request::post(format!("https://{}{PATH}{}", super::tls::SERVER_NAME, ask.verb))
        .header(EPOCH, &holder.epoch)
        .header(HOLDING, &holder.id)
        .header(OWNER, ask.owner.hex())
        .body(ask.body)
}

/// Reads a question; none when it is not one.
pub(super) fn asked<B>(request: &Request<B>) -> Option<Asked> {
    let verb = request.uri().path().strip_prefix(PATH)?;
    let fair = |b: u8| b.is_ascii_lowercase() || b == b'-';
    if request.method() != http::Method::POST
        || verb.is_empty()
        || verb.len() > VERB_CHARS_MAX
        || !verb.bytes().all(fair)
    {
        return None;
    }
    let head = request.headers();
    Some(Asked {
        epoch: text(head, EPOCH)?.to_owned(),
        holding: text(head, HOLDING)?.to_owned(),
        owner: text(head, OWNER)?.parse().ok()?,
        verb: verb.to_owned(),
    })
}

fn text<'a>(head: &'a HeaderMap, name: &str) -> Option<&'a str> {
    head.get(name)?.to_str().ok()
}

/// Writes an answer.
pub(super) fn response(answer: Result<Body, Lost>) -> Response<Body> {
    let (status, body) = match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(Lost::Gone) => (StatusCode::NOT_FOUND, whole(Bytes::new())),
        Err(Lost::Busy | Lost::Unreachable(_)) => {
            (StatusCode::SERVICE_UNAVAILABLE, whole(Bytes::new()))
        }
        Err(Lost::Refused(refusal)) => (StatusCode::UNPROCESSABLE_ENTITY, whole(tell(&refusal))),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
    response
}

/// Writes a refusal for another proxy, which is told all of it.
pub fn tell(refusal: &Refusal) -> Vec<u8> {
    let told = Told {
        reason: refusal.reason,
        detail: refusal.detail.clone(),
        hint: refusal.hint.clone(),
        data: refusal.data.clone(),
        retry_after_secs: refusal.retry_after_secs,
    };
    serde_json::to_vec(&told).unwrap_or_default()
}

/// Reads what [`tell`] wrote.
pub fn told(body: &[u8]) -> Refusal {
    match serde_json::from_slice::<Told>(body) {
        Ok(told) => Refusal {
            reason: told.reason,
            detail: told.detail,
            hint: told.hint,
            data: told.data,
            retry_after_secs: told.retry_after_secs,
        },
        // A newer build may know reasons that this one does not.
        Err(_) => Refusal::new(Reason::Internal, "the holder's refusal is unreadable"),
    }
}

/// How long a holder may take until it begins to answer.
pub(super) const PATIENCE: std::time::Duration =
    std::time::Duration::from_millis(bounds::HOP_ANSWER_MS);
