//! Named tasks whose end is noticed.
//!
//! A panic is reported under the task's name. An essential task that ends while the process is
//! still serving takes the process down through the drain: half a process serves nobody.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::drain::Drain;

/// Runs a task; a panic is logged under its name. The handle gives `None` after a panic.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(caught(name, future).instrument(tracing::info_span!(parent: None, "task", name)))
}

/// Runs a task that must not end before the drain has begun. If it does, by returning, by an
/// error or by a panic, the drain begins with that as its cause.
pub fn essential<F, E>(name: &'static str, drain: &Drain, future: F) -> JoinHandle<()>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let drain = drain.clone();
    let supervised = async move {
        let cause = match caught(name, future).await {
            Some(Ok(())) => format!("task `{name}` ended"),
            Some(Err(error)) => format!("task `{name}` failed: {error}"),
            None => format!("task `{name}` panicked"),
        };
        if !drain.watch().is_draining() {
            tracing::error!(cause, "an essential task ended; draining");
            drain.fail(cause);
        }
    };
    tokio::spawn(supervised.instrument(tracing::info_span!(parent: None, "task", name)))
}

/// Runs a task here up to its first wait, and from there on by itself: what it has at hand already
/// waits for no other thread, and wakes nobody.
pub fn spawn_begun<F>(future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut future = Box::pin(future);
    if (&mut future).now_or_never().is_none() {
        tokio::spawn(future);
    }
}

/// Payloads from this size on are worth stepping aside for: they take longer than that does.
const LONG_BYTES: usize = 64 * 1024;

/// Works on a payload of so many bytes. While it works on a long one, another thread takes over
/// the tasks of this one, so that a large call delays no small ones. On a runtime of one thread
/// that has no other it just works.
pub fn on_payload<R>(bytes: usize, work: impl FnOnce() -> R) -> R {
    if bytes < LONG_BYTES {
        return work();
    }
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

async fn caught<F: Future>(name: &'static str, future: F) -> Option<F::Output> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(output) => Some(output),
        Err(panic) => {
            tracing::error!(task = name, panic = panic_text(panic.as_ref()), "task panicked");
            None
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::time::Duration;

    async fn cause_of<F>(future: F) -> Option<String>
    where
        F: Future<Output = Result<(), std::fmt::Error>> + Send + 'static,
    {
        let (drain, _watch) = crate::drain::new(Duration::from_secs(60));
        essential("sync", &drain, future).await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), drain.finished()).await.unwrap().cause
    }

    #[tokio::test]
    async fn an_essential_task_that_ends_ends_the_process() {
        assert_eq!(cause_of(async { Ok(()) }).await.unwrap(), "task `sync` ended");
        let failed = cause_of(async { Err(std::fmt::Error) }).await.unwrap();
        assert!(failed.starts_with("task `sync` failed: "), "{failed}");
        assert_eq!(cause_of(async { panic!("boom") }).await.unwrap(), "task `sync` panicked");
    }

    #[tokio::test]
    async fn an_essential_task_may_end_in_a_drain() {
        let (drain, watch) = crate::drain::new(Duration::from_secs(60));
        let handle = essential("sync", &drain, async move {
            watch.drained().await;
            Ok::<_, Infallible>(())
        });
        drain.signal();
        handle.await.unwrap();
        assert_eq!(drain.finished().await.cause, None);
    }

    #[tokio::test]
    async fn what_a_task_has_at_hand_is_done_at_once_and_nothing_twice() {
        let (sink, mut heard) = tokio::sync::mpsc::channel(4);
        let (ask, asked) = tokio::sync::oneshot::channel();
        spawn_begun(async move {
            sink.send("at hand").await.unwrap();
            sink.send(asked.await.unwrap()).await.unwrap();
        });
        assert_eq!(heard.try_recv(), Ok("at hand"));
        ask.send("later").unwrap();
        assert_eq!((heard.recv().await, heard.recv().await), (Some("later"), None));
    }

    /// One worker, which the payload takes; whoever else is due runs meanwhile.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn others_run_while_a_long_payload_is_worked_on() {
        let (tell, told) = std::sync::mpsc::channel();
        let large = tokio::spawn(async move {
            let other = tokio::spawn(async move { tell.send("other") });
            let heard = on_payload(LONG_BYTES, || told.recv_timeout(Duration::from_secs(10)));
            let _ = other.await;
            heard
        });
        assert_eq!(large.await.unwrap(), Ok("other"));
    }

    #[tokio::test]
    async fn without_another_thread_it_is_just_done() {
        assert_eq!(on_payload(LONG_BYTES, || 1), 1);
        assert_eq!(std::thread::spawn(|| on_payload(LONG_BYTES, || 2)).join().unwrap(), 2);
    }

    #[tokio::test]
    async fn a_panic_in_a_plain_task_is_none() {
        assert_eq!(spawn("quiet", async { 5 }).await.unwrap(), Some(5));
        assert_eq!(spawn("loud", async { panic!("boom") }).await.unwrap(), None::<()>);
    }
}
