//! UNIX socket, HTTPS, and the binds that are refused.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::process::Signal;

use super::super::mesh::{Ran, is_ready, ran};
use super::super::support::{free_port, local, until};
use super::pki::{Authority, Pair};
use super::{Server, at, text};

const OPERATOR: &str = "an-operator-token-of-32-characters";

#[tokio::test]
async fn a_unix_socket_survives_a_crash_and_says_who_calls() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, audit) = (directory.path().join("api.sock"), directory.path().join("audit"));
    let (address, log) = (format!("unix://{}", socket.display()), text(&audit));
    let flags = ["--http-addr", &address, "--audit-log", &log];
    let mut server = Server::start(directory.path(), &flags).await;
    assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    let env = [("CONSUL_HTTP_ADDR", address.as_str())];
    let put = ran(&["kv", "put", "a", "b"], &env).await;
    assert_eq!(put.code, 0, "{}", put.err);
    server.process.signal(Signal::KILL);
    server.process.ended().await;
    assert!(socket.exists(), "a crash leaves the socket");
    let mut server = Server::start(directory.path(), &flags).await;
    let got = ran(&["kv", "get", "a"], &env).await;
    assert_eq!((got.code, got.out.trim()), (0, "b"), "{}", got.err);
    // A second one does not take the place of a living one.
    let grpc = local(free_port()).to_string();
    let args =
        ["server", "--memory", "--http-addr", &address, "--grpc-addr", &grpc, "--dns-addr", "off"];
    let second = ran(&args, &[]).await;
    assert_eq!(second.code, 1, "{}", second.err);
    assert!(second.err.contains("another process listens there"), "{}", second.err);
    assert_eq!(server.process.stop().await, 0);
    assert!(!socket.exists(), "a server in good order takes its socket along");
    let user = format!(r#""peer":"uid:{}""#, rustix::process::geteuid().as_raw());
    assert!(std::fs::read_to_string(&audit).unwrap().contains(&user));
    let verified = ran(&["audit", "verify", &log], &[]).await;
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
}

#[tokio::test]
async fn https_with_a_token_and_a_certificate_that_is_renewed() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(directory.path(), "old"), Authority::new(directory.path(), "new"));
    let pair = old.issue("server");
    let token_file = directory.path().join("operator");
    let [token, certificate, key] = [&token_file, &pair.certificate, &pair.key].map(|path| text(path));
    let port = free_port();
    let https = format!("0.0.0.0:{port}");
    let http = local(free_port()).to_string();
    let flags = [
        "--http-addr",
        &http,
        "--https-addr",
        &https,
        "--https-cert-file",
        &certificate,
        "--https-key-file",
        &key,
        "--require-token",
        "--api-token-file",
        &token,
    ];
    let mut server = Server::start(directory.path(), &flags).await;
    let address = format!("https://127.0.0.1:{port}");
    let call = async |authority: &Authority| {
        let (authority, token) = (text(&authority.file), text(&token_file));
        let env = [
            ("CONSUL_HTTP_ADDR", address.as_str()),
            ("CONSUL_CACERT", &authority),
            ("CONSUL_HTTP_TOKEN_FILE", &token),
        ];
        ran(&["members"], &env).await
    };
    let reached = call(&old).await;
    assert_eq!(reached.code, 0, "{}", reached.err);
    let refused = call(&new).await;
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(
        refused.err.contains("TLS handshake") && refused.err.contains("WEFT_CACERT"),
        "{}",
        refused.err
    );
    // Without the token the certificate of the server opens nothing.
    let authority = text(&old.file);
    let anonymous =
        ran(&["members"], &[("WEFT_HTTP_ADDR", &address), ("WEFT_CACERT", &authority)]).await;
    assert_eq!(anonymous.code, 4, "{}", anonymous.err);
    // Consul's way of saying the same, and a name that is not the server's.
    let bare = format!("127.0.0.1:{port}");
    let env = [
        ("CONSUL_HTTP_ADDR", bare.as_str()),
        ("CONSUL_HTTP_SSL", "true"),
        ("CONSUL_CACERT", &authority),
    ];
    let named = [
        env[0],
        env[1],
        env[2],
        ("CONSUL_TLS_SERVER_NAME", "localhost"),
        ("CONSUL_HTTP_TOKEN_FILE", &token),
    ];
    assert_eq!(ran(&["members"], &named).await.code, 0);
    let misnamed = [env[0], env[1], env[2], ("CONSUL_TLS_SERVER_NAME", "elsewhere")];
    assert_eq!(ran(&["members"], &misnamed).await.code, 4);
    // Half of a renewal changes nothing, the whole of it counts at once.
    let next = new.issue("server");
    std::fs::copy(&next.certificate, &pair.certificate).unwrap();
    server.reload().await;
    assert_eq!(call(&old).await.code, 0);
    std::fs::copy(&next.key, &pair.key).unwrap();
    server.reload().await;
    assert_eq!((call(&old).await.code, call(&new).await.code), (4, 0));
    assert_eq!(server.process.stop().await, 0);
}

