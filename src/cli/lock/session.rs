//! The session that carries a claim.

use std::convert::Infallible;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::cli::call::{Call, encode};
use crate::cli::client::Client;
use crate::cli::error::CliError;

/// How long the server waits for a sign of life.
const TTL: Duration = Duration::from_secs(15);
/// Signs of life, two of which may get lost.
const RENEWAL: Duration = Duration::from_secs(5);

pub(super) struct Session<'a> {
    client: &'a Client,
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}

impl<'a> Session<'a> {
    /// `delete_keys`: what it holds goes with it, instead of being released.
    pub(super) async fn create(
        client: &'a Client,
        name: &str,
        delete_keys: bool,
    ) -> Result<Self, CliError> {
        let behavior = if delete_keys { "delete" } else { "release" };
        let ttl = format!("{}s", TTL.as_secs());
        let body = json!({ "Name": name, "TTL": ttl, "Behavior": behavior });
        let call = Call::put("/v1/session/create").json(&body);
        let Created { id } = client.call(&call).await?;
        Ok(Self { client, id })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Keeps it alive for as long as this runs. A failure shows in what the session holds.
    pub(super) async fn keep(&self) -> Infallible {
        loop {
            tokio::time::sleep(RENEWAL).await;
            let renewed = self.client.done(&self.call("renew")).await;
            if let Err(error) = renewed {
                tracing::debug!(error = error.what, "session not renewed");
            }
        }
    }

    /// Ends it; without an answer its TTL does.
    pub(super) async fn destroy(&self) {
        let _by_its_ttl = self.client.done(&self.call("destroy")).await;
    }

    fn call(&self, verb: &str) -> Call {
        Call::put(format!("/v1/session/{verb}/{}", encode(&self.id)))
    }
}
