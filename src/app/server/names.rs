//! The DNS port: settings from files, and where it is bound.

use std::io;
use std::net::SocketAddr;

use super::{Settings, free};
use crate::app::AppError;
use crate::app::ports::NEXT_FREE_TRIES;
use crate::catalog::Catalog;
use crate::config::{DnsKeys, RecursorStrategy, ZoneKeys, ZoneKind};
use crate::dns::{self, DnsError, Domain};
use crate::telemetry::ServerMetrics;

/// Consul's domain.
const DOMAIN: &str = "consul";

/// What a server is told of DNS.
#[derive(Debug, Clone)]
pub struct DnsSettings {
    pub address: SocketAddr,
    pub names: dns::Settings,
}

/// The settings that files give, over the defaults.
///
/// # Errors
/// When a domain cannot be a DNS name.
pub fn names(keys: &DnsKeys) -> Result<dns::Settings, DnsError> {
    let mut names = dns::Settings::new(Domain::new(keys.domain.as_deref().unwrap_or(DOMAIN))?);
    names.alt_domain = keys.alt_domain.as_deref().map(Domain::new).transpose()?;
    names.zones = keys.zones.iter().map(zone).collect::<Result<_, _>>()?;
    names.node_ttl = keys.node_ttl.map_or(names.node_ttl, seconds);
    for (pattern, ttl) in &keys.service_ttl {
        names.service_ttl.insert(pattern, seconds(*ttl));
    }
    names.soa.refresh = keys.soa.refresh.unwrap_or(names.soa.refresh);
    names.soa.retry = keys.soa.retry.unwrap_or(names.soa.retry);
    names.soa.expire = keys.soa.expire.unwrap_or(names.soa.expire);
    names.soa.min_ttl = keys.soa.min_ttl.unwrap_or(names.soa.min_ttl);
    names.only_passing = keys.only_passing.unwrap_or(names.only_passing);
    names.udp_answer_limit = keys.udp_answer_limit.unwrap_or(names.udp_answer_limit);
    names.a_record_limit = keys.a_record_limit.filter(|limit| *limit > 0);
    names.enable_truncate = keys.enable_truncate.unwrap_or(names.enable_truncate);
    names.compress = keys.disable_compression.map_or(names.compress, |disabled| !disabled);
    names.node_meta_txt = keys.enable_additional_node_meta_txt.unwrap_or(names.node_meta_txt);
    names.recursors.clone_from(&keys.recursors);
    names.recursor_timeout = keys.recursor_timeout.unwrap_or(names.recursor_timeout);
    names.recursor_order = match keys.recursor_strategy {
        Some(RecursorStrategy::Random) => dns::RecursorOrder::Random,
        Some(RecursorStrategy::Sequential) | None => dns::RecursorOrder::Sequential,
    };
    Ok(names)
}

fn zone(keys: &ZoneKeys) -> Result<dns::Zone, DnsError> {
    let kind = match keys.kind {
        ZoneKind::Kubernetes => dns::ZoneKind::Kubernetes,
        ZoneKind::CloudMap { all_when_unhealthy } => dns::ZoneKind::CloudMap { all_when_unhealthy },
    };
    let ttl = keys.ttl.map_or(kind.default_ttl(), seconds);
    Ok(dns::Zone { domain: Domain::new(&keys.name)?, kind, ttl })
}

/// Whole seconds, as DNS has them; files bound what they say.
fn seconds(ttl: std::time::Duration) -> u32 {
    u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX)
}

/// Binds the DNS port, if there is to be one. Where ports may move, it must be free for UDP, too.
pub(super) fn bind(
    settings: &Settings,
    catalog: &Catalog,
    metrics: &ServerMetrics,
) -> Result<Option<dns::Server>, AppError> {
    let Some(DnsSettings { address, names }) = &settings.dns else { return Ok(None) };
    let mut wanted = *address;
    for _try in 0..NEXT_FREE_TRIES {
        let address = free(wanted, "DNS", settings.next_free_ports)?;
        match dns::Server::bind(address, catalog.clone(), names.clone(), metrics.clone()) {
            Err(DnsError::Bind { source, .. })
                if settings.next_free_ports && source.kind() == io::ErrorKind::AddrInUse =>
            {
                wanted.set_port(address.port().saturating_add(1));
            }
            bound => return Ok(Some(bound?)),
        }
    }
    let source = io::ErrorKind::AddrInUse.into();
    Err(DnsError::Bind { address: *address, source }.into())
}

/// Answers names until `stop`; gives what has ended then.
pub(super) async fn serve(port: dns::Server, stop: impl Future<Output = ()>) -> &'static str {
    port.serve(stop).await;
    "the DNS port"
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn files_change_what_they_say_and_no_more() {
        let defaults = names(&DnsKeys::default()).unwrap();
        assert_eq!(defaults, dns::Settings::new(Domain::new("consul").unwrap()));
        let keys = DnsKeys {
            domain: Some("mesh".to_owned()),
            node_ttl: Some(Duration::from_millis(1500)),
            service_ttl: [("web*".to_owned(), Duration::from_secs(7))].into(),
            a_record_limit: Some(0),
            disable_compression: Some(true),
            zones: vec![ZoneKeys {
                name: "cluster.local".to_owned(),
                kind: ZoneKind::Kubernetes,
                ttl: None,
            }],
            ..DnsKeys::default()
        };
        let changed = names(&keys).unwrap();
        let mut expected = dns::Settings::new(Domain::new("mesh").unwrap());
        expected.node_ttl = 1;
        expected.service_ttl.insert("web*", 7);
        expected.compress = false;
        let (domain, kind) = (Domain::new("cluster.local").unwrap(), dns::ZoneKind::Kubernetes);
        expected.zones = vec![dns::Zone { domain, kind, ttl: 5 }];
        assert_eq!(changed, expected);
    }
}
