//! The guard against request forgery: which addresses the gateway may connect to.
//!
//! URLs of servers, issuers and key sets come from operators and from documents that others
//! publish. The connector resolves a name once, keeps the addresses that are allowed, and connects
//! to exactly those, so that a second look-up cannot swap the address after the check. Redirects
//! to another origin are never followed by the clients that are built on it.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;
use weir_model::bounds;

/// Addresses that hand out the credentials of the machine. Refused whatever the configuration says.
const METADATA_V4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254),
];

/// What an address is, as far as the guard cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Routed on the internet.
    Public,
    /// Loopback, private, link-local, carrier-grade NAT, documentation: allowed by `allowPrivate`.
    Private,
    /// Cloud metadata, multicast, broadcast, unspecified: never allowed.
    Never,
}

/// Classifies an address. Forms that carry an IPv4 address inside (mapped, compatible, NAT64,
/// 6to4) count as that address.
pub fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    let [a, b, c, _] = address.octets();
    let never = METADATA_V4.contains(&address)
        || a == 0
        || address.is_multicast()
        || address.is_broadcast();
    let private = address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 240;
    match (never, private) {
        (true, _) => Reach::Never,
        (false, true) => Reach::Private,
        (false, false) => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if METADATA_V6.contains(&address) || address.is_unspecified() || address.is_multicast() {
        return Reach::Never;
    }
    if address.is_loopback() {
        return Reach::Private;
    }
    if let Some(inner) = embedded_v4(address) {
        return reach_v4(inner);
    }
    let s = address.segments();
    let private = (s[0] & 0xfe00) == 0xfc00
        || (s[0] & 0xffc0) == 0xfe80
        || (s[0] & 0xffc0) == 0xfec0
        || (s[0] == 0x2001 && s[1] < 0x0200)
        || (s[0] == 0x2001 && s[1] == 0x0db8)
        || (s[0] == 0x3fff && s[1] < 0x1000)
        || s[0] == 0x5f00
        || s[0] == 0x0100
        || (s[0] == 0x0064 && s[1] == 0xff9b);
    if private { Reach::Private } else { Reach::Public }
}

/// The IPv4 address inside an IPv6 address: `::ffff:a.b.c.d`, `::a.b.c.d`, `64:ff9b::a.b.c.d`,
/// `2002:aabb:ccdd::`.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(join(high, low))
        }
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

/// Why no connection was made. For logs: names the address, so never shown to callers.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The URL has no host, or a port or scheme that makes no sense.
    #[error("the URL has no usable host")]
    NoHost,
    /// The name does not resolve.
    #[error("{host} does not resolve: {source}")]
    Resolve {
        /// Host name.
        host: String,
        /// Of the resolver.
        source: io::Error,
    },
    /// Every address is refused.
    #[error("{host} resolves to {address}, which is {what}")]
    Refused {
        /// Host name or literal.
        host: String,
        /// The first address that was refused.
        address: IpAddr,
        /// Remedy included.
        what: &'static str,
    },
    /// No address answered.
    #[error("cannot connect to {host}: {source}")]
    Connect {
        /// Host name or literal.
        host: String,
        /// Of the last attempt.
        source: io::Error,
    },
    /// It took longer than the bound.
    #[error("connecting to {0} took longer than the bound")]
    Timeout(String),
}

/// Keeps the addresses that may be connected to, in the resolver's order.
///
/// # Errors
/// Names the first refused address when none is left.
pub fn admit(
    host: &str,
    addresses: impl IntoIterator<Item = SocketAddr>,
    allow_private: bool,
) -> Result<Vec<SocketAddr>, GuardError> {
    let mut allowed = Vec::new();
    let mut refused = None;
    for address in addresses {
        match reach(address.ip()) {
            Reach::Public => allowed.push(address),
            Reach::Private if allow_private => allowed.push(address),
            Reach::Private => {
                refused.get_or_insert((
                    address.ip(),
                    "a private address; set allowPrivate if that is meant",
                ));
            }
            Reach::Never => {
                refused.get_or_insert((
                    address.ip(),
                    "a metadata, multicast or unspecified address, which is never allowed",
                ));
            }
        }
    }
    match (allowed.is_empty(), refused) {
        (false, _) => Ok(allowed),
        (true, Some((address, what))) => {
            Err(GuardError::Refused { host: host.to_owned(), address, what })
        }
        (true, None) => Err(GuardError::Resolve {
            host: host.to_owned(),
            source: io::Error::new(io::ErrorKind::NotFound, "no address"),
        }),
    }
}

