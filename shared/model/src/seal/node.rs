//! Secrets for one node: X25519 with a fresh key per secret, HKDF-SHA256, AES-256-GCM.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use aws_lc_rs::hkdf;

use super::{SealError, TAG_BYTES};
use crate::secret::Secret;

/// Length of both halves of a node's sealing key.
pub const NODE_KEY_BYTES: usize = 32;

/// The public half of a node's sealing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodePublic(pub [u8; NODE_KEY_BYTES]);

impl TryFrom<&[u8]> for NodePublic {
    type Error = SealError;
    fn try_from(bytes: &[u8]) -> Result<Self, SealError> {
        bytes.try_into().map(Self).map_err(|_| SealError::BadKey)
    }
}

/// A node's sealing key. Never leaves the node.
pub struct NodeKey {
    private: PrivateKey,
    public: NodePublic,
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({:?})", self.public)
    }
}

impl NodeKey {
    /// A new key.
    pub fn generate() -> Self {
        let private = PrivateKey::generate(&X25519).expect("the system gives random bytes");
        Self::of(private).expect("a generated key has a public half")
    }

    /// Reads what [`Self::to_bytes`] gave.
    ///
    /// # Errors
    /// [`SealError::BadKey`] when it is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        let private =
            PrivateKey::from_private_key(&X25519, bytes).map_err(|_| SealError::BadKey)?;
        Self::of(private)
    }

    fn of(private: PrivateKey) -> Result<Self, SealError> {
        let public = private.compute_public_key().map_err(|_| SealError::BadKey)?;
        Ok(Self { public: NodePublic::try_from(public.as_ref())?, private })
    }

    /// The private half, to be kept in a file that only the proxy reads.
    pub fn to_bytes(&self) -> Secret<Vec<u8>> {
        let seed: Curve25519SeedBin<'_> =
            self.private.as_be_bytes().expect("an X25519 key has a seed");
        Secret::new(seed.as_ref().to_vec())
    }

    /// The half to seal to.
    pub fn public(&self) -> NodePublic {
        self.public
    }

    /// Opens what [`seal_to`] made for this node and this secret id.
    ///
    /// # Errors
    /// [`SealError::Mismatch`] when it was made for another node or id, or altered.
    pub fn open(&self, id: &str, sealed: &[u8]) -> Result<Secret<Vec<u8>>, SealError> {
        if sealed.len() < NODE_KEY_BYTES + TAG_BYTES {
            return Err(SealError::Malformed);
        }
        let (ephemeral, body) = sealed.split_at(NODE_KEY_BYTES);
        let peer = NodePublic::try_from(ephemeral)?;
        let (key, nonce) = agree(&self.private, peer, peer, self.public)?;
        let mut body = body.to_vec();
        let plain = key
            .open_in_place(nonce, Aad::from(id.as_bytes()), &mut body)
            .map_err(|_| SealError::Mismatch)?;
        Ok(Secret::new(plain.to_vec()))
    }
}

/// Seals a secret so that only the node can open it, and only as the secret of that id.
///
/// # Errors
/// [`SealError::BadKey`] when `node` is not a usable public key.
pub fn seal_to(node: NodePublic, id: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let ephemeral = NodeKey::generate();
    let (key, nonce) = agree(&ephemeral.private, node, ephemeral.public, node)?;
    let mut body = plain.to_vec();
    key.seal_in_place_append_tag(nonce, Aad::from(id.as_bytes()), &mut body)
        .map_err(|_| SealError::TooLong)?;
    let mut sealed = ephemeral.public.0.to_vec();
    sealed.append(&mut body);
    Ok(sealed)
}

/// The key of one sealed secret. It is used once, so its nonce may be constant.
fn agree(
    mine: &PrivateKey,
    peer: NodePublic,
    ephemeral: NodePublic,
    node: NodePublic,
) -> Result<(LessSafeKey, Nonce), SealError> {
    let peer = UnparsedPublicKey::new(&X25519, peer.0);
    let key = agreement::agree(mine, peer, SealError::BadKey, |shared| {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &[ephemeral.0, node.0].concat());
        let prk = salt.extract(shared);
        let info: [&[u8]; 1] = [b"weir node seal v1"];
        let okm = prk.expand(&info, &AES_256_GCM).map_err(|_| SealError::BadKey)?;
        Ok(LessSafeKey::new(UnboundKey::from(okm)))
    })?;
    Ok((key, Nonce::assume_unique_for_key([0; NONCE_LEN])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_opens_one_id() {
        let (mine, other) = (NodeKey::generate(), NodeKey::generate());
        let sealed = seal_to(mine.public(), "s1", b"token").unwrap();
        assert_eq!(mine.open("s1", &sealed).unwrap().expose(), b"token");
        assert_eq!(mine.open("s2", &sealed).unwrap_err(), SealError::Mismatch);
        assert_eq!(other.open("s1", &sealed).unwrap_err(), SealError::Mismatch);
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(mine.open("s1", &altered).is_err(), "at {at}");
        }
        assert!(mine.open("s1", &sealed[..40]).is_err());
    }

    #[test]
    fn keys_are_kept_as_bytes() {
        let key = NodeKey::generate();
        let sealed = seal_to(key.public(), "s1", b"token").unwrap();
        let again = NodeKey::from_bytes(key.to_bytes().expose()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(again.open("s1", &sealed).unwrap().expose(), b"token");
        assert!(NodeKey::from_bytes(&[1; 31]).is_err());
        assert!(seal_to(NodePublic([0; 32]), "s1", b"token").is_err(), "a point of low order");
    }
}
