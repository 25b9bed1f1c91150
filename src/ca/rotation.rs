//! How one root follows another. Pure: the state is a value in the store, the clock is an argument.
//!
//! A rotation goes through four steps, each of them one durable change of the authority:
//!
//! 1. *prepare*: the new root is in the bundle and trusted, the old one signs. Ends when every sidecar
//!    that is connected has acknowledged that bundle. Those that are away are waited for at most the
//!    rotation's patience, and only if the old root signs the key of the new one: then a sleeper that
//!    knows no other than the old root still accepts everybody.
//! 2. *reissue* (the new root is active): servers sign with new intermediates, sidecars renew with
//!    jitter. Ends when no connected sidecar uses a leaf of an older root, or when none can be alive.
//! 3. *retire*: an old root leaves the bundle once no leaf under it can be alive.
//! 4. *done*.
//!
//! The next rotation may begin once the new root signs: bundles may hold several old roots. `next` decides;
//! `driver` asks it and writes. Two servers that decide at once write the same change, of which the
//! store takes one.

use serde::{Deserialize, Serialize};

/// How far a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    Prepare,
    Reissue,
    Retire,
    Done,
}

impl Step {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Reissue => "reissue",
            Self::Retire => "retire",
            Self::Done => "done",
        }
    }
}

/// The last rotation, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Id of the root that takes over.
    pub to: String,
    pub step: Step,
    /// Seconds since the Unix epoch at which it began, and at which this step did.
    pub began: u64,
    pub since: u64,
    /// First version of the bundle that has the new root.
    pub bundle: u64,
    /// Seconds for which the first step waits for those that are away.
    pub patience_s: u64,
}

/// The sidecars of this server, counted for one bundle and one root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    pub connected: usize,
    /// Connected, and have not acknowledged the bundle.
    pub behind: usize,
    /// Not connected, with a leaf that is still good.
    pub away: usize,
    /// Connected with a leaf of another root than the active one.
    pub old_leaf: usize,
}

/// What the decision depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub rotation: Option<&'a Rotation>,
    /// When each of the old roots may leave: seconds since the Unix epoch.
    pub retiring: &'a [u64],
    /// Longest life of a leaf in seconds, with slack.
    pub horizon_s: u64,
    /// The oldest root can sign the new one's key.
    pub can_cross: bool,
    /// `None` while this server has just started and its sidecars may not be back.
    pub census: Option<Census>,
}

/// A change that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Activate,
    /// Nobody uses an old leaf any more.
    Reissued,
    /// Roots whose time is over leave.
    Retire,
    /// The last old root is gone.
    Finish,
}

/// The change that is due at `now`, if one is.
pub(super) fn next(view: &View<'_>, now: u64) -> Option<Due> {
    if let Some(rotation) = view.rotation {
        let waited = now.saturating_sub(rotation.since);
        match rotation.step {
            Step::Prepare if may_activate(view, rotation, waited) => return Some(Due::Activate),
            Step::Reissue if nobody_uses_old(view) || waited >= view.horizon_s => {
                return Some(Due::Reissued);
            }
            Step::Retire if view.retiring.is_empty() => return Some(Due::Finish),
            _ => {}
        }
    }
    // A leaf that is in use is alive, whatever the clocks say; beyond another whole life they are wrong.
    let over = |at: &u64| now >= *at && (nobody_uses_old(view) || now - at >= view.horizon_s);
    view.retiring.iter().any(over).then_some(Due::Retire)
}

fn may_activate(view: &View<'_>, rotation: &Rotation, waited: u64) -> bool {
    let all_have_it = view.census.is_some_and(|census| census.behind == 0 && census.away == 0);
    all_have_it || (view.can_cross && waited >= rotation.patience_s)
}

