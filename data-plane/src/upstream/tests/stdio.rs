//! Children: a shell script stands for the server.

use super::super::{Channel, Wire, testing};
use super::*;
use weir_model::resource::{StdioUpstream, Upstream};
use weir_model::snapshot::VersionView;

/// Answers line by line; `$id` is the raw id, `$line` the message, `say` writes a result.
const PRELUDE: &str = r#"
say() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"; }
fail() { printf '{"jsonrpc":"2.0","id":%s,"error":{"code":%s,"message":"no"}}\n' "$id" "$1"; }
while IFS= read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  case "$line" in
"#;
const MODERN: &str = r#"
  *'"server/discover"'*) say '{"supportedVersions":["2026-07-28"],"capabilities":{}}';;
"#;
const LEGACY: &str = r#"
  *'"server/discover"'*) fail -32601;;
  *'"initialize"'*) say '{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{}}';;
  *notifications/*) ;;
"#;
const END: &str = "\n  esac\ndone\n";

fn script(era: &str, arms: &str) -> std::sync::Arc<VersionView> {
    let script = [PRELUDE, era, arms, END].concat();
    testing::stdio("sh", &["-c", &script])
}

fn call(version: &std::sync::Arc<VersionView>, isolation: &str) -> Outbound {
    let mut outbound = testing::request(std::sync::Arc::clone(version), "tools/call");
    outbound.front = testing::modern_front(isolation);
    outbound.params = json(r#"{"name":"t"}"#);
    outbound
}

#[tokio::test]
async fn a_modern_child_serves_everybody() {
    let version = script(MODERN, "*tools/call*) say \"{\\\"pid\\\":$$,\\\"x\\\":1.10}\";;");
    let upstreams = upstreams();
    let first = result(&upstreams, call(&version, "alice")).await;
    assert!(first.ends_with(",\"x\":1.10}"), "{first}");
    assert_eq!(result(&upstreams, call(&version, "bob")).await, first);
    assert_eq!(upstreams.wire(&version, false, &[]).await.unwrap(), Wire::Modern);
    let many = (0..20).map(|n| call(&version, &n.to_string())).map(|one| result(&upstreams, one));
    assert!(futures_util::future::join_all(many).await.iter().all(|got| *got == first));
}

#[tokio::test]
async fn a_legacy_child_belongs_to_one_caller() {
    let version = script(LEGACY, "*tools/call*) say \"{\\\"pid\\\":$$}\";;");
    let upstreams = upstreams();
    let alice = result(&upstreams, call(&version, "alice")).await;
    let bob = result(&upstreams, call(&version, "bob")).await;
    assert_ne!(alice, bob);
    assert_eq!(result(&upstreams, call(&version, "alice")).await, alice);
}

#[tokio::test]
async fn progress_and_questions_find_their_call() {
    let arms = r#"
  *tools/call*)
    token=${line#*progressToken\":}; token=${token%%[,\}]*}
    printf '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":1}}\n' "$token"
    echo 'hello, I am no JSON'
    printf '{"jsonrpc":"2.0","id":"q","method":"roots/list"}\n'
    IFS= read -r answer
    case "$answer" in *'"roots":[]'*) say '{"asked":true}';; *) fail 1;; esac;;
"#;
    let version = script(LEGACY, arms);
    let mut outbound = call(&version, "alice");
    outbound.params = json(r#"{"name":"t","_meta":{"progressToken":"mine"}}"#);
    let (messages, refusal) = all(upstreams().call(outbound).await.unwrap()).await;
    assert!(refusal.is_none(), "{refusal:?}");
    let [Message::Notification(progress), Message::Result(result)] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert!(String::from_utf8(progress.to_vec()).unwrap().contains(r#""progressToken":"mine""#));
    assert_eq!(result, &br#"{"asked":true}"#[..]);
}

#[tokio::test]
async fn a_child_that_dies_ends_its_calls_and_is_replaced() {
    let arms = "*'\"die\"'*) exit 3;; *tools/call*) say \"{\\\"pid\\\":$$}\";;";
    let version = script(MODERN, arms);
    let upstreams = upstreams();
    let before = result(&upstreams, call(&version, "alice")).await;
    let mut die = call(&version, "alice");
    die.params = json(r#"{"name":"die"}"#);
    let started = Instant::now();
    assert_eq!(reason(&upstreams, die).await, Reason::UpstreamClosed);
    assert!(started.elapsed() < Duration::from_secs(3), "at once, not at the deadline");
    let after = result(&upstreams, call(&version, "alice")).await;
    assert_ne!(before, after);
}

#[tokio::test]
async fn a_program_that_keeps_dying_is_not_started_forever() {
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("starts");
    let script = format!("echo x >> {}; exit 1", count.display());
    let version = testing::stdio("sh", &["-c", &script]);
    let upstreams = upstreams();
    let mut last = None;
    for _ in 0..12 {
        let mut outbound = call(&version, "alice");
        outbound.deadline = Instant::now() + Duration::from_secs(2);
        last = upstreams.call(outbound).await.err();
    }
    let last = last.expect("a refusal");
    assert_eq!(last.reason, Reason::UpstreamUnreachable, "{last}");
    assert!(last.retry_after_secs.is_some());
    let starts = std::fs::read_to_string(&count).unwrap().lines().count();
    assert!(starts <= 6, "{starts} starts for 12 calls");
}

#[tokio::test]
async fn floods_and_hangs_are_bounded() {
    let table = [
        ("hang", ";;", Reason::UpstreamTimeout),
        ("long line", "head -c 20000000 /dev/zero | tr '\\0' x;;", Reason::UpstreamProtocol),
        (
            "notifications",
            "yes '{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}';;",
            Reason::UpstreamProtocol,
        ),
        ("noise", "yes 'no json';;", Reason::UpstreamProtocol),
        ("closed output", "exec >&-; sleep 60;;", Reason::UpstreamClosed),
    ];
    for (what, arm, want) in table {
        let version = script(MODERN, &format!("*tools/call*) {arm}"));
        let mut outbound = call(&version, "alice");
        let patience = if want == Reason::UpstreamTimeout { 1 } else { 20 };
        outbound.deadline = Instant::now() + Duration::from_secs(patience);
        assert_eq!(reason(&upstreams(), outbound).await, want, "{what}");
    }
}

#[tokio::test]
async fn leaving_cancels_and_the_last_handle_stops_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let (heard, ended) = (folder.path().join("heard"), folder.path().join("ended"));
    let arms = format!(
        "*tools/call*) ;; *notifications/cancelled*) printf '%s' \"$line\" > {};;",
        heard.display()
    );
    let script = [PRELUDE, MODERN, &arms, END, &format!("echo > {}", ended.display())].concat();
    let version = testing::stdio("sh", &["-c", &script]);
    let upstreams = upstreams();
    let waiting = upstreams.call(call(&version, "alice"));
    assert!(tokio::time::timeout(Duration::from_millis(500), waiting).await.is_err());
    let cancelled = || std::fs::read_to_string(&heard).is_ok_and(|t| t.contains("requestId"));
    until("the cancellation", cancelled).await;
    upstreams.close().await;
    assert!(ended.exists(), "its input was closed, and that was waited for");
}

#[tokio::test]
async fn a_stubborn_child_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let arms = format!(
        "*tools/call*) trap '' TERM; sleep 300 & echo $! > {}; say '{{}}'; while :; do sleep 300; done;;",
        pid.display()
    );
    let version = script(MODERN, &arms);
    let upstreams = upstreams();
    result(&upstreams, call(&version, "alice")).await;
    let pid = std::fs::read_to_string(&pid).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    let runs = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(runs());
    upstreams.close().await;
    // The kernel has been told; it may take a moment.
    until("the end of the grandchild", || !runs()).await;
}

#[tokio::test]
async fn only_listed_programs_run_and_their_environment_is_clean() {
    let version = script(MODERN, "*tools/call*) say \"{\\\"home\\\":\\\"$HOME\\\"}\";;");
    assert_eq!(result(&upstreams(), call(&version, "alice")).await, r#"{"home":""}"#);
    let closed = Upstreams::new(Settings::default()).expect("roots");
    let refusal = closed.call(call(&version, "alice")).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::Quarantined);
    let missing = testing::stdio("/nonexistent/program", &[]);
    assert_eq!(reason(&upstreams(), call(&missing, "a")).await, Reason::UpstreamUnreachable);
}

#[tokio::test]
async fn a_transparent_session_is_a_child_of_its_own() {
    let arms = r#"
  *'"result":{"roots":[1]}'*) id=$call; say '{"roots":"seen"}';;
  *tools/call*) call=$id; printf '{"jsonrpc":"2.0","id":"q","method":"roots/list"}\n';;
  *resources/subscribe*) say '{}'; printf '{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{}}\n';;
"#;
    let version = script(LEGACY, arms);
    let upstreams = upstreams();
    assert_eq!(upstreams.wire(&version, false, &[]).await.unwrap(), Wire::Legacy);
    let mut open = call(&version, "alice");
    open.front = testing::legacy_front("alice");
    open.method = "initialize".to_owned();
    open.id = json("1");
    open.params = json(r#"{"protocolVersion":"2025-11-25","capabilities":{"roots":{}}}"#);
    let opened = upstreams.call(open.clone()).await.unwrap();
    let session = opened.session.expect("a session");
    assert!(session.local);
    let session = session.id;
    let channel = Channel {
        version: std::sync::Arc::clone(&version),
        session: session.clone(),
        revision: "2025-11-25".to_owned(),
        credentials: Vec::new(),
        deadline: Instant::now() + Duration::from_secs(5),
    };
    let done = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    upstreams.deliver(&channel, done).await.unwrap();
    open.method = "tools/call".to_owned();
    open.session = Some(session);
    open.id = json("\"c2\"");
    open.params = json(r#"{"name":"t"}"#);
    let exchange = upstreams.call(open.clone()).await.unwrap();
    let Messages::Stream(mut stream) = exchange.messages else { panic!("no stream") };
    assert!(matches!(stream.recv().await, Some(Ok(Message::Request(_)))));
    let answer = Bytes::from_static(br#"{"jsonrpc":"2.0","id":"q","result":{"roots":[1]}}"#);
    upstreams.deliver(&channel, answer).await.unwrap();
    let Some(Ok(Message::Result(result))) = stream.recv().await else { panic!("no result") };
    assert_eq!(result, &br#"{"roots":"seen"}"#[..]);

    let pushed = upstreams.open_stream(&channel, None).await.unwrap();
    let Messages::Stream(mut pushed) = pushed.messages else { panic!("no stream") };
    open.method = "resources/subscribe".to_owned();
    open.id = json("3");
    upstreams.call(open.clone()).await.unwrap();
    let pushed = tokio::time::timeout(Duration::from_secs(5), pushed.recv()).await.unwrap();
    assert!(matches!(pushed, Some(Ok(Message::Notification(_)))), "{pushed:?}");
    upstreams.delete_session(&channel).await.unwrap();
    assert_eq!(reason(&upstreams, open).await, Reason::SessionUnknown);
}

#[tokio::test]
async fn a_child_that_uses_too_much_is_killed_and_says_why() {
    let limited = |arms: &str, change: fn(&mut StdioUpstream)| {
        let mut upstream = script(MODERN, arms).spec.upstream.clone();
        let Upstream::Stdio(child) = &mut upstream else { panic!("a child") };
        change(child);
        testing::version(upstream)
    };
    // Doubling a text takes memory; sleepers are processes.
    let eat = "*tools/call*) x=0123456789abcdef; while :; do x=\"$x$x\"; [ ${#x} -gt 60000000 ] && sleep 60; done;;";
    let fork = "*tools/call*) for n in 1 2 3 4 5 6; do sleep 60 & done; wait;;";
    for (arms, change, why) in [
        (eat, (|child| child.memory_mib = 16) as fn(&mut StdioUpstream), "memory"),
        (fork, |child| child.processes = 4, "processes"),
    ] {
        let version = limited(arms, change);
        let upstreams = upstreams();
        let mut outbound = call(&version, "alice");
        outbound.deadline = Instant::now() + Duration::from_secs(20);
        let refusal = match upstreams.call(outbound).await {
            Err(refusal) => refusal,
            Ok(exchange) => all(exchange).await.1.expect("a refusal"),
        };
        assert_eq!(refusal.reason, Reason::UpstreamClosed, "{refusal}");
        assert!(refusal.detail.contains(why), "{refusal}");
        let said = upstreams.stderr(&version).expect("a program");
        assert!(said.contains(why), "{said}");
    }
}
