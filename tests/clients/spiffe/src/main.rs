//! What the crate `spiffe` offers, used as its documentation shows, against the Workload API named by
//! SPIFFE_ENDPOINT_SOCKET, whose certificates live for seconds. Ends with a panic that says what was wrong,
//! or with `spiffe: ok`.

use std::time::Duration;

use spiffe::{BundleSource, JwtSource, JwtSvid, WorkloadApiClient, X509Source};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() {
    tokio::time::timeout(LIMIT, x509()).await.expect("X.509 in time");
    tokio::time::timeout(LIMIT, jwt()).await.expect("JWT in time");
    println!("spiffe: ok");
}

/// Follows two rotations.
async fn x509() {
    let source = X509Source::new().await.expect("a source");
    let mut updates = source.updated();
    let mut leaves = Vec::new();
    for _ in 0..3 {
        let svid = source.svid().expect("an SVID");
        assert!(svid.spiffe_id().path().ends_with("/svc/web"), "{}", svid.spiffe_id());
        let bundle = source.bundle_for_trust_domain(svid.spiffe_id().trust_domain());
        assert!(bundle.expect("a bundle").is_some_and(|bundle| !bundle.authorities().is_empty()));
        leaves.push(svid.leaf().as_bytes().to_vec());
        updates.changed().await.expect("a rotation");
    }
    leaves.dedup();
    assert_eq!(leaves.len(), 3, "each is another certificate");
    source.shutdown().await;
}

/// A token, checked by the library with the keys of the bundle, and by the Workload API.
async fn jwt() {
    let source = JwtSource::new().await.expect("a source");
    let svid = source.fetch_jwt_svid(&["api", "other"]).await.expect("a token");
    assert!(svid.spiffe_id().path().ends_with("/svc/web"), "{}", svid.spiffe_id());
    let checked = JwtSvid::parse_and_validate(svid.token(), &source, &["api"]).expect("it holds");
    assert_eq!(checked.spiffe_id(), svid.spiffe_id());
    JwtSvid::parse_and_validate(svid.token(), &source, &["web"]).expect_err("it is for others");
    let client = WorkloadApiClient::connect_env().await.expect("a client");
    client.validate_jwt_token("api", svid.token()).await.expect("it holds");
    client.validate_jwt_token("web", svid.token()).await.expect_err("it is for others");
    source.shutdown().await;
}
