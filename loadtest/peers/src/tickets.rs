//! A help desk: the second server of the demo, with tools of other shapes.

use std::sync::Arc;

use parking_lot::Mutex;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    ErrorData, Implementation, ListResourcesResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Resource,
    ResourceContents, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{Json, RoleServer, ServerHandler, tool, tool_handler, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One ticket.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Ticket {
    /// Counted from 1.
    pub number: u32,
    /// One line.
    pub subject: String,
    /// The order that it is about.
    pub order: String,
    /// How it was solved; open while absent.
    pub resolution: Option<String>,
}

/// Arguments of `search_tickets`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Words that the subject holds.
    #[serde(default)]
    #[schemars(length(max = 80))]
    pub text: String,
    /// Leave out what is solved.
    #[serde(default)]
    pub open_only: bool,
}

/// Result of `search_tickets`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Tickets {
    /// In order of their numbers.
    pub tickets: Vec<Ticket>,
}

/// Arguments of `close_ticket`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Close {
    /// Which one.
    #[schemars(range(min = 1))]
    pub number: u32,
    /// How it was solved.
    #[schemars(length(min = 3, max = 400))]
    pub resolution: String,
}

/// The server. Clones share the tickets.
#[derive(Debug, Clone)]
pub struct HelpDesk {
    tickets: Arc<Mutex<Vec<Ticket>>>,
}

impl Default for HelpDesk {
    fn default() -> Self {
        let ticket = |number, subject: &str, order: &str| Ticket {
            number,
            subject: subject.to_owned(),
            order: order.to_owned(),
            resolution: None,
        };
        let tickets = vec![
            ticket(1, "Lamp arrived broken", "A-1001"),
            ticket(2, "Where is my parcel?", "A-1002"),
        ];
        Self { tickets: Arc::new(Mutex::new(tickets)) }
    }
}

#[tool_router]
impl HelpDesk {
    /// Finds tickets by words of their subject.
    #[tool(annotations(title = "Search tickets", read_only_hint = true, open_world_hint = false))]
    async fn search_tickets(&self, Parameters(args): Parameters<Search>) -> Json<Tickets> {
        let text = args.text.to_lowercase();
        let wanted = |ticket: &&Ticket| {
            ticket.subject.to_lowercase().contains(&text)
                && !(args.open_only && ticket.resolution.is_some())
        };
        Json(Tickets { tickets: self.tickets.lock().iter().filter(wanted).cloned().collect() })
    }

    /// Closes a ticket. Closing it again overwrites how it was solved.
    #[tool(annotations(
        title = "Close a ticket",
        read_only_hint = false,
        destructive_hint = false,
        idempotent_hint = true,
        open_world_hint = false
    ))]
    async fn close_ticket(
        &self,
        Parameters(args): Parameters<Close>,
    ) -> Result<Json<Ticket>, String> {
        let mut tickets = self.tickets.lock();
        let Some(ticket) = tickets.iter_mut().find(|ticket| ticket.number == args.number) else {
            return Err(format!("there is no ticket {}", args.number));
        };
        ticket.resolution = Some(args.resolution);
        Ok(Json(ticket.clone()))
    }
}

#[tool_handler(router = Self::tool_router())]
impl ServerHandler for HelpDesk {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("tickets", "1.0.0"))
    }

    async fn list_resources(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let open = Resource::new("tickets://open", "open")
            .with_description("Subjects of open tickets, a line each")
            .with_mime_type("text/plain");
        Ok(ListResourcesResult::with_all_items(vec![open]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        if request.uri != "tickets://open" {
            let what = format!("there is no resource {}", request.uri);
            return Err(ErrorData::resource_not_found(what, None));
        }
        let tickets = self.tickets.lock();
        let open = tickets.iter().filter(|ticket| ticket.resolution.is_none());
        let text = open
            .map(|ticket| format!("{} {}\n", ticket.number, ticket.subject))
            .collect::<String>();
        Ok(ReadResourceResult::new(vec![ResourceContents::text(text, request.uri)]).into())
    }
}
