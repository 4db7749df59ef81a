//! The keyring that seals what travels through clients: shown without its keys, and rotated.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::Api;
use super::apply::NoQuery;
use super::guard::{Caller, Noted};
use super::input::{Json, Query};
use super::problem::{Kind, Problem};
use crate::keyring::SESSIONS;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Wanted {
    /// A new key, and no other.
    #[serde(default)]
    at_once: bool,
}

pub(super) async fn list(
    State(api): State<Api>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Response, Problem> {
    let keys = api.shared.keys.list().await?;
    Ok(axum::Json(serde_json::json!({ "keys": keys })).into_response())
}

pub(super) async fn rotate(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Query(NoQuery {}): Query<NoQuery>,
    Json(wanted): Json<Wanted>,
) -> Result<Response, Problem> {
    // It seals for every group.
    operator.demand_everywhere()?;
    let keys = &api.shared.keys;
    let done = match wanted.at_once {
        true => keys.replace().await?,
        false => keys.rotate().await?,
    };
    let Some(done) = done else {
        let text = "a rotation is on its way already, or older keys still have to open";
        return Err(Problem::new(Kind::Conflict, text));
    };
    let body = serde_json::json!({ "revision": done.revision });
    let mut response = axum::Json(body).into_response();
    let target = Some(format!("Keyring/{SESSIONS}: {}", done.step));
    let noted = Noted { target, revision: done.revision, ..Noted::default() };
    response.extensions_mut().insert(noted);
    Ok(response)
}
