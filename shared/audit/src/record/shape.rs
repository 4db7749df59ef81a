//! The members of a record and how the facts fill them. The order of fields here is the order in
//! the JSON.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use weir_model::audit::{Facts, Outcome};
use weir_model::bounds;
use weir_model::id::{Digest, Name};
use weir_model::principal::Proof;
use weir_model::reason::Reason;

use super::text::{TEXT_CHARS_MAX, bounded, scrubbed};
use super::{LOG_VERSION, Run};

/// The release of OCSF whose API Activity this is.
pub(crate) const OCSF_VERSION: &str = "1.8.0";
/// Deciding rules that a record names; `unmapped.rules_omitted` counts the others.
const RULES_MAX: usize = 32;

/// The three parts of a record between which its number is put.
pub(super) struct Shape<'a> {
    pub(super) metadata: Metadata<'a>,
    pub(super) unmapped: Unmapped<'a>,
    pub(super) event: Event<'a>,
}

#[derive(Serialize)]
pub(super) struct Metadata<'a> {
    version: &'static str,
    product: Product,
    log_name: &'static str,
    log_version: &'static str,
    profiles: [&'static str; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_uid: Option<&'a Name>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_truncated: bool,
}

/// Who writes events.
#[derive(Serialize)]
pub(crate) struct Product {
    name: &'static str,
    vendor_name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
pub(super) struct Unmapped<'a> {
    node: Cow<'a, str>,
    region: Cow<'a, str>,
    epoch: u64,
    revision: u64,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blame: Option<weir_model::reason::Blame>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<Proof>,
    #[serde(skip_serializing_if = "Option::is_none")]
    front_revision: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    front_era: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    back_revision: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    back_era: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_credential: Option<&'a Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    definition_sha256: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_schema_sha256: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_schema_sha256: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments_sha256: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    judged: Option<super::judged::Shape<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    approvers: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_sha256: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<serde_json::Value>,
    retries: u32,
    request_bytes: u64,
    response_bytes: u64,
    duration_us: u64,
    upstream_us: u64,
    gateway_us: u64,
    #[serde(skip_serializing_if = "is_zero")]
    rules_omitted: usize,
}

#[derive(Serialize)]
pub(super) struct Event<'a> {
    time: u64,
    category_uid: u32,
    category_name: &'static str,
    class_uid: u32,
    class_name: &'static str,
    activity_id: u32,
    activity_name: Cow<'a, str>,
    type_uid: u32,
    severity_id: u32,
    status_id: u32,
    status: &'static str,
    status_code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_detail: Option<&'static str>,
    action_id: u32,
    disposition_id: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    authorizations: Vec<Authorization<'a>>,
    actor: Actor<'a>,
    api: Api<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<[Resource<'a>; 1]>,
    src_endpoint: Endpoint,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Uid<'a>>,
}

#[derive(Serialize)]
struct Authorization<'a> {
    decision: &'static str,
    policy: Uid<'a>,
}

#[derive(Serialize)]
struct Uid<'a> {
    uid: Cow<'a, str>,
}

#[derive(Serialize)]
struct Actor<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Session<'a>>,
    app_name: Cow<'a, str>,
}

#[derive(Serialize)]
struct Session<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_uid: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct User<'a> {
    uid: Cow<'a, str>,
    type_id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_uid: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct Api<'a> {
    operation: Cow<'a, str>,
    request: Uid<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Service<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct Service<'a> {
    name: &'a Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a Name>,
}

#[derive(Serialize)]
struct Resource<'a> {
    name: Cow<'a, str>,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct Endpoint {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
}

// By reference because serde calls it so.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl<'a> Shape<'a> {
    pub(super) fn of(facts: &'a Facts, run: &'a Run) -> Self {
        let mut cut = Cut::default();
        let event = Event::of(facts, &mut cut);
        let unmapped = Unmapped::of(facts, run, &mut cut);
        cut.cut |= facts.left_out;
        Self { metadata: Metadata::of(facts, cut.cut), unmapped, event }
    }
}

/// Bounds texts and remembers whether any was longer.
#[derive(Default)]
pub(super) struct Cut {
    pub(super) cut: bool,
}

