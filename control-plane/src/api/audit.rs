//! What was witnessed of audit logs, for whoever verifies them.

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::apply::NoQuery;
use super::input::Query;
use super::problem::Problem;

pub(super) async fn witness(
    State(api): State<Api>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Response, Problem> {
    let witness = &api.shared.witness;
    let authority = witness.authority().map(|key| key.to_string());
    let checkpoints = witness.list().await?;
    let answer = serde_json::json!({ "authority": authority, "checkpoints": checkpoints });
    Ok(axum::Json(answer).into_response())
}
