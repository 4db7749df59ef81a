//! A shop's order desk: tools with input and output schemas and honest annotations, a resource,
//! a template, a prompt with completion, and one tool that takes its time and reports progress.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    CompleteRequestParams, CompleteResult, CompletionInfo, ErrorData, ListResourceTemplatesResult,
    ListResourcesResult, PaginatedRequestParams, ProgressNotificationParam, PromptMessage,
    ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, RequestMetaObject,
    Resource, ResourceContents, ResourceTemplate, Role, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{
    Json, Peer, RoleServer, ServerHandler, prompt, prompt_handler, prompt_router, tool,
    tool_handler, tool_router,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Paid, not yet sent.
    Open,
    /// On its way or delivered.
    Shipped,
    /// Paid back, in part or whole.
    Refunded,
}

/// One order.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Order {
    /// `A-` and four digits.
    pub id: String,
    /// Who ordered.
    pub customer: String,
    /// Whole euros.
    pub total: i64,
    /// Whole euros paid back so far.
    pub refunded: i64,
    /// Where it stands.
    pub status: Status,
}

/// Arguments of `list_orders`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListOrders {
    /// Only orders that stand here.
    pub status: Option<Status>,
}

/// Result of `list_orders`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Orders {
    /// Newest first.
    pub orders: Vec<Order>,
}

/// Arguments of `get_order`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetOrder {
    /// Order number.
    #[schemars(regex(pattern = r"^A-[0-9]{4}$"))]
    pub id: String,
}

/// Why money goes back.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefundReason {
    /// It arrived broken.
    Damaged,
    /// It arrived late or never.
    Late,
    /// Something else arrived.
    WrongItem,
    /// For the sake of peace.
    Goodwill,
}

/// Arguments of `refund_order`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RefundOrder {
    /// Order number.
    #[schemars(regex(pattern = r"^A-[0-9]{4}$"))]
    pub id: String,
    /// Whole euros.
    #[schemars(range(min = 1, max = 100_000))]
    pub amount: i64,
    /// Why.
    pub reason: RefundReason,
}

/// Result of `refund_order`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Refund {
    /// The order afterwards.
    pub order: Order,
    /// What went back now, in whole euros.
    pub paid: i64,
}

/// Result of `export_orders`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Export {
    /// Comma-separated values with a header line.
    pub csv: String,
}

/// Arguments of the prompt `apology`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Apology {
    /// Order number.
    pub id: String,
}

type Book = Arc<Mutex<Vec<Order>>>;

/// The server. Clones share one order book.
#[derive(Debug, Clone)]
pub struct OrderDesk {
    book: Book,
}

impl Default for OrderDesk {
    fn default() -> Self {
        let order = |id: &str, customer: &str, total, status| Order {
            id: id.to_owned(),
            customer: customer.to_owned(),
            total,
            refunded: 0,
            status,
        };
        let book = vec![
            order("A-1003", "Iris Blom", 39, Status::Open),
            order("A-1002", "Jonas Berg", 420, Status::Shipped),
            order("A-1001", "Ada Moreau", 85, Status::Shipped),
        ];
        Self { book: Arc::new(Mutex::new(book)) }
    }
}

#[tool_router]
impl OrderDesk {
    fn find(&self, id: &str) -> Result<Order, String> {
        let book = self.book.lock();
        let found = book.iter().find(|order| order.id == id).cloned();
        found.ok_or_else(|| format!("there is no order {id}"))
    }

    /// Lists orders, newest first.
    #[tool(annotations(title = "List orders", read_only_hint = true, open_world_hint = false))]
    async fn list_orders(&self, Parameters(args): Parameters<ListOrders>) -> Json<Orders> {
        let wanted = |order: &&Order| args.status.is_none_or(|status| order.status == status);
        Json(Orders { orders: self.book.lock().iter().filter(wanted).cloned().collect() })
    }

    /// Shows one order.
    #[tool(annotations(title = "Show an order", read_only_hint = true, open_world_hint = false))]
    async fn get_order(
        &self,
        Parameters(args): Parameters<GetOrder>,
    ) -> Result<Json<Order>, String> {
        self.find(&args.id).map(Json)
    }

