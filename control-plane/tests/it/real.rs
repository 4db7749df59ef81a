//! Real components, where the caller of the tests has started them.

/// Endpoints of a real etcd out of `WEIR_TEST_ETCD`. Without it a test leaves out what needs
/// etcd and says so, unless `WEIR_REQUIRE_REAL=1`.
pub(crate) fn etcd(left_out: &str) -> Option<Vec<String>> {
    match std::env::var("WEIR_TEST_ETCD") {
        Ok(list) if !list.is_empty() => {
            let scheme = |e: &str| match e.contains("://") {
                true => e.to_owned(),
                false => format!("http://{e}"),
            };
            Some(list.split(',').map(str::trim).map(scheme).collect())
        }
        _ => {
            let required = std::env::var("WEIR_REQUIRE_REAL").is_ok_and(|v| v == "1");
            assert!(!required, "WEIR_REQUIRE_REAL=1, but WEIR_TEST_ETCD names no etcd");
            println!("left out (no WEIR_TEST_ETCD): {left_out}");
            None
        }
    }
}
