//! X.509-SVIDs and bundles.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tonic::Code;
use weft::pb::spiffe::{X509BundlesRequest, X509svid, X509svidRequest};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;
use crate::programs;

/// The certificates of a chain that stand one after the other.
fn certificates(mut der: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !der.is_empty() {
        let (rest, _) = X509Certificate::from_der(der).unwrap();
        found.push(&der[..der.len() - rest.len()]);
        der = rest;
    }
    found
}

fn serial(svid: &X509svid) -> String {
    let leaf = certificates(&svid.x509_svid)[0];
    X509Certificate::from_der(leaf).unwrap().1.raw_serial_as_string()
}

#[tokio::test]
async fn an_application_has_the_identity_of_its_service_with_a_key_of_its_own() {
    let world = World::start().await;
    let mut client = world.client().await;
    let mut stream = client.fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    let response = next(&mut stream).await.unwrap();
    let [svid] = &response.svids[..] else { panic!("{} identities", response.svids.len()) };
    let own = world.sidecar.agent().identity.borrow().clone().unwrap();
    assert_eq!(svid.spiffe_id, own.id().as_str());
    assert!(svid.spiffe_id.ends_with("/ns/default/dc/dc1/svc/web"), "{}", svid.spiffe_id);
    assert_eq!(certificates(&svid.x509_svid).len(), 2, "leaf and intermediate");
    let certificate = certificates(&svid.x509_svid)[0];
    let (_, leaf) = X509Certificate::from_der(certificate).unwrap();
    assert_ne!(weft::model::hex::encode(leaf.raw_serial()), own.serial(), "not the sidecar's own");
    let key = rcgen::KeyPair::try_from(&svid.x509_svid_key[..]).expect("PKCS#8");
    assert_eq!(rcgen::PublicKeyData::subject_public_key_info(&key), leaf.public_key().raw);

    let mut bundles = client.fetch_x509_bundles(call(X509BundlesRequest {})).await.unwrap().into_inner();
    let bundles = next(&mut bundles).await.unwrap().bundles;
    let domain = world.server.ca().trust_domain().id().to_string();
    assert_eq!(bundles.keys().collect::<Vec<_>>(), [&domain]);
    assert_eq!(bundles[&domain], svid.bundle);
    assert_eq!(certificates(&svid.bundle).len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn openssl_verifies_the_chain_for_both_directions() {
    if !programs::present(&["openssl"]) {
        return;
    }
    let world = World::start().await;
    let mut client = world.client().await;
    let mut stream = client.fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    let svid = next(&mut stream).await.unwrap().svids.remove(0);
    let pem = |der: &[u8]| {
        let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    };
    let chain = certificates(&svid.x509_svid);
    for (name, der) in [("leaf", chain[0]), ("intermediate", chain[1]), ("root", &svid.bundle)] {
        std::fs::write(world.dir.path().join(name), pem(der)).unwrap();
    }
    for purpose in ["sslclient", "sslserver"] {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(world.dir.path()).args(["verify", "-x509_strict", "-purpose", purpose]);
        openssl.args(["-CAfile", "root", "-untrusted", "intermediate", "leaf"]);
        let output = openssl.output().unwrap();
        assert!(output.status.success(), "{purpose}: {}", String::from_utf8_lossy(&output.stderr));
    }
    world.stop().await;
}

#[tokio::test]
async fn streams_follow_the_rotation() {
    let world = World::with(Duration::from_secs(10), &[]).await;
    let mut client = world.client().await;
    let mut stream = client.fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    let mut bundles = client.fetch_x509_bundles(call(X509BundlesRequest {})).await.unwrap().into_inner();
    next(&mut bundles).await.unwrap();
    let first = next(&mut stream).await.unwrap().svids.remove(0);
    let second = next(&mut stream).await.unwrap().svids.remove(0);
    assert_eq!(first.spiffe_id, second.spiffe_id);
    assert_ne!(serial(&first), serial(&second));
    assert_ne!(first.x509_svid_key, second.x509_svid_key, "a new key each time");
    // Nothing was said about the bundle, which is the same.
    let quiet = tokio::time::timeout(Duration::ZERO, bundles.message()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    world.stop().await;
}

#[tokio::test]
async fn streams_end_and_the_socket_goes_with_the_sidecar() {
    let world = World::start().await;
    let socket = world.socket();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = world.client().await;
    let mut stream = client.fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    next(&mut stream).await.unwrap();
    let World { server, sidecar, dir } = world;
    let (status, _) = tokio::join!(next(&mut stream), sidecar.finish());
    assert_eq!(status.unwrap_err().code(), Code::Unavailable);
    assert!(!socket.exists());
    // The next sidecar serves at the same place.
    let again = mesh::sidecar_with_workload(&server, "web", &socket, &[]).await;
    let mut client = super::client(&socket).await;
    client.fetch_x509svid(call(X509svidRequest {})).await.unwrap();
    again.finish().await;
    server.stop().await;
    drop(dir);
}
