//! The keys of Consul's agent that are about DNS, and `zones`, which is ours.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::agent::set;
use super::fields::{Fields, Schema, text_of, wrong_type};
use crate::config::diagnostic::Code;
use crate::config::report::Report;
use crate::config::value::{Entry, Kind, Span, Value};
use crate::model::duration;

/// Where recursors listen unless they say so.
const DNS_PORT: u16 = 53;
/// Longest domain in bytes: names below it need room, and a DNS name ends at 255.
const MAX_DOMAIN_BYTES: usize = 160;
/// Longest label of a DNS name.
const MAX_LABEL_BYTES: usize = 63;
/// Most recursors and most zones: each name is compared with every zone.
const MAX_ENTRIES: usize = 32;
/// Longest time a resolver may keep an answer: a week, more is a slip of the pen.
const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Longest wait for one recursor: clients give up after some seconds.
const MAX_RECURSOR_TIMEOUT: Duration = Duration::from_secs(30);

/// What files say of DNS; `None` where no file does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsKeys {
    /// Lower case, without the final dot, like every domain here.
    pub domain: Option<String>,
    pub alt_domain: Option<String>,
    pub recursors: Vec<SocketAddr>,
    pub recursor_timeout: Option<Duration>,
    pub recursor_strategy: Option<RecursorStrategy>,
    pub node_ttl: Option<Duration>,
    /// By name of a service, `prefix*` or `*`.
    pub service_ttl: BTreeMap<String, Duration>,
    pub only_passing: Option<bool>,
    pub enable_truncate: Option<bool>,
    pub disable_compression: Option<bool>,
    pub enable_additional_node_meta_txt: Option<bool>,
    pub udp_answer_limit: Option<usize>,
    /// 0 is no limit.
    pub a_record_limit: Option<usize>,
    pub soa: SoaKeys,
    pub zones: Vec<ZoneKeys>,
}

/// In which order recursors are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecursorStrategy {
    Sequential,
    Random,
}

/// The `soa` block, in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SoaKeys {
    pub refresh: Option<u32>,
    pub retry: Option<u32>,
    pub expire: Option<u32>,
    pub min_ttl: Option<u32>,
}

/// One of `zones`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneKeys {
    pub name: String,
    pub kind: ZoneKind,
    pub ttl: Option<Duration>,
}

/// Whose rules a zone follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneKind {
    Kubernetes,
    /// `all_when_unhealthy`: with nobody healthy, everybody is in the answer.
    CloudMap {
        all_when_unhealthy: bool,
    },
}

const DNS_CONFIG: Schema = Schema::of(
    "dns_config",
    &[
        "node_ttl",
        "service_ttl",
        "only_passing",
        "enable_truncate",
        "disable_compression",
        "enable_additional_node_meta_txt",
        "udp_answer_limit",
        "a_record_limit",
        "recursor_timeout",
        "recursor_strategy",
        "soa",
        "zones",
    ],
)
.ignoring(&[
    ("answers always come from the live catalog", &["allow_stale", "max_stale"]),
    ("the catalog is in memory; there is nothing to cache", &["use_cache", "cache_max_age"]),
    ("there is one namespace", &["prefer_namespace"]),
]);

const SOA: Schema = Schema::of("soa", &["refresh", "retry", "expire", "min_ttl"]);

const ZONE: Schema = Schema::of("a zone", &["name", "kind", "ttl", "when_all_unhealthy"]);

