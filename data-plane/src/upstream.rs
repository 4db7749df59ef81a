//! The back edge: calls to MCP servers over Streamable HTTP and stdio, whatever era they speak.
//!
//! The front hands in one request in the client's own terms; this side finds out which era the
//! server speaks, adapts the envelope, sends it, and gives back the server's messages as raw
//! JSON. Results and errors are never re-serialised.

mod adapt;
pub mod client;
mod direct;
mod envelope;
mod era;
pub mod fetch;
pub mod guard;
mod handshake;
mod headers;
mod health;
mod hop;
mod http;
mod link;
pub mod metrics;
mod mux;
pub mod observe;
mod origin;
mod question;
mod raw;
mod refuse;
pub mod resources;
pub mod sse;
mod stdio;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod told;

use std::collections::HashMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ::http::{HeaderName, HeaderValue};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast};
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::{HttpUpstream, StdioUpstream, Upstream};
use weir_model::snapshot::{ToolView, UpstreamKey, VersionView};

use self::client::Clients;
use self::handshake::Description;
use self::http::Remote;
pub use self::question::{Member, Question};
use self::raw::Edit;
use self::stdio::Program;
use self::stdio::usage::Usage;
use crate::mcp::level::Level;

/// `User-Agent` of everything that the gateway asks for.
pub(crate) const USER_AGENT_TEXT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"));

/// What a proxy is set up with.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Root certificates that are trusted besides the system's.
    pub extra_roots: Vec<rustls_pki_types::CertificateDer<'static>>,
    /// Which programs may be started as servers.
    pub commands: Commands,
    /// Lanes that call servers, each over connections of its own.
    pub lanes: usize,
}

/// Which programs a proxy starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commands {
    /// Whatever the configuration says: for one's own machine only.
    Any,
    /// These, spelled exactly like this in `command`.
    Only(Vec<String>),
}

impl Default for Commands {
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

/// The wire that a server and the gateway speak with each other for a given client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// 2026-07-28: no handshake, no session.
    Modern,
    /// Up to 2025-11-25. For a client of that era on a transparent endpoint the front passes
    /// `initialize` through, keeps [`Exchange::session`], and gives it back in
    /// [`Outbound::session`] and [`Channel::session`].
    Legacy,
}

/// One session of a server that a client of an older revision sees through.
#[derive(Debug, Clone)]
pub struct Channel {
    /// Where to.
    pub version: Arc<VersionView>,
    /// As [`Exchange::session`] gave it.
    pub session: String,
    /// The revision that was negotiated.
    pub revision: String,
    /// Credential headers, already opened.
    pub credentials: Vec<(HeaderName, HeaderValue)>,
    /// When to give up.
    pub deadline: Instant,
}

/// Every server that this proxy talks to: connections, sessions, children. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Upstreams {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    tls: Arc<rustls::ClientConfig>,
    remotes: Mutex<HashMap<UpstreamKey, Arc<Remote>>>,
    programs: Mutex<HashMap<UpstreamKey, Arc<Program>>>,
    children: Arc<Semaphore>,
    usage: Arc<Usage>,
    changes: broadcast::Sender<UpstreamKey>,
}

/// How often idle sessions and servers are looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// How long the connections of a server that nobody calls are kept.
const UNUSED: Duration = Duration::from_secs(1_200);
/// The same for a program, longer than its children are kept idle.
const UNUSED_PROGRAM: Duration = Duration::from_secs(3_600);

impl Upstreams {
    /// Nothing is connected or started before the first call. Must be made inside of a runtime,
    /// whose task it uses to end what is idle.
    ///
    /// # Errors
    /// When there is no usable root certificate.
    pub fn new(settings: Settings) -> Result<Self, client::TlsError> {
        let tls = client::tls(&settings.extra_roots)?;
        let (changes, _) = broadcast::channel(64);
        let inner = Inner {
            settings,
            tls,
            remotes: Mutex::default(),
            programs: Mutex::default(),
            children: Arc::new(Semaphore::new(bounds::CHILDREN_MAX)),
            usage: Usage::start(),
            changes,
        };
        let made = Self { inner: Arc::new(inner) };
        tokio::spawn(sweep(Arc::downgrade(&made.inner)));
        Ok(made)
    }

