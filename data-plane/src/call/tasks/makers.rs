//! Which tool made a task, where the task's id does not say.
//!
//! Ids that a call or a client brings hold it. Lists of servers, and what servers push, name tasks
//! without: for those a proxy remembers the tasks that passed it. It may forget, and others know
//! nothing of it: such a task is then held against every tool that could have made it
//! ([`super::right`]).

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use weir_model::bounds;
use weir_model::id::{Digest, Name};

/// The tools that made tasks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Makers(Cache<Digest, Arc<str>>);

impl Default for Makers {
    fn default() -> Self {
        let age = Duration::from_secs(bounds::SESSION_SECS_MAX.unsigned_abs());
        Self(Cache::builder().max_capacity(bounds::TASK_MAKERS_MAX).time_to_idle(age).build())
    }
}

impl Makers {
    /// `caller` is what the ids of one caller at one endpoint are bound to.
    pub fn remember(&self, (caller, version): (&[u8], &Name), own: &str, tool: &str) {
        self.0.insert(key(caller, version, own), tool.into());
    }

    /// The tool that made it; none where that is not known here.
    pub fn of(&self, (caller, version): (&[u8], &Name), own: &str) -> Option<Arc<str>> {
        self.0.get(&key(caller, version, own))
    }
}

fn key(caller: &[u8], version: &Name, own: &str) -> Digest {
    // The first two say where they end.
    let framed = u64::try_from(caller.len()).unwrap_or(u64::MAX).to_be_bytes();
    Digest::of_parts(&[&framed, caller, version.as_str().as_bytes(), b"\0", own.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_remembered_for_its_caller_and_version() {
        let makers = Makers::default();
        let (one, two): (Name, Name) = ("v1".parse().unwrap(), "v2".parse().unwrap());
        makers.remember((b"alice", &one), "t-1", "build");
        assert_eq!(makers.of((b"alice", &one), "t-1").as_deref(), Some("build"));
        for (caller, version, own) in
            [(&b"bob"[..], &one, "t-1"), (b"alice", &two, "t-1"), (b"alice", &one, "t-2")]
        {
            assert_eq!(makers.of((caller, version), own), None);
        }
    }
}
