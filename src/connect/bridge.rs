//! Which message goes where.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use data_plane::mcp::envelope::{self, Message};
use data_plane::mcp::members::Members;
use http::header::HeaderMap;
use http::{Method, Request, header};
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, BufReader};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_runtime::task;

use super::credentials::Credentials;
use super::http::Http;
use super::lines::{Line, Reader};
use super::message::{self, FromHost, Trouble};
use super::mirror::Tools;
use super::regions::Regions;
use super::session::Session;

/// Requests of the host that may be open at once.
const FLIGHTS_MAX: usize = 1_024;
/// How long requests may go on when the host has closed its side.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// How long the end of a session may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Everything that the messages of one host share.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) http: Http,
    pub(super) regions: Regions,
    pub(super) credentials: Credentials,
    pub(super) session: Session,
    pub(super) tools: Tools,
    out: mpsc::Sender<Bytes>,
    /// Requests without an answer, by what their ids mean.
    flights: Mutex<HashMap<String, Flight>>,
    /// Numbers of the bridge's own requests.
    own: AtomicU64,
    listening: AtomicBool,
    /// The session was settled again: streams of the old one are of no use.
    pub(super) renewed: Notify,
    tasks: TaskTracker,
    ended: CancellationToken,
}

#[derive(Debug)]
struct Flight {
    gone: CancellationToken,
    modern: bool,
}

impl Bridge {
    pub(super) fn new(
        http: Http,
        regions: Regions,
        credentials: Credentials,
        out: mpsc::Sender<Bytes>,
    ) -> Self {
        Self {
            http,
            regions,
            credentials,
            session: Session::default(),
            tools: Tools::default(),
            out,
            flights: Mutex::default(),
            own: AtomicU64::new(0),
            listening: AtomicBool::new(false),
            renewed: Notify::new(),
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
        }
    }

    /// Until the host closes its side and its last requests are answered.
    pub(super) async fn run(self: &Arc<Self>, input: impl AsyncRead + Send + Unpin) {
        let mut reader = Reader::new(BufReader::new(input));
        loop {
            let line = tokio::select! {
                line = reader.next() => line,
                () = self.out.closed() => Line::End,
            };
            match line {
                Line::Text(text) => self.take(text).await,
                Line::TooLong => {
                    let why = "a message is longer than 4 MiB";
                    self.say(message::failed(b"null", Trouble::TooMany, why)).await;
                }
                Line::End => break,
            }
        }
        self.end().await;
    }

    async fn take(self: &Arc<Self>, text: Bytes) {
        match message::batch(&text) {
            None => self.one(text).await,
            Some(elements) => self.batch(elements).await,
        }
    }

    async fn one(self: &Arc<Self>, text: Bytes) {
        match FromHost::read(text) {
            Err(answer) => self.say(answer).await,
            Ok(message) => match &message.message {
                Message::Request { .. } => {
                    let bridge = Arc::clone(self);
                    self.spawn("request", async move {
                        if let Some(answer) = bridge.flight(&message).await {
                            bridge.say(answer).await;
                        }
                    });
                }
                // In order: what follows may build on it.
                Message::Notification { .. } => self.notification(message).await,
                Message::Response { .. } => {
                    let bridge = Arc::clone(self);
                    self.spawn("response", async move { bridge.deliver(&message).await });
                }
            },
        }
    }

    /// A batch of 2025-03-26: its answers go back as one, what else comes meanwhile at once.
    async fn batch(self: &Arc<Self>, elements: Vec<Bytes>) {
        let mut requests = Vec::new();
        let mut answers = Vec::new();
        for element in elements {
            match FromHost::read(element) {
                Ok(request) if request.message.id().is_some() && !request.method().is_empty() => {
                    requests.push(request);
                }
                Ok(other) => self.one(other.text).await,
                Err(answer) => answers.push(answer),
            }
        }
        if requests.is_empty() && answers.is_empty() {
            return;
        }
        let bridge = Arc::clone(self);
        self.spawn("batch", async move {
            let all = requests.iter().map(|request| bridge.flight(request));
            answers.extend(futures_util::future::join_all(all).await.into_iter().flatten());
            let text = answers.iter().map(|answer| String::from_utf8_lossy(answer));
            let text = text.collect::<Vec<_>>().join(",");
            bridge.say(Bytes::from(format!("[{text}]"))).await;
        });
    }

