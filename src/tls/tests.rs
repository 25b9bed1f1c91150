//! Handshakes between honest peers, what they negotiate, and what they refuse.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use rustls::client::Resumption;
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::testing::{Forge, Pair, Presented, handshake, leaf_params, nameless_client, valid};
use super::*;
use crate::model::{Reason, ServiceName};

const HOUR: Duration = Duration::from_secs(3600);

fn mesh() -> Forge {
    Forge::new("9f3c01d2.consul")
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

fn grpc(presented: Presented, forge: &Forge) -> Arc<ServerConfig> {
    let key = presented.key.serialize_der();
    let bans = BanList::default();
    grpc_server_config(presented.chain, &key, &forge.bundle(), &bans, SystemTime::now()).unwrap()
}

fn refused_by_client(pair: &Pair) -> Rejection {
    let error = pair.client_error.as_ref().expect("the client accepted");
    rejection_of(error).unwrap_or_else(|| panic!("{error}")).clone()
}

#[test]
fn peers_negotiate_the_hybrid_group_and_tls_13() {
    let mesh = mesh();
    let (web, db) = (mesh.identity("web"), mesh.identity("db"));
    let pair = handshake(&web.client_config(&name("db")).unwrap(), &db.server_config());
    assert!(pair.completed(), "{:?} {:?}", pair.client_error, pair.server_error);
    let group = pair.server.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    assert_eq!(pair.server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(pair.server.alpn_protocol(), Some(ALPN_LANE));
    assert_eq!(pair.server.server_name(), None);
    let seen = peer(pair.server.peer_certificates()).unwrap();
    assert_eq!((&seen.id, &*seen.serial, seen.not_after), (web.id(), web.serial(), web.not_after()));
    assert_eq!(peer(None), Err(TlsError::Anonymous));
    let suite = pair.client.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[tokio::test]
async fn bytes_pass_over_sockets_in_both_directions() {
    let mesh = mesh();
    let (web, db) = (mesh.identity("web"), mesh.identity("db"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = TlsAcceptor::from(db.server_config()).accept(stream).await.unwrap();
        let mut question = [0; 4];
        stream.read_exact(&mut question).await.unwrap();
        stream.write_all(b"pong").await.unwrap();
        stream.shutdown().await.unwrap();
        question
    };
    let client = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(web.client_config(&name("db")).unwrap());
        let mut stream = connector.connect(no_server_name(), stream).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let (question, answer) = tokio::join!(server, client);
    assert_eq!((&question, answer.as_slice()), (b"ping", b"pong".as_slice()));
}

#[tokio::test]
async fn a_failed_handshake_on_a_socket_has_its_reason() {
    let mesh = mesh();
    let (web, db) = (mesh.identity("web"), mesh.identity("db"));
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = tokio::spawn(TlsAcceptor::from(db.server_config()).accept(far).into_fallible());
    let connector = TlsConnector::from(web.client_config(&name("cache")).unwrap());
    let error = connector.connect(no_server_name(), near).await.unwrap_err();
    assert_eq!(reason_of_io(&error), Reason::IdentityMismatch);
    let (error, _stream) = server.await.unwrap().err().unwrap();
    assert_eq!(reason_of_io(&error), Reason::TlsHandshake);
}

#[test]
fn a_client_without_a_certificate_is_turned_away_by_proxies() {
    let pair = handshake(&nameless_client(), &mesh().identity("db").server_config());
    assert!(pair.server.is_handshaking());
    assert_eq!(pair.server_error, Some(rustls::Error::NoCertificatesPresented));
}

#[test]
fn a_certificate_used_with_another_key_is_refused() {
    let mesh = mesh();
    let mut stolen = mesh.sign(&mesh.params("db"));
    stolen.key = KeyPair::generate().unwrap();
    let server = stolen.careless_server();
    let pair = handshake(&mesh.identity("web").client_config(&name("db")).unwrap(), &server);
    assert!(pair.client.is_handshaking() && pair.client_error.is_some());
    let pair = handshake(&stolen.careless_client(), &mesh.identity("web").server_config());
    assert!(pair.server.is_handshaking() && pair.server_error.is_some());
}

#[test]
fn certificates_that_expire_while_loaded_are_refused() {
    let mesh = mesh();
    let short = valid(mesh.params("db"), SystemTime::now() - HOUR / 2, HOUR / 4);
    let loaded_in_time = SystemTime::now() - HOUR / 3;
    let expired = mesh.sign(&short).identity(&mesh.bundle(), loaded_in_time).unwrap();
    let web = mesh.identity("web");
    let pair = handshake(&web.client_config(&name("db")).unwrap(), &expired.server_config());
    assert!(matches!(refused_by_client(&pair), Rejection::Expired { seconds_ago: 800..=1000 }));
    let pair = handshake(&expired.client_config(&name("web")).unwrap(), &web.server_config());
    assert_eq!(reason_of(&pair.server_error.unwrap()), Reason::CertExpired);
}

#[test]
fn no_session_is_ever_resumed() {
    let mesh = mesh();
    for server in [mesh.identity("db").server_config(), grpc(mesh.server(), &mesh)] {
        // Either of these alone would do; one must not hide the loss of the other.
        assert_eq!(server.send_tls13_tickets, 0);
        assert!(!server.session_storage.can_cache());
        assert_eq!(server.max_early_data_size, 0);
        let mut client = Arc::unwrap_or_clone(mesh.sign(&mesh.params("web")).careless_client());
        client.resumption = Resumption::in_memory_sessions(8);
        let client = Arc::new(client);
        for _ in 0..2 {
            let pair = handshake(&client, &server);
            assert!(pair.completed());
            assert_eq!(pair.client.tls13_tickets_received(), 0);
            assert_eq!(pair.server.handshake_kind(), Some(HandshakeKind::Full));
        }
    }
    let client = mesh.identity("web").client_config(&name("db")).unwrap();
    assert!(!client.enable_early_data && !client.enable_sni);
}

#[test]
fn our_clients_do_not_resume_with_servers_that_would() {
    let mesh = mesh();
    let mut server = Arc::unwrap_or_clone(mesh.sign(&mesh.params("db")).careless_server());
    server.alpn_protocols = vec![ALPN_LANE.to_vec()];
    let server = Arc::new(server);
    let client = mesh.identity("web").client_config(&name("db")).unwrap();
    for _ in 0..2 {
        let pair = handshake(&client, &server);
        assert!(pair.completed());
        assert!(pair.client.tls13_tickets_received() > 0, "the server offered none");
        assert_eq!(pair.server.handshake_kind(), Some(HandshakeKind::Full));
    }
}

fn short(bytes: &[u8]) -> u8 {
    u8::try_from(bytes.len()).unwrap()
}

/// A `ClientHello` of TLS 1.2, as an old client sends it: no `supported_versions`.
fn old_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]); // random
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]); // session, suites, compression
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3];
    body.extend([0, short(&extensions)]);
    body.extend(extensions);
    let mut message = vec![1, 0, 0, short(&body)];
    message.extend(body);
    let mut record = vec![22, 3, 1, 0, short(&message)];
    record.extend(message);
    record
}

