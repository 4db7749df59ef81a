//! Phase 1: what arrived, within its limits and readable, and in which dialect.
//!
//! Checks in this order: who is being called (`Host`), from where (`Origin`), the HTTP method,
//! media types, size and time of the body, the envelope, the era. Nothing here knows a caller.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Method, header};
use http_body::Body;
use http_body_util::BodyExt as _;
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};
use weir_runtime::task::on_payload;

use super::authenticate;
use super::endpoint::Endpoint;
use super::respond::Reply;
use super::resume::Once;
use crate::certificates::Chain;
use crate::mcp::batch;
use crate::mcp::envelope::{self, Message};
use crate::mcp::era::{self, Era};
use crate::mcp::headers;
use crate::mcp::session;
use crate::mcp::verbs::Verb;
use crate::site::Site;

/// The connection that a request came on.
#[derive(Debug, Clone)]
pub struct Conn {
    /// The other end.
    pub peer: SocketAddr,
    /// True when the listener is on loopback: then loopback names and origins are its own.
    pub loopback: bool,
    /// True when the connection is encrypted.
    pub tls: bool,
    /// What the other end showed in the handshake. Proves that it holds the key, and nothing else.
    pub certificates: Option<Chain>,
}

/// A request that could be read.
#[derive(Debug)]
pub struct Call<'a> {
    /// As received.
    pub headers: &'a HeaderMap,
    /// What it wants.
    pub wants: Wants,
    /// In which dialect.
    pub era: Era,
    /// The body as received; empty without one.
    pub body: Bytes,
    /// The message was sent as one of the gateway's own verbs.
    pub verb: Option<Verb>,
}

/// What a request wants.
#[derive(Debug)]
pub enum Wants {
    /// POST with one message.
    Message(Box<Message>),
    /// POST with several of them (2025-03-26).
    Batch(Vec<batch::Item>),
    /// GET without a session: the one stream of a client of 2024-11-05.
    Open,
    /// POST of such a client.
    Posted {
        /// Which stream, sealed.
        token: String,
        /// What it says.
        message: Box<Message>,
    },
    /// GET: the stream of a session, perhaps continued after an event.
    Stream {
        /// `Last-Event-ID`.
        after: Option<String>,
    },
    /// DELETE: the end of a session.
    End,
}

impl Call<'_> {
    /// The message, for POST.
    pub fn message(&self) -> Option<&Message> {
        match &self.wants {
            Wants::Message(message) | Wants::Posted { message, .. } => Some(message),
            _ => None,
        }
    }
}

/// Reads a request. What is learnt about how to answer goes into `reply` as it is learnt, so that
/// a refusal half way can be told in the client's own terms.
///
/// # Errors
/// Every reason for which a request is refused below the protocol.
pub async fn read<'a, B>(
    site: &Site,
    (conn, endpoint): (&Conn, &Endpoint),
    (head, body): (&'a Parts, B),
    reply: &mut Reply,
) -> Result<Call<'a>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    site.check_host(conn, head)?;
    site.check_origin(conn, &endpoint.group, &head.headers)?;
    authenticate::refuse_token_in_query(&head.uri)?;
    let accept = headers::accept(&head.headers);
    match head.method {
        Method::POST => {}
        Method::GET | Method::DELETE => return bodiless(head, endpoint, accept.sse, reply),
        _ => return Err(Reason::MethodNotAllowed.into()),
    }
    if let Some(token) = stream_of(head) {
        return posted(token, (head, body), reply).await;
    }
    let verbs = endpoint.group.spec.verbs;
    if !(accept.json && (accept.sse || verbs)) {
        return Err(Reason::NotAcceptable.into());
    }
    if !headers::is_json(&head.headers) {
        return Err(Reason::UnsupportedMediaType.into());
    }
    let body = read_body(&head.headers, body).await?;
    reply.request_bytes = body.len() as u64;
    if batch::is_one(&body) {
        let era = era::of_batch(&head.headers)?;
        reply.modern = Some(false);
        let wants = Wants::Batch(on_payload(body.len(), || batch::split(&body))?);
        return Ok(Call { headers: &head.headers, wants, era, body, verb: None });
    }
    let mut message = on_payload(body.len(), || envelope::read(&body)).map_err(|unreadable| {
        reply.id = unreadable.id;
        unreadable.refusal
    })?;
    reply.id = message.id().map(|id| id.raw().clone());
    let verb = Verb::take(&mut message, verbs)?;
    if verb.is_none() && !accept.sse {
        return Err(Reason::NotAcceptable.into());
    }
    reply.whole = !accept.sse;
    let era = match verb {
        Some(_) => era::of_verb(&message, &head.headers)?,
        None => era::decide(&message, &head.headers)?,
    };
    reply.modern = Some(era.modern());
    let wants = Wants::Message(Box::new(message));
    Ok(Call { headers: &head.headers, wants, era, body, verb })
}