impl Cut {
    /// What rules want kept of a call, without what looks like a credential; none when it is too
    /// long.
    fn kept(&mut self, value: &serde_json::Value) -> Option<serde_json::Value> {
        let mut value = value.clone();
        super::text::scrub(&mut value);
        let fits = value.to_string().len() <= bounds::AUDIT_ARGUMENTS_BYTES_MAX;
        self.cut |= !fits;
        fits.then_some(value)
    }
    /// A text of our own making.
    fn own<'a>(&mut self, text: &'a str) -> Cow<'a, str> {
        let (text, cut) = bounded(text, TEXT_CHARS_MAX);
        self.cut |= cut;
        text.into()
    }
    /// A text that a peer chose.
    pub(super) fn peer<'a>(&mut self, text: &'a str, max: usize) -> Cow<'a, str> {
        let text = scrubbed(text);
        let (short, cut) = bounded(&text, max);
        self.cut |= cut;
        if cut { short.to_owned().into() } else { text }
    }
}

/// This build.
pub(crate) fn product() -> Product {
    let version = weir_runtime::build_info::current().version;
    Product { name: "Weir", vendor_name: "Weir", version }
}

impl<'a> Metadata<'a> {
    fn of(facts: &'a Facts, is_truncated: bool) -> Self {
        Self {
            version: OCSF_VERSION,
            product: product(),
            log_name: "weir.audit",
            log_version: LOG_VERSION,
            profiles: ["security_control", "trace"],
            tenant_uid: facts.group.as_ref(),
            is_truncated,
        }
    }
}

impl<'a> Unmapped<'a> {
    fn of(facts: &'a Facts, run: &'a Run, cut: &mut Cut) -> Self {
        let region = if facts.region.is_empty() { &run.region } else { &facts.region };
        let (error_code, blame) = match facts.outcome {
            Outcome::ProtocolError(code) => (Some(code), None),
            Outcome::Refused(reason) => (None, Some(reason.blame())),
            _ => (None, None),
        };
        Self {
            node: run.node.as_str().into(),
            region: region.as_str().into(),
            epoch: run.epoch,
            revision: facts.revision.0,
            outcome: kind(facts.outcome),
            error_code,
            blame,
            proof: facts.proof,
            front_revision: facts.front_revision.as_deref().map(|t| cut.peer(t, 32)),
            front_era: facts.front_revision.as_deref().map(era),
            back_revision: facts.back_revision.as_deref().map(|t| cut.peer(t, 32)),
            back_era: facts.back_revision.as_deref().map(era),
            upstream_credential: facts.presented.as_ref(),
            definition_sha256: facts.definition,
            input_schema_sha256: facts.input_schema,
            output_schema_sha256: facts.output_schema,
            arguments_sha256: facts.arguments,
            arguments: facts.kept.as_ref().and_then(|kept| cut.kept(kept)),
            judged: facts.judged.as_ref().map(|judged| super::judged::Shape::of(judged, cut)),
            approvers: facts.approvers.iter().take(RULES_MAX).map(|name| cut.own(name)).collect(),
            result_sha256: facts.result,
            result: facts.kept_result.as_ref().and_then(|kept| cut.kept(kept)),
            retries: facts.retries,
            request_bytes: facts.request_bytes,
            response_bytes: facts.response_bytes,
            duration_us: facts.duration_us,
            upstream_us: facts.upstream_us,
            gateway_us: facts.duration_us.saturating_sub(facts.upstream_us),
            rules_omitted: facts.rules.len().saturating_sub(RULES_MAX),
        }
    }
}

impl<'a> Event<'a> {
    fn of(facts: &'a Facts, cut: &mut Cut) -> Self {
        let method = facts.method.as_deref().unwrap_or("unknown");
        let activity_id = activity(method);
        let method = cut.peer(method, TEXT_CHARS_MAX);
        let (status_id, status) = match facts.outcome {
            Outcome::Success => (1, "Success"),
            Outcome::ToolError | Outcome::ProtocolError(_) | Outcome::Refused(_) => (2, "Failure"),
            Outcome::Aborted => (99, "Aborted"),
            Outcome::Unknown => (0, "Unknown"),
        };
        let (action_id, disposition_id) = match facts.allowed {
            Some(true) => (1, 1),
            Some(false) => (2, 2),
            None => (0, 0),
        };
        Self {
            time: facts.time_ms,
            category_uid: 6,
            category_name: "Application Activity",
            class_uid: 6003,
            class_name: "API Activity",
            activity_id,
            activity_name: method.clone(),
            type_uid: 600_300 + activity_id,
            severity_id: severity(facts.outcome),
            status_id,
            status,
            status_code: code(facts.outcome),
            status_detail: match facts.outcome {
                Outcome::Refused(reason) => Some(reason.remedy()),
                _ => None,
            },
            action_id,
            disposition_id,
            authorizations: authorizations(facts, cut),
            actor: actor(facts, cut),
            api: Api {
                operation: method,
                request: Uid { uid: cut.own(&facts.request_id) },
                service: facts
                    .server
                    .as_ref()
                    .map(|name| Service { name, version: facts.version.as_ref() }),
                version: facts.front_revision.as_deref().map(|t| cut.peer(t, 32)),
            },
            resources: facts.target.as_deref().map(|target| [resource(facts, target, cut)]),
            src_endpoint: endpoint(facts.peer.as_deref()),
            trace: facts.trace_id.as_deref().map(|trace| Uid { uid: cut.peer(trace, 64) }),
        }
    }
}

