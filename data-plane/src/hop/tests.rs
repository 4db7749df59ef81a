use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use weir_model::id::Digest;
use weir_model::reason::{Reason, Refusal};
use weir_model::seal::NodeKey;
use weir_model::secret::Secret;
use weir_runtime::drain::{self, Drain};
use weir_runtime::metrics::Metrics;
use weir_runtime::testing::Ca;
use weir_runtime::tls::{certificates, private_key};

use super::*;
use crate::config::Identity;

const BOUND: Duration = Duration::from_secs(10);

/// Says what it was asked, then every part of the body as it comes.
#[derive(Debug)]
struct Parrot;

#[async_trait]
impl Holding for Parrot {
    async fn ask(&self, verb: &str, body: Body) -> Result<Body, Refusal> {
        if verb == "refuse" {
            return Err(Refusal::new(Reason::RateLimited, "too often")
                .hint("Slower.")
                .retry_after(7));
        }
        let verb = Bytes::from(format!("{verb}:"));
        let parts = body.into_data_stream();
        Ok(streamed(futures_util::stream::iter([Ok(verb)]).chain(parts)))
    }
}

fn identity(ca: &Ca, uri: &str) -> Result<Identity, crate::config::ConfigError> {
    let issued = ca.client("node", uri);
    let certificate = certificates(issued.chain.as_bytes(), "chain").unwrap().remove(0);
    let key = private_key(issued.key.as_bytes(), "key").unwrap();
    let authority = certificates(ca.pem().as_bytes(), "authority").unwrap().remove(0);
    let key = Secret::new(key.secret_der().to_vec());
    Identity::new(certificate.to_vec(), key, authority.to_vec(), NodeKey::generate())
}

struct Node {
    hop: Hop,
    _drain: Drain,
}

async fn node(ca: &Ca, name: &str) -> Node {
    let identity = identity(ca, &format!("spiffe://weir/region/eu/node/{name}")).unwrap();
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.address().unwrap().to_string();
    let identity = Some(Arc::new(ArcSwap::from_pointee(identity)));
    let hop = Hop::new(identity, Some(address), &Metrics::new());
    let (drain, watch) = drain::new(Duration::ZERO);
    tokio::spawn(listener.serve(hop.clone(), Arc::default(), watch));
    Node { hop, _drain: drain }
}

