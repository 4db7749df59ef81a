//! What the tokens of known products say, and what they leave out.

use super::*;

/// Claims as the products send them, and what becomes of them.
#[tokio::test]
async fn presets_know_the_claims_of_their_products() {
    let pair = Pair::ed("k1");
    let cases = [
        (
            "generic",
            json!({"groups": ["staff"], "roles": ["dev"], "scope": "a b", "azp": "cli"}),
            ("alice", vec!["dev", "staff"], vec!["a", "b"], Some("cli")),
        ),
        (
            "okta",
            json!({"groups": ["Everyone"], "scp": ["mcp", "openid"], "cid": "0oa1",
                   "roles": ["ignored"]}),
            ("alice", vec!["Everyone"], vec!["mcp", "openid"], Some("0oa1")),
        ),
        (
            "entra",
            json!({"oid": "8f-1", "groups": ["g-1"], "roles": ["Task.Read"], "scp": "mcp.call",
                   "azp": "app-1", "hasgroups": false}),
            ("8f-1", vec!["Task.Read", "g-1"], vec!["mcp.call"], Some("app-1")),
        ),
        (
            "auth0",
            json!({"https://acme.example/roles": ["admin"], "https://acme.example/groups": ["g"],
                   "https://acme.example/plan": ["gold"], "permissions": ["read:x"],
                   "scope": "openid"}),
            ("alice", vec!["admin", "g"], vec!["openid", "read:x"], None),
        ),
        (
            "keycloak",
            json!({"groups": ["/staff/eu"], "realm_access": {"roles": ["user"]},
                   "resource_access": {"billing": {"roles": ["clerk"]}, "x": {}},
                   "scope": "openid mcp", "azp": "cli"}),
            (
                "alice",
                vec!["/staff/eu", "billing/clerk", "user"],
                vec!["mcp", "openid"],
                Some("cli"),
            ),
        ),
    ];
    for (preset, more, (subject, memberships, scopes, client)) in cases {
        let scene = Scene::new(&[&pair], &provider("idp", &format!("  preset: {preset}\n")));
        let mut claims = claims();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let who = scene.verify(&pair.sign(&claims)).await.unwrap();
        assert_eq!(&*who.subject, subject, "{preset}");
        let words = |list: &[Arc<str>]| list.iter().map(|w| w.to_string()).collect::<Vec<_>>();
        assert_eq!(words(&who.memberships), memberships, "{preset}");
        assert_eq!(words(&who.scopes), scopes, "{preset}");
        assert_eq!(who.credential.as_deref(), client, "{preset}");
    }
}

#[tokio::test]
async fn a_token_without_its_groups_is_refused_unless_the_document_says_otherwise() {
    let pair = Pair::ed("k1");
    let elsewhere = json!({"_claim_names": {"groups": "src1"}, "oid": "o",
        "_claim_sources": {"src1": {"endpoint": "https://graph.example/me"}}, "roles": ["r"]});
    let implicit = json!({"hasgroups": true, "oid": "o", "roles": ["r"]});
    let strict = Scene::new(&[&pair], &provider("idp", "  preset: entra\n"));
    let lax = Scene::new(&[&pair], &provider("idp", "  preset: entra\n  overage: ignore\n"));
    for more in [elsewhere, implicit] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let token = pair.sign(&claims);
        let refusal = strict.verify(&token).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::TokenInvalid);
        assert!(refusal.message().contains("groups out of the token"), "{}", refusal.message());
        let who = lax.verify(&token).await.unwrap();
        assert_eq!(who.memberships.iter().map(|m| &**m).collect::<Vec<_>>(), ["r"]);
    }
}