fn authorizations<'a>(facts: &'a Facts, cut: &mut Cut) -> Vec<Authorization<'a>> {
    let decision = match facts.allowed {
        Some(true) => "allowed",
        Some(false) => "denied",
        None => return Vec::new(),
    };
    cut.cut |= facts.rules.len() > RULES_MAX;
    let rules = facts.rules.iter().take(RULES_MAX);
    rules.map(|rule| Authorization { decision, policy: Uid { uid: cut.own(rule) } }).collect()
}

fn actor<'a>(facts: &'a Facts, cut: &mut Cut) -> Actor<'a> {
    let user = facts.principal.as_deref().map(|principal| User {
        uid: cut.peer(principal, TEXT_CHARS_MAX),
        type_id: match facts.proof {
            Some(Proof::Jwt) => 1,
            Some(Proof::ApiToken | Proof::Certificate) => 4,
            Some(Proof::Anonymous) | None => 0,
        },
        credential_uid: facts.credential.as_deref().map(|c| cut.peer(c, TEXT_CHARS_MAX)),
    });
    let mut text = |t: &'a String| cut.peer(t, TEXT_CHARS_MAX);
    let (uid, credential_uid) =
        (facts.session.as_ref().map(&mut text), facts.token.as_ref().map(&mut text));
    let session =
        (uid.is_some() || credential_uid.is_some()).then_some(Session { uid, credential_uid });
    let client = facts.client.as_deref().unwrap_or("unknown");
    Actor { user, session, app_name: cut.peer(client, TEXT_CHARS_MAX) }
}

fn resource<'a>(facts: &Facts, target: &'a str, cut: &mut Cut) -> Resource<'a> {
    let method = facts.method.as_deref().unwrap_or_default();
    let kind = match method.split('/').next().unwrap_or_default() {
        "tools" => "tool",
        "prompts" => "prompt",
        "resources" => "resource",
        _ => "other",
    };
    Resource { name: cut.peer(target, bounds::URI_BYTES_MAX), kind }
}

fn endpoint(peer: Option<&str>) -> Endpoint {
    let ip = |peer: &str| Some((peer.parse::<IpAddr>().ok()?, None));
    let address = |peer: &str| {
        let address = peer.parse::<SocketAddr>().ok()?;
        Some((address.ip(), Some(address.port())))
    };
    // No text is both.
    match peer.and_then(|peer| ip(peer).or_else(|| address(peer))) {
        Some((ip, port)) => Endpoint { ip: Some(ip), port, name: None },
        None => Endpoint { ip: None, port: None, name: Some("unknown") },
    }
}

/// OCSF's idea of the activity: what only reads is 2; tools do anything.
fn activity(method: &str) -> u32 {
    let read = ["/list", "/read", "/get", "/complete"];
    if read.iter().any(|end| method.ends_with(end)) || method == "server/discover" { 2 } else { 99 }
}

/// Revisions are dates. Since this one requests stand alone; before, they belong to sessions.
fn era(revision: &str) -> &'static str {
    if revision >= "2026-07-28" { "modern" } else { "legacy" }
}

fn kind(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Success => "success",
        Outcome::ToolError => "tool_error",
        Outcome::ProtocolError(_) => "protocol_error",
        Outcome::Refused(_) => "refused",
        Outcome::Aborted => "aborted",
        Outcome::Unknown => "unknown",
    }
}

fn code(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Refused(reason) => reason.label(),
        other => kind(other),
    }
}

/// Informational for what is usual, low for what failed, high for faults of the gateway.
fn severity(outcome: Outcome) -> u32 {
    match outcome {
        Outcome::Success | Outcome::ToolError | Outcome::Aborted => 1,
        Outcome::Unknown | Outcome::Refused(Reason::Internal) => 4,
        Outcome::ProtocolError(_) | Outcome::Refused(_) => 2,
    }
}
