//! The control plane's signature over what a region's state is at a revision.
//!
//! A signer is a short-lived key of one replica, endorsed by the CA's key. A node knows the CA
//! since it enrolled, so it can check a state that it got from any replica, or from its own disk.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use bytes::Bytes;

use super::Applied;
use crate::id::Name;

/// A P-256 public key, uncompressed.
pub const PUBLIC_KEY_BYTES: usize = 65;
/// Longest ECDSA P-256 signature in DER.
pub const SIGNATURE_BYTES_MAX: usize = 72;

/// The public key of the CA: what endorsements are checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor(pub Bytes);

/// A signature with all that is needed to check it, but for the anchor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SignedStatement {
    /// Of the signer, over region, revision and digest.
    pub signature: Bytes,
    /// The signer's public key.
    pub signer: Bytes,
    /// When the signer's endorsement ends, in seconds since the epoch.
    pub signer_not_after: i64,
    /// Of the CA, over signer and end.
    pub endorsement: Bytes,
}

/// Why a statement is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The CA did not endorse the signer.
    #[error("the signer is not endorsed by the control plane's CA")]
    Endorsement,
    /// The endorsement has ended.
    #[error("the endorsement of the signer has ended")]
    Expired,
    /// The signature is over another region, revision or digest, or not of the signer.
    #[error("the signature does not fit the state")]
    Signature,
}

/// The bytes that the CA signs to endorse a signer.
pub fn endorsement_bytes(signer: &[u8], not_after: i64) -> Vec<u8> {
    let mut out = b"weir signer v1\0".to_vec();
    out.extend_from_slice(&not_after.to_be_bytes());
    out.extend_from_slice(signer);
    out
}

fn statement_bytes(region: &Name, applied: Applied) -> Vec<u8> {
    let mut out = b"weir state v1\0".to_vec();
    out.extend_from_slice(&applied.revision.0.to_be_bytes());
    out.extend_from_slice(&applied.digest.0);
    out.extend_from_slice(region.as_str().as_bytes());
    out
}

impl SignedStatement {
    /// Checks that the control plane says `applied` of `region`. With `unix`, the endorsement
    /// must not have ended by then; a state from disk was checked when it came.
    ///
    /// # Errors
    /// See [`StatementError`].
    pub fn verify(
        &self,
        anchor: &Anchor,
        region: &Name,
        applied: Applied,
        unix: Option<i64>,
    ) -> Result<(), StatementError> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &anchor.0)
            .verify(&endorsement_bytes(&self.signer, self.signer_not_after), &self.endorsement)
            .map_err(|_| StatementError::Endorsement)?;
        if unix.is_some_and(|now| now > self.signer_not_after) {
            return Err(StatementError::Expired);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.signer)
            .verify(&statement_bytes(region, applied), &self.signature)
            .map_err(|_| StatementError::Signature)
    }
}

/// A replica's signing key with its endorsement.
pub struct Signer {
    key: EcdsaKeyPair,
    public: Bytes,
    not_after: i64,
    endorsement: Bytes,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Signer {
    /// Makes a key and has it endorsed: `endorse` signs the given bytes with the CA's key
    /// (ECDSA P-256 with SHA-256, DER).
    ///
    /// # Errors
    /// What `endorse` says.
    pub fn new<E>(
        not_after: i64,
        endorse: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .expect("the system gives random bytes");
        let public = Bytes::copy_from_slice(key.public_key().as_ref());
        let endorsement = endorse(&endorsement_bytes(&public, not_after))?.into();
        Ok(Self { key, public, not_after, endorsement })
    }

    /// When the endorsement ends, in seconds since the epoch.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Signs the state of a region.
    pub fn sign(&self, region: &Name, applied: Applied) -> SignedStatement {
        let signature = self
            .key
            .sign(&SystemRandom::new(), &statement_bytes(region, applied))
            .expect("a P-256 key signs any bytes");
        SignedStatement {
            signature: Bytes::copy_from_slice(signature.as_ref()),
            signer: self.public.clone(),
            signer_not_after: self.not_after,
            endorsement: self.endorsement.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Digest, Revision};

    fn authority() -> (EcdsaKeyPair, Anchor) {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let anchor = Anchor(Bytes::copy_from_slice(key.public_key().as_ref()));
        (key, anchor)
    }
    fn signer(authority: &EcdsaKeyPair, not_after: i64) -> Signer {
        let sign =
            |bytes: &[u8]| authority.sign(&SystemRandom::new(), bytes).map(|s| s.as_ref().to_vec());
        Signer::new(not_after, sign).unwrap()
    }

    #[test]
    fn a_statement_fits_one_state_of_one_region() {
        let (key, anchor) = authority();
        let eu: Name = "eu".parse().unwrap();
        let applied = Applied { revision: Revision(7), digest: Digest::of(b"x") };
        let signed = signer(&key, 100).sign(&eu, applied);
        assert_eq!(signed.verify(&anchor, &eu, applied, Some(100)), Ok(()));
        assert_eq!(signed.verify(&anchor, &eu, applied, None), Ok(()));
        let check = |region: &str, applied, at| {
            signed.verify(&anchor, &region.parse().unwrap(), applied, at).unwrap_err()
        };
        assert_eq!(check("us", applied, None), StatementError::Signature);
        let later = Applied { revision: Revision(8), ..applied };
        assert_eq!(check("eu", later, None), StatementError::Signature);
        let other = Applied { digest: Digest::of(b"y"), ..applied };
        assert_eq!(check("eu", other, None), StatementError::Signature);
        assert_eq!(check("eu", applied, Some(101)), StatementError::Expired);
    }

    #[test]
    fn only_the_authority_endorses() {
        let (key, anchor) = authority();
        let (foreign, _) = authority();
        let eu: Name = "eu".parse().unwrap();
        let applied = Applied::default();
        let forged = signer(&foreign, 100).sign(&eu, applied);
        assert_eq!(forged.verify(&anchor, &eu, applied, None), Err(StatementError::Endorsement));
        let mut longer = signer(&key, 100).sign(&eu, applied);
        longer.signer_not_after = 200;
        assert_eq!(longer.verify(&anchor, &eu, applied, None), Err(StatementError::Endorsement));
    }
}
