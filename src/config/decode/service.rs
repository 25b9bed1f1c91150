//! A service definition, the same in files and in the API.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::Context;
use super::check::{self, CHECK, Subject};
use super::fields::{Fields, Reasons, Schema, text_of};
use super::proxy::{self, PROXY};
use super::sidecar;
use crate::config::diagnostic::Code;
use crate::config::report::Report;
use crate::config::value::{Entry, Span, Value};
use crate::model::service::TaggedAddress;
use crate::model::{Definition, InstanceId, Kind, NameError, ProxySpec, ServiceName, Sidecar, Weights};

/// Consul's limits on metadata.
const MAX_META_PAIRS: usize = 64;
const MAX_META_KEY_BYTES: usize = 128;
const MAX_META_VALUE_BYTES: usize = 512;
/// Consul's range of a weight.
const WEIGHT: RangeInclusive<i64> = 0..=65_535;
/// Longest label of a DNS name.
const MAX_DNS_LABEL_BYTES: usize = 63;

/// Kinds of Consul's that are not built here.
const GATEWAYS: [&str; 4] = ["mesh-gateway", "terminating-gateway", "ingress-gateway", "api-gateway"];

pub(super) const ONE_PORT: Reasons =
    &[("an instance is reached at one TCP port", &["socket_path", "ports"])];
pub(super) const HINTS: Reasons = &[
    ("what a file declares needs no token; proxies prove who they are by certificate", &["token"]),
    ("instances are not chosen by locality", &["locality"]),
];

pub(super) const SERVICE: Schema = Schema::of(
    "service",
    &[
        "name",
        "id",
        "port",
        "address",
        "tags",
        "meta",
        "check",
        "checks",
        "connect",
        "kind",
        "proxy",
        "tagged_addresses",
        "weights",
        "enable_tag_override",
        "namespace",
        "partition",
    ],
)
.refusing(ONE_PORT)
.ignoring(HINTS)
.containing(&[("check", CHECK.keys), ("connect", CONNECT.keys), ("proxy", PROXY.keys)]);

const CONNECT: Schema = Schema::of("connect", &["native", "sidecar_service"]).refusing(&[(
    "proxies that the agent starts were removed from Consul as well; use `sidecar_service`",
    &["proxy"],
)]);

const WEIGHTS: Schema = Schema::of("weights", &["passing", "warning"]);

const TAGGED: Schema = Schema::of("tagged address", &["address", "port"]);

/// Decodes a service; `None` when anything in it is an error.
pub(super) fn decode(cx: &mut Context<'_, '_>, value: &Value) -> Option<Definition> {
    let errors = cx.report.errors();
    let fields = Fields::open(cx.report, &SERVICE, "service", value)?;
    let name = name(cx.report, &fields);
    let id = id(cx, &fields, name.as_ref());
    let port = fields.port(cx.report, "port").unwrap_or_default();
    default_tenancy(cx.report, &fields);
    // Checks are decoded for their faults even when the service has no usable name or id.
    let subject = Subject {
        id: id.as_ref().map_or("", InstanceId::as_str),
        name: name.as_ref().map_or("", ServiceName::as_str),
    };
    let checks = check::of_service(cx, &fields, subject);
    let (native, sidecar) = connect(cx, &fields, subject);
    let proxy = proxy_of(cx, &fields, port);
    let report = &mut *cx.report;
    let definition = Definition {
        tags: fields.texts(report, "tags"),
        meta: meta(report, &fields),
        address: address(report, &fields).unwrap_or_default(),
        port,
        tagged_addresses: tagged_addresses(report, &fields),
        weights: weights(report, &fields).unwrap_or_default(),
        enable_tag_override: fields.boolean(report, "enable_tag_override").unwrap_or_default(),
        native,
        checks,
        sidecar,
        proxy,
        id: id?,
        name: name?,
    };
    (cx.report.errors() == errors).then_some(definition)
}

fn name(report: &mut Report<'_>, fields: &Fields<'_>) -> Option<ServiceName> {
    let given = fields.text_entry(report, "name").filter(|(name, _)| !name.is_empty());
    let Some((text, span)) = given else {
        if fields.all("name").all(|entry| entry.value.is_unset()) && !fields.is_labelled() {
            let fault = report.missing(fields.span, "this service has no `name`");
            fault.help("add one: name = \"web\"").consul("Missing service name");
        }
        return None;
    };
    let name = named(report, span, ServiceName::new(text))?;
    if !is_dns_label(text) {
        report
            .warning(Code::Adjusted, span, "this name is not a DNS label, and some resolvers refuse it")
            .help("use letters, digits and hyphens, at most 63");
    }
    Some(name)
}

