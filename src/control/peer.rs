//! Who is at the other end of a request, as proven by the connection it came on.

use std::net::SocketAddr;
use std::time::SystemTime;

use tonic::{Request, Status};

use crate::model::ServiceName;

/// Put into the extensions of every request by the accept loop.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub address: SocketAddr,
    /// From a certificate that the handshake has verified.
    pub certificate: Option<Proven>,
}

/// What a client certificate proves, until it expires.
pub(super) use crate::tls::Peer as Proven;

impl Peer {
    /// The peer of a request.
    ///
    /// # Errors
    /// `INTERNAL` when the request did not come through the accept loop.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().cloned().ok_or_else(|| {
            Status::internal("the request has no peer; it did not come through the gRPC port")
        })
    }

    pub(super) fn is_local(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }

    /// The proven identity and the service it is for.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without a certificate or with an expired one, `PERMISSION_DENIED` when it is
    /// not a service's.
    pub(super) fn service(&self, now: SystemTime) -> Result<(Proven, ServiceName), Status> {
        let Some(proven) = &self.certificate else {
            return Err(Status::unauthenticated(
                "this call needs the certificate of a mesh service; enrol first (Identity.Enrol) and connect with it",
            ));
        };
        if proven.not_after <= now {
            return Err(Status::unauthenticated(format!(
                "the certificate of {} on this connection has expired; renew it and connect again",
                proven.id
            )));
        }
        match proven.id.service() {
            Some((_, service)) => Ok((proven.clone(), service)),
            None => Err(Status::permission_denied(format!(
                "{} is not the identity of a service; this call is for sidecars",
                proven.id
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::SpiffeId;

    fn peer(id: Option<&str>) -> Peer {
        let certificate = id.map(|id| Proven {
            id: SpiffeId::parse(id).unwrap(),
            serial: "41".into(),
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(100),
            root_key_id: String::new(),
        });
        Peer { address: "10.1.2.3:4".parse().unwrap(), certificate }
    }

    #[test]
    fn only_a_valid_service_certificate_names_a_service() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(50);
        let web = peer(Some("spiffe://t/ns/default/dc/dc1/svc/web"));
        assert_eq!(web.service(now).unwrap().1.as_str(), "web");
        let late = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(web.service(late).unwrap_err().code(), tonic::Code::Unauthenticated);
        assert_eq!(peer(None).service(now).unwrap_err().code(), tonic::Code::Unauthenticated);
        let server = peer(Some("spiffe://t/agent/server/dc/dc1/id/s1"));
        assert_eq!(server.service(now).unwrap_err().code(), tonic::Code::PermissionDenied);
    }

    #[test]
    fn mapped_loopback_is_local() {
        let at = |text: &str| Peer { address: text.parse().unwrap(), certificate: None };
        assert!(at("127.0.0.9:1").is_local() && at("[::1]:1").is_local());
        assert!(at("[::ffff:127.0.0.1]:1").is_local());
        assert!(!at("10.0.0.1:1").is_local());
    }
}
