//! Parameters with the names that servers have for things, for what clients name otherwise.

use bytes::Bytes;
use weir_model::reason::{Reason, Refusal};

use crate::mcp::adapt;
use crate::mcp::envelope::{Params, utf8};
use crate::mcp::members::Members;

/// `params` with the member at `path` naming what the server calls it; all else as it was.
pub(super) fn renamed(params: &Params, path: &[&str], own: &str) -> Result<Option<Bytes>, Refusal> {
    let Some(raw) = &params.raw else { return Ok(None) };
    let mut text = utf8(raw);
    for name in path {
        let members = Members::parse(text).map_err(Refusal::from)?;
        text = members.get(name).ok_or(Reason::InvalidParams)?.get();
    }
    Ok(Some(adapt::replaced(raw, text, &adapt::quoted(own))))
}

/// The same, once the name is known.
pub(super) fn renamer<'p>(
    params: &'p Params,
    path: &'static [&'static str],
) -> impl FnOnce(&str) -> Result<Option<Bytes>, Refusal> + 'p {
    move |own| renamed(params, path, own)
}
