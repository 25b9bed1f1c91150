//! One root follows another while sidecars are connected, away, or asleep.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft::agent::Agent;
use weft::ca::rotation::Step;
use weft::tls::Identity;

use super::{Options, Plane, eventually, name};

const HOUR: Duration = Duration::from_secs(3600);

fn identity(agent: &Agent) -> Arc<Identity> {
    agent.handle.identity.borrow().clone().unwrap()
}

fn step(plane: &Plane) -> Option<Step> {
    plane.ca.overview().rotation.map(|rotation| rotation.step)
}

fn behind(plane: &Plane, bundle: u64) -> usize {
    plane.sessions.census(bundle, "", SystemTime::now()).behind
}

/// While the rotation prepares, every sidecar has the new bundle soon, with the certificate it has.
#[tokio::test]
async fn a_new_bundle_reaches_an_agent() {
    let plane = Plane::with(Options { settle: HOUR, ..Options::default() }).await;
    let web = plane.agent("web", &[]).await;
    let before = identity(&web);
    plane.ca.rotate(HOUR).await.unwrap();
    let bundle = plane.ca.bundle().borrow().clone();
    assert_eq!((bundle.roots.len(), step(&plane)), (2, Some(Step::Prepare)));
    eventually("the acknowledgement", || behind(&plane, bundle.version) == 0).await;
    let after = identity(&web);
    assert_eq!(after.serial(), before.serial());
    assert!(after.generation() > before.generation() && after.is_current());
    assert_eq!(web.handle.snapshot.load().bundle.as_ref().unwrap().version, bundle.version);
    // The server's own settings follow: a newcomer connects.
    plane.agent("db", &[]).await;
    let second = plane.ca.rotate(HOUR).await.unwrap_err();
    assert!(second.to_string().contains("another rotation"), "{second}");
}

/// All four steps, with the server started anew in each of them.
#[tokio::test]
async fn a_rotation_goes_through_and_survives_restarts() {
    let leaf_ttl = Duration::from_secs(6);
    let options = Options { leaf_ttl, ..Options::default() };
    let plane = Plane::with(Options { settle: HOUR, ..options.clone() }).await;
    let (web, db) = (plane.agent("web", &["db"]).await, plane.agent("db", &[]).await);
    let old = plane.ca.roots()[0].id.clone();
    let new = plane.ca.rotate(HOUR).await.unwrap();

    // Prepare: a server that has just started does not take an empty port for agreement.
    let (store, address) = plane.stop().await;
    let plane = Plane::over(store, address, Options { settle: HOUR, ..options.clone() }).await;
    eventually("the sidecars", || plane.sessions.connected() == 2).await;
    assert_eq!((step(&plane), plane.ca.roots()[0].id.as_str()), (Some(Step::Prepare), old.as_str()));

    // Activate, then reissue: everybody renews soon, long before half of the life is over.
    let (store, address) = plane.stop().await;
    let settle = Duration::from_millis(500);
    let plane = Plane::over(store, address, Options { settle, ..options.clone() }).await;
    eventually("the new root", || plane.ca.roots()[0].id == new).await;
    let bundle = plane.ca.bundle().borrow().clone();
    for agent in [&web, &db] {
        eventually("the bundle", || {
            let snapshot = agent.handle.snapshot.load();
            snapshot.bundle.as_ref().is_some_and(|held| held.version >= bundle.version)
        })
        .await;
        eventually("a leaf of the new root", || identity(agent).is_current()).await;
    }
    eventually("the retiring step", || step(&plane) == Some(Step::Retire)).await;
    assert_eq!(plane.ca.roots().len(), 2, "no leaf of the old root may be alive first");

    // Retire: the old root leaves once its last leaf must be dead.
    let leaves = plane.ca.roots()[1].leaves_at.unwrap();
    assert!(leaves >= SystemTime::now() + leaf_ttl / 2);
    let (store, address) = plane.stop().await;
    let plane = Plane::over(store, address, Options { settle: Duration::ZERO, ..options }).await;
    eventually("the end", || step(&plane) == Some(Step::Done)).await;
    assert!(SystemTime::now() >= leaves, "it left too early");
    let roots = plane.ca.roots();
    assert_eq!((roots.len(), roots[0].id.as_str(), &roots[0].cross_pem), (1, new.as_str(), &None));
    eventually("the last bundle", || {
        identity(&web).is_current()
            && web.handle.snapshot.load().bundle.as_ref().unwrap().roots.len() == 1
    })
    .await;
}

