//! A semaphore: every contender has a key of its session's own; who holds a slot stands in one more.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::KEY;
use crate::cli::call::{Call, next_index};
use crate::cli::client::Client;
use crate::cli::error::{CliError, Fault};
use crate::cli::kv::{self, Pair};

/// What marks the keys of a semaphore; the number of Consul's clients.
const FLAGS: u64 = 0xe0f6_9a2b_aa41_4de0;
/// One blocking query.
const WAIT: Duration = Duration::from_secs(15);

pub(super) struct Semaphore<'a> {
    client: &'a Client,
    session: &'a str,
    prefix: String,
    limit: u32,
}

/// Contents of the key in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Slots {
    limit: u32,
    /// Sessions; all values are true.
    holders: BTreeMap<String, bool>,
}

/// What the keys under the prefix say.
#[derive(Debug, PartialEq, Eq)]
struct View {
    /// With holders that are dead left out.
    slots: Slots,
    /// Index of the key in common; 0 when there is none.
    index: u64,
}

impl View {
    fn read(prefix: &str, limit: u32, pairs: &[Pair]) -> Result<Self, CliError> {
        let refuse = |what: String, next: &str| {
            Err(CliError::new(Fault::Refused, what.clone(), format!("{prefix}/{KEY}"), next)
                .in_consul(what))
        };
        let key = format!("{prefix}/{KEY}");
        let Some(pair) = pairs.iter().find(|pair| pair.key == key) else {
            let slots = Slots { limit, holders: BTreeMap::new() };
            return Ok(Self { slots, index: 0 });
        };
        if pair.flags != FLAGS {
            let what = "Existing key does not match semaphore use".to_owned();
            return refuse(what, "use another prefix, or remove the key");
        }
        let mut slots: Slots = match serde_json::from_slice(&pair.value) {
            Ok(slots) => slots,
            Err(fault) => return refuse(format!("lock decoding failed: {fault}"), "remove the key"),
        };
        if slots.limit != limit {
            let what = format!("semaphore limit conflict (lock: {}, local: {limit})", slots.limit);
            return refuse(what, "use the limit that all others use");
        }
        let alive = |session: &String| {
            pairs.iter().any(|pair| pair.session.as_ref().is_some_and(|held| held == session))
        };
        slots.holders.retain(|session, _| alive(session));
        Ok(Self { slots, index: pair.modify_index })
    }

    fn holds(&self, session: &str) -> bool {
        self.slots.holders.contains_key(session)
    }

    /// With a slot for `session`; `None` when all are taken.
    fn with(&self, session: &str) -> Option<Slots> {
        let mut slots = self.slots.clone();
        if u32::try_from(slots.holders.len()).is_ok_and(|taken| taken >= slots.limit) {
            return None;
        }
        slots.holders.insert(session.to_owned(), true);
        Some(slots)
    }

    /// Without `session`; `None` when it holds no slot.
    fn without(&self, session: &str) -> Option<Slots> {
        let mut slots = self.slots.clone();
        slots.holders.remove(session).map(|_| slots)
    }
}

impl<'a> Semaphore<'a> {
    pub(super) fn new(client: &'a Client, session: &'a str, prefix: &str, limit: u32) -> Self {
        Self { client, session, prefix: prefix.to_owned(), limit }
    }

    pub(super) async fn acquire(&self) -> Result<(), CliError> {
        let call = Call::put(self.own_path()).with("flags", FLAGS).with("acquire", self.session);
        if !self.client.call::<bool>(&call).await? {
            let next = "try again";
            return Err(CliError::new(Fault::Refused, "the session was refused", self.own_path(), next)
                .in_consul("failed to make contender entry"));
        }
        let mut index = 0;
        loop {
            let (view, seen) = self.view(index).await?;
            match view.with(self.session) {
                None => index = next_index(index, seen),
                Some(slots) if self.write(&slots, view.index).await? => return Ok(()),
                // Somebody else was first.
                Some(_) => index = 0,
            }
        }
    }

