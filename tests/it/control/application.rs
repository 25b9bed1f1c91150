//! What a sidecar gets for its application: a certificate beside its own, tokens, and the keys of tokens.

use std::time::Duration;

use tonic::Code;
use weft::model::Serial;
use weft::pb;
use weft::pb::identity_client::IdentityClient;
use weft::tls::{Identity, KeyRequest};

use super::Plane;
use super::enrol::{anonymous, as_agent, channel};

#[tokio::test]
async fn only_a_service_with_a_certificate_gets_anything() {
    let plane = Plane::start().await;
    let mut nobody = IdentityClient::new(anonymous(&plane).await);
    let csr = KeyRequest::generate().unwrap().csr.clone();
    let issued = nobody.issue(pb::IssueRequest { csr: csr.clone() }).await.map(drop);
    let request = pb::MintJwtRequest { audience: vec!["api".to_owned()], ttl_s: 0 };
    let minted = nobody.mint_jwt(request).await.map(drop);
    let watched = nobody.watch_jwt_keys(pb::WatchJwtKeysRequest {}).await.map(drop);
    for refused in [issued, minted, watched] {
        assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    }
    plane.stop().await;
}

#[tokio::test]
async fn a_second_certificate_takes_nothing_from_the_first() {
    let plane = Plane::start().await;
    let agent = plane.agent("web", &[]).await;
    let mut client = IdentityClient::new(as_agent(&plane, &agent).await);
    let own = agent.handle.identity.borrow().clone().unwrap();
    for _ in 0..3 {
        let key = KeyRequest::generate().unwrap();
        let got = client.issue(pb::IssueRequest { csr: key.csr.clone() }).await.unwrap().into_inner();
        let bundle = plane.ca.bundle().borrow().as_ref().clone();
        let now = std::time::SystemTime::now();
        let issued = Identity::new(1, got.chain, &key.key, &bundle, now).unwrap();
        assert_eq!(issued.id(), own.id());
        assert_ne!(issued.serial(), own.serial());
    }
    // The first one goes on being renewed.
    let key = KeyRequest::generate().unwrap();
    client.renew(pb::RenewRequest { csr: key.csr.clone() }).await.unwrap();
    for csr in [Vec::new(), vec![0x30; 20_000], b"junk".to_vec()] {
        let refused = client.issue(pb::IssueRequest { csr }).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }
    plane.stop().await;
}

/// A certificate that an application lost is good until it expires, and for nothing more.
#[tokio::test]
async fn an_applications_certificate_gets_no_further_ones() {
    let plane = Plane::start().await;
    let agent = plane.agent("web", &[]).await;
    let mut client = IdentityClient::new(as_agent(&plane, &agent).await);
    let key = KeyRequest::generate().unwrap();
    let got = client.issue(pb::IssueRequest { csr: key.csr.clone() }).await.unwrap().into_inner();
    let bundle = plane.ca.bundle().borrow().as_ref().clone();
    let issued = Identity::new(1, got.chain, &key.key, &bundle, std::time::SystemTime::now()).unwrap();
    let own = agent.handle.identity.borrow().clone().unwrap();
    let enrolment = |identity: &Identity| Serial::parse(identity.serial()).unwrap().enrolment;
    assert_eq!(enrolment(&issued), enrolment(&own), "a ban of the enrolment meets both");

    let mut thief = IdentityClient::new(channel(&plane, issued.control_config()).await);
    let csr = KeyRequest::generate().unwrap().csr.clone();
    let request = pb::MintJwtRequest { audience: vec!["api".to_owned()], ttl_s: 0 };
    let answers = [
        thief.renew(pb::RenewRequest { csr: csr.clone() }).await.map(drop),
        thief.issue(pb::IssueRequest { csr }).await.map(drop),
        thief.mint_jwt(request).await.map(drop),
    ];
    for refused in answers {
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    }
    plane.stop().await;
}

#[tokio::test]
async fn tokens_have_bounds() {
    let plane = Plane::start().await;
    let agent = plane.agent("web", &[]).await;
    let mut client = IdentityClient::new(as_agent(&plane, &agent).await);
    let audience = || vec!["api".to_owned()];
    for (ttl_s, wanted) in [(0, 300), (60, 60), (3600, 3600)] {
        let request = pb::MintJwtRequest { audience: audience(), ttl_s };
        let valid_for = client.mint_jwt(request).await.unwrap().into_inner().valid_for_ms;
        let wanted = Duration::from_secs(wanted).as_millis() as u64;
        assert!(valid_for <= wanted && valid_for + 20_000 > wanted, "{ttl_s}: {valid_for}");
    }
    let wrong = [
        (audience(), 3601),
        (Vec::new(), 0),
        (vec![String::new()], 0),
        (vec!["a".repeat(1025)], 0),
        (vec!["a".to_owned(); 17], 0),
    ];
    for (audience, ttl_s) in wrong {
        let refused = client.mint_jwt(pb::MintJwtRequest { audience, ttl_s }).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }
    plane.stop().await;
}

/// Each application may ask as often as it likes; the authority signs so often for one and no oftener, and the
/// others do not notice.
#[tokio::test]
async fn one_sidecar_cannot_have_tokens_without_end() {
    let plane = Plane::start().await;
    let (web, db) = (plane.agent("web", &[]).await, plane.agent("db", &[]).await);
    let mut client = IdentityClient::new(as_agent(&plane, &web).await);
    let request = || pb::MintJwtRequest { audience: vec!["api".to_owned()], ttl_s: 0 };
    let mut refused = Vec::new();
    for _ in 0..400 {
        refused.extend(client.mint_jwt(request()).await.err());
    }
    assert!((100..=299).contains(&refused.len()), "{} of 400 were refused", refused.len());
    for status in &refused {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(status.message().contains("mint_sidecar"), "{status:?}");
    }
    // It takes nothing from the others, nor from its own renewals.
    let mut other = IdentityClient::new(as_agent(&plane, &db).await);
    other.mint_jwt(request()).await.expect("another sidecar's token");
    let csr = KeyRequest::generate().unwrap().csr;
    client.renew(pb::RenewRequest { csr }).await.expect("a renewal");
    plane.stop().await;
}
