//! etcd as it is run in earnest: TLS both ways, a user with a password, a role for one prefix.
//!
//! Starts an etcd of its own, since switching authentication on changes it for everybody.

use std::process::Stdio;
use std::time::Duration;

use control_plane::store::etcd::{Etcd, Options, Tls};
use control_plane::store::{Store, StoreError};
use etcd_client::{
    Certificate, Client, ConnectOptions, Identity, Permission, PermissionType, TlsOptions,
};
use tokio::process::{Child, Command};
use weir_model::id::Revision;
use weir_model::secret::Secret;
use weir_runtime::testing::{Ca, Issued, eventually};

use crate::real;

struct Server {
    _process: Child,
    _dir: tempfile::TempDir,
    endpoint: String,
    ca: Ca,
    client: Issued,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    fn start() -> std::io::Result<Self> {
        weir_runtime::tls::install_provider();
        let dir = tempfile::tempdir()?;
        let ca = Ca::new("etcd-test");
        let (certificate, key) = ca.server(&["localhost", "127.0.0.1"]).write(dir.path(), "server");
        let authority = dir.path().join("ca.pem");
        std::fs::write(&authority, ca.pem())?;
        let endpoint = format!("https://127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(["--client-cert-auth", "--auth-token-ttl", "2"])
            .arg("--cert-file")
            .arg(certificate)
            .arg("--key-file")
            .arg(key)
            .arg("--trusted-ca-file")
            .arg(authority)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        // No common name: etcd would take it for the user.
        let client = ca.client("", "spiffe://weir.test/control-plane");
        Ok(Self { _process: process, _dir: dir, endpoint, ca, client })
    }

    async fn root(&self) -> Result<Client, etcd_client::Error> {
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(self.ca.pem()))
            .identity(Identity::from_pem(&self.client.chain, &self.client.key));
        let options = ConnectOptions::new().with_tls(tls).with_timeout(Duration::from_secs(5));
        let mut client = Client::connect([&self.endpoint], Some(options)).await?;
        client.get("x", None).await?;
        Ok(client)
    }

    /// A user for our prefix, then authentication for everybody.
    async fn secure(&self) {
        let mut root = self.root().await.unwrap();
        root.role_add("weir").await.unwrap();
        let ours = Permission::new(PermissionType::Readwrite, "/weir/").with_prefix();
        root.role_grant_permission("weir", ours).await.unwrap();
        root.user_add("weir", "s3cr3t", None).await.unwrap();
        root.user_grant_role("weir", "weir").await.unwrap();
        root.user_add("root", "r00t", None).await.unwrap();
        root.user_grant_role("root", "root").await.unwrap();
        root.auth_enable().await.unwrap();
    }

    fn options(&self, password: &str, prefix: &str) -> Options {
        let identity = (self.client.chain.clone(), Secret::new(self.client.key.clone()));
        Options {
            endpoints: vec![self.endpoint.clone()],
            prefix: prefix.to_owned(),
            user: Some(("weir".to_owned(), Secret::new(password.to_owned()))),
            tls: Tls { ca: Some(self.ca.pem()), identity: Some(identity), server_name: None },
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_with_tls_and_users() {
    if real::etcd("etcd with TLS and users").await.is_none() {
        return;
    }
    let server = Server::start().expect("etcd is installed where WEIR_TEST_ETCD is set");
    let up = eventually(Duration::from_secs(20), async || server.root().await.is_ok()).await;
    assert!(up, "etcd did not come up");
    server.secure().await;

    let store = Etcd::new(server.options("s3cr3t", "/weir/")).unwrap();
    let put = |n: &str| vec![control_plane::store::Op::Put("a".into(), n.to_owned().into())];
    let first = store.commit(vec![], put("1")).await.unwrap();
    let mut changes = store.watch("a", first).await.unwrap();
    // Longer than a token of etcd lives (using it would prolong it, so nothing can be polled): it
    // is fetched anew, and the watch goes on.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let second = store.commit(vec![], put("2")).await.unwrap();
    let change = futures_util::StreamExt::next(&mut changes).await.unwrap().unwrap();
    assert_eq!(change.revision, second);
    assert_eq!(store.list("").await.unwrap().entries.len(), 1);

    for (options, what) in [
        (server.options("wrong", "/weir/"), "a wrong password"),
        (server.options("s3cr3t", "/elsewhere/"), "a prefix of others"),
    ] {
        let refused = Etcd::new(options).unwrap().get("a").await;
        let Err(StoreError::Unavailable(why)) = refused else { panic!("{what}: {refused:?}") };
        assert!(why.contains("refuses the control plane's user"), "{what}: {why}");
        assert!(!why.contains("s3cr3t") && !why.contains("wrong"), "{why}");
    }
    let refused = Etcd::new(server.options("s3cr3t", "/elsewhere/")).unwrap();
    assert!(refused.watch("a", Revision(0)).await.is_err(), "a watch outside of the grant");
    let mut strangers = server.options("s3cr3t", "/weir/");
    strangers.tls.identity = None;
    assert!(Etcd::new(strangers).unwrap().get("a").await.is_err(), "without our certificate");
    let mut impostor = server.options("s3cr3t", "/weir/");
    impostor.tls.ca = Some(Ca::new("another").pem());
    assert!(Etcd::new(impostor).unwrap().get("a").await.is_err(), "another authority");
}
