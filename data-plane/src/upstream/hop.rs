//! One request on its hop to a server: what its messages mean for the client that waits.

use bytes::Bytes;
use tokio::sync::mpsc;
use weir_model::reason::{Reason, Refusal};

use super::adapt;
use super::envelope::{Id, Incoming};
use super::{Message, Outbound, raw, refuse};

/// The queue of an exchange.
pub(crate) type Sink = mpsc::Sender<Result<Message, Refusal>>;

/// Translates the messages of one request.
#[derive(Debug, Clone)]
pub(crate) struct Hop {
    /// Ours on the wire.
    pub(crate) id: Id,
    /// The same, as written.
    pub(crate) raw_id: Bytes,
    /// The client's progress token where ours stands for it.
    pub(crate) token: Option<Bytes>,
    /// The request is for a stream of what belongs to no call.
    pub(crate) listens: bool,
    /// The client's id, which messages of a subscription name.
    pub(crate) listener: Option<Bytes>,
    /// The client is of the modern era.
    pub(crate) front_modern: bool,
    /// The server is.
    pub(crate) back_modern: bool,
    /// The client has the server's session for itself and answers its requests.
    pub(crate) transparent: bool,
}

/// What a message means.
#[derive(Debug)]
pub(crate) enum Step {
    /// Goes on to the client.
    Pass(Message),
    /// The end.
    Final(Result<Message, Refusal>),
    /// The server asks on a session that the gateway keeps.
    Ask {
        /// As the server wrote it.
        id: Bytes,
        /// Method.
        method: String,
        /// The whole message.
        whole: Bytes,
    },
    /// Belongs to nobody.
    Skip,
}

impl Hop {
    /// A hop for a request; `raw_id` is its id on the wire.
    pub(crate) fn new(outbound: &Outbound, raw_id: Bytes, back_modern: bool) -> Self {
        let listens = outbound.method == "subscriptions/listen";
        Self {
            id: Id::of(&raw_id),
            raw_id,
            token: None,
            listens,
            listener: outbound.id.clone().filter(|_| listens),
            front_modern: outbound.front.modern,
            back_modern,
            transparent: false,
        }
    }

    /// A hop for a question of the gateway itself, which reads whatever comes.
    pub(crate) fn own(raw_id: Bytes) -> Self {
        Self {
            id: Id::of(&raw_id),
            raw_id,
            token: None,
            listens: false,
            listener: None,
            front_modern: true,
            back_modern: false,
            transparent: false,
        }
    }

    /// Classifies one message of the request's own stream.
    pub(crate) fn step(&self, incoming: Incoming) -> Step {
        match incoming {
            Incoming::Result { id, result } if id == self.id => {
                Step::Final(Ok(self.result(&result)))
            }
            Incoming::Error { id, code, error } if id.as_ref() == Some(&self.id) => {
                Step::Final(self.error(code, error))
            }
            Incoming::Result { .. } | Incoming::Error { .. } => Step::Skip,
            Incoming::Notification { method, whole } => self.notification(&method, &whole),
            Incoming::Request { whole, .. } if self.transparent => {
                Step::Pass(Message::Request(whole))
            }
            // A modern server must not ask; a legacy one must get an answer.
            Incoming::Request { .. } if self.back_modern => Step::Skip,
            Incoming::Request { id, method, whole } => Step::Ask { id, method, whole },
        }
    }

    fn notification(&self, method: &str, whole: &Bytes) -> Step {
        // What concerns no call has a stream of its own, on which it is checked what of it the
        // client may see.
        if is_push(method) && !self.transparent && !self.listens {
            return Step::Skip;
        }
        let whole = match (method, &self.token, &self.listener) {
            ("notifications/progress", Some(token), _) => {
                let named = adapt::progress_token(whole).map(Id::of);
                if named.as_ref() != Some(&self.id) {
                    return Step::Skip;
                }
                adapt::progress_for_client(whole, token)
            }
            (_, _, Some(id)) => adapt::subscription_for_client(whole, id),
            _ => whole.clone(),
        };
        Step::Pass(Message::Notification(whole))
    }

    fn result(&self, result: &Bytes) -> Message {
        Message::Result(match &self.listener {
            Some(id) => adapt::result_for_client(result, id),
            None => result.clone(),
        })
    }

    fn error(&self, code: i64, error: Bytes) -> Result<Message, Refusal> {
        match code {
            -32020 | -32022 if self.back_modern => Err(refuse::protocol(format!(
                "the server refused the gateway's own envelope with {code}"
            ))),
            -32021 if self.back_modern && !self.front_modern => {
                let data = raw::member(&error, "data");
                let data = data.and_then(|d| serde_json::from_str(d.get()).ok());
                let refusal = Refusal::new(
                    Reason::MissingCapability,
                    "the server needs a capability that the client's revision cannot carry",
                );
                Err(match data {
                    Some(data) => refusal.data(data),
                    None => refusal,
                })
            }
            _ => Ok(Message::Error(error)),
        }
    }
}

/// True for notifications that belong to no call, whatever stream they come on.
pub(crate) fn is_push(method: &str) -> bool {
    method.ends_with("/list_changed") || method == "notifications/resources/updated"
}

/// True for calls that may be sent twice: reads, and tools that say that it does not matter.
pub(crate) fn repeatable(outbound: &Outbound) -> bool {
    const READS: [&str; 8] = [
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "prompts/list",
        "prompts/get",
        "completion/complete",
        "server/discover",
    ];
    let tool = || outbound.tool.as_ref().is_some_and(|t| t.hints.read_only || t.hints.idempotent);
    READS.contains(&outbound.method.as_str()) || (outbound.method == "tools/call" && tool())
}
