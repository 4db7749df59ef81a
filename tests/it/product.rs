//! The product in this process, as `weir dev` runs it, and the command line against it.

use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use tempfile::TempDir;
use weir::cli::{Cli, Command, Dev};
use weir::client::Client;
use weir::dev::{Running, Surroundings, Whereabouts};
use weir::settings::Server;
use weir_model::secret::Secret;
use weir_runtime::drain::{self, Drain};
use weir_runtime::signals::Reload;

/// Both planes, and a folder of their own.
pub(crate) struct Product {
    pub(crate) whereabouts: Whereabouts,
    pub(crate) folder: TempDir,
    drain: Drain,
    running: Running,
}

impl Product {
    pub(crate) async fn start(more: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), more).await
    }

    pub(crate) async fn start_in(folder: TempDir, more: &[&str]) -> Self {
        let data = folder.path().join("data");
        let base = ["weir", "dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let data = ["--data-dir", data.to_str().unwrap()];
        let cli = Cli::parse_from(base.iter().chain(&data).chain(more));
        let Command::Dev(args) = cli.command else { panic!("another command") };
        Self::started(folder, &args).await
    }

    async fn started(folder: TempDir, args: &Dev) -> Self {
        let (drain, _) = drain::new(Duration::from_secs(5));
        let around = Surroundings { drain: drain.clone(), reload: Reload::default(), level: None };
        let running = weir::dev::start(args, around).await.unwrap();
        Self { whereabouts: running.whereabouts.clone(), folder, drain, running }
    }

    /// Ends both planes; gives the folder back for a next start.
    pub(crate) async fn stop(self) -> TempDir {
        self.drain.start();
        self.running.finished().await.unwrap();
        self.folder
    }

    /// What a command prints, or its exit code and what it says.
    pub(crate) async fn weir(&self, line: &[&str]) -> Result<String, (u8, String)> {
        self.weir_as(self.whereabouts.admin_token.expose(), line).await
    }

    pub(crate) async fn weir_as(&self, token: &str, line: &[&str]) -> Result<String, (u8, String)> {
        let cli = Cli::parse_from(["weir"].iter().chain(line));
        let url = self.whereabouts.admin_url.clone();
        let server = Server { url, token: Secret::new(token.to_owned()), ca: None };
        let told = weir::operate::run(&Client::new(server).unwrap(), cli.command).await;
        told.map_err(|error| (weir::exit::code(&error), format!("{error:#}")))
    }

    /// Writes documents into a file of the folder; gives its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// A folder of the examples.
pub(crate) fn examples(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("deploy/examples").join(name).to_str().unwrap().to_owned()
}
