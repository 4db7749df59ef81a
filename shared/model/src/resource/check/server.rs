//! Registered servers.

use super::Findings;
use super::text::{self, Matches, UrlRules};
use crate::bounds;
use crate::resource::{Server, StdioUpstream, Upstream};

/// Rules of cost of a server, and patterns of one.
const COSTS_MAX: usize = 200;
/// Longest time-out of a call that a server may ask for: an hour.
const TIMEOUT_MS_MAX: u64 = 3_600_000;
/// Arguments and environment entries of a child process, each.
const CHILD_TEXTS_MAX: usize = 256;
/// Longest argument or environment value.
const CHILD_TEXT_BYTES_MAX: usize = 32 * 1024;

pub(super) fn server(f: &mut Findings, spec: &Server) {
    f.add_if("spec.displayName", text::display(spec.display_name.as_deref()));
    f.count("spec.versions", spec.versions.len(), (1, bounds::SERVER_VERSIONS_MAX));
    f.unique(spec.versions.iter().map(|v| &v.name), |i| format!("spec.versions[{i}].name"));
    for (i, version) in spec.versions.iter().enumerate() {
        let at = format!("spec.versions[{i}]");
        match &version.upstream {
            Upstream::Http(http) => {
                let rules = UrlRules { plain: true, path: true, query: true };
                f.add_if(format!("{at}.upstream.http.url"), text::url(&http.url, rules));
            }
            Upstream::Stdio(child) => stdio(f, &format!("{at}.upstream.stdio"), child),
        }
        if version.timeout_ms.is_some_and(|ms| ms == 0 || ms > TIMEOUT_MS_MAX) {
            f.add(format!("{at}.timeoutMs"), format!("must be from 1 to {TIMEOUT_MS_MAX}"));
        }
    }
    traffic(f, spec);
    f.count("spec.costs", spec.costs.len(), (0, COSTS_MAX));
    for (i, cost) in spec.costs.iter().enumerate() {
        let at = format!("spec.costs[{i}]");
        f.count(&format!("{at}.tools"), cost.tools.len(), (1, COSTS_MAX));
        for (j, pattern) in cost.tools.iter().enumerate() {
            f.add_if(format!("{at}.tools[{j}]"), text::pattern(pattern, Matches::Names));
        }
        if !(1..=bounds::TOOL_COST_MAX).contains(&cost.units) {
            f.add(format!("{at}.units"), format!("must be 1 to {}", bounds::TOOL_COST_MAX));
        }
    }
}

fn traffic(f: &mut Findings, spec: &Server) {
    if spec.traffic.is_empty() {
        return;
    }
    f.unique(spec.traffic.iter().map(|t| &t.version), |i| format!("spec.traffic[{i}].version"));
    for (i, share) in spec.traffic.iter().enumerate() {
        if !spec.versions.iter().any(|v| v.name == share.version) {
            let known: Vec<_> = spec.versions.iter().map(|v| v.name.as_str()).collect();
            let message = format!("unknown version; known are: {}", known.join(", "));
            f.add(format!("spec.traffic[{i}].version"), message);
        }
    }
    let sum: u32 = spec.traffic.iter().map(|t| u32::from(t.percent)).sum();
    if sum != 100 {
        f.add("spec.traffic", format!("the percents add up to {sum}; they must add up to 100"));
    }
}

fn stdio(f: &mut Findings, at: &str, child: &StdioUpstream) {
    let long = |text: &str| {
        if text.contains('\0') {
            return Some("must not have a NUL character".to_owned());
        }
        (text.len() > CHILD_TEXT_BYTES_MAX)
            .then(|| format!("must be at most {CHILD_TEXT_BYTES_MAX} bytes long"))
    };
    if child.command.trim().is_empty() {
        f.add(format!("{at}.command"), "must name a program");
    }
    f.add_if(format!("{at}.command"), long(&child.command));
    f.count(&format!("{at}.args"), child.args.len(), (0, CHILD_TEXTS_MAX));
    for (i, argument) in child.args.iter().enumerate() {
        f.add_if(format!("{at}.args[{i}]"), long(argument));
    }
    f.count(&format!("{at}.env"), child.env.len(), (0, CHILD_TEXTS_MAX));
    for (key, value) in &child.env {
        let path = crate::resource::document::join_key(&format!("{at}.env"), key);
        if key.is_empty() || key.contains(['=', '\0']) {
            f.add(path, "the name of a variable must not be empty or have = in it");
        } else {
            f.add_if(path, long(value));
        }
    }
    if !(16..=65_536).contains(&child.memory_mib) {
        f.add(format!("{at}.memoryMib"), "must be from 16 to 65536");
    }
    if !(1..=4_096).contains(&child.processes) {
        f.add(format!("{at}.processes"), "must be from 1 to 4096");
    }
    if let Some(cwd) = &child.cwd {
        if cwd.is_empty() {
            f.add(format!("{at}.cwd"), "must name a directory");
        }
        f.add_if(format!("{at}.cwd"), long(cwd));
    }
}
