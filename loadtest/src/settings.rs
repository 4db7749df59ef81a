//! What the load tool reads from its environment.

/// A variable that a plan names as `${NAME}`.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