    /// Server versions whose lists have changed, as they say so while they are used.
    pub fn changes(&self) -> broadcast::Receiver<UpstreamKey> {
        self.inner.changes.subscribe()
    }

    /// Sends one request and gives the server's messages.
    ///
    /// # Errors
    /// A refusal of the `upstream_*` family; nothing that may have been executed is sent twice.
    pub async fn call(&self, outbound: Outbound) -> Result<Exchange, Refusal> {
        match &outbound.version.spec.upstream {
            Upstream::Http(http) => {
                let remote = self.inner.remote(&outbound.version, http)?;
                remote.health.guard(Box::pin(remote.call(&outbound))).await
            }
            Upstream::Stdio(stdio) => {
                let program = self.inner.program(&outbound.version, stdio)?;
                program.health.guard(Box::pin(program.call(&outbound))).await
            }
        }
    }

    /// Which wire calls of such a client take; asks the server when nobody knows yet.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn wire(
        &self,
        version: &Arc<VersionView>,
        front_modern: bool,
        credentials: &[(HeaderName, HeaderValue)],
    ) -> Result<Wire, Refusal> {
        let deadline = Instant::now() + Duration::from_millis(bounds::CALL_MS);
        match &version.spec.upstream {
            Upstream::Http(http) => {
                let remote = self.inner.remote(version, http)?;
                Box::pin(remote.wire(version, front_modern, credentials, deadline)).await
            }
            Upstream::Stdio(stdio) => {
                let program = self.inner.program(version, stdio)?;
                Box::pin(program.wire(version, deadline)).await
            }
        }
    }

    /// Passes a notification or a response of the client on to its session.
    ///
    /// # Errors
    /// `SessionUnknown` when the server does not know the session any more.
    pub async fn deliver(&self, channel: &Channel, message: Bytes) -> Result<(), Refusal> {
        match &channel.version.spec.upstream {
            Upstream::Http(http) => {
                self.inner.remote(&channel.version, http)?.deliver(channel, message).await
            }
            Upstream::Stdio(stdio) => {
                self.inner.program(&channel.version, stdio)?.deliver(channel, message).await
            }
        }
    }

    /// Opens the stream on which the server pushes what belongs to no call (`GET`).
    ///
    /// # Errors
    /// `MethodNotAllowed` when the server has none, `SessionUnknown` as above.
    pub async fn open_stream(
        &self,
        channel: &Channel,
        last_event_id: Option<&str>,
    ) -> Result<Exchange, Refusal> {
        match &channel.version.spec.upstream {
            Upstream::Http(http) => {
                self.inner.remote(&channel.version, http)?.open_stream(channel, last_event_id).await
            }
            Upstream::Stdio(stdio) => {
                self.inner.program(&channel.version, stdio)?.open_stream(channel)
            }
        }
    }

    /// Ends a session (`DELETE`). Not knowing it is no error.
    ///
    /// # Errors
    /// When the server cannot be reached, or does not let clients end sessions.
    pub async fn delete_session(&self, channel: &Channel) -> Result<(), Refusal> {
        match &channel.version.spec.upstream {
            Upstream::Http(http) => {
                self.inner.remote(&channel.version, http)?.delete_session(channel).await
            }
            Upstream::Stdio(stdio) => {
                self.inner.program(&channel.version, stdio)?.delete_session(channel);
                Ok(())
            }
        }
    }

    /// True while calls to a server version are held back because it does not answer.
    pub fn held(&self, key: &UpstreamKey) -> bool {
        let remote = self.inner.remotes.lock().get(key).map(|remote| remote.health.is_held());
        remote
            .or_else(|| self.inner.programs.lock().get(key).map(|one| one.health.is_held()))
            .unwrap_or(false)
    }

    /// Opens the stream on which a server of an older revision tells the caller's session what
    /// belongs to no call; the session is opened when there is none. Ends when it is dropped, at
    /// the deadline, or when the server ends it.
    ///
    /// # Errors
    /// `MethodNotAllowed` when the server has no such stream, and as for a call.
    pub(crate) async fn follow(&self, outbound: &Outbound) -> Result<Pushed, Refusal> {
        match &outbound.version.spec.upstream {
            Upstream::Http(http) => {
                let remote = self.inner.remote(&outbound.version, http)?;
                Box::pin(remote.follow(outbound)).await
            }
            Upstream::Stdio(stdio) => {
                let program = self.inner.program(&outbound.version, stdio)?;
                Box::pin(program.follow(outbound)).await
            }
        }
    }

    /// What a server says about itself, asked now.
    pub(crate) async fn describe(&self, outbound: &Outbound) -> Result<Description, Refusal> {
        match &outbound.version.spec.upstream {
            Upstream::Http(http) => {
                let remote = self.inner.remote(&outbound.version, http)?;
                remote.health.note(Box::pin(remote.describe(outbound)).await)
            }
            Upstream::Stdio(stdio) => {
                let program = self.inner.program(&outbound.version, stdio)?;
                program.health.note(Box::pin(program.describe(outbound)).await)
            }
        }
    }

    /// Ends the sessions and children that were opened for one caller.
    pub(crate) async fn release(&self, version: &VersionView, isolation: &str) {
        let remote = self.inner.remotes.lock().get(&version.key).cloned();
        if let Some(remote) = remote {
            remote.release(isolation).await;
        }
        let program = self.inner.programs.lock().get(&version.key).cloned();
        if let Some(program) = program {
            program.release(isolation);
        }
    }

    /// The end of what the children of a server said on their standard error.
    pub(crate) fn stderr(&self, version: &VersionView) -> Option<String> {
        self.inner.programs.lock().get(&version.key).map(|program| program.stderr())
    }

    /// Ends connections, sessions and children of a server version that is no more.
    pub(crate) fn let_go(&self, key: &UpstreamKey) {
        let remote = self.inner.remotes.lock().remove(key);
        let program = self.inner.programs.lock().remove(key);
        tokio::spawn(async move {
            if let Some(remote) = remote {
                remote.close().await;
            }
            if let Some(program) = program {
                program.close().await;
            }
        });
    }

    /// Ends sessions and children; for the end of a drain.
    pub async fn close(&self) {
        let remotes: Vec<_> = self.inner.remotes.lock().drain().map(|(_, one)| one).collect();
        let programs: Vec<_> = self.inner.programs.lock().drain().map(|(_, one)| one).collect();
        futures_util::future::join_all(programs.iter().map(|one| one.close())).await;
        futures_util::future::join_all(remotes.iter().map(Remote::close)).await;
    }
}

