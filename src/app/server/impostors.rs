//! Impostors at the HTTPS port, in both directions: whoever shows a certificate that is not an operator's
//! reaches no route, token or not, and whoever is not the server hears no byte of a request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::get;
use rcgen::{
    CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose as Eku, GeneralSubtree, IsCa,
    KeyPair, KeyUsagePurpose as Usage, NameConstraints, SanType,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::decoders;
use super::https::tls;
use crate::access::Access;
use crate::api::{ApiState, Listen, Server};
use crate::ca::{self, Ca};
use crate::catalog::{self, Catalog};
use crate::kv::Kv;
use crate::model::{Action, NodeName, Reason};
use crate::store::{MemoryStore, Store};
use crate::telemetry::{ServerMetrics, metrics};
use crate::tls::files::{self, ClientAuthority, KeyFiles};
use crate::tls::impostors::{CASES, World, world};
use crate::tls::testing::{
    Forge, Presented, Signer, authority, leaf_params, nameless_client, uri, valid,
};
use crate::tls::{ALPN_HTTP1, no_server_name};

const OPERATOR: &str = "0123456789abcdef0123456789abcdef";
const MINUTE: Duration = Duration::from_secs(60);

/// The operator's authority, one that looks like it, and the mesh.
struct Office {
    own: Forge,
    twin: Forge,
    world: World,
    directory: tempfile::TempDir,
}

impl Office {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let own = Forge::new("ops.example");
        Self { own, twin: Forge::new("ops.example"), world: world(), directory }
    }

    /// A certificate of the operator's, but for one change.
    fn changed(&self, change: impl FnOnce(&mut CertificateParams)) -> Presented {
        let mut params = person();
        change(&mut params);
        self.own.sign(&params)
    }

    fn below(&self, signer: &Signer) -> Presented {
        let key = KeyPair::generate().unwrap();
        let leaf = person().signed_by(&key, &signer.issuer).unwrap().der().to_vec();
        Presented { chain: vec![leaf, signer.der.clone()], key }
    }

    fn file(&self, name: &str, label: &str, ders: &[&[u8]]) -> PathBuf {
        let path = self.directory.path().join(name);
        let text: String = ders.iter().map(|der| crate::model::pem::encode(label, der)).collect();
        std::fs::write(&path, text).unwrap();
        private(&path);
        path
    }

    fn keys(&self, name: &str, presented: &Presented) -> KeyFiles {
        let chain: Vec<&[u8]> = presented.chain.iter().map(Vec::as_slice).collect();
        let key = presented.key.serialize_der();
        KeyFiles {
            certificate: self.file(&format!("{name}.pem"), "CERTIFICATE", &chain),
            key: self.file(&format!("{name}.key"), "PRIVATE KEY", &[&key]),
        }
    }
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// What a proper certificate of an operator's says; `localhost` is for the one of the server.
fn person() -> CertificateParams {
    let mut params = leaf_params("spiffe://none");
    params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
    params.distinguished_name.push(DnType::CommonName, "alice");
    params
}

type Make = fn(&Office) -> Presented;

use Reason::{CertExpired, ClockSkew, IdentityMismatch, TlsHandshake};

/// What only this port is about; the table of the mesh comes on top.
const STRANGERS: &[(&str, Reason, Make)] = &[
    ("a workload that the operator's authority has certified", IdentityMismatch, |o| {
        o.changed(|params| params.subject_alt_names = vec![uri("spiffe://ops.example/svc/db")])
    }),
    ("a workload with a name beside", IdentityMismatch, |o| {
        o.changed(|params| params.subject_alt_names.push(uri("spiffe://ops.example/svc/db")))
    }),
    ("a workload that shouts", IdentityMismatch, |o| {
        o.changed(|params| params.subject_alt_names.push(uri("SPIFFE://ops.example/svc/db")))
    }),
    ("a trust domain", IdentityMismatch, |o| {
        o.changed(|params| params.subject_alt_names = vec![uri("spiffe://ops.example")])
    }),
    ("a server's certificate", TlsHandshake, |o| {
        o.changed(|params| params.extended_key_usages = vec![Eku::ServerAuth])
    }),
    ("for another purpose", TlsHandshake, |o| {
        o.changed(|params| params.extended_key_usages = vec![Eku::CodeSigning])
    }),
    ("for any purpose", TlsHandshake, |o| o.changed(|p| p.extended_key_usages = vec![Eku::Any])),
    ("a key that may sign certificates", TlsHandshake, |o| {
        o.changed(|params| params.key_usages.push(Usage::KeyCertSign))
    }),
    ("a key that may not sign", TlsHandshake, |o| {
        o.changed(|params| params.key_usages = vec![Usage::KeyAgreement])
    }),
    ("an authority", TlsHandshake, |o| {
        o.changed(|params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0)))
    }),
    ("expired", CertExpired, |o| {
        o.own.sign(&valid(person(), SystemTime::now() - 3 * MINUTE, 2 * MINUTE))
    }),
    ("not valid yet", ClockSkew, |o| {
        o.own.sign(&valid(person(), SystemTime::now() + 3 * MINUTE, 2 * MINUTE))
    }),
    ("below an authority that has expired", CertExpired, |o| {
        let params = valid(authority(&o.own.domain, "old"), SystemTime::now() - 3 * MINUTE, 2 * MINUTE);
        o.below(&Signer::under(&o.own.root, params))
    }),
    ("a lookalike of the authority", TlsHandshake, |o| o.twin.sign(&person())),
    ("a lookalike that sends the real root along", TlsHandshake, |o| {
        let mut presented = o.twin.sign(&person());
        presented.chain.push(o.own.root.der.clone());
        presented
    }),
    ("self-signed", TlsHandshake, |_| {
        let key = KeyPair::generate().unwrap();
        let leaf = person().self_signed(&key).unwrap().der().to_vec();
        Presented { chain: vec![leaf], key }
    }),
    ("signed by an operator", TlsHandshake, |o| {
        let alice = Signer::under(&o.own.intermediate, person());
        let mut presented = o.below(&alice);
        presented.chain.push(o.own.intermediate.der.clone());
        presented
    }),
    ("below an authority of an authority that may have none", TlsHandshake, |o| {
        let second = Signer::under(&o.own.intermediate, authority(&o.own.domain, "second"));
        let mut presented = o.below(&second);
        presented.chain.push(o.own.intermediate.der.clone());
        presented
    }),
    ("below an authority for other names", TlsHandshake, |o| {
        let mut params = authority(&o.own.domain, "narrow");
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("other.example".to_owned())],
            excluded_subtrees: Vec::new(),
        });
        o.below(&Signer::under(&o.own.root, params))
    }),
    ("without its intermediate", TlsHandshake, |o| {
        let mut presented = o.changed(|_| {});
        presented.chain.truncate(1);
        presented
    }),
    ("an unknown critical extension", TlsHandshake, |o| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1, 1], vec![5, 0]);
        extension.set_criticality(true);
        o.changed(|params| params.custom_extensions.push(extension))
    }),
    ("a chain of six", TlsHandshake, |o| {
        let mut presented = o.changed(|_| {});
        presented.chain.resize(6, o.own.root.der.clone());
        presented
    }),
    ("a flipped bit in the signature", TlsHandshake, |o| {
        let mut presented = o.changed(|_| {});
        *presented.chain[0].last_mut().unwrap() ^= 1;
        presented
    }),
    ("bytes that are no certificate", TlsHandshake, |o| {
        let mut presented = o.changed(|_| {});
        presented.chain[0] = vec![0x30, 3, 1, 2, 3];
        presented
    }),
];

