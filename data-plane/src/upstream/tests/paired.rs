//! Servers of 2024-11-05 over HTTP+SSE.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::super::{Channel, Member, Wire, testing};
use super::fake::{Asked, Fake, Reply, event, rpc_result};
use super::*;

/// The open streams of the fake, the first one first; taken away when the server "restarts".
type Streams = Arc<Mutex<Vec<Option<mpsc::Sender<Bytes>>>>>;

/// What a server does with a message beside of answering it.
type Act = dyn Fn(&Asked) -> Vec<String> + Send + Sync;

/// A server at `/mcp` with the streams `1`, `2`, ...; `act` gives the events for a call.
async fn server(act: impl Fn(&Asked) -> Vec<String> + Send + Sync + 'static) -> (Fake, Streams) {
    let streams = Streams::default();
    let (held, act) = (Arc::clone(&streams), Arc::new(act) as Arc<Act>);
    let fake = Fake::start(move |asked| {
        if asked.method == http::Method::GET {
            let mut streams = held.lock();
            let number = streams.len() + 1;
            let hello = format!(": hi\n\nevent: endpoint\ndata: /post?session={number}\n\n");
            let mut reply = Reply::sse(hello);
            streams.push(reply.feed.take());
            return reply;
        }
        let Some(number) = asked.path.strip_prefix("/post?session=") else {
            return Reply::status(405);
        };
        let number: usize = number.parse().expect("a number");
        let Some(Some(stream)) = held.lock().get(number - 1).cloned() else {
            return Reply::status(404);
        };
        let events = match asked.rpc() {
            "initialize" => {
                let revision = "2024-11-05";
                let offer = format!(
                    r#"{{"protocolVersion":"{revision}","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"f","version":"1"}}}}"#
                );
                vec![event(&rpc_result(asked, &offer))]
            }
            _ => act(asked),
        };
        for one in events {
            stream.try_send(one.into()).expect("room");
        }
        Reply::new(202, "text/plain", "Accepted").closed()
    })
    .await;
    (fake, streams)
}

