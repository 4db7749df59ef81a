//! The ways in which logging in must not work.

use super::*;

#[tokio::test]
async fn a_bad_request_sends_nobody_anywhere() {
    let scene = Scene::start().await;
    let redirect = "https://app.example/cb";
    let registered = scene.register(json!({"redirect_uris": [redirect]})).await.json();
    let id = registered["client_id"].as_str().unwrap();
    let good = Request::new(id, redirect).fields();
    let with = |name: &'static str, value: &str| {
        let mut fields = good.clone();
        fields.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            fields.push((name, value.to_owned()));
        }
        url(&fields)
    };
    for (what, url) in [
        ("no client", with("client_id", "")),
        ("an unknown client", with("client_id", "k1.AAAA")),
        ("a client at a private address", with("client_id", "https://169.254.169.254/x")),
        ("another redirect", with("redirect_uri", "https://evil.example/cb")),
        ("a redirect below", with("redirect_uri", "https://app.example/cb/../evil")),
        ("a parameter twice", format!("{}&client_id=x", url(&good))),
    ] {
        let answer = scene.get(&url).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert_eq!(answer.header("location"), None, "{what}");
        assert!(
            answer.header("content-security-policy").unwrap().contains("frame-ancestors 'none'")
        );
    }
    // Whoever an administrator vouches for is told where it waits; whoever vouches for itself must not
    // be able to send people anywhere by a link to the gateway that is wrong (RFC 9700, 4.11.2).
    let trusted = Request::new("vscode", "https://vscode.dev/redirect").fields();
    let replaced = |fields: &[(&'static str, String)], name: &'static str, value: &str| {
        let mut fields = fields.to_vec();
        fields.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            fields.push((name, value.to_owned()));
        }
        url(&fields)
    };
    for (what, name, value, error) in [
        ("no PKCE", "code_challenge", "", "invalid_request"),
        ("plain PKCE", "code_challenge_method", "plain", "invalid_request"),
        ("no method of PKCE", "code_challenge_method", "", "invalid_request"),
        ("a token at once", "response_type", "token", "unsupported_response_type"),
        ("another resource", "resource", "https://evil.example/acme/mcp", "invalid_target"),
        ("no such group", "resource", "https://gw.example/beta/mcp", "invalid_target"),
        ("a fragment", "response_mode", "fragment", "invalid_request"),
    ] {
        let answer = scene.get(&replaced(&trusted, name, value)).await;
        assert_eq!(answer.status, 303, "{what}: {}", answer.text());
        let location = answer.header("location").unwrap();
        assert!(location.starts_with("https://vscode.dev/redirect?"), "{what}: {location}");
        let told = query_of(location);
        assert_eq!((told["error"].as_str(), told["iss"].as_str()), (error, BASE), "{what}");
        assert_eq!(told["state"], "client state", "{what}");
        let answer = scene.get(&replaced(&good, name, value)).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert_eq!(answer.header("location"), None, "{what}");
        assert!(answer.text().contains(&format!("error={error}")), "{what}: {}", answer.text());
    }
    for (what, body) in [
        ("no redirect", json!({})),
        ("a script", json!({"redirect_uris": ["javascript:alert(1)"]})),
        ("plain http", json!({"redirect_uris": ["http://evil.example/cb"]})),
        ("another grant", json!({"redirect_uris": [redirect], "grant_types": ["implicit"]})),
        (
            "keys",
            json!({"redirect_uris": [redirect],
            "token_endpoint_auth_method": "private_key_jwt"}),
        ),
    ] {
        let answer = scene.register(body).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert!(answer.json()["error"].is_string(), "{what}");
    }
}

