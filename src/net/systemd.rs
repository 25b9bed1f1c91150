//! What a service manager gives us and wants to hear: listening sockets (`LISTEN_FDS`) and news of our
//! life (`NOTIFY_SOCKET`), as systemd defines them. `app` calls it; without one there is nothing to do.

use std::ffi::OsStr;
use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use listenfd::ListenFd;
use socket2::SockRef;

const NAMES: &str = "LISTEN_FDNAMES";
const NOTIFY: &str = "NOTIFY_SOCKET";

/// The listening sockets that were given to this process, with their names. Children do not see them.
/// To be called once, before there are threads.
///
/// # Errors
/// When one of them is not a listening TCP socket.
pub fn listeners() -> io::Result<Vec<(String, TcpListener)>> {
    let names = std::env::var(NAMES).unwrap_or_default();
    let mut given = ListenFd::from_env();
    let mut names = names.split(':');
    let mut listeners = Vec::new();
    for index in 0..given.len() {
        let name = names.next().unwrap_or_default().to_owned();
        let wrong = |cause: &dyn std::fmt::Display| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("socket {name:?} given to us: {cause}"))
        };
        let listener = given.take_tcp_listener(index).map_err(|error| wrong(&error))?;
        let Some(listener) = listener else { continue };
        if !SockRef::from(&listener).is_listener()? {
            return Err(wrong(&"it does not listen"));
        }
        listener.set_nonblocking(true)?;
        listeners.push((name, listener));
    }
    Ok(listeners)
}

/// Tells the service manager, if there is one. It is told for its convenience: a failure is logged only.
pub fn notify(news: &str) {
    let Some(path) = std::env::var_os(NOTIFY).filter(|path| !path.is_empty()) else { return };
    if let Err(error) = send(&path, news) {
        tracing::warn!(%error, "cannot tell the service manager {news:?}");
    }
}

fn send(path: &OsStr, news: &str) -> io::Result<()> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(news.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_reach_a_path_and_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let abstract_name = format!("weft-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (listener, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (UnixDatagram::bind_addr(&address).unwrap(), format!("@{abstract_name}").into()),
        ] {
            send(&name, "READY=1").unwrap();
            let mut heard = [0; 16];
            let length = listener.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1");
        }
    }
}
