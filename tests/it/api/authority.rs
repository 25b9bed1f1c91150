//! The certificate authority over HTTP: Consul's configuration and roots, and Weft's own endpoints.
//! OpenSSL is the judge of what is signed.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::http::Api;
use crate::pace::look_again;
use crate::plane::DEADLINE;
use crate::programs;

const CONFIGURATION: &str = "/v1/connect/ca/configuration";
const ROOTS: &str = "/v1/connect/ca/roots";

/// A root of the trust domain as OpenSSL makes it, and its key.
fn made_by_openssl(dir: &Path, domain: &str) -> (String, String) {
    let (key, certificate) = (dir.join("root-key.pem"), dir.join("root.pem"));
    openssl(dir, &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "root-key.pem"]);
    let name = format!("subjectAltName=URI:spiffe://{domain}");
    let mut args = vec!["req", "-x509", "-new", "-key", "root-key.pem", "-days", "3650"];
    args.extend(["-subj", "/O=Example Corp/CN=My New CA", "-out", "root.pem"]);
    args.extend(["-addext", &name, "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"]);
    openssl(dir, &args);
    (std::fs::read_to_string(certificate).unwrap(), std::fs::read_to_string(key).unwrap())
}

/// Runs OpenSSL, which must succeed; returns what it says.
fn openssl(dir: &Path, args: &[&str]) -> String {
    let ran = Command::new("openssl").current_dir(dir).args(args).output().unwrap();
    let out = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{args:?}: {out}{}", String::from_utf8_lossy(&ran.stderr));
    out
}

async fn roots(api: &Api) -> Value {
    api.get(ROOTS).await.json()
}