/// Takes over what a file says of DNS.
pub(super) fn decode(report: &mut Report<'_>, top: &Fields<'_>, dns: &mut DnsKeys) {
    set(&mut dns.domain, top.parsed(report, "domain", domain));
    set(&mut dns.alt_domain, top.parsed(report, "alt_domain", domain));
    recursors(report, top, dns);
    let Some(entry) = top.object(report, "dns_config") else { return };
    let Some(fields) = Fields::open(report, &DNS_CONFIG, &entry.key, &entry.value) else { return };
    set(&mut dns.node_ttl, bounded(report, &fields, "node_ttl", MAX_TTL));
    service_ttl(report, &fields, dns);
    set(&mut dns.only_passing, fields.boolean(report, "only_passing"));
    set(&mut dns.enable_truncate, fields.boolean(report, "enable_truncate"));
    set(&mut dns.disable_compression, fields.boolean(report, "disable_compression"));
    let meta = fields.boolean(report, "enable_additional_node_meta_txt");
    set(&mut dns.enable_additional_node_meta_txt, meta);
    set(&mut dns.udp_answer_limit, number(report, &fields, "udp_answer_limit", 1..=i64::from(u16::MAX)));
    set(&mut dns.a_record_limit, number(report, &fields, "a_record_limit", 0..=i64::from(u16::MAX)));
    let timeout = bounded(report, &fields, "recursor_timeout", MAX_RECURSOR_TIMEOUT);
    set(&mut dns.recursor_timeout, timeout.filter(|timeout| !timeout.is_zero()));
    set(&mut dns.recursor_strategy, fields.parsed(report, "recursor_strategy", strategy));
    soa(report, &fields, &mut dns.soa);
    for value in fields.objects("zones") {
        zone(report, value, &mut dns.zones);
    }
}

fn recursors(report: &mut Report<'_>, top: &Fields<'_>, dns: &mut DnsKeys) {
    let Some(entry) = top.one(report, "recursors") else { return };
    let Kind::List(items) = &entry.value.kind else {
        return wrong_type(report, &entry.key, &entry.value, "a list of strings");
    };
    for item in items {
        let Some(text) = text_of(report, "recursors", item) else { continue };
        match recursor(text) {
            Some(address) if dns.recursors.contains(&address) => {}
            Some(_) if dns.recursors.len() >= MAX_ENTRIES => {
                let message = format!("there are at most {MAX_ENTRIES} recursors");
                report.error(Code::Limit, item.span, message);
            }
            Some(address) => dns.recursors.push(address),
            None => {
                let message = format!("`{text}` is not the address of a recursor");
                let help = "write an IP address, with a port if it is not 53: \"10.0.0.2:5353\"";
                report.error(Code::Value, item.span, message).help(help);
            }
        }
    }
}

fn recursor(text: &str) -> Option<SocketAddr> {
    let alone = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    alone.map(|ip| SocketAddr::new(ip, DNS_PORT)).ok().or_else(|| text.parse().ok())
}

fn service_ttl(report: &mut Report<'_>, fields: &Fields<'_>, dns: &mut DnsKeys) {
    for Entry { key, value, .. } in fields.free_object(report, "service_ttl") {
        let Some(text) = text_of(report, key, value) else { continue };
        match duration::parse(text) {
            Ok(ttl) if ttl <= MAX_TTL => {
                dns.service_ttl.insert(key.to_ascii_lowercase(), ttl);
            }
            Ok(_) => too_long(report, key, value.span, MAX_TTL),
            Err(error) => {
                let message = format!("`{key}` is not a duration: {error}");
                report.error(Code::Value, value.span, message).help("write \"10s\" or \"1m30s\"");
            }
        }
    }
}

fn bounded(
    report: &mut Report<'_>,
    fields: &Fields<'_>,
    key: &'static str,
    most: Duration,
) -> Option<Duration> {
    let (value, span) = fields.duration(report, key)?;
    if value > most {
        too_long(report, key, span, most);
        return None;
    }
    Some(value)
}

fn too_long(report: &mut Report<'_>, key: &str, span: Span, most: Duration) {
    let message = format!("`{key}` is longer than {}", duration::format(most));
    report.error(Code::Value, span, message);
}

