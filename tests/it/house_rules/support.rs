//! What each revision and each pairing of eras supports, with the test that proves it.

use std::fmt::Write as _;

use super::pages::check_page;
use super::{hold, sources};

/// What is supported, for which clients, and the test: file and function, or a script's own words.
type Row = (&'static str, &'static str, &'static str, &'static str);

const FRONT: &[Row] = &[
    (
        "handshake, lists and calls",
        "2024-11-05 to 2025-11-25",
        "tests/it/connect.rs",
        "hosts_of_every_revision_get_through",
    ),
    (
        "handshake, lists and calls",
        "2026-07-28",
        "tests/it/connect.rs",
        "hosts_of_every_revision_get_through",
    ),
    (
        "HTTP+SSE, posts at any proxy",
        "2024-11-05",
        "data-plane/tests/it/http_sse.rs",
        "posts_reach_the_stream_from_another_proxy",
    ),
    (
        "batches",
        "2025-03-26",
        "data-plane/tests/it/batch.rs",
        "every_item_is_answered_and_recorded_by_itself",
    ),
    (
        "batches refused",
        "all others",
        "data-plane/tests/it/batch.rs",
        "other_revisions_and_broken_batches_are_refused_whole",
    ),
    (
        "primed streams, `retry`",
        "2025-11-25",
        "data-plane/tests/it/resume.rs",
        "events_have_ids_and_streams_are_primed_where_clients_know_that",
    ),
    (
        "resuming with `Last-Event-ID`, at any proxy",
        "2025-03-26 to 2025-11-25",
        "data-plane/tests/it/resume.rs",
        "a_client_comes_back_at_another_proxy",
    ),
    (
        "sessions bound to their caller",
        "2025-03-26 to 2025-11-25",
        "data-plane/tests/it/legacy.rs",
        "sessions_are_bound_to_their_callers",
    ),
    (
        "DELETE, in force at every proxy",
        "2025-03-26 to 2025-11-25",
        "data-plane/tests/it/apart.rs",
        "a_session_that_was_ended_is_unknown_at_the_other_proxy",
    ),
    (
        "a session with a child process, at any proxy",
        "2024-11-05 to 2025-11-25",
        "data-plane/tests/it/apart.rs",
        "a_child_s_session_goes_on_at_the_other_proxy",
    ),
    (
        "tasks, by sealed ids",
        "2025-11-25",
        "data-plane/tests/it/tasks.rs",
        "a_client_with_a_session_follows_its_task_too",
    ),
    (
        "the tasks extension, by sealed ids",
        "2026-07-28",
        "data-plane/tests/it/tasks.rs",
        "a_stateless_client_follows_its_task_by_the_gateway_s_id",
    ),
    (
        "`notifications/cancelled`",
        "2024-11-05 to 2025-11-25",
        "data-plane/tests/it/legacy.rs",
        "cancelling_by_notification_cancels_upstream",
    ),
    (
        "leaving cancels",
        "2026-07-28",
        "data-plane/tests/it/modern.rs",
        "a_client_that_leaves_cancels_its_call",
    ),
    (
        "progress while a call runs",
        "2026-07-28",
        "data-plane/tests/it/modern.rs",
        "progress_comes_on_the_stream_of_its_call",
    ),
    (
        "`server/discover`, joined",
        "2026-07-28",
        "data-plane/tests/it/joined.rs",
        "discovery_joins_what_the_caller_may_use",
    ),
    (
        "`subscriptions/listen`",
        "2026-07-28",
        "data-plane/tests/it/modern.rs",
        "listening_streams_carry_the_clients_own_id",
    ),
    (
        "resource subscriptions",
        "2024-11-05 to 2025-11-25",
        "data-plane/tests/it/subscriptions.rs",
        "clients_of_older_revisions_hear_of_resources_on_their_stream",
    ),
    (
        "the verbs dialect",
        "any, where the group switches it on",
        "data-plane/tests/it/verbs.rs",
        "every_example_of_the_page_answers_as_it_says",
    ),
];

