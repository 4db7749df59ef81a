//! A listen request to one server, before it is passed on: only of resources that the caller may
//! read will the server be asked to tell.

use bytes::Bytes;
use weir_model::bounds;
use weir_model::id::Name;
use weir_model::policy::Action;
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::{CatalogView, Hints};

use super::Scene;
use super::shown::{has_resource, lists_no_resources};
use crate::mcp::adapt::replaced;
use crate::mcp::envelope::{Params, utf8};
use crate::mcp::members::Members;
use crate::mcp::template;

/// The parameters without resources that this caller may not read or that are not there, which a
/// server then does not acknowledge; all else as it was.
///
/// # Errors
/// [`Reason::InvalidParams`] for anything but a list of URIs.
pub(super) fn heard(
    scene: &Scene<'_>,
    server: &Name,
    (catalog, closed): (Option<&CatalogView>, bool),
    params: &Params,
) -> Result<Option<Bytes>, Refusal> {
    let Some(raw) = &params.raw else { return Ok(None) };
    let members = Members::parse(utf8(raw)).map_err(Refusal::from)?;
    let Some(filter) = members.get("notifications") else { return Ok(Some(raw.clone())) };
    let filter = Members::parse(filter.get()).map_err(|_| {
        Refusal::new(Reason::InvalidParams, "notifications")
            .hint("The parameter notifications must be an object.")
    })?;
    let Some(list) = filter.get("resourceSubscriptions") else { return Ok(Some(raw.clone())) };
    let uris: Vec<String> = serde_json::from_str(list.get()).map_err(|_| {
        Refusal::new(Reason::InvalidParams, "resourceSubscriptions")
            .hint("The member resourceSubscriptions must be an array of URIs.")
    })?;
    let known = |uri: &str| match catalog {
        Some(catalog) => lists_no_resources(catalog) || has_resource(catalog, uri),
        None => !closed,
    };
    let may = |uri: &str| {
        scene.sight.may(server, Action::ReadResource, uri, Hints::default())
            && template::is_plain(uri)
            && known(uri)
    };
    let asked = uris.len();
    let kept: Vec<String> =
        uris.into_iter().take(bounds::RESOURCE_SUBSCRIPTIONS_MAX).filter(|uri| may(uri)).collect();
    if kept.len() == asked {
        return Ok(Some(raw.clone()));
    }
    let kept = serde_json::Value::from(kept).to_string();
    Ok(Some(replaced(raw, list.get(), &kept)))
}
