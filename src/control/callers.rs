//! Who calls the registry and whether he may: a service by its certificate, or somebody on this machine.
//!
//! Used by `registry`. Where the HTTP API asks for a token, so does this door, or it would be the way
//! around it.

use std::time::SystemTime;

use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::peer::Peer;
use crate::access::{self, Access, Refusal, Scope};
use crate::model::ServiceName;

/// Who calls.
#[derive(Debug)]
pub(super) enum Caller {
    /// Somebody on this machine, who may do anything.
    Local,
    /// May write its own instances only.
    Service(ServiceName),
}

/// Decides who may call.
#[derive(Clone, Default)]
pub(super) struct Callers {
    /// Judges tokens, if there are any.
    access: Option<Access>,
}

impl Callers {
    pub(super) fn new(access: Option<Access>) -> Self {
        Self { access: access.filter(Access::is_required) }
    }

    /// The caller of a request for which somebody without a certificate needs `scope`.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without a certificate from elsewhere, or without a token where one is
    /// required; `PERMISSION_DENIED` when the token lacks the scope.
    pub(super) async fn admit<T>(
        &self,
        request: &Request<T>,
        scope: Scope,
    ) -> Result<(Peer, Caller), Status> {
        let peer = Peer::of(request)?;
        if peer.certificate.is_some() {
            let (_, service) = peer.service(SystemTime::now())?;
            return Ok((peer, Caller::Service(service)));
        }
        if !peer.is_local() {
            return Err(Status::unauthenticated(
                "calls from other machines need the certificate of a mesh service; enrol first (Identity.Enrol)",
            ));
        }
        self.judge(request.metadata(), scope).await?;
        Ok((peer, Caller::Local))
    }

    async fn judge(&self, metadata: &MetadataMap, scope: Scope) -> Result<(), Status> {
        let Some(judge) = &self.access else { return Ok(()) };
        let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
        let Some(token) = access::credential(text) else {
            return Err(Status::unauthenticated(format!(
                "this server requires a token with the scope {scope}, in the metadata x-consul-token or \
                 authorization; make one with `weft api-token create`"
            )));
        };
        let refused = |refusal: Refusal| Status::permission_denied(refusal.to_string());
        let actor = judge.identify(token, SystemTime::now()).await.map_err(refused)?;
        access::permit(scope, &actor).map_err(refused)
    }
}