#[test]
fn tls_12_is_refused() {
    let mesh = mesh();
    for config in [mesh.identity("db").server_config(), grpc(mesh.server(), &mesh)] {
        let mut server = ServerConnection::new(config).unwrap();
        server.read_tls(&mut old_hello().as_slice()).unwrap();
        let error = server.process_new_packets().unwrap_err();
        let versions = rustls::PeerIncompatible::SupportedVersionsExtensionRequired;
        assert_eq!(error, rustls::Error::PeerIncompatible(versions));
    }
}

#[test]
fn the_grpc_port_takes_members_and_the_nameless_but_no_strangers() {
    let mesh = mesh();
    let server = grpc(mesh.server(), &mesh);
    let web = mesh.identity("web");
    let pair = handshake(&web.control_config(), &server);
    assert!(pair.completed(), "{:?}", pair.client_error);
    assert_eq!(peer_id(pair.server.peer_certificates()).unwrap(), *web.id());
    assert_eq!(pair.client.alpn_protocol(), Some(ALPN_H2));

    let pair = handshake(&bootstrap_config(None), &server);
    assert!(pair.completed(), "{:?}", pair.client_error);
    assert_eq!(peer_id(pair.server.peer_certificates()), Err(TlsError::Anonymous));

    let twin = Forge::new("9f3c01d2.consul");
    let pair = handshake(&twin.sign(&twin.params("web")).careless_client(), &server);
    let error = pair.server_error.expect("a stranger was accepted");
    assert!(matches!(rejection_of(&error), Some(Rejection::Untrusted(_))), "{error}");

    let pair = handshake(&web.client_config(&name("db")).unwrap(), &server);
    assert!(matches!(pair.server_error, Some(rustls::Error::NoApplicationProtocol)));
}