/// Connects over TCP to addresses that the guard allows.
#[derive(Debug, Clone)]
pub struct Guarded {
    allow_private: bool,
}

impl Guarded {
    /// A connector; `allow_private` is the server's or issuer's own setting.
    pub fn new(allow_private: bool) -> Self {
        Self { allow_private }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>, GuardError> {
        let host = uri.host().ok_or(GuardError::NoHost)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match (uri.port_u16(), uri.scheme_str()) {
            (Some(port), _) => port,
            (None, Some("https")) => 443,
            (None, Some("http")) => 80,
            _ => return Err(GuardError::NoHost),
        };
        let found = tokio::net::lookup_host((host.as_str(), port))
            .await
            .map_err(|source| GuardError::Resolve { host: host.clone(), source })?;
        let allowed = admit(&host, found, self.allow_private)?;
        // One black hole must not eat the time of the address behind it.
        let each = bounds::CONNECT_MS / u64::try_from(allowed.len()).unwrap_or(u64::MAX).max(1);
        let each = Duration::from_millis(each.max(250));
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for address in allowed {
            match tokio::time::timeout(each, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(TokioIo::new(stream));
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::Error::from(io::ErrorKind::TimedOut),
            }
        }
        Err(GuardError::Connect { host, source: last })
    }
}

impl Service<Uri> for Guarded {
    type Response = TokioIo<TcpStream>;
    type Error = GuardError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, GuardError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), GuardError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach_of(text: &str) -> Reach {
        reach(text.parse().expect("an address"))
    }

    #[test]
    fn addresses_have_one_reach() {
        let table = [
            (Reach::Public, &["1.1.1.1", "2606:4700::1111", "172.32.0.1", "100.128.0.1"][..]),
            (
                Reach::Private,
                &[
                    "127.0.0.1",
                    "127.9.9.9",
                    "10.0.0.1",
                    "172.16.0.1",
                    "172.31.255.255",
                    "192.168.1.1",
                    "169.254.1.1",
                    "100.64.0.1",
                    "198.18.0.1",
                    "192.0.2.1",
                    "240.0.0.1",
                    "::1",
                    "fc00::1",
                    "fd12::1",
                    "fe80::1",
                    "fec0::1",
                    "2001:db8::1",
                    "2001::1",
                    "::ffff:127.0.0.1",
                    "::ffff:10.0.0.1",
                    "::7f00:1",
                    "64:ff9b::a00:1",
                    "2002:7f00:1::",
                    "64:ff9b:1::1",
                ],
            ),
            (
                Reach::Never,
                &[
                    "0.0.0.0",
                    "0.1.2.3",
                    "255.255.255.255",
                    "224.0.0.1",
                    "239.1.1.1",
                    "::",
                    "ff02::1",
                    "169.254.169.254",
                    "169.254.170.2",
                    "fd00:ec2::254",
                    "100.100.100.200",
                    "::ffff:169.254.169.254",
                    "64:ff9b::a9fe:a9fe",
                    "2002:a9fe:a9fe::",
                    "::ffff:0.0.0.0",
                    "168.63.129.16",
                ],
            ),
        ];
        for (want, addresses) in table {
            for address in addresses {
                assert_eq!(reach_of(address), want, "{address}");
            }
        }
    }

    #[test]
    fn what_is_refused_is_not_connected_to() {
        let at = |text: &str| SocketAddr::new(text.parse().expect("an address"), 80);
        let mixed = [at("10.0.0.1"), at("1.1.1.1")];
        assert_eq!(admit("h", mixed, false).expect("one is left"), vec![at("1.1.1.1")]);
        assert_eq!(admit("h", mixed, true).expect("both"), mixed.to_vec());
        let error = admit("h", [at("127.0.0.1")], false).expect_err("private");
        assert!(error.to_string().contains("allowPrivate"), "{error}");
        assert!(admit("h", [at("169.254.169.254")], true).is_err());
        assert!(admit("h", [], true).is_err());
    }

    #[tokio::test]
    async fn the_connector_refuses_before_it_connects() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let uri: Uri = format!("http://localhost:{port}/").parse().expect("uri");
        let refused = Guarded::new(false).call(uri.clone()).await;
        assert!(matches!(refused, Err(GuardError::Refused { .. })), "{refused:?}");
        assert!(Guarded::new(true).call(uri).await.is_ok());
        let literal: Uri = "http://[::ffff:169.254.169.254]/latest".parse().expect("uri");
        let refused = Guarded::new(true).call(literal).await;
        assert!(matches!(refused, Err(GuardError::Refused { .. })), "{refused:?}");
    }
}
