//! The certificate authority: the only place that signs.
//!
//! `control`, `api` and `app` call it. A root (10 years) is kept in the store; each server makes an
//! intermediate of its own whose key stays in memory and which signs leaves; a one-time token turns
//! into a first leaf; keys of another kind sign tokens for applications (`jwt`). One root follows another
//! in the steps of [`rotation`]; `life` has what people may do about that. Invariants: a certificate's fields
//! come from here and never from a request; a
//! token's use is durable before its leaf is signed; nothing returns a key of an authority.

mod authority;
mod cross;
mod dev;
mod document;
mod driver;
mod enrolment;
mod import;
mod info;
mod issue;
mod jwt;
mod leaves;
mod life;
pub mod limits;
mod pem;
mod root;
pub mod rotation;
pub mod seal;
mod spiffe;
mod state;
#[cfg(test)]
mod tests;
mod token;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rcgen::KeyPair;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use zeroize::{Zeroize, Zeroizing};

pub use dev::{DEV_DIRECTORY, write_dev};
pub use enrolment::MAX_ENROLMENTS;
pub use info::{Event, Leaf, RootInfo, ServerMaterial, ServiceMaterial, TokenInfo};
pub use jwt::{DEFAULT_JWT_TTL, Jwt, MAX_JWT_TTL};
pub use life::{Overview, RotationInfo};
pub use token::{MAX_TOKEN_SERVICES, MAX_TOKEN_TTL, MAX_TOKEN_USES, MAX_TOKENS};

use self::driver::{Count, Driver};
use self::enrolment::{Claim, Enrolments, Granted, Refusal};
use self::issue::{Names, Request};
use self::rotation::Census;
use self::seal::{Keyring, SealError};
use self::state::{Follower, State};
use self::token::Tokens;
use crate::model::{Bundle, EnrolmentId, Serial, ServiceName, SpiffeId, Token, TrustDomain};
use crate::store::{Store, StoreError};

#[derive(Debug, Clone)]
pub struct Settings {
    pub datacenter: String,
    /// Names this server in its own certificate.
    pub server_id: String,
    /// Unless it was set over Consul's API.
    pub leaf_ttl: Duration,
}

/// How the authority's keys are kept, and how careful its rotation is.
#[derive(Debug, Clone)]
pub struct Custody {
    /// Seals the keys in the store.
    pub keyring: Keyring,
    /// How long after the start sidecars may take to be back.
    pub settle: Duration,
}

impl Default for Custody {
    fn default() -> Self {
        Self { keyring: Keyring::default(), settle: limits::SETTLE }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the certificate request is not usable: {0}")]
    Request(String),
    #[error("signing failed: {0}")]
    Signing(String),
    #[error("{0}")]
    Seal(#[from] SealError),
    #[error("the certificate cannot become a root of this mesh: {0}")]
    Import(String),
    #[error("the root cannot be rotated now: {0}")]
    Rotating(String),
    #[error("`{name}` cannot be part of an identity: {source}")]
    Name { name: String, source: crate::model::spiffe::SpiffeError },
    #[error("the token is unknown, used up or expired; create one with `weft token create`")]
    TokenRefused,
    #[error("the token is not for service {service}; it is bound to {bound}")]
    TokenForOther { service: String, bound: String },
    #[error(
        "the certificate of {id} is not renewed: {refusal}; enrol this sidecar anew with a token, and see \
         docs/identity.md (enrolment {enrolment})"
    )]
    NotRenewed { id: SpiffeId, enrolment: EnrolmentId, refusal: Refusal },
    #[error(
        "there are {MAX_ENROLMENTS} enrolments whose certificates have not expired, which is too many"
    )]
    TooManyEnrolments,
    #[error("the token cannot be created: {0}")]
    TokenLimit(String),
    #[error("{path} cannot be {action}: {source}")]
    File { path: PathBuf, action: &'static str, source: std::io::Error },
    #[error("{0} exists; choose another directory or allow overwriting")]
    Exists(PathBuf),
    #[error("two files would be called {0}; rename a service")]
    SameFile(PathBuf),
}

impl From<rcgen::Error> for CaError {
    fn from(error: rcgen::Error) -> Self {
        Self::Signing(error.to_string())
    }
}

