//! Where commands find the control plane: flags, then the environment, then a file.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;
use weir_model::secret::Secret;

use crate::exit::{Ended, Exit};

/// Which control plane, and as whom.
#[derive(Debug, Clone, Default, Args)]
pub struct ServerFlags {
    /// Address of the control plane: https://weir.example.com
    #[arg(long, global = true, env = "WEIR_URL", hide_env_values = true, value_name = "URL")]
    pub server: Option<String>,
    /// Operator's token. Better in WEIR_TOKEN or the configuration file than on a command line.
    #[arg(long, global = true, env = "WEIR_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// PEM file with the authorities to trust instead of the system's.
    #[arg(long, global = true, env = "WEIR_CA", hide_env_values = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// The same, found.
#[derive(Debug, Clone)]
pub struct Server {
    /// Without a slash at the end.
    pub url: String,
    /// Goes into `Authorization`.
    pub token: Secret<String>,
    /// Authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    server: Option<String>,
    token: Option<String>,
    ca: Option<PathBuf>,
}

impl ServerFlags {
    /// Completes the flags from the configuration file.
    ///
    /// # Errors
    /// When the file cannot be read, or address or token are nowhere to be found.
    pub fn find(&self) -> anyhow::Result<Server> {
        let file = config_file();
        let kept = match &file {
            Some(path) if path.exists() => read(path)?,
            _ => ConfigFile::default(),
        };
        self.complete(kept, file.as_deref())
    }

    fn complete(&self, kept: ConfigFile, file: Option<&Path>) -> anyhow::Result<Server> {
        let place = file.map_or("a configuration file".to_owned(), |f| f.display().to_string());
        let missing = |what: &str, variable: &str| {
            let message = format!("no {what}: set {variable}, or write `{what}:` into {place}");
            Ended::new(Exit::Usage, message)
        };
        let url =
            self.server.clone().or(kept.server).ok_or_else(|| missing("server", "WEIR_URL"))?;
        let token =
            self.token.clone().or(kept.token).ok_or_else(|| missing("token", "WEIR_TOKEN"))?;
        let ca = self.ca.clone().or(kept.ca);
        Ok(Server { url: url.trim_end_matches('/').to_owned(), token: Secret::new(token), ca })
    }
}

/// `weir/config.yaml` below the user's folder for configuration.
fn config_file() -> Option<PathBuf> {
    Some(config_folder()?.join("config.yaml"))
}

/// `weir` below the user's folder for configuration.
pub fn config_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
    Some(folder.or_else(home)?.join("weir"))
}

/// Prefix of variables that lie over the file of `--kafka`: a password belongs there.
pub const KAFKA_PREFIX: &str = "WEIR_KAFKA";

/// The variables of that prefix.
pub fn kafka_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(KAFKA_PREFIX))
}

/// An agent's token, `WEIR_AGENT_TOKEN`.
pub fn agent_token() -> Option<Secret<String>> {
    text("WEIR_AGENT_TOKEN").map(Secret::new)
}

/// The secret of the OAuth client that `--client-id` names, `WEIR_CLIENT_SECRET`.
pub fn client_secret() -> Option<Secret<String>> {
    text("WEIR_CLIENT_SECRET").map(Secret::new)
}

/// The program that opens URLs, `BROWSER`.
pub fn browser() -> Option<String> {
    text("BROWSER")
}

fn text(variable: &str) -> Option<String> {
    std::env::var(variable).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn read(path: &Path) -> anyhow::Result<ConfigFile> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    // A snippet would repeat the token.
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(&text, options)
        .with_context(|| format!("{} is not understood", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_what_is_missing_is_named() {
        let kept = || ConfigFile { server: Some("https://file/".into()), token: None, ca: None };
        let flags = ServerFlags { token: Some("t".into()), ..ServerFlags::default() };
        let found = flags.complete(kept(), None).unwrap();
        assert_eq!(found.url, "https://file");
        let flags = ServerFlags { server: Some("http://flag".into()), ..flags };
        assert_eq!(flags.complete(kept(), None).unwrap().url, "http://flag");

        let none = ServerFlags::default().complete(kept(), None).unwrap_err();
        assert!(none.to_string().contains("WEIR_TOKEN"), "{none}");
        assert_eq!(crate::exit::code(&none), Exit::Usage as u8);
    }

    #[test]
    fn a_file_with_an_unknown_field_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, "server: https://x\ntokne: abc\n").unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("tokne") && error.contains("config.yaml"), "{error}");
        assert!(!error.contains("abc"), "{error}");
    }
}
