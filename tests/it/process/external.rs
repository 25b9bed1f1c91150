//! A mesh below an external authority alone: its own root has left, and sidecars come, stay and go on.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SubjectPublicKeyInfo,
};
use serde_json::Value;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::mesh::{Mesh, Sidecar, Spec};
use super::support::until;
use super::traffic::{App, ask};

/// The mesh's own root leaves when the last leaf below it must be dead.
const LEAF_TTL: &str = "12s";

/// An authority that knows nothing of meshes.
struct Corporate {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Corporate {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Corporate Root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// What `weft ca csr` asks for, signed; and the chain in a file, as `weft ca install` wants it.
    async fn sign_for(&self, mesh: &Mesh, name: &str) -> PathBuf {
        let text = mesh.done(&["ca", "csr"]).await;
        let (pem, _) = Pem::read(std::io::Cursor::new(text.as_bytes())).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        request.verify_signature().unwrap();
        let info = &request.certification_request_info;
        let domain = domain(mesh).await;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").try_into().unwrap())];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        params.use_authority_key_identifier_extension = true;
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw).unwrap();
        let intermediate = params.signed_by(&key, &self.issuer).unwrap().pem();
        mesh.file(&format!("{name}.pem"), &(intermediate + &self.pem))
    }
}

async fn domain(mesh: &Mesh) -> String {
    mesh.get("/v1/weft/ca").await.json()["trust_domain"].as_str().unwrap().to_owned()
}

async fn roots(mesh: &Mesh) -> Vec<Value> {
    mesh.get("/v1/weft/ca").await.json()["roots"].as_array().unwrap().clone()
}

/// With a token, as a server in earnest demands it.
async fn enrolled(mesh: &Mesh, spec: &Spec) -> Sidecar {
    let token = mesh.token(spec.service).await;
    Sidecar::ready(mesh.launch_with(spec, Some(&token))).await
}

fn renewals(sidecar: &Sidecar) -> usize {
    sidecar.process.log().iter().filter(|line| line["message"] == "certificate installed").count()
}

#[tokio::test]
async fn sidecars_enrol_renew_and_rotate_below_an_external_root_alone() {
    let (mesh, corporate) = (Mesh::dev(LEAF_TTL).await, Corporate::new());
    let app = App::start("db-1").await;
    let chain = corporate.sign_for(&mesh, "first").await;
    let chain = chain.to_string_lossy();
    mesh.done(&["ca", "install", &chain, "--patience", "1s", "--wait"]).await;
    until("the end of the mesh's own root", async || roots(&mesh).await.len() == 1).await;
    assert_eq!(roots(&mesh).await[0]["external"], true);

    // The first certificates of the mesh: nobody has ever seen another root.
    let db = enrolled(&mesh, &Spec::new("db", "db-1", app.port())).await;
    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let web = enrolled(&mesh, &spec).await;
    assert_eq!(ask(spec.door(), "below it").await.unwrap(), "db-1 below it");

    // Another intermediate below the same root counts at once, for those who are there and who come.
    let old_token = mesh.token("late").await;
    let second = corporate.sign_for(&mesh, "second").await;
    mesh.done(&["ca", "install", &second.to_string_lossy(), "--patience", "1s", "--wait"]).await;
    assert_eq!(roots(&mesh).await.len(), 1);
    let next = Spec::new("next", "next-1", 1).upstream("db");
    let _next = enrolled(&mesh, &next).await;
    assert_eq!(ask(next.door(), "across").await.unwrap(), "db-1 across");
    let seen = (renewals(&web), renewals(&db));
    until("renewals under the second", async || renewals(&web) > seen.0 && renewals(&db) > seen.1).await;
    assert_eq!(ask(spec.door(), "renewed").await.unwrap(), "db-1 renewed");

    // A token from before names an intermediate that signs no more: refused, with its reason, and no use lost.
    let late = Spec::new("late", "late-1", 1);
    let mut refused = mesh.launch_with(&late, Some(&old_token));
    assert_ne!(refused.ended().await, 0);
    let told = refused.stderr();
    assert!(told.contains("does not present an authority with the pinned key"), "{told}");

    // And back to a root of the mesh's own, without a failure.
    let ran = mesh.cli(&["ca", "rotate", "--patience", "5s", "--wait", "--timeout", "60s"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let after = Spec::new("after", "after-1", 1).upstream("db");
    let _after = enrolled(&mesh, &after).await;
    for door in [spec.door(), next.door(), after.door()] {
        assert_eq!(ask(door, "home").await.unwrap(), "db-1 home");
    }
}