/// Three rotations in a row while a sidecar has only the first root: its own certificate still counts
/// with everybody, theirs with it, and it renews.
#[tokio::test]
async fn a_sleeper_that_knows_only_the_first_root_is_not_lost() {
    let options = Options { leaf_ttl: HOUR, settle: Duration::ZERO, ..Options::default() };
    let plane = Plane::with(options).await;
    let sleeper = plane.agent("sleeper", &[]).await;
    let asleep = identity(&sleeper);
    let (estate, _rest) = sleeper.succession.estate().await.unwrap();
    drop(sleeper);
    eventually("the sleep", || plane.sessions.connected() == 0).await;
    for round in 2..5 {
        let new = plane.ca.rotate(Duration::ZERO).await.unwrap();
        eventually("the new root", || plane.ca.roots()[0].id == new).await;
        assert_eq!(plane.ca.roots().len(), round, "the sleeper's root is still needed");
        eventually("the retiring step", || step(&plane) == Some(Step::Retire)).await;
    }
    let web = plane.agent("web", &[]).await;
    let awake = identity(&web);
    handshake(asleep.client_config(&name("web")).unwrap(), awake.server_config()).await;
    handshake(awake.client_config(&name("sleeper")).unwrap(), asleep.server_config()).await;
    // It wakes with what it had: no token, the first root, and its certificate.
    let mut settings = plane.settings("sleeper", &[]);
    settings.token = Some("good for nothing".to_owned());
    let woken = Agent::succeed(settings, estate).unwrap();
    woken.succession.claim();
    eventually("its way back", || woken.handle.status.borrow().synced).await;
    eventually("the new bundle", || {
        woken.handle.snapshot.load().bundle.as_ref().is_some_and(|bundle| bundle.roots.len() == 4)
    })
    .await;
    let now = identity(&woken);
    assert_eq!((now.serial(), now.is_current()), (asleep.serial(), false), "renewed with jitter");
}

/// The authority is away for half a life of the leaves, from right after a renewal on.
#[tokio::test]
async fn an_authority_that_is_away_for_half_a_life_is_not_missed() {
    let leaf_ttl = Duration::from_secs(8);
    let options = Options { leaf_ttl, ..Options::default() };
    let plane = Plane::with(options.clone()).await;
    let web = plane.agent("web", &[]).await;
    let first = identity(&web);
    eventually("a renewal", || identity(&web).serial() != first.serial()).await;
    let held = identity(&web);
    let (store, address) = plane.stop().await;
    let back_at = SystemTime::now() + leaf_ttl / 2;
    let is_good = || SystemTime::now() < identity(&web).not_after();
    eventually("half a life", || {
        assert!(is_good(), "an expired certificate is in use");
        SystemTime::now() >= back_at
    })
    .await;
    assert_eq!(identity(&web).serial(), held.serial(), "nobody was there to renew it");
    let _plane = Plane::over(store, address, options).await;
    eventually("the next renewal", || {
        assert!(is_good(), "an expired certificate is in use");
        identity(&web).serial() != held.serial()
    })
    .await;
}

/// TLS between two sidecars, to its end on both sides.
async fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let client = TlsConnector::from(client).connect(weft::tls::no_server_name(), near);
    let server = TlsAcceptor::from(server).accept(far);
    let (client, server) = tokio::join!(client, server);
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    client.write_all(b"?").await.unwrap();
    let mut byte = [0];
    server.read_exact(&mut byte).await.unwrap();
}
