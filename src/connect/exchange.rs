//! One message to the gateway, and the answer to it, with every retry that is safe.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use weir_model::bounds;
use weir_runtime::backoff::Backoff;

use super::bridge::Bridge;
use super::credentials::Challenge;
use super::http::{CALL, Events, Failed, streams, whole};
use super::listening::{Opened, RETRY, RETRY_MAX};
use super::message::{FromHost, Seen, Trouble, error_with, failed};
use super::session;

/// Rounds over all regions before a request is given up.
const ROUNDS: usize = 5;
/// Wait between rounds: doubling from the first, up to the second.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));
/// How often a stream that breaks off is gone on with, without an event in between.
const RESUMES: u32 = 6;
/// How often one request may make the host sign in, or get a token renewed.
const SIGN_INS: u32 = 2;
/// Reasons of a gateway that another region need not have.
const ELSEWHERE: [&str; 6] = [
    "draining",
    "overloaded",
    "snapshot_missing",
    "snapshot_stale",
    "audit_full",
    "identity_unavailable",
];

/// What one attempt came to.
enum Turn {
    /// An answer for the host.
    Done(Bytes),
    /// Something was put right: send it again.
    Again,
    /// This region does not serve it. `sent`: it may have been carried out.
    Elsewhere { why: String, sent: bool, answer: Option<Bytes> },
}

/// What was put right for one message already.
#[derive(Default)]
struct Mended {
    signed_in: u32,
    session: bool,
    mirrors: bool,
    /// The subscription was acknowledged before its stream broke.
    acknowledged: bool,
}

impl Bridge {
    /// The answer to a request, whatever happens.
    pub(super) fn answer<'a>(&'a self, request: &'a FromHost) -> BoxFuture<'a, Bytes> {
        // Boxed by its type: putting things right asks for answers too.
        Box::pin(self.attempts(request))
    }

