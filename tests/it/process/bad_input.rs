//! What cannot work ends at once, with one error that names the place and the next step, and the
//! documented exit code; never with a panic, a hang or half a process.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use super::mesh::{Mesh, Ran, Spec, ran};
use super::support::{free_port, local, within};

/// One error of three lines, this code, these words. Faults in files come with excerpts of their own.
fn refused(what: &str, ran: &Ran, code: i32, words: &[&str]) {
    let err = &ran.err;
    assert_eq!(ran.code, code, "{what}: {err}");
    let errors: Vec<&str> = err.lines().filter(|line| line.starts_with("error[W03")).collect();
    assert_eq!(errors.len(), 1, "{what}: {err}");
    assert!(err.lines().any(|line| line.starts_with("  from: ")), "{what}: {err}");
    assert!(err.lines().last().unwrap().starts_with("  try:  "), "{what}: {err}");
    for word in words {
        assert!(err.contains(word), "{what} does not say {word:?}: {err}");
    }
    assert!(!err.contains("panicked"), "{what}: {err}");
    assert_eq!(ran.out, "", "{what}");
    let shown = err.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n");
    println!("{what} (exit {code})\n{shown}\n");
}

async fn weft(args: &[&str]) -> Ran {
    within("the end of the command", ran(args, &[])).await
}

/// `weft proxy` for a file, with what the case adds.
async fn proxy(config: &Path, flags: &[&str]) -> Ran {
    let (config, admin) = (config.to_string_lossy(), local(free_port()).to_string());
    let mut args = vec!["proxy", "--config", &config, "--admin-addr", &admin, "--node", "edge"];
    args.extend(["--log-format", "json", "--log-level", "error"]);
    args.extend(flags);
    weft(&args).await
}

#[tokio::test]
async fn configuration() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let good = Spec::new("web", "web-1", 1).upstream("db").hcl();
    let cut: String = good.chars().take(good.len() / 2).collect();
    let twice = Spec { upstreams: vec![("db", 5432), ("cache", 5432)], ..Spec::new("web", "web-1", 1) };
    let plain = |name| Spec::new(name, name, 1).hcl().replacen("service {", "services {", 1);
    let both = plain("web") + &plain("api");
    let cases = [
        ("a missing file", dir.path().join("none.hcl"), vec!["none.hcl"]),
        ("a truncated file", file("cut.hcl", &cut), vec!["cut.hcl:"]),
        (
            "an unknown key",
            file("key.hcl", &good.replace("port =", "prot =")),
            vec!["key.hcl:4:", "prot", "port"],
        ),
        ("two upstreams at one port", file("twice.hcl", &twice.hcl()), vec!["twice.hcl:", "5432"]),
        ("no service", file("empty.hcl", ""), vec!["empty.hcl", "declares no service"]),
        ("two services", file("two.hcl", &both), vec!["two.hcl", "web", "api", "--service"]),
        ("no text", file("binary.hcl", "\u{0}\u{1}service"), vec!["binary.hcl:1:"]),
    ];
    for (what, path, words) in &cases {
        refused(what, &proxy(path, &[]).await, 2, words);
    }
    let good = file("good.hcl", &good);
    let missing = dir.path().join("none.token");
    let flags = ["--token-file", &missing.to_string_lossy()];
    refused("a missing token file", &proxy(&good, &flags).await, 1, &["none.token"]);
    let empty = file("empty.token", "\n");
    let flags = ["--token-file", &empty.to_string_lossy()];
    refused("an empty token file", &proxy(&good, &flags).await, 2, &["empty.token", "no token"]);
    let args = ["proxy", "--log-level", "loud"];
    refused("a level that is none", &weft(&args).await, 2, &["loud"]);
    refused("no file", &weft(&["proxy"]).await, 2, &["--config"]);
    refused("nowhere to keep state", &weft(&["server"]).await, 2, &["--data-dir", "--memory"]);
    let args = ["dev", "--grpc-addr", "0.0.0.0:1"];
    refused("a dev server for everybody", &weft(&args).await, 2, &["0.0.0.0:1", "loopback"]);
    // Faults of the command line itself are told in the way of its parser.
    for args in [&["proxy", "--drain-grace", "soon"][..], &["server", "--leaf-ttl", "1s"], &["prxy"]] {
        let ran = weft(args).await;
        assert_eq!((ran.code, ran.err.starts_with("error: ")), (2, true), "{args:?}: {}", ran.err);
        assert!(ran.err.contains(args[args.len() - 1]), "{args:?}: {}", ran.err);
    }
}

#[tokio::test]
async fn an_unreachable_server() {
    let mesh = Mesh::dev("1h").await;
    let file = mesh.file("web.hcl", &Spec::new("web", "web-1", 1).hcl());
    let nobody = local(free_port()).to_string();
    let ran = proxy(&file, &["--server", &nobody, "--start-timeout", "1s"]).await;
    refused("nobody listens", &ran, 3, &[&nobody, "within 1 s", "refused", "--server"]);
    // Something that takes connections and never speaks.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let ran = proxy(&file, &["--server", &address, "--start-timeout", "1s"]).await;
    refused("a silent server", &ran, 3, &[&address]);
    let http = mesh.http.to_string();
    let ran = proxy(&file, &["--server", &http, "--start-timeout", "1s"]).await;
    refused("the HTTP port instead of the gRPC one", &ran, 3, &[&http, "TLS"]);
}

