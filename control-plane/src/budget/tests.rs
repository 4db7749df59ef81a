use weir_runtime::clock::ManualClock;

use super::*;
use crate::store::embedded::{Embedded, History};

const WINDOW: (i64, i64) = (1_800_000_000, 1_800_003_600);

fn claim(counter: &str, spent: u64, wanted: u64) -> QuotaClaim {
    QuotaClaim {
        id: Digest::of(counter.as_bytes()),
        label: format!("acme/{counter} group"),
        window: WINDOW,
        quota: 1_000,
        claim: Claim { spent, wanted },
    }
}

fn replica(store: &Arc<dyn Store>, name: &str, clock: &ManualClock) -> (Budget, Watch) {
    let (budget, settler) = new(Arc::clone(store), Some(name.to_owned()), Arc::new(clock.clone()));
    let (drain, watch) = weir_runtime::drain::new(Duration::from_secs(1));
    tokio::spawn(async move {
        let _kept = drain.clone();
        settler.run(drain.watch()).await;
    });
    (budget, watch)
}

fn store() -> Arc<dyn Store> {
    Arc::new(Embedded::in_memory(History::default()).unwrap())
}

fn node(name: &str) -> NodeId {
    NodeId { region: "eu".parse().unwrap(), node: name.parse().unwrap() }
}

#[tokio::test]
async fn replicas_share_one_ledger_and_nothing_is_granted_twice() {
    let (store, clock) = (store(), ManualClock::at_ms(1_800_000_100_000));
    let (one, _a) = replica(&store, "cp-1", &clock);
    let (two, _b) = replica(&store, "cp-2", &clock);
    // Eight proxies at two replicas, all at once, until nothing is left.
    let mut proxies = Vec::new();
    for n in 0..8 {
        let budget = if n % 2 == 0 { one.clone() } else { two.clone() };
        proxies.push(tokio::spawn(async move {
            let mut spent = 0;
            for _ in 0..200 {
                let asked = budget.settle(format!("n{n}#1"), vec![claim("daily", spent, 30)]).await;
                let grant = asked.unwrap()[0];
                spent = grant.granted;
                if grant.exhausted {
                    return spent;
                }
            }
            panic!("never over: {spent}");
        }));
    }
    let mut total = 0;
    for proxy in proxies {
        total += proxy.await.unwrap();
    }
    assert_eq!(total, 1_000);
}

#[tokio::test]
async fn what_was_granted_survives_the_replica_that_granted_it() {
    let (store, clock) = (store(), ManualClock::at_ms(1_800_000_100_000));
    let (one, _a) = replica(&store, "cp-1", &clock);
    let claims = || vec![claim("x", 400, 200), claim("y", 0, 10)];
    let before = one.settle("n#1".into(), claims()).await.unwrap();
    drop(one);
    let (two, _b) = replica(&store, "cp-2", &clock);
    assert_eq!(two.settle("n#1".into(), claims()).await.unwrap(), before, "the same again");
    let other = two.settle("m#1".into(), vec![claim("x", 0, 1_000)]).await.unwrap();
    assert!(before[0].granted + other[0].granted <= 1_000);
    assert_eq!(two.settle("n#1".into(), Vec::new()).await.unwrap(), []);
}

#[tokio::test]
async fn shares_follow_demand_and_forget_it() {
    let (store, clock) = (store(), ManualClock::at_ms(1_800_000_100_000));
    let (one, _a) = replica(&store, "cp-1", &clock);
    let demand = |units| [RateClaim { id: Digest::of(b"r"), capacity: 600, demand: units }];
    assert_eq!(one.shares(&node("a"), &demand(60)), [1_000], "alone");
    assert_eq!(one.shares(&node("b"), &demand(60)), [500], "both want little");
    assert_eq!(one.shares(&node("a"), &demand(6_000)), [900], "the rest goes where it is wanted");
    assert_eq!(one.shares(&node("b"), &demand(60)), [100]);
    assert_eq!(one.shares(&node("b"), &demand(6_000)), [500]);
    clock.advance(Duration::from_secs(11));
    assert_eq!(one.shares(&node("b"), &demand(6_000)), [1_000], "nobody else any more");
}

#[tokio::test]
async fn replicas_tell_each_other_of_demands() {
    let (store, clock) = (store(), ManualClock::at_ms(1_800_000_100_000));
    let [one, two] = [(); 2].map(|()| Rates::new(Arc::clone(&store)));
    let demand = [RateClaim { id: Digest::of(b"r"), capacity: 600, demand: 6_000 }];
    let now = seconds(&(Arc::new(clock) as SharedClock));
    one.shares(&node("a"), &demand, now);
    one.exchange("cp-1", now).await.unwrap();
    two.exchange("cp-2", now).await.unwrap();
    assert_eq!(two.shares(&node("b"), &demand, now), [500]);
    assert_eq!(two.shares(&node("b"), &demand, now + 60), [1_000], "what is old does not count");
}

#[tokio::test]
async fn operators_see_who_has_used_what() {
    let (store, clock) = (store(), ManualClock::at_ms(1_800_000_100_000));
    let (one, _a) = replica(&store, "cp-1", &clock);
    let named = |label: &str, spent: u64| QuotaClaim {
        id: Digest::of(label.as_bytes()),
        label: label.to_owned(),
        ..claim("x", spent, 10)
    };
    let claims = vec![
        named("acme/daily principal jwt:okta:alice smith", 900),
        named("acme/daily principal jwt:okta:bob", 10),
        named("acme/all group", 500),
        named("acme-2/daily principal jwt:okta:alice", 1),
    ];
    one.settle("n#1".into(), claims.clone()).await.unwrap();
    one.settle("m#1".into(), vec![named("acme/all group", 200)]).await.unwrap();
    let acme = "acme".parse().unwrap();
    let seen = uses(&*store, &acme, WINDOW.0).await.unwrap();
    let said: Vec<_> = seen
        .iter()
        .map(|u| (u.limit.as_str(), u.per.as_str(), u.of.as_str(), u.used, u.charged))
        .collect();
    let expect = [
        ("daily", "principal", "jwt:okta:alice smith", 900, 910),
        ("all", "group", "", 700, 720),
        ("daily", "principal", "jwt:okta:bob", 10, 20),
    ];
    assert_eq!(said, expect);
    assert!(seen.iter().all(|u| u.quota == 1_000 && u.window == WINDOW));
    assert_eq!(uses(&*store, &acme, WINDOW.1).await.unwrap(), [], "the window is over");
}