fn number(
    report: &mut Report<'_>,
    fields: &Fields<'_>,
    key: &'static str,
    range: std::ops::RangeInclusive<i64>,
) -> Option<usize> {
    let (value, _) = fields.integer(report, key, range)?;
    usize::try_from(value).ok()
}

fn soa(report: &mut Report<'_>, fields: &Fields<'_>, soa: &mut SoaKeys) {
    let Some(entry) = fields.object(report, "soa") else { return };
    let Some(fields) = Fields::open(report, &SOA, &entry.key, &entry.value) else { return };
    let mut seconds = |key| {
        let (value, _) = fields.integer(report, key, 0..=i64::from(i32::MAX))?;
        u32::try_from(value).ok()
    };
    set(&mut soa.refresh, seconds("refresh"));
    set(&mut soa.retry, seconds("retry"));
    set(&mut soa.expire, seconds("expire"));
    set(&mut soa.min_ttl, seconds("min_ttl"));
}

/// Reads a zone; one that an earlier file gave is replaced.
fn zone(report: &mut Report<'_>, value: &Value, zones: &mut Vec<ZoneKeys>) {
    let Some(fields) = Fields::open(report, &ZONE, "zones", value) else { return };
    let errors = report.errors();
    let name = fields.parsed(report, "name", domain);
    let kind = fields.parsed(report, "kind", kind);
    let ttl = bounded(report, &fields, "ttl", MAX_TTL);
    let all_when_unhealthy = fields.parsed(report, "when_all_unhealthy", all_or_none);
    if report.errors() > errors {
        return;
    }
    let (Some(name), Some(kind)) = (name, kind) else {
        let missing = "a zone needs a `name` and a `kind`, \"kubernetes\" or \"cloudmap\"";
        report.missing(fields.span, missing);
        return;
    };
    let kind = match (kind, all_when_unhealthy) {
        (ZoneKind::CloudMap { .. }, Some(all_when_unhealthy)) => {
            ZoneKind::CloudMap { all_when_unhealthy }
        }
        (ZoneKind::Kubernetes, Some(_)) => {
            let message = "`when_all_unhealthy` is a setting of zones of the kind \"cloudmap\"";
            report.error(Code::Conflict, fields.span, message);
            return;
        }
        (kind, None) => kind,
    };
    zones.retain(|zone| zone.name != name);
    if zones.len() >= MAX_ENTRIES {
        report.error(Code::Limit, fields.span, format!("there are at most {MAX_ENTRIES} zones"));
        return;
    }
    zones.push(ZoneKeys { name, kind, ttl });
}

fn kind(text: &str) -> Result<ZoneKind, &'static str> {
    match text {
        "kubernetes" => Ok(ZoneKind::Kubernetes),
        "cloudmap" => Ok(ZoneKind::CloudMap { all_when_unhealthy: true }),
        _ => Err("`kind` must be \"kubernetes\" or \"cloudmap\""),
    }
}

fn all_or_none(text: &str) -> Result<bool, &'static str> {
    match text {
        "all" => Ok(true),
        "none" => Ok(false),
        _ => Err("`when_all_unhealthy` must be \"all\" or \"none\""),
    }
}

fn strategy(text: &str) -> Result<RecursorStrategy, &'static str> {
    match text {
        "sequential" => Ok(RecursorStrategy::Sequential),
        "random" => Ok(RecursorStrategy::Random),
        _ => Err("`recursor_strategy` must be \"sequential\" or \"random\""),
    }
}

/// A domain in lower case, without the final dot.
fn domain(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let good = |label: &str| (1..=MAX_LABEL_BYTES).contains(&label.len()) && label.bytes().all(plain);
    if name.len() <= MAX_DOMAIN_BYTES && name.split('.').all(good) {
        return Ok(name);
    }
    Err(format!(
        "`{text}` is not a domain: labels of letters, digits, `-` and `_` between dots, at most \
         {MAX_LABEL_BYTES} each and {MAX_DOMAIN_BYTES} together"
    ))
}
