//! One child process: started with a clean environment in a group of its own, fed and read line
//! by line, stopped gently and then not.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_model::bounds;
use weir_model::reason::Refusal;
use weir_model::resource::StdioUpstream;

use super::super::envelope;
use super::super::link::Link;
use super::super::mux::Mux;
use super::super::question::Reply;
use super::super::refuse;
use super::super::told::Told;
use super::usage::{Meter, Usage};

/// How long a child may take to leave after its input was closed, and again after SIGTERM.
const LEAVE: Duration = Duration::from_secs(2);
/// Messages on their way into a child.
const INPUT_QUEUE: usize = 64;

/// A running child. Dropping the last handle stops it.
#[derive(Debug)]
pub(crate) struct Child {
    input: mpsc::Sender<Bytes>,
    pub(super) mux: Arc<Mux>,
    pub(super) started: Instant,
    used: Mutex<Instant>,
    /// Revision and result of `initialize`, of a legacy child.
    offer: OnceLock<(String, Bytes)>,
    /// What a legacy child was told of its client's log level.
    pub(super) level: Told,
    stop: DropGuard,
    /// Cancelled when the process and all that it started are gone.
    gone: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// The last bytes that a child wrote to its standard error.
#[derive(Debug, Default)]
pub(crate) struct Tail(Mutex<Vec<u8>>);

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut tail = self.0.lock();
        tail.extend_from_slice(bytes);
        let over = tail.len().saturating_sub(bounds::STDERR_TAIL_BYTES);
        tail.drain(..over);
    }

    /// As text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl Child {
    /// Starts the program.
    pub(super) fn start(
        spec: &StdioUpstream,
        mux: Mux,
        tail: &Arc<Tail>,
        (permit, usage): (OwnedSemaphorePermit, &Arc<Usage>),
    ) -> Result<Arc<Self>, Refusal> {
        let mut command = Command::new(&spec.command);
        command.args(&spec.args).env_clear().envs(&spec.env);
        if let (Some(path), false) = (std::env::var_os("PATH"), spec.env.contains_key("PATH")) {
            command.env("PATH", path);
        }
        if let Some(cwd) = &spec.cwd {
            command.current_dir(cwd);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let failed = |error: std::io::Error| {
            refuse::unreachable(format!("the program cannot be started: {error}"))
        };
        let mut process = command.spawn().map_err(failed)?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (process.stdin.take(), process.stdout.take(), process.stderr.take())
        else {
            return Err(refuse::unreachable("the program has no pipes"));
        };
        let stop = CancellationToken::new();
        let mux = Arc::new(mux);
        let (input, queue) = mpsc::channel(INPUT_QUEUE);
        tokio::spawn(feed(stdin, queue, stop.clone()));
        tokio::spawn(read(stdout, Arc::clone(&mux), input.downgrade(), stop.clone()));
        tokio::spawn(listen(stderr, Arc::clone(tail)));
        let gone = CancellationToken::new();
        let group = process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let meter = group.map(|group| usage.watch(group, spec));
        let watched = Watched { process, group, meter, tail: Arc::clone(tail) };
        tokio::spawn(supervise(watched, Arc::clone(&mux), (stop.clone(), gone.clone())));
        Ok(Arc::new(Self {
            input,
            mux,
            started: Instant::now(),
            used: Mutex::new(Instant::now()),
            offer: OnceLock::new(),
            level: Told::default(),
            stop: stop.drop_guard(),
            gone,
            _permit: permit,
        }))
    }

    /// Tells it to leave, whoever still holds it; the token says when it has.
    pub(super) fn leave(&self) -> CancellationToken {
        self.stop.token().cancel();
        self.gone.clone()
    }

    /// False after it ended or was told to.
    pub(super) fn alive(&self) -> bool {
        !self.mux.is_closed() && !self.input.is_closed()
    }

    /// True when nothing waits for it and nobody used it for that long.
    pub(super) fn idle_for(&self, time: Duration) -> bool {
        self.mux.is_idle() && self.used.lock().elapsed() > time
    }

    /// Remembers the handshake.
    pub(super) fn greeted(&self, revision: String, offer: Bytes) {
        // There is one handshake per child.
        let _ = self.offer.set((revision, offer));
    }

    /// Revision and result of the handshake.
    pub(super) fn offer(&self) -> Option<(String, Bytes)> {
        self.offer.get().cloned()
    }

    /// The revision of the handshake.
    pub(super) fn revision(&self) -> Option<String> {
        self.offer.get().map(|(revision, _)| revision.clone())
    }

    /// When it was last used.
    pub(super) fn used(&self) -> Instant {
        *self.used.lock()
    }
}

impl Link for Child {
    type Failure = Refusal;

    fn mux(&self) -> &Mux {
        &self.mux
    }

