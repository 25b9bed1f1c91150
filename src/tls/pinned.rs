//! What a sidecar that has nothing but a token takes for the control plane: exactly who has the pinned
//! key, be it that of a root or that of an intermediate of an external authority.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;

use super::testing::{self, Forge, Presented, Signer, authority, handshake, valid};
use super::{ALPN_H2, Rejection, bootstrap_config, rejection_of};
use crate::model::hex;

const MINUTE: Duration = Duration::from_secs(60);

fn mesh() -> Forge {
    Forge::new("9f3c01d2.consul")
}

/// The pin of an authority, computed from its certificate by another path than the one under test.
fn pin(signer: &Signer) -> String {
    let der = CertificateDer::from(signer.der.clone());
    let anchor = webpki::anchor_from_trusted_cert(&der).unwrap();
    let spki = webpki::spki_for_anchor(&anchor);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &spki);
    hex::encode(hash.as_ref())
}

/// What comes of a client with this pin that calls whoever presents this.
fn call(pin: Option<&str>, presented: &Presented) -> Result<(), Rejection> {
    let mut server = Arc::unwrap_or_clone(presented.careless_server());
    server.alpn_protocols = vec![ALPN_H2.to_vec()];
    let pair = handshake(&bootstrap_config(pin), &Arc::new(server));
    match &pair.client_error {
        None => {
            assert!(pair.completed());
            Ok(())
        }
        Some(error) => Err(rejection_of(error).unwrap_or_else(|| panic!("{error}")).clone()),
    }
}

#[test]
fn enrolment_accepts_exactly_the_pinned_root() {
    let (mesh, twin) = (mesh(), mesh());
    let pin = pin(&mesh.root);
    let call = |presented: &Presented| call(Some(&pin), presented);
    assert_eq!(call(&mesh.server()), Ok(()));
    assert_eq!(call(&twin.server()), Err(Rejection::Pin));

    let mut without_root = mesh.server();
    without_root.chain.pop();
    assert_eq!(call(&without_root), Err(Rejection::Pin));

    let mut real_root_on_a_foreign_chain = twin.server();
    real_root_on_a_foreign_chain.chain[2] = mesh.root.der.clone();
    assert!(matches!(call(&real_root_on_a_foreign_chain), Err(Rejection::Untrusted(_))));

    let mut service = mesh.sign(&mesh.params("db"));
    service.chain.push(mesh.root.der.clone());
    assert_eq!(call(&service), Err(Rejection::NotServer(mesh.service_id("db"))));
}

/// The public key is no secret: an attacker certifies it under another trust domain.
#[test]
fn the_pinned_key_in_a_certificate_of_someone_else_vouches_for_nobody() {
    let (mesh, evil) = (mesh(), Forge::new("evil.consul"));
    let (params, elsewhere) = (authority(&evil.domain, "root"), Forge::new("elsewhere.consul"));
    let wrapped = params.signed_by(mesh.root.issuer.key(), &elsewhere.root.issuer).unwrap();
    let wrapped = wrapped.der().to_vec();
    let mut theirs = evil.server();
    theirs.chain[2].clone_from(&wrapped);
    assert!(matches!(call(Some(&pin(&mesh.root)), &theirs), Err(Rejection::Untrusted(_))));
    // One that claims to be a root has to have signed itself.
    let claimed = params.signed_by(mesh.root.issuer.key(), &evil.root.issuer).unwrap();
    theirs.chain[2] = claimed.der().to_vec();
    assert_eq!(call(Some(&pin(&mesh.root)), &theirs), Err(Rejection::Root));
    // Nor does it change whose our own server is.
    let mut ours = mesh.server();
    ours.chain[2] = wrapped;
    assert!(call(Some(&pin(&mesh.root)), &ours).is_err());
    assert!(call(None, &ours).is_err());
}

#[test]
fn a_presented_root_that_names_a_workload_is_none() {
    let mesh = mesh();
    let mut params = authority(&mesh.domain, "root");
    params.subject_alt_names = vec![testing::uri("spiffe://9f3c01d2.consul/a/path")];
    let root = params.self_signed(mesh.root.issuer.key()).unwrap();
    let mut presented = mesh.server();
    presented.chain[2] = root.der().to_vec();
    for pin in [Some(pin(&mesh.root)), None] {
        assert_eq!(call(pin.as_deref(), &presented), Err(Rejection::Root));
    }
}

