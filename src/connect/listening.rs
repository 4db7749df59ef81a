//! The stream of older revisions on which the server says what nobody asked for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{HeaderValue, Method, StatusCode};
use hyper::body::Incoming;
use weir_runtime::backoff::Backoff;

use super::bridge::Bridge;
use super::credentials::Challenge;
use super::http::{Events, Failed, SHORT, streams};

/// Wait before a stream that ended is opened again, unless the server said how long.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// Longest wait.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(30);

/// How an attempt to open a stream went.
pub(super) enum Opened {
    /// It is open.
    Stream(Incoming),
    /// There is none, and there will be none.
    Never(StatusCode),
    /// Not now.
    NotNow(String),
}

impl Bridge {
    /// Hands on what comes until the session is over or the gateway has no such stream. A stream
    /// that breaks is opened again where it broke off.
    pub(super) async fn listen(self: &Arc<Self>) {
        let mut backoff = Backoff::new(RETRY, RETRY_MAX);
        let mut last: Option<String> = None;
        let mut asked_to_wait = None;
        loop {
            match self.open(last.as_deref()).await {
                // The next request opens another session.
                Opened::Never(StatusCode::NOT_FOUND) => {
                    self.renewed.notified().await;
                    last = None;
                    continue;
                }
                Opened::Never(status) => {
                    tracing::debug!(%status, "the gateway has no stream of its own");
                    return;
                }
                Opened::NotNow(why) => tracing::debug!(why, "the stream cannot be opened"),
                Opened::Stream(body) => {
                    let mut events = Events::new(body);
                    loop {
                        let event = tokio::select! {
                            event = events.next() => event,
                            () = self.renewed.notified() => {
                                last = None;
                                None
                            }
                        };
                        let Some(event) = event else { break };
                        backoff.reset();
                        last = event.id.or(last);
                        asked_to_wait = event.retry_ms.map(Duration::from_millis).or(asked_to_wait);
                        if let Some(data) = event.data {
                            self.say(data).await;
                        }
                    }
                }
            }
            let wait = asked_to_wait.unwrap_or_else(|| backoff.next_wait()).min(RETRY_MAX);
            tokio::time::sleep(wait).await;
        }
    }

    /// Opens the session's stream, or goes on with one that broke off after an event.
    pub(super) async fn open(&self, after: Option<&str>) -> Opened {
        let url = self.regions.current().to_owned();
        let mut headers = HeaderMap::new();
        self.session.head(&mut headers);
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(id) = after.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert("last-event-id", id);
        }
        let bearer = self.credentials.bearer(&url).await;
        if let Some(bearer) = &bearer {
            headers.insert(header::AUTHORIZATION, bearer.clone());
        }
        let Ok(request) = self.request(Method::GET, &url, headers, Bytes::new()) else {
            return Opened::Never(StatusCode::BAD_REQUEST);
        };
        let response = match self.http.send(request, SHORT).await {
            Ok(response) => response,
            Err(Failed::NotSent(why) | Failed::Lost(why)) => {
                self.regions.failed(&url, &why);
                return Opened::NotNow(why);
            }
        };
        let status = response.status();
        match status {
            StatusCode::OK if streams(&response) => Opened::Stream(response.into_body()),
            StatusCode::UNAUTHORIZED => {
                let challenge = Challenge::read(response.headers());
                match self.credentials.renew(&url, bearer.as_ref(), &challenge).await {
                    Ok(()) => Opened::NotNow("the token was renewed".to_owned()),
                    Err(error) => Opened::NotNow(error.to_string()),
                }
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                Opened::NotNow(status.to_string())
            }
            status if status.is_server_error() => {
                self.regions.failed(&url, status.as_str());
                Opened::NotNow(status.to_string())
            }
            status => Opened::Never(status),
        }
    }
}
