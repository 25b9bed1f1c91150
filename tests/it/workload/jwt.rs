//! JWT-SVIDs, the keys that check them, and checking.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost_types::value::Kind;
use serde_json::Value;
use tonic::Code;
use weft::pb::spiffe::{JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest};

use super::*;

fn for_audience(audience: &[&str]) -> JwtsvidRequest {
    let audience = audience.iter().map(|&one| one.to_owned()).collect();
    JwtsvidRequest { audience, spiffe_id: String::new() }
}

fn checked_by(audience: &str, svid: &str) -> ValidateJwtsvidRequest {
    ValidateJwtsvidRequest { audience: audience.to_owned(), svid: svid.to_owned() }
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

async fn token(client: &mut Client, audience: &[&str]) -> String {
    let response = client.fetch_jwtsvid(call(for_audience(audience))).await.unwrap().into_inner();
    let [svid] = &response.svids[..] else { panic!("{} tokens", response.svids.len()) };
    assert_eq!(part(&svid.svid, 1)["sub"], svid.spiffe_id.as_str());
    svid.svid.clone()
}

#[tokio::test]
async fn a_token_is_signed_published_and_checked() {
    let world = World::start().await;
    let mut client = world.client().await;
    let token = token(&mut client, &["api", "spiffe://other/db"]).await;
    let (header, claims) = (part(&token, 0), part(&token, 1));
    assert_eq!((&header["alg"], &header["typ"]), (&"ES256".into(), &"JWT".into()));
    assert_eq!(header.as_object().unwrap().len(), 3, "{header}");
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
    assert_eq!(claims["aud"], serde_json::json!(["api", "spiffe://other/db"]));

    let mut bundles = client.fetch_jwt_bundles(call(JwtBundlesRequest {})).await.unwrap().into_inner();
    let bundles = next(&mut bundles).await.unwrap().bundles;
    let domain = world.server.ca().trust_domain().id().to_string();
    let keys: Value = serde_json::from_slice(&bundles[&domain]).unwrap();
    assert_eq!(keys["keys"][0]["kid"], header["kid"]);
    assert_eq!(keys["keys"][0]["use"], "jwt-svid");

    for audience in ["api", "spiffe://other/db"] {
        let valid = client.validate_jwtsvid(call(checked_by(audience, &token))).await.unwrap();
        let valid = valid.into_inner();
        assert_eq!(valid.spiffe_id, claims["sub"]);
        let told = &valid.claims.unwrap().fields["exp"].kind;
        assert_eq!(*told, Some(Kind::NumberValue(claims["exp"].as_f64().unwrap())));
    }
    world.stop().await;
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_refused_with_the_reason() {
    let (world, other) = tokio::join!(World::start(), World::start());
    let mut client = world.client().await;
    let own = token(&mut client, &["api"]).await;
    let foreign = token(&mut other.client().await, &["api"]).await;
    let changed = own.replace('.', ".A");
    for (audience, svid, why) in [
        ("web", own.as_str(), "another audience"),
        ("", own.as_str(), "audience"),
        ("api", foreign.as_str(), "none of this trust domain"),
        ("api", changed.as_str(), "svid"),
        ("api", "", "compact form"),
        ("api", "a.b.c", "svid"),
        ("api", &"a".repeat(20_000), "16384"),
    ] {
        let refused = client.validate_jwtsvid(call(checked_by(audience, svid))).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().contains(why), "{why}: {refused:?}");
    }
    // A message too large is refused before it is read.
    let huge = "a".repeat(100_000);
    let refused = client.validate_jwtsvid(call(checked_by("api", &huge))).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    world.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn what_is_asked_for_has_limits() {
    let world = World::start().await;
    let mut client = world.client().await;
    let (long, many) = ("a".repeat(1025), ["a"; 17]);
    for audience in [&[][..], &[""], &["a", ""], &[long.as_str()], &many] {
        let refused = client.fetch_jwtsvid(call(for_audience(audience))).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }
    let own = world.sidecar.agent().identity.borrow().clone().unwrap().id().to_string();
    let as_one = |id: &str| JwtsvidRequest { spiffe_id: id.to_owned(), ..for_audience(&["api"]) };
    client.fetch_jwtsvid(call(as_one(&own))).await.unwrap();
    let other = own.replace("/svc/web", "/svc/db");
    let refused = client.fetch_jwtsvid(call(as_one(&other))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_token_is_signed_once_and_never_outlives_the_sidecars_certificate() {
    let world = World::with(Duration::from_secs(60), &[]).await;
    let mut client = world.client().await;
    let first = token(&mut client, &["api"]).await;
    assert_eq!(token(&mut client, &["api"]).await, first, "the control plane is asked once");
    assert_ne!(token(&mut client, &["web"]).await, first);
    let own = world.sidecar.agent().identity.borrow().clone().unwrap().not_after();
    let end = std::time::UNIX_EPOCH + Duration::from_secs(part(&first, 1)["exp"].as_u64().unwrap());
    assert!(end <= own, "{end:?} {own:?}");
    // Without a control plane the token that is there is given, and no other can be.
    let World { server, sidecar, dir } = world;
    server.stop().await;
    assert_eq!(token(&mut client, &["api"]).await, first);
    let refused = client.fetch_jwtsvid(call(for_audience(&["new"]))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    client.validate_jwtsvid(call(checked_by("api", &first))).await.unwrap();
    sidecar.kill().await;
    drop(dir);
}
