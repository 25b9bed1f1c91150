//! Bans at the gRPC port: no handshake, no renewal, no first certificate, and what is open is cut.

use std::time::{Duration, Instant};

use tonic::Code;
use weft::model::ban::Subject;
use weft::model::{Ban, Serial};
use weft::pb;
use weft::pb::identity_client::IdentityClient;
use weft::store::{Op, Txn};
use weft::tls::KeyRequest;

use super::enrol::{anonymous, as_agent, dials};
use super::{Plane, eventually, within};

fn csr() -> Vec<u8> {
    KeyRequest::generate().unwrap().csr
}

#[tokio::test]
async fn a_banned_sidecar_is_cut_and_not_let_in_again() {
    let plane = Plane::start().await;
    let (web, db) = (plane.agent("web", &[]).await, plane.agent("db", &[]).await);
    let identity = web.handle.identity.borrow().clone().unwrap();
    let enrolment = Serial::parse(identity.serial()).unwrap().enrolment.to_string();
    for subject in [
        Subject::serial(identity.serial()).unwrap(),
        Subject::enrolment(&enrolment).unwrap(),
        Subject::identity(identity.id().as_str()).unwrap(),
    ] {
        let mut client = IdentityClient::new(as_agent(&plane, &web).await);
        let started = Instant::now();
        plane.catalog.put_ban(subject.clone(), String::new()).await.unwrap();
        eventually("the end of the stream", || !web.handle.status.borrow().connected).await;
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        let renewal = client.renew(pb::RenewRequest { csr: csr() }).await;
        renewal.expect_err("a connection that was open carries no renewal");
        assert!(!dials(&plane, identity.control_config()).await, "{subject} shook hands");
        // Everybody else hears of it, and nothing happens to them.
        let told = || !db.handle.snapshot.load().bans.is_empty();
        eventually("the news", told).await;
        assert!(db.handle.status.borrow().connected);
        plane.catalog.delete_ban(&subject).await.unwrap();
        eventually("the news", || !told()).await;
        eventually("the way back", || web.handle.status.borrow().registered).await;
    }
}

#[tokio::test]
async fn a_banned_service_gets_no_first_certificate() {
    let plane = Plane::start().await;
    let id = plane.ca.service_id(&super::name("web")).unwrap();
    let subject = Subject::identity(id.as_str()).unwrap();
    plane.catalog.put_ban(subject.clone(), String::new()).await.unwrap();
    let mut client = IdentityClient::new(anonymous(&plane).await);
    let request = || pb::EnrolRequest { token: String::new(), service: "WEB".to_owned(), csr: csr() };
    let status = client.enrol(request()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    plane.catalog.delete_ban(&subject).await.unwrap();
    within("a certificate", client.enrol(request())).await.unwrap();
}

#[tokio::test]
async fn bans_outlive_the_server_and_are_bounded() {
    let plane = Plane::start().await;
    let subject = Subject::serial("4101").unwrap();
    plane.catalog.put_ban(subject.clone(), "first".to_owned()).await.unwrap();
    let (store, address) = plane.stop().await;
    let plane = Plane::over(store, address, super::Options::default()).await;
    assert_eq!(plane.catalog.ban_list()[0].reason, "first");
    let agent = plane.agent("web", &[]).await;
    assert!(!agent.handle.snapshot.load().bans.is_empty(), "a snapshot has them");
    let most = weft::catalog::MAX_BANS;
    // In one transaction, as no caller could; the bound is about what is there.
    let put = |number: usize| {
        let subject = Subject::serial(&format!("41{number:08}")).unwrap();
        let key = format!("catalog/ban/serial/{}", subject.value());
        let ban = Ban { subject, reason: String::new(), created_ms: 0 };
        Op::Put { key, value: serde_json::to_vec(&ban).unwrap().into() }
    };
    let ops = (1..most).map(put).collect();
    plane.store.commit(Txn { conditions: Vec::new(), ops }).await.unwrap();
    eventually("all of them", || plane.catalog.ban_list().len() == most).await;
    let one_more = Subject::serial("42").unwrap();
    let full = plane.catalog.put_ban(one_more, String::new()).await.unwrap_err();
    assert!(full.to_string().contains("10000 bans"), "{full}");
    plane.catalog.put_ban(subject, String::new()).await.expect("one that is there takes no room");
}
