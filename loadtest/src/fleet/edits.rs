//! Changes of one field, one after the other, each until every proxy has it.

use std::time::Instant;

use super::Run;
use super::report::{Edits, Spread};

/// One field of one server changes, over REST.
pub(super) async fn of_servers(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.say(format!("{} edits of a server", run.plan.edits));
    let mut edits = Measured::new(run);
    for edit in 0..run.plan.edits {
        let server = edit * 7919 % run.plan.world.servers;
        let revised = u64::try_from(edit)? + 1;
        let begun = Instant::now();
        let revision = run.plane.apply(&[run.plan.world.server_document(server, revised)]).await?;
        edits.answered.push(begun.elapsed());
        edits.arrived(run, revision, begun).await?;
    }
    run.figures.server_edits = edits.end(run);
    Ok(())
}

/// One tool of one server changes, as a proxy reports it.
pub(super) async fn of_tools(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.say(format!("{} edits of a tool", run.plan.edits));
    let mut edits = Measured::new(run);
    for edit in 0..run.plan.edits {
        let server = edit * 6007 % run.plan.world.servers;
        let seen = run.plan.world.observation(server, u64::try_from(edit)? + 1);
        let begun = Instant::now();
        run.proxies[0].report(vec![seen]).await;
        run.proxies[0].all_stored(run.plan.patience).await?;
        edits.answered.push(begun.elapsed());
        let revision = run.plane.revision().await?;
        edits.arrived(run, revision, begun).await?;
    }
    run.figures.tool_edits = edits.end(run);
    Ok(())
}

/// What edits took, and what all of them cost.
struct Measured {
    answered: Vec<std::time::Duration>,
    everywhere: Vec<std::time::Duration>,
    each: Vec<std::time::Duration>,
    real: Vec<std::time::Duration>,
    received: u64,
    wholes: u64,
    cpu: f64,
    own_cpu: f64,
}

impl Measured {
    fn new(run: &Run<'_>) -> Self {
        Self {
            answered: Vec::new(),
            everywhere: Vec::new(),
            each: Vec::new(),
            real: Vec::new(),
            received: run.seen.received_by_all(),
            wholes: run.seen.wholes(),
            cpu: run.plane.usage().cpu_secs,
            own_cpu: crate::process::usage(&[std::process::id()]).cpu_secs,
        }
    }

    /// Waits until every proxy has the revision.
    async fn arrived(
        &mut self,
        run: &Run<'_>,
        revision: weir_model::id::Revision,
        begun: Instant,
    ) -> anyhow::Result<()> {
        let (count, patience) = (run.proxies.len(), run.plan.patience);
        let all = run.seen.reached(revision, count, patience);
        let real = async {
            match &run.real {
                Some(real) => real.reached(revision, patience).await.map(Some),
                None => Ok(None),
            }
        };
        let (when, real) = tokio::try_join!(all, real)?;
        let after = |at: Instant| at.saturating_duration_since(begun);
        self.everywhere.extend(when.iter().copied().map(after).max());
        self.each.extend(when.into_iter().map(after));
        self.real.extend(real.map(after));
        Ok(())
    }

    fn end(self, run: &Run<'_>) -> Edits {
        let count = self.answered.len().max(1);
        let received = run.seen.received_by_all() - self.received;
        let own = crate::process::usage(&[std::process::id()]).cpu_secs - self.own_cpu;
        Edits {
            count: self.answered.len(),
            answered_ms: Spread::of(self.answered),
            one_proxy_ms: Spread::of(self.each),
            every_proxy_ms: Spread::of(self.everywhere),
            real_proxy_ms: Spread::of(self.real),
            bytes_per_proxy: received / (count * run.proxies.len()) as u64,
            whole_states: run.seen.wholes() - self.wholes,
            plane_cpu_ms: (run.plane.usage().cpu_secs - self.cpu) * 1000.0 / count as f64,
            proxies_cpu_ms: own * 1000.0 / count as f64,
        }
    }
}