#[test]
fn a_service_does_not_pass_for_a_server() {
    let mesh = mesh();
    let service = grpc(mesh.sign(&mesh.params("db")), &mesh);
    let pair = handshake(&mesh.identity("web").control_config(), &service);
    assert_eq!(refused_by_client(&pair), Rejection::NotServer(mesh.service_id("db")));
}

#[test]
fn an_identity_says_what_does_not_fit() {
    let (mesh, twin) = (mesh(), Forge::new("9f3c01d2.consul"));
    let now = SystemTime::now();
    let load = |presented: Presented, bundle: &Bundle, now| presented.identity(bundle, now).unwrap_err();
    let good = || mesh.sign(&mesh.params("db"));
    let bundle = mesh.bundle();

    let mut other_key = good();
    other_key.key = KeyPair::generate().unwrap();
    assert_eq!(load(other_key, &bundle, now), TlsError::KeyMismatch);
    let mut empty = good();
    empty.chain.clear();
    assert_eq!(load(empty, &bundle, now), TlsError::NoCertificate);
    assert_eq!(Identity::new(1, good().chain, b"junk", &bundle, now).unwrap_err(), TlsError::Key);
    assert!(matches!(load(good(), &twin.bundle(), now), TlsError::Own(Rejection::Untrusted(_))));
    let late = load(good(), &bundle, now + 2 * HOUR);
    assert!(matches!(late, TlsError::Own(Rejection::Expired { .. })), "{late}");
    let early = load(good(), &bundle, now - HOUR - HOUR / 2);
    assert!(matches!(early, TlsError::Own(Rejection::NotYetValid { .. })), "{early}");
    let foreign = mesh.sign(&leaf_params("spiffe://other/ns/default/dc/dc1/svc/db"));
    assert!(matches!(load(foreign, &bundle, now), TlsError::Own(Rejection::ForeignDomain { .. })));
    assert!(matches!(load(mesh.server(), &bundle, now), TlsError::NotService(_)));

    let no_roots = Bundle { roots: Vec::new(), ..bundle.clone() };
    assert!(matches!(load(good(), &no_roots, now), TlsError::Roots { roots: 0, .. }));
    let bad_root = Bundle { roots: vec![Arc::from(b"junk".as_slice())], ..bundle };
    assert!(matches!(load(good(), &bad_root, now), TlsError::Root { index: 0, .. }));
}

#[test]
fn settings_are_cached_per_service_whatever_its_spelling() {
    let web = mesh().identity("web");
    let first = web.client_config(&name("db")).unwrap();
    assert!(Arc::ptr_eq(&first, &web.client_config(&name("DB")).unwrap()));
    assert!(!Arc::ptr_eq(&first, &web.client_config(&name("cache")).unwrap()));
    assert!(matches!(web.client_config(&name("da\u{df}")), Err(TlsError::Service { .. })));
}

#[test]
fn old_and_new_roots_are_both_trusted_while_both_are_in_the_bundle() {
    let (old, new) = (mesh(), Forge::new("9f3c01d2.consul"));
    let mut both = old.bundle();
    both.roots.extend(new.bundle().roots);
    let now = SystemTime::now();
    let web = old.sign(&old.params("web")).identity(&both, now).unwrap();
    let db = new.sign(&new.params("db")).identity(&both, now).unwrap();
    assert!(handshake(&web.client_config(&name("db")).unwrap(), &db.server_config()).completed());
    let strict = new.sign(&new.params("db")).identity(&new.bundle(), now).unwrap();
    assert!(!handshake(&web.client_config(&name("db")).unwrap(), &strict.server_config()).completed());
}

#[test]
fn debug_output_has_no_key() {
    let mesh = mesh();
    let presented = mesh.sign(&mesh.params("db"));
    let secret = format!("{:?}", &presented.key.serialized_der()[36..44]);
    let inner = secret.trim_matches(['[', ']']).to_owned();
    let text = format!("{:?}", presented.identity(&mesh.bundle(), SystemTime::now()).unwrap());
    assert!(text.contains("svc/db") && !text.contains(&inner));
    let request = KeyRequest::generate().unwrap();
    assert_eq!(format!("{request:?}"), "KeyRequest { .. }");
}
