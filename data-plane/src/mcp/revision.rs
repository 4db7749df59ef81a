//! The published revisions of the protocol, as data.
//!
//! No version text is compared anywhere else: code asks a [`Revision`] what it can do.

/// One published revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// HTTP+SSE; also asked for over Streamable HTTP by older clients.
    V2024_11_05,
    /// First Streamable HTTP.
    V2025_03_26,
    /// Structured output, version header.
    V2025_06_18,
    /// Newest with a handshake.
    V2025_11_25,
    /// Stateless.
    V2026_07_28,
}

impl Revision {
    /// Oldest first.
    pub const ALL: [Self; 5] = [
        Self::V2024_11_05,
        Self::V2025_03_26,
        Self::V2025_06_18,
        Self::V2025_11_25,
        Self::V2026_07_28,
    ];
    /// What a handshake is answered with when the client asks for something unknown.
    pub const NEWEST_LEGACY: Self = Self::V2025_11_25;
    /// What a client speaks that says nothing (2025-06-18, transports).
    pub const ASSUMED: Self = Self::V2025_03_26;

    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }
    /// The revision of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == text)
    }
    /// True for revisions without handshake and session.
    pub fn modern(self) -> bool {
        self >= Self::V2026_07_28
    }
    /// The stateless revisions, newest first.
    pub fn all_modern() -> Vec<&'static str> {
        Self::ALL.iter().rev().filter(|r| r.modern()).map(|r| r.as_str()).collect()
    }
    /// Every revision, newest first.
    pub fn all() -> Vec<&'static str> {
        Self::ALL.iter().rev().map(|r| r.as_str()).collect()
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