impl Inner {
    /// The state of a server version. A changed document makes a new one: connections that were
    /// checked under the old settings must not serve the new.
    fn remote(&self, version: &VersionView, spec: &HttpUpstream) -> Result<Arc<Remote>, Refusal> {
        let mut remotes = self.remotes.lock();
        if let Some(remote) = remotes.get(&version.key).filter(|remote| remote.spec == *spec) {
            return Ok(Arc::clone(remote));
        }
        let clients = Clients::new(&self.tls, spec.allow_private, self.settings.lanes);
        let changes = self.changes.clone();
        let remote = Remote::new(version.key.clone(), spec.clone(), clients, changes)?;
        let remote = Arc::new(remote);
        if let Some(old) = remotes.insert(version.key.clone(), Arc::clone(&remote)) {
            tokio::spawn(async move { old.close().await });
        }
        Ok(remote)
    }

    fn program(
        &self,
        version: &VersionView,
        spec: &StdioUpstream,
    ) -> Result<Arc<Program>, Refusal> {
        if let Commands::Only(allowed) = &self.settings.commands
            && !allowed.contains(&spec.command)
        {
            return Err(Refusal::new(
                Reason::Quarantined,
                format!("{:?} is not on the proxy's list of commands", spec.command),
            ));
        }
        let mut programs = self.programs.lock();
        if let Some(program) = programs.get(&version.key).filter(|program| program.spec == *spec) {
            return Ok(Arc::clone(program));
        }
        let room = (Arc::clone(&self.children), Arc::clone(&self.usage));
        let changes = self.changes.clone();
        let program = Program::new(version.key.clone(), spec.clone(), room, changes);
        let program = Arc::new(program);
        if let Some(old) = programs.insert(version.key.clone(), Arc::clone(&program)) {
            tokio::spawn(async move { old.close().await });
        }
        Ok(program)
    }

