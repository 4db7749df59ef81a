//! The witness of every node's audit log: certifies the nodes' keys, and keeps the newest
//! checkpoint of each of their epochs in the store, out of reach of whoever owns the node.
//!
//! A checkpoint must be signed by the key that the node shows, under the name that its certificate
//! proves, and must be proved to continue what was witnessed before (RFC 6962, 2.1.2): a log only
//! grows, and a new epoch never begins before the end of the one before. What passes is cosigned (C2SP `tlog-cosignature`). Some older checkpoints of an epoch are kept
//! beside the newest, so that a rewritten past shows even when the node's key was stolen.

use std::sync::Arc;

use async_trait::async_trait;
use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, Serialize};
use weir_audit::certificate::{AUTHORITY, Certificate};
use weir_audit::checkpoint::{Checkpoint, Head};
use weir_audit::merkle::{self, Hash};
use weir_audit::note::{Algorithm, Note, NoteError, Signer, Verifier};
use weir_audit::spool::Handle;
use weir_audit::witness::{self, Answer, PROOF_HASHES_MAX, Showing};
use weir_model::id::Revision;
use weir_runtime::clock::SharedClock;
use weir_runtime::metrics::Metrics;

use crate::store::{Entry, Guard, Op, Store, StoreError};
use crate::vault::{Vault, VaultError};

/// Where the key that all replicas share lives in the store.
const KEY: &str = "state/audit/key";
/// Where checkpoints live: `{node}/{epoch}`.
const SEEN: &str = "state/audit/seen/";
/// Epochs of a node that are kept.
const EPOCHS_MAX: usize = 100;
/// Checkpoints of an epoch that are kept beside the newest.
const MILESTONES_MAX: usize = 8;
/// Seconds between two of them at first. When there are too many, every second one goes.
const MILESTONE_SECS: u64 = 600;
/// Attempts while other replicas write too.
const TRIES_MAX: usize = 8;
/// Between two attempts to reach the store.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(5);

/// Why a checkpoint is not witnessed.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The vault.
    #[error("the audit witness's key: {0}")]
    Vault(#[from] VaultError),
    /// The checkpoint, or its signature.
    #[error("the checkpoint cannot be witnessed: {0}")]
    Bad(String),
    /// It contradicts what was witnessed: records were lost or changed on the node.
    #[error("the audit log of {node} contradicts what was witnessed: {what}")]
    Contradiction {
        /// The node.
        node: String,
        /// How.
        what: String,
    },
}

impl From<NoteError> for WitnessError {
    fn from(error: NoteError) -> Self {
        Self::Bad(error.to_string())
    }
}

/// What a node shows.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Its name, as its certificate for the stream proves.
    pub node: &'a str,
    /// Its region.
    pub region: &'a str,
    /// Its key for checkpoints.
    pub key: [u8; 32],
    /// The signed checkpoint.
    pub note: &'a str,
    /// The certificate that it has of that key; empty for none.
    pub certificate: &'a str,
    /// Records of the epoch from which on it is proved.
    pub from: u64,
    /// The proof.
    pub proof: &'a [Hash],
    /// How the epoch before ended cannot be proved any more.
    pub past_gone: bool,
}

/// What is kept of an epoch.
#[derive(Debug, Serialize, Deserialize)]
struct Seen {
    /// The newest checkpoint, cosigned.
    note: String,
    /// When it came, in seconds since the epoch.
    at: u64,
    /// Older ones, and when they came.
    #[serde(default)]
    milestones: Vec<(u64, String)>,
    /// Seconds between them.
    every: u64,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Witness {
    store: Arc<dyn Store>,
    signer: Arc<Signer>,
    clock: SharedClock,
    contradictions: Counter,
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Witness").field("signer", &self.signer).finish_non_exhaustive()
    }
}

