//! One proposed document against the stored one: secrets that are the same stay the same, and
//! tokens that operators do not write are kept.

use std::collections::HashSet;

use weir_model::resource::{
    Credential, Document, FieldError, Resource, SecretRef, ServiceAccount, Spec,
};
use weir_model::secret::{Secret, equal_in_constant_time};
use weir_model::snapshot::Secrets;

use super::Tokens;

/// A document as it will be stored.
pub(super) struct Settled {
    pub(super) resource: Resource,
    /// Secrets that are new.
    pub(super) secrets: Vec<(String, Secret<String>)>,
}

pub(super) fn document(
    document: &Document,
    stored: Option<&Resource>,
    tokens: Tokens,
    opened: &Secrets,
) -> Result<Settled, Vec<FieldError>> {
    borrowed_secrets(document, stored)?;
    let mut secrets = document.secrets.clone();
    let mut spec = document.resource.spec.clone();
    let mut changed = false;
    if let (Spec::Credential(new), Some(Spec::Credential(old))) =
        (&mut spec, stored.map(|stored| &stored.spec))
    {
        let (Credential::Header(new), Credential::Header(old)) = (new, old);
        changed |= keep_equal_secret(&mut new.value, &old.value, &mut secrets, opened);
    }
    if let (Spec::IdentityProvider(new), Some(Spec::IdentityProvider(old))) =
        (&mut spec, stored.map(|stored| &stored.spec))
    {
        let new = new.sign_in.as_mut().and_then(|client| client.client_secret.as_mut());
        let old = old.sign_in.as_ref().and_then(|client| client.client_secret.as_ref());
        if let (Some(new), Some(old)) = (new, old) {
            changed |= keep_equal_secret(new, old, &mut secrets, opened);
        }
    }
    if let (Spec::ServiceAccount(new), Tokens::AsStored) = (&mut spec, tokens) {
        let old = match stored.map(|stored| &stored.spec) {
            Some(Spec::ServiceAccount(old)) => old.tokens.as_slice(),
            _ => &[],
        };
        keep_tokens(document, new, old)?;
        changed = true;
    }
    let resource = match changed {
        true => Resource::new(document.resource.key.clone(), spec)?,
        false => document.resource.clone(),
    };
    Ok(Settled { resource, secrets })
}

/// A reference is only kept where the stored document has it already: else one document could
/// borrow the secret of another, of a group that its author may not see.
fn borrowed_secrets(document: &Document, stored: Option<&Resource>) -> Result<(), Vec<FieldError>> {
    let stored: HashSet<&str> = stored
        .map(Resource::secret_refs)
        .into_iter()
        .flatten()
        .map(|(_, reference)| reference.secret.as_str())
        .collect();
    let new: HashSet<&str> = document.secrets.iter().map(|(id, _)| id.as_str()).collect();
    let errors: Vec<_> = document
        .resource
        .secret_refs()
        .into_iter()
        .filter(|(_, reference)| {
            !new.contains(reference.secret.as_str()) && !stored.contains(reference.secret.as_str())
        })
        .map(|(path, _)| {
            let message = "refers to a secret that this document does not have; write its text";
            FieldError::new(&document.resource.key, path, message)
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// True when the new document now refers to the stored secret, since it is the same.
fn keep_equal_secret(
    new: &mut SecretRef,
    old: &SecretRef,
    secrets: &mut Vec<(String, Secret<String>)>,
    opened: &Secrets,
) -> bool {
    let Some(at) = secrets.iter().position(|(id, _)| *id == new.secret) else {
        return false;
    };
    let same = opened.get(&old.secret).is_some_and(|stored| {
        equal_in_constant_time(stored.expose(), secrets[at].1.expose().as_bytes())
    });
    if same {
        secrets.remove(at);
        *new = old.clone();
    }
    same
}

/// The stored tokens stay. What `get` shows may be applied again; anything else is an error.
fn keep_tokens(
    document: &Document,
    new: &mut ServiceAccount,
    old: &[weir_model::resource::ApiTokenEntry],
) -> Result<(), Vec<FieldError>> {
    let foreign = new.tokens.iter().enumerate().filter(|(_, token)| !old.contains(token));
    let errors: Vec<_> = foreign
        .map(|(i, _)| {
            FieldError::new(
                &document.resource.key,
                format!("spec.tokens[{i}]"),
                "is no token of this account; leave it out, tokens are minted (weir token create)",
            )
        })
        .collect();
    if errors.is_empty() {
        new.tokens = old.to_vec();
        Ok(())
    } else {
        Err(errors)
    }
}
