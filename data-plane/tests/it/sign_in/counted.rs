//! What counts for all proxies together: that each code and refresh token is good once, what a
//! person said about being asked again, signing out elsewhere, and the records of it all.

use weir_model::resource::{Kind, ResourceKey, Revocation, Revoked, RevokedPrincipal, Spec};
use weir_model::sign_in::{Ended, SignedOut, Step};

use super::*;

const REDIRECT: &str = "https://app.example/cb";

async fn client(scene: &Scene, redirect: &str) -> Request {
    let registered = scene.register(json!({"redirect_uris": [redirect]})).await.json();
    Request::new(registered["client_id"].as_str().unwrap(), redirect)
}

/// A refresh at one proxy.
async fn refresh(scene: &Scene, at: usize, request: &Request, token: &Value) -> Answer {
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", request.client.as_str()),
        ("refresh_token", token.as_str().unwrap()),
    ];
    scene.proxies[at].send(form("/token", &fields).with("host", "gw.example")).await
}

async fn redeem(scene: &Scene, at: usize, request: &Request, code: &str) -> Answer {
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", request.client.as_str()),
        ("redirect_uri", request.redirect.as_str()),
        ("code", code),
        ("code_verifier", VERIFIER),
    ];
    scene.proxies[at].send(form("/token", &fields).with("host", "gw.example")).await
}

#[tokio::test]
async fn a_code_is_good_once_over_all_proxies() {
    let scene = Scene::start().await;
    let request = client(&scene, REDIRECT).await;
    let code = code(&scene, &request).await;
    scene.ledger.away(true);
    let uncounted = redeem(&scene, 0, &request, &code).await;
    assert_eq!(uncounted.status, 503, "nobody counts: {}", uncounted.text());
    assert_eq!(uncounted.json()["error"], "temporarily_unavailable");
    assert!(uncounted.header("retry-after").is_some());
    scene.ledger.away(false);
    assert_eq!(redeem(&scene, 0, &request, &code).await.status, 200, "it was not used up");
    let again = redeem(&scene, 1, &request, &code).await;
    assert_eq!(again.json()["error"], "invalid_grant", "at the other proxy: {}", again.text());
}

#[tokio::test]
async fn a_refresh_token_is_good_once_over_all_proxies() {
    let scene = Scene::start().await;
    let request = client(&scene, REDIRECT).await;
    let first = log_in(&scene, &request).await;
    let second = refresh(&scene, 0, &request, &first["refresh_token"]).await;
    assert_eq!(second.status, 200, "{}", second.text());
    let second = second.json();
    // The answer was lost on its way: the client asks again, at whichever proxy.
    let repeated = refresh(&scene, 1, &request, &first["refresh_token"]).await;
    assert_eq!(repeated.status, 200, "{}", repeated.text());
    let repeated = repeated.json();
    assert_eq!(repeated["refresh_token"], second["refresh_token"], "the same, not a second one");
    let access = repeated["access_token"].as_str().unwrap();
    assert_eq!(scene.call("/acme/mcp", "files__echo", access).await.status, 200);

    let third = refresh(&scene, 1, &request, &second["refresh_token"]).await.json();
    scene.ledger.pass(31);
    let copy = refresh(&scene, 0, &request, &second["refresh_token"]).await;
    assert_eq!(copy.json()["error"], "invalid_grant", "{}", copy.text());
    let rightful = refresh(&scene, 1, &request, &third["refresh_token"]).await;
    assert_eq!(rightful.json()["error"], "invalid_grant", "both holders are out");
}

#[tokio::test]
async fn refreshing_without_anybody_who_counts_is_for_the_group_to_allow() {
    let scene = Scene::start().await;
    let request = client(&scene, REDIRECT).await;
    let first = log_in(&scene, &request).await;
    scene.ledger.away(true);
    let refused = refresh(&scene, 0, &request, &first["refresh_token"]).await;
    assert_eq!(refused.json()["error"], "temporarily_unavailable", "{}", refused.text());
    let lenient = scene.world.clone().group_with("acme", |group| {
        group.sign_in.as_mut().unwrap().refresh_alone = true;
    });
    scene.proxies.iter().for_each(|proxy| proxy.apply(&lenient));
    let second = refresh(&scene, 0, &request, &first["refresh_token"]).await;
    assert_eq!(second.status, 200, "{}", second.text());
    let again = refresh(&scene, 0, &request, &first["refresh_token"]).await;
    assert_eq!(again.json()["error"], "invalid_grant", "this proxy remembers");
    scene.ledger.away(false);
    let third = refresh(&scene, 1, &request, &second.json()["refresh_token"]).await;
    assert_eq!(third.status, 200, "counted again: {}", third.text());
}