/// The real API behind TLS, and how often anything was reached in it.
struct Port {
    address: SocketAddr,
    reached: Arc<AtomicUsize>,
    metrics: ServerMetrics,
    stop: oneshot::Sender<()>,
}

impl Port {
    async fn open(office: &Office, clients: ClientAuthority) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let settings = catalog::Settings {
            datacenter: "dc1".to_owned(),
            node: NodeName::new("n1").unwrap(),
            node_address: "127.0.0.1".to_owned(),
            default_action: Action::Allow,
        };
        let catalog = Catalog::open(Arc::clone(&store), settings).await.unwrap();
        let settings = ca::Settings {
            datacenter: "dc1".to_owned(),
            server_id: "n1".to_owned(),
            leaf_ttl: Duration::from_secs(3600),
        };
        let ca = Ca::open(Arc::clone(&store), settings).await.unwrap();
        let kv = Kv::open(Arc::clone(&store), catalog.clone()).await.unwrap();
        let access = Access::new(store, matches!(clients, ClientAuthority::Optional(_)));
        access.set_operator(OPERATOR).unwrap();
        let mut state = ApiState::new(catalog, ca, kv, access, decoders());
        let (reached, metrics) = (Arc::<AtomicUsize>::default(), state.metrics.clone());
        let count = Arc::clone(&reached);
        state.routes = Router::new().route(
            "/metrics",
            get(move || async move {
                count.fetch_add(1, Ordering::SeqCst);
                "reached"
            }),
        );
        let config =
            files::server_config(&office.keys("server", &office.changed(|_| {})), &clients, ALPN_HTTP1);
        let config = config.unwrap();
        let place =
            Listen::Tls("127.0.0.1:0".parse().unwrap(), tls(Arc::new(move || Arc::clone(&config))));
        let server = Server::bind(&[place], state).await.unwrap();
        let address = server.local_addrs()[0].unwrap();
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(server.serve(async { drop(stopped.await) }));
        Self { address, reached, metrics, stop }
    }

    /// What comes back to a client that has the operator's token as well.
    async fn ask(&self, config: Arc<ClientConfig>) -> String {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let connected = TlsConnector::from(config).connect(no_server_name(), tcp).await;
        // With TLS 1.3 it believes that it is in until it hears otherwise.
        let Ok(mut stream) = connected else { return String::new() };
        let head = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n", self.address);
        let head = format!("{head}X-Consul-Token: {OPERATOR}\r\nConnection: close\r\n\r\n");
        let _refused = stream.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _cut = tokio::time::timeout(Duration::from_secs(20), read).await.expect("an end");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Refused handshakes, by reason.
    fn refused(&self) -> BTreeMap<String, f64> {
        let page = metrics::encode(&self.metrics.registry());
        let prefix = "weft_tls_refused_total{port=\"https\",reason=\"";
        let samples = page.lines().filter_map(|line| line.strip_prefix(prefix)?.split_once("\"} "));
        samples.map(|(reason, count)| (reason.to_owned(), count.parse().unwrap())).collect()
    }
}

