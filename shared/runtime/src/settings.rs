//! Settings of a process: one YAML file, environment variables over it, one typed struct.
//!
//! `WEIR_DP_LISTEN__ADDRESS=127.0.0.1:8443` under the prefix `WEIR_DP` sets `listen.address`. A value
//! from the environment becomes whatever the field wants (text, number, switch); lists are comma
//! separated, and anything may be given as JSON. Structs carry `deny_unknown_fields`, so that a
//! misspelt key stops the start and is named with its path. Messages never quote values: a
//! settings file may hold secrets.

mod check;
mod node;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use check::{BadSetting, BadSettings, Problems, Tls, of_process};
use node::Node;

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("settings file {path}: {source}")]
    Read {
        /// Of the file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no YAML.
    #[error("settings file {path}: {message}")]
    Syntax {
        /// Of the file.
        path: PathBuf,
        /// With line and column.
        message: String,
    },
    /// An environment variable names something below a value that is no section.
    #[error("environment variable {variable}: `{at}` is a value, not a section")]
    NotASection {
        /// The variable.
        variable: String,
        /// Dotted path of the value.
        at: String,
    },
    /// A key is unknown, missing or of the wrong type.
    #[error("setting `{path}`{origin}: {message}")]
    Invalid {
        /// Dotted path of the key.
        path: String,
        /// ` (from VARIABLE)` when the environment set it.
        origin: String,
        /// Without values.
        message: String,
    },
}

/// Reads the file (when there is one), lays the environment over it, and checks the whole.
///
/// # Errors
/// One error with the path of the first key that is wrong.
pub fn load<T: DeserializeOwned>(
    file: Option<&Path>,
    env_prefix: &str,
    env: impl Iterator<Item = (String, String)>,
) -> Result<T, SettingsError> {
    let mut root = match file {
        Some(path) => Node::from(read(path)?),
        None => Node::Map(Vec::new()),
    };
    let prefix = format!("{}_", env_prefix.trim_end_matches('_'));
    let mut variables: Vec<(String, String)> =
        env.filter(|(name, _)| name.len() > prefix.len() && name.starts_with(&prefix)).collect();
    variables.sort();
    let mut origins = Vec::new();
    for (name, value) in variables {
        let keys: Vec<String> =
            name[prefix.len()..].to_ascii_lowercase().split("__").map(str::to_owned).collect();
        origins.push((keys.join("."), name.clone()));
        root.set(&keys, value).map_err(|at| SettingsError::NotASection { variable: name, at })?;
    }
    serde_path_to_error::deserialize(root).map_err(|error| {
        let path = error.path().to_string();
        let origin = origins
            .iter()
            .find(|(keys, _)| *keys == path || keys.starts_with(&format!("{path}.")))
            .map(|(_, name)| format!(" (from {name})"))
            .unwrap_or_default();
        let message = without_values(&error.into_inner().to_string());
        SettingsError::Invalid { path, origin, message }
    })
}

fn read(path: &Path) -> Result<serde_json::Value, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(serde_json::Value::Object(serde_json::Map::new()));
    }
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(&text, options).map_err(|error| SettingsError::Syntax {
        path: path.to_owned(),
        message: without_values(&error.to_string()),
    })
}

/// Serde quotes the offending text in double quotes, and it might be a secret.
fn without_values(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}\"...\"{}", &message[..first], &message[last + 1..])
        }
        _ => message.to_owned(),
    }
}

/// A setting that is never shown: tokens, passwords, key material.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Masked<T>(T);

impl<T> Masked<T> {
    /// Hides a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }
    /// The value, for the one place that needs it.
    pub fn reveal(&self) -> &T {
        &self.0
    }
}

const MASK: &str = "***";

impl<T> fmt::Debug for Masked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl<T> Serialize for Masked<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// The settings in force as `path = value` lines, with the values of all fields named in
/// `secret` (at any depth) masked.
pub fn masked<T: Serialize>(settings: &T, secret: &[&str]) -> String {
    let mut lines = String::new();
    match serde_json::to_value(settings) {
        Ok(value) => print(&mut lines, "", &value, secret),
        Err(error) => lines.push_str(&format!("settings cannot be shown: {error}\n")),
    }
    lines
}

fn print(lines: &mut String, path: &str, value: &serde_json::Value, secret: &[&str]) {
    match value {
        serde_json::Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if secret.contains(&key.as_str()) && !value.is_null() {
                    lines.push_str(&format!("{path} = {MASK}\n"));
                } else {
                    print(lines, &path, value, secret);
                }
            }
        }
        serde_json::Value::Array(items) if items.iter().any(|item| item.is_object()) => {
            for (index, item) in items.iter().enumerate() {
                print(lines, &format!("{path}[{index}]"), item, secret);
            }
        }
        other => lines.push_str(&format!("{path} = {other}\n")),
    }
}

#[cfg(test)]
mod tests;