#[tokio::test]
async fn a_provider_that_does_not_answer_uses_nothing_up() {
    let scene = Scene::start().await;
    let request = client(&scene, REDIRECT).await;
    let first = log_in(&scene, &request).await;
    scene.issuer.fail(true);
    let failed = refresh(&scene, 0, &request, &first["refresh_token"]).await;
    assert_eq!(failed.json()["error"], "temporarily_unavailable", "{}", failed.text());
    scene.issuer.fail(false);
    let again = refresh(&scene, 1, &request, &first["refresh_token"]).await;
    assert_eq!(again.status, 200, "{}", again.text());
}

fn revoking(world: &World, what: Revoked) -> World {
    let key = ResourceKey::grouped(Kind::Revocation, &"acme".parse().unwrap(), "r-1");
    let expires = Some(i64::MAX);
    world.clone().put(key, Spec::Revocation(Revocation { what, expires, because: None }))
}

#[tokio::test]
async fn who_signs_in_anew_after_a_revocation_until_now_is_back() {
    let scene = Scene::start().await;
    let request = client(&scene, REDIRECT).await;
    let old = log_in(&scene, &request).await;
    // All that was issued until a moment ago, which the first sign-in is made to be.
    let now = jiff::Timestamp::now().as_second();
    let alice = |before| {
        let id = "jwt:corp:alice".to_owned();
        Revoked::Principal(RevokedPrincipal { id, issued_before: Some(before) })
    };
    let revoked = revoking(&scene.world, alice(now + 60));
    scene.proxies.iter().for_each(|proxy| proxy.apply(&revoked));
    let refused = refresh(&scene, 0, &request, &old["refresh_token"]).await;
    assert_eq!(refused.json()["error"], "invalid_grant", "{}", refused.text());
    let revoked = revoking(&scene.world, alice(now - 60));
    scene.proxies.iter().for_each(|proxy| proxy.apply(&revoked));
    let new = log_in(&scene, &request).await;
    let refreshed = refresh(&scene, 1, &request, &new["refresh_token"]).await;
    assert_eq!(refreshed.status, 200, "{}", refreshed.text());
    let access = refreshed.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(scene.call("/acme/mcp", "files__echo", &access).await.status, 200);
}

/// Consents and logs in; gives what the browser was sent to, and the cookies that it has then.
async fn remembering(scene: &Scene, request: &Request) -> String {
    let page = scene.get(&request.url()).await;
    assert!(page.text().contains("name=\"remember\""), "{}", page.text());
    let consent = cookie(&page, "weir-consent");
    let sealed = between(page.text(), "name=\"request\" value=\"", "\"");
    let ask = form("/authorize/consent", &[("request", sealed), ("remember", "yes")]);
    let away = scene.send(ask.header("cookie", consent)).await;
    let done = come_back(scene, &away, "").await;
    assert_eq!(done.status, 303, "{}", done.text());
    assert!(query_of(done.header("location").unwrap()).contains_key("code"));
    cookie(&done, "weir-consents")
}

async fn come_back(scene: &Scene, away: &Answer, kept: &str) -> Answer {
    let asked = query_of(away.header("location").unwrap_or_else(|| panic!("{}", away.text())));
    let upstream = scene.issuer.log_in(&asked["nonce"], &asked["code_challenge"]);
    let back = format!("/authorize/callback?code={upstream}&state={}", asked["state"]);
    let cookies = format!("{}; {kept}", cookie(away, "weir-sign-in"));
    scene.send(get(&back).header("cookie", cookies)).await
}

