//! A quota over two proxies, with one of them and the control plane killed in between.

use std::time::Duration;

use weir_runtime::testing::eventually;

use crate::planes::{BOUND, Proxy, Scene, path};

/// What the group may spend in a day.
const QUOTA: u64 = 300;

fn limit(folder: &std::path::Path) -> std::path::PathBuf {
    let text = format!(
        "apiVersion: weir/v1\nkind: Limit\nmetadata: {{name: daily, group: acme}}\n\
         spec: {{per: group, tools: ['*'], quota: {{calls: {QUOTA}, per: day}}}}\n"
    );
    let file = folder.join("limit.yaml");
    std::fs::write(&file, text).unwrap();
    file
}

/// Calls that get through before the proxy refuses for so long that it means the window.
async fn spend(proxy: &Proxy, agent: &str, most: u64) -> u64 {
    let mut through = 0;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while through < most && tokio::time::Instant::now() < deadline {
        match proxy.call(agent).await {
            Ok(()) => through += 1,
            Err(error) => {
                // Refused, and the ledger has not been heard yet or has said no.
                assert!(format!("{error:#}").contains("42902"), "{error:#}");
                tokio::task::yield_now().await;
            }
        }
    }
    through
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_holds_over_proxies_that_die_and_a_control_plane_that_dies() {
    let (scene, running) = Scene::start(&[]).await;
    let Scene { folder, control, admin, agent } = &scene;
    let at = folder.path();
    control.weir(admin, &["apply", "-f", path(&limit(at))]).await;
    let mut proxies = Vec::new();
    for name in ["proxy-1", "proxy-2"] {
        let proxy = scene.proxy(name).await;
        proxies.push((proxy.start(), proxy));
    }
    let (serving, second) = proxies.pop().unwrap();
    let (_serving, first) = proxies.pop().unwrap();
    // The first call that gets through tells that the configuration is there.
    first.answers(agent, true).await;
    second.answers(agent, true).await;
    let mut served = 2;

    served += spend(&first, agent, 60).await;
    served += spend(&second, agent, 60).await;
    serving.kill();
    running.kill();
    // Without the ledger a proxy spends what it was granted and its head start, no more.
    let alone = spend(&first, agent, QUOTA).await;
    assert!(alone < QUOTA / 2, "{alone} without a ledger");
    served += alone;
    let _running = control.start();
    let _serving = second.start();
    second.answers(agent, true).await;
    served += 1;
    served += spend(&second, agent, QUOTA).await;
    served += spend(&first, agent, QUOTA).await;

    // Three processes served, each at most a hundredth ahead; what the dead one was granted and
    // did not spend is lost.
    let bound = QUOTA + 3 * (QUOTA / 100);
    assert!(served <= bound, "{served} of {QUOTA}, at most {bound}");
    assert!(served >= QUOTA / 2, "{served} of {QUOTA}");
    let over = eventually(BOUND, async || {
        first.call(agent).await.is_err_and(|error| format!("{error:#}").contains("42902"))
    });
    assert!(over.await);
    let shown = control.weir(admin, &["limits", "-g", "acme", "-o", "json"]).await;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let of = &shown["uses"][0];
    assert_eq!(
        (&of["limit"], &of["per"], &of["left"]),
        (&"daily".into(), &"group".into(), &0.into())
    );
    let known = of["used"].as_u64().unwrap() + of["reserved"].as_u64().unwrap();
    assert!((QUOTA..=bound).contains(&known), "{shown}");
    assert!(of["renews"].as_i64().unwrap() - of["begins"].as_i64().unwrap() == 86_400, "{shown}");
    let table = control.weir(admin, &["limits", "-g", "acme"]).await;
    assert!(table.starts_with("LIMIT") && table.contains("daily  group"), "{table}");
    let none = control.weir(admin, &["limits", "-g", "acme", "--of", "account:nobody"]).await;
    assert_eq!(none.lines().count(), 1, "{none}");
}
