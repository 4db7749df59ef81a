//! A decision as the audit trail recorded it.

use std::sync::Arc;

use serde_json::Value;

use super::Ask;
use crate::id::{Digest, Name};
use crate::policy::obligation::REDACTED;
use crate::policy::{Action, Context};
use crate::principal::{Principal, Proof};
use crate::snapshot::Hints;

/// A recorded decision, and the question that it answered.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// `node/epoch/sequence`.
    pub uid: String,
    /// Milliseconds since the epoch.
    pub time_ms: u64,
    /// The group.
    pub group: Name,
    /// The revision that served it.
    pub revision: u64,
    /// What was decided.
    pub allowed: bool,
    /// By which rules.
    pub rules: Vec<String>,
    /// Digest of the rules that decided.
    pub rules_digest: Digest,
    /// The question. `arguments` are none where the record does not hold them.
    pub ask: Ask,
    /// Digest of the arguments as received.
    pub arguments_digest: Option<Digest>,
    /// Whether the record holds all that rules could read, arguments apart.
    pub faithful: bool,
}

impl Recorded {
    /// Reads a record; none when it tells of no decision about a target.
    pub fn read(record: &Value) -> Option<Self> {
        let text = |at: &str| record.pointer(at).and_then(Value::as_str);
        let (unmapped, judged) = (&record["unmapped"], &record["unmapped"]["judged"]);
        let allowed = match record["action_id"].as_u64()? {
            1 => true,
            // The rules permit what waits for an approval.
            2 if record["status_code"] == "approval_required" => true,
            2 => false,
            _ => return None,
        };
        let action = action(text("/api/operation")?)?;
        let target = match action {
            Action::UseServer => "",
            _ => text("/resources/0/name")?,
        };
        let principal = principal(record)?;
        let faithful = Some(principal.digest()) == digest(&judged["principal_sha256"])
            && !target.contains("?sha256=");
        let hints: Option<Hints> = serde_json::from_value(judged["hints"].clone()).ok();
        let context = Context {
            region: unmapped["region"].as_str().unwrap_or_default().to_owned(),
            now: judged["at"].as_i64()?,
            peer: text("/src_endpoint/ip").and_then(|ip| ip.parse().ok()),
            client: judged["client"].as_str().map(str::to_owned),
            revision: unmapped["front_revision"].as_str().unwrap_or_default().to_owned(),
        };
        let kept = unmapped.get("arguments").filter(|kept| !is_redacted(kept));
        let rules = record["authorizations"].as_array().into_iter().flatten();
        Some(Self {
            uid: text("/metadata/uid")?.to_owned(),
            time_ms: record["time"].as_u64()?,
            group: text("/metadata/tenant_uid")?.parse().ok()?,
            revision: unmapped["revision"].as_u64()?,
            allowed,
            rules: rules.filter_map(|r| Some(r["policy"]["uid"].as_str()?.to_owned())).collect(),
            rules_digest: digest(&judged["rules_sha256"])?,
            ask: Ask {
                principal,
                action,
                server: text("/api/service/name")?.parse().ok()?,
                target: target.to_owned(),
                hints: hints.unwrap_or_default(),
                arguments: kept.cloned(),
                context,
            },
            arguments_digest: digest(&unmapped["arguments_sha256"]),
            faithful,
        })
    }
}

fn digest(value: &Value) -> Option<Digest> {
    serde_json::from_value(value.clone()).ok()
}

fn action(method: &str) -> Option<Action> {
    match method {
        "tools/call" => Some(Action::CallTool),
        "prompts/get" => Some(Action::GetPrompt),
        "resources/read" | "resources/subscribe" | "skills/get" | "resources/directory/read" => {
            Some(Action::ReadResource)
        }
        // What it was about is not told by the record.
        "completion/complete" => None,
        _ => Some(Action::UseServer),
    }
}

fn principal(record: &Value) -> Option<Principal> {
    let user = &record["actor"]["user"];
    let id = user["uid"].as_str()?;
    let (proof, provider, subject) = match id.split_once(':') {
        None => (Proof::Anonymous, None, "anonymous"),
        Some(("account", name)) => (Proof::ApiToken, None, name),
        Some(("certificate", subject)) => (Proof::Certificate, None, subject),
        Some(("jwt", rest)) => {
            let (provider, subject) = rest.split_once(':')?;
            (Proof::Jwt, provider.parse().ok(), subject)
        }
        Some(_) => return None,
    };
    let words = |name: &str| -> Arc<[Arc<str>]> {
        let list = record["unmapped"]["judged"][name].as_array();
        list.into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect()
    };
    Some(Principal {
        proof,
        provider,
        subject: subject.into(),
        memberships: words("memberships"),
        scopes: words("scopes"),
        credential: user["credential_uid"].as_str().map(Into::into),
        ..Principal::anonymous()
    })
}

/// True when something in it was blanked, or masked because it looked like a credential.
fn is_redacted(value: &Value) -> bool {
    match value {
        Value::String(text) => {
            text == REDACTED || text.contains("***") || text.contains("?sha256=")
        }
        Value::Array(items) => items.iter().any(is_redacted),
        Value::Object(members) => {
            members.iter().any(|(name, value)| name.contains("***") || is_redacted(value))
        }
        _ => false,
    }
}
