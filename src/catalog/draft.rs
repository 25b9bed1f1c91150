//! A transaction in the making. Pure; used by `plan`.
//!
//! A draft names the version of everything it writes or rests on, so that the store refuses it when
//! somebody was faster.

use std::collections::BTreeMap;

use serde::Serialize;

use super::CatalogError;
use super::key::{Key, encode};
use super::state::State;
use crate::model::{Check, CheckId, EndpointId, NodeName};
use crate::store::{Op, Revision, Txn};

/// A transaction, what to keep in memory besides, and what to answer once it is committed.
#[derive(Debug)]
pub(super) struct Plan<T> {
    pub(super) txn: Txn,
    pub(super) outputs: Vec<Output>,
    pub(super) value: T,
}

/// A new output of a check that is otherwise what it was.
pub(super) type Output = (NodeName, CheckId, String);

/// A transaction in the making.
pub(super) struct Draft<'a> {
    pub(super) state: &'a State,
    conditions: BTreeMap<String, Revision>,
    ops: Vec<Op>,
    outputs: Vec<Output>,
}

impl<'a> Draft<'a> {
    pub(super) const fn new(state: &'a State) -> Self {
        Self { state, conditions: BTreeMap::new(), ops: Vec::new(), outputs: Vec::new() }
    }

    /// The transaction holds only while this key is what the state shows.
    pub(super) fn rest_on(&mut self, key: &Key) {
        let key = key.encode();
        let version = self.state.versions.get(&key).copied().unwrap_or(0);
        self.conditions.insert(key, version);
    }

    pub(super) fn put<T: Serialize>(&mut self, key: &Key, value: &T) -> Result<(), CatalogError> {
        self.rest_on(key);
        let key = key.encode();
        let value = encode(&key, value)?;
        self.ops.push(Op::Put { key, value });
        Ok(())
    }

    pub(super) fn delete(&mut self, key: &Key) {
        self.rest_on(key);
        self.ops.push(Op::Delete { key: key.encode() });
    }

    pub(super) fn delete_instance(&mut self, id: &EndpointId) {
        self.delete(&Key::Instance(id.clone()));
        for check in self.state.check_ids(id) {
            self.delete(&Key::Check(id.node.clone(), check.to_owned()));
        }
    }

    /// Writes a check if more than its output differs.
    pub(super) fn put_check(&mut self, check: Check) -> Result<(), CatalogError> {
        let held = self.state.check_record(&check.node, &check.id).map(|record| &*record.check);
        if let Some(held) = held {
            if *held == check {
                return Ok(());
            }
            if *held == (Check { output: held.output.clone(), ..check.clone() }) {
                self.outputs.push((check.node, check.id, check.output));
                return Ok(());
            }
        }
        self.put(&Key::Check(check.node.clone(), check.id.clone()), &check)
    }

    /// Whether anything is to be written.
    pub(super) const fn writes(&self) -> bool {
        !self.ops.is_empty()
    }

    pub(super) fn plan<T>(self, value: T) -> Plan<T> {
        let conditions = self.conditions.into_iter().collect();
        Plan { txn: Txn { conditions, ops: self.ops }, outputs: self.outputs, value }
    }
}