impl Witness {
    /// The witness of this store; its key is made when there is none.
    ///
    /// # Errors
    /// When the store or the vault fails.
    pub async fn load_or_make(
        store: &Arc<dyn Store>,
        vault: &Vault,
        clock: SharedClock,
    ) -> Result<Self, WitnessError> {
        let read = |entry: &Entry| -> Result<Signer, WitnessError> {
            Ok(Signer::from_pkcs8(vault.open(KEY, &entry.value)?.expose())?)
        };
        let made = Signer::generate()?;
        let signer = loop {
            if let Some(entry) = store.get(KEY).await? {
                break read(&entry)?;
            }
            let sealed = vault.seal(KEY, &made.to_pkcs8()?)?;
            let guard = Guard { key: KEY.to_owned(), revision: Revision(0) };
            match store.commit(vec![guard], vec![Op::Put(KEY.to_owned(), sealed.into())]).await {
                // Of several replicas that start at once, one makes it and all use it.
                Ok(_) | Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let (store, signer) = (Arc::clone(store), Arc::new(signer));
        Ok(Self { store, signer, clock, contradictions: Counter::default() })
    }

    /// Tells by a metric how often a log was not what it was before.
    #[must_use]
    pub fn counted(self, metrics: &Metrics) -> Self {
        let help = "Checkpoints of audit logs that contradict what was witnessed before";
        Self { contradictions: metrics.counter("audit_contradictions", help), ..self }
    }

    /// The public key: whoever holds it can check every node's records.
    pub fn authority(&self) -> Option<Verifier> {
        self.signer.verifier(AUTHORITY)
    }

    /// Witnesses a checkpoint and gives the certificate of its key, or says what has to be proved
    /// first.
    ///
    /// # Errors
    /// See [`WitnessError`]. A contradiction is logged, and what was witnessed stays.
    pub async fn see(&self, shown: Shown<'_>) -> Result<Answer, WitnessError> {
        let (mut note, checkpoint) = checked(&shown)?;
        let now = self.clock.now_secs();
        self.signer.cosign(AUTHORITY, &mut note, now)?;
        for _ in 0..TRIES_MAX {
            match self.keep((&note, &checkpoint), &shown, now).await {
                Err(WitnessError::Store(StoreError::Conflict)) => {}
                Ok(None) => return self.certificate(&shown, now).map(Answer::Kept),
                Ok(Some((epoch, from))) => return Ok(Answer::Wants { epoch, from }),
                Err(error) => {
                    if matches!(error, WitnessError::Contradiction { .. }) {
                        self.contradictions.inc();
                    }
                    return Err(error);
                }
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Keeps it, or tells from which state of which epoch it has to be proved.
    async fn keep(
        &self,
        (note, checkpoint): (&Note, &Checkpoint),
        shown: &Shown<'_>,
        now: u64,
    ) -> Result<Option<(u64, u64)>, WitnessError> {
        let (node, epoch) = (&checkpoint.node, checkpoint.head.epoch);
        let path = format!("{SEEN}{node}/{epoch:020}");
        let before = self.store.get(&path).await?;
        let mut ops = Vec::new();
        let seen = match &before {
            Some(entry) => {
                let seen = read(entry)?;
                let known = parse(&seen.note)?;
                if known.head == checkpoint.head && known.end == checkpoint.end {
                    return Ok(None);
                }
                follows(&known, checkpoint)?;
                if shown.from != known.head.size {
                    return Ok(Some((epoch, known.head.size)));
                }
                proved(&known, checkpoint, shown.proof)?;
                seen.with(note.to_string(), now)
            }
            None => {
                let known = self.store.list(&format!("{SEEN}{node}/")).await?.entries;
                if let Some(unproved) = self.begins(&known, checkpoint)? {
                    if !shown.past_gone {
                        return Ok(Some(unproved));
                    }
                    let (before, records) = unproved;
                    self.contradictions.inc();
                    tracing::error!(
                        %node, epoch = before, records,
                        "how an epoch of an audit log ended could not be proved to its witness"
                    );
                }
                let excess = (known.len() + 1).saturating_sub(EPOCHS_MAX);
                ops.extend(known.into_iter().take(excess).map(|entry| Op::Delete(entry.key)));
                let (note, milestones) = (note.to_string(), Vec::new());
                Seen { note, at: now, milestones, every: MILESTONE_SECS }
            }
        };
        let value = serde_json::to_vec(&seen).map_err(|e| WitnessError::Bad(e.to_string()))?;
        let revision = before.map_or(Revision(0), |entry| entry.revision);
        ops.push(Op::Put(path.clone(), value.into()));
        self.store.commit(vec![Guard { key: path, revision }], ops).await?;
        Ok(None)
    }

    /// A new epoch continues the newest that is known. Gives the state from which the end of that
    /// one has to be proved first.
    fn begins(
        &self,
        known: &[Entry],
        checkpoint: &Checkpoint,
    ) -> Result<Option<(u64, u64)>, WitnessError> {
        let Some(newest) = known.last() else { return Ok(None) };
        let newest = parse(&read(newest)?.note)?;
        let contradiction =
            |what: String| WitnessError::Contradiction { node: checkpoint.node.clone(), what };
        let Head { epoch, size, .. } = newest.head;
        match checkpoint.previous {
            // An epoch of which nobody heard may lie in between.
            Some(previous) if previous.epoch > epoch => Ok(None),
            Some(previous) if previous.epoch == epoch && previous.size > size => {
                Ok(Some((epoch, size)))
            }
            Some(previous) if previous == newest.head => Ok(None),
            Some(previous) => Err(contradiction(format!(
                "epoch {} continues record {} of epoch {}, where {size} of {epoch} were seen",
                checkpoint.head.epoch, previous.size, previous.epoch
            ))),
            // A machine that was set up anew under its old name, or somebody who forgets on purpose. What
            // was seen stays, and tells which; what follows must be seen as well.
            None => Ok(Some((epoch, size))),
        }
    }

    fn certificate(&self, shown: &Shown<'_>, now: u64) -> Result<String, WitnessError> {
        let held = self.authority().and_then(|key| Certificate::read(shown.certificate, &key).ok());
        if held.is_some_and(|held| held.node == shown.node && held.key == shown.key) {
            return Ok(shown.certificate.to_owned());
        }
        let (node, region) = (shown.node.to_owned(), shown.region.to_owned());
        let certificate = Certificate { node, region, key: shown.key, since: now };
        tracing::info!(node = shown.node, "certified the key of a node's audit log");
        Ok(certificate.sign(&self.signer)?.to_string())
    }

    /// Everything witnessed: the newest checkpoint of each epoch, and older ones.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self) -> Result<Vec<String>, StoreError> {
        let mut notes = Vec::new();
        for entry in self.store.list(SEEN).await?.entries {
            let Ok(seen) = read(&entry) else {
                tracing::error!(path = entry.key, "a witnessed checkpoint is damaged");
                continue;
            };
            notes.extend(seen.milestones.into_iter().map(|(_, note)| note));
            notes.push(seen.note);
        }
        Ok(notes)
    }

    /// Witnesses this replica's own log, for ever.
    pub async fn follow(self, spool: Handle, node: String) {
        let mut checkpoints = spool.checkpoints();
        checkpoints.mark_changed();
        while checkpoints.changed().await.is_ok() {
            let Some(sealed) = checkpoints.borrow_and_update().clone() else { continue };
            let mut own = Own { witness: &self, node: &node };
            match witness::show(&mut own, &spool, &sealed).await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::error!(
                        "the records that the own audit log's witness asks for are gone"
                    );
                }
                Err(WitnessError::Store(error)) => {
                    tracing::warn!(%error, "the own audit log waits for its witness");
                    tokio::time::sleep(AGAIN).await;
                    checkpoints.mark_changed();
                }
                Err(error) => tracing::error!(%error, "the own audit log is not witnessed"),
            }
        }
    }
}

/// The witness of the process that it runs in.
struct Own<'a> {
    witness: &'a Witness,
    node: &'a str,
}

#[async_trait]
impl witness::Witness for Own<'_> {
    type Error = WitnessError;