fn nobody_uses_old(view: &View<'_>) -> bool {
    view.census.is_some_and(|census| census.old_leaf == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HORIZON: u64 = 1000;

    fn rotation(step: Step) -> Rotation {
        Rotation { to: "b".into(), step, began: 0, since: 100, bundle: 2, patience_s: 60 }
    }

    fn decide(
        step: Option<Step>,
        census: Option<Census>,
        can_cross: bool,
        retiring: &[u64],
        now: u64,
    ) -> Option<Due> {
        let rotation = step.map(rotation);
        let rotation = rotation.as_ref();
        next(&View { rotation, retiring, horizon_s: HORIZON, can_cross, census }, now)
    }

    #[test]
    fn steps_by_table() {
        let census = |behind, away, old_leaf| Some(Census { connected: 9, behind, away, old_leaf });
        let (prepare, reissue, retire) = (Some(Step::Prepare), Some(Step::Reissue), Some(Step::Retire));
        let activate = Some(Due::Activate);
        for (step, census, can_cross, retiring, now, want) in [
            (prepare, census(0, 0, 9), true, &[][..], 100, activate),
            (prepare, census(1, 0, 9), true, &[], 159, None),
            (prepare, census(0, 1, 9), true, &[], 159, None),
            (prepare, census(1, 1, 9), true, &[], 160, activate),
            // Nobody is left behind whom no cross-signed certificate could help.
            (prepare, census(1, 0, 9), false, &[], 99_999, None),
            (prepare, census(0, 0, 9), false, &[], 100, activate),
            // Just started: nobody is connected, which says nothing.
            (prepare, None, true, &[], 159, None),
            (prepare, None, true, &[], 160, activate),
            (reissue, census(3, 3, 1), true, &[2000], 200, None),
            (reissue, census(3, 3, 0), true, &[2000], 200, Some(Due::Reissued)),
            (reissue, None, true, &[2000], 1099, None),
            (reissue, census(0, 0, 1), true, &[2000], 1100, Some(Due::Reissued)),
            (retire, census(0, 0, 0), true, &[2000], 1999, None),
            (retire, census(0, 0, 0), true, &[2000], 2000, Some(Due::Retire)),
            (retire, census(0, 0, 1), true, &[2000], 2000, None),
            (retire, census(0, 0, 1), true, &[2000], 3000, Some(Due::Retire)),
            (retire, None, true, &[2000], 2500, None),
            (retire, census(0, 0, 0), true, &[], 1, Some(Due::Finish)),
            // An older root's time comes while the next rotation prepares.
            (prepare, census(1, 0, 0), true, &[120, 900], 130, Some(Due::Retire)),
            (None, census(0, 0, 0), true, &[], 99_999, None),
            (Some(Step::Done), census(0, 0, 0), true, &[], 99_999, None),
        ] {
            let found = decide(step, census, can_cross, retiring, now);
            assert_eq!(found, want, "{step:?} {census:?} {can_cross} {retiring:?} {now}");
        }
    }

    proptest! {
        /// Whatever happens: no root leaves before its time, nobody who could not follow is left
        /// behind, and with time alone every rotation ends.
        #[test]
        fn nothing_is_early_and_everything_ends(
            behind in 0_usize..3, away in 0_usize..3, old_leaf in 0_usize..3,
            can_cross: bool, known: bool, now in 0_u64..10_000,
            retiring in proptest::collection::vec(0_u64..5000, 0..4),
        ) {
            let census = known.then_some(Census { connected: 5, behind, away, old_leaf });
            for step in [Step::Prepare, Step::Reissue, Step::Retire, Step::Done] {
                let found = decide(Some(step), census, can_cross, &retiring, now);
                match found {
                    Some(Due::Retire) => prop_assert!(retiring.iter().any(|at| now >= *at)),
                    Some(Due::Activate) => {
                        let all = known && behind == 0 && away == 0;
                        prop_assert!(all || (can_cross && now >= 160));
                    }
                    Some(Due::Finish) => prop_assert!(retiring.is_empty()),
                    Some(Due::Reissued) | None => {}
                }
            }
            let late = 20_000;
            let first = decide(Some(Step::Prepare), census, true, &[], late);
            prop_assert_eq!(first, Some(Due::Activate));
            let reissued = decide(Some(Step::Reissue), census, true, &retiring, late);
            prop_assert_eq!(reissued, Some(Due::Reissued));
            let end = decide(Some(Step::Retire), census, true, &retiring, late);
            let want = if retiring.is_empty() { Due::Finish } else { Due::Retire };
            prop_assert_eq!(end, Some(want));
        }
    }
}