    async fn attempts(&self, request: &FromHost) -> Bytes {
        let mut mended = Mended::default();
        let mut backoff = Backoff::new(WAIT.0, WAIT.1);
        let (mut tried, mut rounds) = (0, 0);
        loop {
            let url = self.regions.current().to_owned();
            match self.turn(request, &url, &mut mended).await {
                Turn::Done(answer) => return answer,
                Turn::Again => {}
                Turn::Elsewhere { why, sent, answer } => {
                    self.regions.failed(&url, &why);
                    if sent && !self.tools.repeatable(request) {
                        let text = format!(
                            "the connection to {url} was lost while the request ran; it may or may \
                             not have been carried out ({why})"
                        );
                        return failed(request.id(), Trouble::Lost, &text);
                    }
                    // A stream that was open counts as success: begin anew.
                    if mended.acknowledged {
                        (tried, rounds) = (0, rounds.min(1));
                    }
                    tried += 1;
                    if tried < self.regions.count() {
                        continue;
                    }
                    (tried, rounds) = (0, rounds + 1);
                    if rounds >= ROUNDS {
                        let text = format!("{url} cannot be reached ({why})");
                        return answer
                            .unwrap_or_else(|| failed(request.id(), Trouble::Unreachable, &text));
                    }
                    tokio::time::sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    async fn turn(&self, request: &FromHost, url: &str, mended: &mut Mended) -> Turn {
        let epoch = self.session.epoch();
        let bearer = self.credentials.bearer(url).await;
        let response = match self.post(request, url, bearer.as_ref()).await {
            Ok(response) => response,
            Err(Failed::NotSent(why)) => return elsewhere(why, false),
            Err(Failed::Lost(why)) => return elsewhere(why, true),
        };
        match response.status() {
            StatusCode::UNAUTHORIZED => {
                self.sign_in(request, (url, bearer.as_ref()), response, mended).await
            }
            StatusCode::FORBIDDEN if Challenge::read(response.headers()).wants_scope() => {
                self.sign_in(request, (url, bearer.as_ref()), response, mended).await
            }
            StatusCode::NOT_FOUND if self.has_session(request, epoch) && !mended.session => {
                mended.session = true;
                // Without it, the host gets to see what the gateway said.
                match self.renew_session(epoch).await {
                    Ok(()) => Turn::Again,
                    Err(why) => {
                        tracing::warn!(why, "the session cannot be had again");
                        self.read(request, response).await
                    }
                }
            }
            StatusCode::OK if streams(&response) => self.stream(request, response, mended).await,
            StatusCode::BAD_REQUEST if request.method() == "tools/call" && !mended.mirrors => {
                let turn = self.read(request, response).await;
                match self.refresh_mirrors(request, &turn).await {
                    true => {
                        mended.mirrors = true;
                        Turn::Again
                    }
                    false => turn,
                }
            }
            _ => self.read(request, response).await,
        }
    }

    /// Sends a message with what its era wants around it.
    async fn post(
        &self,
        message: &FromHost,
        url: &str,
        bearer: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, Failed> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let both = HeaderValue::from_static("application/json, text/event-stream");
        headers.insert(header::ACCEPT, both);
        if let Some(bearer) = bearer {
            headers.insert(header::AUTHORIZATION, bearer.clone());
        }
        if message.modern() {
            self.tools.head(message, &mut headers);
        } else if message.method() != "initialize" {
            self.session.head(&mut headers);
        }
        let request = self
            .request(Method::POST, url, headers, message.text.clone())
            .map_err(|error| Failed::NotSent(error.to_string()))?;
        self.http.send(request, CALL).await
    }

    fn has_session(&self, request: &FromHost, epoch: u64) -> bool {
        epoch > 0 && !request.modern() && request.method() != "initialize"
    }

    /// An answer that is no stream.
    async fn read(&self, request: &FromHost, response: Response<Incoming>) -> Turn {
        let (parts, body) = response.into_parts();
        let body = match whole(body, bounds::UPSTREAM_MESSAGE_BYTES_MAX).await {
            Ok(body) => body,
            Err(error) => return elsewhere(error.to_string(), true),
        };
        let status = parts.status;
        match Seen::read(&body) {
            Some(seen) if seen.method.is_none() => {
                self.note(request, &seen, &parts.headers);
                self.judge(request, &seen, body.clone())
            }
            // In front of the gateway something stands that speaks no MCP.
            _ if status == StatusCode::SERVICE_UNAVAILABLE => elsewhere(status.to_string(), false),
            _ if matches!(status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT) => {
                elsewhere(status.to_string(), true)
            }
            _ => {
                let what = format!("the answer is no MCP message (HTTP {status})");
                Turn::Done(failed(request.id(), Trouble::NoGateway, &what))
            }
        }
    }

    /// Whether an answer is for the host, or a reason to ask elsewhere.
    fn judge(&self, request: &FromHost, seen: &Seen<'_>, text: Bytes) -> Turn {
        // The gateway could not read the id, or the message: it is still the answer.
        let text = match (seen.answers(request.key()), seen.error) {
            (false, Some(error)) => error_with(request.id(), error),
            _ => text,
        };
        match seen.failure() {
            Some((_, Some(reason))) if ELSEWHERE.contains(&reason.as_str()) => {
                Turn::Elsewhere { why: reason, sent: false, answer: Some(text) }
            }
            _ => Turn::Done(text),
        }
    }

    /// Takes note of what an answer tells.
    fn note(&self, request: &FromHost, seen: &Seen<'_>, headers: &HeaderMap) {
        let Some(result) = seen.result else { return };
        match request.method() {
            "initialize" => self.session.settled(request, headers, result),
            "tools/list" => self.tools.listed(result),
            "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => {
                self.session.wished(request);
            }
            _ => {}
        }
    }

    /// An answer that is a stream: hands on what comes before the answer itself.
    async fn stream(
        &self,
        request: &FromHost,
        response: Response<Incoming>,
        mended: &mut Mended,
    ) -> Turn {
        let (parts, body) = response.into_parts();
        let mut events = Events::new(body);
        let (mut last, mut retry, mut resumes) = (None, RETRY, 0);
        loop {
            while let Some(event) = events.next().await {
                resumes = 0;
                last = event.id.or(last);
                retry = event.retry_ms.map_or(retry, Duration::from_millis).min(RETRY_MAX);
                let Some(data) = event.data else { continue };
                let Some(seen) = Seen::read(&data) else {
                    tracing::warn!("the gateway sent something that is no message");
                    continue;
                };
                if seen.answers(request.key()) {
                    self.note(request, &seen, &parts.headers);
                    return self.judge(request, &seen, data.clone());
                }
                for message in self.passed_on(request, &seen, &data, mended) {
                    self.say(message).await;
                }
            }
            // Stateless revisions cannot go on with a stream; older ones where it had ids.
            let Some(id) = last.as_deref().filter(|_| !request.modern()) else {
                return elsewhere("the stream broke off".to_owned(), true);
            };
            events = loop {
                resumes += 1;
                if resumes > RESUMES {
                    return elsewhere("the stream cannot be gone on with".to_owned(), true);
                }
                tokio::time::sleep(retry).await;
                match self.open(Some(id)).await {
                    Opened::Stream(body) => break Events::new(body),
                    Opened::NotNow(why) => tracing::debug!(why, "the stream is not back yet"),
                    Opened::Never(status) => return elsewhere(status.to_string(), true),
                }
            };
        }
    }

    /// What the host gets of a message that came before the answer. A subscription that had to be
    /// made again is not acknowledged twice; what it may have missed is announced instead.
    fn passed_on(
        &self,
        request: &FromHost,
        seen: &Seen<'_>,
        data: &Bytes,
        mended: &mut Mended,
    ) -> Vec<Bytes> {
        let acknowledges = request.method() == "subscriptions/listen"
            && seen.method.as_deref() == Some("notifications/subscriptions/acknowledged");
        if !acknowledges || !std::mem::replace(&mut mended.acknowledged, true) {
            return vec![data.clone()];
        }
        let params: serde_json::Value =
            seen.params.and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
        let missed = |(member, what): (&str, &str)| {
            (params["notifications"][member] == true).then(|| {
                let method = format!("notifications/{what}/list_changed");
                let params = serde_json::json!({ "_meta": params["_meta"] });
                let text =
                    serde_json::json!({ "jsonrpc": "2.0", "method": method, "params": params });
                Bytes::from(text.to_string())
            })
        };
        let lists = [
            ("toolsListChanged", "tools"),
            ("promptsListChanged", "prompts"),
            ("resourcesListChanged", "resources"),
        ];
        lists.into_iter().filter_map(missed).collect()
    }

    async fn sign_in(
        &self,
        request: &FromHost,
        (url, bearer): (&str, Option<&HeaderValue>),
        response: Response<Incoming>,
        mended: &mut Mended,
    ) -> Turn {
        mended.signed_in += 1;
        if mended.signed_in > SIGN_INS {
            return self.read(request, response).await;
        }
        let challenge = Challenge::read(response.headers());
        match self.credentials.renew(url, bearer, &challenge).await {
            Ok(()) => Turn::Again,
            Err(error) => {
                tracing::error!(%error, "not signed in");
                let text = format!("not signed in to {url}: {error}");
                Turn::Done(failed(request.id(), Trouble::NotSignedIn, &text))
            }
        }
    }

    /// After a complaint about headers: asks for the tools anew, so that the next attempt mirrors
    /// what they declare now.
    async fn refresh_mirrors(&self, request: &FromHost, turn: &Turn) -> bool {
        let Turn::Done(answer) = turn else { return false };
        let code = Seen::read(answer).and_then(|seen| seen.failure()).map(|(code, _)| code);
        if code != Some(-32020) || !request.modern() {
            return false;
        }
        let meta = request.params().and_then(|params| params.meta.clone()).unwrap_or_default();
        let mut cursor = String::new();
        for _ in 0..bounds::LIST_PAGES_MAX {
            let params = format!(r#"{{"_meta":{}{cursor}}}"#, String::from_utf8_lossy(&meta));
            let mut list = FromHost::own(self.own_number(), "tools/list", params.as_bytes());
            list.revision = request.revision.clone();
            // `mended.mirrors` of the list is of no use to it: it is no tools/call.
            let answer = self.answer(&list).await;
            let next = Seen::read(&answer).and_then(|seen| {
                let result: serde_json::Value = serde_json::from_str(seen.result?).ok()?;
                result.get("nextCursor").cloned()
            });
            match next {
                Some(next) => cursor = format!(r#","cursor":{next}"#),
                None => break,
            }
        }
        true
    }

    /// Settles the session again as the host had settled it. Whoever comes second finds it done.
    async fn renew_session(&self, epoch: u64) -> Result<(), String> {
        let _alone = self.session.renewing.lock().await;
        if self.session.epoch() != epoch {
            return Ok(());
        }
        let again = self.session.again().ok_or("there was none")?;
        tracing::info!("the gateway does not know the session any more; opening another");
        let request = FromHost::own(self.own_number(), "initialize", &again.handshake);
        let answer = self.answer(&request).await;
        let revision = session::agreed(&answer).ok_or_else(|| {
            format!("the handshake was refused: {}", String::from_utf8_lossy(&answer))
        })?;
        if revision != again.revision {
            return Err(format!("the gateway speaks {revision} now, the host {}", again.revision));
        }
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        if let Ok(message) = FromHost::read(Bytes::from_static(initialized.as_bytes())) {
            self.deliver(&message).await;
        }
        for (method, params) in again.wishes {
            let request = FromHost::own(self.own_number(), method, &params);
            let answer = self.answer(&request).await;
            if Seen::read(&answer).is_none_or(|seen| seen.result.is_none()) {
                tracing::warn!(method, "could not be asked for again");
            }
        }
        self.renewed.notify_one();
        Ok(())
    }

    /// Sends what has no answer: a notification, or the host's answer to a request of a server.
    pub(super) async fn deliver(&self, message: &FromHost) {
        for _ in 0..self.regions.count() + 1 {
            let url = self.regions.current().to_owned();
            let bearer = self.credentials.bearer(&url).await;
            match self.post(message, &url, bearer.as_ref()).await {
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED => {
                    let challenge = Challenge::read(response.headers());
                    if let Err(error) =
                        self.credentials.renew(&url, bearer.as_ref(), &challenge).await
                    {
                        tracing::warn!(%error, "not signed in");
                        return;
                    }
                }
                Ok(response) if response.status() == StatusCode::SERVICE_UNAVAILABLE => {
                    self.regions.failed(&url, "503");
                }
                Ok(response) => {
                    let status = response.status();
                    if !status.is_success() {
                        let method = message.method();
                        tracing::debug!(%status, method, "the gateway did not take a message");
                    }
                    return;
                }
                Err(Failed::NotSent(why) | Failed::Lost(why)) => self.regions.failed(&url, &why),
            }
        }
        tracing::warn!(method = message.method(), "no region took a message");
    }
}

fn elsewhere(why: String, sent: bool) -> Turn {
    Turn::Elsewhere { why, sent, answer: None }
}
