//! Questions to a client of an older revision.
//!
//! A request goes out on the stream of the call; the client posts its answer, to whatever proxy.
//! So the id of the request is a sealed token that says where the call is, and which of its
//! questions this is; it opens for the same session only.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};

use super::Bridge;
use crate::call::Gateway;
use crate::call::client::bond;
use crate::call::forward::Scope;
use crate::call::respond::Answer;
use crate::hop::{Ask, Body, Holder, Holding, Kept, Lost, whole};
use crate::mcp::adapt::quoted;
use crate::mcp::members::Members;
use crate::upstream::Member;

const PURPOSE: &str = "question";
const ANSWER: &str = "answer";

#[derive(Debug, Serialize, Deserialize)]
struct Token {
    #[serde(rename = "h")]
    holder: Holder,
    #[serde(rename = "n")]
    number: u64,
}

/// What a client answered.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) number: u64,
    pub(super) member: Member,
    pub(super) body: Bytes,
}

/// The questions of one call.
#[derive(Debug)]
pub(super) struct Questions {
    kept: Kept,
    open: Arc<Open>,
    said: mpsc::Receiver<Said>,
    /// As clients know them.
    ids: HashMap<u64, String>,
    next: u64,
}

/// The end of it that answers come to.
#[derive(Debug)]
struct Open {
    numbers: Mutex<HashSet<u64>>,
    said: mpsc::Sender<Said>,
}

impl Questions {
    pub(super) fn new(bridge: &Bridge) -> Result<Self, Refusal> {
        let (sender, said) = mpsc::channel(bounds::QUESTIONS_MAX);
        let open = Arc::new(Open { numbers: Mutex::default(), said: sender });
        let holding: Arc<dyn Holding> = Arc::<Open>::clone(&open);
        let kept = bridge.hop.keep(bridge.owner, holding)?;
        Ok(Self { kept, open, said, ids: HashMap::new(), next: 0 })
    }

    /// A request for the client, whole, and the number of the question; none when too many wait
    /// already.
    pub(super) fn ask(
        &mut self,
        bridge: &Bridge,
        method: &str,
        params: Option<&[u8]>,
    ) -> Result<Option<(u64, Bytes)>, Refusal> {
        let number = self.next;
        {
            let mut numbers = self.open.numbers.lock();
            if numbers.len() >= bounds::QUESTIONS_MAX {
                return Ok(None);
            }
            numbers.insert(number);
        }
        self.next += 1;
        let id = self.id(bridge, number)?;
        let quoted_id = quoted(&id);
        self.ids.insert(number, id);
        let mut out = BytesMut::new();
        out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
        out.extend_from_slice(quoted_id.as_bytes());
        out.extend_from_slice(br#","method":"#);
        out.extend_from_slice(quoted(method).as_bytes());
        if let Some(params) = params {
            out.extend_from_slice(br#","params":"#);
            out.extend_from_slice(params);
        }
        out.extend_from_slice(b"}");
        Ok(Some((number, out.freeze())))
    }

    /// The notification that takes a question back; none when it was answered already.
    pub(super) fn taken_back(&mut self, number: u64) -> Option<Bytes> {
        let id = self.ids.remove(&number)?;
        if !self.open.numbers.lock().remove(&number) {
            return None;
        }
        let id = quoted(&id);
        let head = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"#;
        Some(format!("{head}{id}}}}}").into())
    }

    fn id(&self, bridge: &Bridge, number: u64) -> Result<String, Refusal> {
        let token = Token { holder: self.kept.holder().clone(), number };
        let plain = serde_json::to_vec(&token)
            .map_err(|e| Refusal::new(Reason::Internal, format!("question to JSON: {e}")))?;
        let (sealer, aad) = bridge.seal.key();
        let aad = of_session(aad, bridge.nonce.as_deref().unwrap_or_default());
        let unsealed =
            |e: weir_model::seal::SealError| Refusal::new(Reason::Internal, e.to_string());
        sealer.seal(PURPOSE, &aad, &plain).map_err(unsealed)
    }

    /// The next answer.
    pub(super) async fn said(&mut self) -> Option<Said> {
        let said = self.said.recv().await?;
        self.ids.remove(&said.number);
        Some(said)
    }
}

fn of_session(aad: &[u8], nonce: &str) -> Vec<u8> {
    [aad, b"\0", nonce.as_bytes()].concat()
}

#[async_trait]
impl Holding for Open {
    async fn ask(&self, verb: &str, body: Body) -> Result<Body, Refusal> {
        let invalid = |what: &str| Refusal::new(Reason::InvalidRequest, what.to_owned());
        if verb != ANSWER {
            return Err(invalid("not something that is asked of questions"));
        }
        let body = Limited::new(body, bounds::REQUEST_BODY_BYTES_MAX + 64).collect().await;
        let body = body.map_err(|_| invalid("the answer did not arrive"))?.to_bytes();
        let end = body.iter().position(|b| *b == b'\n').ok_or_else(|| invalid("no number"))?;
        let number = std::str::from_utf8(&body[..end]).ok().and_then(|text| text.parse().ok());
        let number = number.ok_or_else(|| invalid("no number"))?;
        let text = std::str::from_utf8(&body[end + 1..]).map_err(|_| invalid("no text"))?;
        let members = Members::parse(text).map_err(Refusal::from)?;
        let (member, raw) = match (members.get("result"), members.get("error")) {
            (Some(raw), None) => (Member::Result, raw),
            (None, Some(raw)) => (Member::Error, raw),
            _ => return Err(invalid("neither a result nor an error")),
        };
        // The first answer counts; one that comes again, or too late, is ignored.
        if self.numbers.lock().remove(&number) {
            let body = body.slice_ref(raw.get().as_bytes());
            // There is room for as many as can be open.
            let _ = self.said.try_send(Said { number, member, body });
        }
        Ok(whole(Bytes::new()))
    }
}

/// A message of the client that answers a request, which may be one of ours. Answers to what
/// nobody asked, or does not want to know any more, are accepted and ignored.
///
/// # Errors
/// [`Reason::Overloaded`] when the call cannot be reached now, [`Reason::InvalidRequest`].
pub async fn answered(gateway: &Gateway, scope: Scope<'_>, id: &str) -> Result<Answer, Refusal> {
    let Some(session) = &scope.client.session else { return Ok(Answer::Accepted) };
    let principal = scope.sight.who.id();
    let aad = of_session(&bond(scope.endpoint, &principal).bytes(), &session.nonce);
    let opened = scope.sealing.sealer()?.open(PURPOSE, &aad, id).ok();
    let token: Option<Token> = opened.and_then(|plain| serde_json::from_slice(&plain).ok());
    let Some(token) = token else {
        tracing::debug!("an answer to nothing that was asked");
        return Ok(Answer::Accepted);
    };
    let mut body = BytesMut::from(format!("{}\n", token.number).as_bytes());
    body.extend_from_slice(&scope.call.body);
    let owner = super::owner(scope, &principal);
    let ask = Ask { owner, verb: ANSWER, body: whole(body.freeze()) };
    match gateway.hop.relay(&token.holder, ask).await {
        Ok(_) | Err(Lost::Gone) => Ok(Answer::Accepted),
        Err(lost) => {
            let gone = Refusal::new(Reason::Overloaded, "the call cannot be reached");
            Err(lost.refusal(gone))
        }
    }
}
