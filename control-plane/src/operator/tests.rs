//! Operators over an embedded store.

use std::time::Duration;

use weir_runtime::clock::ManualClock;

use super::*;
use crate::store::embedded::{Embedded, History};

struct Bench {
    operators: Operators,
    clock: ManualClock,
    store: Embedded,
}

fn bench() -> Bench {
    let store = Embedded::in_memory(History::default()).unwrap();
    let clock = ManualClock::at_ms(1_000_000_000);
    let operators = Operators::new(Arc::new(store.clone()), Arc::new(clock.clone()));
    Bench { operators, clock, store }
}

fn wanted(role: Role, groups: &[&str]) -> Wanted {
    let groups = groups.iter().map(|group| group.parse().unwrap()).collect();
    Wanted { name: "somebody".into(), role, groups, expires_in: None }
}

#[tokio::test]
async fn the_first_start_makes_one_admin_among_all_replicas() {
    let bench = bench();
    let starts = (0..4).map(|_| {
        let operators = bench.operators.clone();
        async move { operators.bootstrap().await.unwrap() }
    });
    let made: Vec<_> = futures_util::future::join_all(starts).await.into_iter().flatten().collect();
    assert_eq!(made.len(), 1);
    let (first, token) = &made[0];
    assert_eq!((first.role, first.groups.len()), (Role::Admin, 0));
    assert_eq!(&bench.operators.authenticate(token.expose()).await.unwrap(), first);
    let kept = bench.store.list("state/").await.unwrap();
    let text = format!("{:?}", kept.entries);
    let secret = token.expose().splitn(4, '_').last().unwrap();
    assert!(text.contains(&first.id) && !text.contains(secret), "only the digest is stored");
}

#[tokio::test]
async fn tokens_are_checked_whole_and_expire() {
    let Bench { operators, clock, .. } = bench();
    let mut short = wanted(Role::Viewer, &[]);
    short.expires_in = Some(60);
    let (operator, token) = operators.mint(short, "test").await.unwrap();
    let token = token.expose().clone();
    assert_eq!(operators.authenticate(&token).await.unwrap(), operator);
    let mut changed = token.clone();
    changed.pop();
    let foreign = token.replace("weir_op_", "weir_at_");
    for bad in [changed.as_str(), &foreign, "", "Bearer", "weir_op_ffffffffffff_abc"] {
        let refused = operators.authenticate(bad).await;
        assert!(matches!(refused, Err(OperatorError::Unknown)), "{bad}: {refused:?}");
    }
    clock.advance(Duration::from_secs(60));
    assert!(matches!(operators.authenticate(&token).await, Err(OperatorError::Expired)));
}

#[tokio::test]
async fn a_revoked_operator_is_out_and_the_last_admin_stays() {
    let Bench { operators, .. } = bench();
    let (first, _) = operators.bootstrap().await.unwrap().unwrap();
    let (viewer, token) = operators.mint(wanted(Role::Viewer, &[]), "x").await.unwrap();
    operators.revoke(&viewer.id).await.unwrap();
    assert!(operators.authenticate(token.expose()).await.is_err());
    assert!(matches!(operators.revoke(&viewer.id).await, Err(OperatorError::Missing(_))));
    operators.mint(wanted(Role::Admin, &["acme"]), "x").await.unwrap();
    assert!(matches!(operators.revoke(&first.id).await, Err(OperatorError::LastAdmin)));
    operators.mint(wanted(Role::Admin, &[]), "x").await.unwrap();
    operators.revoke(&first.id).await.unwrap();
    assert!(operators.bootstrap().await.unwrap().is_none(), "there is one first start");
}

#[test]
fn roles_and_groups_bound_what_an_operator_may() {
    let operator = |role, groups: &[&str]| Operator {
        id: "x".into(),
        name: "x".into(),
        role,
        groups: groups.iter().map(|g| g.parse().unwrap()).collect(),
        created: 0,
        expires: None,
        created_by: "x".into(),
    };
    let key = |text| ResourceKey::parse(text).unwrap();
    let everywhere = operator(Role::Editor, &[]);
    assert!(everywhere.demand(Role::Viewer).is_ok() && everywhere.demand(Role::Editor).is_ok());
    assert!(everywhere.demand(Role::Admin).is_err());
    let acme = operator(Role::Admin, &["acme"]);
    for (document, changes, sees) in [
        ("Server/acme/a", true, true),
        ("Server/other/a", false, false),
        ("Group/acme", false, true),
        ("Group/other", false, false),
        ("Region/eu", false, true),
        ("Keyring/sessions", false, false),
    ] {
        let key = key(document);
        assert_eq!(acme.demand_document(&key).is_ok(), changes, "{document}");
        assert_eq!(acme.sees_document(&key), sees, "{document}");
        assert!(everywhere.demand_document(&key).is_ok() && everywhere.sees_document(&key));
    }
    assert!(acme.demand_everywhere().is_err());
}
