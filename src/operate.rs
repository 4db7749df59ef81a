//! The operator's commands. Each asks the control plane over REST and gives back the text to
//! print; nothing here decides anything that the control plane could decide.

mod apply;
mod documents;
mod get;
mod keyring;
mod limits;
mod lines;
mod nodes;
mod operators;
mod parts;
mod policy;
mod revoke;
mod tokens;

use std::fmt::Write as _;

use crate::cli::{Command, Keyring, Operator, Pin, Token};
use crate::client::Client;

pub use documents::Documents;
pub use policy::test_files;

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
        Command::Limits(args) => limits::show(client, args).await,
        Command::Token(Token::Create(args)) => tokens::create(client, args).await,
        Command::Token(Token::List(args)) => tokens::list(client, args).await,
        Command::Token(Token::Revoke(args)) => tokens::revoke(client, args).await,
        Command::Operator(Operator::Create(args)) => operators::create(client, args).await,
        Command::Operator(Operator::List(output)) => operators::list(client, output.output).await,
        Command::Operator(Operator::Revoke { id }) => operators::revoke(client, &id).await,
        Command::Revoke(what) => revoke::revoke(client, what).await,
        Command::Keyring(Keyring::List(output)) => keyring::list(client, output.output).await,
        Command::Keyring(Keyring::Rotate { at_once }) => keyring::rotate(client, at_once).await,
        Command::EnrolToken(args) => tokens::enrol(client, args).await,
        Command::Pin(args) => pin(client, args).await,
        Command::Policy(command) => policy::run(client, command).await,
        Command::Audit(_) | Command::Connect(_) | Command::Dev(_) => {
            anyhow::bail!("this needs no control plane")
        }
    }
}

/// Pins one version of a server, or all of them.
async fn pin(client: &Client, args: Pin) -> anyhow::Result<String> {
    let (group, server) = (get::part(&args.group), get::part(&args.server));
    let versions = match args.version {
        Some(version) => vec![version],
        None => {
            let document = client.get(&format!("/v1/resources/Server/{group}/{server}")).await?;
            let versions = document["spec"]["versions"].as_array().into_iter().flatten();
            versions.filter_map(|version| Some(version["name"].as_str()?.to_owned())).collect()
        }
    };
    let mut text = String::new();
    for version in versions {
        let part = get::part(&version);
        let path = format!("/v1/groups/{group}/servers/{server}/versions/{part}/pin");
        let answer = client.post(&path, &serde_json::json!({})).await?;
        let pinned = answer["pinned"].as_u64().unwrap_or_default();
        let _ = writeln!(text, "{pinned} definitions of {} {version} pinned", args.server);
    }
    Ok(text)
}
