//! Which build this is: version, commit, profile. Shown by `--version`, the admin listener and
//! the metric `weir_build_info`.

use serde::Serialize;

/// What is known about the running build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BuildInfo {
    /// Version of the workspace.
    pub version: &'static str,
    /// Commit, when the build was told one through `WEIR_COMMIT`.
    pub commit: &'static str,
    /// `debug` or `release`.
    pub profile: &'static str,
}

/// The running build.
pub const fn current() -> BuildInfo {
    BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        commit: match option_env!("WEIR_COMMIT") {
            Some(commit) => commit,
            None => "unknown",
        },
        profile: if cfg!(debug_assertions) { "debug" } else { "release" },
    }
}

impl std::fmt::Display for BuildInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}, {})", self.version, self.commit, self.profile)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_build_names_its_version() {
        let text = super::current().to_string();
        assert!(text.starts_with(env!("CARGO_PKG_VERSION")), "{text}");
    }
}
