//! The program itself: what it says about its settings before it does anything.

use std::process::{Command, Output};

fn check(settings: &str, env: &[(&str, &str)]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weir.yaml");
    std::fs::write(&file, settings).unwrap();
    Command::new(env!("CARGO_BIN_EXE_weir-data-plane"))
        .args(["--check", "--config"])
        .arg(&file)
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

#[test]
fn good_settings_are_shown_without_secrets() {
    let settings = "control: {addresses: [\"cp.example:7401\"]}\nregion: eu\n";
    let output = check(settings, &[("WEIR_DP_LISTEN__ADDRESS", "127.0.0.1:7999")]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("listen.address = \"127.0.0.1:7999\""), "{text}");
    assert!(text.contains("cp.example:7401"), "{text}");
}

#[test]
fn bad_settings_are_named_with_the_remedy() {
    for (settings, needles) in [
        ("lisen: {}\n", vec!["lisen"]),
        ("listen: {address: \"0.0.0.0:1\"}\n", vec!["listen.tls", "hosts", "control.addresses"]),
        ("listen: [\n", vec!["weir.yaml"]),
    ] {
        let output = check(settings, &[]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        for needle in needles {
            assert!(text.contains(needle), "{needle}: {text}");
        }
    }
}