    /// The answer to a request; nothing when the host has given it up.
    async fn flight(&self, request: &FromHost) -> Option<Bytes> {
        let key = request.key()?.to_owned();
        let gone = CancellationToken::new();
        {
            let mut flights = self.flights.lock();
            if flights.len() >= FLIGHTS_MAX {
                let why = format!("more than {FLIGHTS_MAX} requests are open");
                return Some(message::failed(request.id(), Trouble::TooMany, &why));
            }
            flights.insert(key.clone(), Flight { gone: gone.clone(), modern: request.modern() });
        }
        // Leaving the answer closes its stream, which is how stateless revisions cancel.
        let answer = tokio::select! {
            answer = self.answer(request) => Some(answer),
            () = gone.cancelled() => None,
        };
        self.flights.lock().remove(&key);
        answer
    }

    async fn notification(self: &Arc<Self>, message: FromHost) {
        if message.method() == "notifications/cancelled" {
            let Some(key) = cancelled(&message) else { return };
            let flight = self.flights.lock().get(&key).map(|f| (f.gone.clone(), f.modern));
            let Some((gone, modern)) = flight else { return };
            if !modern {
                self.deliver(&message).await;
            }
            gone.cancel();
            return;
        }
        if !message.modern() && self.session.epoch() == 0 {
            tracing::debug!(method = message.method(), "a notification without a session");
            return;
        }
        self.deliver(&message).await;
        if message.method() == "notifications/initialized" {
            self.start_listening();
        }
    }

    /// Opens the stream on which older revisions get what nobody asked for.
    fn start_listening(self: &Arc<Self>) {
        if self.listening.swap(true, Ordering::Relaxed) {
            self.renewed.notify_one();
            return;
        }
        let bridge = Arc::clone(self);
        let ended = self.ended.clone();
        // No part of `tasks`: it ends with the session, not with the last answer.
        drop(task::spawn("listening", async move {
            tokio::select! {
                () = bridge.listen() => {}
                () = ended.cancelled() => {}
            }
        }));
    }

    /// Writes a message to the host. Waits while the host is slow.
    pub(super) async fn say(&self, message: Bytes) {
        // A host that has gone misses nothing.
        drop(self.out.send(message).await);
    }

    /// A number that no other request of the bridge has.
    pub(super) fn own_number(&self) -> u64 {
        self.own.fetch_add(1, Ordering::Relaxed)
    }

    fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        drop(task::spawn(
            name,
            self.tasks.track_future(async move {
                tokio::select! {
                    () = work => {}
                    () = ended.cancelled() => {}
                }
            }),
        ));
    }

    /// A request to the gateway with the headers that every one has.
    pub(super) fn request(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder().method(method).uri(url).body(Full::new(body))?;
        *request.headers_mut() = headers;
        let agent = http::HeaderValue::from_static(super::USER_AGENT);
        request.headers_mut().insert(header::USER_AGENT, agent);
        Ok(request)
    }

    async fn end(&self) {
        // Streams that never end are not waited for.
        self.tasks.close();
        let answered = async {
            while self.flights.lock().values().any(|flight| !flight.gone.is_cancelled()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            self.tasks.wait().await;
        };
        if tokio::time::timeout(LAST_ANSWERS, answered).await.is_err() {
            tracing::info!("the host has closed its side; requests without an answer are given up");
        }
        self.ended.cancel();
        if self.session.open() {
            drop(tokio::time::timeout(GOODBYE, self.goodbye()).await);
        }
        self.tasks.wait().await;
    }

    async fn goodbye(&self) {
        let mut headers = HeaderMap::new();
        self.session.head(&mut headers);
        let url = self.regions.current();
        if let Some(bearer) = self.credentials.bearer(url).await {
            headers.insert(header::AUTHORIZATION, bearer);
        }
        let Ok(request) = self.request(Method::DELETE, url, headers, Bytes::new()) else { return };
        match self.http.short(request).await {
            Ok((status, _)) => tracing::debug!(%status, "the session is over"),
            Err(error) => tracing::debug!(%error, "the session could not be ended"),
        }
    }
}

/// What the id of a cancelled request means.
fn cancelled(message: &FromHost) -> Option<String> {
    let raw = message.params()?.raw.as_deref()?;
    let members = Members::parse(std::str::from_utf8(raw).ok()?).ok()?;
    envelope::id_key(members.get("requestId")?)
}
