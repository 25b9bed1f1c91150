//! Accepting that survives: errors that concern one connection are skipped, running out of
//! descriptors pauses instead of spinning.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};

/// First pause after running out of descriptors or memory; doubles up to `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// Ten milliseconds doubled four times. A sixth of the second in which everybody shall be served again
/// once there are descriptors: those who came meanwhile have to be accepted first.
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

/// The TLS settings of the moment: they change when the operator's files do.
pub type TlsSource = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// A listener with its pause after resource errors.
pub struct Acceptor {
    listener: TcpListener,
    pause: Duration,
    on_pause: Box<dyn Fn() + Send>,
}

impl Acceptor {
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, pause: FIRST_PAUSE, on_pause: Box::new(|| {}) }
    }

    /// Calls `on_pause` whenever it has to pause.
    #[must_use]
    pub fn noticing(mut self, on_pause: impl Fn() + Send + 'static) -> Self {
        self.on_pause = Box::new(on_pause);
        self
    }

    /// The next connection, with TCP options set. Cancel-safe; never fails.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.pause = FIRST_PAUSE;
                    if super::socket::tune(&stream).is_ok() {
                        return (stream, peer);
                    } // else it was reset while it waited in the queue
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, pause_ms = self.pause.as_millis(), "cannot accept connections");
                    (self.on_pause)();
                    tokio::time::sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

/// `accept(2)` passes on errors of the connection it would have returned; the listener is fine.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused | Kind::Interrupted
    )
}
