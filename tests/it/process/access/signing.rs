//! No certificate leaves the server without its line in the audit log.

use super::super::mesh::Spec;
use super::super::support::{Process, free_port, local};
use super::{Server, ran, text};

#[tokio::test]
async fn no_certificate_without_its_line_in_the_audit_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let audit = path("audit");
    let (http, grpc) = (local(free_port()).to_string(), local(free_port()).to_string());
    let log = text(&audit);
    let flags = ["--http-addr", &http, "--grpc-addr", &grpc, "--audit-log", &log];
    let mut server = Server::start(directory.path(), &flags).await;
    let token = ran(&["token", "create", "--service", "web"], &[("WEFT_HTTP_ADDR", &http)]).await;
    assert_eq!(token.code, 0, "{}", token.err);
    let [config, token_file] = [path("web.hcl"), path("web.token")];
    let spec = Spec::new("web", "web-1", 1);
    std::fs::write(&config, spec.hcl()).unwrap();
    std::fs::write(&token_file, token.out).unwrap();

    // Something is in the place of the log.
    std::fs::rename(&audit, path("moved")).unwrap();
    std::fs::create_dir(&audit).unwrap();
    server.reload().await;
    let [config, token_file] = [config, token_file].map(|file| text(&file));
    let (admin, inbound) = (local(spec.admin_port).to_string(), spec.inbound_port.to_string());
    let mut args = vec!["proxy", "--config", &config, "--server", &grpc, "--token-file", &token_file];
    args.extend(["--admin-addr", &admin, "--inbound-port", &inbound, "--log-format", "json"]);
    let mut web = Process::start("web", &args, &[]);
    web.logged("the refusal", |line| {
        line.to_string().contains("nothing is signed until it is written again")
    })
    .await;
    assert!(!web.log().iter().any(|line| line["message"] == "certificate installed"));

    // It is written again: the sidecar comes again by itself, with the same token.
    std::fs::remove_dir(&audit).unwrap();
    let installed = web.said("certificate installed").await;
    let line = format!("signed {}", installed["serial"].as_str().unwrap());
    let written = std::fs::read_to_string(&audit).unwrap();
    assert!(written.contains(&line) && written.contains("weft.v1.Identity/Enrol"), "{written}");
    assert_eq!(web.stop().await, 0);
    assert_eq!(server.process.stop().await, 0);
    let moved = text(&path("moved"));
    let verified = ran(&["audit", "verify", &moved, &log], &[]).await;
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
}
