//! Against servers that answer as they are told, byte by byte.

use std::time::Duration;

use futures_util::FutureExt as _;
use http::Method;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use weir_runtime::testing::eventually;

use super::*;

const BOUND: Duration = Duration::from_secs(10);
const FINE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BEGUN: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n";

/// Gives each request of its first connection the first list's next answer, of its second the
/// second's, and closes a connection behind its last. Tells what it was asked.
struct Server {
    to: Uri,
    asked: mpsc::Receiver<String>,
    /// Ends with how many connections ended by their client.
    task: JoinHandle<usize>,
}

impl Server {
    async fn start(plan: &'static [&'static [&'static str]]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = format!("http://{}/mcp?x=1", listener.local_addr().unwrap());
        let (tell, asked) = mpsc::channel(16);
        let task = tokio::spawn(async move {
            let mut left = 0;
            for answers in plan {
                let (mut stream, _) = listener.accept().await.unwrap();
                for answer in *answers {
                    match request(&mut stream).await {
                        Some(request) => tell.send(request).await.unwrap(),
                        None => left += 1,
                    }
                    // An empty answer waits for the client to leave.
                    match answer.is_empty() {
                        true => left += usize::from(request(&mut stream).await.is_none()),
                        false => stream.write_all(answer.as_bytes()).await.unwrap(),
                    }
                }
            }
            left
        });
        Self { to: to.parse().unwrap(), asked, task }
    }

    async fn ended(self) -> usize {
        tokio::time::timeout(BOUND, self.task).await.expect("ends").expect("no panic")
    }
}

/// One request; none when the client has left.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n{}") {
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(1) => text.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8(text).unwrap())
}

fn direct() -> Direct {
    Direct::new(Guarded::new(true))
}

fn post(to: &Uri) -> Asked {
    let mut asked = Request::new(Full::new(Bytes::from_static(b"{}")));
    *asked.method_mut() = Method::POST;
    *asked.uri_mut() = to.clone();
    asked
}

async fn text(direct: &Direct, to: &Uri) -> Result<Bytes, Lost> {
    let answer = tokio::time::timeout(BOUND, direct.request(post(to))).await.expect("answers")?;
    let body = tokio::time::timeout(BOUND, answer.into_body().collect()).await.expect("ends")?;
    Ok(body.to_bytes())
}

fn kept(direct: &Direct) -> usize {
    direct.idle.lock().len()
}

#[tokio::test]
async fn requests_that_follow_each_other_share_a_connection() {
    let mut server = Server::start(&[&[FINE, FINE, FINE]]).await;
    let direct = direct();
    for _ in 0..3 {
        assert_eq!(text(&direct, &server.to).await.unwrap(), "ok");
    }
    let authority = server.to.authority().unwrap().to_string();
    for _ in 0..3 {
        let asked = server.asked.recv().await.unwrap().to_lowercase();
        assert!(asked.starts_with("post /mcp?x=1 http/1.1\r\n"), "{asked}");
        assert!(asked.contains(&format!("\r\nhost: {authority}\r\n")), "{asked}");
    }
    assert_eq!(server.ended().await, 0);
}

#[tokio::test]
async fn what_the_server_closed_is_not_used_again() {
    let server = Server::start(&[&[FINE], &[FINE]]).await;
    let direct = direct();
    assert_eq!(text(&direct, &server.to).await.unwrap(), "ok");
    let closed = async || {
        direct.sweep();
        kept(&direct) == 0
    };
    assert!(eventually(BOUND, closed).await);
    assert_eq!(text(&direct, &server.to).await.unwrap(), "ok");
}

#[tokio::test]
async fn answers_that_close_their_connection_leave_none() {
    const LAST: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
    const UNTIL_CLOSED: &str = "HTTP/1.0 200 OK\r\n\r\nok";
    let server = Server::start(&[&[LAST], &[UNTIL_CLOSED], &[FINE, ""]]).await;
    let direct = direct();
    for left in [0, 0, 1] {
        assert_eq!(text(&direct, &server.to).await.unwrap(), "ok");
        assert_eq!(kept(&direct), left);
    }
}

#[tokio::test]
async fn what_may_have_been_executed_is_not_sent_again() {
    const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-le";
    let mut server = Server::start(&[&[FINE, HALF], &[FINE]]).await;
    let direct = direct();
    assert_eq!(text(&direct, &server.to).await.unwrap(), "ok");
    assert!(matches!(text(&direct, &server.to).await, Err(Lost::Broken(_))));
    assert_eq!(text(&direct, &server.to).await.unwrap(), "ok");
    for _ in 0..3 {
        assert!(server.asked.recv().await.is_some());
    }
    assert_eq!(server.asked.recv().await, None);
}

#[tokio::test]
async fn an_answer_comes_bit_by_bit_and_then_its_connection_is_free() {
    const REST: &str = "3\r\ntwo\r\n0\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let direct = direct();
    let asking = direct.request(post(&to));
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await.unwrap();
        stream.write_all(BEGUN.as_bytes()).await.unwrap();
        stream
    };
    let (answer, mut stream) = tokio::join!(asking, serving);
    let mut body = answer.unwrap().into_body();
    let data = |frame: Option<Result<Frame<Bytes>, hyper::Error>>| {
        frame.map(|frame| frame.unwrap().into_data().unwrap())
    };
    assert_eq!(data(body.frame().await).unwrap(), "one");
    assert!(body.frame().now_or_never().is_none(), "no more has come");
    assert_eq!(kept(&direct), 0);
    stream.write_all(REST.as_bytes()).await.unwrap();
    assert_eq!(data(body.frame().await).unwrap(), "two");
    assert_eq!(data(body.frame().await), None);
    drop(body);
    assert_eq!(kept(&direct), 1);
}

#[tokio::test]
async fn leaving_closes_the_connection() {
    // Before the answer, and within it.
    const PLANS: [&[&[&str]]; 2] = [&[&[""]], &[&[BEGUN, ""]]];
    for plan in PLANS {
        let mut server = Server::start(plan).await;
        let direct = direct();
        {
            let mut asking = Box::pin(direct.request(post(&server.to)));
            tokio::select! {
                answer = &mut asking => {
                    let mut body = answer.unwrap().into_body();
                    assert!(body.frame().await.is_some());
                }
                _ = server.asked.recv(), if plan[0].len() == 1 => {}
            }
        }
        assert_eq!(kept(&direct), 0);
        assert!(server.ended().await > 0, "the server sees that the client has left");
    }
}

#[tokio::test]
async fn long_bodies_pass_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let long = "x".repeat(3 << 20);
    let mut asked = post(&to);
    *asked.body_mut() = Full::new(Bytes::from(format!("{long}\r\n\r\n{{}}")));
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = 0;
        while read < long.len() + 6 {
            read += stream.read(&mut vec![0; 1 << 16]).await.unwrap();
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", long.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(long.as_bytes()).await.unwrap();
    };
    let direct = direct();
    let asking = async { direct.request(asked).await.unwrap().into_body().collect().await };
    let both = async { tokio::join!(asking, serving).0.unwrap().to_bytes() };
    let answer = tokio::time::timeout(BOUND, both).await.expect("ends");
    assert_eq!(answer.len(), long.len());
}

#[tokio::test]
async fn nobody_there_means_that_nothing_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let guarded = Direct::new(Guarded::new(false));
    assert!(matches!(text(&guarded, &to).await, Err(Lost::Unconnected(_))), "a private address");
    drop(listener);
    assert!(matches!(text(&direct(), &to).await, Err(Lost::Unconnected(_))));
}
