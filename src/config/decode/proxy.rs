//! The `proxy` object of a sidecar or of a hand-made proxy registration, and its upstreams.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::fields::{Fields, Schema, is_key};
use super::service::default_tenancy;
use crate::config::diagnostic::Code;
use crate::config::report::Report;
use crate::config::value::{Entry, Kind, Value, to_json_map};
use crate::model::upstream::{Finding, Weight};
use crate::model::{InstanceId, ProxySpec, ServiceName, Upstream, UpstreamConfig};

/// Where a proxy looks for its application unless told.
const LOCAL_ADDRESS: &str = "127.0.0.1";

pub(super) const PROXY: Schema = Schema::of(
    "proxy",
    &[
        "upstreams",
        "config",
        "local_service_address",
        "local_service_port",
        "destination_service_name",
        "destination_service_id",
        "mode",
        "mesh_gateway",
    ],
)
.refusing(&[
    ("the application is reached over TCP", &["local_service_socket_path"]),
    (
        "traffic is not captured; applications connect to the local ports of `upstreams`",
        &["transparent_proxy"],
    ),
    ("no path is reachable without mutual TLS", &["expose"]),
    ("there is no Envoy to extend", &["envoy_extensions"]),
])
.ignoring(&[("the access log is set up where the proxy is started", &["access_logs"])])
.containing(&[("upstreams", UPSTREAM.keys)]);

const UPSTREAM: Schema = Schema::of(
    "upstream",
    &[
        "destination_name",
        "local_bind_port",
        "local_bind_address",
        "destination_type",
        "datacenter",
        "config",
        "mesh_gateway",
        "destination_namespace",
        "destination_partition",
        // Sent back by clients that read a registration before they write it.
        "centrally_configured",
    ],
)
.refusing(&[
    ("an upstream listens on a TCP port", &["local_bind_socket_path", "local_bind_socket_mode"]),
    ("there is no peering", &["destination_peer"]),
    ("a service has one port", &["destination_port"]),
]);

const MESH_GATEWAY: Schema = Schema::of("mesh_gateway", &["mode"]);

/// What a `proxy` object says, as far as both kinds of registration share it.
#[derive(Default)]
pub(super) struct Proxy {
    pub(super) local_address: Option<String>,
    pub(super) local_port: Option<u16>,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) config: BTreeMap<String, Json>,
}

/// The proxy of a sidecar in front of the service `parent`.
pub(super) fn of_sidecar(report: &mut Report<'_>, sidecar: &Fields<'_>, parent: &str) -> Proxy {
    let block = sidecar.object(report, "proxy");
    let Some(fields) = open(report, block) else { return Proxy::default() };
    for key in ["destination_service_name", "destination_service_id"] {
        let Some((text, span)) = fields.text_entry(report, key) else { continue };
        if key == "destination_service_name"
            && !text.is_empty()
            && !parent.is_empty()
            && !text.eq_ignore_ascii_case(parent)
        {
            let message = "the proxy of a sidecar_service always serves its own service";
            report.error(Code::Conflict, span, message).help("remove it");
        }
    }
    decode(report, &fields)
}

/// The proxy of a service that is registered as a proxy itself.
pub(super) fn of_connect_proxy(
    report: &mut Report<'_>,
    service: &Fields<'_>,
    block: Option<&Entry>,
) -> Option<ProxySpec> {
    let fields = open(report, block);
    let destination =
        fields.and_then(|fields| fields.parsed(report, "destination_service_name", ServiceName::new));
    let Some((fields, destination)) = fields.zip(destination) else {
        if fields.is_none_or(|fields| {
            fields.all("destination_service_name").all(|name| name.value.is_unset())
        }) {
            let span = fields.map_or(service.span, |fields| fields.span);
            let fault = report.missing(span, "a connect-proxy needs `proxy.destination_service_name`");
            fault.help("name the service it stands in front of").consul(
                "1 error occurred:\n\t* Proxy.DestinationServiceName must be non-empty for Connect proxy services\n\n",
            );
        }
        return None;
    };
    let destination_id = fields.parsed(report, "destination_service_id", InstanceId::new);
    let destination_id = destination_id.or_else(|| InstanceId::new(destination.as_str()).ok())?;
    let proxy = decode(report, &fields);
    Some(ProxySpec {
        destination,
        destination_id,
        local_address: proxy.local_address.unwrap_or_else(|| LOCAL_ADDRESS.to_owned()),
        local_port: proxy.local_port.unwrap_or_default(),
        upstreams: proxy.upstreams,
        config: proxy.config,
    })
}

fn open<'v>(report: &mut Report<'_>, entry: Option<&'v Entry>) -> Option<Fields<'v>> {
    entry.and_then(|entry| Fields::open(report, &PROXY, &entry.key, &entry.value))
}

fn decode(report: &mut Report<'_>, fields: &Fields<'_>) -> Proxy {
    if let Some((mode, span)) = fields.text_entry(report, "mode")
        && !matches!(mode, "" | "direct")
    {
        let message = "only `mode` \"direct\" is supported: traffic is not captured";
        report.error(Code::Unsupported, span, message);
    }
    no_mesh_gateway(report, fields);
    let local_address =
        fields.text(report, "local_service_address").filter(|address| !address.is_empty());
    Proxy {
        local_address: local_address.map(str::to_owned),
        local_port: fields.port(report, "local_service_port"),
        upstreams: upstreams(report, fields),
        config: to_json_map(config(report, fields)),
    }
}