#[tokio::test]
async fn a_certificate_of_the_operators_authority_stands_for_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let (servers, admins) =
        (Authority::new(directory.path(), "servers"), Authority::new(directory.path(), "admins"));
    let (pair, audit) = (servers.issue("server"), directory.path().join("audit"));
    let files = [&pair.certificate, &pair.key, &admins.file, &audit].map(|path| text(path));
    let port = free_port();
    let (https, http) = (format!("0.0.0.0:{port}"), local(free_port()).to_string());
    let flags = [
        "--http-addr",
        &http,
        "--https-addr",
        &https,
        "--audit-log",
        &files[3],
        "--https-cert-file",
        &files[0],
        "--https-key-file",
        &files[1],
        "--https-client-ca-file",
        &files[2],
    ];
    for required in [false, true] {
        let mut flags = flags.to_vec();
        flags.extend(required.then_some("--require-token"));
        let mut server = Server::start(directory.path(), &flags).await;
        let address = format!("https://127.0.0.1:{port}");
        let call = async |pair: Option<&Pair>| {
            let authority = text(&servers.file);
            let files = pair.map(|pair| [&pair.certificate, &pair.key].map(|path| text(path)));
            let mut env = vec![("CONSUL_HTTP_ADDR", address.as_str()), ("CONSUL_CACERT", &authority)];
            if let Some([certificate, key]) = &files {
                env.extend([("CONSUL_CLIENT_CERT", certificate.as_str()), ("CONSUL_CLIENT_KEY", key)]);
            }
            ran(&["kv", "put", "a", "b"], &env).await
        };
        let admin = call(Some(&admins.issue("admin"))).await;
        assert_eq!(admin.code, 0, "{required}: {}", admin.err);
        assert_ne!(call(None).await.code, 0, "{required}");
        assert_ne!(call(Some(&servers.issue("stranger"))).await.code, 0, "{required}");
        assert_eq!(server.process.stop().await, 0);
    }
    let lines = std::fs::read_to_string(&audit).unwrap();
    assert_eq!(lines.matches(r#""actor":"cert:"#).count(), 4, "{lines}");
}

/// A server with these flags, which end it.
async fn server_with(flags: &[&str]) -> Ran {
    let (grpc, http) = (local(free_port()).to_string(), local(free_port()).to_string());
    let mut args = vec!["server", "--memory", "--dns-addr", "off", "--grpc-addr", &grpc];
    if !flags.contains(&"--http-addr") {
        args.extend(["--http-addr", &http]);
    }
    args.extend(flags);
    ran(&args, &[]).await
}

#[tokio::test]
async fn binds_that_would_be_open_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path(), "own");
    let (pair, loose) = (authority.issue("server"), authority.issue("loose"));
    let mode =
        |path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(&loose.key, 0o644);
    mode(&pair.certificate, 0o600); // it is given for a key as well
    let short = directory.path().join("short");
    std::fs::write(&short, "short").unwrap();
    mode(&short, 0o600);
    let paths = [&pair.certificate, &pair.key, &loose.key, &short].map(|path| text(path));
    let [certificate, key, loose, short] = &paths;
    let everywhere = format!("0.0.0.0:{}", free_port());
    let here = local(free_port()).to_string();
    let tls = ["--https-cert-file", certificate, "--https-key-file", key];
    let etcd_tls = ["--etcd-cert-file", certificate, "--etcd-key-file", key];
    for (flags, code, said) in [
        (vec!["--http-addr", &everywhere], 2, "listens on loopback only"),
        (vec!["--http-addr", &everywhere, "--require-token"], 2, "lock everybody out"),
        (vec!["--http-addr", &everywhere, "--api-token-file", short], 1, "too short"),
        ([&["--https-addr", &everywhere], &tls[..]].concat(), 2, "would be open"),
        (vec!["--https-addr", &here], 2, "needs a certificate"),
        (vec!["--https-addr", &here, "--https-cert-file", certificate], 2, "needs a certificate"),
        (
            [
                &["--https-addr", &here],
                &["--https-cert-file", certificate, "--https-key-file", loose][..],
            ]
            .concat(),
            1,
            "others may use it",
        ),
        (
            [&["--https-addr", &here], &["--https-cert-file", key, "--https-key-file", key][..]]
                .concat(),
            1,
            "no certificate",
        ),
        (
            [
                &["--https-addr", &here],
                &["--https-cert-file", certificate, "--https-key-file", certificate][..],
            ]
            .concat(),
            1,
            "no private key",
        ),
        (
            [&["--https-addr", &here, "--https-client-ca-file", key], &tls[..]].concat(),
            1,
            "no certificate",
        ),
        (vec!["--http-addr", "unix://relative"], 2, "not the path of a socket"),
        (vec!["--require-token", "--etcd-addr", &here], 2, "nothing to show who they are"),
        (vec!["--etcd-addr", &everywhere], 2, "listens on loopback only"),
        (vec!["--etcd-addr", &here, "--etcd-cert-file", certificate], 2, "--etcd-key-file"),
        (vec!["--etcd-addr", &here, "--etcd-client-ca-file", certificate], 2, "--etcd-cert-file"),
        (
            [&["--etcd-addr", &here, "--etcd-client-ca-file", key], &etcd_tls[..]].concat(),
            1,
            "no certificate",
        ),
    ] {
        let ran = server_with(&flags).await;
        assert_eq!(ran.code, code, "{flags:?}: {}", ran.err);
        assert!(ran.err.contains(said), "{flags:?}: {}", ran.err);
    }
    let dev = ran(&["dev", "--http-addr", &everywhere], &[]).await;
    assert_eq!(dev.code, 2, "{}", dev.err);
    assert!(dev.err.contains("loopback only"), "{}", dev.err);
}