#[tokio::test]
async fn only_the_browser_that_consented_finishes_and_only_once() {
    let scene = Scene::start().await;
    let redirect = "https://app.example/cb";
    let request = scene.registered(redirect).await;
    let page = scene.get(&request.url()).await;
    let consent = cookie(&page, "weir-consent");
    let sealed = between(page.text(), "name=\"request\" value=\"", "\"").to_owned();
    let decide = |fields: &[(&str, &str)]| {
        let fields = [&[("request", sealed.as_str())], fields].concat();
        form("/authorize/consent", &fields)
    };
    for (what, ask) in [
        ("no cookie", decide(&[("provider", "corp")])),
        ("another cookie", decide(&[]).header("cookie", "__Host-weir-consent=guessed")),
        (
            "another page",
            decide(&[]).header("cookie", &consent).header("origin", "https://evil.example"),
        ),
    ] {
        assert_eq!(scene.send(ask).await.status, 400, "{what}");
    }
    let denied = scene.send(decide(&[("deny", "yes")]).header("cookie", &consent)).await;
    assert_eq!(query_of(denied.header("location").unwrap())["error"], "access_denied");

    let away = scene.send(decide(&[("provider", "corp")]).header("cookie", &consent)).await;
    let asked = query_of(away.header("location").unwrap());
    let browser = cookie(&away, "weir-sign-in");
    let code = scene.issuer.log_in(&asked["nonce"], &asked["code_challenge"]);
    let back = format!("/authorize/callback?code={code}&state={}", asked["state"]);
    assert_eq!(scene.get(&back).await.status, 400, "no cookie");
    let stolen = get(&back).header("cookie", "__Host-weir-sign-in=guessed");
    assert_eq!(scene.send(stolen).await.status, 400, "another browser");
    let mixed = get(&format!("{back}&iss=https://evil.example")).header("cookie", &browser);
    let mixed = scene.proxies[0].send(mixed.with("host", "gw.example")).await;
    assert_eq!(query_of(mixed.header("location").unwrap())["error"], "access_denied", "mix-up");
    let done = get(&back).header("cookie", &browser).with("host", "gw.example");
    let again = scene.proxies[0].send(done.clone()).await;
    assert_eq!(again.status, 400, "a state is good once at a proxy");
    let done = scene.proxies[1].send(done).await;
    let code = query_of(done.header("location").unwrap())["code"].clone();

    let base = [
        ("grant_type", "authorization_code"),
        ("client_id", request.client.as_str()),
        ("redirect_uri", redirect),
        ("code", code.as_str()),
        ("code_verifier", VERIFIER),
    ];
    let other = scene.register(json!({"redirect_uris": [redirect]})).await.json();
    let other = other["client_id"].as_str().unwrap();
    let with = |name: &str, value: &'static str| {
        let mut fields = base.to_vec();
        for field in &mut fields {
            if field.0 == name {
                field.1 = value;
            }
        }
        fields
    };
    let stranger = {
        let mut fields = base.to_vec();
        fields[1].1 = other;
        fields
    };
    let wrong_resource = [&base[..], &[("resource", "https://gw.example/acme/files/mcp")]].concat();
    for (what, fields, error) in [
        ("another client", stranger, "invalid_grant"),
        ("another redirect", with("redirect_uri", "https://app.example/x"), "invalid_grant"),
        (
            "another verifier",
            with("code_verifier", "x0123456789012345678901234567890123456789ab"),
            "invalid_grant",
        ),
        ("a nonsense code", with("code", "k1.AAAA"), "invalid_grant"),
        ("another grant", with("grant_type", "password"), "unsupported_grant_type"),
        ("another resource", wrong_resource, "invalid_target"),
    ] {
        let answer = scene.form("/token", &fields).await;
        assert_eq!(answer.json()["error"], error, "{what}: {}", answer.text());
    }
    let ask = form("/token", &base).with("host", "gw.example");
    let first = scene.proxies[0].send(ask.clone()).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let access = first.json()["access_token"].as_str().unwrap().to_owned();
    let again = scene.proxies[0].send(ask).await;
    assert_eq!(again.json()["error"], "invalid_grant", "a code is good once");
    let params = json!({"name": "echo", "arguments": {}});
    let call = Ask::modern("/acme/files/mcp", "tools/call", params).token(&access);
    let refused = scene.proxies[0].send(call.with("host", "gw.example")).await;
    assert_eq!(refused.status, 401, "what the first use gave is worth nothing here");
}

#[tokio::test]
async fn an_answer_of_the_provider_is_judged() {
    let scene = Scene::start().await;
    let request = scene.registered("https://app.example/cb").await;
    for (what, claims) in [
        ("another nonce", json!({"sub": "alice", "nonce": "x"})),
        ("another audience", json!({"sub": "alice", "aud": "elsewhere"})),
        ("another party", json!({"sub": "alice", "azp": "other"})),
        ("several parties", json!({"sub": "alice", "aud": ["weir", "other"]})),
        ("nobody", json!({})),
        ("groups left out", json!({"sub": "alice", "_claim_names": {"groups": "s"}})),
    ] {
        scene.issuer.claims(claims);
        let back = consented(&scene, &request).await.back(&scene, "");
        let told = told(&scene, back).await;
        assert_eq!(told.get("error").map(String::as_str), Some("access_denied"), "{what}");
        assert!(!told.contains_key("code"), "{what}");
    }
    // The provider's own tokens are for others; the gateway's are no ID tokens of anybody.
    let now = jiff::Timestamp::now().as_second();
    let direct = scene.issuer.token(json!({
        "iss": scene.issuer.url, "aud": "weir", "sub": "alice", "exp": now + 300,
        "groups": ["staff"],
    }));
    let refused = scene.call("/acme/files/mcp", "echo", &direct).await;
    assert_eq!(refused.status, 401, "{}", refused.text());
}

