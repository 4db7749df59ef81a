use std::time::Duration;

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;
use weir_model::resource::ResourceSet;
use weir_model::seal::NodeKey;
use weir_model::sync::identity::PLANE_SERVER_NAME;
use weir_model::sync::{Applied, Hello, NodeFrame, PlaneFrame};
use weir_model::testing::World;
use weir_model::wire;
use weir_proto::sync::v1::sync_client::SyncClient;
use weir_runtime::clock::SystemClock;
use weir_runtime::drain::Drain;
use weir_runtime::tls::provider;

use super::*;
use crate::author::Author;
use crate::index::{self, Index};
use crate::observe::Observer;
use crate::store::embedded::{Embedded, History};
use crate::store::{HEAD, Op};
use crate::vault::LocalKeys;

const LIMIT: Duration = Duration::from_secs(10);

struct Bench {
    ca: Arc<Ca>,
    store: Arc<dyn Store>,
    pipe: mpsc::Sender<DuplexStream>,
    drain: Drain,
    served: tokio::task::JoinHandle<Result<(), ServeError>>,
    index: Index,
}

fn unix() -> i64 {
    i64::try_from(SystemClock::shared().now_secs()).unwrap()
}

async fn bench(set: &ResourceSet) -> Bench {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(History::default()).unwrap());
    let mut ops = vec![Op::Put(HEAD.to_owned(), bytes::Bytes::new())];
    ops.extend(set.iter().map(|r| Op::Put(index::path(&r.key), r.canonical.clone())));
    for ops in ops.chunks(20) {
        store.commit(Vec::new(), ops.to_vec()).await.unwrap();
    }
    let keys = LocalKeys::generate().unwrap();
    let vault = Vault::new(Arc::new(LocalKeys::parse(keys.expose()).unwrap()));
    let clock = SystemClock::shared();
    let ca = Arc::new(Ca::load_or_make(&*store, &vault, unix()).await.unwrap());
    let index = Index::start(store.clone(), CancellationToken::new()).await.unwrap();
    let author = Author::new(store.clone(), vault.clone(), index.newest());
    let fleet = Fleet::new(store.clone(), "cp".to_owned(), clock.clone());
    let sign_ins = SignIns::new(store.clone(), author.clone(), clock.clone());
    let (intake, _) = Intake::new(Observer::new(store.clone(), author), fleet.clone());
    let timing = Timing { heartbeat: Duration::from_millis(200), ..Timing::default() };
    let witness = Witness::load_or_make(&store, &vault, clock.clone()).await.unwrap();
    let parts = Parts {
        replica: "cp".to_owned(),
        newest: index.newest(),
        ca: ca.clone(),
        enrolment: Enrolment::new(store.clone(), ca.clone(), clock.clone()),
        fleet,
        intake,
        witness,
        sign_ins,
        audit: None,
        clock,
        timing,
    };
    let publish = Publish::new(parts, Arc::clone(&store), vault).unwrap();
    let (pipe, theirs) = listen::pipe();
    let (drain, watch) = weir_runtime::drain::new(Duration::from_secs(5));
    let served = tokio::spawn(publish.serve(None, Some(theirs), watch));
    Bench { ca, store, pipe, drain, served, index }
}

fn id(node: &str) -> NodeId {
    NodeId { region: "eu".parse().unwrap(), node: node.parse().unwrap() }
}

type Shown = Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>;

/// A certificate of `ca`, good for `secs` from now.
fn certificate(ca: &Ca, secs: i64) -> Shown {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let leaf = ca.issue_node(request.der(), &id("n1"), unix(), secs).unwrap();
    Some((leaf, PrivateKeyDer::try_from(key.serialize_der()).unwrap()))
}

fn request() -> Vec<u8> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
}

