//! The audit record of one request: opened before any work, told what the phases find out, closed
//! once: with the end of the answer, by a refusal, or because the client left.

use std::sync::Arc;
use std::time::Instant;

use tracing::Span;
use tracing::field::Empty;
use weir_audit::Slot;
use weir_model::audit::{Facts, Judged, Outcome};
use weir_model::bounds;
use weir_model::id::{Digest, Name};
use weir_model::policy::obligation;
use weir_model::principal::Principal;
use weir_model::reason::Reason;
use weir_model::resource::AuditClass;
use weir_model::snapshot::{Hints, Snapshot, ToolView};
use weir_runtime::random;
use weir_runtime::task::on_payload;
use weir_runtime::traceparent::TraceParent;

use super::authorize::Permit;
use super::client::Client;
use super::endpoint::Endpoint;
use super::inbound::{Call, Conn};
use super::resolve::Upstream;
use super::sight::Sight;
use super::validate::Arguments;
use super::{Gateway, Stop};
use crate::mcp::envelope::{Reference, utf8};
use crate::mcp::members::Members;
use crate::metrics::CallMetrics;
use crate::traces::{Mark, Trace};

/// An open record. Dropping it writes what is known, as left by the client.
#[derive(Debug)]
pub struct Record {
    slot: Option<Slot>,
    /// What is known so far.
    pub facts: Box<Facts>,
    started: Instant,
    metrics: CallMetrics,
    trace: Option<Box<Trace>>,
    /// The tool that is called.
    tool: Option<Arc<ToolView>>,
    /// What the deciding rules demand, where the answer is to be kept.
    keeps: Vec<(String, String)>,
    /// What the server is shown once the call is allowed.
    presents: Option<Name>,
    /// The server that the path names, and whether there is one.
    asked: Option<(Name, bool)>,
    streamed: bool,
    /// Names the request in the log while its call is worked on.
    span: Span,
}

/// Longest self-reported name that is kept.
const CLIENT_CHARS_MAX: usize = 128;

impl Record {
    /// Reserves room for the record of a request to `endpoint`.
    ///
    /// # Errors
    /// [`Reason::AuditFull`] when the group's audit class demands a record that nobody can take.
    pub fn open(
        gateway: &Gateway,
        conn: &Conn,
        snapshot: &Snapshot,
        endpoint: Option<&Endpoint>,
    ) -> Result<Self, Reason> {
        // Nobody chose a class for requests to what does not exist: they must not be able to
        // fill the trail of those that do.
        let class = endpoint.map_or(AuditClass::Counted, |e| e.group.spec.audit);
        let slot = gateway.audit.reserve(class)?;
        let random = named();
        let facts = Box::new(Facts {
            group: endpoint.map(|e| e.group.name.clone()),
            class,
            ..facts_of(gateway, conn, snapshot, random)
        });
        let metrics = gateway.metrics.clone();
        metrics.begun();
        let trace = gateway.traces.begin(*random.as_bytes());
        let request_id = &facts.request_id;
        let span = tracing::info_span!(parent: None, "call", %request_id, trace_id = Empty);
        Ok(Self {
            slot: Some(slot),
            facts,
            started: Instant::now(),
            metrics,
            trace,
            tool: None,
            keeps: Vec::new(),
            presents: None,
            asked: endpoint.and_then(|e| {
                let name = e.server.clone()?;
                let there = e.group.servers.contains_key(&name);
                Some((name, there))
            }),
            streamed: false,
            span,
        })
    }

    /// What was called.
    pub fn called(&mut self, call: &Call<'_>) {
        self.facts.request_bytes = call.body.len() as u64;
        let parent = super::credential::traceparent(call);
        self.facts.trace_id = parent.map(|parent| parent.trace.to_string());
        if let Some(trace) = &mut self.trace {
            trace.under(parent);
            self.facts.trace_id = Some(trace.id().to_string());
        }
        if let Some(trace) = &self.facts.trace_id {
            self.span.record("trace_id", trace.as_str());
        }
        self.mark(Mark::Read);
        if let Some(message) = call.message() {
            self.facts.method = Some(match message.method() {
                Some(method) => cut(method, CLIENT_CHARS_MAX),
                None => "response".to_owned(),
            });
            // As the caller spells it: what it may not see or does not exist is told as well.
            // Once there is a target, [`Self::on`] knows it better.
            let asked = message.params().and_then(|p| match &p.reference {
                Some(Reference::Prompt(name) | Reference::Resource(name)) => Some(name),
                None => p.name.as_ref().or(p.uri.as_ref()),
            });
            self.facts.target = asked.map(|name| cut(name, bounds::URI_BYTES_MAX));
            let params = message.params();
            let digested = params.and_then(|p| p.arguments.as_ref().or(p.raw.as_ref()));
            self.facts.arguments = match (message.method(), params) {
                // Left out they are none.
                (Some("tools/call" | "prompts/get"), Some(p)) if p.arguments.is_none() => {
                    Some(Digest::of(b"{}"))
                }
                _ => digested.map(|raw| on_payload(raw.len(), || Digest::of(raw))),
            };
        } else {
            self.facts.method = Some("stream".to_owned());
        }
    }