    /// Pays money back to the customer.
    #[tool(annotations(
        title = "Refund an order",
        read_only_hint = false,
        destructive_hint = true,
        idempotent_hint = false,
        open_world_hint = true
    ))]
    async fn refund_order(
        &self,
        Parameters(args): Parameters<RefundOrder>,
    ) -> Result<Json<Refund>, String> {
        let mut book = self.book.lock();
        let Some(order) = book.iter_mut().find(|order| order.id == args.id) else {
            return Err(format!("there is no order {}", args.id));
        };
        let left = order.total - order.refunded;
        if args.amount > left {
            return Err(format!("only {left} of order {} can still be paid back", order.id));
        }
        order.refunded += args.amount;
        order.status = Status::Refunded;
        tracing::info!(order = order.id, amount = args.amount, reason = ?args.reason, "refunded");
        Ok(Json(Refund { order: order.clone(), paid: args.amount }))
    }

    /// Exports all orders, one step per order, and reports progress on the way.
    #[tool(annotations(title = "Export orders", read_only_hint = true, open_world_hint = false))]
    async fn export_orders(
        &self,
        meta: RequestMetaObject,
        client: Peer<RoleServer>,
    ) -> Result<Json<Export>, ErrorData> {
        let orders = self.book.lock().clone();
        let total = orders.len() as f64;
        let mut csv = String::from("id,customer,total,refunded\n");
        for (done, order) in orders.iter().enumerate() {
            csv += &format!("{},{},{},{}\n", order.id, order.customer, order.total, order.refunded);
            let Some(token) = meta.get_progress_token() else { continue };
            let progress = ProgressNotificationParam::new(token, (done + 1) as f64)
                .with_total(total)
                .with_message(format!("exported {}", order.id));
            if client.notify_progress(progress).await.is_err() {
                break; // nobody listens any more
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Json(Export { csv }))
    }
}

#[prompt_router]
impl OrderDesk {
    /// Drafts an apology for an order that went wrong.
    #[prompt(name = "apology")]
    async fn apology(
        &self,
        Parameters(args): Parameters<Apology>,
    ) -> Result<Vec<PromptMessage>, ErrorData> {
        let order = self.find(&args.id).map_err(|e| ErrorData::invalid_params(e, None))?;
        let text = format!(
            "Write two friendly sentences to {} about order {} of {} euros. Promise nothing.",
            order.customer, order.id, order.total
        );
        Ok(vec![PromptMessage::new_text(Role::User, text)])
    }
}

#[tool_handler(router = Self::tool_router())]
#[prompt_handler(router = Self::prompt_router())]
impl ServerHandler for OrderDesk {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_prompts()
            .enable_completions()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(rmcp::model::Implementation::new("orders", "1.0.0"))
            .with_instructions("Look an order up before you refund it.")
    }

    async fn list_resources(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let recent = Resource::new("orders://recent", "recent")
            .with_description("The newest orders as JSON")
            .with_mime_type("application/json");
        Ok(ListResourcesResult::with_all_items(vec![recent]))
    }

    async fn list_resource_templates(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let by_id = ResourceTemplate::new("orders://order/{id}", "order")
            .with_description("One order as JSON")
            .with_mime_type("application/json");
        Ok(ListResourceTemplatesResult::with_all_items(vec![by_id]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let uri = request.uri;
        let unknown = |what: String| ErrorData::resource_not_found(what, None);
        let text = match uri.strip_prefix("orders://order/") {
            Some(id) => serde_json::to_string(&self.find(id).map_err(unknown)?),
            None if uri == "orders://recent" => serde_json::to_string(&*self.book.lock()),
            None => return Err(unknown(format!("there is no resource {uri}"))),
        };
        let text = text.map_err(|e| ErrorData::internal_error(e.to_string(), None))?;
        let content = ResourceContents::text(text, uri).with_mime_type("application/json");
        Ok(ReadResourceResult::new(vec![content]).into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let begun = &request.argument.value;
        let ids = self.book.lock().iter().map(|order| order.id.clone()).collect::<Vec<_>>();
        let fitting = ids.into_iter().filter(|id| id.starts_with(begun.as_str())).collect();
        let info = CompletionInfo::with_all_values(fitting)
            .map_err(|e| ErrorData::internal_error(e, None))?;
        Ok(CompleteResult::new(info))
    }
}
