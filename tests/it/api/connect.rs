//! The certificate authority and its verdicts, as Consul's clients ask for them.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::http::Api;

async fn authorize(api: &Api, body: &str) -> (u16, Value) {
    let answer = api.send("POST", "/v1/agent/connect/authorize", &[], body).await;
    let put = api.put("/v1/agent/connect/authorize", body).await;
    assert_eq!((put.status, &put.body), (answer.status, &answer.body), "some clients send PUT");
    let value = serde_json::from_str(&answer.body).unwrap_or(Value::from(answer.body));
    (answer.status, value)
}

#[tokio::test]
async fn verdicts_name_the_rule() {
    let api = Api::start().await;
    let uri = "spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/web";
    let body = format!(r#"{{"Target":"database","ClientCertURI":"{uri}","ClientCertSerial":"04"}}"#);
    let (status, verdict) = authorize(&api, &body).await;
    assert_eq!((status, &verdict["Authorized"]), (200, &true.into()));
    let rule = r#"{"SourceName":"*","DestinationName":"database","Action":"deny"}"#;
    let created = api.send("POST", "/v1/connect/intentions", &[], rule).await.json();
    let (_, verdict) = authorize(&api, &body).await;
    let id = created["ID"].as_str().unwrap();
    let reason =
        format!("Matched intention: DENY default/* => default/database (ID: {id}, Precedence: 8)");
    assert_eq!(verdict, serde_json::json!({ "Authorized": false, "Reason": reason }));
    for (body, text) in [
        (
            r#"{"Target":"","ClientCertURI":"spiffe://x"}"#,
            "Bad request: Target service must be specified",
        ),
        (
            r#"{"Target":"database","ClientCertURI":"zzz"}"#,
            "Bad request: ClientCertURI not a valid Connect identifier",
        ),
    ] {
        assert_eq!(authorize(&api, body).await, (400, text.into()));
    }
    api.stop().await;
}

#[tokio::test]
async fn a_leaf_is_good_and_its_key_fits() {
    let api = Api::dev().await;
    let first = api.get("/v1/agent/connect/ca/leaf/web").await;
    let leaf = first.json();
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(leaf["CertPEM"].as_str().unwrap().as_bytes()).collect();
    assert_eq!(certificates.len(), 2, "leaf and intermediate");
    let certificate = certificates[0].as_ref().unwrap();
    let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
    assert_eq!(names, [GeneralName::URI(leaf["ServiceURI"].as_str().unwrap())]);
    let key = leaf["PrivateKeyPEM"].as_str().unwrap();
    assert!(key.starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let public = key.public_key().unwrap();
    assert_eq!(public.as_ref(), parsed.public_key().raw, "the key is that of the certificate");

    let again = api.get("/v1/agent/connect/ca/leaf/web").await;
    assert_eq!(again.body, first.body, "one certificate until it is renewed");
    let held =
        api.get(&format!("/v1/agent/connect/ca/leaf/web?index={}&wait=50ms", first.index())).await;
    assert_eq!(held.index(), first.index());
    let none = api.get("/v1/agent/connect/ca/leaf/").await;
    assert_eq!((none.status, none.body.as_str()), (500, "URI must be either service or agent"));
    api.stop().await;
}

#[tokio::test]
async fn keys_are_not_handed_out_where_tokens_are_needed() {
    let api = Api::start().await;
    let refused = api.get("/v1/agent/connect/ca/leaf/web").await;
    assert_eq!((refused.status, refused.body.contains("dev mode only")), (403, true));
    api.stop().await;
}
