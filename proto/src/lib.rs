//! The wire between the planes: generated messages, and with the feature `rpc` the gRPC stubs.
//!
//! The sources are in `weir/`; what is in `src/gen/` is generated from them and committed, and a
//! test fails when the two differ. To generate it anew:
//!
//! ```text
//! UPDATE=1 cargo test -p weir-proto
//! ```

pub use prost;

/// Package `weir.sync.v1`.
pub mod sync {
    /// Version 1.
    #[allow(
        missing_docs,
        missing_debug_implementations,
        unreachable_pub,
        clippy::all,
        clippy::pedantic
    )]
    pub mod v1 {
        include!("gen/weir.sync.v1.rs");
    }
}
