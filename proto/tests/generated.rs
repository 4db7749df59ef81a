//! The committed code is what the `.proto` files say.

use std::path::Path;

const PROTOS: &[&str] = &["weir/sync/v1/sync.proto"];

fn generate(out: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let set = protox::Compiler::new([root])
        .expect("an include folder")
        .include_source_info(true)
        .include_imports(true)
        .open_files(PROTOS)
        .expect("valid protos")
        .file_descriptor_set();
    tonic_prost_build::configure()
        .bytes(".weir.sync.v1")
        .client_mod_attribute(".", "#[cfg(feature = \"rpc\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"rpc\")]")
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .out_dir(out)
        .compile_fds(set)
        .expect("code");
}

#[test]
fn the_committed_code_is_up_to_date() {
    let fresh = tempfile::tempdir().expect("a folder");
    generate(fresh.path());
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen");
    let update = std::env::var_os("UPDATE").is_some();
    let mut files = 0;
    for entry in std::fs::read_dir(fresh.path()).expect("a listing") {
        let entry = entry.expect("an entry");
        let new = std::fs::read_to_string(entry.path()).expect("text");
        let target = committed.join(entry.file_name());
        if update {
            std::fs::create_dir_all(&committed).expect("a folder");
            std::fs::write(&target, &new).expect("written");
        }
        let old = std::fs::read_to_string(&target).unwrap_or_default();
        assert!(old == new, "{}: run `UPDATE=1 cargo test -p weir-proto`", target.display());
        files += 1;
    }
    assert_eq!(files, PROTOS.len());
}
