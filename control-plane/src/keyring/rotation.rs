//! When which step of a rotation is due, and what it does. Pure: no store, no clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_model::resource::{Keyring, KeyringEntry};

use super::ById;

/// Keys that a document holds at most.
const KEYS_MAX: usize = 4;

/// How long things take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a key seals; zero for ever.
    pub rotate: Duration,
    /// How long it opens after that.
    pub overlap: Duration,
    /// How long a new key is given to reach every proxy before it seals.
    pub settle: Duration,
}

/// When what became of a key, in seconds since the epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Life {
    /// It was made.
    pub made: i64,
    /// It began to seal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_from: Option<i64>,
    /// Another one took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_until: Option<i64>,
}

/// The lives of all keys.
pub type Lives = ById;

/// One change of the keyring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A new key, which does not seal yet.
    Add,
    /// The key with this id seals from now on.
    Promote(String),
    /// The key with this id goes.
    Remove(String),
    /// A new key seals, and all others go.
    Replace,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Add => f.write_str("a key was added"),
            Self::Promote(id) => write!(f, "key {id} seals"),
            Self::Remove(id) => write!(f, "key {id} was removed"),
            Self::Replace => f.write_str("all keys were replaced"),
        }
    }
}

/// Takes note of keys of which nothing is known; true when there were some.
pub(super) fn adopt(ring: &Keyring, lives: &mut Lives, now: i64) -> bool {
    let before = lives.clone();
    lives.retain(|id, _| ring.keys.iter().any(|key| key.id == *id));
    for (at, key) in ring.keys.iter().enumerate() {
        lives.entry(key.id.clone()).or_insert(Life {
            made: now,
            sealed_from: Some(now),
            sealed_until: (at > 0).then_some(now),
        });
    }
    *lives != before
}

/// True when a new key may be added: none is on its way, and there is room.
pub(super) fn begins(ring: &Keyring, lives: &Lives) -> bool {
    waiting(ring, lives).is_none() && ring.keys.len() < KEYS_MAX
}

/// A key that has not sealed yet.
fn waiting<'r>(ring: &'r Keyring, lives: &Lives) -> Option<(&'r KeyringEntry, Life)> {
    ring.keys.iter().find_map(|key| {
        let life = lives.get(&key.id).filter(|life| life.sealed_from.is_none())?;
        Some((key, *life))
    })
}

/// The step that is due now.
pub fn due(ring: &Keyring, lives: &Lives, now: i64, timing: Timing) -> Option<Step> {
    let since = |at: i64, time: Duration| {
        now.saturating_sub(at) >= i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
    };
    let Some(first) = ring.keys.first() else { return Some(Step::Replace) };
    for key in &ring.keys[1..] {
        let until = lives.get(&key.id).and_then(|life| life.sealed_until);
        if until.is_some_and(|until| since(until, timing.overlap)) {
            return Some(Step::Remove(key.id.clone()));
        }
    }
    if let Some((key, life)) = waiting(ring, lives) {
        return since(life.made, timing.settle).then(|| Step::Promote(key.id.clone()));
    }
    let from = lives.get(&first.id).and_then(|life| life.sealed_from)?;
    let old = !timing.rotate.is_zero() && since(from, timing.rotate);
    (old && begins(ring, lives)).then_some(Step::Add)
}

/// Makes a step; `made` is the new key where it needs one.
pub(super) fn apply(
    step: &Step,
    made: Option<KeyringEntry>,
    (ring, lives): (&mut Keyring, &mut Lives),
    now: i64,
) {
    match (step, made) {
        (Step::Add, Some(key)) => {
            lives.insert(key.id.clone(), Life { made: now, ..Life::default() });
            ring.keys.push(key);
        }
        (Step::Replace, Some(key)) => {
            lives.clear();
            let life = Life { made: now, sealed_from: Some(now), sealed_until: None };
            lives.insert(key.id.clone(), life);
            ring.keys = vec![key];
        }
        (Step::Promote(id), _) => {
            let Some(at) = ring.keys.iter().position(|key| key.id == *id) else { return };
            if let Some(life) = ring.keys.first().and_then(|first| lives.get_mut(&first.id)) {
                life.sealed_until = Some(now);
            }
            if let Some(life) = lives.get_mut(id) {
                life.sealed_from = Some(now);
            }
            let key = ring.keys.remove(at);
            ring.keys.insert(0, key);
        }
        (Step::Remove(id), _) => {
            ring.keys.retain(|key| key.id != *id);
            lives.remove(id);
        }
        (Step::Add | Step::Replace, None) => {}
    }
}