#[test]
fn a_root_that_is_not_valid_now_is_refused_although_chains_would_do() {
    let mesh = mesh();
    let now = SystemTime::now();
    for (from, reason) in [(now - 3 * MINUTE, "cert_expired"), (now + 3 * MINUTE, "clock_skew")] {
        let params = valid(authority(&mesh.domain, "root"), from, 2 * MINUTE);
        let mut presented = mesh.server();
        presented.chain[2] = params.self_signed(mesh.root.issuer.key()).unwrap().der().to_vec();
        for pin in [Some(pin(&mesh.root)), None] {
            let refused = call(pin.as_deref(), &presented).unwrap_err();
            assert_eq!(refused.reason().as_str(), reason, "{refused}");
        }
    }
}

/// A mesh below an external authority, which serves other meshes, too.
struct External {
    corporate: Signer,
    mesh: Forge,
}

impl External {
    fn new() -> Self {
        let mut mesh = mesh();
        let mut params = authority(&mesh.domain, "root");
        params.subject_alt_names.clear();
        let corporate = Signer::root(params);
        mesh.intermediate = Signer::under(&corporate, authority(&mesh.domain, "intermediate"));
        Self { corporate, mesh }
    }

    fn pin(&self) -> String {
        pin(&self.mesh.intermediate)
    }

    /// A server's leaf, the intermediate and the certificate above it.
    fn server(&self) -> Presented {
        self.presented(self.mesh.sign(&self.mesh.server_params()))
    }

    fn presented(&self, mut presented: Presented) -> Presented {
        presented.chain.push(self.corporate.der.clone());
        presented
    }

    /// The server with another certificate for the key of its intermediate.
    fn recertified(&self, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Presented {
        let mut params = authority(&self.mesh.domain, "intermediate");
        change(&mut params);
        let key = self.mesh.intermediate.issuer.key();
        let mut presented = self.server();
        presented.chain[1] = params.signed_by(key, &self.corporate.issuer).unwrap().der().to_vec();
        presented
    }

    /// A server of `domain` below the same authority.
    fn neighbour(&self, domain: &str) -> Presented {
        let mut neighbour = Forge::new(domain);
        neighbour.intermediate =
            Signer::under(&self.corporate, authority(&neighbour.domain, "intermediate"));
        self.presented(neighbour.sign(&neighbour.server_params()))
    }
}

#[test]
fn below_an_external_root_the_pinned_intermediate_counts() {
    let external = External::new();
    assert_eq!(call(Some(&external.pin()), &external.server()), Ok(()));
    // Whether the certificate above it is sent along or not.
    let mut short = external.server();
    short.chain.truncate(2);
    assert_eq!(call(Some(&external.pin()), &short), Ok(()));
}

#[test]
fn without_a_pin_an_external_root_says_nothing() {
    let external = External::new();
    assert!(call(None, &external.server()).is_err());
    let mut short = external.server();
    short.chain.truncate(2);
    assert_eq!(call(None, &short), Err(Rejection::Root));
}

/// What it is, the word for the refusal, and what it shows.
type Case = (&'static str, &'static str, Presented);

/// Servers of other meshes.
fn strangers(external: &External) -> Vec<Case> {
    let mesh = &external.mesh;
    vec![
        ("a mesh of another name below the same authority", "pin", external.neighbour("other.consul")),
        ("one of the same name below the same authority", "pin", external.neighbour("9f3c01d2.consul")),
        ("a lookalike of everything", "pin", External::new().server()),
        ("a lookalike that sends our intermediate along", "untrusted", {
            let mut twin = External::new().server();
            twin.chain.push(mesh.intermediate.der.clone());
            twin
        }),
        ("a lookalike in the place of our intermediate", "untrusted", {
            let mut twin = External::new().server();
            twin.chain[1].clone_from(&mesh.intermediate.der);
            twin
        }),
        ("a neighbour that sends our intermediate along", "untrusted", {
            let mut neighbour = external.neighbour("9f3c01d2.consul");
            neighbour.chain.push(mesh.intermediate.der.clone());
            neighbour
        }),
    ]
}

/// Our own key under certificates that make no intermediate of this mesh.
fn intermediates(external: &External) -> Vec<Case> {
    let (mesh, now) = (&external.mesh, SystemTime::now());
    let other = Forge::new("other.consul");
    vec![
        ("the intermediate for another domain", "foreign", {
            external.recertified(|p| p.subject_alt_names = vec![testing::uri("spiffe://other.consul")])
        }),
        ("the intermediate and a leaf for another domain", "untrusted", {
            let mut presented = other.server();
            presented.chain[1] = external
                .recertified(|p| p.subject_alt_names = vec![testing::uri("spiffe://other.consul")])
                .chain[1]
                .clone();
            presented
        }),
        ("the intermediate without a name", "names", {
            external.recertified(|params| params.subject_alt_names.clear())
        }),
        ("the intermediate with two names", "names", {
            external.recertified(|p| p.subject_alt_names.push(testing::uri("spiffe://other.consul")))
        }),
        ("the intermediate with a workload's name", "root", {
            let id = mesh.service_id("db");
            external.recertified(|p| p.subject_alt_names = vec![testing::uri(id.as_str())])
        }),
        ("the intermediate after its end", "expired", {
            external.recertified(|p| *p = valid(p.clone(), now - 3 * MINUTE, 2 * MINUTE))
        }),
        ("the intermediate before its time", "not yet", {
            external.recertified(|p| *p = valid(p.clone(), now + 3 * MINUTE, 2 * MINUTE))
        }),
        ("the intermediate as no authority", "root", {
            external.recertified(|params| params.is_ca = IsCa::ExplicitNoCa)
        }),
        ("the intermediate without a word on that", "root", {
            external.recertified(|params| params.is_ca = IsCa::NoCa)
        }),
        ("the intermediate for other uses", "root", {
            external.recertified(|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature])
        }),
        ("the intermediate that certifies itself for another domain", "foreign", {
            let mut params = authority(&mesh.domain, "intermediate");
            params.subject_alt_names = vec![testing::uri("spiffe://other.consul")];
            let mut presented = external.server();
            let key = mesh.intermediate.issuer.key();
            presented.chain[1] = params.self_signed(key).unwrap().der().to_vec();
            presented
        }),
    ]
}