#[tokio::test]
async fn a_consent_is_remembered_for_one_person_and_one_client() {
    let scene = Scene::start().await;
    let request = client(&scene, REDIRECT).await;
    let kept = remembering(&scene, &request).await;
    let ask = |request: &Request| get(&request.url()).header("cookie", &kept);

    let away = scene.send(ask(&request)).await;
    assert_eq!(away.status, 303, "no question: {}", away.text());
    assert!(away.header("location").unwrap().starts_with(&scene.issuer.url));
    let done = come_back(&scene, &away, &kept).await;
    assert!(query_of(done.header("location").unwrap()).contains_key("code"));

    // Whatever differs is asked for.
    let other = client(&scene, REDIRECT).await;
    let more = Request { scope: Some("mcp pay".to_owned()), ..request.clone() };
    let elsewhere = Request { resource: Some(format!("{BASE}/acme/files/mcp")), ..request.clone() };
    for (what, request) in [("client", &other), ("scope", &more), ("endpoint", &elsewhere)] {
        assert_eq!(scene.send(ask(request)).await.status, 200, "another {what}");
    }
    let prompted = get(&format!("{}&prompt=consent", request.url())).header("cookie", &kept);
    assert_eq!(scene.send(prompted).await.status, 200, "the client wants it asked");
    assert_eq!(scene.get(&request.url()).await.status, 200, "another browser");
    let forged = get(&request.url()).header("cookie", "__Host-weir-consents=k1.AAAA");
    assert_eq!(scene.send(forged).await.status, 200, "a forged cookie");

    // Somebody else at the same browser has consented to nothing.
    scene.issuer.claims(json!({"sub": "mallory", "groups": ["staff"]}));
    let away = scene.send(ask(&request)).await;
    let done = come_back(&scene, &away, &kept).await;
    assert_eq!(query_of(done.header("location").unwrap())["error"], "access_denied");
    let cleared = done.headers.get_all("set-cookie").iter();
    let mut cleared = cleared.map(|value| value.to_str().unwrap());
    assert!(cleared.any(|c| c.starts_with("__Host-weir-consents=;")), "{:?}", done.headers);
    scene.issuer.claims(json!({"sub": "alice", "groups": ["staff"]}));

    // The record of giving it names it; an operator takes it back, or the person does.
    let mut records = scene.proxies[0].records(1).await;
    records.extend(scene.proxies[1].records(1).await);
    let named = records.iter().find_map(|record| {
        let of = record["api"]["operation"] == "sign_in.callback";
        record["actor"]["user"]["credential_uid"].as_str().filter(|_| of)?;
        token_of(record)
    });
    let id = named.unwrap_or_else(|| panic!("no record names the consent: {records:#?}"));
    let revoked = revoking(&scene.world, Revoked::TokenId(id));
    scene.proxies.iter().for_each(|proxy| proxy.apply(&revoked));
    assert_eq!(scene.send(ask(&request)).await.status, 200, "revoked by its id");
    scene.proxies.iter().for_each(|proxy| proxy.apply(&scene.world));
    assert_eq!(scene.send(ask(&request)).await.status, 303, "given back");
    let list = scene.send(get("/authorize/consents").header("cookie", &kept)).await;
    assert!(
        list.text().contains("registered:") && list.text().contains("Forget"),
        "{}",
        list.text()
    );
    let forget = form("/authorize/consents", &[]).header("cookie", &kept).header("origin", BASE);
    let forgotten = scene.send(forget).await;
    let cleared = forgotten.header("set-cookie").unwrap();
    assert!(cleared.starts_with("__Host-weir-consents=;"), "{cleared}");

    let never = scene.world.clone().group_with("acme", |group| {
        group.sign_in.as_mut().unwrap().consent_secs = 0;
    });
    scene.proxies.iter().for_each(|proxy| proxy.apply(&never));
    let page = scene.send(ask(&request)).await;
    assert!(page.status == 200 && !page.text().contains("name=\"remember\""), "the group asks");
}

