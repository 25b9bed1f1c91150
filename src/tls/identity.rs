//! A proxy's certificate, key and trust, checked against each other before anyone may use them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};

use super::bans::BanList;
use super::leaf::Facts;
use super::verify::{ClientVerifier, Expected, Role, ServerVerifier, Trust, TrustSource, unix_time};
use super::{ALPN_H2, ALPN_HTTP1, ALPN_LANE, TlsError, settings};
use crate::model::{Bundle, ServiceName, SpiffeId};

/// Most services whose settings are kept; more than a sidecar has upstreams. Further ones are made
/// anew for each call.
const MAX_CACHED: usize = 1024;

/// A proxy's certificate, key and trust, ready for handshakes. Immutable.
pub struct Identity {
    generation: u64,
    facts: Facts,
    datacenter: String,
    key: Arc<CertifiedKey>,
    trust: Arc<Trust>,
    is_current: bool,
    server: Arc<ServerConfig>,
    control: Arc<ClientConfig>,
    clients: RwLock<HashMap<ServiceName, Arc<ClientConfig>>>,
}

impl Identity {
    /// Checks that chain, key, bundle and validity fit each other, by the same rules as a peer would.
    /// `generation` grows with every rotation; `key` is PKCS#8.
    ///
    /// # Errors
    /// Which of them does not fit, and why.
    pub fn new(
        generation: u64,
        chain: Vec<Vec<u8>>,
        key: &[u8],
        bundle: &Bundle,
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        Self::guarded(generation, chain, key, bundle, &BanList::default(), now)
    }

    /// The same, refusing peers that are on a list, which may change meanwhile.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn guarded(
        generation: u64,
        chain: Vec<Vec<u8>>,
        key: &[u8],
        bundle: &Bundle,
        bans: &BanList,
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let key = settings::certified_key(chain, key)?;
        let trust = Arc::new(Trust::new(bundle, bans)?);
        let facts = check_own(&trust, &key, &[Role::Server, Role::Client], now)?;
        let Some((datacenter, _)) = facts.id.service() else {
            return Err(TlsError::NotService(facts.id));
        };
        let datacenter = datacenter.to_owned();
        let clients = ClientVerifier {
            trust: Arc::clone(&trust),
            expected: Expected::AnyService,
            mandatory: true,
        };
        let server =
            settings::server(Arc::clone(&key), Arc::new(clients), &[ALPN_LANE, ALPN_H2, ALPN_HTTP1]);
        let control = client(&key, &trust, Expected::AnyServer, ALPN_H2);
        let clients = RwLock::new(HashMap::new());
        let is_current = check_own(&Trust::of_signing(bundle)?, &key, &[Role::Client], now).is_ok();
        Ok(Self { generation, facts, datacenter, key, trust, is_current, server, control, clients })
    }

    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.facts.id
    }

    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the certificate is below the root that signs now. One below an older root is good too,
    /// but is to be renewed soon.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.is_current
    }

    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.facts.not_before
    }

    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.facts.not_after
    }

    /// Lower-case hex.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.facts.serial
    }

    /// For the inbound port: client certificate of a service required, TLS 1.3 only, no tickets; ALPN
    /// `weft/1`, `h2`, `http/1.1`, or none.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// For dialling the sidecar of `service` in the own datacenter, whose exact identity is pinned;
    /// ALPN `weft/1`. Cached.
    ///
    /// # Errors
    /// When the name cannot be part of an identity.
    pub fn client_config(&self, service: &ServiceName) -> Result<Arc<ClientConfig>, TlsError> {
        let cached = self.clients.read().unwrap_or_else(PoisonError::into_inner).get(service).cloned();
        if let Some(config) = cached {
            return Ok(config);
        }
        let expected = SpiffeId::for_service(self.trust.domain(), &self.datacenter, service)
            .map_err(|source| TlsError::Service { name: service.to_string(), source })?;
        let config = client(&self.key, &self.trust, Expected::Exactly(expected), ALPN_LANE);
        let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        if clients.len() < MAX_CACHED {
            clients.insert(service.clone(), Arc::clone(&config));
        }
        Ok(config)
    }

    /// For the control plane: any server identity of the trust domain; ALPN `h2`.
    #[must_use]
    pub fn control_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.control)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("generation", &self.generation)
            .field("id", &self.facts.id)
            .field("serial", &self.facts.serial)
            .finish_non_exhaustive()
    }
}

/// Verifies our own chain in each role in which peers will see it.
pub(super) fn check_own(
    trust: &Trust,
    key: &CertifiedKey,
    roles: &[Role],
    now: SystemTime,
) -> Result<Facts, TlsError> {
    let (leaf, others) = key.cert.split_first().ok_or(TlsError::NoCertificate)?;
    let verify = |role| trust.verify_chain(leaf, others, role, &Expected::AnyMember, unix_time(now));
    let mut facts = Err(TlsError::NoCertificate);
    for role in roles {
        facts = Ok(verify(*role).map_err(TlsError::Own)?);
    }
    facts
}

fn client(
    key: &Arc<CertifiedKey>,
    trust: &Arc<Trust>,
    expected: Expected,
    alpn: &[u8],
) -> Arc<ClientConfig> {
    let verifier = ServerVerifier { trust: TrustSource::Bundle(Arc::clone(trust)), expected };
    settings::client(Some(Arc::clone(key)), verifier, alpn)
}