#[tokio::test]
async fn ports_and_files_that_are_taken() {
    let mut mesh = Mesh::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = TcpListener::bind(taken).unwrap();
    let address = taken.to_string();
    let spec = Spec { upstreams: vec![("db", taken.port())], ..Spec::new("web", "web-1", 1) };
    let file = mesh.file("web.hcl", &spec.hcl());
    refused("a taken upstream port", &proxy(&file, &[]).await, 1, &[&address, "upstream db", "port"]);
    let file = mesh.file("alone.hcl", &Spec::new("web", "web-1", 1).hcl());
    let port = taken.port().to_string();
    let ran = proxy(&file, &["--inbound-port", &port]).await;
    refused("a taken inbound port", &ran, 1, &[&address, "inbound"]);

    let free = || local(free_port()).to_string();
    for (http, grpc) in [(address.clone(), free()), (free(), address.clone())] {
        let args = ["server", "--memory", "--http-addr", &http, "--grpc-addr", &grpc];
        let ran = weft(&[&args[..], &["--dns-addr", "off"]].concat()).await;
        refused("a taken port of the server", &ran, 1, &[&address]);
    }
    let args = ["server", "--memory", "--http-addr", &free(), "--grpc-addr", &free()];
    let ran = weft(&[&args[..], &["--dns-addr", &address]].concat()).await;
    refused("a taken DNS port", &ran, 1, &[&address, "DNS", "--dns-addr"]);
    let datagrams = std::net::UdpSocket::bind(local(free_port())).unwrap();
    let taken_too = datagrams.local_addr().unwrap().to_string();
    let ran = weft(&[&args[..], &["--dns-addr", &taken_too]].concat()).await;
    refused("a DNS port taken for UDP alone", &ran, 1, &[&taken_too, "UDP"]);
    drop(holder);

    let data = mesh.data_dir().to_string_lossy().into_owned();
    let args = ["server", "--data-dir", &data, "--http-addr", &free(), "--grpc-addr", &free()];
    let ran = weft(&[&args[..], &["--dns-addr", "off"]].concat()).await;
    refused("a data directory in use", &ran, 1, &[&data, "another"]);
    assert!(mesh.server().is_running());
    let file = mesh.file("a-file", "").to_string_lossy().into_owned();
    let args = ["server", "--data-dir", &file, "--http-addr", &free(), "--grpc-addr", &free()];
    let ran = weft(&[&args[..], &["--dns-addr", "off"]].concat()).await;
    refused("a file for a directory", &ran, 1, &[&file]);
    mesh.stop_server().await;
    std::fs::write(mesh.data_dir().join("weft.redb"), "no database at all").unwrap();
    let args = ["server", "--data-dir", &data, "--http-addr", &free(), "--grpc-addr", &free()];
    let ran = weft(&[&args[..], &["--dns-addr", "off"]].concat()).await;
    refused("a damaged store", &ran, 1, &["weft.redb"]);
}

#[tokio::test]
async fn tokens() {
    let (mesh, other) = (Mesh::start().await, Mesh::start().await);
    let spec = Spec::new("web", "web-1", 1);
    let config = mesh.file("web.hcl", &spec.hcl());
    let server = mesh.grpc.to_string();
    let text = |path: &PathBuf| std::fs::read_to_string(path).unwrap().trim().to_owned();
    let enrol = async |token: &Path| {
        let token = token.to_string_lossy();
        proxy(&config, &["--server", &server, "--token-file", &token, "--start-timeout", "2s"]).await
    };

    let ran = proxy(&config, &["--server", &server]).await;
    refused("no token", &ran, 4, &[&server, "weft token create --service"]);
    let used = mesh.token("web").await;
    let mut first = super::mesh::Sidecar::ready(mesh.launch_with(&spec, Some(&used))).await;
    let ran = enrol(&used).await;
    refused("a used token", &ran, 4, &[&server, "used", "weft token create --service"]);
    assert!(!ran.err.contains(text(&used).split('.').nth(2).unwrap()), "the secret is shown");
    assert_eq!(first.stop().await, 0);

    let foreign = mesh.token("db").await;
    refused("a token for another service", &enrol(&foreign).await, 4, &[&server, "web"]);
    let fresh = text(&mesh.token("web").await);
    let parts: Vec<&str> = fresh.split('.').collect();
    let wrong = mesh.file("wrong", &format!("wt1.{}.{}.{}", parts[1], "0".repeat(64), parts[3]));
    refused("a wrong token", &enrol(&wrong).await, 4, &[&server]);
    let unknown = format!("wt1.{}.{}.{}", "0".repeat(16), parts[2], parts[3]);
    refused("an unknown token", &enrol(&mesh.file("unknown", &unknown)).await, 4, &[&server]);
    for bad in ["wt1.hello", &fresh[..fresh.len() - 1]] {
        let ran = enrol(&mesh.file("malformed", bad)).await;
        refused("a malformed token", &ran, 4, &["malformed", "whole"]);
        assert!(!ran.err.contains(parts[2]), "the secret is shown");
    }
    let elsewhere = other.token("web").await;
    refused("a token of another mesh", &enrol(&elsewhere).await, 4, &[&server, "pinned"]);
    assert!(mesh.passing("web").await.is_empty());
}

#[tokio::test]
async fn two_sidecars_for_one_instance() {
    let mesh = Mesh::start().await;
    let spec = Spec::new("web", "web-1", 1);
    let mut first = mesh.sidecar(&spec).await;
    let second = Spec { inbound_port: free_port(), ..spec.clone() };
    let mut process = mesh.launch(&second).await;
    let code = process.ended().await;
    let ran = Ran { code, out: process.stdout(), err: process.stderr() };
    refused("a claimed instance", &ran, 4, &["web-1", "edge", "another sidecar"]);
    assert_eq!(mesh.passing("web").await, ["web-1"]);
    // A successor may take over at once when the first has died.
    first.process.signal(rustix::process::Signal::KILL);
    first.process.ended().await;
    mesh.sidecar(&spec).await;
}