    /// What the lines that are logged for this request stand in.
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// What a server's answer came to: the `result` or `error` as the client gets it. Answers that
    /// the gateway makes itself, such as lists, are told by their revision.
    pub fn answered(&mut self, raw: &[u8]) {
        if self.facts.allowed == Some(true) {
            self.facts.result = Some(on_payload(raw.len(), || Digest::of(raw)));
            if !self.keeps.is_empty() {
                self.keep_result(raw);
            }
        }
    }

    /// As the rules want it. What is much too long for a record is not looked at.
    fn keep_result(&mut self, raw: &[u8]) {
        if raw.len() > 4 * bounds::AUDIT_ARGUMENTS_BYTES_MAX {
            self.facts.left_out = true;
            return;
        }
        let definition = self.tool.as_ref().map(|tool| &*tool.raw);
        self.facts.kept_result = Some(obligation::kept_result(&self.keeps, raw, definition));
    }

    /// Arguments that are kept, without what the tool's schema marks.
    fn keep(&mut self, kept: Option<serde_json::Value>) {
        self.facts.kept = kept.map(|mut kept| {
            if let Some(tool) = &self.tool {
                obligation::blank_marked(&tool.raw, "inputSchema", &mut kept);
            }
            kept
        });
    }

    /// Who called.
    pub fn by(&mut self, who: &Principal) {
        self.facts.principal = Some(who.id());
        self.facts.proof = Some(who.proof);
        self.facts.credential = who.credential.as_deref().map(str::to_owned);
        if let Some(token) = &who.token {
            self.facts.session.clone_from(&token.session);
            self.facts.token.clone_from(&token.id);
        }
        self.mark(Mark::Authenticated);
    }

    /// With which client.
    pub fn with(&mut self, client: &Client) {
        self.facts.front_revision = Some(client.revision.to_string());
        self.facts.client = client.info.as_deref().map(utf8).and_then(client_name);
        if let Some(session) = &client.session {
            self.facts.session = Some(session.nonce.clone());
        }
    }

    /// On what.
    pub fn on(&mut self, target: &Upstream) {
        self.facts.server = Some(target.server.name.clone());
        self.facts.version = Some(target.version.name.clone());
        if target.name.is_some() {
            self.facts.target.clone_from(&target.name);
        }
        if let Some(tool) = &target.tool {
            self.facts.definition = Some(tool.digest);
            self.facts.input_schema = tool.input_digest;
            self.facts.output_schema = tool.output_digest;
            self.tool = Some(Arc::clone(tool));
        }
        self.presents.clone_from(&target.version.spec.credential);
        if let Some(judged) = &mut self.facts.judged {
            judged.hints = target.hints();
        }
        self.mark(Mark::Resolved);
    }

    /// The arguments are what the definition asks for.
    pub fn valid(&mut self) {
        self.mark(Mark::Validated);
    }

    /// What decisions about this caller are made of.
    pub fn seen_by(&mut self, sight: &Sight) {
        self.facts.judged = Some(Judged {
            rules: sight.group.rules.digest,
            principal: sight.identity,
            at: sight.context.now,
            memberships: Arc::clone(&sight.who.memberships),
            scopes: Arc::clone(&sight.who.scopes),
            client: sight.context.client.clone(),
            hints: Hints::default(),
        });
    }

    /// By which rules, and on what arguments.
    pub fn under(&mut self, permit: &Permit, arguments: &Arguments) {
        self.facts.allowed = Some(true);
        self.facts.presented.clone_from(&self.presents);
        self.facts.rules = permit.rules().iter().map(ToString::to_string).collect();
        let arguments = arguments.0.as_ref();
        let wanted = permit.obligations();
        self.keep(arguments.and_then(|all| obligation::kept(wanted, all)));
        if obligation::keeps_result(wanted) {
            self.keeps = wanted.to_vec();
        }
        self.mark(Mark::Decided);
    }

    /// The server's turn begins. Gives the parent that it works under, where the caller or we
    /// have a trace.
    pub fn sends(&mut self, callers: Option<TraceParent>) -> Option<String> {
        self.mark(Mark::Sent);
        let ours = self.trace.as_mut().map(|trace| trace.outgoing(&self.facts));
        ours.or(callers).map(|parent| parent.to_string())
    }

