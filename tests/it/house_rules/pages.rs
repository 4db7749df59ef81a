//! Pages that are made from the code, and links that lead somewhere.

use std::fmt::Write as _;

use weir_model::reason::{Blame, Reason};

use super::{hold, root, sources};

/// Compares a page with what the code says; `WEIR_BLESS=1 cargo test` writes it anew.
pub(super) fn check_page(path: &str, made: &str) {
    let file = root().join(path);
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&file, made).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        kept == made,
        "{path} does not say what the code says; run `WEIR_BLESS=1 cargo test -p weir` and commit it"
    );
}

#[test]
fn the_page_of_reasons_is_the_table_of_reasons() {
    let mut page = String::from(
        "# Reasons\n\n\
         Why a call was not served. One closed list, made from `shared/model/src/reason.rs`; the label \
         is the same in\nerrors, metrics, logs and audit records.\n\n\
         *Status* is the HTTP status, *code* the JSON-RPC error code. *Retry*: the same call may \
         succeed later without\nanybody changing anything. *Who acts* says whose turn it is.\n\n\
         | reason | status | code | retry | who acts | what to do |\n|---|---|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let who = match reason.blame() {
            Blame::Client => "the caller",
            Blame::Policy => "nobody: a rule did what it is for",
            Blame::Config => "an operator",
            Blame::Upstream => "the server's owner",
            Blame::Weir => "whoever runs Weir",
        };
        let (status, code) = (reason.status(), reason.code());
        let retry = if reason.retryable() { "yes" } else { "no" };
        let remedy = reason.remedy();
        writeln!(page, "| `{reason}` | {status} | {code} | {retry} | {who} | {remedy} |").unwrap();
    }
    check_page("docs/reference/reasons.md", &page);
}

#[test]
fn the_page_of_the_command_line_is_its_help() {
    use clap::CommandFactory as _;
    let mut page = String::from(
        "# Command line\n\n\
         What `weir --help` says, made from `src/cli.rs`.\n\n\
         Address and token of the control plane come from flags, else from `WEIR_URL` and \
         `WEIR_TOKEN`, else from\n`~/.config/weir/config.yaml` (`server:`, `token:`, `ca:`).\n",
    );
    let mut all = weir::cli::Cli::command();
    all.build();
    write_help(&mut page, &mut all, "weir");
    check_page("docs/reference/cli.md", &page);
}

fn write_help(page: &mut String, command: &mut clap::Command, name: &str) {
    let help = command.render_long_help().to_string();
    let lines = help.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>();
    write!(page, "\n## {name}\n\n```\n{}```\n", lines).unwrap();
    let names = command.get_subcommands().map(|c| c.get_name().to_owned()).collect::<Vec<_>>();
    for sub in names.iter().filter(|sub| *sub != "help") {
        let command = command.find_subcommand_mut(sub).unwrap();
        write_help(page, command, &format!("{name} {sub}"));
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut broken = Vec::new();
    for page in sources(&[".md"]) {
        let folder = root().join(&page.path);
        let folder = folder.parent().unwrap();
        for (at, _) in page.text.match_indices("](") {
            let Some(target) = page.text[at + 2..].split(')').next() else { continue };
            let file = target.split('#').next().unwrap_or_default();
            let outside = target.contains("://") || target.starts_with("mailto:");
            if !outside && !file.is_empty() && !folder.join(file).exists() {
                broken.push(format!("{}: {target}", page.path));
            }
        }
    }
    hold("a link leads to a file that is there", &broken);
}
