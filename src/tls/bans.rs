//! The bans as the verifier asks for them: one list that all settings of a process share, replaced as a
//! whole when it changes.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::model::Bans;
use crate::model::ban::Subject;

use super::leaf::Facts;
use super::reason::Rejection;

/// Cheap to clone; all clones are one list.
#[derive(Clone, Default)]
pub struct BanList(Arc<ArcSwap<Bans>>);

impl BanList {
    /// Every handshake from now on is judged by these.
    pub fn replace(&self, bans: Arc<Bans>) {
        self.0.store(bans);
    }

    pub(super) fn check(&self, facts: &Facts) -> Result<(), Rejection> {
        match self.0.load().find(&facts.id, &facts.serial) {
            Some(subject) => Err(banned(facts, subject)),
            None => Ok(()),
        }
    }
}

fn banned(facts: &Facts, subject: &Subject) -> Rejection {
    Rejection::Banned { id: facts.id.clone(), serial: facts.serial.clone(), by: subject.kind() }
}

impl fmt::Debug for BanList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BanList").finish_non_exhaustive()
    }
}