/// The stream of a client of 2024-11-05 that a POST belongs to: `sessionId` in the URL.
fn stream_of(head: &Parts) -> Option<&str> {
    if head.extensions.get::<Once>().is_some() {
        return None;
    }
    head.uri.query()?.split('&').find_map(|pair| pair.strip_prefix("sessionId="))
}

async fn posted<'a, B>(
    token: &str,
    (head, body): (&'a Parts, B),
    reply: &mut Reply,
) -> Result<Call<'a>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    reply.modern = Some(false);
    if !headers::is_json(&head.headers) {
        return Err(Reason::UnsupportedMediaType.into());
    }
    let body = read_body(&head.headers, body).await?;
    reply.request_bytes = body.len() as u64;
    // Refusals are those of the POST; answers come on the stream.
    let message = on_payload(body.len(), || envelope::read(&body));
    let message = message.map_err(|unreadable| unreadable.refusal)?;
    let wants = Wants::Posted { token: token.to_owned(), message: Box::new(message) };
    Ok(Call { headers: &head.headers, wants, era: Era::Legacy(None), body, verb: None })
}

fn bodiless<'a>(
    head: &'a Parts,
    endpoint: &Endpoint,
    sse: bool,
    reply: &mut Reply,
) -> Result<Call<'a>, Refusal> {
    let era = era::of_bodiless(&head.headers)?;
    reply.modern = Some(false);
    let wants = if head.method == Method::GET {
        if !sse {
            return Err(Reason::NotAcceptable.into());
        }
        let after = headers::single(&head.headers, "last-event-id")?.map(str::to_owned);
        // What every client with a session sends, and those of 2024-11-05 do not.
        let session = head.headers.contains_key(session::HEADER) || after.is_some();
        let says = matches!(era, Era::Legacy(Some(_))) && !endpoint.sse;
        let within = head.extensions.get::<Once>().is_some();
        match session || says || within {
            true => Wants::Stream { after },
            false => Wants::Open,
        }
    } else {
        Wants::End
    };
    Ok(Call { headers: &head.headers, wants, era, body: Bytes::new(), verb: None })
}

/// The whole body, at most [`bounds::REQUEST_BODY_BYTES_MAX`] within [`bounds::BODY_READ_MS`].
pub async fn read_body<B>(headers: &HeaderMap, body: B) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u64>().ok());
    if declared.is_some_and(|length| length > bounds::REQUEST_BODY_BYTES_MAX as u64) {
        return Err(Reason::BodyTooLarge.into());
    }
    let patience = Duration::from_millis(bounds::BODY_READ_MS);
    tokio::time::timeout(patience, collect(body))
        .await
        .unwrap_or_else(|_| Err(Refusal::new(Reason::RequestTimeout, "the body came too slowly")))
}

async fn collect<B>(mut body: B) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|_| Refusal::new(Reason::RequestTimeout, "the body ended too early"))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + more.len() + data.len() > bounds::REQUEST_BODY_BYTES_MAX {
            return Err(Reason::BodyTooLarge.into());
        }
        // Nearly every body is one frame, which is then used as it is.
        if first.is_empty() && more.is_empty() {
            first = data;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&std::mem::take(&mut first));
            }
            more.extend_from_slice(&data);
        }
    }
    Ok(if more.is_empty() { first } else { more.freeze() })
}
