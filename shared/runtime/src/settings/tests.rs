use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Process {
    listen: Listen,
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    origins: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    token: Option<Masked<String>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listen {
    address: SocketAddr,
    #[serde(default)]
    plain: bool,
    #[serde(default)]
    streams_max: u32,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    password: String,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Http,
    Https,
}

fn loaded(yaml: &str, env: &[(&str, &str)]) -> Result<Process, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), yaml).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(Some(file.path()), "WEIR_DP", env)
        .map_err(|error| error.to_string().replace(&file.path().display().to_string(), "FILE"))
}

#[test]
fn the_environment_lies_over_the_file_and_takes_the_type_of_the_field() {
    let yaml = "listen:\n  address: 127.0.0.1:1\n  streams_max: 4\nregion: eu\n";
    let env = [
        ("WEIR_DP_LISTEN__ADDRESS", "127.0.0.1:8443"),
        ("WEIR_DP_LISTEN__PLAIN", "true"),
        ("WEIR_DP_LISTEN__STREAMS_MAX", "7"),
        ("WEIR_DP_LISTEN__MODE", "https"),
        ("WEIR_DP_LISTEN__PASSWORD", "0123"),
        ("WEIR_DP_ORIGINS", "https://a.test, https://b.test"),
        ("WEIR_DP_LABELS", r#"{"team": "core"}"#),
        ("WEIR_DP_TOKEN", "s3cret"),
        ("WEIR_CP_REGION", "not ours"),
        ("HOME", "/root"),
    ];
    let process = loaded(yaml, &env).unwrap();
    assert_eq!(process.listen.address.port(), 8443);
    assert_eq!((process.listen.plain, process.listen.streams_max), (true, 7));
    assert_eq!((process.listen.mode, &*process.listen.password), (Mode::Https, "0123"));
    assert_eq!(process.region.as_deref(), Some("eu"));
    assert_eq!(process.origins, ["https://a.test", "https://b.test"]);
    assert_eq!(process.labels["team"], "core");
    assert_eq!(process.token.unwrap().reveal(), "s3cret");
}

#[test]
fn errors_name_the_key_and_never_the_value() {
    let good = "listen: { address: '127.0.0.1:1' }\n";
    type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);
    let cases: &[Case] = &[
        ("listen: { addres: x }", &[], "`listen.addres`: unknown field `addres`"),
        ("{}", &[], "missing field `listen`"),
        ("listen: { address: '127.0.0.1:1', streams_max: hunter2 }", &[], "`listen.streams_max`"),
        ("listen: [", &[], "settings file FILE: "),
        ("a: 1\na: 2\n", &[], "settings file FILE: "),
        (good, &[("WEIR_DP_LISTN__X", "1")], "`listn` (from WEIR_DP_LISTN__X): unknown field"),
        (
            good,
            &[("WEIR_DP_LISTEN__STREAMS_MAX", "hunter2")],
            "`listen.streams_max` (from WEIR_DP_LISTEN__STREAMS_MAX): expected a whole number",
        ),
        (good, &[("WEIR_DP_LISTEN__ADDRESS", "hunter2")], "WEIR_DP_LISTEN__ADDRESS"),
        (good, &[("WEIR_DP_LISTEN__ADDRESS__PORT", "1")], "`listen.address` is a value"),
        (good, &[("WEIR_DP_LISTEN__MODE", "ftp")], "unknown variant"),
    ];
    for (yaml, env, expect) in cases {
        let error = loaded(yaml, env).unwrap_err();
        assert!(error.contains(expect), "{yaml:?} {env:?}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_missing_file_is_named_and_no_file_is_fine() {
    let error = load::<Process>(Some(Path::new("/nowhere/weir.yaml")), "X", std::iter::empty());
    assert!(error.unwrap_err().to_string().contains("/nowhere/weir.yaml"));
    let env = [("X_LISTEN__ADDRESS".to_owned(), "[::1]:9".to_owned())];
    assert!(load::<Process>(None, "X_", env.into_iter()).is_ok());
}

#[test]
fn an_empty_file_is_an_empty_section() {
    let process = loaded("# nothing\n\n", &[("WEIR_DP_LISTEN__ADDRESS", "127.0.0.1:2")]).unwrap();
    assert_eq!(process.listen.address.port(), 2);
}

#[test]
fn secrets_are_masked_by_type_and_by_name() {
    let yaml = "listen: { address: '127.0.0.1:1', password: hunter2 }\ntoken: hunter2\n";
    let process = loaded(yaml, &[]).unwrap();
    let shown = masked(&process, &["password"]);
    assert!(shown.contains("listen.address = \"127.0.0.1:1\"\n"), "{shown}");
    assert!(shown.contains("listen.password = ***\n"), "{shown}");
    assert!(shown.contains("token = \"***\"\n"), "{shown}");
    assert!(!shown.contains("hunter2") && !format!("{:?}", process.token).contains("hunter2"));
}
