//! The end of the successor: finds the running sidecar, takes what it hands over, and says when it serves.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::message::{self, Message, Who, hear, say, unexpected};
use super::{Testator, UpgradeError, check_place};
use crate::agent;
use crate::app::sidecar::{Door, Doors};
use crate::model::CheckReport;
use crate::net::handover::{self, Courier};

/// How long the predecessor may take for one answer; it does nothing but write it.
const ANSWER: Duration = Duration::from_secs(10);

/// A running sidecar that was found at the upgrade socket.
pub struct Predecessor {
    socket: OwnedFd,
    path: PathBuf,
}

/// What it hands over.
pub struct Heritage {
    pub estate: agent::Estate,
    pub doors: Doors,
    handing: Handing,
}

/// An upgrade under way. Dropping it gives the upgrade up.
pub struct Handing {
    courier: Courier,
    door: handover::Door,
    path: PathBuf,
}

impl Predecessor {
    /// Looks for one at `path`, which must be in a directory of this user's alone.
    ///
    /// # Errors
    /// When it is not, or nobody can tell.
    pub fn find(path: &Path) -> Result<Option<Self>, UpgradeError> {
        check_place(path)?;
        let found = handover::dial(path)
            .map_err(|source| UpgradeError::Socket { path: path.to_owned(), source })?;
        Ok(found.map(|socket| Self { socket, path: path.to_owned() }))
    }

    /// Takes everything, for the same instance only. The predecessor goes on serving.
    ///
    /// # Errors
    /// When it is another instance's sidecar, or does not answer.
    pub async fn receive(self, wanted: &Who) -> Result<Heritage, UpgradeError> {
        let late = UpgradeError::Late { seconds: ANSWER.as_secs() };
        timeout(ANSWER, self.take(wanted)).await.unwrap_or(Err(late))
    }

    async fn take(self, wanted: &Who) -> Result<Heritage, UpgradeError> {
        let lost = |source| UpgradeError::Lost { source };
        let courier = Courier::new(self.socket).map_err(lost)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        say(&courier, &Message::Hello { protocol: message::PROTOCOL, version }).await?;
        let (Message::Estate(estate), _) = hear(&courier).await? else {
            return Err(unexpected("who it is"));
        };
        if estate.who != *wanted {
            let (running, wanted) = (estate.who.to_string(), wanted.to_string());
            return Err(UpgradeError::Stranger { running, wanted });
        }
        tracing::info!(version = estate.version, "taking over from the running sidecar");
        let (Message::Testator {}, Some(door)) = hear(&courier).await? else {
            return Err(unexpected("where successors come"));
        };
        let door = handover::Door::from_socket(door).map_err(lost)?;
        let (mut doors, mut results) = (Doors::default(), Vec::new());
        loop {
            match hear(&courier).await? {
                (Message::Listener { name, kept }, Some(socket)) => {
                    let listener = TcpListener::from(socket);
                    let address = listener.local_addr().map_err(lost)?;
                    // One for a purpose that this version does not know is let go.
                    if let Ok(purpose) = name.parse() {
                        doors.push(Door { purpose, address, listener, kept });
                    }
                }
                (Message::Check { id, status, output }, _) => {
                    results.push(CheckReport { id, status, output });
                }
                (Message::Complete {}, _) => break,
                _ => return Err(unexpected("what it hands over")),
            }
        }
        let handing = Handing { courier, door, path: self.path };
        Ok(Heritage { estate: estate.into_agent(results)?, doors, handing })
    }
}

impl Heritage {
    #[must_use]
    pub fn split(self) -> (agent::Estate, Doors, Handing) {
        (self.estate, self.doors, self.handing)
    }
}

impl Handing {
    /// Waits until the predecessor gives up; says why.
    pub async fn given_up(&self) -> UpgradeError {
        match hear(&self.courier).await {
            Ok(_) => unexpected("anything before we are ready"),
            Err(error) => error,
        }
    }

    /// Says that this process serves, and waits for the predecessor to stop. From then on the upgrade
    /// socket is ours, too.
    ///
    /// # Errors
    /// When the predecessor goes on, or is gone.
    pub async fn complete(self) -> Result<Testator, UpgradeError> {
        let handed = async {
            say(&self.courier, &Message::Ready {}).await?;
            match hear(&self.courier).await? {
                (Message::Yours {}, _) => Ok(()),
                _ => Err(unexpected("yours")),
            }
        };
        let late = UpgradeError::Late { seconds: ANSWER.as_secs() };
        timeout(ANSWER, handed).await.unwrap_or(Err(late))?;
        Ok(Testator::from_door(self.door, self.path))
    }
}