#[tokio::test]
async fn the_operators_token_is_made_kept_and_changed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("operator");
    let (path, http) = (text(&file), local(free_port()));
    let address = http.to_string();
    // Consul's own keys say the same as the flag.
    let config = directory.path().join("acl.hcl");
    std::fs::write(&config, "acl {\n  enabled = true\n  default_policy = \"deny\"\n}\n").unwrap();
    let config = text(&config);
    let flags = ["--http-addr", &address, "--config-file", &config, "--api-token-file", &path];
    let mut server = Server::start(directory.path(), &flags).await;
    assert!(is_ready(http).await, "probes need no token");
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let made = at(&address, &file, &["api-token", "create", "--scope", "kv:*"]).await;
    assert_eq!(made.code, 0, "{}", made.err);
    std::fs::write(&file, OPERATOR).unwrap();
    server.reload().await;
    assert_eq!(at(&address, &file, &["api-token", "list"]).await.code, 0);
    // Tokens outlive the process, and the operator's other token.
    server.process.signal(Signal::KILL);
    server.process.ended().await;
    let _server = Server::start(directory.path(), &flags).await;
    let env = [("WEFT_HTTP_ADDR", address.as_str()), ("WEFT_HTTP_TOKEN", made.out.trim())];
    let put = ran(&["kv", "put", "a", "b"], &env).await;
    assert_eq!(put.code, 0, "{}", put.err);
    assert_eq!(ran(&["services"], &env).await.code, 4);
    until("the refusal without a token", async || {
        ran(&["kv", "get", "a"], &[("WEFT_HTTP_ADDR", &address)]).await.code == 4
    })
    .await;
}
