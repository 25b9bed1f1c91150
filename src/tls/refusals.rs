//! More about impostors: the gRPC port's settings, what a refused peer learns, clocks, certificates that
//! our own library would not make, and proof that a weaker verifier does not pass these tests.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, DistinguishedName, NamedGroup, ServerConfig,
    SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};

use super::impostors::{CASES, Want, World, world};
use super::provider::{SIGNATURES, VERSIONS, provider};
use super::settings;
use super::testing::{Forge, Presented, handshake, valid};
use super::verify::{Expected, Role, Trust, unix_time};
use super::{ALPN_LANE, BanList, Rejection, bootstrap_config, grpc_server_config, leaf, reason_of};
use crate::model::ban::Subject;
use crate::model::{Bans, Bundle, Reason, ServiceName};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// The settings of the gRPC port.
fn grpc(world: &World) -> Arc<ServerConfig> {
    let Presented { chain, key } = world.mesh.server();
    let (bundle, now) = (world.mesh.bundle(), SystemTime::now());
    grpc_server_config(chain, &key.serialize_der(), &bundle, &BanList::default(), now).unwrap()
}

/// Which impostors a server lets in that dial it.
fn let_in(server: &Arc<ServerConfig>, world: &World) -> Vec<&'static str> {
    let refused = CASES.iter().filter(|case| matches!(case.dialling, Want::Refused(_)));
    let passed = refused.filter(|case| {
        let mut client = Arc::unwrap_or_clone((case.make)(world).careless_client());
        client.alpn_protocols.clone_from(&server.alpn_protocols);
        let pair = handshake(&Arc::new(client), server);
        // With a key that nobody asked for, a client may come without a certificate.
        pair.completed() && pair.server.peer_certificates().is_some()
    });
    passed.map(|case| case.name).collect()
}

/// A verifier that looks at chains only, as an ordinary TLS server does.
#[derive(Debug)]
struct ChainOnly(Bundle);

impl ClientCertVerifier for ChainOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let root = CertificateDer::from(self.0.roots[0].as_ref());
        let anchors = [webpki::anchor_from_trusted_cert(&root).unwrap()];
        let verified = EndEntityCert::try_from(end_entity).and_then(|leaf| {
            let (algorithms, usage) = (SIGNATURES.all, KeyUsage::client_auth());
            leaf.verify_for_usage(algorithms, &anchors, others, now, usage, None, None).map(drop)
        });
        verified.map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}

#[test]
fn the_matrix_fails_with_a_verifier_of_chains_only() {
    let world = world();
    assert!(CASES.len() >= 60, "{}", CASES.len());
    assert_eq!(let_in(&world.mesh.identity("db").server_config(), &world), [""; 0]);
    let chain_only = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&VERSIONS)
        .unwrap()
        .with_client_cert_verifier(Arc::new(ChainOnly(world.mesh.bundle())));
    let Presented { chain, key } = world.mesh.sign(&world.mesh.params("db"));
    let key = settings::certified_key(chain, &key.serialize_der()).unwrap();
    let resolver = rustls::sign::SingleCertAndKey::from(key);
    let mut chain_only = chain_only.with_cert_resolver(Arc::new(resolver));
    chain_only.alpn_protocols = vec![ALPN_LANE.to_vec()];
    let fooled = let_in(&Arc::new(chain_only), &world);
    assert!(fooled.len() >= 25, "{fooled:?}");
    for name in ["a member of another mesh", "self-signed", "expired"] {
        assert!(!fooled.contains(&name), "a chain tells {name}");
    }
    for name in ["two URI names, ours last", "a server instead of a service", "without key usage"] {
        assert!(fooled.contains(&name), "a chain does not tell {name}");
    }
}

/// Members that are no services shake hands with the control plane, which then allows them nothing.
#[test]
fn the_grpc_port_lets_in_members_only() {
    let world = world();
    let members = ["a server instead of a service", "another namespace", "a longer path"];
    assert_eq!(let_in(&grpc(&world), &world), members);
}

