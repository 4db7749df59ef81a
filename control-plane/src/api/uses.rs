//! Which tokens are in use from where: operators do not log in, so the first use of a token from
//! an address, and the first after a while, is what a login is elsewhere and leaves a record even
//! when it only reads.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;
use weir_model::bounds;

/// See the module. Of this replica: others record what they see.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// Seconds since the epoch at which each was recorded.
    recorded: Mutex<HashMap<(String, Option<IpAddr>), u64>>,
}

impl Uses {
    /// True when this use has to be recorded; the next is then after
    /// [`bounds::OPERATOR_USE_SECS`].
    pub(super) fn begins(&self, token: &str, from: Option<IpAddr>, now: u64) -> bool {
        let mut recorded = self.recorded.lock();
        let fresh = |at: &u64| now.saturating_sub(*at) < bounds::OPERATOR_USE_SECS;
        let key = (token.to_owned(), from);
        if recorded.get(&key).is_some_and(fresh) {
            return false;
        }
        if recorded.len() >= bounds::OPERATOR_USES_MAX {
            recorded.retain(|_, at| fresh(at));
        }
        // Still too many: forget them all. That costs records, and hides no use.
        if recorded.len() >= bounds::OPERATOR_USES_MAX {
            recorded.clear();
        }
        recorded.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_begins_once_per_token_address_and_while() {
        let uses = Uses::default();
        let from = |last| Some(IpAddr::from([192, 0, 2, last]));
        assert!(uses.begins("a", from(1), 1_000));
        assert!(!uses.begins("a", from(1), 1_000 + bounds::OPERATOR_USE_SECS - 1));
        assert!(uses.begins("a", from(2), 1_000) && uses.begins("b", from(1), 1_000));
        assert!(uses.begins("a", from(1), 1_000 + bounds::OPERATOR_USE_SECS));
        for n in 0..bounds::OPERATOR_USES_MAX {
            assert!(uses.begins(&n.to_string(), None, 5_000));
        }
        assert!(uses.recorded.lock().len() <= bounds::OPERATOR_USES_MAX);
    }
}
