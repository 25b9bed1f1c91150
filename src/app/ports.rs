//! Choosing and binding ports.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use super::AppError;
use crate::model::service::SIDECAR_PORTS;
use crate::net::socket;

/// How many ports after the wanted one are tried where a taken port is not a failure.
pub(super) const NEXT_FREE_TRIES: u16 = 64;

/// Binds exactly `address`.
pub(super) fn bind(address: SocketAddr, purpose: &str) -> Result<TcpListener, AppError> {
    socket::listen(address).map_err(|source| AppError::Bind {
        address,
        purpose: purpose.to_owned(),
        source,
    })
}

/// Binds `address`, or the next port that is free; the second value says that it had to move.
pub(super) fn bind_next_free(
    address: SocketAddr,
    purpose: &str,
) -> Result<(TcpListener, bool), AppError> {
    for step in 0..NEXT_FREE_TRIES {
        let Some(port) = address.port().checked_add(step) else { break };
        match socket::listen(SocketAddr::new(address.ip(), port)) {
            Ok(listener) => return Ok((listener, step > 0)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => {
                return Err(AppError::Bind { address, purpose: purpose.to_owned(), source });
            }
        }
    }
    bind(address, purpose).map(|listener| (listener, false))
}

/// Whether [`bind_next_free`] may have come to `found` from `wanted`.
pub(super) fn is_next_free(wanted: SocketAddr, found: SocketAddr) -> bool {
    let step = found.port().checked_sub(wanted.port());
    found.ip() == wanted.ip() && step.is_some_and(|step| step < NEXT_FREE_TRIES)
}

/// Binds the lowest free port of Consul's sidecar range.
pub(super) fn bind_sidecar(address: IpAddr) -> Result<TcpListener, AppError> {
    for port in SIDECAR_PORTS {
        match socket::listen(SocketAddr::new(address, port)) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => {
                let address = SocketAddr::new(address, port);
                return Err(AppError::Bind { address, purpose: "the inbound side".to_owned(), source });
            }
        }
    }
    Err(AppError::NoPort { first: *SIDECAR_PORTS.start(), last: *SIDECAR_PORTS.end() })
}

/// The address a listener is bound to.
pub(super) fn local(listener: &TcpListener) -> Result<SocketAddr, AppError> {
    listener.local_addr().map_err(|source| AppError::Start { what: "a listener".to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_or_passed_over() {
        let taken = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "a test").unwrap();
        let address = local(&taken).unwrap();
        let error = bind(address, "a test").unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("a test"), "{error}");
        let (next, moved) = bind_next_free(address, "a test").unwrap();
        assert!(moved && local(&next).unwrap().port() > address.port());
    }
}
