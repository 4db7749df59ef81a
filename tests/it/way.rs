//! A way between two sockets that can be watched, slowed down and cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// The way to an address: passes bytes on, late if told to, until it is cut.
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    taken: Arc<AtomicUsize>,
    pub(crate) cut: CancellationToken,
}

impl Way {
    /// To a product's address; every connection is made `late`.
    pub(crate) async fn to(target: &str, late: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = target.trim_start_matches("http://").to_owned();
        let (cut, taken) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let (stop, count) = (cut.clone(), Arc::clone(&taken));
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stop.cancelled() => return,
                };
                let (client, _) = accepted.unwrap();
                let way = (target.clone(), late, Arc::clone(&count));
                tokio::spawn(carry(client, way, stop.clone()));
            }
        });
        Self { address, taken, cut }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/shop/mcp", self.address)
    }

    /// How many pieces have been passed on towards the target.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// Every piece of an answer comes late; every piece of a request is counted.
async fn carry(
    client: TcpStream,
    (target, late, count): (String, Duration, Arc<AtomicUsize>),
    stop: CancellationToken,
) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            if to_server.write_all(&buffer[..read]).await.is_err() {
                return;
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    let back = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            tokio::time::sleep(late).await;
            if to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
        () = stop.cancelled() => {}
    }
}