    /// Waits for a change after `index`; gives the index to ask after next.
    pub(super) async fn is_held(&self, index: u64) -> Result<(bool, u64), CliError> {
        let (view, seen) = self.view(index).await?;
        Ok((view.holds(self.session), next_index(index, seen)))
    }

    /// Gives the slot back, and removes the key in common when nobody is left.
    pub(super) async fn release(&self) -> Result<(), CliError> {
        loop {
            let (view, _) = self.view(0).await?;
            match view.without(self.session) {
                Some(slots) if !self.write(&slots, view.index).await? => {}
                _ => break,
            }
        }
        self.client.call::<bool>(&Call::delete(self.own_path())).await?;
        let (view, _) = self.view(0).await?;
        if view.slots.holders.is_empty() && view.index > 0 {
            let call = Call::delete(self.common_path()).with("cas", view.index);
            self.client.call::<bool>(&call).await?;
        }
        Ok(())
    }

    async fn view(&self, index: u64) -> Result<(View, u64), CliError> {
        let path = kv::path(&format!("{}/", self.prefix));
        let call = Call::get(path).flag("recurse", true).flag("consistent", true).after(index, WAIT);
        let (pairs, seen) = self.client.find_at::<Vec<Pair>>(&call).await?;
        let view = View::read(&self.prefix, self.limit, &pairs.unwrap_or_default())?;
        Ok((view, seen))
    }

    async fn write(&self, slots: &Slots, index: u64) -> Result<bool, CliError> {
        let call = Call::put(self.common_path()).with("flags", FLAGS).with("cas", index);
        self.client.call(&call.raw(json!(slots).to_string())).await
    }

    fn own_path(&self) -> String {
        kv::path(&format!("{}/{}", self.prefix, self.session))
    }

    fn common_path(&self) -> String {
        kv::path(&format!("{}/{KEY}", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn pair(key: &str, flags: u64, value: &str, session: Option<&str>) -> Pair {
        serde_json::from_value(json!({
            "Key": key, "Flags": flags, "Value": STANDARD.encode(value), "Session": session,
            "LockIndex": 1, "CreateIndex": 1, "ModifyIndex": 7
        }))
        .unwrap()
    }

    #[test]
    fn slots_go_to_the_living() {
        let taken = r#"{"Limit":2,"Holders":{"dead":true,"s1":true}}"#;
        let pairs = [pair("p/.lock", FLAGS, taken, None), pair("p/s1", FLAGS, "", Some("s1"))];
        let view = View::read("p", 2, &pairs).unwrap();
        assert_eq!((view.index, view.holds("s1"), view.holds("dead")), (7, true, false));
        let slots = view.with("s2").unwrap();
        assert_eq!(json!(slots).to_string(), r#"{"Limit":2,"Holders":{"s1":true,"s2":true}}"#);
        let full = View { slots, index: 8 };
        assert_eq!(full.with("s3"), None);
        assert_eq!(full.without("s2"), Some(view.slots));
        assert_eq!(full.without("s3"), None);
    }

    #[test]
    fn the_first_one_finds_nothing() {
        let view = View::read("p", 3, &[]).unwrap();
        assert_eq!(view.index, 0);
        assert_eq!(json!(view.with("s").unwrap()).to_string(), r#"{"Limit":3,"Holders":{"s":true}}"#);
    }

    #[test]
    fn what_is_in_the_way_is_refused() {
        for (pairs, consul) in [
            (pair("p/.lock", 1, "{}", None), "Existing key does not match semaphore use"),
            (pair("p/.lock", FLAGS, "?", None), "lock decoding failed: "),
            (
                pair("p/.lock", FLAGS, r#"{"Limit":3,"Holders":{}}"#, None),
                "semaphore limit conflict (lock: 3, local: 2)",
            ),
        ] {
            let error = View::read("p", 2, &[pairs]).unwrap_err();
            assert!(error.as_consul().starts_with(consul), "{}", error.as_consul());
        }
    }
}
