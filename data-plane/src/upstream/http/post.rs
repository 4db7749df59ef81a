//! One HTTP request to a server, and its answer in either of the two forms.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, LOCATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use weir_model::bounds;
use weir_model::reason::Refusal;

use super::super::client::{OriginClient, Unanswered, root_cause};
use super::super::direct::Answered;
use super::super::headers;
use super::super::origin;
use super::super::refuse;
use super::super::sse::{Event, Parser};
use super::Remote;

/// What the server sent back.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Status.
    pub(crate) status: StatusCode,
    /// `Mcp-Session-Id`.
    pub(crate) session: Option<HeaderValue>,
    /// Body.
    pub(crate) body: Body,
}

/// A body by its media type.
#[derive(Debug)]
pub(crate) enum Body {
    /// `application/json`, whole.
    Json(Bytes),
    /// `text/event-stream`, unread.
    Events(Box<Events>),
    /// Anything else; the start of it, for nobody but us.
    Other,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Broken {
    /// For the client.
    pub(crate) refusal: Refusal,
    /// True when the request certainly never reached the server.
    pub(crate) unsent: bool,
    /// True when the connection broke while it may have been executed.
    pub(crate) cut: bool,
}

impl From<Refusal> for Broken {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, unsent: false, cut: false }
    }
}

/// A request to send.
#[derive(Debug)]
pub(crate) struct Post<'a> {
    /// `POST`, `GET` or `DELETE`.
    pub(crate) method: Method,
    /// The credential.
    pub(crate) credentials: &'a [(HeaderName, HeaderValue)],
    /// Beside `Accept` and `Content-Type`.
    pub(crate) headers: HeaderMap,
    /// One JSON-RPC message.
    pub(crate) body: Bytes,
    /// When to give up.
    pub(crate) deadline: Instant,
}

impl Remote {
    /// Sends a request to the server's endpoint; see [`send`].
    pub(crate) async fn send(&self, post: Post<'_>) -> Result<Answer, Broken> {
        send(self.client(), &self.uri, post).await
    }
}

/// Redirects within the origin that one request may take.
const REDIRECTS_MAX: usize = 3;

/// Sends a request and reads the answer up to its body, or through it when it is JSON.
///
/// Redirects that keep the method (307, 308) are followed within the server's origin: frameworks
/// send them for a missing or a superfluous slash. Nothing was executed then.
pub(crate) async fn send(
    client: &OriginClient,
    to: &Uri,
    post: Post<'_>,
) -> Result<Answer, Broken> {
    match tokio::time::timeout_at(post.deadline.into(), exchange(client, to, &post)).await {
        Ok(answer) => answer,
        Err(_) => Err(refuse::timeout("no answer before the deadline").into()),
    }
}

async fn exchange(client: &OriginClient, to: &Uri, post: &Post<'_>) -> Result<Answer, Broken> {
    let mut to = to.clone();
    let mut redirects = 0;
    let (head, body) = loop {
        let answer = client.request(request(&to, post)).await.map_err(broken)?;
        match onward(&to, &answer) {
            Some(next) if redirects < REDIRECTS_MAX => to = next,
            _ => break answer.into_parts(),
        }
        redirects += 1;
    };
    let session = head.headers.get(headers::SESSION).cloned();
    check_status(head.status, &head.headers)?;
    let is = |kind: &str| media_type(&head.headers).is_some_and(|it| it.eq_ignore_ascii_case(kind));
    let body = if is("application/json") {
        Body::Json(whole(body).await?)
    } else if is("text/event-stream") && head.status.is_success() {
        Body::Events(Box::new(Events::new(body)))
    } else {
        Body::Other
    };
    Ok(Answer { status: head.status, session, body })
}

/// Where an answer sends the request on to, when it is allowed to.
fn onward(at: &Uri, answer: &Response<Answered>) -> Option<Uri> {
    if !matches!(answer.status().as_u16(), 307 | 308) {
        return None;
    }
    let named = answer.headers().get(LOCATION)?.to_str().ok()?;
    origin::within(at, named).ok()
}

fn request(to: &Uri, post: &Post<'_>) -> Request<Full<Bytes>> {
    let accept = match post.method {
        Method::GET => "text/event-stream",
        _ => "application/json, text/event-stream",
    };
    let mut request = Request::new(Full::new(post.body.clone()));
    *request.headers_mut() = post.headers.clone();
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    headers.insert(USER_AGENT, HeaderValue::from_static(super::super::USER_AGENT_TEXT));
    if post.method == Method::POST {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for (name, value) in post.credentials {
        let mut value = value.clone();
        value.set_sensitive(true);
        headers.insert(name.clone(), value);
    }
    *request.method_mut() = post.method.clone();
    *request.uri_mut() = to.clone();
    request
}

/// Statuses that mean the same whatever the body says.
fn check_status(status: StatusCode, headers: &HeaderMap) -> Result<(), Refusal> {
    match status.as_u16() {
        401 | 403 => Err(refuse::refused(format!("the server answered HTTP {status}"))),
        429 | 502..=504 => {
            let wait = headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
            let refusal = refuse::unreachable(format!("the server answered HTTP {status}"));
            Err(match wait {
                Some(secs) => refusal.retry_after(secs),
                None => refusal,
            })
        }
        300..=399 => Err(refuse::protocol(format!(
            "the server answered HTTP {status}; such redirects are not followed{}",
            if headers.contains_key(LOCATION) { ", register the final URL" } else { "" }
        ))),
        _ => Ok(()),
    }
}

/// The media type without parameters.
fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim())
}

async fn whole(body: Answered) -> Result<Bytes, Broken> {
    match Limited::new(body, bounds::UPSTREAM_MESSAGE_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(refuse::protocol("the answer is longer than the bound").into())
        }
        Err(error) => Err(Broken {
            refusal: refuse::closed(format!("the answer broke off: {}", root_cause(&*error))),
            unsent: false,
            cut: true,
        }),
    }
}

fn broken(unanswered: Unanswered) -> Broken {
    match unanswered {
        Unanswered::Unconnected(cause) => {
            Broken { refusal: refuse::unreachable(cause), unsent: true, cut: false }
        }
        Unanswered::Broken(cause) => {
            let refusal = refuse::closed(format!("the connection broke: {cause}"));
            Broken { refusal, unsent: false, cut: true }
        }
    }
}

/// The events of one answer.
#[derive(Debug)]
pub(crate) struct Events {
    body: Answered,
    parser: Parser,
    ready: VecDeque<Event>,
}

impl Events {
    fn new(body: Answered) -> Self {
        let parser = Parser::new(bounds::UPSTREAM_MESSAGE_BYTES_MAX);
        Self { body, parser, ready: VecDeque::new() }
    }

    /// The next event; none at the end of the stream. Safe to drop between events.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Refusal> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let frame = match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    let cause = root_cause(&error);
                    return Err(refuse::closed(format!("the stream broke off: {cause}")));
                }
            };
            let Some(data) = frame.data_ref() else { continue };
            let ready = &mut self.ready;
            self.parser
                .push(data, &mut |event| ready.push_back(event))
                .map_err(|error| refuse::protocol(error.to_string()))?;
        }
    }
}
