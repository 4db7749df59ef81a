//! MCP servers and a client on `rmcp`, an implementation that Weir does not share a line with.
//!
//! The demo and the tests put them on both sides of the gateway: a mistake of ours that both of
//! our own ends agreed on would not survive a peer who never heard of it.
//!
//! - [`orders`] and [`tickets`]: two small servers with different offers;
//! - [`serve`]: how such a server is put on stdio or on Streamable HTTP;
//! - [`conformance`]: the upstream that the public conformance suite knows how to test;
//! - [`agent`]: a client of either era; [`story`]: the demo told through it;
//! - [`authority`]: an authorization server that consents to everything;
//! - [`balance`]: round robin over several proxies.

pub mod agent;
pub mod authority;
pub mod balance;
pub mod conformance;
pub mod orders;
pub mod serve;
pub mod story;
pub mod tickets;

/// Makes the process's one TLS provider the one that Weir uses too. `rmcp` brings none of its
/// own here, and panics on first use without one.
pub fn install_crypto() {
    // A second call finds it installed and says so: nothing to do then.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}
