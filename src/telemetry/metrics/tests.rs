//! What a scrape shows after things were counted.

use super::*;
use crate::model::Action;
use crate::telemetry::edges::MAX_EDGES;
use crate::telemetry::reading::Read;
use crate::telemetry::{EdgeReading, INBOUND, OUTBOUND, Reading, ServerMetrics};

fn samples(metrics: &ProxyMetrics) -> Vec<String> {
    lines(&metrics.registry())
}

fn lines(registry: &Registry) -> Vec<String> {
    encode(registry).lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

fn assert_has(samples: &[String], expected: &str) {
    assert!(samples.iter().any(|line| line == expected), "{expected} is not in {samples:#?}");
}

#[test]
fn an_edge_counts_under_its_labels() {
    let metrics = ProxyMetrics::new();
    let edge = metrics.edge(OUTBOUND, "web", "api");
    edge.opened();
    edge.opened();
    edge.bytes(10, 200);
    edge.bytes(1, 0);
    edge.dialled(Duration::from_millis(3));
    edge.closed(Reason::ConnectTimeout);
    metrics.edge(OUTBOUND, "web", "api").authorized(Action::Deny);
    let samples = samples(&metrics);
    for expected in [
        r#"weft_connections_opened_total{direction="outbound",src="web",dst="api"} 2"#,
        r#"weft_connections_closed_total{direction="outbound",src="web",dst="api",reason="connect_timeout"} 1"#,
        r#"weft_connections_open{direction="outbound"} 1"#,
        r#"weft_bytes_total{direction="outbound",src="web",dst="api",way="sent"} 11"#,
        r#"weft_bytes_total{direction="outbound",src="web",dst="api",way="received"} 200"#,
        r#"weft_authz_total{src="web",dst="api",action="deny"} 1"#,
        r#"weft_dial_seconds_bucket{le="0.005"} 1"#,
        r#"weft_dial_seconds_bucket{le="0.0025"} 0"#,
    ] {
        assert_has(&samples, expected);
    }
}

#[test]
fn the_rest_of_a_proxy_is_visible() {
    let metrics = ProxyMetrics::new();
    assert!(!samples(&metrics).iter().any(|line| line.starts_with("weft_config_age_seconds")));
    metrics.tls_handshake(INBOUND, Reason::Ok);
    metrics.endpoints("api", "healthy", 3);
    metrics.ejected("api");
    let _open = metrics.lane(INBOUND);
    drop(metrics.lane(INBOUND));
    metrics.certificate(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    metrics.renewals(false, 1);
    metrics.control_connected(true);
    metrics.config_confirmed();
    metrics.config_updates(true, 1);
    metrics.limit_reached("max_streams");
    let samples = samples(&metrics);
    for expected in [
        r#"weft_tls_handshakes_total{direction="inbound",result="ok"} 1"#,
        r#"weft_endpoints{dst="api",state="healthy"} 3"#,
        r#"weft_ejections_total{dst="api"} 1"#,
        r#"weft_lanes_open{direction="inbound"} 1"#,
        "weft_cert_expiry_timestamp_seconds 1800000000",
        r#"weft_cert_renewals_total{result="error"} 1"#,
        "weft_control_connected 1",
        r#"weft_config_updates_total{result="applied"} 1"#,
        r#"weft_limit_reached_total{limit="max_streams"} 1"#,
        concat!(r#"weft_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
    ] {
        assert_has(&samples, expected);
    }
    let age = samples.iter().find_map(|line| line.strip_prefix("weft_config_age_seconds "));
    assert!(age.unwrap().parse::<f64>().unwrap() < 60.0);
}

#[test]
fn label_sets_are_bounded_and_nothing_is_lost() {
    let metrics = ProxyMetrics::new();
    let total = MAX_EDGES + 1_000;
    for n in 0..total {
        metrics.edge(INBOUND, &format!("peer-{n}"), "api").opened();
        metrics.ejected(&format!("upstream-{n}"));
    }
    metrics.edge(INBOUND, "peer-0", "api").opened();
    let samples = samples(&metrics);
    let series = |name: &str| samples.iter().filter(|line| line.starts_with(name)).count();
    assert_eq!(series("weft_connections_opened_total"), MAX_EDGES + 1);
    assert_eq!(series("weft_ejections_total"), MAX_DESTINATIONS + 1);
    assert_has(
        &samples,
        r#"weft_connections_opened_total{direction="inbound",src="other",dst="other"} 1000"#,
    );
    assert_has(
        &samples,
        r#"weft_connections_opened_total{direction="inbound",src="peer-0",dst="api"} 2"#,
    );
}

#[test]
fn label_values_are_escaped() {
    let metrics = ProxyMetrics::new();
    metrics.edge(INBOUND, "a\"b\\c", "api").opened();
    assert_has(
        &samples(&metrics),
        r#"weft_connections_opened_total{direction="inbound",src="a\"b\\c",dst="api"} 1"#,
    );
}

#[test]
#[cfg(target_os = "linux")]
fn process_basics_are_plausible() {
    let samples = samples(&ProxyMetrics::new());
    let value = |name: &str| {
        let line = samples
            .iter()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("no {name}"));
        line.trim().parse::<f64>().unwrap()
    };
    assert!(value("weft_process_resident_memory_bytes ") > 1_000_000.0);
    assert!(value("weft_process_open_fds ") >= 3.0);
    assert!(value("weft_process_cpu_seconds_total ") >= 0.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let age = now - value("weft_process_start_time_seconds ");
    assert!((-2.0..3_600.0).contains(&age), "the process is {age} s old");
}

#[test]
fn a_server_counts() {
    let metrics = ServerMetrics::new();
    let edge = |reason, bytes_sent| EdgeReading {
        source: "web".to_owned(),
        destination: "db".to_owned(),
        reason,
        connections: 2,
        bytes_sent,
        bytes_received: 7,
    };
    let reading = Reading {
        proxies_connected: 1,
        catalog: vec![("instances", 12)],
        checks: vec![("critical", 3)],
        edges: vec![edge("denied", 0), edge("ok", 5)],
    };
    let read: Arc<Read> = Arc::new(move || reading.clone());
    metrics.read_with(&read);
    metrics.store_commit("ok");
    metrics.grpc_request("Sync", "ok");
    metrics.http_request("/v1/agent/self", "GET", 200, Some(Duration::from_millis(1)));
    metrics.http_request("/v1/agent/self", "HACK", 418, None);
    metrics.check_changed("critical");
    metrics.certificate_issued(true);
    metrics.token("used");
    let samples = lines(&metrics.registry());
    for expected in [
        "weft_proxies_connected 1",
        r#"weft_catalog_size{kind="instances"} 12"#,
        r#"weft_catalog_checks{status="critical"} 3"#,
        r#"weft_edge_connections_total{src="web",dst="db",reason="denied"} 2"#,
        r#"weft_edge_connections_total{src="web",dst="db",reason="ok"} 2"#,
        r#"weft_edge_bytes_total{src="web",dst="db",way="sent"} 5"#,
        r#"weft_edge_bytes_total{src="web",dst="db",way="received"} 14"#,
        r#"weft_store_commits_total{result="ok"} 1"#,
        r#"weft_grpc_requests_total{method="Sync",code="ok"} 1"#,
        r#"weft_http_requests_total{route="/v1/agent/self",method="GET",class="2xx"} 1"#,
        r#"weft_http_requests_total{route="/v1/agent/self",method="other",class="4xx"} 1"#,
        "weft_http_request_seconds_count 1",
        r#"weft_check_changes_total{status="critical"} 1"#,
        r#"weft_certificates_issued_total{result="ok"} 1"#,
        r#"weft_tokens_total{event="used"} 1"#,
    ] {
        assert_has(&samples, expected);
    }
}