#[tokio::test]
async fn no_impostor_that_calls_reaches_a_route() {
    let office = Office::new();
    let roots = office.file("clients.pem", "CERTIFICATE", &[&office.own.root.der]);
    for clients in [ClientAuthority::Required(roots.clone()), ClientAuthority::Optional(roots)] {
        let port = Port::open(&office, clients).await;
        let own = STRANGERS.iter().map(|(name, reason, make)| (*name, *reason, make(&office)));
        // To the operator's authority all of the mesh are strangers, its members, too.
        let mesh = CASES.iter().map(|case| (case.name, None, (case.make)(&office.world)));
        let own = own.map(|(name, reason, presented)| (name, Some(reason), presented));
        let all: Vec<_> = own.chain(mesh).collect();
        assert!(all.len() >= 60, "{}", all.len());
        for (name, reason, presented) in &all {
            let before = port.refused();
            assert_eq!(port.ask(presented.careless_client()).await, "", "{name}");
            soon(name, || port.refused().values().sum::<f64>() > before.values().sum()).await;
            if let Some(reason) = reason {
                let grown = port.refused().get(reason.as_str()) > before.get(reason.as_str());
                assert!(grown, "{name}: {:?} after {before:?}", port.refused());
            }
        }
        let refused: f64 = port.refused().values().sum();
        assert_eq!(refused, f64::from(u32::try_from(all.len()).unwrap()));
        assert_eq!(port.reached.load(Ordering::SeqCst), 0, "an impostor reached a route");
        assert!(!metrics::encode(&port.metrics.registry()).contains("weft_http_requests_total{"));

        // Without these nothing above would prove anything.
        let alice = port.ask(office.changed(|_| {}).careless_client()).await;
        assert!(alice.ends_with("reached"), "{alice}");
        let nobody = port.ask(nameless_client()).await;
        let with_token = matches!(nobody.split(' ').nth(1), Some("200"));
        assert_eq!(with_token, port.reached.load(Ordering::SeqCst) == 2, "{nobody}");
        port.stop.send(()).unwrap();
    }
}

