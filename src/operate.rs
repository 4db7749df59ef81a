//! The operator's commands. Each asks the control plane over REST and gives back the text to
//! print; nothing here decides anything that the control plane could decide.

mod apply;
mod documents;
mod get;
mod lines;
mod nodes;
mod operators;
mod tokens;

use crate::cli::{Command, Operator, Pin, Token};
use crate::client::Client;

pub use documents::Documents;

/// Runs a command against a control plane; gives what to print.
///
/// # Errors
/// With an [`crate::exit::Ended`] inside where the code of the process says why.
pub async fn run(client: &Client, command: Command) -> anyhow::Result<String> {
    match command {
        Command::Apply(args) => apply::apply(client, args).await,
        Command::Diff(args) => apply::diff(client, args).await,
        Command::Get(args) => get::get(client, args).await,
        Command::Delete(args) => get::delete(client, args).await,
        Command::Nodes(output) => nodes::show(client, output.output).await,
        Command::Token(Token::Create(args)) => tokens::create(client, args).await,
        Command::Token(Token::Revoke(args)) => tokens::revoke(client, args).await,
        Command::Operator(Operator::Create(args)) => operators::create(client, args).await,
        Command::Operator(Operator::List(output)) => operators::list(client, output.output).await,
        Command::Operator(Operator::Revoke { id }) => operators::revoke(client, &id).await,
        Command::EnrolToken(args) => tokens::enrol(client, args).await,
        Command::Pin(args) => pin(client, args).await,
        Command::Audit(_) | Command::Dev(_) => anyhow::bail!("this needs no control plane"),
    }
}

async fn pin(client: &Client, args: Pin) -> anyhow::Result<String> {
    let path =
        format!("/v1/groups/{}/servers/{}/pin", get::part(&args.group), get::part(&args.server));
    let answer = client.post(&path, &serde_json::json!({ "version": args.version })).await?;
    let pinned = answer["pinned"].as_u64().unwrap_or_default();
    Ok(format!("{pinned} definitions of {} pinned\n", args.server))
}