fn call(fake: &Fake, isolation: &str) -> Outbound {
    let mut outbound = testing::outbound(&fake.url, "tools/call");
    outbound.front = testing::modern_front(isolation);
    outbound.params = json(r#"{"name":"t","_meta":{"progressToken":"mine"}}"#);
    outbound
}

fn answering(result: &'static str) -> impl Fn(&Asked) -> Vec<String> + Send + Sync {
    move |asked| match asked.rpc() {
        "tools/call" => vec![event(&rpc_result(asked, result))],
        _ => vec![],
    }
}

#[tokio::test]
async fn a_server_that_refuses_posts_is_met_on_its_stream() {
    let (fake, streams) = server(answering("{\"content\":[ ],\"x\":1.10}")).await;
    let upstreams = upstreams();
    for isolation in ["alice", "bob", "alice"] {
        let got = result(&upstreams, call(&fake, isolation)).await;
        assert_eq!(got, "{\"content\":[ ],\"x\":1.10}");
    }
    let streams_of = |asked: Vec<Asked>| asked.into_iter().map(|one| one.path).collect::<Vec<_>>();
    assert_eq!(
        streams_of(fake.seen("tools/call")),
        ["/post?session=1", "/post?session=2", "/post?session=1"]
    );
    assert_eq!(streams.lock().len(), 2, "one stream per caller");
    // What the server is was asked once; the second caller's session went the right way at once.
    assert_eq!(fake.seen("server/discover").len(), 1);
    assert_eq!(fake.seen("initialize").len(), 3, "one of them was refused");
    let front = testing::http(&fake.url);
    assert_eq!(upstreams.wire(&front, true, &[]).await.expect("known"), Wire::Legacy);
    upstreams.close().await;
    until("the streams end", || streams.lock().iter().flatten().all(mpsc::Sender::is_closed)).await;
}

#[tokio::test]
async fn progress_questions_and_cancellations_find_their_way() {
    let (fake, _streams) = server(|asked| match asked.rpc() {
        "tools/call" => {
            let token = &asked.body["params"]["_meta"]["progressToken"];
            vec![
                event(&format!(
                    r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
                )),
                event(r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#),
            ]
        }
        _ => vec![],
    })
    .await;
    let exchange = upstreams().call(call(&fake, "alice")).await.expect("a stream");
    let Messages::Stream(mut stream) = exchange.messages else { panic!("no stream") };
    let Some(Ok(Message::Notification(progress))) = stream.recv().await else { panic!("none") };
    assert!(String::from_utf8_lossy(&progress).contains(r#""progressToken":"mine""#));
    let Some(Ok(Message::Ask(question))) = stream.recv().await else { panic!("no question") };
    assert_eq!(question.method, "roots/list");
    question.answer(Member::Result, br#"{"roots":[{"uri":"file:///a"}]}"#);
    until("the question is answered", || {
        let asked = fake.asked.lock();
        asked.iter().any(|one| one.body["id"] == "q" && one.body["result"]["roots"][0].is_object())
    })
    .await;
    drop(stream);
    until("the call is cancelled", || !fake.seen("notifications/cancelled").is_empty()).await;
    let id = fake.seen("tools/call").remove(0).body["id"].clone();
    assert_eq!(fake.seen("notifications/cancelled")[0].body["params"]["requestId"], id);
}

#[tokio::test]
async fn a_server_that_restarts_is_met_again() {
    let (fake, streams) = server(answering("{}")).await;
    let upstreams = upstreams();
    assert_eq!(result(&upstreams, call(&fake, "alice")).await, "{}");
    // The server forgets the stream without closing it: it says so when it is posted to.
    let kept = streams.lock()[0].take();
    assert_eq!(result(&upstreams, call(&fake, "alice")).await, "{}");
    drop(kept);
    // The stream ends while nothing is in flight.
    streams.lock()[1] = None;
    assert_eq!(result(&upstreams, call(&fake, "alice")).await, "{}");
    assert_eq!(streams.lock().len(), 3);
}

#[tokio::test]
async fn a_stream_that_ends_in_a_call_ends_the_call() {
    let streams: Arc<Mutex<Option<Streams>>> = Arc::default();
    let cut = Arc::clone(&streams);
    let (fake, held) = server(move |asked| {
        if asked.rpc() == "tools/call"
            && let Some(streams) = cut.lock().as_ref()
        {
            streams.lock().iter_mut().for_each(|stream| *stream = None);
        }
        vec![]
    })
    .await;
    *streams.lock() = Some(held);
    // Nobody said that the tool may be called twice.
    assert_eq!(reason(&upstreams(), call(&fake, "alice")).await, Reason::UpstreamClosed);
    assert_eq!(fake.seen("tools/call").len(), 1);
}

#[tokio::test]
async fn only_the_streams_own_origin_is_posted_to() {
    let other = Fake::start(|_| Reply::status(202)).await;
    let target = other.url.clone();
    let fake = Fake::start(move |asked| match asked.method.as_str() {
        "GET" => Reply::sse(format!("event: endpoint\ndata: {target}\n\n")),
        _ => Reply::status(405),
    })
    .await;
    assert_eq!(reason(&upstreams(), call(&fake, "alice")).await, Reason::UpstreamProtocol);
    assert!(other.asked.lock().is_empty());
}

#[tokio::test]
async fn a_client_of_an_older_revision_sees_through_to_the_session() {
    let (fake, _streams) = server(|asked| match asked.rpc() {
        "tools/call" => vec![
            event(r#"{"jsonrpc":"2.0","id":9,"method":"roots/list"}"#),
            event(&rpc_result(asked, "{\"content\":[]}")),
        ],
        "notifications/roots/list_changed" => {
            vec![event(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#)]
        }
        _ => vec![],
    })
    .await;
    let upstreams = upstreams();
    let mut hello = call(&fake, "alice");
    hello.front = testing::legacy_front("alice");
    hello.method = "initialize".to_owned();
    hello.id = json("\"c1\"");
    hello.params =
        json(r#"{"protocolVersion":"2024-11-05","capabilities":{"roots":{}},"clientInfo":{}}"#);
    let exchange = upstreams.call(hello.clone()).await.expect("a session");
    assert_eq!(exchange.back_revision, "2024-11-05");
    let session = exchange.session.clone().expect("a session");
    assert!(session.local);
    let session = session.id;
    assert_eq!(fake.seen("initialize").last().expect("one").body["id"], "c1");
    let channel = Channel {
        version: Arc::clone(&hello.version),
        session: session.clone(),
        revision: "2024-11-05".to_owned(),
        credentials: Vec::new(),
        deadline: Instant::now() + Duration::from_secs(5),
    };
    let mut call = hello;
    call.method = "tools/call".to_owned();
    call.session = Some(session);
    call.id = json("\"c2\"");
    call.params = json(r#"{"name":"t"}"#);
    let (messages, _) = all(upstreams.call(call.clone()).await.expect("a stream")).await;
    let [Message::Request(question), Message::Result(_)] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert!(String::from_utf8_lossy(question).contains("roots/list"));

    let Messages::Stream(mut pushed) =
        upstreams.open_stream(&channel, None).await.expect("a stream").messages
    else {
        panic!("no stream")
    };
    let note = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    upstreams.deliver(&channel, Bytes::from_static(note.as_bytes())).await.expect("delivered");
    assert!(matches!(pushed.recv().await, Some(Ok(Message::Notification(_)))));
    upstreams.delete_session(&channel).await.expect("ended");
    assert_eq!(reason(&upstreams, call).await, Reason::SessionUnknown);
}
