//! What limits let through, and what they give back.

use std::time::Duration;

use weir_model::snapshot::Snapshot;
use weir_model::testing::World;

use super::*;

fn limits(documents: &[(&str, &str)]) -> Snapshot {
    let one = |(name, spec): &(&str, &str)| {
        format!(
            "apiVersion: weir/v1\nkind: Limit\nmetadata: {{group: acme, name: {name}}}\nspec: {spec}\n"
        )
    };
    let text = documents.iter().map(one).collect::<Vec<_>>().join("---\n");
    let world = World::new().group("acme");
    let world = if text.is_empty() { world } else { world.documents(&text) };
    let snapshot = world.snapshot();
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
    snapshot
}

fn who(subject: &str) -> Principal {
    Principal {
        subject: subject.into(),
        proof: weir_model::principal::Proof::ApiToken,
        ..Principal::anonymous()
    }
}

struct Scene {
    limits: Limits,
    snapshot: Snapshot,
}

impl Scene {
    fn new(documents: &[(&str, &str)]) -> Self {
        Self { limits: Limits::default(), snapshot: self::limits(documents) }
    }
    fn take(&self, subject: &str, target: &str) -> Result<Ticket, (Reason, Option<u64>)> {
        let (server, tool) = match target.split_once('/') {
            Some((server, tool)) => (Some(server), Some(tool)),
            None if target.is_empty() => (None, None),
            None => (Some(target), None),
        };
        let server: Option<Name> = server.map(|s| s.parse().unwrap());
        self.limits
            .take(
                &self.snapshot.groups["acme"],
                &who(subject),
                Use { server: server.as_ref(), tool, cost: 1 },
            )
            .map_err(|refusal| (refusal.reason, refusal.retry_after_secs))
    }
    /// How many of `n` calls get through.
    fn through(&self, n: usize, subject: &str, target: &str) -> usize {
        (0..n).filter(|_| self.take(subject, target).is_ok()).count()
    }
}

async fn pass(ms: u64) {
    tokio::time::advance(Duration::from_millis(ms)).await;
}

