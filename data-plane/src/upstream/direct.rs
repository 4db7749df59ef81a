//! HTTP/1.1 to the origin of one server, driven by the call that uses a connection.
//!
//! A connection has no task of its own: whoever sends a request on it drives it, and so does who
//! reads the answer, be it whole or bit by bit. Then it is left here for the next request. So a
//! call wakes nobody on its way to the server and back.
//!
//! A request that met a connection which the server had closed meanwhile goes out on another one,
//! as long as nothing of it was written. Dropping an exchange, or an answer before its end, closes
//! its connection.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tower::Service as _;
use weir_model::bounds;

use super::guard::{GuardError, Guarded};

type Asked = Request<Full<Bytes>>;
type Unsent = TrySendError<Asked>;

/// How long a connection is kept without a use.
const IDLE: Duration = Duration::from_millis(bounds::IDLE_CONNECTION_MS);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    /// There is no connection: nothing was sent.
    #[error("{0}")]
    Unconnected(#[from] GuardError),
    /// The connection broke, and something may have been sent.
    #[error("{0}")]
    Broken(#[from] hyper::Error),
}

/// The connections to one origin that nobody uses, the last used last. Clones share them.
#[derive(Clone)]
pub(crate) struct Direct {
    guarded: Guarded,
    idle: Arc<Mutex<Vec<Idle>>>,
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direct").field("idle", &self.idle.lock().len()).finish_non_exhaustive()
    }
}

struct Idle {
    link: Link,
    since: Instant,
}

/// One connection.
struct Link {
    sender: SendRequest<Full<Bytes>>,
    driven: Driven,
}

/// What reads and writes; none once it has ended.
type Driven = Option<Box<Connection<TokioIo<TcpStream>, Full<Bytes>>>>;

/// Reads and writes what can be.
///
/// Whoever waits does so twice, the first time with a waker that wakes nobody: what the call
/// itself does next, to take what was read, would else wake the call, and with it a thread.
fn drive(driven: &mut Driven, context: &mut Context<'_>) {
    if let Some(connection) = driven
        && Pin::new(connection).poll(context).is_ready()
    {
        // Its error is told to whoever waits for an answer.
        *driven = None;
    }
}

impl Direct {
    /// No connection yet. All requests must be to one origin with the scheme `http`.
    pub(crate) fn new(guarded: Guarded) -> Self {
        Self { guarded, idle: Arc::default() }
    }

    /// Sends a request and gives the answer, whose body is still to be read.
    ///
    /// # Errors
    /// See [`Lost`].
    pub(crate) async fn request(&self, mut asked: Asked) -> Result<Response<Answered>, Lost> {
        let to = asked.uri().clone();
        address(&mut asked, &to);
        while let Some(mut link) = self.take() {
            match link.exchange(asked).await {
                Ok(answer) => return Ok(self.answered(answer, link)),
                Err(mut lost) => match lost.take_message() {
                    Some(unsent) => asked = unsent,
                    None => return Err(lost.into_error().into()),
                },
            }
        }
        let mut link = Box::pin(self.connect(to)).await?;
        let answer = link.exchange(asked).await.map_err(TrySendError::into_error)?;
        Ok(self.answered(answer, link))
    }

    async fn connect(&self, to: Uri) -> Result<Link, Lost> {
        let host = to.host().unwrap_or_default().to_owned();
        let limit = Duration::from_millis(bounds::CONNECT_MS);
        let connecting = tokio::time::timeout(limit, self.guarded.clone().call(to)).await;
        let io = connecting.map_err(|_| GuardError::Timeout(host))??;
        let mut builder = Builder::new();
        builder.max_buf_size(bounds::UPSTREAM_READ_BUFFER_BYTES);
        let (sender, connection) = builder.handshake(io).await?;
        Ok(Link { sender, driven: Some(Box::new(connection)) })
    }

    /// The connection that was used last, if it is still good.
    fn take(&self) -> Option<Link> {
        loop {
            let Idle { mut link, since } = self.idle.lock().pop()?;
            if since.elapsed() < IDLE && link.is_free() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection for the next request, when it is ready for one.
    fn keep(&self, mut link: Link) {
        if !link.is_free() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.len() < bounds::UPSTREAM_IDLE_CONNECTIONS_MAX {
            idle.push(Idle { link, since: Instant::now() });
        }
    }

    /// Closes connections that nobody used for a while, or that their server closed.
    pub(crate) fn sweep(&self) {
        self.idle.lock().retain_mut(|idle| idle.since.elapsed() < IDLE && idle.link.is_free());
    }

    fn answered(&self, answer: Response<Incoming>, link: Link) -> Response<Answered> {
        let kept = Some((self.clone(), link));
        answer.map(|body| Answered { body: Some(body), kept })
    }
}

/// What HTTP/1.1 wants to see: path and query in the first line, the rest in `Host`.
fn address(asked: &mut Asked, to: &Uri) {
    let host = to.host().unwrap_or_default();
    let named = match to.port_u16() {
        Some(port) if port != 80 => HeaderValue::try_from(format!("{host}:{port}")),
        _ => HeaderValue::from_str(host),
    };
    if let Ok(named) = named {
        asked.headers_mut().entry(HOST).or_insert(named);
    }
    let path = to.path_and_query().cloned();
    *asked.uri_mut() = path.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
}

impl Link {
    /// True when it can take a request. Nobody is woken for it from now on.
    fn is_free(&mut self) -> bool {
        let driven = &mut self.driven;
        let mut once = pin!(unconstrained(poll_fn(|context| {
            drive(driven, context);
            Poll::Ready(())
        })));
        let _ = once.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        self.driven.is_some() && self.sender.is_ready()
    }

    async fn exchange(&mut self, asked: Asked) -> Result<Response<Incoming>, Unsent> {
        let mut answer = pin!(unconstrained(self.sender.try_send_request(asked)));
        let driven = &mut self.driven;
        poll_fn(|context| {
            for waker in [Waker::noop(), context.waker()] {
                drive(driven, &mut Context::from_waker(waker));
                // It comes from the connection alone, which was asked just now.
                let come = answer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                if come.is_ready() {
                    return come;
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// The body of an answer, which drives its own connection. One from elsewhere drives nothing.
pub(crate) struct Answered {
    /// None while it is dropped.
    body: Option<Incoming>,
    kept: Option<(Direct, Link)>,
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answered").field("body", &self.body).finish_non_exhaustive()
    }
}

impl From<Incoming> for Answered {
    fn from(body: Incoming) -> Self {
        Self { body: Some(body), kept: None }
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        // An unread rest is for the connection to find, which then ends.
        drop(self.body.take());
        if let Some((direct, link)) = self.kept.take() {
            direct.keep(link);
        }
    }
}

impl Body for Answered {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let Some((_, link)) = &mut this.kept else { return Pin::new(body).poll_frame(context) };
        let unheard = &mut Context::from_waker(Waker::noop());
        // Nearly always it came with the head.
        let mut read = Pin::new(&mut *body).poll_frame(unheard);
        for waker in [Waker::noop(), context.waker()] {
            if read.is_pending() {
                drive(&mut link.driven, &mut Context::from_waker(waker));
                read = Pin::new(&mut *body).poll_frame(unheard);
            }
        }
        read
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests;