    async fn see(&mut self, showing: Showing<'_>) -> Result<Answer, WitnessError> {
        let Showing { sealed, certificate, from, proof, past_gone } = showing;
        let (node, note) = (self.node, sealed.note.to_string());
        let (region, key) = ("", sealed.key);
        let shown = Shown { node, region, key, note: &note, certificate, from, proof, past_gone };
        self.witness.see(shown).await
    }
}

impl Seen {
    fn with(mut self, note: String, now: u64) -> Self {
        let last = self.milestones.last().map_or(0, |(at, _)| *at);
        if self.at.saturating_sub(last) >= self.every {
            self.milestones.push((self.at, std::mem::take(&mut self.note)));
        }
        if self.milestones.len() > MILESTONES_MAX {
            let mut number = 0;
            self.milestones.retain(|_| {
                number += 1;
                number % 2 == 0
            });
            self.every *= 2;
        }
        Self { note, at: now, ..self }
    }
}

fn read(entry: &Entry) -> Result<Seen, WitnessError> {
    let damaged = |_| StoreError::Corrupt(entry.key.clone());
    Ok(serde_json::from_slice(&entry.value).map_err(damaged)?)
}

fn parse(note: &str) -> Result<Checkpoint, WitnessError> {
    let note: Note = note.parse()?;
    note.text().parse().map_err(|_| WitnessError::Bad("not a checkpoint".to_owned()))
}

/// The checkpoint is the node's own, and signed by the key that it shows.
fn checked(shown: &Shown<'_>) -> Result<(Note, Checkpoint), WitnessError> {
    let note: Note = shown.note.parse()?;
    let checkpoint = parse(shown.note)?;
    if checkpoint.node != shown.node {
        return Err(WitnessError::Bad(format!("it is of another node, {:?}", checkpoint.node)));
    }
    let verifier = Verifier::new(&checkpoint.origin(), Algorithm::Ed25519, shown.key);
    verifier.ok_or_else(|| WitnessError::Bad("its name".to_owned()))?.verify(&note)?;
    Ok((note, checkpoint))
}

/// The new state has the records of the known one in front.
fn proved(known: &Checkpoint, new: &Checkpoint, proof: &[Hash]) -> Result<(), WitnessError> {
    let (was, is) = (&known.head, &new.head);
    let fits = proof.len() <= PROOF_HASHES_MAX;
    if fits && merkle::continues((was.size, was.root), (is.size, is.root), proof) {
        return Ok(());
    }
    let what = format!(
        "{} records of epoch {} are not proved to continue the {} that were seen",
        is.size, is.epoch, was.size
    );
    Err(WitnessError::Contradiction { node: new.node.clone(), what })
}

fn follows(known: &Checkpoint, new: &Checkpoint) -> Result<(), WitnessError> {
    let (was, is) = (&known.head, &new.head);
    let what = if is.size < was.size {
        format!("{} records of epoch {}, where {} were seen", is.size, is.epoch, was.size)
    } else if is.size == was.size && is.root != was.root {
        format!("the first {} records of epoch {} are not those that were seen", is.size, is.epoch)
    } else if known.end && is.size > was.size {
        format!("epoch {} goes on after its end", is.epoch)
    } else if known.previous != new.previous {
        format!("epoch {} continues another one than before", is.epoch)
    } else {
        return Ok(());
    };
    Err(WitnessError::Contradiction { node: new.node.clone(), what })
}

#[cfg(test)]
mod tests;
