//! Resources in, snapshot out.

use super::{Secrets, Snapshot};
use crate::id::Revision;
use crate::resource::ResourceSet;

pub(super) fn compile(
    revision: Revision,
    set: &ResourceSet,
    secrets: Secrets,
    previous: Option<&Snapshot>,
) -> Snapshot {
    let _ = (revision, set, secrets, previous);
    todo!()
}
