//! The fleet that load tests simulate, at a small size: what must hold whatever the machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use weir_loadtest::fleet::world::World;
use weir_loadtest::fleet::{self, Plan};

/// Bytes that an edit of one field may cost at a proxy.
const EDIT_BYTES_MAX: u64 = 2 * 1024;

fn binary(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_weir")).with_file_name(name);
    assert!(path.exists(), "{} is missing: cargo build --workspace", path.display());
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_costs_little_and_nobody_is_sent_everything_twice() {
    let plan = Plan {
        binary: binary("weir-control-plane"),
        etcd: None,
        proxies: 8,
        world: World { groups: 2, servers: 40, tools_each: 3 },
        edits: 5,
        idle: Duration::from_millis(100),
        patience: Duration::from_secs(60),
    };
    let report = fleet::run(&plan, &|_| ()).await.unwrap();
    let figures = &report.figures;
    for edits in [&figures.server_edits, &figures.tool_edits] {
        assert_eq!((edits.count, edits.whole_states), (5, 0), "{edits:?}");
    }
    let bytes = figures.server_edits.bytes_per_proxy;
    assert!(bytes <= EDIT_BYTES_MAX, "{bytes} bytes for an edit of one field");
    // Whoever comes back is sent what changed, also by a control plane that has started anew.
    for storm in
        [figures.all_cut, figures.edit_while_away, figures.restart, figures.restart_and_edit]
    {
        assert_eq!(storm.whole_states, 0, "{report:#?}");
    }
    assert!(report.markdown().contains("edit of a server: to each proxy"));
}
