//! A lock: one key that one session holds.

use std::time::Duration;

use super::KEY;
use crate::cli::call::{Call, next_index};
use crate::cli::client::Client;
use crate::cli::error::{CliError, Fault};
use crate::cli::kv::{self, Pair};

/// What marks the key as a lock; the number of Consul's clients.
const FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;
/// One blocking query.
const WAIT: Duration = Duration::from_secs(15);
/// After a refusal of a free lock, which the server still keeps back from its last holder.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Mutex<'a> {
    client: &'a Client,
    session: &'a str,
    path: String,
}

/// What a look at the key tells.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Free,
    Held,
    NoLock,
}

fn state(pair: Option<&Pair>) -> State {
    match pair {
        Some(pair) if pair.flags != FLAGS => State::NoLock,
        Some(pair) if is_session(pair) => State::Held,
        _ => State::Free,
    }
}

fn is_session(pair: &Pair) -> bool {
    pair.session.as_ref().is_some_and(|session| !session.is_empty())
}

impl<'a> Mutex<'a> {
    pub(super) fn new(client: &'a Client, session: &'a str, prefix: &str) -> Self {
        Self { client, session, path: kv::path(&format!("{prefix}/{KEY}")) }
    }

    pub(super) async fn acquire(&self) -> Result<(), CliError> {
        let mut index = 0;
        loop {
            let (pair, seen) = self.read(index).await?;
            match state(pair.as_ref()) {
                State::NoLock => return Err(self.conflict()),
                State::Held => {
                    index = next_index(index, seen);
                    continue;
                }
                State::Free => {}
            }
            if self.write("acquire").await? {
                return Ok(());
            }
            tokio::time::sleep(RETRY).await;
            index = 0;
        }
    }

    /// Waits for a change after `index`; gives the index to ask after next.
    pub(super) async fn is_held(&self, index: u64) -> Result<(bool, u64), CliError> {
        let (pair, seen) = self.read(index).await?;
        let held = pair.is_some_and(|pair| pair.session.as_deref() == Some(self.session));
        Ok((held, next_index(index, seen)))
    }

    /// Lets go, and removes the key when nobody else has taken it.
    pub(super) async fn release(&self) -> Result<(), CliError> {
        self.write("release").await?;
        let (pair, _) = self.read(0).await?;
        if let Some(pair) = pair.filter(|pair| state(Some(pair)) == State::Free) {
            let call = Call::delete(&self.path).with("cas", pair.modify_index);
            self.client.call::<bool>(&call).await?;
        }
        Ok(())
    }

    async fn read(&self, index: u64) -> Result<(Option<Pair>, u64), CliError> {
        let call = Call::get(&self.path).flag("consistent", true).after(index, WAIT);
        let (pairs, seen) = self.client.find_at::<Vec<Pair>>(&call).await?;
        Ok((pairs.and_then(|pairs| pairs.into_iter().next()), seen))
    }

    async fn write(&self, verb: &str) -> Result<bool, CliError> {
        let call = Call::put(&self.path).with("flags", FLAGS).with(verb, self.session);
        self.client.call(&call).await
    }

    fn conflict(&self) -> CliError {
        let what = "a key that is no lock is in the way";
        let next = "lock another prefix, or remove the key";
        CliError::new(Fault::Refused, what, self.path.clone(), next)
            .in_consul("Existing key does not match lock use")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn states_by_table() {
        let pair = |flags: u64, session: Option<&str>| {
            serde_json::from_value::<Pair>(json!({
                "Key": "a/.lock", "Flags": flags, "Value": null, "Session": session, "LockIndex": 1,
                "CreateIndex": 1, "ModifyIndex": 1
            }))
            .unwrap()
        };
        assert_eq!(state(None), State::Free);
        assert_eq!(state(Some(&pair(FLAGS, None))), State::Free);
        assert_eq!(state(Some(&pair(FLAGS, Some("")))), State::Free);
        assert_eq!(state(Some(&pair(FLAGS, Some("s")))), State::Held);
        assert_eq!(state(Some(&pair(0, None))), State::NoLock);
    }
}