#[test]
fn a_refused_peer_does_not_learn_why() {
    let world = world();
    let mut alerts = BTreeSet::new();
    for server in [world.mesh.identity("db").server_config(), grpc(&world)] {
        for case in CASES {
            let mut client = Arc::unwrap_or_clone((case.make)(&world).careless_client());
            client.alpn_protocols.clone_from(&server.alpn_protocols);
            let pair = handshake(&Arc::new(client), &server);
            if pair.server_error.is_none() {
                continue;
            }
            match pair.client_error {
                Some(rustls::Error::AlertReceived(alert)) => {
                    alerts.insert(format!("{alert:?}"));
                }
                other => panic!("{}: {other:?}", case.name),
            }
        }
    }
    // Not `certificate_expired`, `unknown_ca` or `bad_certificate`, which tell how far one got. The second
    // is for those who found by themselves that their key is none that we take, and showed nothing.
    let silent = [AlertDescription::CertificateUnknown, AlertDescription::CertificateRequired];
    let silent = silent.map(|alert| format!("{alert:?}"));
    assert_eq!(alerts, BTreeSet::from(silent));
}

#[test]
fn the_hybrid_group_is_chosen_on_the_grpc_port_too() {
    let world = world();
    let server = grpc(&world);
    for client in [world.mesh.identity("web").control_config(), bootstrap_config(None)] {
        let pair = handshake(&client, &server);
        assert!(pair.completed(), "{:?}", pair.client_error);
        let group = pair.client.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, NamedGroup::X25519MLKEM768);
    }
}

#[test]
fn a_ban_counts_from_the_next_handshake_in_both_directions() {
    let mesh = Forge::new("9f3c01d2.consul");
    let (bans, now) = (BanList::default(), SystemTime::now());
    let guarded = |service: &str| {
        let Presented { chain, key } = mesh.sign(&mesh.params(service));
        let (key, bundle) = (key.serialize_der(), mesh.bundle());
        super::Identity::guarded(1, chain, &key, &bundle, &bans, now).unwrap()
    };
    let (web, db) = (guarded("web"), guarded("db"));
    let client = web.client_config(&ServiceName::new("db").unwrap()).unwrap();
    assert!(handshake(&client, &db.server_config()).completed());
    for (banned, by_client) in [(&db, true), (&web, false)] {
        let mut list = Bans::default();
        list.insert(Subject::serial(banned.serial()).unwrap());
        bans.replace(Arc::new(list));
        let pair = handshake(&client, &db.server_config());
        let error = if by_client { pair.client_error } else { pair.server_error };
        assert_eq!(reason_of(&error.expect("a banned peer passed")), Reason::Denied);
        // One's own ban is for others to say.
        let Presented { chain, key } = mesh.sign(&mesh.params("web"));
        let (key, bundle) = (key.serialize_der(), mesh.bundle());
        super::Identity::guarded(1, chain, &key, &bundle, &bans, now).unwrap();
    }
    bans.replace(Arc::default());
    assert!(handshake(&client, &db.server_config()).completed());
}

/// The library that verifies chains refuses these, too; what we read ourselves does not rest on it.
#[test]
fn a_leaf_is_read_strictly_whoever_looked_at_it_before() {
    let world = world();
    let made = |name: &str| {
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        CertificateDer::from((case.make)(&world).chain.remove(0))
    };
    let read = |name: &str, role| leaf::read(&made(name), &[role]).map(drop);
    let authority = "an authority's certificate as leaf";
    assert_eq!(read(authority, Role::Server), Err(Rejection::Authority));
    assert_eq!(read("for clients only", Role::Server), Err(Rejection::ExtendedKeyUsage));
    assert_eq!(read("for servers only, dialling", Role::Client), Err(Rejection::ExtendedKeyUsage));
    assert_eq!(leaf::read(&made("for clients only"), &[Role::Client]).map(drop), Ok(()));
    assert_eq!(read("a byte after the leaf", Role::Client), Err(Rejection::Malformed));
    assert_eq!(read("a P-521 key", Role::Client), Err(Rejection::KeyType));
    let both = leaf::read(&made("for clients only"), &[Role::Client, Role::Server]);
    assert_eq!(both.map(drop), Err(Rejection::ExtendedKeyUsage));
}

/// A certificate that was just made, by a clock that differs from the maker's.
#[test]
fn clocks_by_table() {
    let mesh = Forge::new("9f3c01d2.consul");
    let now = SystemTime::now();
    // As `ca` makes them: valid from five minutes ago.
    let made = mesh.sign(&valid(mesh.params("db"), now - 5 * MINUTE, 72 * HOUR + 5 * MINUTE));
    let trust = Trust::new(&mesh.bundle(), &BanList::default()).unwrap();
    let chain: Vec<CertificateDer<'_>> = made.chain.into_iter().map(Into::into).collect();
    let verify = |at| {
        let verified =
            trust.verify(&chain[0], &chain[1..], Role::Server, &Expected::AnyService, unix_time(at));
        verified.map_err(|rejection| rejection.reason())
    };
    for (offset_minutes, want) in [
        (0, Ok(())),
        (-5, Ok(())),
        (5, Ok(())),
        (-6, Err(Reason::ClockSkew)),
        (-60, Err(Reason::ClockSkew)),
        (60, Ok(())),
        (10 * 60, Err(Reason::CertExpired)), // the intermediate of these tests
    ] {
        let at = match u32::try_from(offset_minutes) {
            Ok(ahead) => now + MINUTE * ahead,
            Err(_) => now - MINUTE * i32::unsigned_abs(offset_minutes) + Duration::from_secs(1),
        };
        assert_eq!(verify(at).map(drop), want, "{offset_minutes} min");
    }
}

