//! When API tokens were last used, for the control plane to show.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use weir_model::bounds;
use weir_model::id::Name;
use weir_model::snapshot::Snapshot;
use weir_model::sync::TokenUse;

/// What was told already.
#[derive(Debug, Default)]
pub(super) struct Uses(HashMap<(Name, String), i64>);

impl Uses {
    /// Uses that were not told yet, at most [`bounds::TOKEN_USES_MAX`] of them; the rest comes
    /// next time.
    pub(super) fn news(&mut self, snapshot: &Snapshot) -> Vec<TokenUse> {
        let mut uses = Vec::new();
        let mut known = HashMap::new();
        for (name, group) in &snapshot.groups {
            for token in group.tokens.values() {
                let at = token.used.load(Ordering::Relaxed);
                let key = (name.clone(), token.id.clone());
                let told = self.0.get(&key).copied().unwrap_or_default();
                let mut newest = told;
                if at > told && uses.len() < bounds::TOKEN_USES_MAX {
                    uses.push(TokenUse { group: name.clone(), id: token.id.clone(), at });
                    newest = at;
                }
                if newest > 0 {
                    known.insert(key, newest);
                }
            }
        }
        self.0 = known;
        uses
    }
}

#[cfg(test)]
mod tests {
    use weir_model::testing::World;

    use super::*;

    #[test]
    fn each_use_is_told_once() {
        let snapshot = World::new().group("acme").account("acme", "ci").snapshot();
        let token = snapshot.groups["acme"].tokens.values().next().unwrap();
        let mut uses = Uses::default();
        assert_eq!(uses.news(&snapshot), []);
        token.used.store(100, Ordering::Relaxed);
        let told = uses.news(&snapshot);
        assert_eq!(
            told.iter().map(|u| (u.id.as_str(), u.at)).collect::<Vec<_>>(),
            [(token.id.as_str(), 100)]
        );
        assert_eq!(uses.news(&snapshot), []);
        token.used.store(160, Ordering::Relaxed);
        assert_eq!(uses.news(&snapshot)[0].at, 160);
    }
}
