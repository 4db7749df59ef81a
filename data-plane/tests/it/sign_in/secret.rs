//! What is secret about a login is in no record, no metric and no line of the log.

use super::*;
use crate::secrets::captured;
use weir_runtime::telemetry::Format;

#[tokio::test]
async fn codes_tokens_and_secrets_of_a_login_are_told_nowhere() {
    let (log, _guard) = captured(Format::Text);
    let scene = Scene::start().await;
    let redirect = "https://app.example/cb";
    let registered = scene
        .register(json!({"client_name": "app", "redirect_uris": [redirect],
            "token_endpoint_auth_method": "client_secret_post"}))
        .await
        .json();
    let client_secret = registered["client_secret"].as_str().unwrap().to_owned();
    let request = Request::new(registered["client_id"].as_str().unwrap(), redirect);
    let code = code(&scene, &request).await;
    let form = |fields: &[(&str, &str)]| {
        let mut all = vec![("client_id", request.client.as_str())];
        all.extend_from_slice(fields);
        super::form("/token", &all)
    };
    let grant = [
        ("grant_type", "authorization_code"),
        ("redirect_uri", redirect),
        ("code", &code),
        ("code_verifier", VERIFIER),
        ("resource", "https://gw.example/acme/mcp"),
    ];
    // With a wrong secret first: what was sent must not be told with the refusal.
    let guessed = "guessed-client-secret";
    let refused = scene.send(form(&[&grant[..], &[("client_secret", guessed)]].concat())).await;
    assert!(refused.status.as_u16() >= 400, "{}", refused.text());
    let answer =
        scene.send(form(&[&grant[..], &[("client_secret", &client_secret)]].concat())).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let tokens = answer.json();
    let word = |name: &str| tokens[name].as_str().unwrap().to_owned();
    let (access, refresh) = (word("access_token"), word("refresh_token"));
    assert_eq!(scene.call("/acme/files/mcp", "echo", &access).await.status, 200);
    let again = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh.as_str()),
        ("client_secret", &client_secret),
    ];
    assert_eq!(scene.send(form(&again)).await.status, 200);
    let altered = format!("{refresh}x");
    let altered = [again[0], ("refresh_token", altered.as_str()), again[2]];
    let twice = scene.send(form(&altered)).await;
    assert!(twice.status.as_u16() >= 400);

    let mut shown = vec![log.text(), refused.text().to_owned(), twice.text().to_owned()];
    assert!(shown[0].contains("weir"), "the log was captured");
    for proxy in &scene.proxies {
        let records = proxy.log.records();
        shown.extend(records.iter().map(|r| String::from_utf8_lossy(r.bytes()).into_owned()));
    }
    assert!(shown.iter().any(|text| text.contains("jwt:corp:alice")), "the call is recorded");
    // Parts of a sealed or signed token are as good as the whole.
    let parts = |token: &str| -> Vec<String> {
        token.split('.').filter(|part| part.len() >= 16).map(str::to_owned).collect()
    };
    let mut secrets = [parts(&access), parts(&refresh), parts(&code)].concat();
    secrets.extend([client_secret, guessed.to_owned(), VERIFIER.to_owned(), SECRET.to_owned()]);
    for secret in &secrets {
        for text in &shown {
            assert!(!text.contains(secret.as_str()), "{secret} in {text}");
        }
    }
}
