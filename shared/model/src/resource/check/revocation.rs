//! What may no longer be used.

use super::Findings;
use super::text;
use crate::bounds;
use crate::resource::{NodeRevocation, Revocation, Revoked};

pub(super) fn revocation(f: &mut Findings, spec: &Revocation) {
    let id = |f: &mut Findings, path: &str, id: &str| {
        if id.is_empty() || id.len() > bounds::URI_BYTES_MAX || id.chars().any(char::is_control) {
            f.add(path, format!("must be one line of 1 to {} bytes", bounds::URI_BYTES_MAX));
        }
    };
    match &spec.what {
        Revoked::TokenId(text) => id(f, "spec.what.tokenId", text),
        Revoked::Session(text) => id(f, "spec.what.session", text),
        Revoked::Principal(principal) => id(f, "spec.what.principal.id", &principal.id),
        Revoked::Tool(tool) => id(f, "spec.what.tool.name", &tool.name),
        Revoked::Token(_) | Revoked::Server(_) | Revoked::Policy(_) | Revoked::RoleBinding(_) => {}
    }
    match (&spec.what, spec.expires) {
        (Revoked::Token(_) | Revoked::TokenId(_) | Revoked::Session(_), None) => {
            f.add("spec.expires", "is missing; say when the token or session would have ended");
        }
        (Revoked::Policy(_) | Revoked::RoleBinding(_), Some(_)) => {
            f.add("spec.expires", "must not be given: rules do not come back by themselves");
        }
        _ => {}
    }
    f.add_if("spec.because", text::display(spec.because.as_deref()));
}

pub(super) fn node(f: &mut Findings, spec: &NodeRevocation) {
    f.add_if("spec.because", text::display(spec.because.as_deref()));
}
