//! Questions about the rules of a group: explain, test, replay, recompute. Nothing here changes
//! anything; viewers may ask.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_model::bounds;
use weir_model::id::{Name, Revision};
use weir_model::policy::review::{self, Ask, Call, Caller as Who, Case, Place, Recorded, Verdict};
use weir_model::resource::{
    Definition, Kind as Sort, ResourceKey, ResourceSet, Spec, parse_documents,
};
use weir_model::snapshot::{GroupView, Snapshot};

use super::Api;
use super::guard::Caller;
use super::input::{self, LargeJson};
use super::problem::{Kind, Problem};
use crate::admit;
use crate::index::Indexed;
use crate::operator::Operator;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Explain {
    caller: Who,
    call: Call,
    #[serde(default)]
    at: Place,
    revision: Option<Revision>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Test {
    cases: Vec<Case>,
    #[serde(default)]
    documents: Candidate,
    revision: Option<Revision>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Replay {
    records: Vec<Value>,
    documents: Candidate,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Recompute {
    record: Value,
    /// Of the call, exactly as received.
    arguments: Option<String>,
}

/// Changes that are tried.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Candidate {
    /// Documents as `apply` takes them.
    apply: String,
    /// Keys of documents that would go: `Policy/acme/office-hours`.
    delete: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<T> {
    revision: Revision,
    #[serde(flatten)]
    answer: T,
}

#[derive(Serialize)]
struct Tested {
    passed: usize,
    failed: usize,
    cases: Vec<Verdict>,
}

pub(super) async fn explain(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Path(group): Path<String>,
    LargeJson(asked): LargeJson<Explain>,
) -> Result<Response, Problem> {
    let bench = Bench::open(&api, &operator, (&group, asked.revision)).await?;
    let now = now(&api);
    let explained = bench
        .work(move |_, group| {
            let ask = Ask::new(group, (&asked.caller, &asked.call, &asked.at), now);
            ask.map(|ask| review::explain(group, &ask))
                .map_err(|why| Problem::new(Kind::InvalidRequest, why))
        })
        .await??;
    Ok(answer(bench.revision(), explained))
}

pub(super) async fn test(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Path(group): Path<String>,
    LargeJson(asked): LargeJson<Test>,
) -> Result<Response, Problem> {
    bounded(asked.cases.len(), "cases")?;
    let bench = Bench::open(&api, &operator, (&group, asked.revision)).await?;
    let (now, operator) = (now(&api), Arc::clone(&operator));
    let tested = bench
        .work(move |set, group| {
            let candidate = asked.documents.over(set, &group.name, &operator)?;
            let group = candidate.group(group.name.as_str()).ok_or(Kind::NotFound)?;
            let cases: Vec<Verdict> =
                asked.cases.iter().enumerate().map(|(n, c)| c.check(group, n + 1, now)).collect();
            let passed = cases.iter().filter(|case| case.passed).count();
            Ok::<_, Problem>(Tested { passed, failed: cases.len() - passed, cases })
        })
        .await??;
    Ok(answer(bench.revision(), tested))
}

pub(super) async fn replay(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Path(group): Path<String>,
    LargeJson(asked): LargeJson<Replay>,
) -> Result<Response, Problem> {
    bounded(asked.records.len(), "records")?;
    let bench = Bench::open(&api, &operator, (&group, None)).await?;
    let operator = Arc::clone(&operator);
    let report = bench
        .work(move |set, today| {
            let candidate = asked.documents.over(set, &today.name, &operator)?;
            let candidate = candidate.group(today.name.as_str()).ok_or(Kind::NotFound)?;
            Ok::<_, Problem>(review::replay(today, candidate, &asked.records))
        })
        .await??;
    Ok(answer(bench.revision(), report))
}

pub(super) async fn recompute(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Path(group): Path<String>,
    LargeJson(asked): LargeJson<Recompute>,
) -> Result<Response, Problem> {
    let missing = "the record tells of no decision that could be made again";
    let record = Recorded::read(&asked.record)
        .filter(|record| record.group.as_str() == group)
        .ok_or_else(|| Problem::new(Kind::InvalidRequest, missing))?;
    let then = Some(Revision(record.revision));
    let bench = Bench::open(&api, &operator, (&group, then)).await?;
    let made = bench
        .work(move |_, group| review::recompute(group, &record, asked.arguments.as_deref()))
        .await?;
    Ok(answer(bench.revision(), made))
}

fn now(api: &Api) -> i64 {
    i64::try_from(api.shared.clock.now_ms() / 1_000).unwrap_or(i64::MAX)
}

fn answer(revision: Revision, answer: impl Serialize) -> Response {
    axum::Json(Answer { revision, answer }).into_response()
}

fn bounded(count: usize, what: &str) -> Result<(), Problem> {
    let most = bounds::REVIEW_RECORDS_MAX;
    if count > most {
        return Err(Problem::new(
            Kind::TooLarge,
            format!("{count} {what}, at most {most} at a time"),
        ));
    }
    Ok(())
}

/// The documents of a group at a revision.
struct Bench {
    indexed: Arc<Indexed>,
    group: Name,
}

impl Bench {
    async fn open(
        api: &Api,
        operator: &Operator,
        (group, revision): (&str, Option<Revision>),
    ) -> Result<Self, Problem> {
        let group = input::name(group)?;
        operator.demand_group(&group)?;
        let newest = api.shared.author.newest().borrow().clone();
        let indexed = match revision {
            None => newest,
            Some(revision) if revision == newest.revision => newest,
            Some(revision) if revision > newest.revision => {
                let text = format!("revision {revision} is not here yet");
                return Err(Problem::new(Kind::NotFound, text));
            }
            Some(revision) => api.shared.author.past(revision).await?,
        };
        let key = ResourceKey::global(Sort::Group, group.as_str());
        if indexed.set.get(&key).is_none() {
            let then = revision.map_or_else(String::new, |at| format!(" at revision {at}"));
            return Err(Problem::new(Kind::NotFound, format!("there is no {key}{then}")));
        }
        Ok(Self { indexed, group })
    }

    fn revision(&self) -> Revision {
        self.indexed.revision
    }

    /// Runs work over the group's documents and the group as compiled from them, off the threads
    /// that serve.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ResourceSet, &GroupView) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let (indexed, name) = (Arc::clone(&self.indexed), self.group.clone());
        let done = tokio::task::spawn_blocking(move || {
            let set = of_group(&indexed.set, &name);
            let compiled = compile(&set);
            compiled.group(name.as_str()).map(|group| work(&set, group))
        });
        let done = done.await.map_err(|_| Problem::from(Kind::Internal))?;
        done.ok_or_else(|| Problem::from(Kind::NotFound))
    }
}

/// The documents that rules and hints of a group come from, with the definitions that its catalogs
/// refer to: what a tool says of itself stands there.
fn of_group(set: &ResourceSet, group: &Name) -> ResourceSet {
    let mut own = ResourceSet::default();
    for catalog in set.of_kind(Sort::Catalog, Some(group)) {
        let Spec::Catalog(spec) = &catalog.spec else { continue };
        for entry in &spec.entries {
            let key = ResourceKey::global(Sort::Definition, Definition::name_of(&entry.digest));
            if let Some(definition) = set.get(&key) {
                own.insert(Arc::clone(definition));
            }
        }
    }
    for resource in set.iter() {
        let mine = resource.key.group.as_ref() == Some(group)
            || (resource.key.kind == Sort::Group && resource.key.name == group.as_str())
            || (resource.key.group.is_none() && resource.key.kind == Sort::Region);
        if mine {
            own.insert(Arc::clone(resource));
        }
    }
    own
}

fn compile(set: &ResourceSet) -> Snapshot {
    Snapshot::compile(Revision(0), set, admit::stand_ins(set), None)
}

impl Candidate {
    /// The group as it would be.
    fn over(
        &self,
        set: &ResourceSet,
        group: &Name,
        operator: &Operator,
    ) -> Result<Snapshot, Problem> {
        let mut set = set.clone();
        let mut changed = std::collections::HashSet::new();
        for text in &self.delete {
            let missing = || Problem::new(Kind::NotFound, format!("there is no {text}"));
            let key = ResourceKey::parse(text).ok_or_else(missing)?;
            operator.demand_document(&key)?;
            set.get(&key).ok_or_else(missing)?;
            set.remove(&key);
        }
        if !self.apply.trim().is_empty() {
            let mut new_id = || uuid::Uuid::new_v4().simple().to_string();
            let documents = parse_documents(&self.apply, &mut new_id).map_err(Problem::fields)?;
            for document in documents {
                let key = &document.resource.key;
                operator.demand_document(key)?;
                changed.insert(key.to_string());
                set.insert(Arc::new(document.resource));
            }
        }
        let compiled = compile(&of_group(&set, group));
        let problems = compiled.problems.iter().filter(|p| changed.contains(&p.document));
        let problems: Vec<_> = problems.cloned().collect();
        if problems.is_empty() { Ok(compiled) } else { Err(Problem::fields(problems)) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_model::testing::World;

    use super::*;

    #[test]
    fn what_a_tool_says_of_itself_is_asked_about_too() {
        let looks = json!({"name": "look", "inputSchema": {"type": "object"},
            "annotations": {"readOnlyHint": true}});
        let other = json!({"name": "other", "inputSchema": {"type": "object"}});
        let world = World::new()
            .group("acme")
            .group("beta")
            .server("acme", "files", "http://127.0.0.1:1/mcp")
            .server("beta", "files", "http://127.0.0.1:1/mcp")
            .tool_of("acme", "files", &looks)
            .tool_of("beta", "files", &other)
            .policy("acme", "reads", "permit (principal, action, resource) when { resource is Tool && resource.readOnly };");
        let group: Name = "acme".parse().unwrap();
        let own = of_group(&world.set(), &group);
        assert_eq!(own.of_kind(Sort::Definition, None).count(), 1, "no others");
        let compiled = compile(&own);
        assert_eq!(compiled.problems, []);
        let group = compiled.group("acme").unwrap();
        let caller = Who { user: Some("ann".to_owned()), ..Who::default() };
        let ask = |tool: &str| {
            let call = Call { tool: Some(format!("files/{tool}")), ..Call::default() };
            let ask = Ask::new(group, (&caller, &call, &Place::default()), 0).unwrap();
            review::explain(group, &ask)
        };
        let told = ask("look");
        assert_eq!(told.answer, "allowed", "{told:?}");
        assert!(!told.notes.iter().any(|note| note.contains("mended")), "{told:?}");
        assert_eq!(ask("other").answer, "denied");
    }
}
