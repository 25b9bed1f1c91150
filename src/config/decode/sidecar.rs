//! `connect.sidecar_service`: what may be said about the sidecar of a service (surface 15.1).

use super::Context;
use super::check::{self, CHECK, Subject};
use super::fields::{Fields, Schema};
use super::proxy::{self, PROXY};
use super::service;
use crate::config::diagnostic::Code;
use crate::config::report::Report;
use crate::config::value::{Entry, Kind};
use crate::model::{ServiceName, Sidecar};

const SIDECAR: Schema = Schema::of(
    "sidecar_service",
    &[
        "name",
        "port",
        "address",
        "tags",
        "meta",
        "check",
        "checks",
        "weights",
        "proxy",
        "namespace",
        "partition",
        // Refused below in Consul's words.
        "id",
        "connect",
        "kind",
    ],
)
.refusing(&[
    ("an instance is reached at one TCP port", &["socket_path", "ports"]),
    ("a sidecar has one address", &["tagged_addresses"]),
    ("the tags of a sidecar belong to its service", &["enable_tag_override"]),
])
.ignoring(service::HINTS)
.containing(&[("check", CHECK.keys), ("proxy", PROXY.keys)]);

/// Decodes the sidecar of `parent`.
pub(super) fn decode(cx: &mut Context<'_, '_>, entry: &Entry, parent: Subject<'_>) -> Option<Sidecar> {
    let fields = Fields::open(cx.report, &SIDECAR, &entry.key, &entry.value)?;
    let id = format!("{}-sidecar-proxy", parent.id);
    if !parent.id.is_empty() {
        cx.claim_instance(&id, entry.key_span);
    }
    refuse_foreign(cx.report, &fields);
    service::default_tenancy(cx.report, &fields);
    let name = fields.parsed(cx.report, "name", ServiceName::new);
    let default_name = format!("{}-sidecar-proxy", parent.name);
    let subject = Subject { id: &id, name: name.as_ref().map_or(&default_name, ServiceName::as_str) };
    let checks = check::of_service(cx, &fields, subject);
    let report = &mut *cx.report;
    let proxy = proxy::of_sidecar(report, &fields, parent.name);
    Some(Sidecar {
        port: fields.port(report, "port"),
        address: service::address(report, &fields).filter(|address| !address.is_empty()),
        tags: fields.texts(report, "tags"),
        meta: service::meta(report, &fields),
        weights: service::weights(report, &fields),
        checks,
        local_service_address: proxy.local_address,
        local_service_port: proxy.local_port,
        upstreams: proxy.upstreams,
        config: proxy.config,
        name,
    })
}

/// Keys of a service that the agent decides for a sidecar.
fn refuse_foreign(report: &mut Report<'_>, fields: &Fields<'_>) {
    for entry in fields.all("id").filter(|entry| !entry.value.is_unset()) {
        let message = "a sidecar_service has no `id` of its own; it follows from the service's";
        report.error(Code::Conflict, entry.key_span, message).help("remove it").consul(
            "1 error occurred:\n\t* A SidecarService cannot specify an ID as this is managed by the agent\n\n",
        );
    }
    for entry in fields.all("connect").filter(|entry| entry.value.kind != Kind::Object(Vec::new())) {
        let message = "a sidecar_service cannot have a `connect` block of its own";
        report
            .error(Code::Conflict, entry.key_span, message)
            .help("remove it")
            .consul("1 error occurred:\n\t* A SidecarService cannot have a nested SidecarService\n\n");
    }
    if let Some((kind, span)) = fields.text_entry(report, "kind")
        && !matches!(kind, "" | "connect-proxy")
    {
        report.error(Code::Conflict, span, "a sidecar_service is always of kind \"connect-proxy\"");
    }
}
