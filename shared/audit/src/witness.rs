//! Showing a log's checkpoints to a witness: somebody out of this machine's reach who remembers
//! what was seen, and agrees to a newer state only with a proof that it continues the older one
//! (RFC 6962, 2.1.2). A log that was rewritten cannot be proved, and is refused.
//!
//! The witness says from which state on it wants to be shown more; who shows may know better than
//! the last time (an answer that was lost, another replica), so they talk for a few turns.

use async_trait::async_trait;

use crate::line::Sealed;
use crate::merkle::Hash;
use crate::spool::Handle;

/// Hashes of the longest proof there can be.
pub const PROOF_HASHES_MAX: usize = 2 * u64::BITS as usize;
/// Questions that a witness may ask about one checkpoint.
const TURNS_MAX: usize = 6;

/// One checkpoint, and how it follows what the witness has seen.
#[derive(Debug, Clone, Copy)]
pub struct Showing<'a> {
    /// The checkpoint.
    pub sealed: &'a Sealed,
    /// What the witness said about the key; empty for nothing yet.
    pub certificate: &'a str,
    /// Records that the witness is thought to have seen of this epoch.
    pub from: u64,
    /// Leads from there to the checkpoint.
    pub proof: &'a [Hash],
    /// The end of the epoch before cannot be proved any more: its records are gone.
    pub past_gone: bool,
}

/// What a witness answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It remembers the checkpoint. With the certificate of the key.
    Kept(String),
    /// It has seen so many records of this epoch, and wants to be shown how it went on.
    Wants {
        /// The epoch.
        epoch: u64,
        /// Records of it.
        from: u64,
    },
}

/// Somebody who remembers checkpoints.
#[async_trait]
pub trait Witness: Send {
    /// Why it did not answer, or would not remember.
    type Error: Send;

    /// Shows it a checkpoint.
    async fn see(&mut self, showing: Showing<'_>) -> Result<Answer, Self::Error>;
}

/// Shows a checkpoint until the witness has seen enough. True when it remembers it; false when it
/// wants to be shown what is gone.
///
/// # Errors
/// Those of the witness.
pub async fn show<W: Witness>(
    witness: &mut W,
    spool: &Handle,
    sealed: &Sealed,
) -> Result<bool, W::Error> {
    let head = sealed.checkpoint.head;
    let certificate = spool.certificate();
    let certificate = certificate.as_deref().unwrap_or_default();
    let (mut from, mut past_gone) = (spool.seen(head.epoch), false);
    for _ in 0..TURNS_MAX {
        let Some(proof) = spool.growth(head.epoch, from, head.size).await else {
            return Ok(false);
        };
        let showing = Showing { sealed, certificate, from, proof: &proof, past_gone };
        match witness.see(showing).await? {
            Answer::Kept(certificate) => {
                spool.certify(&certificate);
                spool.saw(sealed);
                return Ok(true);
            }
            Answer::Wants { epoch, from: seen } if epoch == head.epoch => from = seen,
            Answer::Wants { epoch, from: seen } => {
                past_gone = !show_past(witness, spool, (epoch, seen)).await?;
            }
        }
    }
    Ok(false)
}

/// Shows how an earlier epoch ended; false when that cannot be shown any more.
async fn show_past<W: Witness>(
    witness: &mut W,
    spool: &Handle,
    (epoch, from): (u64, u64),
) -> Result<bool, W::Error> {
    let Some(sealed) = spool.newest_of(epoch).await else { return Ok(false) };
    let size = sealed.checkpoint.head.size;
    let Some(proof) = spool.growth(epoch, from, size).await else { return Ok(false) };
    let certificate = spool.certificate();
    let certificate = certificate.as_deref().unwrap_or_default();
    // Its own past is older still; that is not gone into.
    let showing = Showing { sealed: &sealed, certificate, from, proof: &proof, past_gone: true };
    Ok(matches!(witness.see(showing).await?, Answer::Kept(_)))
}
