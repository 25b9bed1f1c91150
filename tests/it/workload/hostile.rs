//! Callers who are not on the list, and callers who do not follow the rules.

use std::os::unix::fs::PermissionsExt;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use weft::pb::spiffe::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, X509BundlesRequest, X509svidRequest,
};

use super::*;

/// Nobody's.
const OTHER_UID: u32 = 54_321;

#[tokio::test]
async fn a_call_needs_the_header() {
    let world = World::start().await;
    let mut client = world.client().await;
    let without = client.fetch_x509svid(X509svidRequest {}).await.unwrap_err();
    assert_eq!(without.code(), Code::InvalidArgument);
    assert!(without.message().contains("workload.spiffe.io"), "{without:?}");
    let without = client.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap_err();
    assert_eq!(without.code(), Code::InvalidArgument);
    for value in ["TRUE", "1", ""] {
        let mut request = Request::new(X509svidRequest {});
        request.metadata_mut().insert("workload.spiffe.io", value.parse().unwrap());
        let refused = client.fetch_x509svid(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{value:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_user_who_is_not_on_the_list_gets_nothing() {
    // Ours is not on it.
    let world = World::with(Duration::from_secs(3600), &[OTHER_UID]).await;
    let mode = std::fs::metadata(world.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666, "the list decides, not the file system");
    let mut client = world.client().await;
    let refused = client.fetch_x509svid(call(X509svidRequest {})).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("--workload-uid"), "{refused:?}");
    let jwt = JwtsvidRequest { audience: vec!["api".to_owned()], ..JwtsvidRequest::default() };
    let check = ValidateJwtsvidRequest { audience: "api".to_owned(), svid: "a.b.c".to_owned() };
    let others = [
        client.fetch_x509_bundles(call(X509BundlesRequest {})).await.map(drop),
        client.fetch_jwtsvid(call(jwt)).await.map(drop),
        client.fetch_jwt_bundles(call(JwtBundlesRequest {})).await.map(drop),
        client.validate_jwtsvid(call(check)).await.map(drop),
    ];
    for refused in others {
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    }
    // Nor can it hold more than a few connections.
    let mut held = Vec::new();
    for _ in 0..weft::workload::limits::MAX_STRANGERS {
        held.push(UnixStream::connect(world.socket()).await.unwrap());
    }
    let mut last = UnixStream::connect(world.socket()).await.unwrap();
    let ended = tokio::time::timeout(DEADLINE, last.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    world.stop().await;
}

/// Sends bytes and reads until the end.
async fn raw(world: &World, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(world.socket()).await.unwrap();
    // It may have had enough before it read all.
    let _cut = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
    let _reset = read.expect("the connection is not ended");
    answer
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let world = World::start().await;
    let mut client = world.client().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert_eq!(raw(&world, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await, b"");
    assert_eq!(raw(&world, &[0xff; 4096]).await, b"");
    assert_eq!(raw(&world, &[0x16, 0x03, 0x01].repeat(100)).await, b"", "a TLS client");
    // HTTP/2, and then nonsense: a frame too long, header fields that are none, a huge header list.
    let frames: [&[u8]; 3] = [
        &[0xff, 0xff, 0xff, 1, 4, 0, 0, 0, 1, 0xde, 0xad],
        &[0, 0, 4, 1, 4, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
        &[0, 0, 0, 9, 4, 0, 0, 0, 1],
    ];
    for frame in frames {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let answer = raw(&world, &[preface, &settings[..], frame].concat()).await;
        assert!(!answer.is_empty(), "it says why: {frame:x?}");
    }
    let answered = client.fetch_x509svid(call(X509svidRequest {})).await;
    assert!(answered.is_ok(), "{answered:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_huge_header_is_refused() {
    let world = World::start().await;
    let mut client = world.client().await;
    let mut request = call(X509svidRequest {});
    request.metadata_mut().insert("x-filler", "x".repeat(20_000).parse().unwrap());
    // The answer is one of HTTP, 431, before any of gRPC.
    let told = match client.fetch_x509svid(request).await {
        Ok(answer) => next(&mut answer.into_inner()).await.map(drop),
        Err(status) => Err(status),
    };
    assert!(told.is_err(), "{told:?}");
    let answered = world.client().await.fetch_x509svid(call(X509svidRequest {})).await;
    assert!(answered.is_ok(), "{answered:?}");
    world.stop().await;
}
