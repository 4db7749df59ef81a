//! Signals of the operating system: SIGTERM and SIGINT drain, SIGHUP asks for a reload of files.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::drain::{Drain, Watch};
use crate::task;

/// Tells parts that read files (certificates) to look at them again. Clones share one state.
#[derive(Debug, Clone)]
pub struct Reload {
    asked: watch::Sender<u64>,
}

impl Default for Reload {
    fn default() -> Self {
        Self { asked: watch::Sender::new(0) }
    }
}

impl Reload {
    /// Asks everybody who listens.
    pub fn ask(&self) {
        self.asked.send_modify(|count| *count += 1);
    }
    /// Changes with every request for a reload.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }
}

/// Listens from now on. The first SIGTERM or SIGINT drains, the next one ends at once.
///
/// # Errors
/// When the operating system refuses a handler.
pub fn listen(drain: &Drain) -> std::io::Result<Reload> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    let reload = Reload::default();
    let (drain, asked): (Drain, Reload) = (drain.clone(), reload.clone());
    let watch: Watch = drain.watch();
    task::spawn("signals", async move {
        loop {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
                _ = hup.recv() => {
                    tracing::info!("SIGHUP: looking at files again");
                    asked.ask();
                    continue;
                }
                () = watch.immediate() => return,
            };
            tracing::info!(signal = name, "draining");
            drain.signal();
        }
    });
    Ok(reload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Phase;
    use std::time::Duration;

    const BOUND: Duration = Duration::from_secs(5);

    fn send(name: &str) {
        let pid = std::process::id().to_string();
        let status = std::process::Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    }

    // One test for all signals: they go to the whole process.
    #[tokio::test]
    async fn hangup_reloads_then_terminate_drains_then_interrupt_ends() {
        let (drain, watch) = crate::drain::new(Duration::from_secs(60));
        let reload = listen(&drain).unwrap();
        let mut asked = reload.subscribe();
        send("-HUP");
        tokio::time::timeout(BOUND, asked.changed()).await.unwrap().unwrap();
        assert_eq!(watch.phase(), Phase::Running);
        send("-TERM");
        tokio::time::timeout(BOUND, watch.drained()).await.unwrap();
        assert_eq!(watch.phase(), Phase::Graceful);
        send("-INT");
        tokio::time::timeout(BOUND, watch.immediate()).await.unwrap();
    }
}
