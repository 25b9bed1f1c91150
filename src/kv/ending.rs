//! What the beginning and the end of a session mean for the store. Pure.

use std::sync::Arc;

use super::limits::{MAX_RELEASED_BYTES, MAX_SESSIONS};
use super::record::{Key, write_entry, write_session};
use super::state::{State, weight};
use super::{Behavior, Entry, KvError, Session, SessionFault};
use crate::store::replica::Plan;
use crate::store::{Op, Txn};

pub(super) fn begin(state: &State, session: &Session) -> Result<Plan<()>, KvError> {
    if state.sessions.len() >= MAX_SESSIONS {
        return Err(SessionFault::TooMany.into());
    }
    let key = Key::Session(session.id.clone()).encode();
    let conditions = vec![(key.clone(), 0)];
    let ops = vec![Op::Put { key, value: write_session(session)? }];
    Ok(Plan { txn: Txn { conditions, ops }, value: () })
}

/// Removes a session and its locks; says whether anything is left to be done. Large values are released
/// in several steps, and a lock may have been taken just before: so until nothing is left.
pub(super) fn end(state: &State, id: &str) -> Plan<bool> {
    let mut txn = Txn::default();
    let mut write = |op: Op| {
        let (Op::Put { key, .. } | Op::Delete { key }) = &op;
        txn.conditions.push((key.clone(), state.version(key)));
        txn.ops.push(op);
    };
    let session = state.sessions.get(id);
    if session.is_some() {
        write(Op::Delete { key: Key::Session(id.to_owned()).encode() });
    }
    // Deleting never needs a second step, so what is found without its session is to be released.
    let behavior = session.map_or(Behavior::Release, |session| session.behavior);
    let locked = state.locks.get(id).into_iter().flatten().filter_map(|key| state.entries.get(key));
    let mut bytes = 0;
    for entry in locked {
        let key = Key::Entry(entry.key.clone()).encode();
        match behavior {
            Behavior::Delete => write(Op::Delete { key }),
            Behavior::Release => {
                bytes += weight(entry);
                if bytes > MAX_RELEASED_BYTES {
                    break;
                }
                write(Op::Put { key, value: write_entry(&released(entry)) });
            }
        }
    }
    let any = !txn.ops.is_empty();
    Plan { txn, value: any }
}

fn released(entry: &Arc<Entry>) -> Entry {
    Entry { session: None, ..(**entry).clone() }
}
