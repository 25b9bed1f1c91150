//! The TLS ports as a scanner sees them: `sslyze` where it is installed, `openssl` everywhere.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::super::support::{free_port, local};
use super::pki::Authority;
use super::{Server, text};
use crate::programs;

/// A server whose two TLS ports a scanner can call.
async fn doors(directory: &Path) -> (Server, [SocketAddr; 2]) {
    let pair = Authority::new(directory, "own").issue("server");
    let files = [&pair.certificate, &pair.key].map(|path| text(path));
    let (http, grpc, https) = (local(free_port()), local(free_port()), local(free_port()));
    let doors = [http, grpc, https].map(|address| address.to_string());
    let flags = [
        "--http-addr",
        &doors[0],
        "--grpc-addr",
        &doors[1],
        "--https-addr",
        &doors[2],
        "--https-cert-file",
        &files[0],
        "--https-key-file",
        &files[1],
    ];
    (Server::start(directory, &flags).await, [grpc, https])
}

async fn openssl(address: SocketAddr, flags: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string()]).args(flags);
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn only_tls_1_3_and_no_tickets_by_openssl() {
    if !programs::present(&["openssl"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (_server, doors) = doors(directory.path()).await;
    for address in doors {
        let said = openssl(address, &["-tls1_3"]).await;
        assert!(said.contains("TLSv1.3") && !said.contains("New Session Ticket arrived"), "{said}");
        assert!(!said.contains("Post-Handshake New Session Ticket"), "{said}");
        let said = openssl(address, &["-tls1_2"]).await;
        assert!(said.contains("Cipher is (NONE)"), "{said}");
    }
}

/// Scans of sslyze that can find something on a server that speaks TLS 1.3 only.
const SCANS: [&str; 15] = [
    "--sslv2",
    "--sslv3",
    "--tlsv1",
    "--tlsv1_1",
    "--tlsv1_2",
    "--tlsv1_3",
    "--resum",
    "--early_data",
    "--compression",
    "--heartbleed",
    "--openssl_ccs",
    "--robot",
    "--reneg",
    "--fallback",
    "--elliptic_curves",
];

#[tokio::test]
async fn only_tls_1_3_no_tickets_and_no_findings_by_sslyze() {
    let clients = Path::new(env!("CARGO_BIN_EXE_weft")).ancestors().nth(2).unwrap().join("clients");
    let sslyze = clients.join("sslyze-6.3.1/bin/sslyze");
    if !programs::installed(&sslyze, "tests/clients/install") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (_server, doors) = doors(directory.path()).await;
    let report = directory.path().join("report.json");
    let mut command = Command::new(sslyze);
    command.args(SCANS).arg("--json_out").arg(&report).args(doors.map(|address| address.to_string()));
    command.stdin(Stdio::null());
    // Its exit code is about an advice of Mozilla's on certificates of public sites.
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let report = std::fs::read_to_string(&report).unwrap_or_else(|_| panic!("{ran:?}"));
    let report: Value = serde_json::from_str(&report).unwrap();
    let servers = report["server_scan_results"].as_array().unwrap();
    assert_eq!(servers.len(), doors.len());
    for server in servers {
        judge(&server["scan_result"]);
    }
}

fn judge(scans: &Value) {
    let of = |scan: &str| {
        assert_eq!(scans[scan]["status"], "COMPLETED", "{scan}: {}", scans[scan]);
        &scans[scan]["result"]
    };
    for (version, supported) in [
        ("ssl_2_0", false),
        ("ssl_3_0", false),
        ("tls_1_0", false),
        ("tls_1_1", false),
        ("tls_1_2", false),
        ("tls_1_3", true),
    ] {
        let scan = format!("{version}_cipher_suites");
        assert_eq!(of(&scan)["is_tls_version_supported"], supported, "{version}");
    }
    for (scan, field, value) in [
        ("tls_1_3_early_data", "supports_early_data", Value::from(false)),
        ("tls_compression", "supports_compression", Value::from(false)),
        ("heartbleed", "is_vulnerable_to_heartbleed", Value::from(false)),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", Value::from(false)),
        ("robot", "robot_result", Value::from("NOT_VULNERABLE_RSA_NOT_SUPPORTED")),
        ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", Value::from(false)),
    ] {
        assert_eq!(of(scan)[field], value, "{scan}");
    }
    let resumed = of("session_resumption");
    for way in ["session_id_resumption_result", "tls_ticket_resumption_result"] {
        assert_ne!(resumed[way], "FULLY_SUPPORTED", "{resumed}");
        assert_ne!(resumed[way], "PARTIALLY_SUPPORTED", "{resumed}");
    }
}
