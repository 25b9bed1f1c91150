//! Keeps one Sync stream to the control plane, for the life of the agent: the next server in turn
//! after trouble, at once after a new certificate or in a new role, and never two streams at a time.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use super::connect::dial;
use super::fault::Fault;
use super::keeper::Keeper;
use super::receiver::{Applied, Receiver};
use super::shared::{Life, RECONNECT_LEAST, RECONNECT_MOST, Results, Role, Shared};
use super::stream::{self, Ended};
use crate::model::{Registration, ServiceName, Snapshot};
use crate::net::backoff::Backoff;
use crate::net::rng::Rng;
use crate::tls::Identity;

/// What this sidecar says of itself.
pub(super) struct Profile {
    pub registrations: Vec<Registration>,
    pub upstreams: Vec<ServiceName>,
    /// Random, the same for all streams of this process.
    pub process: Vec<u8>,
}

/// What a leaving proxy waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub drained: bool,
    pub left: bool,
}

/// See the module.
pub(super) struct Link {
    pub shared: Arc<Shared>,
    pub keeper: Arc<Keeper>,
    pub profile: Profile,
    pub results: watch::Receiver<Results>,
    pub life: watch::Receiver<Life>,
    pub role: watch::Receiver<Role>,
    pub progress: watch::Sender<Progress>,
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub changes: watch::Sender<u64>,
    pub channel: watch::Sender<Option<Channel>>,
    pub receiver: Receiver,
    /// Whether a server has ever taken the registration: then it was right.
    pub registered: bool,
}

impl Link {
    /// Runs until the sidecar has left.
    ///
    /// # Errors
    /// When the first registration is refused in a way that no retry can mend.
    pub(super) async fn run(mut self) -> Result<(), Fault> {
        let mut identities = self.keeper.watch();
        let mut rng = Rng::new();
        let mut backoff = Backoff::new(RECONNECT_LEAST, RECONNECT_MOST);
        while let Some(identity) = self.identity(&mut identities).await {
            let server = self.shared.servers.current();
            let started = Instant::now();
            match self.follow(&server, &identity).await {
                Ok(Ended::Left) => {
                    self.progress.send_modify(|progress| progress.left = true);
                    return Ok(());
                }
                Ok(Ended::NewLeaf | Ended::NewRole) => {
                    backoff.reset();
                    continue;
                }
                Err(fault) if !self.registered && fault.ends_registration() => return Err(fault),
                Err(fault) => self.shared.complain(&fault),
            }
            // A stream that held so long was a good one; a server that drops each at once is not.
            if started.elapsed() >= RECONNECT_MOST {
                backoff.reset();
            }
            self.shared.servers.advance();
            tokio::select! {
                () = sleep(backoff.next(&mut rng)) => {}
                () = leaving(&mut self.life) => {}
            }
        }
        Ok(())
    }

    /// The identity to connect with; `None` when there is nothing to connect for any more. Without a
    /// connection there is nobody to take leave of: the lease runs out.
    async fn identity(
        &mut self,
        identities: &mut watch::Receiver<Option<Arc<Identity>>>,
    ) -> Option<Arc<Identity>> {
        tokio::select! {
            biased;
            () = leaving(&mut self.life) => None,
            found = identities.wait_for(Option::is_some) => found.ok()?.clone(),
        }
    }

    /// One connection and one stream on it.
    async fn follow(&mut self, server: &str, identity: &Arc<Identity>) -> Result<Ended, Fault> {
        let channel = dial(server, identity.control_config(), false).await?;
        self.channel.send_replace(Some(channel.clone()));
        self.receiver.start_stream();
        let ended = stream::run(self, server, channel, identity.serial()).await;
        self.channel.send_replace(None);
        self.shared.status.send_modify(|status| {
            status.connected = false;
            status.registered = false;
        });
        ended
    }

    /// The server has taken the registration.
    pub(super) fn on_registered(&mut self, draining: bool) {
        self.registered = true;
        self.shared.recovered();
        self.shared.status.send_modify(|status| status.registered = true);
        if draining {
            self.on_drained();
        }
    }

    pub(super) fn on_drained(&self) {
        self.progress.send_modify(|progress| progress.drained = true);
    }

    /// Publishes a new state.
    pub(super) fn publish(&self, applied: &Applied) {
        // First, so that no handshake is judged by older bans once the snapshot is seen.
        self.keeper.bans.replace(Arc::clone(&applied.snapshot.bans));
        self.snapshot.store(Arc::clone(&applied.snapshot));
        self.changes.send_modify(|changes| *changes += 1);
        let refused = u64::try_from(applied.refused.len()).unwrap_or(u64::MAX);
        self.shared.status.send_if_modified(|status| {
            status.resources_refused = status.resources_refused.saturating_add(refused);
            !std::mem::replace(&mut status.synced, true) || refused > 0
        });
    }
}

/// Waits for the end of the agent's life.
async fn leaving(life: &mut watch::Receiver<Life>) {
    // An agent that is gone has left, too.
    let _gone = life.wait_for(|life| *life == Life::Leaving).await;
}
