//! What a run gave, as JSON and as Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds of many things of one sort.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Half were at most this.
    pub p50: f64,
    /// 99 of 100 were at most this.
    pub p99: f64,
    /// None was more.
    pub max: f64,
}

impl Spread {
    /// Of times; all zeros of none.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            // The smallest that at least this share is not above.
            let rank = (times.len() as f64 * share).ceil() as usize;
            times.get(rank.saturating_sub(1)).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
        };
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// Edits of one field.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Edits {
    /// How many.
    pub count: usize,
    /// Until the operator (or the proxy that reported) had its answer.
    pub answered_ms: Spread,
    /// Until a proxy had checked it, over all edits and proxies.
    pub one_proxy_ms: Spread,
    /// Until the last proxy had checked it, over all edits.
    pub every_proxy_ms: Spread,
    /// Until it was in force at the proxy that compiles what it gets, over all edits.
    pub real_proxy_ms: Spread,
    /// Over the wire to each proxy, heartbeats of that time included.
    pub bytes_per_proxy: u64,
    /// Whole states that were sent.
    pub whole_states: u64,
    /// The control plane's CPU for one edit.
    pub plane_cpu_ms: f64,
    /// The CPU of all proxies for one edit.
    pub proxies_cpu_ms: f64,
}

/// All proxies that come at once.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Storm {
    /// Until all are where they should be.
    pub secs: f64,
    /// Over the wire to each proxy, handshakes included.
    pub bytes_per_proxy: u64,
    /// Whole states that were sent.
    pub whole_states: u64,
    /// The control plane's CPU.
    pub plane_cpu_secs: f64,
    /// Its resident memory after it.
    pub plane_bytes: u64,
}

/// What was measured, in the order of the run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Until all proxies had enrolled.
    pub enrol_secs: f64,
    /// Until all servers were applied.
    pub apply_servers_secs: f64,
    /// Until the tools that one proxy reported were pinned.
    pub pin_tools_secs: f64,
    /// Of the whole configuration.
    pub documents: usize,
    /// Their canonical bytes.
    pub document_bytes: usize,
    /// A proxy with nothing: over the wire until it has everything.
    pub snapshot_bytes: u64,
    /// Until it had received and checked that.
    pub cold_receive_secs: f64,
    /// Until a proxy that compiles had it in force.
    pub cold_start_secs: f64,
    /// The same from its checkpoint, connected again.
    pub warm_start_secs: f64,
    /// What the configuration takes in the memory of a proxy that compiles.
    pub real_proxy_bytes: u64,
    /// Until all other proxies were connected, with what they had before.
    pub gather_secs: f64,
    /// The control plane with an idle fleet: of one core.
    pub idle_cpu_share: f64,
    /// Its resident memory then.
    pub plane_bytes: u64,
    /// A field of a server.
    pub server_edits: Edits,
    /// The text of a tool.
    pub tool_edits: Edits,
    /// Every connection cut.
    pub all_cut: Storm,
    /// An edit while all are away.
    pub edit_while_away: Storm,
    /// Until a killed control plane served again.
    pub plane_start_secs: f64,
    /// The control plane killed and started.
    pub restart: Storm,
    /// The same with an edit before the proxies are back.
    pub restart_and_edit: Storm,
    /// The control plane's resident memory at the end.
    pub plane_bytes_end: u64,
}

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// "embedded" or "etcd".
    pub store: String,
    /// Simulated proxies.
    pub proxies: usize,
    /// Servers.
    pub servers: usize,
    /// Tools.
    pub tools: usize,
    /// False for a build without optimisations.
    pub optimised: bool,
    /// Of the machine, for everything together.
    pub cores: usize,
    /// Load average of the machine, before and after.
    pub load: (f64, f64),
    /// How long it all took.
    pub seconds: f64,
    /// What was measured.
    pub figures: Figures,
}

const MIB: f64 = 1024.0 * 1024.0;

fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / MIB)
}

