//! The demo: one agent per caller goes through calls whose outcome is known beforehand.
//!
//! Every step says what it does, what came back, and whether that is what the configuration in
//! `deploy/examples/demo` promises. One deviation fails the whole story, so it is a test as well.

use std::fmt::Write as _;

use rmcp::model::{
    CallToolResult, GetPromptRequestParams, ReadResourceRequestParams, ResourceContents,
};
use serde_json::{Value, json};

use crate::agent::{Agent, Era, Refused};

/// What the tale is told about.
#[derive(Debug, Clone)]
pub struct Cast {
    /// The gateway's aggregated endpoint: `http://.../demo/mcp`.
    pub url: String,
    /// Token of the service account `support`.
    pub support: String,
    /// Token of the service account `auditor`.
    pub auditor: String,
}

/// What happened, line by line.
#[derive(Debug, Default)]
pub struct Tale {
    /// For people.
    pub text: String,
    /// Steps that ended otherwise than promised.
    pub deviations: usize,
    /// Steps taken.
    pub steps: usize,
}

/// How a step has to end.
enum Ending<'a> {
    /// With a result of which this member must have this value.
    Result(&'a str, Value),
    /// With a result of which this member is a text with this in it.
    Text(&'a str, &'a str),
    /// With `isError`, and a text with this in it: the tool said no, or the gateway did in its
    /// place so that a model can mend its arguments.
    ToolError(&'a str),
    /// With a JSON-RPC error of this code.
    Refused(i64),
}

/// A policy said no: code of the reason `denied`.
const DENIED: i64 = 40300;
/// Unknown to this caller.
const INVALID_PARAMS: i64 = -32602;

impl Tale {
    fn say(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn step(&mut self, what: &str, came: &str, promised: bool) {
        self.steps += 1;
        let mark = if promised { "ok  " } else { "BAD " };
        let _ = writeln!(self.text, "  {mark} {what}\n         {came}");
        if !promised {
            self.deviations += 1;
        }
    }

    async fn call(&mut self, agent: &Agent, tool: &str, arguments: Value, ending: Ending<'_>) {
        let what = format!("{tool} {arguments}");
        let answer = agent.call(tool, arguments).await;
        let (came, promised) = judge(&answer, &ending);
        self.step(&what, &came, promised);
    }

    async fn list(&mut self, agent: &Agent, promised: &[&str]) {
        match agent.tools().await {
            Ok(tools) => {
                let fits = tools == promised;
                self.step("tools/list", &tools.join(", "), fits);
            }
            Err(error) => self.step("tools/list", &format!("{error:#}"), false),
        }
    }
}

/// What came, for people, and whether it is the promised ending.
fn judge(answer: &Result<CallToolResult, Refused>, ending: &Ending<'_>) -> (String, bool) {
    let result = match answer {
        Ok(result) => result,
        Err(refused) => {
            let fits = matches!(ending, Ending::Refused(code) if refused.code == Some(*code));
            return (told(refused), fits);
        }
    };
    if result.is_error == Some(true) {
        let text = result.content.iter().find_map(|block| block.as_text());
        let text = text.map(|text| text.text.clone()).unwrap_or_default();
        let fits = matches!(ending, Ending::ToolError(part) if text.contains(part));
        return (format!("tool error: {}", shorten(&text)), fits);
    }
    let structured = result.structured_content.clone().unwrap_or_default();
    let fits = match ending {
        Ending::Result(member, value) => structured.pointer(member) == Some(value),
        Ending::Text(member, part) => structured
            .pointer(member)
            .and_then(Value::as_str)
            .is_some_and(|text| text.contains(part)),
        Ending::ToolError(_) | Ending::Refused(_) => false,
    };
    (format!("result: {}", shorten(&structured.to_string())), fits)
}

fn told(refused: &Refused) -> String {
    format!("refused: {refused}")
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(150) {
        Some((end, _)) => format!("{}…", text[..end].replace('\n', " ")),
        None => text.replace('\n', " "),
    }
}

/// Tells the whole story with agents of one era.
///
/// # Errors
/// When an agent cannot even connect.
pub async fn tell(cast: &Cast, era: Era) -> anyhow::Result<Tale> {
    let mut tale = Tale::default();
    tale.say(match era {
        Era::Modern => "Agents that speak MCP 2026-07-28 (no sessions):",
        Era::Legacy => "Agents that speak MCP 2025-11-25 (initialize, then a session):",
    });
    let support = Agent::connect(&cast.url, Some(&cast.support), era).await?;
    support_works(&mut tale, &support).await;
    support.close().await?;
    let auditor = Agent::connect(&cast.url, Some(&cast.auditor), era).await?;
    auditor_looks(&mut tale, &auditor).await;
    auditor.close().await?;
    stranger_knocks(&mut tale, cast, era).await;
    Ok(tale)
}

async fn support_works(tale: &mut Tale, agent: &Agent) {
    tale.say("  support, with the role support-agent:");
    let tools = [
        "orders__export_orders",
        "orders__get_order",
        "orders__list_orders",
        "orders__refund_order",
        "tickets__close_ticket",
        "tickets__search_tickets",
    ];
    tale.list(agent, &tools).await;
    let found = Ending::Result("/customer", json!("Ada Moreau"));
    tale.call(agent, "orders__get_order", json!({ "id": "A-1001" }), found).await;
    let tickets = Ending::Result("/tickets/0/order", json!("A-1001"));
    tale.call(agent, "tickets__search_tickets", json!({ "text": "lamp" }), tickets).await;
    let small = json!({ "id": "A-1001", "amount": 5, "reason": "damaged" });
    tale.call(agent, "orders__refund_order", small, Ending::Result("/paid", json!(5))).await;
    let large = json!({ "id": "A-1002", "amount": 250, "reason": "late" });
    tale.call(agent, "orders__refund_order", large, Ending::Refused(DENIED)).await;
    let broken = json!({ "id": "A-1001", "amount": -5, "reason": "because" });
    tale.call(agent, "orders__refund_order", broken, Ending::ToolError("/amount")).await;
    let nobody = json!({ "id": "A-9999" });
    tale.call(agent, "orders__get_order", nobody, Ending::ToolError("there is no order")).await;
    let export = Ending::Text("/csv", "A-1002,Jonas Berg,420,0\n");
    tale.call(agent, "orders__export_orders", json!({}), export).await;
    let heard = agent.progress();
    tale.step("progress of the export", &format!("{heard:?}"), heard == [1.0, 2.0, 3.0]);
    read_and_prompt(tale, agent).await;
}

async fn read_and_prompt(tale: &mut Tale, agent: &Agent) {
    let uri = "orders://order/A-1003";
    let read = agent.peer().read_resource(ReadResourceRequestParams::new(uri)).await;
    let (came, fits) = match read.map_err(Refused::from) {
        Ok(result) => match result.contents.first() {
            Some(ResourceContents::TextResourceContents { text, .. }) => {
                (shorten(text), text.contains("Iris Blom"))
            }
            _ => ("nothing to read".to_owned(), false),
        },
        Err(refused) => (told(&refused), false),
    };
    tale.step(&format!("resources/read {uri}"), &came, fits);
    let mut request = GetPromptRequestParams::new("orders__apology");
    request.arguments = json!({ "id": "A-1002" }).as_object().cloned();
    let (came, fits) = match agent.peer().get_prompt(request).await.map_err(Refused::from) {
        Ok(prompt) => {
            let text = serde_json::to_string(&prompt.messages).unwrap_or_default();
            (shorten(&text), text.contains("Jonas Berg"))
        }
        Err(refused) => (told(&refused), false),
    };
    tale.step("prompts/get orders__apology", &came, fits);
}

async fn auditor_looks(tale: &mut Tale, agent: &Agent) {
    tale.say("  auditor, with the role reader:");
    let tools = ["orders__get_order", "orders__list_orders", "tickets__search_tickets"];
    tale.list(agent, &tools).await;
    let open = Ending::Result("/orders/0/id", json!("A-1003"));
    tale.call(agent, "orders__list_orders", json!({ "status": "open" }), open).await;
    let refund = json!({ "id": "A-1001", "amount": 1, "reason": "goodwill" });
    tale.call(agent, "orders__refund_order", refund, Ending::Refused(INVALID_PARAMS)).await;
}

async fn stranger_knocks(tale: &mut Tale, cast: &Cast, era: Era) {
    tale.say("  somebody with a token that nobody issued:");
    let forged = Agent::connect(&cast.url, Some("weir_at_nobody_issued_this"), era).await;
    let (came, fits) = match forged {
        Ok(_) => ("was let in".to_owned(), false),
        Err(error) => {
            let text = format!("{error:#}");
            let fits = text.contains("401") || text.to_lowercase().contains("auth");
            // The library puts its own types in front.
            let said = text.rsplit("error: ").next().unwrap_or_default();
            (shorten(&format!("refused: {said}")), fits)
        }
    };
    tale.step("connect", &came, fits);
}