impl Bench {
    async fn client(&self, shown: Shown) -> SyncClient<Channel> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.certificate().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut tls = match shown {
            Some((leaf, key)) => builder.with_client_auth_cert(vec![leaf], key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let tls = tokio_rustls::TlsConnector::from(Arc::new(tls));
        let pipe = self.pipe.clone();
        let connector = tower::service_fn(move |_| {
            let (tls, pipe) = (tls.clone(), pipe.clone());
            async move {
                let (ours, theirs) = tokio::io::duplex(64 * 1024);
                pipe.send(theirs).await.map_err(std::io::Error::other)?;
                let name = ServerName::try_from(PLANE_SERVER_NAME).unwrap();
                tls.connect(name, ours).await.map(TokioIo::new)
            }
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://test");
        SyncClient::new(endpoint.connect_with_connector_lazy(connector))
    }
}

fn hello(node: &str) -> NodeFrame {
    NodeFrame::Hello(Hello {
        node: node.parse().unwrap(),
        region: "eu".parse().unwrap(),
        build: "test".to_owned(),
        schema: 1,
        applied: Applied::default(),
        sealing_key: NodeKey::generate().public(),
        refused: Vec::new(),
    })
}

struct Stream {
    frames: Streaming<v1::PlaneFrame>,
    out: mpsc::Sender<v1::NodeFrame>,
}

impl Stream {
    async fn open(client: &mut SyncClient<Channel>) -> Result<Self, Status> {
        let (out, frames) = mpsc::channel(8);
        let answer = client.watch(ReceiverStream::new(frames)).await?;
        Ok(Self { frames: answer.into_inner(), out })
    }
    async fn send(&self, frame: NodeFrame) {
        self.out.send(wire::to_node_frame(frame)).await.unwrap();
    }
    async fn next(&mut self) -> Result<PlaneFrame, Status> {
        let next = tokio::time::timeout(LIMIT, self.frames.message()).await.unwrap()?;
        Ok(wire::from_plane_frame(next.expect("the stream goes on")).unwrap())
    }
    /// The status with which the stream ends.
    async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

#[tokio::test]
async fn without_a_certificate_a_node_may_only_enrol() {
    let bench = bench(&ResourceSet::default()).await;
    let mut client = bench.client(None).await;
    let renew = v1::RenewRequest { certificate_request: request().into() };
    assert_eq!(client.renew(renew).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(Stream::open(&mut client).await.err().unwrap().code(), Code::Unauthenticated);
    let enrol = v1::EnrolRequest { token: "weir_en_1_x".to_owned(), ..Default::default() };
    assert_eq!(client.enrol(enrol).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_worth_nothing() {
    let nothing = ResourceSet::default();
    let (bench, other) = tokio::join!(bench(&nothing), bench(&nothing));
    let mut client = bench.client(certificate(&other.ca, 60)).await;
    let error = Stream::open(&mut client).await.err().unwrap();
    assert_ne!(error.code(), Code::Ok, "{error}");
    let mut good = bench.client(certificate(&bench.ca, 60)).await;
    assert!(Stream::open(&mut good).await.is_ok());
}

#[tokio::test]
async fn an_ended_certificate_renews_and_nothing_else() {
    let bench = bench(&ResourceSet::default()).await;
    let mut client = bench.client(certificate(&bench.ca, -10)).await;
    let error = Stream::open(&mut client).await.err().unwrap();
    assert!(error.message().contains("renew"), "{error}");
    let renew = v1::RenewRequest { certificate_request: request().into() };
    let renewed = client.renew(renew.clone()).await.unwrap().into_inner();
    let peer = weir_runtime::tls::peer_identity(&renewed.certificate.to_vec().into()).unwrap();
    assert_eq!(peer.sole_uri(), Some("spiffe://weir/region/eu/node/n1"));
    let long_ago = -bounds::NODE_RENEW_GRACE_SECS - 60;
    let mut client = bench.client(certificate(&bench.ca, long_ago)).await;
    assert!(client.renew(renew).await.is_err());
}

#[tokio::test]
async fn a_stream_ends_with_the_certificate() {
    let bench = bench(&ResourceSet::default()).await;
    let mut client = bench.client(certificate(&bench.ca, 2)).await;
    let mut stream = Stream::open(&mut client).await.unwrap();
    stream.send(hello("n1")).await;
    assert!(matches!(stream.next().await, Ok(PlaneFrame::Welcome { .. })));
    // Heartbeats keep it alive until then.
    let out = stream.out.clone();
    let beat = tokio::spawn(async move {
        let frame = wire::to_node_frame(NodeFrame::Heartbeat(Applied::default()));
        while out.send(frame.clone()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let end = stream.end().await;
    assert!(end.message().contains("the certificate has ended"), "{end}");
    beat.abort();
}

#[tokio::test]
async fn a_node_is_who_its_certificate_says() {
    let bench = bench(&ResourceSet::default()).await;
    let mut client = bench.client(certificate(&bench.ca, 60)).await;
    let mut stream = Stream::open(&mut client).await.unwrap();
    stream.send(hello("n2")).await;
    let end = stream.end().await;
    assert_eq!(end.code(), Code::PermissionDenied, "{end}");
}

#[tokio::test]
async fn nonsense_ends_the_stream_with_the_field_at_fault() {
    let bench = bench(&ResourceSet::default()).await;
    let mut client = bench.client(certificate(&bench.ca, 60)).await;
    let mut stream = Stream::open(&mut client).await.unwrap();
    stream.out.send(v1::NodeFrame { body: None }).await.unwrap();
    assert!(stream.end().await.message().starts_with("body"), "names the field");

    let mut stream = Stream::open(&mut client).await.unwrap();
    stream.send(NodeFrame::Heartbeat(Applied::default())).await;
    assert!(stream.end().await.message().contains("Hello"));

    let mut stream = Stream::open(&mut client).await.unwrap();
    let message = "x".repeat(bounds::SYNC_MESSAGE_BYTES_MAX + 1);
    stream.send(NodeFrame::Resync { nonce: 0, message }).await;
    let end = stream.end().await;
    assert_ne!(end.code(), Code::Ok, "{end}");
}

#[tokio::test]
async fn a_silent_node_is_given_up_and_a_drain_says_goodbye() {
    let bench = bench(&ResourceSet::default()).await;
    let mut client = bench.client(certificate(&bench.ca, 60)).await;
    let mut stream = Stream::open(&mut client).await.unwrap();
    stream.send(hello("n1")).await;
    assert!(stream.end().await.message().contains("silent"));

    let mut stream = Stream::open(&mut client).await.unwrap();
    stream.send(hello("n1")).await;
    assert!(matches!(stream.next().await, Ok(PlaneFrame::Welcome { .. })));
    bench.drain.start();
    let end = stream.end().await;
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    drop(client);
    tokio::time::timeout(LIMIT, bench.served).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn large_states_come_in_parts_below_the_limit_of_a_message() {
    let mut world = World::new().group("g");
    for at in 0..60 {
        let text = format!("forbid (principal, action, resource); // {}", "x".repeat(60_000));
        world = world.policy("g", &format!("p{at}"), &text);
    }
    let set = world.set();
    let bench = bench(&set).await;
    let mut client = bench.client(certificate(&bench.ca, 60)).await;
    let mut stream = Stream::open(&mut client).await.unwrap();
    stream.send(hello("n1")).await;
    let (mut keys, mut parts) = (0, 0);
    loop {
        let PlaneFrame::Update(part) = stream.next().await.unwrap() else { continue };
        assert_eq!((part.part, part.head.base), (parts, None));
        assert_eq!(part.head.target.digest, set.for_region(&"eu".parse().unwrap()).digest());
        keys += part.upserts.len();
        parts += 1;
        if parts == part.head.parts {
            break;
        }
    }
    assert_eq!(keys, set.len());
    assert!(parts > 1, "{parts}");
}

/// What a node that says it has `applied` is sent: whether it begins with that, and the documents.
async fn sent(bench: &Bench, applied: Applied) -> (bool, Vec<String>) {
    let mut client = bench.client(certificate(&bench.ca, 60)).await;
    let mut stream = Stream::open(&mut client).await.unwrap();
    let NodeFrame::Hello(greeting) = hello("n1") else { unreachable!("is a Hello") };
    stream.send(NodeFrame::Hello(Hello { applied, ..greeting })).await;
    loop {
        if let PlaneFrame::Update(part) = stream.next().await.unwrap() {
            let keys = part.upserts.into_iter().map(|(key, _)| key);
            return (part.head.base == Some(applied), keys.collect());
        }
    }
}

#[tokio::test]
async fn a_node_whose_state_is_only_in_the_store_gets_what_changed_since() {
    let world = World::new().group("g").policy("g", "p1", "forbid (principal, action, resource);");
    let bench = bench(&world.set()).await;
    let newest = bench.index.newest();
    let had = Applied { revision: newest.borrow().revision, digest: world.set().digest() };
    let world = world.policy("g", "p2", "forbid (principal, action, resource);");
    let key = weir_model::resource::ResourceKey::parse("Policy/g/p2").unwrap();
    let added = world.set().get(&key).unwrap().canonical.clone();
    let (guard, head) = index::head(had.revision);
    let ops = vec![head, Op::Put(index::path(&key), added)];
    let revision = bench.store.commit(vec![guard], ops).await.unwrap();
    assert!(index::reached(&mut bench.index.newest(), revision).await);
    // No stream has seen the state before.
    assert_eq!(sent(&bench, had).await, (true, vec!["Policy/g/p2".to_owned()]));
    // Another digest, and a node that wants everything.
    let digests = [weir_model::id::Digest::of(b"other"), weir_model::id::Digest::default()];
    for digest in digests {
        let (based, keys) = sent(&bench, Applied { digest, ..had }).await;
        assert!(!based && keys.len() == world.set().len(), "{digest:?}: {keys:?}");
    }
}

#[tokio::test]
async fn what_is_the_same_for_all_nodes_is_worked_out_once() {
    let view = |at: u64, set: &ResourceSet| {
        Arc::new(weir_model::sync::publisher::View::new(weir_model::id::Revision(at), set.clone()))
    };
    let world = World::new().group("g");
    let (old, new) = (view(1, &world.set()), view(2, &world.clone().group("h").set()));
    let plan = |nonce| weir_model::sync::publisher::Plan {
        heading: weir_model::sync::delta::Heading {
            nonce,
            target: new.applied,
            base: Some(old.applied),
            rollback: false,
        },
        from: Some(old.clone()),
        to: new.clone(),
    };
    let ways = Ways::default();
    let (one, two) = (ways.delta(&plan(1)).await.unwrap(), ways.delta(&plan(2)).await.unwrap());
    assert!(Arc::ptr_eq(&one, &two));
    assert_eq!((one.upserts().len(), one.removals().len()), (1, 0));
    let bench = bench(&ResourceSet::default()).await;
    let signer = || Arc::new(bench.ca.signer(unix(), 60).unwrap());
    let (first, region) = (signer(), "eu".parse().unwrap());
    let signed = ways.statement(&region, new.applied, &first);
    assert_eq!(ways.statement(&region, new.applied, &first), signed);
    assert_ne!(ways.statement(&region, old.applied, &first), signed);
    // A new signer signs anew: the endorsement of the one before ends.
    let second = signer();
    assert_ne!(ways.statement(&region, old.applied, &second).signer, signed.signer);
}
