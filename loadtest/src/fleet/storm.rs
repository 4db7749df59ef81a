//! All proxies come at once.

use std::time::{Duration, Instant};

use super::Run;
use super::report::Storm;

/// For which proxies stay away while something changes.
const AWAY: Duration = Duration::from_secs(3);

/// Every connection is cut at the same moment.
pub(super) async fn all_cut(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.say("every connection is cut");
    let before = Before::of(run);
    let begun = Instant::now();
    cut(run, Duration::ZERO).await;
    run.seen.all_welcomed(&before.welcomes, run.plan.patience).await?;
    run.figures.all_cut = before.storm(run, begun);
    Ok(())
}

/// Something changes while all proxies are away.
pub(super) async fn edit_while_away(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.say("an edit while every proxy is away");
    let before = Before::of(run);
    cut(run, AWAY).await;
    let revision = run.plane.apply(&[run.plan.world.server_document(0, 1_000)]).await?;
    tokio::time::sleep(AWAY).await;
    let begun = Instant::now();
    run.seen.reached(revision, run.proxies.len(), run.plan.patience).await?;
    run.figures.edit_while_away = before.storm(run, begun);
    Ok(())
}

/// The control plane is killed and started again.
pub(super) async fn restart(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.say("the control plane is killed and comes back");
    let before = Before::of(run);
    run.plane.kill().await;
    let begun = Instant::now();
    run.plane.start(run.plan.patience).await?;
    run.figures.plane_start_secs = begun.elapsed().as_secs_f64();
    run.seen.all_welcomed(&before.welcomes, run.plan.patience).await?;
    run.figures.restart = Before { cpu: 0.0, ..before }.storm(run, begun);
    Ok(())
}

/// The same, and something changes before the proxies are back.
pub(super) async fn restart_and_edit(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.say("the control plane comes back, and an edit comes before the proxies");
    let before = Before::of(run);
    run.plane.kill().await;
    cut(run, run.plan.patience).await;
    run.plane.start(run.plan.patience).await?;
    let revision = run.plane.apply(&[run.plan.world.server_document(0, 2_000)]).await?;
    let begun = Instant::now();
    cut(run, Duration::ZERO).await;
    run.seen.reached(revision, run.proxies.len(), run.plan.patience).await?;
    run.figures.restart_and_edit = Before { cpu: 0.0, ..before }.storm(run, begun);
    Ok(())
}

async fn cut(run: &Run<'_>, away: Duration) {
    for proxy in &run.proxies {
        proxy.cut(away).await;
    }
}

struct Before {
    received: u64,
    wholes: u64,
    welcomes: Vec<u64>,
    cpu: f64,
}

impl Before {
    fn of(run: &Run<'_>) -> Self {
        Self {
            received: run.seen.received_by_all(),
            wholes: run.seen.wholes(),
            welcomes: run.seen.welcomes(),
            cpu: run.plane.usage().cpu_secs,
        }
    }

    fn storm(&self, run: &Run<'_>, begun: Instant) -> Storm {
        let received = run.seen.received_by_all() - self.received;
        let usage = run.plane.usage();
        Storm {
            secs: begun.elapsed().as_secs_f64(),
            bytes_per_proxy: received / run.proxies.len().max(1) as u64,
            whole_states: run.seen.wholes() - self.wholes,
            plane_cpu_secs: usage.cpu_secs - self.cpu,
            plane_bytes: usage.resident_bytes,
        }
    }
}