    /// Waits while the child does not read.
    async fn send(&self, message: &Bytes, deadline: Instant) -> Result<(), Refusal> {
        *self.used.lock() = Instant::now();
        let sent = self.input.send(envelope::one_line(message));
        match tokio::time::timeout_at(deadline.into(), sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.mux.ended()),
            Err(_) => Err(refuse::timeout("the child does not read its input")),
        }
    }

    fn send_aside(self: &Arc<Self>, message: Bytes) {
        // A child that does not read does not care about cancellations either.
        let _ = self.input.try_send(envelope::one_line(&message));
    }
}

/// Writes the queue to the child until it is told to stop, then closes the child's input.
async fn feed(mut stdin: ChildStdin, mut queue: mpsc::Receiver<Bytes>, stop: CancellationToken) {
    let writing = async {
        while let Some(message) = queue.recv().await {
            let mut line = Vec::with_capacity(message.len() + 1);
            line.extend_from_slice(&message);
            line.push(b'\n');
            if stdin.write_all(&line).await.is_err() || stdin.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = stop.cancelled() => {}
    }
    stop.cancel();
}

/// Hands the child's lines to the multiplexer. A line without end stops the child.
async fn read(
    mut stdout: impl AsyncRead + Unpin,
    mux: Arc<Mux>,
    input: mpsc::WeakSender<Bytes>,
    stop: CancellationToken,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut line = Vec::new();
    let end = 'reading: loop {
        let count = match stdout.read(&mut buffer).await {
            Ok(0) => break refuse::closed("the child closed its output"),
            Ok(count) => count,
            Err(error) => break refuse::closed(format!("the child's output broke: {error}")),
        };
        let mut rest = &buffer[..count];
        while let Some(at) = rest.iter().position(|b| *b == b'\n') {
            line.extend_from_slice(&rest[..at]);
            rest = &rest[at + 1..];
            let whole = Bytes::from(std::mem::take(&mut line));
            let reply = || -> Reply {
                let input = input.clone();
                Box::new(move |answer| {
                    if let Some(input) = input.upgrade() {
                        // A child that does not read gets no answers either.
                        let _ = input.try_send(envelope::one_line(&answer));
                    }
                })
            };
            match mux.line(&whole, reply) {
                Ok(None) => {}
                Ok(Some(answer)) => {
                    if let Some(input) = input.upgrade() {
                        let _ = input.try_send(answer);
                    }
                }
                Err(refusal) => break 'reading refusal,
            }
        }
        line.extend_from_slice(rest);
        if line.len() > bounds::UPSTREAM_MESSAGE_BYTES_MAX {
            break refuse::protocol("the child wrote a line longer than the bound");
        }
    };
    mux.close(end);
    stop.cancel();
}

/// Keeps the end of what the child says on its standard error.
async fn listen(mut stderr: impl AsyncRead + Unpin, tail: Arc<Tail>) {
    let mut buffer = vec![0; 4096];
    while let Ok(count) = stderr.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        tail.push(&buffer[..count]);
    }
}

/// What is needed to end a child.
struct Watched {
    process: tokio::process::Child,
    group: Option<Pid>,
    meter: Option<Meter>,
    tail: Arc<Tail>,
}

/// Waits for the end of the child, or brings it about.
async fn supervise(
    mut watched: Watched,
    mux: Arc<Mux>,
    (stop, gone): (CancellationToken, CancellationToken),
) {
    let group = watched.group;
    let signal = |signal| {
        if let Some(group) = group {
            // It may be gone already.
            let _ = kill_process_group(group, signal);
        }
    };
    let process = &mut watched.process;
    let refusal = tokio::select! {
        ended = process.wait() => ended_with(ended.ok()),
        () = stop.cancelled() => ended_with(leave(process, &signal).await),
        why = over(watched.meter.as_mut()) => {
            tracing::warn!(why, "a child was killed");
            watched.tail.push(format!("\nkilled: {why}\n").as_bytes());
            refuse::closed(format!("the child was killed: {why}"))
        }
    };
    // What the child itself has started dies with it.
    signal(Signal::KILL);
    mux.close(refusal);
    stop.cancel();
    // A process that was killed is waited for, so that nothing of it stays.
    let _ = watched.process.wait().await;
    gone.cancel();
}

fn ended_with(status: Option<ExitStatus>) -> Refusal {
    refuse::closed(match status {
        Some(status) => format!("the child ended with {status}"),
        None => "the child was killed".to_owned(),
    })
}

async fn over(meter: Option<&mut Meter>) -> String {
    match meter {
        Some(meter) => meter.over().await,
        None => std::future::pending().await,
    }
}

/// The input is closed by now; waits, asks, kills.
async fn leave(
    process: &mut tokio::process::Child,
    signal: &(impl Fn(Signal) + Sync),
) -> Option<ExitStatus> {
    for next in [Signal::TERM, Signal::KILL] {
        if let Ok(ended) = tokio::time::timeout(LEAVE, process.wait()).await {
            return ended.ok();
        }
        signal(next);
    }
    process.wait().await.ok()
}
