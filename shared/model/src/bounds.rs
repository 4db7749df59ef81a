//! Every limit of the product, in one place, with the reason for each.
//!
//! A limit that an operator may change is a default here and a field of a settings file or of a
//! resource; the others are fixed. Units are the last word of a name.

/// Longest name of a group, server, role, ... An exposed tool name holds a server name and a tool
/// name in 64 characters, so names stay short.
pub const NAME_CHARS_MAX: usize = 40;
/// Longest tool or prompt name that an upstream may publish (the specification says 1 to 128).
pub const TOOL_NAME_CHARS_MAX: usize = 128;
/// Longest tool name that clients are shown; several model APIs refuse more.
pub const EXPOSED_NAME_CHARS_MAX: usize = 64;
/// Longest resource URI.
pub const URI_BYTES_MAX: usize = 2048;

/// One resource document in its canonical form. Well under etcd's 1.5 MiB per request.
pub const RESOURCE_BYTES_MAX: usize = 512 * 1024;
/// Documents in one apply. etcd refuses more than 128 operations in a transaction, some are ours.
pub const APPLY_DOCUMENTS_MAX: usize = 100;
/// The body of one apply, before parsing.
pub const APPLY_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes that one transaction may carry to the store (etcd's default limit is 1.5 MiB).
pub const COMMIT_BYTES_MAX: usize = 1_400_000;
/// Operations that one transaction may carry to the store (etcd's default limit is 128).
pub const COMMIT_OPS_MAX: usize = 120;
/// Revisions of history that the embedded store keeps for watchers that were away.
pub const STORE_HISTORY_REVISIONS_MAX: u64 = 10_000;
/// Bytes of history that the embedded store keeps.
pub const STORE_HISTORY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Resources in one snapshot.
pub const SNAPSHOT_RESOURCES_MAX: usize = 250_000;
/// All documents of one snapshot together.
pub const SNAPSHOT_BYTES_MAX: usize = 512 * 1024 * 1024;
/// One message on the sync stream; larger updates are sent in parts.
pub const SYNC_MESSAGE_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Parts of one update.
pub const SYNC_PARTS_MAX: usize = 512;
/// Field errors that one refused apply reports.
pub const FIELD_ERRORS_MAX: usize = 200;

/// Versions of one server.
pub const SERVER_VERSIONS_MAX: usize = 16;
/// Tools, resources, templates and prompts in one catalog, each.
pub const CATALOG_ENTRIES_MAX: usize = 5_000;
/// One definition as an upstream publishes it.
pub const DEFINITION_BYTES_MAX: usize = 256 * 1024;
/// All definitions of one server version together, as a proxy reports them.
pub const OFFER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Observations that a proxy keeps while it cannot report them.
pub const OUTBOX_ENTRIES_MAX: usize = 20_000;
/// Instructions text of one server.
pub const INSTRUCTIONS_BYTES_MAX: usize = 64 * 1024;
/// Memberships and scopes that a token may bring; more are a sign of a wrong claim mapping.
pub const PRINCIPAL_ATTRIBUTES_MAX: usize = 512;
/// API tokens of one service account.
pub const API_TOKENS_MAX: usize = 64;
/// Uses of API tokens that a node tells of at a time.
pub const TOKEN_USES_MAX: usize = 1_000;
/// Seconds between two times at which it does.
pub const TOKEN_USES_SECS: u64 = 30;
/// Revocations of one group; what has ended is cleared away when the next one is made.
pub const REVOCATIONS_MAX: usize = 2_000;
/// Rules of one role.
pub const ROLE_RULES_MAX: usize = 200;

/// Cedar text of one policy (dependency notes: larger or deeper texts can abort a parser).
pub const CEDAR_BYTES_MAX: usize = 64 * 1024;
/// Bracket and `if` nesting in Cedar text.
pub const CEDAR_DEPTH_MAX: usize = 50;
/// Operator and bracket characters of one policy; parsers recurse along chains of them.
pub const CEDAR_OPERATORS_MAX: usize = 1_000;
/// How deep an expression of a policy may nest; chains of operators nest too.
pub const CEDAR_EXPRESSION_DEPTH_MAX: usize = 200;
/// Policies of one Cedar text.
pub const CEDAR_POLICIES_MAX: usize = 200;
/// `*` in one name pattern.
pub const PATTERN_WILDCARDS_MAX: usize = 8;
/// Paths of a call's arguments that rules can be asked about when they do not name them.
pub const ARGUMENT_PATHS_MAX: usize = 2_000;
/// Stack of the threads that parse Cedar text and compile schemas.
pub const COMPILE_STACK_BYTES: usize = 64 * 1024 * 1024;

/// One JSON Schema as published by an upstream.
pub const SCHEMA_BYTES_MAX: usize = 256 * 1024;
/// Nesting of a schema document.
pub const SCHEMA_DEPTH_MAX: usize = 32;
/// Subschemas of one schema.
pub const SCHEMA_SUBSCHEMAS_MAX: usize = 2_000;
/// Nodes that validation may visit when every `$ref` is followed; keeps ladders of references out.
pub const SCHEMA_EXPANSION_MAX: u64 = 100_000;
/// Nested `unevaluatedProperties` / `unevaluatedItems` on one value; each level doubles the work.
pub const SCHEMA_UNEVALUATED_MAX: usize = 2;
/// Subschemas that apply to one and the same value one inside the other (`allOf`, `$ref`, ...).
pub const SCHEMA_CHAIN_MAX: usize = 64;
/// Levels of a value times such a run: what validation may need of a thread's stack.
/// 2,600 fit into the 2 MiB of a worker thread.
pub const SCHEMA_FRAMES_MAX: usize = 1_000;
/// Nodes of a value times the expansion of its schema: what one validation may cost.
pub const SCHEMA_WORK_MAX: u64 = 200_000_000;
/// The same, when violations are to be listed: each costs a hundred times a verdict.
pub const SCHEMA_LISTING_MAX: u64 = 2_000_000;
/// Steps of a backtracking pattern for one value.
pub const SCHEMA_PATTERN_STEPS_MAX: usize = 20_000;
/// Compiled size of one pattern.
pub const SCHEMA_PATTERN_BYTES_MAX: usize = 1 << 20;

/// Body of one client request.
pub const REQUEST_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Nesting of a client's JSON.
pub const JSON_DEPTH_MAX: usize = 64;
/// Headers of one request, or of one answer of a server. HTTP/1 connections are not told: it is what
/// hyper takes by itself, and without room made anew for each.
pub const HEADERS_MAX: usize = 100;
/// All headers of one request.
pub const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Messages in one 2025-03-26 batch.
pub const BATCH_MAX: usize = 50;
/// One message from an upstream, in a JSON body, an SSE event or a stdio line.
pub const UPSTREAM_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Nesting of a message from an upstream.
pub const UPSTREAM_DEPTH_MAX: usize = 128;
/// Read buffer of one upstream connection; also bounds all headers of an answer.
pub const UPSTREAM_READ_BUFFER_BYTES: usize = 256 * 1024;
/// Idle connections that are kept to one server version.
pub const UPSTREAM_IDLE_CONNECTIONS_MAX: usize = 64;
/// Sessions that the gateway keeps open at one server version of an older revision.
pub const UPSTREAM_SESSIONS_MAX: usize = 4_096;
/// Standard error of a child that is kept for its health report.
pub const STDERR_TAIL_BYTES: usize = 8 * 1024;
/// Bearer token.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Sealed session id, cursor or state as a client may send it.
pub const SEALED_BYTES_MAX: usize = 8 * 1024;

/// Connections of one listener.
pub const CONNECTIONS_MAX: usize = 20_000;
/// HTTP/2 streams of one connection.
pub const HTTP2_STREAMS_MAX: u32 = 256;
/// Open streams (listen, GET) of one principal on one proxy.
pub const STREAMS_PER_PRINCIPAL_MAX: usize = 64;
/// Resources that one stream, or one session of an older revision, may be subscribed to.
pub const RESOURCE_SUBSCRIPTIONS_MAX: usize = 256;
/// Milliseconds that a stream waits for servers to accept its subscriptions before it says which
/// of them were accepted; one that is slower is told of once it has.
pub const SUBSCRIBE_MS: u64 = 5_000;
/// Messages buffered between an upstream stream and a slow client.
pub const STREAM_QUEUE_MESSAGES: usize = 64;
/// Bytes of events that a stream keeps for a client that may ask for them again, and as many that
/// it takes ahead of a slow one.
pub const REPLAY_BYTES_MAX: usize = 256 * 1024;
/// The same of all streams of one proxy; beyond it only what was not sent yet is kept.
pub const REPLAY_TOTAL_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Streams of one principal on one proxy that can be asked for again.
pub const REPLAYS_PER_PRINCIPAL_MAX: usize = 64;
/// Milliseconds that a stream waits for its client to come back; then its call is cancelled.
pub const RESUME_MS: u64 = 30_000;
/// Milliseconds that a stream which was sent to its end is kept, should the end have got lost.
pub const REPLAY_LINGER_MS: u64 = 10_000;
/// Milliseconds that clients are told to wait before they come back.
pub const SSE_RETRY_MS: u64 = 1_000;
/// Calls in flight of one client of 2024-11-05, whose answers share one stream.
pub const HTTP_SSE_CALLS_MAX: usize = 64;
/// Calls in flight on one stdio child.
pub const CHILD_CALLS_MAX: usize = 256;
/// MiB that one child and what it starts may use, unless its document says otherwise. Runtimes of
/// scripting languages need some hundred.
pub const CHILD_MEMORY_MIB: u64 = 1_024;
/// Processes that one child may consist of, unless its document says otherwise.
pub const CHILD_PROCESSES: u32 = 64;
/// Milliseconds between two looks at what children use.
pub const CHILD_USAGE_MS: u64 = 1_000;
/// Child processes of one proxy.
pub const CHILDREN_MAX: usize = 256;
/// Pages that a listing of one upstream may have.
pub const LIST_PAGES_MAX: usize = 100;
/// Milliseconds for which clients may keep a list that the gateway answered: as long as a change
/// may go unnoticed by a client that listens to nothing. Calls are checked regardless.
pub const LIST_TTL_MS: u64 = 5_000;
/// Seconds that a session of an older revision lasts before its client has to start anew.
pub const SESSION_SECS_MAX: i64 = 24 * 3600;
/// Sessions that were ended before their time and that one proxy remembers as ended, the newest.
pub const ENDED_SESSIONS_MAX: usize = 500_000;
/// Sessions of which one proxy knows when they were used, where a group bounds that.
pub const LIVE_SESSIONS_MAX: u64 = 100_000;
/// Principals whose sessions one proxy counts, where a group bounds them.
pub const SESSION_HOLDERS_MAX: usize = 100_000;
/// Sessions of one principal that a group may allow.
pub const SESSIONS_PER_PRINCIPAL_MAX: u32 = 10_000;
/// Sessions of older revisions whose resource subscriptions one proxy remembers.
pub const SUBSCRIBED_SESSIONS_MAX: u64 = 100_000;
/// Sessions whose log levels a proxy remembers; the one unused longest is forgotten first.
pub const LOGGING_SESSIONS_MAX: u64 = 100_000;
/// Milliseconds between two questions how a task is that the gateway waits for itself, where its server does
/// not say.
pub const TASK_POLL_MS: u64 = 1_000;
/// The least of them, whatever a server says.
pub const TASK_POLL_LEAST_MS: u64 = 100;
/// The most.
pub const TASK_POLL_MOST_MS: u64 = 10_000;
/// Tasks of servers whose tool a proxy remembers; the one unused longest is forgotten first.
pub const TASK_MAKERS_MAX: u64 = 100_000;
/// Names on one page of a list that the gateway answers itself.
pub const LIST_PAGE_ENTRIES: usize = 1_000;
/// Bytes of rendered lists that a proxy keeps, so that callers who ask again cost next to nothing.
pub const LISTS_KEPT_BYTES: u64 = 16 * 1024 * 1024;

/// Cases, or recorded calls, that the control plane decides about in one request.
pub const REVIEW_RECORDS_MAX: usize = 2_000;
/// Cached decisions of one proxy.
pub const DECISIONS_MAX: u64 = 100_000;
/// Buckets of rate and concurrency limits of one proxy.
pub const LIMIT_BUCKETS_MAX: usize = 500_000;
/// Cached verified tokens of one proxy.
pub const VERIFIED_TOKENS_MAX: u64 = 50_000;
/// Seconds for which a verified client certificate is not verified again.
pub const VERIFIED_CERTIFICATE_SECS: u64 = 300;
/// Tokens that one proxy remembers as refused.
pub const REFUSED_TOKENS_MAX: u64 = 10_000;
/// Seconds for which a token is remembered as refused.
pub const REFUSED_TOKEN_SECS: u64 = 10;
/// Metadata documents of clients that one proxy keeps.
pub const CLIENT_DOCUMENTS_MAX: u64 = 1_000;
/// Seconds for which a client's metadata document is kept.
pub const CLIENT_DOCUMENT_SECS: u64 = 300;
/// Seconds for which a client's metadata document that is of no use is not fetched again.
pub const CLIENT_DOCUMENT_RETRY_SECS: u64 = 10;
/// Fetches of clients' metadata documents that one proxy has under way, for hosts that no group names.
pub const CLIENT_DOCUMENT_RUNNING_MAX: u32 = 16;
/// Such fetches that one proxy begins in a minute.
pub const CLIENT_DOCUMENT_MINUTE_MAX: u32 = 300;
/// Fetches of clients' metadata documents that one proxy has under way at one host.
pub const CLIENT_DOCUMENT_HOST_RUNNING_MAX: u32 = 4;
/// Such fetches that one proxy begins in a minute.
pub const CLIENT_DOCUMENT_HOST_MINUTE_MAX: u32 = 30;
/// Codes, refresh tokens and sign-ins that one proxy remembers as used or ended.
pub const SIGN_INS_MAX: u64 = 200_000;
/// Seconds for which it does.
pub const SIGN_IN_MEMORY_SECS: u64 = 24 * 3600;
/// Seconds in which a client that did not hear the answer to a refresh may repeat it.
pub const SIGN_IN_REPEAT_SECS: i64 = 30;
/// Sign-ins whose turns the control plane keeps; nobody signs in anew beyond.
pub const SIGN_IN_RECORDS_MAX: usize = 200_000;
/// Longest sealed answer to a refresh that is kept for its repeating.
pub const SIGN_IN_ANSWER_BYTES_MAX: usize = 32 * 1024;
/// Longest id of a session, and longest subject, in what proxies say of sign-ins.
pub const SIGN_IN_ID_BYTES_MAX: usize = 512;
/// Milliseconds that one replica of the control plane has for one step of a sign-in.
pub const SIGN_IN_CALL_MS: u64 = 2_000;
/// Seconds for which what a signed-out session had is refused: longer than such tokens live.
pub const SIGNED_OUT_SECS: i64 = 24 * 3600;
/// Keys of one JWKS.
pub const JWKS_KEYS_MAX: usize = 100;
/// Keys of one JWKS that are tried on one token (only tokens without a key id need more than one).
pub const JWKS_TRIES_MAX: usize = 10;
/// Places that keys come from.
pub const JWKS_SOURCES_MAX: u64 = 10_000;
/// Milliseconds to fetch one document of an issuer.
pub const JWKS_FETCH_MS: u64 = 5_000;
/// Seconds after which keys are fetched again in the background.
pub const JWKS_REFRESH_SECS: u64 = 300;
/// Seconds between attempts to fetch keys that are missing or old.
pub const JWKS_RETRY_FLOOR_SECS: u64 = 2;
/// Seconds between fetches for tokens that name an unknown key.
pub const JWKS_UNKNOWN_KEY_FLOOR_SECS: u64 = 10;
/// Such fetches that may come at once after a quiet time: an issuer that rotates twice in a row, or
/// just after a fetch, makes no call wait.
pub const JWKS_UNKNOWN_KEY_BURST: u32 = 3;
/// Seconds for which keys are used that cannot be fetched again; a day outlasts an issuer's outage.
pub const JWKS_STALE_SECS: u64 = 86_400;
/// Subject of a token.
pub const SUBJECT_BYTES_MAX: usize = 512;
/// Body of a JWKS or discovery document.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;

/// Seconds in which further reads by an operator's token from one address leave no record.
pub const OPERATOR_USE_SECS: u64 = 900;
/// Tokens and addresses of operators that one replica remembers for that.
pub const OPERATOR_USES_MAX: usize = 10_000;

/// Audit records waiting for a sink.
pub const AUDIT_QUEUE_RECORDS: usize = 10_000;
/// Bytes that the audit spool of one process may take on its disk, unless its settings say so.
pub const AUDIT_SPOOL_BYTES: u64 = 10 * 1024 * 1024 * 1024;
/// Bytes at which a segment of the audit spool is followed by the next.
pub const AUDIT_SEGMENT_BYTES: u64 = 128 * 1024 * 1024;
/// Smallest such size.
pub const AUDIT_SEGMENT_BYTES_MIN: u64 = 1024 * 1024;
/// Milliseconds after which records that are new are covered by a signed checkpoint.
pub const AUDIT_CHECKPOINT_MS: u64 = 5_000;
/// Records that may come between two checkpoints.
pub const AUDIT_CHECKPOINT_RECORDS: u64 = 10_000;
/// Milliseconds that an answer waits for its audit record before it is refused.
pub const AUDIT_PROMISE_MS: u64 = 10_000;
/// Arguments that a rule has an audit record keep; longer ones are left out of it.
pub const AUDIT_ARGUMENTS_BYTES_MAX: usize = 32 * 1024;
/// Memberships, and scopes, of the caller that an audit record names.
pub const AUDIT_WORDS_MAX: usize = 64;
/// One audit record in its JSON form.
pub const AUDIT_RECORD_BYTES_MAX: usize = 64 * 1024;
/// One line of an audit log: a record, or a checkpoint with the list of its leaves.
pub const AUDIT_LINE_BYTES_MAX: usize = 512 * 1024;

/// Milliseconds for the headers of a request to arrive.
pub const HEADER_READ_MS: u64 = 10_000;
/// Milliseconds for the body of a request to arrive.
pub const BODY_READ_MS: u64 = 20_000;
/// Milliseconds that an idle keep-alive connection is kept.
pub const IDLE_CONNECTION_MS: u64 = 90_000;
/// Servers that a proxy asks at the same time what they offer.
pub const OBSERVATIONS_AT_ONCE_MAX: usize = 4;
/// Milliseconds between two looks at what a server offers.
pub const OBSERVE_EVERY_MS: u64 = 300_000;
/// Milliseconds for which a client may leave an answer unread before its connection is cut.
pub const WRITE_STALL_MS: u64 = 30_000;
/// Milliseconds to connect to an upstream.
pub const CONNECT_MS: u64 = 5_000;
/// Milliseconds that an upstream call may take, unless the server's spec says otherwise.
pub const CALL_MS: u64 = 60_000;
/// Milliseconds after which a stream that belongs to no call ends and its client opens it again.
pub const STREAM_MS: u64 = 3_600_000;
/// Milliseconds between two looks at whether such a stream may go on, by the time that it is then.
pub const STREAM_LOOK_MS: u64 = 5_000;
/// Milliseconds between keep-alive comments on an open stream.
pub const SSE_KEEPALIVE_MS: u64 = 15_000;
/// Milliseconds that a drain waits for calls in flight.
pub const DRAIN_MS: u64 = 25_000;
/// Requests of operators that one control plane answers at a time.
pub const OPERATOR_REQUESTS_MAX: usize = 256;
/// Connections of operators to one control plane.
pub const OPERATOR_CONNECTIONS_MAX: usize = 1_000;
/// Milliseconds for one request of an operator, from its headers to its answer.
pub const OPERATOR_REQUEST_MS: u64 = 30_000;
/// Milliseconds for one call to the store.
pub const STORE_CALL_MS: u64 = 5_000;
/// Milliseconds between heartbeats on the sync stream; three missed ones end it.
pub const HEARTBEAT_MS: u64 = 5_000;
/// Seconds for which a node's certificate is good; it is renewed after two thirds of them.
pub const NODE_CERTIFICATE_SECS: i64 = 24 * 3600;
/// Seconds after its end for which a node's certificate may still be renewed (and nothing else),
/// so that proxies outlive a long outage of the control plane.
pub const NODE_RENEW_GRACE_SECS: i64 = 30 * 24 * 3600;
/// Seconds for which the certificate of a sync listener, and a signer's endorsement, are good.
pub const PLANE_CERTIFICATE_SECS: i64 = 7 * 24 * 3600;
/// Milliseconds for a TLS handshake on the sync listener.
pub const SYNC_HANDSHAKE_MS: u64 = 5_000;
/// Handshakes of nodes that a replica has under way; others wait for their turn.
pub const SYNC_HANDSHAKES_MAX: usize = 256;
/// Milliseconds for one call that enrols a node or renews its certificate.
pub const ENROL_CALL_MS: u64 = 15_000;
/// Seconds for which an enrolment token is good at most.
pub const ENROL_TOKEN_SECS_MAX: i64 = 30 * 24 * 3600;
/// Frames that wait for a slow node.
pub const SYNC_QUEUE_FRAMES: usize = 4;
/// Observations that wait to be stored.
pub const OBSERVE_QUEUE: usize = 256;
/// Refused documents that a node names; more are counted with the last.
pub const REFUSED_MAX: usize = 100;
/// Seconds between two writes of what is known of a node, when nothing changed.
pub const FLEET_WRITE_SECS: u64 = 30;
/// Seconds after which a node that was not seen is forgotten.
pub const FLEET_FORGET_SECS: i64 = 7 * 24 * 3600;

/// Things that only one proxy has (parked calls, streams, events for resuming) at one proxy.
pub const HOLDINGS_MAX: usize = 20_000;
/// Connections of other proxies to one proxy.
pub const HOP_CONNECTIONS_MAX: usize = 1_024;
/// Requests at a time on one connection between two proxies.
pub const HOP_STREAMS_MAX: u32 = 1_024;
/// Proxies that one proxy keeps connections to.
pub const HOP_PEERS_MAX: usize = 1_024;
/// Other proxies that one proxy tells what all of them must know of sessions.
pub const NEIGHBOURS_MAX: usize = 512;
/// Milliseconds between two looks at which other proxies there are.
pub const NEIGHBOURS_MS: u64 = 5_000;
/// Milliseconds that the end of a session waits until other proxies of the region know of it.
pub const TOLD_MS: u64 = 1_000;
/// Tidings that wait for one other proxy; beyond it, it is told of all ended sessions instead.
pub const TIDINGS_MAX: usize = 10_000;
/// Tidings that are told at once.
pub const TIDINGS_AT_ONCE_MAX: usize = 1_000;
/// Bytes of what one proxy tells another at once.
pub const TIDINGS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Milliseconds to connect to another proxy, TLS included.
pub const HOP_CONNECT_MS: u64 = 3_000;
/// Milliseconds until another proxy begins to answer.
pub const HOP_ANSWER_MS: u64 = 10_000;

/// Units that a call of one tool may cost.
pub const TOOL_COST_MAX: u32 = 10_000;
/// Quotas that one proxy counts at a time; a call of one more is refused.
pub const QUOTA_COUNTERS_MAX: usize = 100_000;
/// Counters that a proxy tells the ledger of in one request.
pub const BUDGET_CLAIMS_MAX: usize = 500;
/// Uses of quotas that one answer shows, the most used first.
pub const QUOTA_USES_SHOWN_MAX: usize = 1_000;
/// Milliseconds between two reports of a proxy to the ledger.
pub const BUDGET_REPORT_MS: u64 = 500;
/// Milliseconds that a report may take.
pub const BUDGET_CALL_MS: u64 = 3_000;
/// Rates that a replica of the control plane shares among proxies at a time.
pub const SHARED_RATES_MAX: usize = 100_000;
/// Milliseconds that a client may take to answer what a server wants to know during a call.
pub const ASK_MS: u64 = 300_000;
/// Questions of one call that wait for their answers.
pub const QUESTIONS_MAX: usize = 32;
/// Times that a server may ask for more input during one call.
pub const INPUT_ROUNDS_MAX: u32 = 16;
/// Milliseconds that a call at a server of an older revision waits for a stateless client to come
/// back with its input; then it is cancelled.
pub const PARKED_MS: u64 = 300_000;
/// Calls of one principal that wait like this on one proxy.
pub const PARKED_PER_PRINCIPAL_MAX: usize = 16;
/// Seconds for which a request state may be brought back.
pub const REQUEST_STATE_SECS_MAX: i64 = 900;
/// A sealed request state, which travels in bodies and carries the server's own.
pub const REQUEST_STATE_BYTES_MAX: usize = 256 * 1024;
