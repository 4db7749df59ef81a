//! Calls at a fixed rate against a gateway that comes and goes.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use super::truth::{Became, Call};
use crate::events::Events;
use crate::target::connect;

/// Longer than the gateway lets anybody wait for a record.
const PATIENCE: Duration = Duration::from_secs(30);
/// Calls that may be under way.
const WORKERS: u64 = 48;
/// How the gateway says that it can keep no record.
const NO_RECORD: &str = "audit_full";

/// What to call.
#[derive(Debug, Clone)]
pub struct Plan {
    /// An endpoint of one server, [`crate::upstream`].
    pub url: String,
    /// Bearer token.
    pub token: String,
    /// Calls a second.
    pub rate: f64,
    /// In front of every argument: tells runs apart.
    pub run: String,
}

/// One of the kinds of calls that take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Answered by one body.
    Echo,
    /// Answered by a stream.
    Progress,
    /// Refused: there is no such tool.
    Unknown,
}

impl Kind {
    fn of(number: u64) -> Self {
        match number % 10 {
            3 => Self::Progress,
            7 => Self::Unknown,
            _ => Self::Echo,
        }
    }

    fn tool(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Progress => "progress",
            Self::Unknown => "no_such_tool",
        }
    }

    fn arguments(self, run: &str, number: u64) -> String {
        match self {
            Self::Progress => format!(r#"{{"text":"{run}-{number}","events":2,"everyMs":5}}"#),
            _ => format!(r#"{{"text":"{run}-{number}"}}"#),
        }
    }
}

struct Shared<W> {
    plan: Plan,
    uri: hyper::Uri,
    taken: AtomicU64,
    begun: Instant,
    out: Mutex<W>,
}

/// Calls until told to stop; writes what became of each.
///
/// # Errors
/// When the URL is none, or the file cannot be written.
pub async fn drive<W>(plan: Plan, out: W, stop: watch::Receiver<bool>) -> anyhow::Result<W>
where
    W: Write + Send + 'static,
{
    let uri = plan.url.parse()?;
    let begun = Instant::now();
    let taken = AtomicU64::new(0);
    let shared = Arc::new(Shared { plan, uri, taken, begun, out: Mutex::new(out) });
    let workers: Vec<_> =
        (0..WORKERS).map(|_| tokio::spawn(work(Arc::clone(&shared), stop.clone()))).collect();
    for worker in workers {
        worker.await.context("a worker")??;
    }
    let shared = Arc::into_inner(shared).context("a worker goes on")?;
    let mut out = shared.out.into_inner();
    out.flush()?;
    Ok(out)
}

async fn work<W: Write>(
    shared: Arc<Shared<W>>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut connection = None;
    loop {
        let number = shared.taken.fetch_add(1, Ordering::Relaxed);
        let at = shared.begun + Duration::from_secs_f64(number as f64 / shared.plan.rate);
        tokio::select! {
            () = tokio::time::sleep_until(at.into()) => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
        let kind = Kind::of(number);
        let arguments = kind.arguments(&shared.plan.run, number);
        let sent_ms = now_ms();
        let asked = ask(&shared, &mut connection, (kind, number, &arguments));
        let (became, request) = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(ended) => ended,
            Err(_) => (Became::Unanswered("nothing came in time".to_owned()), None),
        };
        if matches!(became, Became::Unsent | Became::Unanswered(_)) {
            connection = None;
        }
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, arguments.as_bytes());
        let arguments = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let call = Call { number, arguments, sent_ms, over_ms: now_ms(), became, request };
        let mut line = serde_json::to_vec(&call)?;
        line.push(b'\n');
        shared.out.lock().write_all(&line)?;
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

type Open = SendRequest<Full<Bytes>>;

/// One call, on the connection that is there or a new one.
async fn ask<W>(
    shared: &Shared<W>,
    connection: &mut Option<Open>,
    (kind, number, arguments): (Kind, u64, &str),
) -> (Became, Option<String>) {
    let request = match request(shared, kind, number, arguments) {
        Ok(request) => request,
        Err(error) => return (Became::Failed(format!("{error:#}")), None),
    };
    if connection.as_ref().is_some_and(Open::is_closed) {
        *connection = None;
    }
    let mut open = match connection.take() {
        Some(open) => open,
        None => match connect(&shared.uri).await {
            Ok(open) => open,
            Err(_) => return (Became::Unsent, None),
        },
    };
    if open.ready().await.is_err() {
        return (Became::Unsent, None);
    }
    let response = match open.send_request(request).await {
        Ok(response) => response,
        Err(error) => return (Became::Unanswered(error.to_string()), None),
    };
    let status = response.status();
    let header = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_owned)
    };
    let request = header("x-request-id");
    let stream = header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    let body = match stream {
        true => last_event(response.into_body()).await,
        false => {
            response.into_body().collect().await.map(|body| body.to_bytes()).map_err(Into::into)
        }
    };
    let became = match body {
        Err(error) => Became::Unanswered(format!("{error:#}")),
        Ok(body) => judged(&body, status),
    };
    *connection = Some(open);
    (became, request)
}

fn request<W>(
    shared: &Shared<W>,
    kind: Kind,
    number: u64,
    arguments: &str,
) -> anyhow::Result<Request<Full<Bytes>>> {
    let name = kind.tool();
    let token = if kind == Kind::Progress { r#","progressToken":"p""# } else { "" };
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":{number},"method":"tools/call","params":{{"name":"{name}","arguments":{arguments},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}},"io.modelcontextprotocol/clientInfo":{{"name":"weir-chaos","version":"1"}}{token}}}}}}}"#
    );
    let authority = shared.uri.authority().context("the url has no host")?.as_str();
    Ok(Request::post(shared.uri.path())
        .header("host", authority)
        .header("authorization", format!("Bearer {}", shared.plan.token))
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", name)
        .body(Full::new(body.into()))?)
}

/// The answer is the last event; a stream that ends without one has broken off.
async fn last_event(body: hyper::body::Incoming) -> anyhow::Result<Bytes> {
    let mut events = Events::new(body);
    loop {
        let event = events.next().await?.context("the stream ended without an answer")?;
        let message: Value = serde_json::from_slice(&event)?;
        if message.get("result").is_some() || message.get("error").is_some() {
            return Ok(event);
        }
    }
}

fn judged(body: &[u8], status: hyper::StatusCode) -> Became {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        return Became::Failed(format!("{status}, and no JSON"));
    };
    match answer.get("error") {
        None if answer.get("result").is_some() => Became::Served,
        None => Became::Failed(format!("{status}, and no answer")),
        Some(error) if error["data"]["reason"] == NO_RECORD => Became::NoRecord,
        Some(error) => {
            let said = error["data"]["reason"].as_str().or(error["message"].as_str());
            Became::Failed(said.unwrap_or_default().to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let judge = |text: &str| judged(text.as_bytes(), hyper::StatusCode::OK);
        assert_eq!(judge(r#"{"id":1,"result":{}}"#), Became::Served);
        let full = r#"{"id":1,"error":{"code":1,"message":"m","data":{"reason":"audit_full"}}}"#;
        assert_eq!(judge(full), Became::NoRecord);
        let other = r#"{"id":1,"error":{"code":1,"message":"no such tool"}}"#;
        assert_eq!(judge(other), Became::Failed("no such tool".to_owned()));
        assert!(matches!(judge("<html>"), Became::Failed(_)));
    }
}