#[tokio::test(start_paused = true)]
async fn a_rate_lets_its_burst_through_and_then_its_pace() {
    let scene = Scene::new(&[("l", "{per: principal, rate: {calls: 60, per: minute, burst: 3}}")]);
    assert_eq!(scene.through(10, "a", ""), 3);
    assert_eq!(scene.take("a", "").unwrap_err(), (Reason::RateLimited, Some(1)));
    assert_eq!(scene.through(10, "b", ""), 3, "another caller has its own");
    pass(1_000).await;
    assert_eq!(scene.through(10, "a", ""), 1);
    pass(60_000).await;
    assert_eq!(scene.through(10, "a", ""), 3, "never more than the burst");
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_told() {
    let scene = Scene::new(&[("l", "{per: group, rate: {calls: 2, per: hour}}")]);
    assert_eq!(scene.through(5, "a", "x/y"), 2);
    assert_eq!(scene.take("b", "").unwrap_err(), (Reason::RateLimited, Some(1_800)));
    pass(1_799_000).await;
    assert_eq!(scene.take("b", "").unwrap_err(), (Reason::RateLimited, Some(1)));
    pass(1_000).await;
    assert!(scene.take("b", "").is_ok());
}

#[tokio::test(start_paused = true)]
async fn each_scope_counts_its_own() {
    let table = [
        ("group", 1),
        ("principal", 2),
        // Two servers, and the call without one is not counted: 2 + 2.
        ("server", 4),
        // Three tools, and two calls without a tool: 3 + 4.
        ("tool", 7),
    ];
    for (per, expect) in table {
        let scene = Scene::new(&[("l", &format!("{{per: {per}, rate: {{calls: 1, per: hour}}}}"))]);
        let mut through = 0;
        for subject in ["a", "b"] {
            for target in ["", "x", "x/s", "x/t", "y/s"] {
                through += scene.through(1, subject, target);
            }
        }
        assert_eq!(through, expect, "{per}");
    }
}

#[tokio::test(start_paused = true)]
async fn patterns_select_calls() {
    let spec = "{per: group, servers: ['pay*'], tools: ['send*'], rate: {calls: 1, per: hour}}";
    let scene = Scene::new(&[("l", spec)]);
    for free in ["", "pay", "pay/list", "crm/send", "crm"] {
        assert_eq!(scene.through(5, "a", free), 5, "{free}");
    }
    assert_eq!(scene.through(5, "a", "pay-eu/send_all"), 1);
    assert_eq!(scene.through(5, "a", "pay/send"), 0);
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_given_back_when_the_ticket_is_dropped() {
    let scene = Scene::new(&[("l", "{per: server, concurrency: 2}")]);
    let first = scene.take("a", "x").unwrap();
    let second = scene.take("b", "x/y").unwrap();
    assert_eq!(scene.take("a", "x").unwrap_err().0, Reason::ConcurrencyLimited);
    let other = scene.take("a", "z").unwrap();
    drop(second);
    let third = scene.take("a", "x").unwrap();
    assert!(scene.take("a", "x").is_err());
    drop((first, third, other));
    assert_eq!(scene.through(50, "a", "x"), 50);
}

#[tokio::test(start_paused = true)]
async fn all_limits_of_a_call_are_taken_or_none() {
    let scene = Scene::new(&[
        ("a-wide", "{per: group, rate: {calls: 5, per: hour}, concurrency: 5}"),
        ("b-narrow", "{per: principal, rate: {calls: 1, per: hour}, concurrency: 1}"),
    ]);
    assert_eq!(scene.through(20, "a", ""), 1);
    let by_others = (0..20).filter(|i| scene.take(&format!("p{i}"), "").is_ok()).count();
    assert_eq!(by_others, 4, "refused calls cost the wide limit nothing");
}

#[tokio::test(start_paused = true)]
async fn counts_outlive_snapshots_but_not_edits() {
    let spec = "{per: group, rate: {calls: 2, per: hour}}";
    let mut scene = Scene::new(&[("l", spec)]);
    assert_eq!(scene.through(5, "a", ""), 2);
    scene.snapshot = limits(&[("l", spec), ("other", "{per: group, concurrency: 9}")]);
    assert_eq!(scene.through(5, "a", ""), 0, "the limit is the same");
    scene.snapshot = limits(&[("l", "{per: group, rate: {calls: 3, per: hour}}")]);
    assert_eq!(scene.through(5, "a", ""), 3, "an edited limit begins anew");

    let held = {
        scene.snapshot = limits(&[("c", "{per: group, concurrency: 1}")]);
        scene.take("a", "").unwrap()
    };
    scene.snapshot = limits(&[("c", "{per: group, concurrency: 2}")]);
    drop(held);
    let both = (scene.take("a", "").unwrap(), scene.take("a", "").unwrap());
    assert!(scene.take("a", "").is_err());
    drop(both);
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_and_settled_buckets_go() {
    let mut scene = Scene::new(&[("l", "{per: principal, rate: {calls: 1, per: second}}")]);
    scene.limits = Limits::new(64 * 200, SystemClock::shared());
    for i in 0..100_000 {
        match scene.take(&format!("p{i}"), "") {
            Ok(_) => {}
            Err(refused) => assert_eq!(refused.0, Reason::Overloaded),
        }
    }
    assert!(scene.limits.counted().0 <= 64 * 200);
    assert!(scene.limits.counted().0 > 64 * 150);
    pass(2_000).await;
    for i in 0..64 * 100 {
        assert!(scene.take(&format!("q{i}"), "").is_ok(), "settled buckets made room");
    }
    assert_eq!(scene.through(1, "q1", ""), 0, "what is in use was kept");
}

#[tokio::test(start_paused = true)]
async fn a_group_without_limits_costs_nothing() {
    let scene = Scene::new(&[]);
    assert_eq!(scene.through(1_000, "a", "x/y"), 1_000);
    assert_eq!(scene.limits.counted().0, 0);
}

/// The ledger's side: grants what was claimed, up to the quota, as the control plane would.
fn settle(scene: &Scene, account: &mut weir_model::budget::Account, quota: u64) {
    for told in scene.limits.tell(Duration::from_millis(500)) {
        if let fleet::Told::Quota(due) = &told {
            let grant = account.settle("p#1", due.claim, quota);
            scene.limits.hear(&told, fleet::Heard::Grant(grant));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_spent_to_the_last_unit_and_says_when_it_is_new() {
    let scene = Scene::new(&[("q", "{per: principal, quota: {calls: 500, per: day}}")]);
    let mut account = weir_model::budget::Account::default();
    // Nothing waits for the ledger: the head start is a hundredth.
    assert_eq!(scene.through(100, "a", "x/y"), 5);
    assert_eq!(scene.take("a", "x/y").unwrap_err(), (Reason::QuotaExceeded, Some(1)));
    let mut through = 5;
    for _ in 0..200 {
        settle(&scene, &mut account, 500);
        through += scene.through(40, "a", "x/y");
    }
    assert_eq!(through, 500, "neither more nor less");
    let (reason, wait) = scene.take("a", "x/y").unwrap_err();
    assert_eq!(reason, Reason::QuotaExceeded);
    assert!((1..=86_400).contains(&wait.unwrap()));
    assert_eq!(scene.through(1, "b", "x/y"), 1, "another caller has its own");
}

#[tokio::test(start_paused = true)]
async fn cost_is_counted_in_what_the_server_says() {
    let scene =
        Scene::new(&[("c", "{per: group, count: cost, rate: {calls: 10, per: hour, burst: 10}}")]);
    let group = &scene.snapshot.groups["acme"];
    let (server, caller) = ("x".parse().unwrap(), who("a"));
    let wanted = |cost| Use { server: Some(&server), tool: Some("t"), cost };
    assert!(scene.limits.take(group, &caller, wanted(9)).is_ok());
    assert!(scene.limits.take(group, &caller, wanted(1)).is_ok());
    assert!(scene.limits.take(group, &caller, wanted(1)).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_share_of_a_rate_is_that_part_of_its_pace() {
    let scene = Scene::new(&[("r", "{per: group, rate: {calls: 60, per: minute, burst: 1}}")]);
    assert_eq!(scene.through(50, "a", ""), 1);
    let told = scene.limits.tell(Duration::from_secs(1));
    let [fleet::Told::Rate(rate)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((rate.capacity, rate.demand), (60, 3_000));
    scene.limits.hear(&told[0], fleet::Heard::Share(250));
    pass(1_000).await;
    assert_eq!(scene.through(50, "a", ""), 1);
    pass(3_999).await;
    assert_eq!(scene.through(50, "a", ""), 0, "a quarter of the pace");
    pass(1).await;
    assert_eq!(scene.through(50, "a", ""), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_later_limit_refuses_costs_no_quota() {
    let scene = Scene::new(&[
        ("a", "{per: group, quota: {calls: 500, per: month}}"),
        ("b", "{per: group, rate: {calls: 1, per: hour}}"),
    ]);
    assert_eq!(scene.through(100, "a", "x/y"), 1);
    let told = scene.limits.tell(Duration::from_millis(500));
    let fleet::Told::Quota(due) = &told[0] else { panic!("{told:?}") };
    assert_eq!(due.claim.spent, 1);
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_are_shared_by_demand_and_each_proxy_lets_one_in() {
    let scene = Scene::new(&[("c", "{per: group, concurrency: 8}")]);
    let mut held: Vec<Ticket> = (0..8).map(|_| scene.take("a", "").unwrap()).collect();
    assert_eq!(scene.take("a", "").unwrap_err(), (Reason::ConcurrencyLimited, Some(1)));
    let tell = || scene.limits.tell(Duration::from_millis(500));
    let told = tell();
    let [fleet::Told::Rate(rate)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((rate.capacity, rate.demand), (8, 9), "with the one that was refused");
    scene.limits.hear(&told[0], fleet::Heard::Share(500));
    held.truncate(4);
    assert!(scene.take("a", "").is_err(), "a half is in flight");
    held.truncate(3);
    held.push(scene.take("a", "").unwrap());
    let told = tell();
    let [fleet::Told::Rate(rate)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(rate.demand, 9, "as many as wanted to be since");
    let told = tell();
    let [fleet::Told::Rate(rate)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(rate.demand, 4, "what is in flight is wanted still");
    scene.limits.hear(&told[0], fleet::Heard::Share(1));
    held.clear();
    let one = scene.take("a", "").unwrap();
    assert!(scene.take("a", "").is_err(), "however small the part");
    drop(one);
    // A limit with a rate as well has two counters.
    let both = Scene::new(&[("b", "{per: group, concurrency: 1, rate: {calls: 1, per: minute}}")]);
    let _held = both.take("a", "").unwrap();
    let told = both.limits.tell(Duration::from_millis(500));
    let [fleet::Told::Rate(a), fleet::Told::Rate(b)] = told.as_slice() else { panic!("{told:?}") };
    assert_ne!(a.id, b.id);
}

/// Several proxies and what the control plane says to them, in lockstep: however demand moves,
/// there are never more calls in flight than the limit, or one at each proxy, once all have heard.
#[tokio::test(start_paused = true)]
async fn proxies_that_have_heard_keep_to_the_limit_between_them() {
    let scenes: Vec<Scene> =
        (0..4).map(|_| Scene::new(&[("c", "{per: group, concurrency: 10}")])).collect();
    let mut held: Vec<Vec<Ticket>> = vec![Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for round in 0..12_usize {
        for (at, scene) in scenes.iter().enumerate() {
            held[at].clear();
            let wanted = if (round / 3 + at) % 2 == 0 { 20 } else { 2 };
            held[at].extend((0..wanted).filter_map(|_| scene.take("a", "").ok()));
        }
        if round % 3 == 2 {
            let all: usize = held.iter().map(Vec::len).sum();
            assert!(all <= 10, "{all} in round {round}");
            assert!(all >= 7, "{all} in round {round}: what is free is used");
            assert!(held.iter().all(|held| !held.is_empty()), "nobody starves");
        }
        let told: Vec<_> =
            scenes.iter().map(|scene| scene.limits.tell(Duration::from_millis(500))).collect();
        let demand = |told: &Vec<fleet::Told>| match told.as_slice() {
            [fleet::Told::Rate(rate)] => rate.demand,
            other => panic!("{other:?}"),
        };
        let demands: Vec<u64> = told.iter().map(|told| demand(told) * 1_000).collect();
        let shares = weir_model::budget::shares(10_000, &demands);
        for ((scene, told), share) in scenes.iter().zip(&told).zip(shares) {
            let share = u32::try_from(share / 10).unwrap();
            scene.limits.hear(&told[0], fleet::Heard::Share(share));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_limits_refuse_and_what_the_ledger_owes_is_measured() {
    let metrics = Metrics::new();
    let snapshot = limits(&[("q", "{per: group, quota: {calls: 100, per: day}}")]);
    let limits = Limits::default().measured(&metrics);
    let wanted = Use { server: None, tool: None, cost: 1 };
    let caller = who("a");
    let group = &snapshot.groups["acme"];
    let served = (0..5).filter(|_| limits.take(group, &caller, wanted).is_ok()).count();
    assert_eq!(served, 1, "the head start");
    let told = limits.tell(Duration::from_millis(500));
    pass(3_000).await;
    let text = metrics.render();
    for line in [
        "weir_limit_refusals_total{group=\"acme\",limit=\"q\",reason=\"quota_exceeded\"} 4",
        "weir_limit_quota_counters 1",
        "weir_limit_buckets 0",
        "weir_limit_ledger_lag_seconds 2.99",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let grant = weir_model::budget::Grant { granted: 50, exhausted: false };
    limits.hear(&told[0], fleet::Heard::Grant(grant));
    assert!(metrics.render().contains("weir_limit_ledger_lag_seconds 0.0"));
}
