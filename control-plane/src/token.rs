//! Tokens that the control plane mints: `weir_{kind}_{id}_{random}`.
//!
//! The id is public and finds the entry; the random part has 256 bits, so what is kept is a plain
//! SHA-256 of the whole token, compared in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use weir_model::id::Digest;
use weir_model::secret::{Secret, equal_in_constant_time};
use zeroize::Zeroize;

/// Prefix of operators' tokens.
pub const OPERATOR: &str = "weir_op_";
/// Prefix of service accounts' tokens.
pub const ACCOUNT: &str = "weir_at_";

/// A fresh token, to be shown once.
#[derive(Debug)]
pub struct Minted {
    /// Public part.
    pub id: String,
    /// The whole token.
    pub token: Secret<String>,
    /// What is kept of it.
    pub sha256: Digest,
}

/// The system has no randomness.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system has no randomness")]
pub struct NoRandomness;

/// Mints a token of that prefix.
///
/// # Errors
/// [`NoRandomness`].
pub fn mint(prefix: &str) -> Result<Minted, NoRandomness> {
    let mut random = [0; 32 + 6];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| NoRandomness)?;
    let id: String = random[32..].iter().map(|b| format!("{b:02x}")).collect();
    let mut secret = URL_SAFE_NO_PAD.encode(&random[..32]);
    random.zeroize();
    let token = format!("{prefix}{id}_{secret}");
    secret.zeroize();
    Ok(Minted { id, sha256: Digest::of(token.as_bytes()), token: Secret::new(token) })
}

/// The public id in a token of that prefix; none when it is no such token.
pub fn id<'t>(prefix: &str, token: &'t str) -> Option<&'t str> {
    let (id, secret) = token.strip_prefix(prefix)?.split_once('_')?;
    let fits = |text: &str, max: usize| (1..=max).contains(&text.len());
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric());
    (plain && fits(id, 32) && fits(secret, 128)).then_some(id)
}

/// Whether a token is the one whose digest was kept.
pub fn matches(token: &str, sha256: &Digest) -> bool {
    equal_in_constant_time(&Digest::of(token.as_bytes()).0, &sha256.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_token_is_found_by_its_id_and_matches_itself_alone() {
        let (one, two) = (mint(OPERATOR).unwrap(), mint(OPERATOR).unwrap());
        assert_eq!(id(OPERATOR, one.token.expose()), Some(one.id.as_str()));
        assert!(matches(one.token.expose(), &one.sha256));
        assert!(!matches(two.token.expose(), &one.sha256));
        assert!(!format!("{one:?}").contains(one.token.expose()));
    }

    #[test]
    fn what_is_no_token_has_no_id() {
        for bad in ["", "weir_op_", "weir_op_x", "weir_op__y", "weir_at_x_y", "weir_op_../x_y"] {
            assert_eq!(id(OPERATOR, bad), None, "{bad}");
        }
    }
}