fn owner(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn ask(verb: &'static str, whose: &str, body: &'static str) -> Ask {
    Ask { owner: owner(whose), verb, body: whole(body) }
}

async fn text(body: Body) -> String {
    let body = tokio::time::timeout(BOUND, body.collect()).await.unwrap().unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn what_is_held_is_reached_from_here_and_from_there() {
    let ca = Ca::new("weir");
    let (a, b) = (node(&ca, "a").await, node(&ca, "b").await);
    let kept = a.hop.keep(owner("alice"), Arc::new(Parrot)).unwrap();
    for asker in [&a, &b, &b] {
        let answer = asker.hop.relay(kept.holder(), ask("say", "alice", "hello")).await;
        assert_eq!(text(answer.unwrap()).await, "say:hello");
        let refused = asker.hop.relay(kept.holder(), ask("refuse", "alice", "")).await;
        let Err(Lost::Refused(refusal)) = refused else { panic!("{refused:?}") };
        assert_eq!((refusal.reason, refusal.retry_after_secs), (Reason::RateLimited, Some(7)));
        assert_eq!((refusal.detail.as_str(), refusal.message()), ("too often", "Slower."));
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_at_the_same_time() {
    let ca = Ca::new("weir");
    let (a, b) = (node(&ca, "a").await, node(&ca, "b").await);
    let kept = a.hop.keep(owner("alice"), Arc::new(Parrot)).unwrap();
    let (sender, parts) = mpsc::channel(1);
    let ask = Ask {
        owner: owner("alice"),
        verb: "say",
        body: streamed(ReceiverStream::new(parts).map(|part: &'static str| Ok(part.into()))),
    };
    let mut answer = b.hop.relay(kept.holder(), ask).await.unwrap();
    for (send, expect) in [("", "say:"), ("one", "one"), ("two", "two")] {
        if !send.is_empty() {
            sender.send(send).await.unwrap();
        }
        let frame = tokio::time::timeout(BOUND, answer.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.data_ref().unwrap(), expect);
    }
    drop(sender);
    assert_eq!(text(answer).await, "");
}

#[tokio::test]
async fn what_is_gone_is_told_as_gone() {
    let ca = Ca::new("weir");
    let (a, b) = (node(&ca, "a").await, node(&ca, "b").await);
    let kept = a.hop.keep(owner("alice"), Arc::new(Parrot)).unwrap();
    let held = kept.holder().clone();
    let other = |change: fn(&mut Holder)| {
        let mut holder = held.clone();
        change(&mut holder);
        holder
    };
    // Somebody else's, another id, another life of the process, one that was let go of.
    let cases = [
        ("another owner", held.clone(), "bob"),
        ("another id", other(|h| h.id = "0".repeat(32)), "alice"),
        ("another epoch", other(|h| h.epoch = "0".repeat(32)), "alice"),
    ];
    for (what, holder, whose) in &cases {
        let answer = b.hop.relay(holder, ask("say", whose, "")).await;
        assert!(matches!(answer, Err(Lost::Gone)), "{what}: {answer:?}");
    }
    let (_, holder, whose) = &cases[0];
    assert!(matches!(a.hop.relay(holder, ask("say", whose, "")).await, Err(Lost::Gone)));
    drop(kept);
    for asker in [&a, &b] {
        let answer = asker.hop.relay(&held, ask("say", "alice", "")).await;
        assert!(matches!(answer, Err(Lost::Gone)), "{answer:?}");
    }
    let gone = Refusal::new(Reason::SessionUnknown, "the holder is gone");
    assert_eq!(Lost::Unreachable("x".into()).refusal(gone.clone()).reason, Reason::SessionUnknown);
    assert_eq!(Lost::Gone.refusal(gone).reason, Reason::SessionUnknown);
}

#[tokio::test]
async fn only_nodes_of_this_installation_talk_to_each_other() {
    let (ca, foreign) = (Ca::new("weir"), Ca::new("weir"));
    let (a, b) = (node(&ca, "a").await, node(&ca, "b").await);
    let stranger = node(&foreign, "b").await;
    let kept = a.hop.keep(owner("alice"), Arc::new(Parrot)).unwrap();
    let cases = [
        ("another authority", &stranger, kept.holder().clone()),
        (
            "another node at that address",
            &b,
            Holder { node: "eu/c".into(), ..kept.holder().clone() },
        ),
        ("another region", &b, Holder { node: "us/a".into(), ..kept.holder().clone() }),
        ("no node", &b, Holder { node: String::new(), ..kept.holder().clone() }),
        ("no address", &b, Holder { address: None, ..kept.holder().clone() }),
        ("nobody there", &b, Holder { address: Some(closed().await), ..kept.holder().clone() }),
    ];
    for (what, asker, holder) in cases {
        let answer = asker.hop.relay(&holder, ask("say", "alice", "")).await;
        assert!(matches!(answer, Err(Lost::Unreachable(_))), "{what}: {answer:?}");
    }
    // A certificate of the right authority that names no node cannot even be loaded as one.
    assert!(identity(&ca, "spiffe://weir/operator/x").is_err());
}

/// A certificate for servers, such as the control plane's, is no node's.
#[tokio::test]
async fn a_listener_s_certificate_is_no_node() {
    let ca = Ca::new("weir");
    let b = node(&ca, "b").await;
    let issued = ca.server(&["node.weir.internal"]);
    let certificate = weir_runtime::tls::ServerCertificate::from_pem(
        issued.chain.as_bytes(),
        issued.key.as_bytes(),
    );
    let mut config =
        weir_runtime::tls::server_config(certificate.unwrap(), weir_runtime::tls::ClientAuth::None)
            .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        while let Ok((socket, _)) = socket.accept().await {
            let _ = acceptor.accept(socket).await;
        }
    });
    let holder = Holder {
        node: "eu/a".into(),
        epoch: "0".repeat(32),
        address: Some(address),
        id: "0".repeat(32),
    };
    let answer = b.hop.relay(&holder, ask("say", "alice", "")).await;
    let Err(Lost::Unreachable(why)) = answer else { panic!("{answer:?}") };
    assert!(why.contains("certificate"), "{why}");
}

#[tokio::test]
async fn what_is_held_is_bounded() {
    let hop = Hop::new(None, None, &Metrics::new());
    let mut kept: Vec<_> = (0..weir_model::bounds::HOLDINGS_MAX)
        .map(|_| hop.keep(owner("alice"), Arc::new(Parrot)).unwrap())
        .collect();
    let full = hop.keep(owner("bob"), Arc::new(Parrot)).unwrap_err();
    assert_eq!(full.reason, Reason::Overloaded);
    kept.pop();
    assert!(hop.keep(owner("bob"), Arc::new(Parrot)).is_ok());
}

/// An address that nobody listens on.
async fn closed() -> String {
    let socket = tokio::net::TcpListener::bind::<SocketAddr>(([127, 0, 0, 1], 0).into());
    socket.await.unwrap().local_addr().unwrap().to_string()
}
