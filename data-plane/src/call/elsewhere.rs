//! Requests that one proxy alone can serve, or best, from the proxy at which they arrive.
//!
//! A client on the endpoint of one server sees through to the server's own session. Where that is
//! a child process, or the stream of a server of 2024-11-05, one proxy has it; the client's
//! session id says which. Another one authenticates the caller, opens the id, and hands the whole
//! request over: the home of the session serves it as if it had come there, checks everything for
//! itself, and writes the record. The answer streams back; a client that leaves is gone there too.
//!
//! A home that cannot be reached, or was started anew, has lost the session: it is unknown. A task
//! that a stateless client has at an older server goes the same way, to the proxy whose session with
//! the server made it ([`tasks::home`]); with its home gone, the server is asked from here, since
//! servers may know their tasks in any session.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use serde::{Deserialize, Serialize};
use weir_model::bounds;
use weir_model::principal::Principal;
use weir_model::reason::{Reason, Refusal};
use weir_model::seal::Sealer;
use weir_model::sync::identity::NodeId;

use super::client::Client;
use super::endpoint::Endpoint;
use super::inbound::{Call, Conn};
use super::respond::{self, Answer};
use super::{Gateway, Stop, tasks};
use crate::hop::{self, Cut, Holder, Lost};
use crate::mcp::session;

/// What a home is asked.
pub const VERB: &str = "serve";
/// What stands before a body: the head of a request or an answer as one line of JSON.
const HEAD_BYTES_MAX: usize = 8 * bounds::HEADER_BYTES_MAX;

/// Marks a request that came from another proxy: it is not handed on once more.
#[derive(Debug, Clone, Copy)]
struct Handed;

/// The head of a request.
#[derive(Serialize, Deserialize)]
struct Asked {
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
    peer: SocketAddr,
    loopback: bool,
    tls: bool,
    /// In base64.
    certificates: Option<Vec<String>>,
}

/// The head of an answer.
#[derive(Serialize, Deserialize)]
struct Told {
    status: u16,
    headers: Vec<(String, String)>,
}

/// The proxy that a request belongs to.
struct Home {
    holder: Holder,
    /// No other one can serve it.
    only: bool,
}