/// Going straight to the other side is all there is, so a gateway that was asked for is an error.
fn no_mesh_gateway(report: &mut Report<'_>, fields: &Fields<'_>) {
    let Some(entry) = fields.object(report, "mesh_gateway") else { return };
    let Some(gateway) = Fields::open(report, &MESH_GATEWAY, &entry.key, &entry.value) else { return };
    if let Some((mode, span)) = gateway.text_entry(report, "mode")
        && !matches!(mode, "" | "none")
    {
        report.error(Code::Unsupported, span, "there are no mesh gateways; `mode` can only be \"none\"");
    }
}

/// Settings that are kept as they are. Fragments of Envoy's own configuration among them cannot mean
/// anything to another proxy.
fn config<'v>(report: &mut Report<'_>, fields: &Fields<'v>) -> &'v [Entry] {
    let is_fragment =
        |key: &str| key.starts_with("envoy_") && (key.ends_with("_json") || key.ends_with("_tpl"));
    let entries = fields.free_object(report, "config");
    for entry in entries.iter().filter(|entry| is_fragment(&entry.key)) {
        let message = format!("`{}` has no effect: there is no Envoy", entry.key);
        report.warning(Code::NoEffect, entry.key_span, message);
    }
    entries
}

fn upstreams(report: &mut Report<'_>, fields: &Fields<'_>) -> Vec<Upstream> {
    let mut taken = BTreeSet::new();
    let mut upstreams = Vec::new();
    for value in fields.objects("upstreams") {
        let Some(upstream) = upstream(report, value) else { continue };
        let listener = (upstream.bind_address().to_owned(), upstream.local_bind_port);
        if !taken.insert(listener) {
            let bind = format!("{}:{}", upstream.bind_address(), upstream.local_bind_port);
            let message = format!("two upstreams listen on {bind}");
            let fault = report.error(Code::Duplicate, value.span, message);
            fault.help("give each its own `local_bind_port`").consul(format!(
                "1 error occurred:\n\t* upstreams cannot contain duplicates by local bind address and port; \
                 {bind:?} is specified twice\n\n"
            ));
        }
        upstreams.push(upstream);
    }
    upstreams
}

fn upstream(report: &mut Report<'_>, value: &Value) -> Option<Upstream> {
    let fields = Fields::open(report, &UPSTREAM, "upstreams", value)?;
    if let Some((word, span)) = fields.text_entry(report, "destination_type")
        && !matches!(word, "" | "service")
    {
        report.error(Code::Unsupported, span, "an upstream can only be a service");
    }
    default_tenancy(report, &fields);
    no_mesh_gateway(report, &fields);
    let destination = destination(report, &fields);
    let local_bind_port = bind_port(report, &fields);
    let text = |report: &mut Report<'_>, key| fields.text(report, key).unwrap_or_default().to_owned();
    Some(Upstream {
        local_bind_address: text(report, "local_bind_address"),
        datacenter: text(report, "datacenter"),
        config: upstream_config(report, &fields),
        destination: destination?,
        local_bind_port: local_bind_port?,
    })
}

/// How to dial it. The API keeps whatever it is told, as Consul does: what a sidecar goes by is its
/// own file.
fn upstream_config(report: &mut Report<'_>, fields: &Fields<'_>) -> BTreeMap<String, Json> {
    let entries = config(report, fields);
    let map = to_json_map(entries);
    if report.is_api() {
        return map;
    }
    for finding in UpstreamConfig::read(&map).1 {
        let Some(entry) = place(entries, &finding) else { continue };
        match finding.weight {
            Weight::Type => report.error(Code::Type, entry.value.span, finding.message),
            Weight::Value => report.error(Code::Value, entry.value.span, finding.message),
            Weight::NoEffect => report.warning(Code::NoEffect, entry.key_span, finding.message),
        };
    }
    map
}

/// The entry that a finding is about.
fn place<'v>(mut entries: &'v [Entry], finding: &Finding) -> Option<&'v Entry> {
    let mut found = None;
    for key in &finding.path {
        let entry = entries.iter().rfind(|entry| is_key(&entry.key, key))?;
        entries = match &entry.value.kind {
            Kind::Object(inside) => inside,
            _ => &[],
        };
        found = Some(entry);
    }
    found
}

fn destination(report: &mut Report<'_>, fields: &Fields<'_>) -> Option<ServiceName> {
    if fields.all("destination_name").all(|entry| entry.value.is_unset()) {
        let fault = report.missing(fields.span, "this upstream has no `destination_name`");
        fault.help("name the service to reach");
        fault.consul("1 error occurred:\n\t* upstream destination name cannot be empty\n\n");
        return None;
    }
    fields.parsed(report, "destination_name", ServiceName::new)
}

fn bind_port(report: &mut Report<'_>, fields: &Fields<'_>) -> Option<u16> {
    const CONSUL: &str = "1 error occurred:\n\t* upstream local bind port cannot be zero\n\n";
    match fields.all("local_bind_port").last() {
        // Refused, and so has had its word.
        None if fields.all("local_bind_socket_path").next().is_some() => None,
        None => {
            let fault = report.missing(fields.span, "this upstream has no `local_bind_port`");
            fault.help("choose the port the application connects to").consul(CONSUL);
            None
        }
        Some(entry) if entry.value.is_unset() => {
            let fault = report.error(Code::Value, entry.value.span, "`local_bind_port` cannot be zero");
            fault.help("choose the port the application connects to").consul(CONSUL);
            None
        }
        Some(_) => fields.port(report, "local_bind_port"),
    }
}