const CELLS: &[Row] = &[
    (
        "client with sessions, server with sessions",
        "calls in the server's session",
        "data-plane/tests/it/legacy.rs",
        "calls_run_in_the_servers_session",
    ),
    (
        "client with sessions, stateless server",
        "lists, calls, reads",
        "data-plane/tests/it/cross.rs",
        "a_client_with_a_session_uses_a_stateless_server",
    ),
    (
        "stateless client, server with sessions",
        "lists, calls, reads",
        "data-plane/tests/it/cross.rs",
        "a_stateless_client_uses_a_server_with_sessions",
    ),
    (
        "stateless client, stateless server",
        "discovery and everything behind it",
        "data-plane/tests/it/modern.rs",
        "discovery_passes_through",
    ),
    (
        "any client, server of both eras",
        "met in the client's own",
        "data-plane/src/upstream/tests/bridge.rs",
        "a_server_of_both_eras_is_met_in_the_clients_own",
    ),
    (
        "client with sessions, stateless server",
        "what it cannot carry is refused",
        "data-plane/src/upstream/tests/bridge.rs",
        "what_a_legacy_client_cannot_carry_is_refused",
    ),
    (
        "any client, server of 2024-11-05",
        "HTTP+SSE behind",
        "deploy/test/software.yaml",
        "EVERYTHING_SSE_URL",
    ),
];

const STDIO: &[Row] = &[
    (
        "an SDK of others over stdio",
        "both eras",
        "tests/it/connect.rs",
        "a_library_of_others_speaks_through_it",
    ),
    (
        "signing in once",
        "any",
        "tests/it/connect/sign_in.rs",
        "a_host_signs_in_once_and_stays_signed_in",
    ),
    (
        "the next region",
        "any",
        "tests/it/connect/regions.rs",
        "the_quickest_region_is_used_and_the_next_when_it_fails",
    ),
    (
        "a session opened again",
        "2025-03-26 to 2025-11-25",
        "tests/it/connect/regions.rs",
        "a_session_that_the_next_region_does_not_know_is_opened_again",
    ),
    (
        "batches",
        "2025-03-26",
        "tests/it/connect.rs",
        "what_is_no_message_is_answered_and_batches_stay_batches",
    ),
];

#[test]
fn the_page_of_support_names_tests_that_are_there() {
    let all = sources(&[".rs", ".yaml"]);
    let mut missing = Vec::new();
    let mut page = String::from(
        "# What is supported\n\n\
         Made from a table that names, for each line, the test that proves it; the build fails when one is\n\
         gone. Check by check the public conformance suite says more: `make conformance`, with what is known\n\
         to differ in `deploy/test/conformance/`; clients and servers of others: `make test-long`, with what\n\
         is known to fail in `deploy/test/software-known.txt`.\n",
    );
    for (title, heads, rows) in [
        ("Clients", ["what", "revisions"], FRONT),
        ("Pairings of clients and servers", ["pairing", "what"], CELLS),
        ("Hosts on stdio, through `weir connect`", ["what", "revisions"], STDIO),
    ] {
        writeln!(
            page,
            "\n## {title}\n\n| {} | {} | proven by |\n|---|---|---|",
            heads[0], heads[1]
        )
        .unwrap();
        for (one, two, file, test) in rows {
            let source = all.iter().find(|source| source.path == *file);
            let found = source.is_some_and(|source| {
                source.text.contains(&format!("fn {test}("))
                    || file.ends_with(".yaml") && source.text.contains(test)
            });
            if !found {
                missing.push(format!("{file}: {test}"));
            }
            let test = if file.ends_with(".yaml") { "make test-long" } else { test };
            writeln!(page, "| {one} | {two} | `{test}` in `{file}` |").unwrap();
        }
    }
    hold("a line of the page of support has a test", &missing);
    check_page("docs/reference/support.md", &page);
}