/// Leaves that are no server's.
fn leaves(external: &External) -> Vec<Case> {
    let (mesh, now) = (&external.mesh, SystemTime::now());
    vec![
        ("a service", "not a server", external.presented(mesh.sign(&mesh.params("db")))),
        ("a server whose time is over", "expired", {
            let params = valid(mesh.server_params(), now - 3 * MINUTE, 2 * MINUTE);
            external.presented(mesh.sign(&params))
        }),
        ("a leaf that certifies itself", "untrusted", {
            let key = KeyPair::generate().unwrap();
            let mut presented = external.server();
            presented.chain[0] = mesh.server_params().self_signed(&key).unwrap().der().to_vec();
            Presented { key, ..presented }
        }),
        ("a leaf below a service of ours", "untrusted", {
            let mut params = mesh.params("db");
            params.distinguished_name.push(rcgen::DnType::CommonName, "db");
            let db = Signer::under(&mesh.intermediate, params);
            let key = KeyPair::generate().unwrap();
            let leaf = mesh.server_params().signed_by(&key, &db.issuer).unwrap().der().to_vec();
            let above = [mesh.intermediate.der.clone(), external.corporate.der.clone()];
            Presented { chain: [leaf, db.der].into_iter().chain(above).collect(), key }
        }),
        ("a leaf that only the authority above has signed", "untrusted", {
            let key = KeyPair::generate().unwrap();
            let leaf = mesh.server_params().signed_by(&key, &external.corporate.issuer).unwrap();
            let mut presented = external.server();
            presented.chain[0] = leaf.der().to_vec();
            Presented { key, ..presented }
        }),
        ("the pinned intermediate in the place of the leaf", "pin", {
            let mut presented = external.server();
            presented.chain.swap(0, 1);
            presented
        }),
    ]
}

/// Impostors on the way to the first certificate, each with the reason that our side gives.
#[test]
fn impostors_below_an_external_root() {
    let external = External::new();
    let cases = [strangers(&external), intermediates(&external), leaves(&external)];
    for (what, want, presented) in cases.into_iter().flatten() {
        let told = match call(Some(&external.pin()), &presented) {
            Ok(()) => panic!("{what} passed"),
            Err(rejection) => rejection,
        };
        let word = match &told {
            Rejection::Pin => "pin",
            Rejection::Root => "root",
            Rejection::Untrusted(_) => "untrusted",
            Rejection::ForeignDomain { .. } => "foreign",
            Rejection::UriNames(_) => "names",
            Rejection::Expired { .. } => "expired",
            Rejection::NotYetValid { .. } => "not yet",
            Rejection::NotServer(_) => "not a server",
            _ => "something else",
        };
        assert_eq!(word, want, "{what}: {told}");
    }
}
