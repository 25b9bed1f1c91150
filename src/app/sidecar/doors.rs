//! The listening sockets of a sidecar, each with what it is for: handles beside those of the workers, to
//! hand on to a successor and to close in good order. A service manager or a predecessor gives them to
//! a new process in the same form.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::str::FromStr;
use std::time::Duration;

use crate::model::{NameError, ServiceName};
use crate::net::socket;

/// How long handshakes that have begun may take to reach the accept queue before it is closed; new
/// ones are not let in meanwhile. A round trip, generously.
const LAST_CALL: Duration = Duration::from_millis(100);
const UPSTREAM: &str = "upstream-";

/// What a listening socket is for; its text is the name of the socket for service managers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Peers.
    Inbound,
    /// The application, on its way to a service.
    Upstream(ServiceName),
    /// Probes and metrics.
    Admin,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inbound => f.write_str("inbound"),
            Self::Upstream(service) => write!(f, "{UPSTREAM}{service}"),
            Self::Admin => f.write_str("admin"),
        }
    }
}

impl FromStr for Purpose {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        match name {
            "inbound" => Ok(Self::Inbound),
            "admin" => Ok(Self::Admin),
            _ => ServiceName::new(name.strip_prefix(UPSTREAM).unwrap_or_default()).map(Self::Upstream),
        }
    }
}

/// One of them.
#[derive(Debug)]
pub struct Door {
    pub purpose: Purpose,
    pub address: SocketAddr,
    pub listener: TcpListener,
    /// A service manager keeps it open, too, and gives it to the next process.
    pub kept: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Doors(Vec<Door>);

impl Doors {
    pub fn push(&mut self, door: Door) {
        self.0.push(door);
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Door> {
        self.0.iter()
    }

    /// Takes out the first for `purpose` whose address will do.
    pub(super) fn take(
        &mut self,
        purpose: &Purpose,
        will_do: impl Fn(SocketAddr) -> bool,
    ) -> Option<TcpListener> {
        let fits = |door: &Door| door.purpose == *purpose && will_do(door.address);
        let index = self.0.iter().position(fits)?;
        Some(self.0.swap_remove(index).listener)
    }

    /// Closes those for `purposes`; those of the workers stay open.
    pub(super) fn close(&mut self, purposes: impl Fn(&Purpose) -> bool) {
        self.0.retain(|door| !purposes(&door.purpose));
    }

    /// The addresses of those that stay open whatever we do.
    pub(super) fn kept(&self) -> Vec<SocketAddr> {
        self.0.iter().filter(|door| door.kept).map(|door| door.address).collect()
    }

    /// Lets the application's last connections come in before the workers close their doors, too. Where
    /// a door is kept, whoever comes waits for the next process.
    pub(super) async fn last_call(mut self) {
        self.0.retain(|door| !door.kept);
        for door in &self.0 {
            if let Err(error) = socket::admit_no_more(&door.listener) {
                tracing::warn!(%error, address = %door.address, "the last connections may be reset");
            }
        }
        tokio::time::sleep(LAST_CALL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_are_named_and_read_back() {
        for name in ["inbound", "admin", "upstream-db"] {
            assert_eq!(name.parse::<Purpose>().unwrap().to_string(), name);
        }
        for name in ["", "upstream-", "unknown", "db", "weft.socket"] {
            assert!(name.parse::<Purpose>().is_err(), "{name}");
        }
    }
}