/// `jti` of a record, wherever its shape keeps it.
fn token_of(record: &Value) -> Option<String> {
    record["actor"]["session"]["credential_uid"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn applications_on_the_persons_own_machine_are_asked_about_each_time() {
    let scene = Scene::start().await;
    for redirect in ["http://127.0.0.1:7/cb", "cursor://anysphere.cursor-mcp/oauth/callback"] {
        let request = client(&scene, redirect).await;
        let page = scene.get(&request.url()).await;
        assert!(!page.text().contains("name=\"remember\""), "{redirect}");
        let consent = cookie(&page, "weir-consent");
        let sealed = between(page.text(), "name=\"request\" value=\"", "\"");
        let ask = form("/authorize/consent", &[("request", sealed), ("remember", "yes")]);
        let away = scene.send(ask.header("cookie", consent)).await;
        let done = come_back(&scene, &away, "").await;
        let set = done.headers.get_all("set-cookie").iter();
        let mut set = set.map(|value| value.to_str().unwrap());
        assert!(!set.any(|c| c.starts_with("__Host-weir-consents=")), "{redirect}");
    }
}

#[tokio::test]
async fn the_provider_says_who_signed_out() {
    let scene = Scene::start().await;
    let (issuer, now) = (scene.issuer.url.clone(), jiff::Timestamp::now().as_second());
    let event = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    let good = json!({
        "iss": issuer, "aud": "weir", "iat": now, "exp": now + 120, "jti": "j1",
        "events": event, "sid": "their-sid", "sub": "alice",
    });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let send = async |path: &str, token: &str| {
        scene.form(path, &[("logout_token", token)]).await.status.as_u16()
    };
    let path = "/authorize/logout/acme/corp";
    for (what, claims) in [
        ("no event", without("events")),
        ("another event", with("events", json!({"x": {}}))),
        ("a nonce: an ID token", with("nonce", json!("n"))),
        ("another issuer", with("iss", json!("https://evil.example"))),
        ("another client", with("aud", json!("elsewhere"))),
        ("expired", with("exp", json!(now - 60))),
        ("from the future", with("iat", json!(now + 600))),
        ("no time", without("iat")),
        ("old, without an end", {
            let mut claims = without("exp");
            claims["iat"] = json!(now - 3_600);
            claims
        }),
        ("nobody", {
            let mut claims = without("sid");
            claims.as_object_mut().unwrap().remove("sub");
            claims
        }),
    ] {
        assert_eq!(send(path, &scene.issuer.token(claims)).await, 400, "{what}");
    }
    let token = scene.issuer.token(good.clone());
    let altered = format!("{}A", &token[..token.len() - 1]);
    assert_eq!(send(path, "nonsense").await, 400);
    if altered != token {
        assert_eq!(send(path, &altered).await, 400, "another signature");
    }
    assert_eq!(send("/authorize/logout/acme/other", &token).await, 400, "another provider");
    assert_eq!(send("/authorize/logout/beta/corp", &token).await, 400, "another group");
    assert_eq!(scene.send(get(path)).await.status, 405);
    assert!(scene.ledger.signed_out().is_empty(), "none of these was heeded");

    scene.ledger.away(true);
    assert_eq!(send(path, &token).await, 503, "it could not be made known");
    scene.ledger.away(false);
    assert_eq!(send(path, &token).await, 200);
    assert_eq!(send(path, &scene.issuer.token(without("sid"))).await, 200);
    let out = |what| Step::SignedOut(SignedOut { provider: "corp".parse().unwrap(), what });
    let session = out(Ended::Session("their-sid".to_owned()));
    let [first, second] = &scene.ledger.signed_out()[..] else { panic!("two") };
    assert_eq!(*first, session);
    let Step::SignedOut(SignedOut { what: Ended::Subject { id, before }, .. }) = second else {
        panic!("{second:?}")
    };
    assert!(id == "alice" && *before > now, "{id} {before}");

    // Another client of the provider, where the document names it.
    let document = format!(
        "apiVersion: weir/v1\nkind: IdentityProvider\nmetadata: {{name: corp, group: acme}}\n\
         spec: {{issuer: {issuer}, audiences: [elsewhere], allowPrivate: true, \
         logoutClients: [portal]}}\n"
    );
    let world = scene.world.clone().documents(&document);
    scene.proxies.iter().for_each(|proxy| proxy.apply(&world));
    let portal = scene.issuer.token(with("aud", json!(["portal"])));
    assert_eq!(send(path, &portal).await, 200, "though nobody signs in through the gateway");
}

#[tokio::test]
async fn what_was_had_ends_with_the_session_at_the_provider() {
    let scene = Scene::start().await;
    scene.issuer.claims(json!({"sub": "alice", "groups": ["staff"], "sid": "their-sid"}));
    let request = client(&scene, REDIRECT).await;
    let tokens = log_in(&scene, &request).await;
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(scene.call("/acme/mcp", "files__echo", access).await.status, 200);
    // What the control plane makes of a sign-out.
    let revoked = revoking(&scene.world, Revoked::Session("their-sid".to_owned()));
    scene.proxies.iter().for_each(|proxy| proxy.apply(&revoked));
    assert_eq!(scene.call("/acme/mcp", "files__echo", access).await.status, 401);
    let refused = refresh(&scene, 0, &request, &tokens["refresh_token"]).await;
    assert_eq!(refused.json()["error"], "invalid_grant", "{}", refused.text());
}

#[tokio::test]
async fn every_step_leaves_a_record() {
    let scene = Scene::start().await;
    let request = client(&scene, REDIRECT).await;
    let tokens = log_in(&scene, &request).await;
    assert_eq!(refresh(&scene, 0, &request, &tokens["refresh_token"]).await.status, 200);
    let denied = redeem(&scene, 0, &request, "k1.AAAA").await;
    assert_eq!(denied.json()["error"], "invalid_grant");
    let mut steps: Vec<(String, String, Option<String>)> = Vec::new();
    for proxy in &scene.proxies {
        for record in proxy.records(1).await {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let who = record["actor"]["user"]["uid"].as_str().map(str::to_owned);
            let (step, how) = (&record["api"]["operation"], &record["status_code"]);
            let line = record.to_string();
            for secret in [&tokens["access_token"], &tokens["refresh_token"]] {
                assert!(!line.contains(secret.as_str().unwrap()), "{line}");
            }
            steps.push((text(step), text(how), who));
        }
    }
    let alice = Some("jwt:corp:alice".to_owned());
    for (step, how, who) in [
        ("sign_in.register", "success", None),
        ("sign_in.authorize", "success", None),
        ("sign_in.consent", "success", None),
        ("sign_in.callback", "success", alice.clone()),
        ("sign_in.code", "success", alice.clone()),
        ("sign_in.refresh", "success", alice),
        ("sign_in.code", "token_invalid", None),
    ] {
        let found = steps
            .iter()
            .any(|(s, h, w)| s == step && h.contains(how) && (who.is_none() || *w == who));
        assert!(found, "{step} {how}: {steps:#?}");
    }
}
