//! Certificates that live for seconds, under load. A lane closes when a certificate of it expires,
//! by design, and its streams with it: what must never fail is a new connection.

use std::time::Duration;

use rustix::process::Signal;

use super::mesh::{Mesh, Sidecar, Spec};
use super::support::{slow, until};
use super::traffic::{App, Load};
use crate::pace;

#[tokio::test]
async fn new_connections_do_not_notice_renewals() {
    let (ttl, lives) = match slow("ten lives of 60 s instead of one of 10 s") {
        true => ("60s", Duration::from_secs(600)),
        false => ("10s", Duration::from_secs(12)),
    };
    let (mesh, app) = (Mesh::dev(ttl).await, App::start("db-1").await);
    let db = mesh.sidecar(&Spec::new("db", "db-1", app.port())).await;
    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let web = mesh.sidecar(&spec).await;
    let load = Load::start(spec.door(), 50);
    load.last(lives).await;
    let seen = load.finish().await;
    let mut renewals = Vec::new();
    for sidecar in [&web, &db] {
        let counted = sidecar.metric(r#"weft_cert_renewals_total{result="ok"}"#).await.unwrap();
        let log = sidecar.process.log();
        let installed = log.iter().filter(|line| line["message"] == "certificate installed").count();
        assert_eq!(counted, f64::from(u32::try_from(installed).unwrap()));
        // The first, and one at 50 % ± 10 % of each life.
        assert!(installed >= 3, "{installed} certificates in {lives:?}");
        let expiry = sidecar.metric("weft_cert_expiry_timestamp_seconds").await.unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(expiry > now.as_secs_f64(), "the certificate in use has expired");
        renewals.push(installed);
    }
    println!(
        "{ttl} for {lives:?}: {} ok, {} failed, certificates {renewals:?}",
        seen.total(),
        seen.failures.len()
    );
    assert!(seen.failures.is_empty(), "{:?}", seen.failures);
}

/// How often a sidecar has renewed its certificate.
async fn renewals(sidecar: &Sidecar) -> f64 {
    sidecar.metric(r#"weft_cert_renewals_total{result="ok"}"#).await.unwrap_or_default()
}

#[tokio::test]
async fn an_authority_that_is_away_for_half_a_lifetime_is_not_missed() {
    const LIFE: Duration = Duration::from_secs(20);
    let (mut mesh, app) = (Mesh::dev("20s").await, App::start("db-1").await);
    let db = mesh.sidecar(&Spec::new("db", "db-1", app.port())).await;
    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let web = mesh.sidecar(&spec).await;
    let load = Load::start(spec.door(), 50);
    let first = renewals(&web).await;
    until("a renewal", async || renewals(&web).await > first).await;
    // Just before the next one, which is as late as it can be.
    pace::throughout(LIFE.mul_f64(0.34)).await;
    let before = [renewals(&web).await, renewals(&db).await];
    mesh.server().signal(Signal::STOP);
    pace::throughout(LIFE / 2).await;
    assert_eq!(renewals(&web).await, before[0], "somebody else signs");
    mesh.server().signal(Signal::CONT);
    for (sidecar, before) in [&web, &db].into_iter().zip(before) {
        until("a renewal after the return", async || renewals(sidecar).await > before).await;
    }
    let seen = load.finish().await;
    println!("{} ok, {} failed", seen.total(), seen.failures.len());
    assert!(seen.failures.is_empty(), "{:?}", seen.failures);
}
