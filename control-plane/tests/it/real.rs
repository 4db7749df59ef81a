//! Real components, where the caller of the tests has started them.

use std::io::Write as _;

use tokio::sync::{Mutex, MutexGuard};

/// etcd's history is one for all its users, and some tests compact it: one test at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A real etcd.
pub(crate) struct Etcd {
    pub(crate) endpoints: Vec<String>,
    _alone: MutexGuard<'static, ()>,
}

/// Endpoints of a real etcd out of `WEIR_TEST_ETCD`. Without it a test leaves out what needs
/// etcd and says so, unless `WEIR_REQUIRE_REAL=1`.
pub(crate) async fn etcd(left_out: &str) -> Option<Etcd> {
    match std::env::var("WEIR_TEST_ETCD") {
        Ok(list) if !list.is_empty() => {
            let scheme = |e: &str| match e.contains("://") {
                true => e.to_owned(),
                false => format!("http://{e}"),
            };
            let endpoints = list.split(',').map(str::trim).map(scheme).collect();
            Some(Etcd { endpoints, _alone: ALONE.lock().await })
        }
        _ => {
            let required = std::env::var("WEIR_REQUIRE_REAL").is_ok_and(|v| v == "1");
            assert!(!required, "WEIR_REQUIRE_REAL=1, but WEIR_TEST_ETCD names no etcd");
            // Past the harness, which swallows what tests that pass print.
            let told = format!("left out (no WEIR_TEST_ETCD): {left_out}\n");
            std::io::stderr().write_all(told.as_bytes()).unwrap();
            None
        }
    }
}