/// RFC 9207: where the provider says that it names itself, an answer without a name is another's.
#[tokio::test]
async fn an_answer_without_its_issuer_is_refused_where_the_provider_names_itself() {
    let scene = Scene::start().await;
    scene.issuer.names_itself();
    let request = scene.registered("https://app.example/cb").await;
    for (iss, good) in [("", false), ("&iss=https://evil.example", false), ("own", true)] {
        let own = format!("&iss={}", scene.issuer.url);
        let iss = if iss == "own" { own.as_str() } else { iss };
        let back = consented(&scene, &request).await.back(&scene, iss);
        let told = told(&scene, back).await;
        assert_eq!(told.contains_key("code"), good, "{iss:?}: {told:?}");
    }
}

/// What comes back from the provider is turned into a code once, whichever proxies it is shown to.
#[tokio::test]
async fn a_state_is_good_once_over_all_proxies() {
    let scene = Scene::start().await;
    let request = scene.registered("https://app.example/cb").await;
    let away = consented(&scene, &request).await;
    let back = async |at: usize| {
        // The provider would give out a code each time that it is asked.
        let back = away.back(&scene, "").with("host", "gw.example");
        let answer = scene.proxies[at].send(back).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        query_of(answer.header("location").unwrap())
    };
    let first = back(0).await;
    assert!(first.contains_key("code"), "{first:?}");
    let second = back(1).await;
    assert_eq!(second["error"], "access_denied", "{second:?}");
    assert!(second["error_description"].contains("finished already"), "{second:?}");
    // Nothing ends by it: a button was pressed twice.
    let tokens = exchange(&scene, &request, &first["code"]).await;
    assert_eq!(tokens.status, 200, "{}", tokens.text());
}

#[tokio::test]
async fn nobody_comes_back_while_nobody_counts() {
    let scene = Scene::start().await;
    let request = scene.registered("https://app.example/cb").await;
    let back = consented(&scene, &request).await.back(&scene, "");
    scene.ledger.away(true);
    let told = told(&scene, back).await;
    assert_eq!(told["error"], "temporarily_unavailable", "{told:?}");
}

/// Strangers cannot make the gateway knock at somebody's door as often as they like.
#[tokio::test]
async fn documents_of_clients_are_fetched_so_often() {
    let scene = Scene::start().await;
    let redirect = "https://app.example/cb";
    let ask = async |client: &str| {
        let ask = get(&Request::new(client, redirect).url()).with("host", "gw.example");
        scene.proxies[0].send(ask).await
    };
    let none = format!("{}/none.json", scene.issuer.url);
    for _ in 0..5 {
        let answer = ask(&none).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    assert_eq!(scene.issuer.visits(), 1, "what is of no use is not asked for again at once");
    let most = weir_model::bounds::CLIENT_DOCUMENT_HOST_MINUTE_MAX as usize;
    let url = scene
        .issuer
        .page("/kept.json", |url| json!({"client_id": url, "redirect_uris": [redirect]}));
    assert_eq!(ask(&url).await.status, 200);
    for n in 2..most {
        assert_eq!(ask(&format!("{none}?{n}")).await.status, 400, "{n}");
    }
    let full = ask(&format!("{none}?late")).await;
    assert_eq!(full.status, 503, "{}", full.text());
    assert_eq!(scene.issuer.visits(), most);
    // At the token endpoint the same bounds hold.
    let late = format!("{none}?later");
    let fields = [("grant_type", "refresh_token"), ("client_id", &*late), ("refresh_token", "x")];
    let answer = scene.proxies[0].send(form("/token", &fields).with("host", "gw.example")).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(scene.issuer.visits(), most);
    // A client that is known goes on.
    assert_eq!(ask(&url).await.status, 200);
}
