//! Renewals and their generation: a key that was copied is found out, and nobody rightful is locked out.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tonic::Code;
use weft::agent::Agent;
use weft::ca::Event;
use weft::control::Settings;
use weft::model::Serial;
use weft::pb;
use weft::pb::identity_client::IdentityClient;
use weft::tls::{Identity, KeyRequest};

use super::enrol::{anonymous, as_agent, channel};
use super::{Options, Plane, eventually, name, within};

/// What a holder of a certificate gets for a new key.
async fn renew(
    plane: &Plane,
    holder: &Identity,
    key: &KeyRequest,
) -> Result<pb::Certificate, tonic::Status> {
    let mut client = IdentityClient::new(channel(plane, holder.control_config()).await);
    client.renew(pb::RenewRequest { csr: key.csr.clone() }).await.map(tonic::Response::into_inner)
}

fn identity(plane: &Plane, certificate: pb::Certificate, key: &KeyRequest) -> Identity {
    let bundle = plane.ca.bundle().borrow().clone();
    Identity::new(1, certificate.chain, &key.key, &bundle, SystemTime::now()).unwrap()
}

fn generation(identity: &Identity) -> u32 {
    Serial::parse(identity.serial()).unwrap().generation
}

async fn first(plane: &Plane) -> Identity {
    let key = KeyRequest::generate().unwrap();
    let mut client = IdentityClient::new(anonymous(plane).await);
    let request =
        pb::EnrolRequest { token: String::new(), service: "web".to_owned(), csr: key.csr.clone() };
    identity(plane, client.enrol(request).await.unwrap().into_inner(), &key)
}

fn key() -> KeyRequest {
    KeyRequest::generate().unwrap()
}