    async fn sweep(&self) {
        let programs: Vec<_> = {
            let mut programs = self.programs.lock();
            programs.retain(|_, program| program.used().elapsed() < UNUSED_PROGRAM);
            programs.values().cloned().collect()
        };
        programs.iter().for_each(|program| program.sweep());
        let (kept, unused): (Vec<_>, Vec<_>) = {
            let mut remotes = self.remotes.lock();
            let all: Vec<_> = remotes.values().cloned().collect();
            remotes.retain(|_, remote| remote.used().elapsed() < UNUSED);
            all.into_iter().partition(|remote| remote.used().elapsed() < UNUSED)
        };
        futures_util::future::join_all(kept.iter().map(Remote::sweep)).await;
        futures_util::future::join_all(unused.iter().map(Remote::close)).await;
    }
}

/// Ends what is idle for as long as anybody holds the upstreams.
async fn sweep(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(inner) = inner.upgrade() else { return };
        inner.sweep().await;
    }
}

/// The side of the client, as far as a server has to know.
#[derive(Debug, Clone)]
pub struct Front {
    /// True for 2026-07-28 and later.
    pub modern: bool,
    /// The revision that the client speaks: `2025-11-25`.
    pub revision: String,
    /// `clientInfo`, raw JSON object.
    pub client_info: Option<Bytes>,
    /// `capabilities` (legacy) or `_meta[io.modelcontextprotocol/clientCapabilities]`, raw JSON.
    pub capabilities: Bytes,
    /// Identifies caller and session: upstream sessions and children of legacy servers are kept
    /// per value of this (principal id plus sealed session, or principal id alone).
    pub isolation: String,
    /// From which severity on a client of an older revision wants to hear log messages, where it
    /// has said so to the gateway.
    pub log_level: Option<Level>,
}

/// One request for a server.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Where to.
    pub version: Arc<VersionView>,
    /// From whom.
    pub front: Front,
    /// The client's own JSON-RPC id, raw. Used as it is where the client sees the server's session
    /// (so that its cancellations name the right request), and in what refers to it
    /// (`subscriptionId`); elsewhere the gateway numbers its requests itself.
    pub id: Option<Bytes>,
    /// JSON-RPC method.
    pub method: String,
    /// `params` as raw JSON with the upstream's own names in it; `_meta` as the client sent it.
    pub params: Option<Bytes>,
    /// What `Mcp-Name` mirrors (tool or prompt name, URI), for methods that have it.
    pub name: Option<String>,
    /// The tool of a `tools/call`, for its mirrored argument headers.
    pub tool: Option<Arc<ToolView>>,
    /// The client's own `Mcp-Param-*` headers, forwarded untouched to a modern server.
    pub param_headers: Vec<(HeaderName, HeaderValue)>,
    /// Credential headers, already opened.
    pub credentials: Vec<(HeaderName, HeaderValue)>,
    /// For transparent endpoints with a legacy client and a legacy server over HTTP: the server's
    /// own session, which the client's sealed session id carries.
    pub session: Option<String>,
    /// When to give up.
    pub deadline: Instant,
    /// W3C `traceparent` to send on.
    pub traceparent: Option<String>,
    /// Times that it was sent again, for whoever asks afterwards.
    pub retries: Arc<AtomicU32>,
}

