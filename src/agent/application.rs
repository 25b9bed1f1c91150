//! What an agent has for the application behind its sidecar: a certificate, tokens, and the keys that check
//! tokens. `workload` hands it out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use super::convert;
use super::credentials::{CALL_TIMEOUT, called};
use super::fault::Fault;
use super::keeper::Keeper;
use super::shared::{RECONNECT_LEAST, RECONNECT_MOST, Shared};
use super::svid::{Applicant, Svid};
use crate::model::JwtBundle;
use crate::net::backoff::Backoff;
use crate::net::rng::Rng;
use crate::pb;
use crate::pb::identity_client::IdentityClient;

/// How long a token waits for a connection to the control plane.
const CONNECTION_WAIT: Duration = Duration::from_secs(2);

/// Cheap to clone.
#[derive(Clone)]
pub struct Application {
    /// Its own certificate; `None` until there is one, and when none was asked for.
    pub svid: watch::Receiver<Option<Arc<Svid>>>,
    /// The keys that check tokens; as above.
    pub jwt_keys: watch::Receiver<Option<Arc<JwtBundle>>>,
    /// The connection in use, while there is one.
    pub(super) channel: watch::Receiver<Option<Channel>>,
}

impl Default for Application {
    /// Without a control plane: it never has anything.
    fn default() -> Self {
        let (svid, jwt_keys, channel) =
            (watch::channel(None).1, watch::channel(None).1, watch::channel(None).1);
        Self { svid, jwt_keys, channel }
    }
}

/// A token and how long it lives from now.
pub struct Minted {
    pub token: String,
    pub valid_for: Duration,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    #[error("there is no connection to the control plane")]
    NoConnection,
    #[error("the control plane refuses the token: {0}")]
    Refused(String),
    #[error("{0}")]
    Failed(String),
}

impl Application {
    /// A fresh token for these audiences.
    ///
    /// # Errors
    /// When the control plane cannot be reached or does not sign it.
    pub async fn mint(&self, audience: Vec<String>) -> Result<Minted, MintError> {
        let mut channel = self.channel.clone();
        let found = timeout(CONNECTION_WAIT, channel.wait_for(Option::is_some)).await;
        let found = found.ok().and_then(|found| found.ok()?.clone()).ok_or(MintError::NoConnection)?;
        let request = pb::MintJwtRequest { audience, ttl_s: 0 };
        let answer = timeout(CALL_TIMEOUT, IdentityClient::new(found).mint_jwt(request)).await;
        let pb::Jwt { token, valid_for_ms } = called("in use", answer).map_err(|fault| match fault {
            Fault::Refused { status, .. } => MintError::Refused(status.message().to_owned()),
            fault => MintError::Failed(fault.to_string()),
        })?;
        Ok(Minted { token, valid_for: Duration::from_millis(valid_for_ms) })
    }
}

/// Gets what an [`Application`] has.
pub(super) struct Supplier {
    channel: watch::Receiver<Option<Channel>>,
    svid: watch::Sender<Option<Arc<Svid>>>,
    jwt_keys: watch::Sender<Option<Arc<JwtBundle>>>,
}

impl Supplier {
    /// With the connection in use, while there is one.
    pub(super) fn new(channel: watch::Receiver<Option<Channel>>) -> (Self, Application) {
        let (svid_sink, svid) = watch::channel(None);
        let (keys_sink, jwt_keys) = watch::channel(None);
        let supplier = Self { channel: channel.clone(), svid: svid_sink, jwt_keys: keys_sink };
        (supplier, Application { svid, jwt_keys, channel })
    }

    /// Runs until the agent is gone.
    pub(super) async fn run(self, shared: Arc<Shared>, keeper: Arc<Keeper>) {
        let Self { channel, svid, jwt_keys } = self;
        let follower =
            KeyFollower { shared: Arc::clone(&shared), channel: channel.clone(), sink: jwt_keys };
        let applicant = Applicant { shared, keeper, channel, sink: svid };
        tokio::join!(follower.run(), applicant.run());
    }
}

/// Follows the keys that check tokens.
struct KeyFollower {
    shared: Arc<Shared>,
    channel: watch::Receiver<Option<Channel>>,
    sink: watch::Sender<Option<Arc<JwtBundle>>>,
}

impl KeyFollower {
    /// Runs until the agent is gone.
    async fn run(mut self) {
        let (mut backoff, mut rng) = (Backoff::new(RECONNECT_LEAST, RECONNECT_MOST), Rng::new());
        while let Ok(channel) = self.channel.wait_for(Option::is_some).await.map(|found| found.clone()) {
            let Some(channel) = channel else { continue };
            match self.follow(channel).await {
                Ok(()) => backoff.reset(),
                Err(fault) => self.shared.complain(&fault),
            }
            sleep(backoff.next(&mut rng)).await;
        }
    }

    /// Until the stream ends, as it does with each connection.
    async fn follow(&self, channel: Channel) -> Result<(), Fault> {
        let server = self.shared.servers.current();
        let mut client = IdentityClient::new(channel);
        let call = client.watch_jwt_keys(pb::WatchJwtKeysRequest {});
        let mut states = called(&server, timeout(CALL_TIMEOUT, call).await)?;
        while let Ok(Some(keys)) = states.message().await {
            let keys = convert::jwt_keys(keys)
                .map_err(|what| Fault::Protocol { server: server.clone(), what })?;
            self.sink.send_if_modified(|known| {
                // A server that was away may not know the latest ones yet.
                let newer = known.as_ref().is_none_or(|known| known.version < keys.version);
                if newer {
                    *known = Some(Arc::new(keys));
                }
                newer
            });
        }
        Ok(())
    }
}
