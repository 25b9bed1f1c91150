//! `weft status`: the mesh on one screen.

use super::call::Call;
use super::client::Client;
use super::error::{CliError, Exit};
use super::output::{Style, Tone, count, line};
use super::report::Report;
use crate::api::json::weft::Status;

pub(super) async fn run(client: &Client, style: Style) -> Result<Report, CliError> {
    let status: Status = client.call(&Call::get("/v1/weft/status")).await?;
    report(&status, &client.url(), style)
}

/// Exits 1 when a check is critical or a sidecar does not follow.
fn report(status: &Status, url: &str, style: Style) -> Result<Report, CliError> {
    let checks = status.checks;
    let checks_tone = match (checks.critical, checks.warning) {
        (1.., _) => Tone::Bad,
        (0, 1..) => Tone::Warn,
        (0, 0) => Tone::Good,
    };
    let proxies = status.proxies;
    let proxies_tone = if proxies.disconnected + proxies.refusing > 0 { Tone::Bad } else { Tone::Good };
    let Status { version, datacenter, node, default_policy, trust_domain, .. } = status;
    let lines = [
        (
            Tone::Good,
            "control plane",
            format!("weft {version} at {url}, datacenter {datacenter}, node {node}"),
        ),
        (
            Tone::Good,
            "services",
            format!("{}, {}", count(status.services, "service"), count(status.instances, "instance")),
        ),
        (
            checks_tone,
            "checks",
            format!(
                "{} passing, {} warning, {} critical",
                checks.passing, checks.warning, checks.critical
            ),
        ),
        (
            proxies_tone,
            "sidecars",
            format!(
                "{} connected, {} lost, {} refusing",
                proxies.connected, proxies.disconnected, proxies.refusing
            ),
        ),
        (
            Tone::Good,
            "policy",
            format!("{}, default {default_policy}", count(status.intentions, "intention")),
        ),
        (Tone::Good, "trust domain", trust_domain.clone()),
    ];
    let bad = lines.iter().any(|(tone, ..)| *tone == Tone::Bad);
    let text: String =
        lines.iter().map(|(tone, subject, said)| line(style, *tone, subject, said)).collect();
    Ok(Report::new(text, status)?.with_exit(if bad { Exit::Negative } else { Exit::Ok }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::json::weft::{CheckCounts, PositionJson, ProxyCounts};

    fn status(critical: usize) -> Status {
        Status {
            version: "0.1.0".to_owned(),
            datacenter: "dc1".to_owned(),
            node: "n1".to_owned(),
            trust_domain: "u.consul".to_owned(),
            default_policy: "deny".to_owned(),
            intentions: 1,
            services: 2,
            instances: 3,
            checks: CheckCounts { passing: 4, warning: 0, critical },
            proxies: ProxyCounts { connected: 2, disconnected: 0, refusing: 0 },
            position: PositionJson { epoch: "ab".to_owned(), revision: 9 },
        }
    }

    #[test]
    fn golden() {
        let style = Style { color: false, unicode: true };
        let report = report(&status(1), "http://127.0.0.1:8500", style).unwrap();
        assert_eq!(
            report.text,
            "✓ control plane weft 0.1.0 at http://127.0.0.1:8500, datacenter dc1, node n1\n\
             ✓ services      2 services, 3 instances\n\
             ✗ checks        4 passing, 0 warning, 1 critical\n\
             ✓ sidecars      2 connected, 0 lost, 0 refusing\n\
             ✓ policy        1 intention, default deny\n\
             ✓ trust domain  u.consul\n"
        );
        assert_eq!(report.exit, Exit::Negative);
        assert_eq!(report.json["checks"]["critical"], 1);
    }

    #[test]
    fn a_healthy_mesh_is_a_success() {
        let style = Style { color: false, unicode: true };
        assert_eq!(report(&status(0), "u", style).unwrap().exit, Exit::Ok);
    }
}
