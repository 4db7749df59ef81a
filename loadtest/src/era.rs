//! The published revisions of MCP, as far as a client's wire differs between them.

use serde::Deserialize;

/// A revision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Era {
    /// Over HTTP+SSE: a stream that is opened first, and POSTs beside it.
    #[serde(rename = "2024-11-05")]
    Y2024,
    /// Streamable HTTP with sessions.
    #[serde(rename = "2025-03-26")]
    March2025,
    /// The same, with the revision in a header.
    #[serde(rename = "2025-06-18")]
    June2025,
    /// The same.
    #[default]
    #[serde(rename = "2025-11-25")]
    November2025,
    /// No sessions; every request says all.
    #[serde(rename = "2026-07-28")]
    Y2026,
}

impl Era {
    /// As it is spelled on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Y2024 => "2024-11-05",
            Self::March2025 => "2025-03-26",
            Self::June2025 => "2025-06-18",
            Self::November2025 => "2025-11-25",
            Self::Y2026 => "2026-07-28",
        }
    }

    /// True without sessions.
    pub fn modern(self) -> bool {
        self == Self::Y2026
    }

    /// True when `MCP-Protocol-Version` is sent.
    pub fn versioned(self) -> bool {
        matches!(self, Self::June2025 | Self::November2025 | Self::Y2026)
    }
}
