use std::time::Duration;

use weir_runtime::metrics::Metrics;

use super::*;

fn past(number: u32) -> Tiding {
    Tiding::Ended(Past { session: format!("{number:x}"), until: i64::MAX })
}

fn cancelled() -> Tiding {
    Tiding::Cancelled { session: "s".into(), request: "n1".into() }
}

#[tokio::test]
async fn what_lasts_is_kept_for_who_is_away_and_nothing_else_is() {
    let mailbox = Mailbox::new(true);
    assert_eq!(mailbox.put(past(1)), 1);
    mailbox.put(cancelled());
    assert_eq!(mailbox.put(past(2)), 3);
    let (tidings, last) = mailbox.take().unwrap();
    assert_eq!((tidings.clone(), last), (vec![past(1), past(2)], 3));
    assert!(mailbox.take().is_none());
    // Nobody waits for who cannot be reached.
    mailbox.told(3).await;
    mailbox.put(past(3));
    mailbox.put_back(tidings, last);
    assert_eq!(mailbox.take().unwrap().0, [past(1), past(2), past(3)]);
}

#[tokio::test]
async fn who_is_far_behind_is_told_of_everything() {
    let mailbox = Mailbox::new(true);
    for number in 0..=u32::try_from(bounds::TIDINGS_MAX).unwrap() {
        mailbox.put(past(number));
    }
    assert!(mailbox.take().is_none() && mailbox.is_behind());
}

#[tokio::test]
async fn batches_are_bounded() {
    let mailbox = Mailbox::new(true);
    for number in 0..u32::try_from(bounds::TIDINGS_AT_ONCE_MAX + 10).unwrap() {
        mailbox.put(past(number));
    }
    assert_eq!(mailbox.take().unwrap().0.len(), bounds::TIDINGS_AT_ONCE_MAX);
    assert_eq!(mailbox.take().unwrap().0.len(), 10);
}

#[tokio::test]
async fn a_proxy_alone_ends_sessions_at_once() {
    let hop = Hop::new(None, None, &Metrics::new());
    let ended = Ended::default();
    let clock = weir_runtime::clock::SystemClock::shared();
    let neighbours = Neighbours::new(hop, ended.clone(), clock);
    neighbours.end("a").await;
    assert!(ended.contains("a") && neighbours.count() == (0, 0));
    neighbours.listed(Vec::new());
    tokio::time::timeout(Duration::from_secs(5), neighbours.settled()).await.unwrap();
}
