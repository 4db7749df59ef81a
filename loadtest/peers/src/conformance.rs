//! The upstream of the conformance runs: an MCP server to the contract of the public suite
//! (`@modelcontextprotocol/conformance`), whose names and texts the suite fixes.
//!
//! It serves both eras, or only one of them. An older client gets the questions of newer tools as
//! real requests, and a newer one those of older tools as `input_required`, which shows what a
//! gateway has to do between the eras. What it does not have is an SSE stream that the server cuts
//! mid-call; a comparison of direct and proxied runs sees that equal.

#![allow(deprecated, reason = "the suite also checks what 2026-07-28 deprecates")]

pub mod compare;
mod inputs;
mod offer;
mod tasks;
mod tools;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use rmcp::model::ProtocolVersion;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams,
    CompleteResult, CompletionInfo, ErrorData, GetPromptRequestParams, GetPromptResponse,
    GetTaskParams, GetTaskResult, Implementation, ListPromptsResult, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, LoggingLevel, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig,
    SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter, Tool,
    UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::task_manager::TaskManager;
use rmcp::{RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::serve::Eras;

/// What changed.
#[derive(Debug, Clone, Copy)]
enum Changed {
    Tools,
    Prompts,
}

/// State that all sessions share.
#[derive(Debug)]
struct Shared {
    /// How often the lists have changed.
    tools: u32,
    prompts: u32,
    level: Option<LoggingLevel>,
    subscribed: HashSet<String>,
}

/// The server. Clones share everything.
#[derive(Clone)]
pub struct Fixture {
    shared: Arc<Mutex<Shared>>,
    changes: broadcast::Sender<Changed>,
    /// Signs request state, so that a changed one is noticed.
    key: u64,
    tasks: TaskManager,
    eras: Eras,
}

impl std::fmt::Debug for Fixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fixture").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Default for Fixture {
    fn default() -> Self {
        let shared = Shared { tools: 0, prompts: 0, level: None, subscribed: HashSet::new() };
        let key = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "fixture");
        Self {
            shared: Arc::new(Mutex::new(shared)),
            changes: broadcast::channel(16).0,
            key,
            tasks: TaskManager::new(),
            eras: Eras::Both,
        }
    }
}

/// Wire JSON as the library's type; the texts stand in this crate, so they fit.
fn wire<T: DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value).map_err(|e| ErrorData::internal_error(e.to_string(), None))
}

impl Fixture {
    /// One that says it knows these generations only.
    pub fn of(eras: Eras) -> Self {
        Self { eras, ..Self::default() }
    }

    /// Each change is another one, so that two never come to none, and names stay: a gateway follows
    /// a list with a delay, and the suite compares the names of two lists that it asks for in a row.
    fn change(&self, what: Changed) {
        {
            let mut shared = self.shared.lock();
            match what {
                Changed::Tools => shared.tools += 1,
                Changed::Prompts => shared.prompts += 1,
            }
        }
        // Without anybody listening there is nobody to tell.
        drop(self.changes.send(what));
    }
}

impl ServerHandler for Fixture {
    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        let all = ProtocolVersion::KNOWN_VERSIONS.iter().cloned();
        let stateless = |version: &ProtocolVersion| *version >= ProtocolVersion::V_2026_07_28;
        let spoken = all.filter(|version| match self.eras {
            Eras::Both => true,
            Eras::Legacy => !stateless(version),
            Eras::Modern => stateless(version),
        });
        Cow::Owned(spoken.collect())
    }

    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_completions()
            .enable_logging()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("conformance-fixture", "1.0.0"))
    }

    /// A session is told of changes as long as it is there.
    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        let mut changes = self.changes.subscribe();
        tokio::spawn(async move {
            while let Ok(change) = changes.recv().await {
                let told = match change {
                    Changed::Tools => context.peer.notify_tool_list_changed().await,
                    Changed::Prompts => context.peer.notify_prompt_list_changed().await,
                };
                if told.is_err() && context.peer.is_transport_closed() {
                    return;
                }
            }
        });
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut tools = offer::tools();
        let about = format!("Has changed {} times", self.shared.lock().tools);
        tools.push(offer::tool("test_changing", &about, &json!({})));
        Ok(ListToolsResult::with_all_items(wire(Value::Array(tools))?))
    }

    /// The library compares a call's mirrored headers with this schema.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        let tool = offer::tools().into_iter().find(|tool| tool["name"] == name)?;
        serde_json::from_value(tool).ok()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let asks = request.name.starts_with("test_input_required_result_");
        if asks || request.name == "test_streaming_elicitation" {
            return inputs::rounds(self, request, &context).await;
        }
        if let Some(answer) = tasks::call(self, &request, &context).await {
            return answer;
        }
        tools::call(self, request, context).await
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        Ok(GetTaskResult::new(self.tasks.get_task(&request.task_id)?))
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.tasks.update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.tasks.cancel_task(&request.task_id)
    }

    async fn list_resources(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(wire(offer::resources())?))
    }

    async fn list_resource_templates(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(wire(offer::templates())?))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let uri = request.uri.as_str();
        let Some(content) = offer::content(uri) else {
            let data = Some(json!({ "uri": uri }));
            return Err(ErrorData::resource_not_found("Resource not found", data));
        };
        let contents = wire(json!([content]))?;
        Ok(rmcp::model::ReadResourceResult::new(contents).into())
    }

    async fn list_prompts(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let mut prompts = offer::prompts();
        let about = format!("Has changed {} times", self.shared.lock().prompts);
        prompts.push(json!({ "name": "test_changing", "description": about }));
        Ok(ListPromptsResult::with_all_items(wire(Value::Array(prompts))?))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        if request.name == "test_input_required_result_prompt" {
            return inputs::prompt_rounds(request, &context).await;
        }
        let arguments = request.arguments.map(Value::Object).unwrap_or_default();
        let Some(messages) = offer::prompt(&request.name, &arguments) else {
            let message = format!("there is no prompt {}", request.name);
            return Err(ErrorData::invalid_params(message, None));
        };
        Ok(rmcp::model::GetPromptResult::new(wire(messages)?).into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let words = ["paris", "park", "party"].iter().map(|word| (*word).to_owned());
        let fitting = words.filter(|word| word.starts_with(&request.argument.value)).collect();
        let info = CompletionInfo::with_all_values(fitting)
            .map_err(|e| ErrorData::internal_error(e, None))?;
        Ok(CompleteResult::new(info))
    }

    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.shared.lock().level = Some(request.level);
        Ok(())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.shared.lock().subscribed.insert(request.uri);
        Ok(())
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.shared.lock().subscribed.remove(&request.uri);
        Ok(())
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let mut changes = self.changes.subscribe();
        loop {
            let change = tokio::select! {
                () = context.cancelled() => return Ok(()),
                change = changes.recv() => change,
            };
            let told = match change {
                Ok(Changed::Tools) => context.sink().notify_tool_list_changed().await,
                Ok(Changed::Prompts) => context.sink().notify_prompt_list_changed().await,
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            };
            // What this stream did not ask for is refused by its sink; that is its filter.
            drop(told);
        }
    }
}