impl Home {
    fn of(
        (endpoint, who, sealer): (&Endpoint, &Principal, Option<&Sealer>),
        (call, client): (&Call<'_>, &Client),
    ) -> Option<Self> {
        match &client.session {
            Some(session) => Some(Self { holder: session.home.clone()?, only: true }),
            None if client.modern() => {
                Some(Self { holder: tasks::home(sealer?, (endpoint, who), call)?, only: false })
            }
            None => None,
        }
    }
}

/// The answer of the request's home, where that is another proxy; none where this one serves it.
///
/// # Errors
/// [`Reason::SessionUnknown`] when its home has lost the session, [`Reason::UpstreamClosed`] when
/// it was lost half way.
pub async fn relay(
    gateway: &Gateway,
    (conn, head): (&Conn, &Parts),
    (call, client): (&Call<'_>, &Client),
    whose: (&Endpoint, &Principal, Option<&Sealer>),
) -> Result<Option<Answer>, Stop> {
    let home = Home::of(whose, (call, client));
    let Some(home) = home.filter(|home| !gateway.hop.is_home(&home.holder)) else {
        return Ok(None);
    };
    if head.extensions.get::<Handed>().is_some() {
        return match home.only {
            true => Err(session::unknown("its home was started anew").into()),
            false => Ok(None),
        };
    }
    let asked = Asked {
        method: head.method.to_string(),
        uri: head.uri.to_string(),
        headers: texts(&head.headers),
        peer: conn.peer,
        loopback: conn.loopback,
        tls: conn.tls,
        certificates: conn
            .certificates
            .as_ref()
            .map(|chain| chain.iter().map(|one| STANDARD.encode(one)).collect()),
    };
    let mut body = BytesMut::from(&*serde_json::to_vec(&asked).unwrap_or_default());
    body.put_u8(b'\n');
    body.put_slice(&call.body);
    let answer = match gateway.hop.tell(&home.holder, VERB, hop::whole(body.freeze())).await {
        Ok(answer) => answer,
        Err(Lost::Gone | Lost::Unreachable(_)) if !home.only => return Ok(None),
        Err(lost) => return Err(lost.refusal(session::unknown("its home is gone")).into()),
    };
    let response = read(answer).await.map_err(|Cut| {
        Refusal::new(Reason::UpstreamClosed, "the home of the request was lost half way")
    })?;
    Ok(Some(Answer::Elsewhere(Box::new(response))))
}

/// Serves a request that came to another proxy. That one's word for a client certificate is taken
/// within a region alone: a node must not let anybody in where it does not serve itself.
pub(crate) async fn take(
    gateway: Arc<Gateway>,
    from: &NodeId,
    body: hop::Body,
) -> Result<hop::Body, Refusal> {
    let unreadable = || Refusal::new(Reason::Internal, "not a request of another proxy");
    let limit = bounds::REQUEST_BODY_BYTES_MAX + HEAD_BYTES_MAX;
    let body = Limited::new(body, limit).collect().await.map_err(|_| unreadable())?.to_bytes();
    let end = body.iter().position(|b| *b == b'\n').ok_or_else(unreadable)?;
    let asked: Asked = serde_json::from_slice(&body[..end]).map_err(|_| unreadable())?;
    let decode = |text: &String| STANDARD.decode(text).map(Into::into);
    let chain = asked.certificates.map(|all| all.iter().map(decode).collect::<Result<Vec<_>, _>>());
    let chain = chain.transpose().map_err(|_| unreadable())?;
    let near = gateway.hop.node().is_some_and(|own| own.region == from.region);
    let conn = Conn {
        peer: asked.peer,
        loopback: asked.loopback,
        tls: asked.tls,
        certificates: chain.filter(|_| near).map(Into::into),
    };
    let mut request = Request::new(Full::new(body.slice(end + 1..)));
    *request.method_mut() =
        Method::from_bytes(asked.method.as_bytes()).map_err(|_| unreadable())?;
    *request.uri_mut() = asked.uri.parse().map_err(|_| unreadable())?;
    *request.headers_mut() = headers(&asked.headers);
    request.extensions_mut().insert(Handed);
    // The call may take long; its answer begins with the head as soon as there is one.
    let served = async move {
        let response = Box::pin(super::serve(&gateway, &conn, request)).await;
        let (head, body) = response.into_parts();
        let told = Told { status: head.status.as_u16(), headers: texts(&head.headers) };
        let mut line = serde_json::to_vec(&told).unwrap_or_default();
        line.push(b'\n');
        let frames = body.into_data_stream().map_err(|never| match never {});
        stream::iter([Ok::<Bytes, Cut>(line.into())]).chain(frames)
    };
    Ok(hop::streamed(stream::once(served).flatten()))
}

/// Reads an answer until its body begins.
async fn read(mut answer: hop::Body) -> Result<Response<respond::Body>, Cut> {
    let mut seen = BytesMut::new();
    let end = loop {
        if let Some(end) = seen.iter().position(|b| *b == b'\n') {
            break end;
        }
        if seen.len() > HEAD_BYTES_MAX {
            return Err(Cut);
        }
        let frame = answer.frame().await.ok_or(Cut)??;
        seen.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    };
    let line = seen.split_to(end + 1);
    let told: Told = serde_json::from_slice(&line).map_err(|_| Cut)?;
    let streams = told
        .headers
        .iter()
        .any(|(name, value)| name == "content-type" && value.starts_with("text/event-stream"));
    let body = if streams {
        // One that is cut half way just ends: its client comes back, or sees that it is cut.
        let rest = answer.into_data_stream().take_while(|f| std::future::ready(f.is_ok()));
        let rest = rest.filter_map(|frame| std::future::ready(frame.ok()));
        let first = (!seen.is_empty()).then(|| seen.freeze());
        respond::Body::Stream(Box::pin(stream::iter(first).chain(rest)))
    } else {
        let rest = answer.collect().await?.to_bytes();
        seen.extend_from_slice(&rest);
        respond::Body::Whole((!seen.is_empty()).then(|| seen.freeze()))
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(told.status).map_err(|_| Cut)?;
    *response.headers_mut() = headers(&told.headers);
    Ok(response)
}

/// Headers that are text; what is none was refused, or is looked at by nobody.
fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    headers.iter().filter_map(text).collect()
}

fn headers(texts: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in texts {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    headers
}