/// The value of a name, or a word about what is wrong with it.
pub(super) fn named<T>(report: &mut Report<'_>, span: Span, name: Result<T, NameError>) -> Option<T> {
    name.map_err(|error| {
        report.error(Code::Value, span, error.to_string());
    })
    .ok()
}

fn is_dns_label(name: &str) -> bool {
    name.len() <= MAX_DNS_LABEL_BYTES
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// The id is the name unless given. It and the id of the sidecar must be free.
fn id(cx: &mut Context<'_, '_>, fields: &Fields<'_>, name: Option<&ServiceName>) -> Option<InstanceId> {
    let given = fields.text_entry(cx.report, "id").filter(|(id, _)| !id.is_empty());
    let (text, span) = match given {
        Some(given) => given,
        None => {
            (name?.as_str(), fields.all("name").last().map_or(fields.span, |entry| entry.value.span))
        }
    };
    let id = named(cx.report, span, InstanceId::new(text))?;
    cx.claim_instance(id.as_str(), span);
    Some(id)
}

/// Namespaces and partitions are part of a service's identity, so no other than the default may
/// pass as the default.
pub(super) fn default_tenancy(report: &mut Report<'_>, fields: &Fields<'_>) {
    for key in ["namespace", "partition", "destination_namespace", "destination_partition"] {
        let Some((text, span)) = fields.text_entry(report, key) else { continue };
        if !text.is_empty() && text != "default" {
            let message = format!("`{key}` must be \"default\": there is only one");
            report.error(Code::Unsupported, span, message);
        }
    }
}

/// `connect`: whether the application speaks Connect itself, and its sidecar.
fn connect(
    cx: &mut Context<'_, '_>,
    fields: &Fields<'_>,
    parent: Subject<'_>,
) -> (bool, Option<Sidecar>) {
    let Some(entry) = fields.object(cx.report, "connect") else { return (false, None) };
    let Some(connect) = Fields::open(cx.report, &CONNECT, &entry.key, &entry.value) else {
        return (false, None);
    };
    let native = connect.boolean(cx.report, "native").unwrap_or_default();
    let sidecar = connect.object(cx.report, "sidecar_service");
    let sidecar = sidecar.and_then(|entry| sidecar::decode(cx, entry, parent));
    (native, sidecar)
}

/// The `proxy` part of a service of kind `connect-proxy`; other kinds have none.
fn proxy_of(cx: &mut Context<'_, '_>, fields: &Fields<'_>, port: u16) -> Option<ProxySpec> {
    let report = &mut *cx.report;
    let block = fields.object(report, "proxy");
    if kind(report, fields) == Kind::Typical {
        if let Some(block) = block.filter(|block| !block.value.is_unset()) {
            let message = "`proxy` belongs to a service of kind \"connect-proxy\"";
            report
                .error(Code::Conflict, block.key_span, message)
                .help("put it into connect { sidecar_service { … } }");
        }
        return None;
    }
    if port == 0 && !fields.is_damaged(&["port"]) {
        let fault = report.missing(fields.span, "a connect-proxy needs a `port`");
        fault.consul("1 error occurred:\n\t* Port must be set for a Connect proxy\n\n");
    }
    proxy::of_connect_proxy(report, fields, block)
}

fn kind(report: &mut Report<'_>, fields: &Fields<'_>) -> Kind {
    let Some((word, span)) = fields.text_entry(report, "kind") else { return Kind::Typical };
    match word {
        "" => Kind::Typical,
        "connect-proxy" => Kind::ConnectProxy,
        _ if GATEWAYS.contains(&word) => {
            report.error(Code::Unsupported, span, "gateways are not supported");
            Kind::Typical
        }
        _ => {
            let message = "`kind` must be \"connect-proxy\" or left out";
            report.error(Code::Value, span, message);
            Kind::Typical
        }
    }
}

/// The address; the wildcards mean nothing to whoever wants to connect.
pub(super) fn address(report: &mut Report<'_>, fields: &Fields<'_>) -> Option<String> {
    let (text, span) = fields.text_entry(report, "address")?;
    check_address(report, text, span).then(|| text.to_owned())
}

fn check_address(report: &mut Report<'_>, text: &str, span: Span) -> bool {
    if matches!(text, "0.0.0.0" | "::" | "[::]") {
        let fault =
            report.error(Code::Value, span, "`address` cannot be a wildcard: others connect to it");
        fault.help("leave it out for the node's own address").consul("Invalid service address");
        return false;
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        report.error(Code::Value, span, "`address` must be an IP address or a host name");
        return false;
    }
    true
}

/// String pairs within Consul's limits.
pub(super) fn meta(report: &mut Report<'_>, fields: &Fields<'_>) -> BTreeMap<String, String> {
    let entries = fields.free_object(report, "meta");
    if let Some(extra) = entries.get(MAX_META_PAIRS) {
        let message =
            format!("`meta` has {} pairs; at most {MAX_META_PAIRS} are allowed", entries.len());
        let fault = report.error(Code::Limit, extra.key_span, message);
        fault.consul("Invalid Service Meta: Node metadata cannot contain more than 64 key/value pairs");
        return BTreeMap::new();
    }
    entries.iter().filter_map(|entry| meta_pair(report, entry)).collect()
}

fn meta_pair(report: &mut Report<'_>, entry: &Entry) -> Option<(String, String)> {
    // Consul's API names the map, not the key.
    let name = if report.is_api() { "Meta" } else { &entry.key };
    let value = text_of(report, name, &entry.value)?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let (span, message, consul) = if entry.key.is_empty() {
        (entry.key_span, "a key of `meta` is empty".to_owned(), "Key cannot be blank".to_owned())
    } else if !entry.key.bytes().all(is_plain) {
        let message = "a key of `meta` has only letters, digits, `_` and `-`";
        (entry.key_span, message.to_owned(), "Key contains invalid characters".to_owned())
    } else if entry.key.len() > MAX_META_KEY_BYTES {
        let limit = format!("(limit: {MAX_META_KEY_BYTES} characters)");
        (
            entry.key_span,
            format!("this key of `meta` is too long {limit}"),
            format!("Key is too long {limit}"),
        )
    } else if value.len() > MAX_META_VALUE_BYTES {
        let limit = format!("(limit: {MAX_META_VALUE_BYTES} characters)");
        (
            entry.value.span,
            format!("this value in `meta` is too long {limit}"),
            format!("Value is too long {limit}"),
        )
    } else {
        return Some((entry.key.clone(), value.to_owned()));
    };
    let pair = format!("('{}', '{value}')", entry.key);
    let fault = report.error(Code::Value, span, message);
    fault.consul(format!("Invalid Service Meta: Couldn't load metadata pair {pair}: {consul}"));
    None
}

pub(super) fn weights(report: &mut Report<'_>, fields: &Fields<'_>) -> Option<Weights> {
    let entry = fields.object(report, "weights")?;
    let weights = Fields::open(report, &WEIGHTS, &entry.key, &entry.value)?;
    let number = |(value, span): (i64, Span)| u32::try_from(value).ok().map(|value| (value, span));
    let defaults = Weights::default();
    let errors = report.errors();
    let passing = weights.integer(report, "passing", i64::MIN..=i64::MAX);
    let warning = weights.integer(report, "warning", WEIGHT).and_then(number);
    if let Some((_, span)) = passing.filter(|(value, _)| *value == 0 || !WEIGHT.contains(value)) {
        let message = format!("`passing` must be from 1 to {}", WEIGHT.end());
        let fault = report.error(Code::Value, span, message);
        fault.consul("Invalid Weights: Passing must be greater than 0");
    }
    let passing = passing.and_then(number);
    (report.errors() == errors).then(|| Weights {
        passing: passing.map_or(defaults.passing, |(value, _)| value),
        warning: warning.map_or(defaults.warning, |(value, _)| value),
    })
}

fn tagged_addresses(report: &mut Report<'_>, fields: &Fields<'_>) -> BTreeMap<String, TaggedAddress> {
    let mut addresses = BTreeMap::new();
    for entry in fields.free_object(report, "tagged_addresses") {
        let Some(tagged) = Fields::open(report, &TAGGED, &entry.key, &entry.value) else { continue };
        let address = address(report, &tagged).unwrap_or_default();
        let port = tagged.port(report, "port").unwrap_or_default();
        addresses.insert(entry.key.clone(), TaggedAddress { address, port });
    }
    addresses
}