async fn soon(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Who serves and is not `localhost` of the operator's.
const SERVERS: &[(&str, Make)] = &[
    ("another host", |o| {
        let other = SanType::DnsName("elsewhere.example".try_into().unwrap());
        o.changed(|params| params.subject_alt_names = vec![other])
    }),
    ("a host that ours is a suffix of", |o| {
        let other = SanType::DnsName("evil-localhost".try_into().unwrap());
        o.changed(|params| params.subject_alt_names = vec![other])
    }),
    ("the name in the subject only", |o| {
        o.changed(|params| {
            params.subject_alt_names.clear();
            params.distinguished_name.push(DnType::CommonName, "localhost");
        })
    }),
    ("the name as a URI", |o| {
        o.changed(|params| params.subject_alt_names = vec![uri("https://localhost")])
    }),
    ("a client's certificate", |o| {
        o.changed(|params| params.extended_key_usages = vec![Eku::ClientAuth])
    }),
    ("for another purpose", |o| o.changed(|params| params.extended_key_usages = vec![Eku::CodeSigning])),
    ("an authority", |o| {
        o.changed(|params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0)))
    }),
    ("expired", |o| o.own.sign(&valid(person(), SystemTime::now() - 3 * MINUTE, 2 * MINUTE))),
    ("not valid yet", |o| o.own.sign(&valid(person(), SystemTime::now() + 3 * MINUTE, 2 * MINUTE))),
    ("a lookalike of the authority", |o| o.twin.sign(&person())),
    ("self-signed", |_| {
        let key = KeyPair::generate().unwrap();
        let leaf = person().self_signed(&key).unwrap().der().to_vec();
        Presented { chain: vec![leaf], key }
    }),
    ("signed by an operator", |o| {
        let alice = Signer::under(&o.own.intermediate, person());
        let mut presented = o.below(&alice);
        presented.chain.push(o.own.intermediate.der.clone());
        presented
    }),
];

#[tokio::test]
async fn no_impostor_that_serves_hears_a_byte_of_a_request() {
    let office = Office::new();
    let roots = office.file("servers.pem", "CERTIFICATE", &[&office.own.root.der]);
    let keys = office.keys("alice", &office.changed(|_| {}));
    let client = files::client_config(&[roots], Some(&keys)).unwrap();
    let own = SERVERS.iter().map(|(name, make)| (*name, make(&office)));
    let mesh = CASES.iter().map(|case| (case.name, (case.make)(&office.world)));
    let mut tried = 0;
    for (name, presented) in own.chain(mesh) {
        assert!(!hears(&client, &presented).await, "{name} heard a byte");
        tried += 1;
    }
    assert!(tried >= 60, "{tried}");
    assert!(hears(&client, &office.changed(|_| {})).await, "the honest one");
}

/// Whether a server that presents this gets anything of what our client says.
async fn hears(client: &Arc<ClientConfig>, presented: &Presented) -> bool {
    let mut server = Arc::unwrap_or_clone(presented.careless_server());
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = TlsAcceptor::from(Arc::new(server)).accept(tcp).await else { return false };
        stream.read_u8().await.is_ok()
    });
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    if let Ok(mut stream) = TlsConnector::from(Arc::clone(client)).connect(name, tcp).await {
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let _flushed = stream.flush().await;
    }
    tokio::time::timeout(Duration::from_secs(20), heard).await.expect("an end").unwrap()
}