    /// The answer comes bit by bit.
    pub fn streams(&mut self) {
        self.streamed = true;
        self.metrics.streams();
        if let Some(trace) = &mut self.trace {
            trace.streams();
        }
    }

    fn mark(&mut self, mark: Mark) {
        if let Some(trace) = &mut self.trace {
            trace.mark(mark, self.started);
        }
    }

    /// Tells what measures and traces that the call is over.
    fn observed(&self) {
        self.metrics.ended(&self.facts, self.streamed);
        if let Some(trace) = &self.trace {
            trace.ended(&self.facts);
        }
    }

    /// Why not.
    pub fn stopped(&mut self, stop: &Stop) {
        let reason = stop.truth.unwrap_or(stop.refusal.reason);
        let by_rules = [Reason::Denied, Reason::InsufficientScope, Reason::ApprovalRequired];
        if by_rules.contains(&reason) {
            self.facts.allowed = Some(false);
            self.facts.rules = stop.rules.iter().map(ToString::to_string).collect();
        }
        self.keep(stop.kept.as_deref().cloned());
        if matches!(reason, Reason::UnknownTarget | Reason::UnknownEndpoint) {
            self.unknown();
        }
        if let Some(about) = &stop.about {
            self.facts.server = Some(about.server.clone());
            self.facts.target = (!about.target.is_empty()).then(|| about.target.clone());
            let approvers = obligation::approvers(&about.obligations);
            self.facts.approvers = approvers.into_iter().map(str::to_owned).collect();
            if let Some(judged) = &mut self.facts.judged {
                judged.hints = about.hints;
            }
        }
    }

    /// What does not exist is told as it was asked for: of a server that is not there, the
    /// server's name first.
    fn unknown(&mut self) {
        match self.asked.take() {
            Some((server, true)) => self.facts.server = Some(server),
            Some((server, false)) => {
                self.facts.target = Some(match &self.facts.target {
                    Some(target) => format!("{server}/{target}"),
                    None => server.to_string(),
                });
            }
            None => {}
        }
    }

    /// Time since the request arrived.
    pub fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Leaves the record to the one that runs the call in place of this request.
    pub fn hand_over(mut self) {
        if let Some(slot) = self.slot.take() {
            slot.release();
        }
    }

    /// Writes the record; returns when the group's promise about it holds.
    ///
    /// # Errors
    /// [`Reason::AuditFull`] when the record could not be written and had to be.
    pub async fn close(mut self, outcome: Outcome, response_bytes: u64) -> Result<(), Reason> {
        self.facts.outcome = outcome;
        self.facts.response_bytes += response_bytes;
        self.facts.duration_us = self.elapsed_us();
        self.observed();
        match self.slot.take() {
            Some(slot) => slot.finish(&*self.facts).await,
            None => Ok(()),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(mut slot) = self.slot.take() {
            self.facts.outcome = Outcome::Aborted;
            self.facts.duration_us = self.elapsed_us();
            self.observed();
            slot.note(&self.facts);
        }
    }
}

/// What is known of every request.
pub fn facts(gateway: &Gateway, conn: &Conn, snapshot: &Snapshot) -> Facts {
    facts_of(gateway, conn, snapshot, named())
}

fn named() -> uuid::Uuid {
    uuid::Builder::from_random_bytes(random::name()).into_uuid()
}

fn facts_of(gateway: &Gateway, conn: &Conn, snapshot: &Snapshot, name: uuid::Uuid) -> Facts {
    Facts {
        request_id: name.simple().encode_lower(&mut uuid::Uuid::encode_buffer()).to_owned(),
        time_ms: gateway.clock.now_ms(),
        region: gateway.site.region.clone(),
        peer: Some(conn.peer.ip().to_string()),
        revision: snapshot.revision,
        ..Facts::default()
    }
}

/// The first characters of a text.
fn cut(text: &str, max: usize) -> String {
    let end = match text.len() > max {
        true => text.char_indices().nth(max).map_or(text.len(), |(at, _)| at),
        false => text.len(),
    };
    text[..end].to_owned()
}

/// `name version` of a `clientInfo`.
pub fn client_name(info: &str) -> Option<String> {
    let members = Members::parse(info).ok()?;
    let (name, version) = (members.text("name")?, members.text("version"));
    let mut all = String::with_capacity(name.len() + 32);
    let space = version.is_some().then_some(' ');
    let parts = name.chars().chain(space).chain(version.iter().flat_map(|text| text.chars()));
    all.extend(parts.take(CLIENT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }));
    Some(all)
}
