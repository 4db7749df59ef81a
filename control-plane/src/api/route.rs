//! Every route, once: the router is built from this table, and the API's description is tested
//! against it.

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, post};

use super::guard::{Guarded, guard};
use super::{
    Api, apply, audit, fleet, keyring, limits, openapi, operators, policy, read, revocations,
    tokens,
};
use crate::operator::Role;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// Operators of at least this role.
    Role(Role),
}

/// One route.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// `GET`, `POST`, `DELETE`.
    pub method: &'static str,
    /// With `{parameters}`.
    pub path: &'static str,
    /// In the audit record and in the log.
    pub action: &'static str,
    /// Who may.
    pub access: Access,
    /// Whether a use leaves an audit record even when it was let in.
    pub recorded: bool,
}

const fn route(
    method: &'static str,
    path: &'static str,
    action: &'static str,
    access: Access,
) -> Route {
    Route { method, path, action, access, recorded: false }
}

impl Route {
    const fn recorded(self) -> Self {
        Self { recorded: true, ..self }
    }
}

const VIEWER: Access = Access::Role(Role::Viewer);
const EDITOR: Access = Access::Role(Role::Editor);
const ADMIN: Access = Access::Role(Role::Admin);

/// Every route, in the order of [`handlers`].
pub const ROUTES: &[Route] = &[
    route("GET", "/livez", "livez", Access::Open),
    route("GET", "/readyz", "readyz", Access::Open),
    route("GET", "/v1/openapi.json", "openapi", Access::Open),
    // Whether a viewer may: a dry run, yes; see the handler.
    route("POST", "/v1/apply", "admin.apply", VIEWER).recorded(),
    route("POST", "/v1/diff", "admin.diff", VIEWER),
    route("GET", "/v1/resources", "admin.list", VIEWER),
    route("GET", "/v1/resources/{kind}", "admin.list", VIEWER),
    route("GET", "/v1/resources/{kind}/{name}", "admin.get", VIEWER),
    route("GET", "/v1/resources/{kind}/{group}/{name}", "admin.get", VIEWER),
    route("DELETE", "/v1/resources/{kind}/{name}", "admin.delete", VIEWER).recorded(),
    route("DELETE", "/v1/resources/{kind}/{group}/{name}", "admin.delete", VIEWER).recorded(),
    route("POST", ACCOUNT_TOKENS, "admin.token.mint", EDITOR).recorded(),
    route("GET", ACCOUNT_TOKENS, "admin.token.list", VIEWER),
    route("DELETE", ACCOUNT_TOKEN, "admin.token.revoke", EDITOR).recorded(),
    route("POST", "/v1/groups/{group}/revocations", "admin.revoke", EDITOR).recorded(),
    route("GET", "/v1/groups/{group}/limits", "admin.limits", VIEWER),
    route("GET", "/v1/nodes", "admin.nodes", VIEWER),
    route("POST", "/v1/nodes/{node}/revocation", "admin.node.revoke", ADMIN).recorded(),
    route("GET", "/v1/keyring", "admin.keyring.list", VIEWER),
    route("POST", "/v1/keyring/rotation", "admin.keyring.rotate", ADMIN).recorded(),
    route("GET", "/v1/audit/witness", "admin.audit.witness", VIEWER),
    route("POST", "/v1/enrolment-tokens", "admin.enrolment.mint", ADMIN).recorded(),
    route("GET", "/v1/enrolment-tokens", "admin.enrolment.list", ADMIN),
    route("DELETE", "/v1/enrolment-tokens/{id}", "admin.enrolment.revoke", ADMIN).recorded(),
    route("POST", PIN, "admin.pin", EDITOR).recorded(),
    route("POST", "/v1/operators", "admin.operator.mint", ADMIN).recorded(),
    route("GET", "/v1/operators", "admin.operator.list", ADMIN),
    route("DELETE", "/v1/operators/{id}", "admin.operator.revoke", ADMIN).recorded(),
    route("POST", "/v1/groups/{group}/policy/explain", "admin.policy.explain", VIEWER),
    route("POST", "/v1/groups/{group}/policy/test", "admin.policy.test", VIEWER),
    route("POST", "/v1/groups/{group}/policy/replay", "admin.policy.replay", VIEWER),
    route("POST", "/v1/groups/{group}/policy/recompute", "admin.policy.recompute", VIEWER),
];

const ACCOUNT_TOKENS: &str = "/v1/groups/{group}/service-accounts/{account}/tokens";
const ACCOUNT_TOKEN: &str = "/v1/groups/{group}/service-accounts/{account}/tokens/{id}";
const PIN: &str = "/v1/groups/{group}/servers/{server}/versions/{version}/pin";

/// What answers each of [`ROUTES`].
fn handlers() -> Vec<MethodRouter<Api>> {
    vec![
        get(read::livez),
        get(read::readyz),
        get(openapi::show),
        post(apply::apply),
        post(apply::diff),
        get(read::list_all),
        get(read::list_kind),
        get(read::get_global),
        get(read::get_grouped),
        delete(apply::delete_global),
        delete(apply::delete_grouped),
        post(tokens::mint),
        get(tokens::list),
        delete(tokens::revoke),
        post(revocations::revoke),
        get(limits::uses),
        get(fleet::nodes),
        post(revocations::revoke_node),
        get(keyring::list),
        post(keyring::rotate),
        get(audit::witness),
        post(fleet::mint_enrolment),
        get(fleet::list_enrolments),
        delete(fleet::revoke_enrolment),
        post(fleet::pin),
        post(operators::mint),
        get(operators::list),
        delete(operators::revoke),
        post(policy::explain),
        post(policy::test),
        post(policy::replay),
        post(policy::recompute),
    ]
}

pub(super) fn router(api: &Api) -> Router {
    let handlers = handlers();
    debug_assert_eq!(handlers.len(), ROUTES.len());
    let mut router = Router::new();
    for (route, handler) in ROUTES.iter().zip(handlers) {
        let guarded = Guarded { api: api.clone(), route };
        router = router.route(path_of(route), handler.layer(from_fn_with_state(guarded, guard)));
    }
    router
        .fallback(super::unknown_path)
        .method_not_allowed_fallback(super::unknown_method)
        .with_state(api.clone())
}

/// The router needs one name for the second part of both shapes.
fn path_of(route: &Route) -> &'static str {
    match route.path {
        "/v1/resources/{kind}/{name}" => "/v1/resources/{kind}/{group}",
        path => path,
    }
}