/// Runs OpenSSL; `None` when it is not there or knows no such key or digest.
fn openssl(dir: &Path, line: &str) -> Option<()> {
    let mut command = Command::new("openssl");
    let ran = command.current_dir(dir).args(line.split_whitespace()).output().ok()?;
    ran.status.success().then_some(())
}

/// A leaf of `db` with this key and digest under a root of its own, and that root.
fn made_by_openssl(key: &str, digest: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    let (id, domain) = ("spiffe://9f3c01d2.consul/ns/default/dc/dc1/svc/db", "spiffe://9f3c01d2.consul");
    let extensions = format!(
        "subjectAltName=critical,URI:{id}\nkeyUsage=critical,digitalSignature\n\
         extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=critical,CA:FALSE\n"
    );
    std::fs::write(dir.path().join("leaf.ext"), extensions).unwrap();
    let run = |line: &str| openssl(dir.path(), line);
    run("ecparam -name prime256v1 -genkey -noout -out root.key")?;
    run(&format!(
        "req -x509 -new -key root.key -subj /CN=root -addext subjectAltName=URI:{domain} -days 1 -out root.pem"
    ))?;
    run("x509 -in root.pem -outform DER -out root.der")?;
    run(&format!("genpkey {key} -out leaf.key"))?;
    run("req -new -key leaf.key -subj /CN=x -out leaf.csr")?;
    run(&format!(
        "x509 -req -in leaf.csr -CA root.pem -CAkey root.key -{digest} -extfile leaf.ext -days 1 -CAcreateserial -outform DER -out leaf.der"
    ))?;
    let read = |name: &str| std::fs::read(dir.path().join(name)).ok();
    Some((read("leaf.der")?, read("root.der")?))
}

#[test]
fn weak_keys_and_digests_are_refused_even_from_our_own_root() {
    let p256 = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
    let Some((leaf, root)) = made_by_openssl(p256, "sha256") else {
        println!("left out without OpenSSL: certificates with weak keys and digests");
        return;
    };
    let verify = |leaf: Vec<u8>, root: Vec<u8>| {
        let roots = vec![Arc::from(root.as_slice())];
        let trust_domain = crate::model::TrustDomain::new("9f3c01d2.consul").unwrap();
        let bundle = Bundle { trust_domain, version: 1, roots };
        let trust = Trust::new(&bundle, &BanList::default()).unwrap();
        let leaf = CertificateDer::from(leaf);
        trust.verify(&leaf, &[], Role::Client, &Expected::AnyService, UnixTime::now())
    };
    verify(leaf, root).expect("the same with a good key and digest passes");
    let mut tried = 0;
    for (key, digest) in [
        (p256, "sha1"),
        (p256, "md5"),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-224", "sha256"),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1", "sha256"),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-521", "sha256"),
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:1024", "sha256"),
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:2048", "sha256"),
        ("-algorithm ED448", "sha256"),
    ] {
        let Some((leaf, root)) = made_by_openssl(key, digest) else { continue };
        let refused = verify(leaf, root).expect_err(key);
        assert_eq!(refused.reason(), Reason::TlsHandshake, "{key} {digest}: {refused}");
        tried += 1;
    }
    assert!(tried >= 5, "OpenSSL made only {tried} of them");
}

/// Nothing about a client's wishes gets it a ticket.
#[test]
fn a_thousand_handshakes_yield_no_ticket() {
    let mesh = Forge::new("9f3c01d2.consul");
    let server = mesh.identity("db").server_config();
    let mut client: ClientConfig = (*mesh.sign(&mesh.params("web")).careless_client()).clone();
    client.resumption = rustls::client::Resumption::in_memory_sessions(64);
    let client = Arc::new(client);
    for _ in 0..if cfg!(debug_assertions) { 100 } else { 1000 } {
        let pair = handshake(&client, &server);
        assert!(pair.completed());
        assert_eq!(pair.client.tls13_tickets_received(), 0);
    }
}