impl Outbound {
    /// The same request once more, with the client's answers to what the server wanted to know and
    /// the server's own state.
    ///
    /// # Errors
    /// [`Reason::InvalidParams`] when `params` is no object.
    pub fn answering(
        &self,
        responses: Option<&[u8]>,
        state: Option<&[u8]>,
    ) -> Result<Self, Refusal> {
        let edit = |name, value: Option<_>| match value {
            Some(value) => Edit::Set(name, value),
            None => Edit::Drop(name),
        };
        let edits = [edit("inputResponses", responses), edit("requestState", state)];
        let params = raw::edited(self.params.as_deref().unwrap_or(b"{}"), &edits);
        let params = params.map_err(|_| Reason::InvalidParams)?;
        Ok(Self { params: Some(params.into()), ..self.clone() })
    }
}

/// A message from a server that belongs to one request.
#[derive(Debug)]
pub enum Message {
    /// A notification: the whole JSON-RPC object, raw.
    Notification(Bytes),
    /// A request to the client (legacy servers): the whole JSON-RPC object, raw.
    Request(Bytes),
    /// The server asks something of the client on a session that the gateway keeps: whoever takes
    /// this answers it.
    Ask(Question),
    /// The final result: the `result` member, raw.
    Result(Bytes),
    /// The final JSON-RPC error: the `error` member, raw.
    Error(Bytes),
    /// A response to an earlier request of the client, on a stream that it opened again (`GET` with
    /// `Last-Event-ID`): the whole JSON-RPC object, raw.
    Response(Bytes),
    /// SSE bookkeeping of a legacy server: event id and `retry`. Follows the message whose event
    /// carried them, or stands alone. A transparent exchange may end after one without a result:
    /// the server asks the client to come back with `Last-Event-ID`.
    Prime {
        /// `id:` field.
        id: Option<String>,
        /// `retry:` field, milliseconds.
        retry_ms: Option<u64>,
    },
}

/// A session that a server has opened for a client that sees through to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// For [`Outbound::session`] and [`Channel::session`].
    pub id: String,
    /// This process alone can go on with it: it is a child, or a stream that is open.
    pub local: bool,
}

/// What a server answers to one request. Dropping it cancels the request at the server.
#[derive(Debug)]
pub struct Exchange {
    /// The revision that the server speaks in this exchange.
    pub back_revision: String,
    /// The server's session, when this request opened one (`initialize` on a transparent endpoint).
    pub session: Option<Opened>,
    /// In order; ends after `Result` or `Error`, or with a refusal.
    pub messages: Messages,
}

impl Exchange {
    /// The final result or error; what comes before it is left out.
    pub(crate) async fn last(self) -> Result<Message, Refusal> {
        let mut stream = match self.messages {
            Messages::One(message) => return Ok(message),
            Messages::Stream(stream) => stream,
        };
        loop {
            match stream.recv().await {
                Some(Ok(message @ (Message::Result(_) | Message::Error(_)))) => return Ok(message),
                Some(Ok(_)) => {}
                Some(Err(refusal)) => return Err(refusal),
                None => return Err(refuse::closed("the stream ended before its answer")),
            }
        }
    }
}

/// What a server tells of its own accord.
pub(crate) type Pushed = tokio::sync::mpsc::Receiver<Result<Message, Refusal>>;

/// The messages of an exchange.
#[derive(Debug)]
pub enum Messages {
    /// The server answered with one JSON body: the front may answer in the same way.
    One(Message),
    /// The server answered with a stream.
    Stream(tokio::sync::mpsc::Receiver<Result<Message, Refusal>>),
}
