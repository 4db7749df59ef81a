//! The stream of HTTP+SSE (revision 2024-11-05), on which everything comes back.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use hyper::http::HeaderValue;
use serde::Deserialize;

use crate::events::Events;
use crate::target::connect;

/// An open stream.
#[derive(Debug)]
pub struct Push {
    events: Events,
    /// The stream's own connection.
    _sender: SendRequest<Full<Bytes>>,
}

impl Push {
    /// Opens a stream; gives it and the path that messages are posted to.
    ///
    /// # Errors
    /// When the target has no such stream, or names another host for messages.
    pub async fn open(
        uri: &hyper::http::Uri,
        token: Option<&HeaderValue>,
    ) -> anyhow::Result<(Self, String)> {
        let mut sender = connect(uri).await?;
        let authority = uri.authority().context("the url has no host")?.as_str();
        let mut request = Request::get(uri.path_and_query().map_or("/", |p| p.as_str()))
            .header("host", authority)
            .header("accept", "text/event-stream")
            .body(Full::default())?;
        if let Some(token) = token {
            request.headers_mut().insert("authorization", token.clone());
        }
        let response = sender.send_request(request).await?;
        ensure!(response.status() == 200, "the stream was answered {}", response.status());
        let mut events = Events::new(response.into_body());
        let (name, data) = events.named().await?.context("the stream ended at once")?;
        ensure!(name == "endpoint", "the stream began with {name:?}");
        let path = std::str::from_utf8(&data)?;
        let path = match path.strip_prefix("http://") {
            Some(rest) => {
                let own = rest.strip_prefix(authority);
                own.with_context(|| format!("messages go to {path}"))?.to_owned()
            }
            None => path.to_owned(),
        };
        ensure!(path.starts_with('/'), "messages go to {path:?}");
        Ok((Self { events, _sender: sender }, path))
    }

    /// The next message.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        self.events.next().await
    }

    /// The message that answers `id`; others are passed over.
    ///
    /// # Errors
    /// When the stream ends before.
    pub async fn answer(&mut self, id: u64) -> anyhow::Result<Bytes> {
        #[derive(Deserialize)]
        struct Head {
            id: Option<serde_json::Value>,
        }
        loop {
            let message = self.next().await?.context("the stream ended before the answer")?;
            let head: Head = serde_json::from_slice(&message)?;
            if head.id.and_then(|found| found.as_u64()) == Some(id) {
                return Ok(message);
            }
        }
    }
}
