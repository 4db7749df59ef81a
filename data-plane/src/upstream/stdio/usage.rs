//! What children use of the machine: looked at once a second, all at the same time, and ended when
//! it is more than their documents allow.
//!
//! A child and what it starts are one process group. A process that leaves the group is not seen;
//! programs that must be held tighter belong into a container of their own.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Pid;
use tokio::sync::oneshot;
use weir_model::bounds;
use weir_model::resource::StdioUpstream;

/// Where the system shows its processes.
const PROCESSES: &str = "/proc";

/// All children of a proxy.
#[derive(Debug, Default)]
pub(crate) struct Usage(Mutex<HashMap<i32, Allowed>>);

/// What one group may use.
#[derive(Debug)]
struct Allowed {
    memory_mib: u64,
    processes: u32,
    tell: Option<oneshot::Sender<String>>,
}

/// Watches one child for as long as it is held.
#[derive(Debug)]
pub(super) struct Meter {
    usage: Arc<Usage>,
    group: i32,
    told: oneshot::Receiver<String>,
}

impl Meter {
    /// Returns when the child uses too much, with what.
    pub(super) async fn over(&mut self) -> String {
        match (&mut self.told).await {
            Ok(why) => why,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.usage.0.lock().remove(&self.group);
    }
}

impl Usage {
    /// Starts to look, until nobody holds it any more.
    pub(crate) fn start() -> Arc<Self> {
        let usage = Arc::new(Self::default());
        tokio::spawn(look(Arc::downgrade(&usage)));
        usage
    }

    /// Watches the group of a child.
    pub(super) fn watch(self: &Arc<Self>, group: Pid, spec: &StdioUpstream) -> Meter {
        let group = group.as_raw_nonzero().get();
        let (tell, told) = oneshot::channel();
        let (memory_mib, processes) = (spec.memory_mib, spec.processes);
        let allowed = Allowed { memory_mib, processes, tell: Some(tell) };
        self.0.lock().insert(group, allowed);
        Meter { usage: Arc::clone(self), group, told }
    }

    fn compare(&self, used: &HashMap<i32, Used>) {
        for (group, allowed) in self.0.lock().iter_mut() {
            let Some(used) = used.get(group) else { continue };
            let why = if used.kib > allowed.memory_mib * 1024 {
                format!("more than {} MiB of memory", allowed.memory_mib)
            } else if used.processes > allowed.processes {
                format!("more than {} processes", allowed.processes)
            } else {
                continue;
            };
            if let Some(tell) = allowed.tell.take() {
                // It may have ended meanwhile.
                let _ = tell.send(why);
            }
        }
    }
}

/// What one group uses.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Used {
    kib: u64,
    processes: u32,
}

async fn look(usage: Weak<Usage>) {
    loop {
        tokio::time::sleep(Duration::from_millis(bounds::CHILD_USAGE_MS)).await;
        let Some(usage) = usage.upgrade() else { return };
        if usage.0.lock().is_empty() {
            continue;
        }
        if let Ok(used) = tokio::task::spawn_blocking(used).await {
            usage.compare(&used);
        }
    }
}

/// What each process group of the machine uses; nothing where the system does not show it.
fn used() -> HashMap<i32, Used> {
    let mut groups: HashMap<i32, Used> = HashMap::new();
    let Ok(entries) = std::fs::read_dir(PROCESSES) else { return groups };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // Gone meanwhile, or not ours to see.
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        if let Some((group, kib)) = parsed(&status) {
            let used = groups.entry(group).or_default();
            used.kib += kib;
            used.processes += 1;
        }
    }
    groups
}

/// Group and resident memory in KiB of a `status` file. Group ids are given per namespace, the
/// outermost that we see first.
fn parsed(status: &str) -> Option<(i32, u64)> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()
    };
    let group = field("NSpgid:")?.parse().ok()?;
    // Threads of the kernel and processes that have ended have no memory.
    let kib = field("VmRSS:").and_then(|kib| kib.parse().ok()).unwrap_or(0);
    Some((group, kib))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_from_what_the_system_shows() {
        let status = "Name:\tsh\nState:\tS\nNSpgid:\t77\t1\nVmRSS:\t    1234 kB\nThreads:\t1\n";
        assert_eq!(parsed(status), Some((77, 1234)));
        assert_eq!(parsed("Name:\tkthread\nNSpgid:\t0\n"), Some((0, 0)));
        assert_eq!(parsed("Name:\tx\n"), None);
    }
}
