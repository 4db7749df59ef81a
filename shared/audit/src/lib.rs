//! The audit pipeline: one record per request, reserved before the work, finished with the body.
//!
//! Both planes use it. A [`Pipeline`] numbers records within one epoch of one node and hands them
//! to its sinks in order.

use weir_model::audit::Facts;
use weir_model::reason::Reason;
use weir_model::resource::AuditClass;

/// Takes records from callers and brings them to the sinks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pipeline {}

/// Room for one record. Finishing it writes the record; dropping it unfinished writes what was
/// noted so far with [`weir_model::audit::Outcome::Unknown`] (or `Aborted` when so noted).
#[derive(Debug)]
pub struct Slot {}

impl Pipeline {
    /// Reserves room for one record before any work is done.
    ///
    /// # Errors
    /// [`Reason::AuditFull`] when there is no room and the class demands a record. A `counted`
    /// class gets a slot regardless, and the loss is counted.
    pub fn reserve(&self, class: AuditClass) -> Result<Slot, Reason> {
        let _ = class;
        todo!()
    }
}

impl Slot {
    /// Keeps the facts so far, for the case that the slot is dropped.
    pub fn note(&mut self, facts: &Facts) {
        let _ = facts;
        todo!()
    }

    /// Writes the record; returns when the class's promise holds (written, or written and synced).
    ///
    /// # Errors
    /// [`Reason::AuditFull`] when a `strict` or `durable` record could not be written.
    pub async fn finish(self, facts: Facts) -> Result<(), Reason> {
        let _ = facts;
        todo!()
    }
}
