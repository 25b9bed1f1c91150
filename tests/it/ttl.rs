//! TTL checks: fed by whatever door they stay as they are, unfed they expire, and one clock each.

use std::time::Duration;

use tokio::time::{Instant, interval};
use tonic::transport::Channel;
use weft::app::server::Server;
use weft::model::{Check, CheckStatus};
use weft::pb;
use weft::pb::registry_client::RegistryClient;
use weft::tls;

use crate::control::{dial, eventually};
use crate::http;
use crate::mesh;

const TTL: Duration = Duration::from_secs(2);
const FEED_EVERY: Duration = Duration::from_millis(500);
/// More than two periods.
const FED_FOR: Duration = Duration::from_millis(4_500);

fn check(server: &Server, service: &str) -> Check {
    let record = server.catalog().check(&mesh::node(), &format!("service:{service}")).unwrap();
    (*record.check).clone()
}

async fn register_over_http(server: &Server, service: &str) {
    let body = format!(r#"{{"Name":"{service}","Port":80,"Check":{{"TTL":"2s","Status":"passing"}}}}"#);
    let answer = http::send(server.bound().http, "PUT", "/v1/agent/service/register", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn feed_over_http(server: &Server, service: &str) {
    let target = format!("/v1/agent/check/pass/service:{service}");
    let answer = http::send(server.bound().http, "PUT", &target, "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn register_over_grpc(client: &mut RegistryClient<Channel>, service: &str) {
    let instance = pb::Instance { name: service.to_owned(), port: 80, ..Default::default() };
    let status = pb::CheckStatus::Passing.into();
    let check = pb::Check { ttl_ms: 2_000, status, ..Default::default() };
    let request = pb::RegisterRequest { instance: Some(instance), checks: vec![check], lease: 0 };
    client.register(request).await.unwrap();
}

async fn feed_over_grpc(client: &mut RegistryClient<Channel>, service: &str) {
    let report = pb::CheckReport {
        id: format!("service:{service}"),
        status: pb::CheckStatus::Passing.into(),
        output: String::new(),
    };
    let request = pb::ReportChecksRequest { node: String::new(), reports: vec![report] };
    client.report_checks(request).await.unwrap();
}

/// The check was passing all the time; from now on nobody feeds it.
async fn expires(server: &Server, service: &str) {
    let expired = || check(server, service).status == CheckStatus::Critical;
    eventually("the end of the period", expired).await;
    assert_eq!(check(server, service).output, "TTL expired");
}

#[tokio::test]
async fn a_report_by_either_door_starts_the_clock_anew() {
    let server = mesh::server().await;
    let channel = dial(server.bound().grpc, tls::bootstrap_config(None)).await;
    let mut client = RegistryClient::new(channel);
    register_over_http(&server, "by-http").await;
    register_over_grpc(&mut client, "by-grpc").await;
    register_over_http(&server, "by-both").await;
    let (started, mut ticks) = (Instant::now(), interval(FEED_EVERY));
    while started.elapsed() < FED_FOR {
        ticks.tick().await;
        for service in ["by-http", "by-grpc", "by-both"] {
            let Check { status, output, .. } = check(&server, service);
            let after = started.elapsed();
            assert_eq!(status, CheckStatus::Passing, "{service} after {after:?}: {output}");
        }
        feed_over_http(&server, "by-http").await;
        feed_over_grpc(&mut client, "by-grpc").await;
        feed_over_grpc(&mut client, "by-both").await;
    }
    for service in ["by-http", "by-grpc", "by-both"] {
        expires(&server, service).await;
    }
    // An expired check comes back, and its clock runs again.
    feed_over_grpc(&mut client, "by-grpc").await;
    assert_eq!(check(&server, "by-grpc").status, CheckStatus::Passing);
    expires(&server, "by-grpc").await;
    server.stop().await;
}

#[tokio::test]
async fn the_clock_of_a_sidecars_check_runs_in_the_sidecar_only() {
    let server = mesh::server().await;
    let sidecar = mesh::sidecar(&server, "web", 80, &[], TTL).await;
    let admin = sidecar.bound().admin.unwrap();
    let unknown = http::send(admin, "PUT", "/v1/agent/check/pass/nope", "").await;
    assert_eq!(unknown.status, 404, "{unknown:?}");
    let (started, mut ticks) = (Instant::now(), interval(FEED_EVERY));
    while started.elapsed() < FED_FOR {
        ticks.tick().await;
        let Check { status, output, type_name, .. } = check(&server, "web");
        let after = started.elapsed();
        assert_eq!((status, type_name.as_str()), (CheckStatus::Passing, "ttl"), "{after:?}: {output}");
        let answer = http::send(admin, "PUT", "/v1/agent/check/pass/service:web?note=fine", "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    expires(&server, "web").await;
    sidecar.finish().await;
    server.stop().await;
}
