//! What both planes' settings share: one load, one way to say what is wrong, files of a listener.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{SettingsError, load};

/// What is wrong with settings that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting `{path}`: {message}")]
pub struct BadSetting {
    /// Dotted path.
    pub path: &'static str,
    /// What to do.
    pub message: String,
}

/// Everything that is wrong, in the order of the fields.
#[derive(Debug, Default)]
pub struct Problems(Vec<BadSetting>);

/// All of them, one a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BadSettings(pub Vec<BadSetting>);

impl std::fmt::Display for BadSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, bad) in self.0.iter().enumerate() {
            let line = if at == 0 { "" } else { "\n" };
            write!(f, "{line}{bad}")?;
        }
        Ok(())
    }
}

impl std::error::Error for BadSettings {}

impl Problems {
    /// One more: the field's dotted path, and what to do.
    pub fn say(&mut self, path: &'static str, message: &str) {
        self.0.push(BadSetting { path, message: message.to_owned() });
    }

    /// What was said; an error when it was anything.
    ///
    /// # Errors
    /// All of it.
    pub fn verdict(self) -> Result<(), BadSettings> {
        if self.0.is_empty() { Ok(()) } else { Err(BadSettings(self.0)) }
    }
}

impl Extend<(&'static str, &'static str)> for Problems {
    fn extend<T: IntoIterator<Item = (&'static str, &'static str)>>(&mut self, all: T) {
        all.into_iter().for_each(|(path, message)| self.say(path, message));
    }
}

/// PEM files of a listener, looked at again when they change.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate with its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// [`load`] of the file and of this process's environment. `PREFIX_CONFIG` names the file to the
/// command line and is no setting.
///
/// # Errors
/// Those of [`load`].
pub fn of_process<T: DeserializeOwned>(
    file: Option<&Path>,
    env_prefix: &str,
) -> Result<T, SettingsError> {
    let config = format!("{env_prefix}_CONFIG");
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| *name != config);
    load(file, env_prefix, env)
}
