//! Requests that name tasks: of whom they are asked, by which id, and by what right.

use std::sync::Arc;

use bytes::Bytes;
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::{ServerView, VersionView};

use super::Scene;
use crate::call::Stop;
use crate::call::client::bond;
use crate::call::tasks::{self, Given, Task, right};
use crate::mcp::envelope::Params;
use crate::mcp::methods::Method;

/// What goes to the server.
pub(super) struct Own {
    /// `params` with the server's own ids of tasks.
    pub(super) params: Option<Bytes>,
    /// The task that the request is about.
    pub(super) task: Option<Task>,
}

impl Scene<'_> {
    /// The version that a request goes to, which for one about a task is where it was made.
    pub(super) fn placed(
        &self,
        server: &ServerView,
        method: &Method,
        params: &Params,
    ) -> Result<(Arc<VersionView>, Own), Stop> {
        let Some(given) = self.given(server, method, params)? else {
            let params = params.raw.clone();
            return Ok((self.version(server), Own { params, task: None }));
        };
        let version = server.versions.iter().find(|version| version.name == given.version);
        let version = version.ok_or_else(tasks::unknown)?;
        let catalog = version.catalog.as_deref();
        // Whoever may not call the tool (any more) has no task of it either.
        right::check(self.sight, (&server.name, catalog), given.tool.as_deref()).map_err(
            |denial| match denial {
                Some(denial) => Stop::denied(denial, tasks::unknown()),
                None => tasks::unknown().into(),
            },
        )?;
        let Given { id, tool, params, .. } = given;
        let view = catalog.zip(tool.as_deref()).and_then(|(catalog, name)| catalog.tool(name));
        let task = Task { id, view: view.cloned(), tool };
        Ok((Arc::clone(version), Own { params, task: Some(task) }))
    }

    fn given(
        &self,
        server: &ServerView,
        method: &Method,
        params: &Params,
    ) -> Result<Option<Given>, Refusal> {
        if params.task.is_none() {
            return Ok(None);
        }
        let principal = self.who.id();
        let aad = bond(self.endpoint, &principal).bytes();
        tasks::given((self.sealing.sealer()?, &aad), method, params).map_err(|unknown| {
            let version = self.version(server);
            match version.catalog.as_deref().is_none_or(tasks::has) {
                true => unknown,
                // A server that has no tasks has no methods for them.
                false => Refusal::new(Reason::MethodUnknown, "tasks").hint("Method not found."),
            }
        })
    }

    /// `params`, with the server's own ids of tasks that the client wants to hear of.
    pub(super) fn listened(&self, server: &ServerView, params: Option<Bytes>) -> Option<Bytes> {
        let raw = params?;
        let Some(sealer) = self.sealing.sealer else { return Some(raw) };
        let principal = self.who.id();
        let aad = bond(self.endpoint, &principal).bytes();
        Some(tasks::listened((sealer, &aad), &raw, |version, tool| {
            tasks::may_have(self.sight, server, (version, tool))
        }))
    }
}