impl Report {
    /// As a table.
    pub fn markdown(&self) -> String {
        let f = &self.figures;
        let mut out = format!(
            "{} proxies, {} servers, {} tools, {} store, {} build, {} cores for everything, load \
             {:.1} to {:.1}, {:.0} s\n\n| measure | figure |\n|---|---|\n",
            self.proxies,
            self.servers,
            self.tools,
            self.store,
            if self.optimised { "release" } else { "debug" },
            self.cores,
            self.load.0,
            self.load.1,
            self.seconds
        );
        let mut row = |what: &str, figure: String| {
            let _ = writeln!(out, "| {what} | {figure} |");
        };
        row("enrolment of all proxies", format!("{:.1} s", f.enrol_secs));
        row("servers applied, 100 a change", format!("{:.1} s", f.apply_servers_secs));
        row("tools reported and pinned", format!("{:.1} s", f.pin_tools_secs));
        let size = format!("{} documents, {}", f.documents, mib(f.document_bytes as u64));
        row("configuration", size);
        let whole = format!("{}, {:.1} s", mib(f.snapshot_bytes), f.cold_receive_secs);
        row("cold start: whole state on the wire, received and checked", whole);
        row("cold start until in force", format!("{:.1} s", f.cold_start_secs));
        row("start from the checkpoint until in force", format!("{:.1} s", f.warm_start_secs));
        row("memory of a proxy for it", mib(f.real_proxy_bytes));
        row("all proxies connect", format!("{:.1} s", f.gather_secs));
        let idle = format!("{}, {:.1} % of a core", mib(f.plane_bytes), f.idle_cpu_share * 100.0);
        row("control plane, idle fleet", idle);
        for (what, edits) in [("server", &f.server_edits), ("tool", &f.tool_edits)] {
            edits.rows(what, &mut row);
        }
        for (what, storm) in [
            ("every connection cut, until all are back", &f.all_cut),
            ("an edit while all are away, until all have it", &f.edit_while_away),
            ("control plane killed and started, until all are back", &f.restart),
            ("the same with an edit before they are back", &f.restart_and_edit),
        ] {
            row(what, storm.told());
        }
        row("control plane's start", format!("{:.1} s", f.plane_start_secs));
        row("control plane's memory at the end", mib(f.plane_bytes_end));
        out
    }
}

impl Edits {
    fn rows(&self, what: &str, row: &mut impl FnMut(&str, String)) {
        let spread = |s: Spread| format!("p50 {:.1}, p99 {:.1}, max {:.1} ms", s.p50, s.p99, s.max);
        row(&format!("edit of a {what}: answered"), spread(self.answered_ms));
        row(&format!("edit of a {what}: at a proxy"), spread(self.one_proxy_ms));
        row(&format!("edit of a {what}: at the last proxy"), spread(self.every_proxy_ms));
        row(&format!("edit of a {what}: in force at the real proxy"), spread(self.real_proxy_ms));
        let bytes = format!("{} bytes, {} whole states", self.bytes_per_proxy, self.whole_states);
        row(&format!("edit of a {what}: to each proxy"), bytes);
        let cpu = format!("{:.1} ms, all proxies {:.1} ms", self.plane_cpu_ms, self.proxies_cpu_ms);
        row(&format!("edit of a {what}: CPU of the control plane"), cpu);
    }
}

impl Storm {
    fn told(&self) -> String {
        format!(
            "{:.1} s, {} bytes to each, {} whole states, {:.1} s CPU, {}",
            self.secs,
            self.bytes_per_proxy,
            self.whole_states,
            self.plane_cpu_secs,
            mib(self.plane_bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_read_from_sorted_times() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(Spread::of(times), Spread { p50: 100.0, p99: 198.0, max: 200.0 });
        assert_eq!(Spread::of(Vec::new()), Spread::default());
        let one = Spread::of(vec![Duration::from_millis(3)]);
        assert_eq!(one, Spread { p50: 3.0, p99: 3.0, max: 3.0 });
    }
}