#[tokio::test]
async fn every_renewal_is_one_generation_and_a_lost_answer_comes_again() {
    let plane = Plane::start().await;
    let one = first(&plane).await;
    assert_eq!(generation(&one), 1);
    let lost = key();
    renew(&plane, &one, &lost).await.unwrap();
    let two = identity(&plane, renew(&plane, &one, &lost).await.unwrap(), &lost);
    assert_eq!(generation(&two), 2);
    assert_eq!(one.serial()[..16], two.serial()[..16], "the same enrolment");
    let next = key();
    let three = identity(&plane, renew(&plane, &two, &next).await.unwrap(), &next);
    assert_eq!(generation(&three), 3);
    // Its own answer may be lost, too, but the one before is over.
    renew(&plane, &two, &next).await.unwrap();
    assert_eq!(renew(&plane, &one, &lost).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_copied_key_is_found_out_and_the_server_remembers() {
    let plane = Plane::start().await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    plane.ca.on_event(move |event| {
        if let Event::Renewal(result) = event {
            listener.lock().unwrap().push(result);
        }
    });
    let stolen = first(&plane).await;
    let (thief, rightful) = (key(), key());
    renew(&plane, &stolen, &thief).await.unwrap();
    let refused = renew(&plane, &stolen, &rightful).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("renewed before with another key"), "{refused}");
    let enrolment = &stolen.serial()[..16];
    assert!(refused.message().contains(enrolment), "the operator needs its name: {refused}");
    assert_eq!(*told.lock().unwrap(), ["ok", "stale"]);

    let (store, address) = plane.stop().await;
    let plane = Plane::over(store, address, Options::default()).await;
    assert_eq!(renew(&plane, &stolen, &rightful).await.unwrap_err().code(), Code::PermissionDenied);
    renew(&plane, &stolen, &thief).await.expect("who came first may ask again");
}

#[tokio::test]
async fn only_what_was_enrolled_is_renewed() {
    let plane = Plane::start().await;
    let request = key();
    let leaf = plane.ca.issue(&plane.ca.service_id(&name("web")).unwrap(), &request.csr).unwrap();
    let bundle = plane.ca.bundle().borrow().clone();
    let handed_out = Identity::new(1, leaf.chain, &request.key, &bundle, SystemTime::now()).unwrap();
    let refused = renew(&plane, &handed_out, &key()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("not got by enrolment"), "{refused}");
}

/// A thief renews before the sidecar does: the sidecar goes on with what it has, and says what is wrong.
#[tokio::test]
async fn a_sidecar_whose_key_was_copied_says_so() {
    let plane = Plane::with(Options { leaf_ttl: Duration::from_secs(6), ..Options::default() }).await;
    let web = plane.agent("web", &[]).await;
    let stolen = web.handle.identity.borrow().clone().unwrap();
    renew(&plane, &stolen, &key()).await.unwrap();
    let complaint = || web.handle.status.borrow().last_error.clone().unwrap_or_default();
    eventually("the refusal", || complaint().contains("renewed before with another key")).await;
    assert_eq!(web.handle.identity.borrow().as_ref().unwrap().serial(), stolen.serial());
}

/// Of two processes with one certificate only one renews, at every step of an upgrade.
#[tokio::test]
async fn an_upgrade_is_no_copied_key() {
    let options = Options { leaf_ttl: Duration::from_secs(4), ..Options::default() };
    let plane = Plane::with(options).await;
    let old = plane.agent("db", &[]).await;
    let serial = |agent: &Agent| agent.handle.identity.borrow().as_ref().unwrap().serial().to_owned();
    let (estate, rest) = old.succession.estate().await.unwrap();
    let inherited = serial(&old);
    let new = Agent::succeed(plane.settings("db", &[]), estate).unwrap();
    eventually("the configuration", || new.handle.status.borrow().synced).await;
    // Renewal is due by now, and neither has done it.
    let due = new.handle.identity.borrow().as_ref().unwrap().not_after() - Duration::from_millis(1500);
    eventually("the time of renewal", || SystemTime::now() >= due).await;
    assert_eq!((serial(&old), serial(&new)), (inherited.clone(), inherited.clone()));
    old.succession.cede();
    drop(rest);
    new.succession.claim();
    for _ in 0..2 {
        let before = serial(&new);
        eventually("a renewal", || serial(&new) != before).await;
    }
    assert_eq!(serial(&old), inherited, "it holds nothing any more");
    assert_eq!(new.handle.status.borrow().certificate_failures, 0);
    assert_eq!(new.handle.status.borrow().last_error, None);
}

/// A successor that fails leaves everything as it was.
#[tokio::test]
async fn a_failed_upgrade_renews_again() {
    let options = Options { leaf_ttl: Duration::from_secs(3), ..Options::default() };
    let plane = Plane::with(options).await;
    let old = plane.agent("db", &[]).await;
    let before = old.handle.identity.borrow().clone().unwrap();
    drop(within("the estate", old.succession.estate()).await);
    let renewed = || old.handle.identity.borrow().as_ref().unwrap().serial() != before.serial();
    eventually("a renewal", renewed).await;
}

#[tokio::test]
async fn one_sidecar_cannot_renew_without_end() {
    let plane = Plane::start().await;
    let (web, db) = (plane.agent("web", &[]).await, plane.agent("db", &[]).await);
    let mut client = IdentityClient::new(as_agent(&plane, &web).await);
    let same = key();
    let mut codes = Vec::new();
    for _ in 0..30 {
        let renewed = client.renew(pb::RenewRequest { csr: same.csr.clone() }).await;
        codes.push(renewed.map_or_else(|status| status.code(), |_| Code::Ok));
    }
    assert_eq!(codes[0], Code::Ok);
    let limited = codes.iter().filter(|code| **code == Code::ResourceExhausted).count();
    assert!(limited >= 15, "{codes:?}");
    let mut client = IdentityClient::new(as_agent(&plane, &db).await);
    client.renew(pb::RenewRequest { csr: key().csr }).await.expect("another sidecar");
}

/// Whoever guesses tokens runs into the limit of its own address, and a renewal does not notice.
#[tokio::test]
async fn guessing_tokens_is_slow_and_starves_no_renewal() {
    let plane = Plane::start().await;
    let web = plane.agent("web", &[]).await;
    let strict = Options { control: Settings::default(), ..Options::default() };
    let (store, address) = plane.stop().await;
    let plane = Plane::over(store, address, strict).await;
    eventually("the way back", || web.handle.status.borrow().registered).await;
    let guesser = IdentityClient::new(anonymous(&plane).await);
    let csr = key().csr;
    let guess = |number: u32| {
        let request = pb::EnrolRequest {
            token: format!("wt1.{number:016x}.{}.{}", "0".repeat(64), "0".repeat(64)),
            service: "web".to_owned(),
            csr: csr.clone(),
        };
        let mut guesser = guesser.clone();
        async move { guesser.enrol(request).await.unwrap_err() }
    };
    let mut limited = 0;
    for round in 0..40 {
        let answers = futures_util::future::join_all((0..50).map(|one| guess(round * 50 + one))).await;
        let met = |status: &&tonic::Status| status.message().contains("enrol_refused_source");
        limited += answers.iter().filter(met).count();
        if limited > 0 {
            break;
        }
    }
    assert!(limited > 0, "no limit was met");
    let mut client = IdentityClient::new(as_agent(&plane, &web).await);
    client.renew(pb::RenewRequest { csr: key().csr }).await.expect("a renewal goes on");
}
