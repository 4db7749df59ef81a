//! The thread of the sink: appends and syncs block, and must hold up neither calls nor each other.

use std::sync::Arc;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// A future that runs on a thread of its own.
#[derive(Debug)]
pub(super) struct Running {
    stop: Arc<Notify>,
    ended: oneshot::Receiver<()>,
}

/// Runs it until it ends or is stopped. A process that cannot start a thread cannot serve either:
/// then this panics, as the runtime's own threads do.
pub(super) fn run(future: impl Future<Output = ()> + Send + 'static) -> Running {
    let stop = Arc::new(Notify::new());
    let (end, ended) = oneshot::channel();
    let stopped = Arc::clone(&stop);
    let subscriber = tracing::dispatcher::get_default(Clone::clone);
    std::thread::spawn(move || {
        let _logs = tracing::dispatcher::set_default(&subscriber);
        match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(async {
                tokio::select! {
                    () = future => {}
                    () = stopped.notified() => {}
                }
            }),
            Err(error) => tracing::error!(%error, "the audit sink has no runtime"),
        }
        // Nobody may be waiting.
        let _ = end.send(());
    });
    Running { stop, ended }
}

impl Running {
    /// Waits for its end; at the deadline it is stopped where it stands. What it held is closed
    /// when this returns.
    pub(super) async fn finish(mut self, deadline: Instant) {
        if tokio::time::timeout_at(deadline, &mut self.ended).await.is_err() {
            self.stop.notify_one();
            let _ = self.ended.await;
        }
    }
}