type Tell = Box<dyn Fn(Event) + Send + Sync>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Ca(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    settings: Settings,
    ring: Keyring,
    domain: TrustDomain,
    state: Arc<ArcSwap<State>>,
    /// Held while the intermediate is made anew.
    renewing: Mutex<()>,
    bundle: watch::Receiver<Arc<Bundle>>,
    version: watch::Receiver<u64>,
    tokens: Tokens,
    jwt: jwt::Keeper,
    enrolments: Enrolments,
    listener: OnceLock<Tell>,
    count: Arc<OnceLock<Count>>,
    tasks: [AbortHandle; 2],
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Ca {
    /// Loads the roots from the store, makes the first one when there is none, and makes this server's
    /// intermediate. From then on it follows the store, so that another server's change of the roots
    /// counts here too. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// When the store fails or holds a damaged authority.
    pub async fn open(store: Arc<dyn Store>, settings: Settings) -> Result<Self, CaError> {
        Self::open_in(store, settings, Custody::default()).await
    }

    /// As [`Self::open`]. Keys that lie in the store otherwise than `custody` says are written anew.
    ///
    /// # Errors
    /// As [`Self::open`], and when the keys in the store cannot be opened.
    pub async fn open_in(
        store: Arc<dyn Store>,
        settings: Settings,
        custody: Custody,
    ) -> Result<Self, CaError> {
        let ring = custody.keyring;
        let now = SystemTime::now();
        let (authority, revision) =
            document::load_or_create(&*store, &ring, settings.leaf_ttl, now).await?;
        let domain = authority.domain.clone();
        let (bundle_sink, bundle) = watch::channel(Arc::new(authority.bundle()));
        let (version_sink, version) = watch::channel(authority.version);
        let first = State::new(Arc::new(authority), &settings, now)?;
        let state = Arc::new(ArcSwap::from_pointee(first));
        let count = Arc::<OnceLock<Count>>::default();
        let follower = Follower {
            store: Arc::clone(&store),
            state: Arc::clone(&state),
            settings: settings.clone(),
            ring: ring.clone(),
            bundle: bundle_sink,
            version: version_sink,
        };
        let driver = Driver {
            store: Arc::clone(&store),
            state: Arc::clone(&state),
            ring: ring.clone(),
            version: version.clone(),
            count: Arc::clone(&count),
            settled: Instant::now() + custody.settle,
        };
        let jwt = jwt::Keeper::open(Arc::clone(&store), ring.clone(), domain.clone()).await?;
        let tasks = [tokio::spawn(follower.run(revision)), tokio::spawn(driver.run())];
        Ok(Self(Arc::new(Inner {
            store,
            settings,
            ring,
            domain,
            state,
            renewing: Mutex::new(()),
            bundle,
            version,
            tokens: Tokens::new(),
            jwt,
            enrolments: Enrolments::new(),
            listener: OnceLock::new(),
            count,
            tasks: tasks.map(|task| task.abort_handle()),
        })))
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Calls `tell` for each event from now on. It must not block. There is one such listener; of
    /// several the first stays.
    pub fn on_event(&self, tell: impl Fn(Event) + Send + Sync + 'static) {
        if self.0.listener.set(Box::new(tell)).is_err() {
            tracing::error!("somebody listens to the certificate authority already");
        }
    }

    /// How the sidecars connected to this server are counted; a rotation waits for them. `count` gets
    /// the version of a bundle and the key id of a root. There is one such counter; of several the first
    /// stays.
    pub fn count_sidecars(&self, count: impl Fn(u64, &str) -> Census + Send + Sync + 'static) {
        if self.0.count.set(Box::new(count)).is_err() {
            tracing::error!("somebody counts the sidecars already");
        }
    }

    fn tell(&self, event: Event) {
        if let Some(tell) = self.0.listener.get() {
            tell(event);
        }
    }

    /// The trust domain, made once with the first root.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.domain
    }

    /// The current bundle and its changes.
    #[must_use]
    pub fn bundle(&self) -> watch::Receiver<Arc<Bundle>> {
        self.0.bundle.clone()
    }

    /// The roots, the active one among them, without their keys.
    #[must_use]
    pub fn roots(&self) -> Vec<RootInfo> {
        self.0.state.load().authority.infos()
    }

    /// What tokens pin: lower-case hex of the SHA-256 of the `SubjectPublicKeyInfo` of the active root,
    /// or of the intermediate below it when the root is that of an external authority.
    #[must_use]
    pub fn root_pin(&self) -> String {
        self.0.state.load().authority.active().pin().to_owned()
    }

    /// The identity of a service in this trust domain and datacenter.
    ///
    /// # Errors
    /// When the name has a character that SPIFFE paths do not allow.
    pub fn service_id(&self, service: &ServiceName) -> Result<SpiffeId, CaError> {
        SpiffeId::for_service(self.trust_domain(), &self.0.settings.datacenter, service)
            .map_err(|source| CaError::Name { name: service.to_string(), source })
    }

    /// A fresh key and certificate for the gRPC port.
    ///
    /// # Errors
    /// When the server's id cannot be part of an identity, or signing fails.
    pub fn server_material(&self) -> Result<ServerMaterial, CaError> {
        let Settings { datacenter, server_id, .. } = &self.0.settings;
        let id = SpiffeId::for_server(self.trust_domain(), datacenter, server_id)
            .map_err(|source| CaError::Name { name: server_id.clone(), source })?;
        let now = SystemTime::now();
        let state = self.state(now)?;
        let mut pair = KeyPair::generate()?;
        let (ttl, names) = (state.leaf_ttl, Names::Loopback);
        let leaf = issue::leaf(&state.intermediate, &id, &pair, names, ttl, now)?;
        let key = Zeroizing::new(pair.serialize_der());
        pair.zeroize();
        let mut chain = leaf.chain;
        let (active, oldest) = (state.authority.active(), &state.authority.oldest().root);
        chain.push(active.certificate().to_vec());
        if !Arc::ptr_eq(active, oldest) {
            chain.push(oldest.certificate().to_vec());
        }
        Ok(ServerMaterial { chain, key, not_after: leaf.not_after })
    }

    /// Makes an enrolment token `wt1.<id>.<secret>.<pin>`; only a hash of its secret is stored.
    ///
    /// # Errors
    /// [`CaError::TokenLimit`] beyond [`MAX_TOKEN_TTL`], [`MAX_TOKEN_USES`], [`MAX_TOKEN_SERVICES`] or
    /// [`MAX_TOKENS`].
    pub async fn create_token(
        &self,
        services: Vec<ServiceName>,
        ttl: Duration,
        uses: u32,
    ) -> Result<String, CaError> {
        for service in &services {
            self.service_id(service)?; // better now than when it is used
        }
        let (store, pin) = (&*self.0.store, self.pin_for(ttl));
        let token = self.0.tokens.create(store, services, (ttl, uses), &pin, SystemTime::now()).await?;
        tracing::info!(token = token.id(), uses, "enrolment token created");
        self.tell(Event::TokenCreated);
        Ok(token.to_text().to_string())
    }

    /// The tokens that can still be used.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, CaError> {
        self.0.tokens.list(&*self.0.store, SystemTime::now()).await
    }

    /// Removes a token by its id; `false` when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revoke_token(&self, id: &str) -> Result<bool, CaError> {
        let known = self.0.tokens.revoke(&*self.0.store, id).await?;
        if known {
            self.tell(Event::TokenRevoked);
        }
        Ok(known)
    }

    /// Uses a token for `service` and the public key of `csr`: compare-and-set before signing. The
    /// same token may come again within two minutes with the same key only.
    ///
    /// # Errors
    /// [`CaError::TokenRefused`] without saying why (the log does); [`CaError::TokenForOther`] when the
    /// token is good but bound to other services; [`CaError::Request`] before the token is touched.
    pub async fn enrol(&self, token: &str, service: &ServiceName, csr: &[u8]) -> Result<Leaf, CaError> {
        let leaf = self.redeem_and_sign(token, service, csr).await;
        if matches!(leaf, Err(CaError::TokenRefused | CaError::TokenForOther { .. })) {
            self.tell(Event::TokenRefused);
        }
        self.tell(Event::Leaf { granted: leaf.is_ok() });
        leaf
    }

    async fn redeem_and_sign(
        &self,
        token: &str,
        service: &ServiceName,
        csr: &[u8],
    ) -> Result<Leaf, CaError> {
        let request = Request::parse(csr)?;
        let id = self.service_id(service)?;
        let token = Token::parse(token).map_err(|error| {
            tracing::warn!(%service, reason = %error, "enrolment refused");
            CaError::TokenRefused
        })?;
        let hash = request.key_hash();
        self.0.tokens.redeem(&*self.0.store, &token, service, &hash, SystemTime::now()).await?;
        self.tell(Event::TokenUsed);
        self.begin(&id, &request).await
    }

    /// A first certificate without a token. Whoever calls this has made sure of the caller.
    ///
    /// # Errors
    /// As [`Self::enrol`], but for the token.
    pub async fn admit(&self, service: &ServiceName, csr: &[u8]) -> Result<Leaf, CaError> {
        let admitted = async {
            let request = Request::parse(csr)?;
            self.begin(&self.service_id(service)?, &request).await
        };
        let leaf = admitted.await;
        self.tell(Event::Leaf { granted: leaf.is_ok() });
        leaf
    }

    /// Begins an enrolment and signs its first certificate.
    async fn begin(&self, id: &SpiffeId, request: &Request) -> Result<Leaf, CaError> {
        let mut serial = issue::first_serial(request.key());
        let key = request.key_hash();
        let claim = self.claim(id, &key)?;
        serial.generation = self.0.enrolments.begin(&*self.0.store, serial.enrolment, &claim).await?;
        self.sign(id, request, serial)
    }

    /// Signs the next certificate for the holder of one with this identity and serial number (lower-case
    /// hex), which its connection has proven. The generation grows first, durably; the same key may ask
    /// again.
    ///
    /// # Errors
    /// [`CaError::NotRenewed`] when somebody else has renewed that certificate, or it was not got by
    /// enrolment; otherwise as [`Self::issue`].
    pub async fn renew(&self, id: &SpiffeId, serial: &str, csr: &[u8]) -> Result<Leaf, CaError> {
        let leaf = self.renew_and_sign(id, serial, csr).await;
        if let Err(CaError::NotRenewed { refusal, .. }) = &leaf {
            self.tell(Event::Renewal(refusal.word()));
        }
        self.tell(Event::Leaf { granted: leaf.is_ok() });
        leaf
    }

    async fn renew_and_sign(&self, id: &SpiffeId, serial: &str, csr: &[u8]) -> Result<Leaf, CaError> {
        let request = Request::parse(csr)?;
        // One of another form is not of an enrolment either.
        let mut serial = Serial::parse(serial).unwrap_or_else(|| issue::first_serial(request.key()));
        let key = request.key_hash();
        let claim = self.claim(id, &key)?;
        let (generation, granted) = self.0.enrolments.renew(&*self.0.store, serial, &claim).await?;
        if granted == Granted::Adopted {
            let enrolment = serial.enrolment;
            tracing::warn!(target: "weft::audit", %id, %enrolment, generation, "renewed an enrolment that was not on record");
        }
        self.tell(Event::Renewal(granted.word()));
        serial.generation = generation;
        self.sign(id, &request, serial)
    }

    fn claim<'a>(&self, identity: &'a SpiffeId, key_sha256: &'a str) -> Result<Claim<'a>, CaError> {
        let now = SystemTime::now();
        let not_after = now + self.state(now)?.leaf_ttl;
        Ok(Claim { identity, key_sha256, not_after, now })
    }

    fn sign(&self, id: &SpiffeId, request: &Request, serial: Serial) -> Result<Leaf, CaError> {
        if !id.is_member_of(self.trust_domain()) {
            return Err(CaError::Signing(format!("{id} is not of this trust domain")));
        }
        let now = SystemTime::now();
        let state = self.state(now)?;
        let (names, ttl) = (Names::IdentityOnly, state.leaf_ttl);
        issue::numbered_leaf(&state.intermediate, id, request.key(), serial, names, ttl, now)
    }

    /// The state to sign with, after making a new intermediate if the old one is too short.
    fn state(&self, now: SystemTime) -> Result<Arc<State>, CaError> {
        let inner = &*self.0;
        let too_short = |state: &State| state.intermediate.is_too_short(state.leaf_ttl, now);
        let state = inner.state.load_full();
        if !too_short(&state) {
            return Ok(state);
        }
        let _one_at_a_time = inner.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        let state = inner.state.load_full();
        if !too_short(&state) {
            return Ok(state);
        }
        let fresh = Arc::new(State::new(Arc::clone(&state.authority), &inner.settings, now)?);
        // The roots may have changed meanwhile; then the follower's state is the newer one.
        inner.state.compare_and_swap(&state, Arc::clone(&fresh));
        Ok(fresh)
    }
}
