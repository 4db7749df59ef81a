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
        "log messages from the level that the session set",
        "2024-11-05 to 2025-11-25",
        "data-plane/tests/it/joined.rs",
        "a_session_hears_log_messages_from_the_level_that_it_set",
    ),
    (
        "polling: long streams are closed, and go on",
        "2025-11-25",
        "data-plane/tests/it/resume.rs",
        "long_streams_are_closed_for_their_clients_to_come_back",
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
        "a task ends with the right to its tool, and its result fits the tool's schema",
        "2025-11-25 and later",
        "data-plane/tests/it/tasks.rs",
        "who_loses_a_tool_loses_what_it_made",
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
        "client with sessions, server with sessions",
        "questions of the server, over any proxy",
        "data-plane/tests/it/bridging.rs",
        "an_older_server_asks_an_older_client_over_any_proxy",
    ),
    (
        "client with sessions, stateless server",
        "questions of the server",
        "data-plane/tests/it/bridging.rs",
        "a_stateless_server_asks_an_older_client",
    ),
    (
        "stateless client, server with sessions",
        "questions of the server: the call is parked, and goes on at any proxy",
        "data-plane/tests/it/bridging.rs",
        "a_call_is_parked_until_its_client_is_back_at_any_proxy",
    ),
    (
        "stateless client, stateless server",
        "questions of the server, with its state wrapped",
        "data-plane/tests/it/bridging.rs",
        "the_state_of_a_stateless_server_is_wrapped",
    ),
    (
        "client with sessions, stateless server",
        "what it cannot carry is refused",
        "data-plane/src/upstream/tests/bridge.rs",
        "what_a_legacy_client_cannot_carry_is_refused",
    ),
    (
        "stateless client, server with sessions",
        "tools that run only as tasks",
        "data-plane/tests/it/tasks.rs",
        "a_stateless_client_uses_tools_of_older_servers_that_run_as_tasks",
    ),
    (
        "client with sessions, stateless server",
        "tools that run only as tasks",
        "data-plane/tests/it/tasks.rs",
        "an_older_client_uses_tools_of_stateless_servers_that_run_as_tasks",
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

/// What is sent, or what happens, and what comes of it.
const BAD: &[Row] = &[
    (
        "malformed JSON; a byte order mark; `\"id\": null`; a key twice; 5,000 nested arrays",
        "400 with -32700 or -32600; nothing reaches a server",
        "data-plane/tests/it/refusals.rs",
        "bodies_that_are_no_message",
    ),
    (
        "a foreign `Origin`, `Origin: null`, a foreign `Host`",
        "403",
        "data-plane/tests/it/refusals.rs",
        "requests_that_no_agent_sends",
    ),
    (
        "`Accept` without event streams; another `Content-Type`; a token in the URL",
        "406; 415; 400",
        "data-plane/tests/it/refusals.rs",
        "requests_that_no_agent_sends",
    ),
    (
        "an unknown method",
        "404 with -32601; -32601 in band for older clients",
        "data-plane/tests/it/refusals.rs",
        "methods_and_targets_that_are_not_there",
    ),
    (
        "an unknown tool, and one that rules hide",
        "the same -32602, and no server is asked",
        "data-plane/tests/it/joined.rs",
        "what_may_not_be_used_looks_like_what_is_not_there",
    ),
    (
        "headers that differ from the body, or come twice",
        "400 with -32020",
        "data-plane/tests/it/refusals.rs",
        "headers_must_mirror_the_body",
    ),
    (
        "a version that nobody has",
        "400 with -32022 and the list of those that are spoken",
        "data-plane/tests/it/refusals.rs",
        "an_unsupported_version_names_the_supported_ones",
    ),
    (
        "`initialize` with an unknown version",
        "settles on 2025-11-25",
        "data-plane/tests/it/table.rs",
        "an_unknown_revision_is_negotiated_down",
    ),
    (
        "a call without a session, with one that was made up, or with somebody else's",
        "400; 404; 404",
        "data-plane/tests/it/legacy.rs",
        "sessions_are_bound_to_their_callers",
    ),
    (
        "a session after the proxy was started anew, or at another one",
        "goes on",
        "data-plane/tests/it/bridging.rs",
        "a_session_goes_on_at_any_proxy",
    ),
    (
        "no token, an expired one, of another audience, unsigned, forged",
        "401 with a challenge; the token is not told back",
        "data-plane/tests/it/table.rs",
        "tokens_that_are_no_good_are_told_how_to_get_one",
    ),
    (
        "a body over 4 MiB, headers over 32 KiB",
        "413; 431",
        "data-plane/tests/it/sockets.rs",
        "bodies_and_headers_are_bounded",
    ),
    (
        "headers or a body that trickle in, a silent connection",
        "cut",
        "data-plane/tests/it/sockets.rs",
        "slow_peers_are_cut",
    ),
    (
        "300 connections that are half open",
        "cut; nobody else waits",
        "data-plane/tests/it/table.rs",
        "half_open_connections_do_not_stand_in_the_way",
    ),
    (
        "a client that does not read",
        "its server is held back; it is let go",
        "data-plane/tests/it/table.rs",
        "a_client_that_does_not_read_holds_up_nobody_and_is_let_go",
    ),
    (
        "a client that leaves in the middle of a call",
        "the call ends at the server, older servers get `notifications/cancelled`",
        "data-plane/src/upstream/tests/legacy.rs",
        "leaving_cancels_by_our_own_id",
    ),
    (
        "a server that hangs, or is down",
        "504; 502; a JSON-RPC error without internals",
        "data-plane/tests/it/refusals.rs",
        "servers_that_do_not_answer_are_told_apart_without_internals",
    ),
    (
        "a server that dies half way through an answer",
        "502 at once, without internals; the next call is served",
        "data-plane/tests/it/table.rs",
        "a_server_that_dies_half_way_is_told_without_internals",
    ),
    (
        "a server that keeps failing",
        "calls fail at once; one is let through now and then",
        "data-plane/src/upstream/tests/modern.rs",
        "a_server_that_does_not_answer_is_left_alone_for_a_while",
    ),
    (
        "a server that was restarted and forgot its sessions",
        "met again, the call is sent once more; the client notices nothing",
        "data-plane/src/upstream/tests/legacy.rs",
        "a_lost_session_is_opened_again_once",
    ),
    (
        "one of several servers hangs or is dead",
        "lists and handshakes do not wait for it, and say whose part is missing",
        "data-plane/tests/it/joined.rs",
        "a_server_that_hangs_costs_the_others_nothing",
    ),
    (
        "a rule changes while streams are open",
        "in force for the next call; streams live, or end with their right",
        "data-plane/tests/it/joined.rs",
        "open_streams_end_with_the_right_to_have_them",
    ),
    (
        "SIGTERM with a call in flight",
        "the call is finished",
        "data-plane/tests/it/sockets.rs",
        "a_drain_finishes_calls_and_ends_streams",
    ),
    (
        "a flood of a child, one that hangs, one that takes too much",
        "bounded; killed; killed",
        "data-plane/src/upstream/tests/stdio.rs",
        "floods_and_hangs_are_bounded",
    ),
    (
        "a tool whose `x-mcp-header` cannot be a header",
        "hidden; in the log, a metric and the health report",
        "data-plane/src/upstream/observe.rs",
        "tools_that_cannot_be_called_are_told",
    ),
];

#[test]
fn the_page_of_support_names_tests_that_are_there() {
    let all = sources(&[".rs", ".yaml"]);
    let mut missing = Vec::new();
    let mut page = String::from(
        "# What is supported\n\n\
         Made from a table that names, for each line, the test that proves it. `make test` fails when one is\n\
         gone, and when one of them has not passed in that very run. The public conformance suite says\n\
         more, [check by check](conformance.md), and so do clients and servers of others: `make test-long`,\n\
         with what is known to fail in `deploy/test/software-known.txt`.\n",
    );
    for (title, heads, rows) in [
        ("Clients", ["what", "revisions"], FRONT),
        ("Pairings of clients and servers", ["pairing", "what"], CELLS),
        ("Hosts on stdio, through `weir connect`", ["what", "revisions"], STDIO),
        ("Bad input and bad peers", ["what happens", "what comes of it"], BAD),
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
