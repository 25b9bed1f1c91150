//! The end of the running sidecar: waits for a successor and gives it everything, once it is ready.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::message::{self, Estate, Message, Who, hear, say, unexpected};
use super::{UpgradeError, check_place};
use crate::agent;
use crate::app::sidecar::Doors;
use crate::net::handover::{self, Courier};
use crate::net::systemd;

/// After a fault of the socket itself, which would come again at once.
const PAUSE: Duration = Duration::from_secs(1);

/// What there is to hand over. Holds the listening sockets open.
pub struct Offer {
    pub who: Who,
    pub doors: Arc<Doors>,
    pub succession: agent::Succession,
}

/// See the module.
pub struct Testator {
    door: handover::Door,
    path: PathBuf,
}

impl Testator {
    /// Waits at `path` from now on, which must be in a directory of this user's alone.
    ///
    /// # Errors
    /// When it is not, or the socket cannot be made.
    pub fn open(path: &Path) -> Result<Self, UpgradeError> {
        check_place(path)?;
        let door = handover::Door::open(path)
            .map_err(|source| UpgradeError::Socket { path: path.to_owned(), source })?;
        Ok(Self { door, path: path.to_owned() })
    }

    /// Goes on in the place of a predecessor.
    pub(super) fn from_door(door: handover::Door, path: PathBuf) -> Self {
        Self { door, path }
    }

    /// Returns when a successor has taken over. One that fails, or takes longer than `limit`, leaves
    /// everything as it was. Cancel-safe until then.
    pub async fn handed_over(&self, offer: Offer, limit: Duration) {
        loop {
            let courier = match self.door.accept().await {
                Ok(courier) => courier,
                Err(error) => {
                    tracing::warn!(%error, path = %self.path.display(), "trouble with the upgrade socket");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let late = UpgradeError::Late { seconds: limit.as_secs() };
            match timeout(limit, self.hand_over(&courier, &offer)).await.unwrap_or(Err(late)) {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "the upgrade failed; this process goes on serving");
                }
            }
        }
    }

    async fn hand_over(&self, courier: &Courier, offer: &Offer) -> Result<(), UpgradeError> {
        let lost = |source| UpgradeError::Lost { source };
        let (Message::Hello { protocol, version }, _) = hear(courier).await? else {
            return Err(unexpected("hello"));
        };
        if protocol != message::PROTOCOL {
            return Err(UpgradeError::Language { what: format!("protocol {protocol}") });
        }
        let process = courier.peer_process().map_err(lost)?;
        tracing::info!(process, version, "a successor has come");
        // Serving means that there is a certificate.
        let (estate, _no_renewal) =
            offer.succession.estate().await.ok_or_else(|| unexpected("who it is"))?;
        say(courier, &Message::Estate(Estate::new(offer.who.clone(), &estate))).await?;
        let upgrade = Message::Testator {}.encode()?;
        courier.send(&upgrade, Some(self.door.as_fd())).await.map_err(lost)?;
        for door in offer.doors.iter() {
            let name = Message::Listener { name: door.purpose.to_string(), kept: door.kept };
            let name = name.encode()?;
            let listener: &TcpListener = &door.listener;
            courier.send(&name, Some(listener.as_fd())).await.map_err(lost)?;
        }
        for report in estate.results {
            let agent_report =
                Message::Check { id: report.id, status: report.status, output: report.output };
            say(courier, &agent_report).await?;
        }
        say(courier, &Message::Complete {}).await?;
        let (Message::Ready {}, _) = hear(courier).await? else { return Err(unexpected("ready")) };
        // The service manager hears it from the process that it knows.
        systemd::notify(&format!("MAINPID={process}"));
        offer.succession.cede();
        if let Err(error) = say(courier, &Message::Yours {}).await {
            offer.succession.claim();
            systemd::notify(&format!("MAINPID={}", std::process::id()));
            return Err(error);
        }
        tracing::info!(process, "the successor has taken over");
        Ok(())
    }

    /// Nobody shall find the socket of a sidecar that has no successor.
    pub fn close(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the upgrade socket");
        }
    }
}
