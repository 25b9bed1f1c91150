//! `weft proxies`: the sidecars the server knows, and whether they follow it.

use std::time::Duration;

use super::call::Call;
use super::client::Client;
use super::error::{CliError, Exit};
use super::output::{Cell, Style, Tone, table};
use super::report::Report;
use crate::api::json::weft::Proxy;
use crate::model::duration;

pub(super) async fn run(client: &Client, style: Style) -> Result<Report, CliError> {
    let proxies: Vec<Proxy> = client.call(&Call::get("/v1/weft/proxies")).await?;
    report(&proxies, style)
}

/// Exits 1 when a sidecar is lost, refuses its configuration or has an expired certificate.
fn report(proxies: &[Proxy], style: Style) -> Result<Report, CliError> {
    let rows: Vec<_> = proxies.iter().map(row).collect();
    let head = ["SERVICE", "INSTANCE", "NODE", "VERSION", "STATE", "REVISION", "CERT LEFT", "REFUSED"];
    let report = Report::new(table(style, &head, &rows), proxies)?;
    if proxies.is_empty() {
        return Ok(
            report.with_note("no sidecar has connected; start one with `weft proxy` or `weft run`")
        );
    }
    let bad = proxies.iter().any(|proxy| state(proxy).0 == Tone::Bad || has_expired(proxy));
    Ok(report.with_exit(if bad { Exit::Negative } else { Exit::Ok }))
}

fn state(proxy: &Proxy) -> (Tone, &'static str) {
    match (proxy.connected, proxy.draining) {
        _ if !proxy.refused.is_empty() => (Tone::Bad, "refusing"),
        (_, true) => (Tone::Warn, "draining"),
        (true, false) => (Tone::Good, "connected"),
        (false, false) => (Tone::Bad, "lost"),
    }
}

fn has_expired(proxy: &Proxy) -> bool {
    proxy.leaf_seconds_left.is_some_and(|left| left <= 0)
}

fn row(proxy: &Proxy) -> Vec<Cell> {
    let (tone, state) = state(proxy);
    let certificate = match proxy.leaf_seconds_left.map(u64::try_from) {
        None => Cell::from("unknown"),
        Some(Ok(left @ 1..)) => Cell::from(duration::format(Duration::from_secs(left))),
        Some(_) => Cell::new(Tone::Bad, "expired"),
    };
    vec![
        Cell::from(&proxy.service),
        Cell::from(&proxy.instance),
        Cell::from(&proxy.node),
        Cell::from(&proxy.version),
        Cell::new(tone, state),
        Cell::from(proxy.acknowledged.revision.to_string()),
        certificate,
        Cell::from(proxy.refused.join("; ")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::json::weft::PositionJson;

    fn proxy(connected: bool, refused: &[&str], left: Option<i64>) -> Proxy {
        Proxy {
            service: "web".to_owned(),
            instance: "web-1".to_owned(),
            node: "n1".to_owned(),
            version: "0.1.0".to_owned(),
            connected,
            draining: false,
            since: "2026-11-23T08:30:46Z".to_owned(),
            acknowledged: PositionJson { epoch: "00".to_owned(), revision: 7 },
            refused: refused.iter().map(|text| (*text).to_owned()).collect(),
            leaf_not_after: None,
            leaf_seconds_left: left,
        }
    }

    #[test]
    fn golden() {
        let style = Style { color: false, unicode: false };
        let all = [
            proxy(true, &[], Some(3661)),
            proxy(true, &["endpoint x"], Some(-1)),
            proxy(false, &[], None),
        ];
        let report = report(&all, style).unwrap();
        assert_eq!(
            report.text,
            "SERVICE  INSTANCE  NODE  VERSION  STATE      REVISION  CERT LEFT  REFUSED\n\
             web      web-1     n1    0.1.0    connected  7         1h1m1s\n\
             web      web-1     n1    0.1.0    refusing   7         expired    endpoint x\n\
             web      web-1     n1    0.1.0    lost       7         unknown\n"
        );
        assert_eq!(report.json[0]["acknowledged"]["revision"], 7);
    }

    #[test]
    fn exits_by_table() {
        let style = Style { color: false, unicode: false };
        let mut leaving = proxy(false, &[], Some(9));
        leaving.draining = true;
        for (proxy, exit) in [
            (proxy(true, &[], Some(9)), Exit::Ok),
            (leaving, Exit::Ok),
            (proxy(true, &["x"], Some(9)), Exit::Negative),
            (proxy(false, &[], Some(9)), Exit::Negative),
            (proxy(true, &[], Some(0)), Exit::Negative),
        ] {
            assert_eq!(report(std::slice::from_ref(&proxy), style).unwrap().exit, exit, "{proxy:?}");
        }
    }
}