/// Asks until it is so.
async fn eventually(what: &str, api: &Api, holds: impl Fn(&Value) -> bool) -> Value {
    let asked = async {
        loop {
            let ca = api.get("/v1/weft/ca").await.json();
            if holds(&ca) {
                return ca;
            }
            look_again().await;
        }
    };
    tokio::time::timeout(DEADLINE, asked).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

#[tokio::test]
async fn a_configuration_is_kept_and_says_what_is_wrong() {
    let api = Api::start().await;
    let config = api.get(CONFIGURATION).await.json();
    assert_eq!(
        (&config["Provider"], &config["Config"]["LeafCertTTL"]),
        (&"consul".into(), &"1h".into())
    );
    for (body, text) in [
        (
            r#"{"Provider":"consul","Config":{"LeafCertTTL":"30m"}}"#,
            "error configuring provider: leaf cert TTL must be greater or equal than 1h0m0s",
        ),
        (
            r#"{"Provider":"consul","Config":{"LeafCertTTL":"9000h"}}"#,
            "error configuring provider: leaf cert TTL must be less than 8760h0m0s",
        ),
        (
            r#"{"Provider":"bogus","Config":{}}"#,
            r#"could not initialize provider: unknown CA provider "bogus""#,
        ),
        (
            r#"{"Provider":"consul","Config":{"PrivateKey":"zz"}}"#,
            "error generating CA root certificate: there is no private key in PEM",
        ),
        (
            r#"{"Provider":"consul","Config":{"RootCert":"zz"}}"#,
            "error generating CA root certificate: RootCert needs its PrivateKey",
        ),
    ] {
        let answer = api.put(CONFIGURATION, body).await;
        assert_eq!((answer.status, answer.body.starts_with(text)), (500, true), "{answer:?}");
        assert!(!answer.body.contains("zz"), "what may be a secret is not sent back");
    }
    let before = roots(&api).await;
    // What Consul's users set that changes no root.
    let body = r#"{"Provider":"consul","Config":{"LeafCertTTL":"72h","PrivateKeyType":"rsa","PrivateKeyBits":2048}}"#;
    assert_eq!(api.put(CONFIGURATION, body).await.status, 200);
    let config = api.get(CONFIGURATION).await.json();
    let want = json!({ "LeafCertTTL": "72h", "PrivateKeyType": "rsa", "PrivateKeyBits": 2048 });
    assert_eq!(config["Config"], want);
    assert_eq!(roots(&api).await["ActiveRootID"], before["ActiveRootID"]);
    let ca = api.get("/v1/weft/ca").await.json();
    assert_eq!(ca["leaf_ttl"], "72h0m0s");
    api.stop().await;
}

#[tokio::test]
async fn consuls_way_to_rotate() {
    if !programs::present(&["openssl"]) {
        return;
    }
    let api = Api::dev().await;
    let dir = tempfile::tempdir().unwrap();
    let before = api.get(ROOTS).await;
    let leaf = api.get("/v1/agent/connect/ca/leaf/web").await;
    let old = before.json();
    let domain = old["TrustDomain"].as_str().unwrap();
    let (certificate, key) = made_by_openssl(dir.path(), domain);
    let body = json!({
        "Provider": "consul",
        "Config": { "LeafCertTTL": "72h", "PrivateKey": key, "RootCert": certificate },
    });
    let roots_target = format!("{ROOTS}?index={}&wait=20s", before.index());
    let leaf_target = format!("/v1/agent/connect/ca/leaf/web?index={}&wait=20s", leaf.index());
    let body = body.to_string();
    let (put, told, renewed) =
        tokio::join!(api.put(CONFIGURATION, &body), api.get(&roots_target), api.get(&leaf_target));
    assert_eq!((put.status, put.body.as_str()), (200, ""));
    assert!(told.index() > before.index(), "{told:?}");

    let new = roots(&api).await;
    let listed = new["Roots"].as_array().unwrap();
    assert_eq!((listed.len(), &new["ActiveRootID"]), (2, &listed[0]["ID"]));
    assert_eq!(listed[0]["RootCert"].as_str().unwrap().trim(), certificate.trim());
    assert_eq!((&listed[0]["Active"], &listed[1]["Active"]), (&true.into(), &false.into()));
    assert_eq!(listed[1]["ID"], old["ActiveRootID"]);
    assert_eq!(listed[1]["IntermediateCerts"], Value::Null);
    let cross = listed[0]["IntermediateCerts"][0].as_str().unwrap();
    let config = api.get(CONFIGURATION).await;
    assert!(!config.body.contains("PRIVATE") && !config.body.contains("PrivateKey"), "{config:?}");
    assert_eq!(config.json()["Config"]["RootCert"], certificate.as_str());

    // The leaf that was waited for is of the new root, and both roots accept it.
    let renewed = renewed.json();
    assert_ne!(renewed["SerialNumber"], leaf.json()["SerialNumber"]);
    let chain = renewed["CertPEM"].as_str().unwrap();
    let files = [
        ("new.pem", certificate.as_str()),
        ("old.pem", listed[1]["RootCert"].as_str().unwrap()),
        ("cross.pem", cross),
        ("chain.pem", chain),
    ];
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let blocks: Vec<&str> = chain.split_inclusive("-----END CERTIFICATE-----\n").collect();
    assert_eq!(blocks.len(), 3, "leaf, intermediate, cross-signed root");
    std::fs::write(dir.path().join("intermediate.pem"), blocks[1]).unwrap();
    let strict = ["verify", "-x509_strict", "-check_ss_sig"];
    let verify = |more: &[&str]| openssl(dir.path(), &[&strict[..], more].concat());
    verify(&["-CAfile", "new.pem", "-untrusted", "intermediate.pem", "chain.pem"]);
    verify(&["-CAfile", "old.pem", "-untrusted", "chain.pem", "chain.pem"]);
    verify(&["-CAfile", "old.pem", "cross.pem"]);
    for purpose in ["sslserver", "sslclient"] {
        verify(&["-purpose", purpose, "-CAfile", "new.pem", "-untrusted", "chain.pem", "chain.pem"]);
    }
    let text = openssl(dir.path(), &["x509", "-in", "chain.pem", "-noout", "-text"]);
    let squeezed: Vec<&str> = text.lines().map(str::trim).collect();
    let after = |title: &str| {
        let at = squeezed.iter().position(|line| line.starts_with(title));
        squeezed[at.unwrap_or_else(|| panic!("{title} is not in\n{text}")) + 1]
    };
    assert_eq!(after("X509v3 Key Usage: critical"), "Digital Signature");
    assert_eq!(
        after("X509v3 Extended Key Usage:"),
        "TLS Web Server Authentication, TLS Web Client Authentication"
    );
    assert_eq!(after("X509v3 Basic Constraints: critical"), "CA:FALSE");
    let name = format!("URI:spiffe://{domain}/ns/default/dc/dc1/svc/web");
    assert_eq!(after("X509v3 Subject Alternative Name: critical"), name);
    api.stop().await;
}

#[tokio::test]
async fn an_external_authority_is_openssl() {
    if !programs::present(&["openssl"]) {
        return;
    }
    let api = Api::dev().await;
    let dir = tempfile::tempdir().unwrap();
    let reply = api.send("POST", "/v1/weft/ca/csr", &[], "{}").await.json();
    std::fs::write(dir.path().join("csr.pem"), reply["csr"].as_str().unwrap()).unwrap();
    openssl(dir.path(), &["ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", "key.pem"]);
    let mut args = vec!["req", "-x509", "-new", "-key", "key.pem", "-days", "3650", "-out", "root.pem"];
    args.extend(["-subj", "/C=XX/O=Example Corp/CN=Corporate Root"]);
    openssl(dir.path(), &args);
    let mut args = vec!["x509", "-req", "-in", "csr.pem", "-CA", "root.pem", "-CAkey", "key.pem"];
    args.extend(["-days", "365", "-copy_extensions", "copyall", "-out", "intermediate.pem"]);
    openssl(dir.path(), &args);
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let chain = json!({ "chain": read("intermediate.pem") + &read("root.pem"), "patience": "0s" });
    let installed = api.send("POST", "/v1/weft/ca/install", &[], &chain.to_string()).await;
    assert_eq!(installed.status, 200, "{installed:?}");
    let root = installed.json()["root"].clone();
    let ca = eventually("the external root", &api, |ca| {
        ca["roots"][0]["id"] == root && ca["rotation"]["step"] == "retire"
    })
    .await;
    assert_eq!(
        (&ca["roots"][0]["external"], &ca["roots"][1]["state"]),
        (&true.into(), &"retiring".into())
    );
    let leaf = api.get("/v1/agent/connect/ca/leaf/web").await.json();
    std::fs::write(dir.path().join("chain.pem"), leaf["CertPEM"].as_str().unwrap()).unwrap();
    std::fs::write(dir.path().join("old.pem"), ca["roots"][1]["certificate"].as_str().unwrap()).unwrap();
    for trusted in ["root.pem", "old.pem"] {
        openssl(dir.path(), &["verify", "-CAfile", trusted, "-untrusted", "chain.pem", "chain.pem"]);
    }
    api.stop().await;
}

#[tokio::test]
async fn the_authority_is_seen_and_rotated_without_a_key_in_any_answer() {
    let api = Api::dev().await;
    let ca = api.get("/v1/weft/ca").await.json();
    assert_eq!(
        (&ca["rotation"], &ca["encrypted"], ca["roots"].as_array().unwrap().len()),
        (&Value::Null, &false.into(), 1)
    );
    let started = api.send("POST", "/v1/weft/ca/rotate", &[], r#"{"patience":"0s"}"#).await;
    let root = started.json()["root"].clone();
    let ca = eventually("the retiring step", &api, |ca| ca["rotation"]["step"] == "retire").await;
    assert_eq!((&ca["roots"][0]["id"], &ca["roots"][0]["state"]), (&root, &"active".into()));
    assert!(ca["roots"][1]["leaves_at"].is_string() && ca["rotation"]["cross_signed"] == true);
    for (path, body) in [
        ("rotate", r#"{"patience":"25h"}"#),
        ("rotate", r#"{"patience":"soon"}"#),
        ("rotate", r#"{"force":true}"#),
        ("import", r#"{"certificate":"zz","key":"zz"}"#),
        ("import", r"{}"),
        ("install", r#"{"chain":"zz"}"#),
    ] {
        let refused = api.send("POST", &format!("/v1/weft/ca/{path}"), &[], body).await;
        assert_eq!(refused.status, 400, "{path} {body}: {refused:?}");
        assert!(!refused.body.contains("zz"), "{refused:?}");
    }
    // The leaf endpoint hands out the key of a leaf in dev mode; nothing else has any.
    for target in ["/v1/weft/ca", ROOTS, "/v1/agent/connect/ca/roots", CONFIGURATION, "/v1/agent/self"] {
        let answer = api.get(target).await;
        assert_eq!((answer.status, answer.body.contains("PRIVATE KEY")), (200, false), "{target}");
    }
    api.stop().await;
}
