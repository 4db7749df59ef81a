use proptest::prelude::*;

use super::*;

#[test]
fn windows_are_hours_days_and_months_of_utc() {
    // 2024-02-29T12:34:56Z, a leap day.
    let leap = 1_709_210_096;
    let table = [
        (QuotaWindow::Hour, leap, (1_709_208_000, 1_709_211_600)),
        (QuotaWindow::Day, leap, (1_709_164_800, 1_709_251_200)),
        (QuotaWindow::Month, leap, (1_706_745_600, 1_709_251_200)),
        (QuotaWindow::Month, 0, (0, 2_678_400)),
        // 2023-12-31T23:59:59Z.
        (QuotaWindow::Month, 1_704_067_199, (1_701_388_800, 1_704_067_200)),
        (QuotaWindow::Day, -1, (-86_400, 0)),
    ];
    for (per, unix, expected) in table {
        assert_eq!(window(per, unix), expected, "{per:?} {unix}");
    }
}

#[test]
fn a_report_that_comes_twice_or_late_changes_nothing() {
    let mut account = Account::default();
    let first = account.settle("a#1", Claim { spent: 10, wanted: 5 }, 100);
    let before = account.clone();
    assert_eq!(account.settle("a#1", Claim { spent: 10, wanted: 5 }, 100), first);
    assert_eq!(account.settle("a#1", Claim { spent: 3, wanted: 0 }, 100), first);
    assert_eq!(account, before);
    assert_eq!(account.spent(), 10);
}

#[test]
fn what_is_left_is_given_out_to_the_last_unit_and_then_it_is_over() {
    let mut account = Account::default();
    let mut spent = 0;
    for _ in 0..100 {
        let grant = account.settle("a#1", Claim { spent, wanted: 50 }, 100);
        assert!(grant.granted <= 100);
        spent = grant.granted;
        if grant.exhausted {
            assert_eq!(spent, 100);
            let other = account.settle("b#1", Claim { spent: 0, wanted: 1 }, 100);
            assert_eq!(other, Grant { granted: 0, exhausted: true });
            return;
        }
    }
    panic!("never over");
}

/// One process of a proxy, spending as the data plane does.
#[derive(Debug, Clone, Copy, Default)]
struct Proxy {
    epoch: u64,
    spent: u64,
    granted: u64,
    exhausted: bool,
}

/// What happens in a window.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A proxy gets so many calls.
    Calls(usize, u64),
    /// It asks the ledger; the answer may be lost.
    Ask(usize, bool),
    /// It is killed and starts anew.
    Dies(usize),
}

fn event(proxies: usize) -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..proxies, 0..60u64).prop_map(|(p, n)| Event::Calls(p, n)),
        4 => (0..proxies, any::<bool>()).prop_map(|(p, lost)| Event::Ask(p, lost)),
        1 => (0..proxies).prop_map(Event::Dies),
    ]
}

proptest! {
    /// The bound of the module's page, whatever is lost, repeated or killed.
    #[test]
    fn a_quota_is_overdrawn_by_no_more_than_the_head_starts(
        quota in 1..3_000u64,
        events in proptest::collection::vec(event(4), 1..200),
    ) {
        let mut account = Account::default();
        let mut proxies = [Proxy::default(); 4];
        let (mut served, mut processes) = (0, 4);
        for event in events {
            match event {
                Event::Calls(p, calls) => {
                    let proxy = &mut proxies[p];
                    let ahead = if proxy.exhausted { 0 } else { head_start(quota) };
                    let may = (proxy.granted + ahead).saturating_sub(proxy.spent).min(calls);
                    proxy.spent += may;
                    served += may;
                }
                Event::Ask(p, lost) => {
                    let proxy = &mut proxies[p];
                    let claim = Claim { spent: proxy.spent, wanted: 40 };
                    let grant = account.settle(&format!("{p}#{}", proxy.epoch), claim, quota);
                    if !lost {
                        proxy.granted = grant.granted;
                        proxy.exhausted = grant.exhausted;
                    }
                }
                Event::Dies(p) => {
                    proxies[p] = Proxy { epoch: proxies[p].epoch + 1, ..Proxy::default() };
                    processes += 1;
                }
            }
        }
        prop_assert!(served <= quota + processes * head_start(quota), "{served} of {quota}");
    }

    #[test]
    fn shares_are_max_min_fair(
        capacity in 0..10_000u64,
        demands in proptest::collection::vec(0..5_000u64, 1..12),
    ) {
        let parts = shares(capacity, &demands);
        prop_assert_eq!(parts.iter().sum::<u64>(), capacity);
        let total: u64 = demands.iter().sum();
        if total <= capacity {
            for (part, demand) in parts.iter().zip(&demands) {
                prop_assert!(part >= demand);
            }
        } else {
            let greatest = parts.iter().max().copied().unwrap_or_default();
            for (part, demand) in parts.iter().zip(&demands) {
                prop_assert!(part <= demand, "more than wanted while others want");
                // Who got less than it wants has no less than the greatest part, rounding aside.
                prop_assert!(part == demand || part + 1 >= greatest);
            }
        }
    }
}
