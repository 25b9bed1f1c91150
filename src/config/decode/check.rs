//! Health checks: of a service, of a sidecar and of the node.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fields::{Fields, Schema, texts_of};
use super::{Context, Site};
use crate::config::diagnostic::Code;
use crate::config::report::Report;
use crate::config::value::{Span, Value};
use crate::model::service::DEFAULT_CHECK_TIMEOUT;
use crate::model::{CheckDefinition, CheckKind, CheckStatus, InstanceId, NodeName};

/// A shorter interval is raised to this, as Consul does.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// A shorter time to deregistration is raised to this, as Consul does.
const MIN_DEREGISTER: Duration = Duration::from_secs(60);

const NO_DOCKER: &str = "nothing is run in containers, and leaving the check out would hide a failure; \
                         use http, tcp, udp, grpc or ttl";
/// Consul's default deadline of a script.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Most words of a script's command line.
const MAX_SCRIPT_ARGS: usize = 64;

pub(super) const CHECK: Schema = Schema::of(
    "check",
    &[
        "id",
        "check_id",
        "name",
        "notes",
        "status",
        "interval",
        "timeout",
        "http",
        "method",
        "header",
        "body",
        "tls_skip_verify",
        "tcp",
        "tcp_use_tls",
        "udp",
        "grpc",
        "grpc_use_tls",
        "h2ping",
        "h2ping_use_tls",
        "os_service",
        "args",
        "script_args",
        "ttl",
        "alias_service",
        "alias_node",
        "success_before_passing",
        "failures_before_warning",
        "failures_before_critical",
        "deregister_critical_service_after",
        "service_id",
        // Redirects are never followed.
        "disable_redirects",
        "namespace",
        "partition",
    ],
)
.refusing(&[
    (NO_DOCKER, &["docker_container_id", "shell"]),
    ("it was removed from Consul as well; use `args` for a command line", &["script"]),
    ("the certificate is checked against the host of the URL", &["tls_server_name"]),
])
.ignoring(&[
    ("4096 bytes of output are kept", &["output_max_size"]),
    ("what a file declares needs no token", &["token"]),
]);

/// Whom a check is about, which gives it its default id and name (surface 4.3).
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
}

/// A check and the service it names, if it names one.
pub(super) struct NodeCheck {
    pub(super) definition: CheckDefinition,
    pub(super) service: Option<(String, Span)>,
}

/// The checks under `check` and `checks` of a service.
pub(super) fn of_service(
    cx: &mut Context<'_, '_>,
    fields: &Fields<'_>,
    subject: Subject<'_>,
) -> Vec<CheckDefinition> {
    let single = fields.object(cx.report, "check").map(|entry| &entry.value);
    let values: Vec<&Value> = single
        .into_iter()
        .chain(fields.objects("checks"))
        .filter(|value| !says_nothing(cx.report, value))
        .collect();
    let alone = values.len() == 1;
    let mut checks = Vec::new();
    for (index, value) in values.into_iter().enumerate() {
        let default_id = if alone {
            format!("service:{}", subject.id)
        } else {
            format!("service:{}:{}", subject.id, index + 1)
        };
        let default_name = format!("Service '{}' check", subject.name);
        let Some(check) = decode(cx, value, Some(default_id), Some(default_name)) else { continue };
        if let Some((id, span)) = check.service.filter(|(id, _)| id != subject.id) {
            let message = format!("a check of service `{}` cannot be about `{id}`", subject.id);
            cx.report.error(Code::Conflict, span, message).help("put the check at the top of the file");
        }
        checks.push(check.definition);
    }
    checks
}

/// Go's clients send `"Check": {}` for none. In a file an empty block is an unfinished one.
fn says_nothing(report: &Report<'_>, value: &Value) -> bool {
    report.is_api() && value.is_unset()
}

/// A check at the top of a file. Its default id is its name.
pub(super) fn of_node(cx: &mut Context<'_, '_>, value: &Value) -> Option<NodeCheck> {
    decode(cx, value, None, None)
}

/// Decodes a check. Without defaults it must have a name, and its id is that unless given.
fn decode(
    cx: &mut Context<'_, '_>,
    value: &Value,
    default_id: Option<String>,
    default_name: Option<String>,
) -> Option<NodeCheck> {
    let errors = cx.report.errors();
    let fields = Fields::open(cx.report, &CHECK, "check", value)?;
    let name = fields.text(cx.report, "name").filter(|name| !name.is_empty()).map(str::to_owned);
    let name = name.or(default_name).unwrap_or_else(|| {
        // A name that is not a string has had its word.
        if fields.all("name").all(|entry| entry.value.is_unset()) {
            cx.report.missing(fields.span, "this check has no `name`").consul("Missing check name");
        }
        String::new()
    });
    let id = id(cx, &fields, default_id, &name);
    let report = &mut *cx.report;
    let service = fields.text_entry(report, "service_id").filter(|(id, _)| !id.is_empty());
    let kind = kind(report, &fields);
    let (interval, timeout) = schedule(report, &fields, kind.as_ref());
    let definition = CheckDefinition {
        id,
        name,
        notes: fields.text(report, "notes").unwrap_or_default().to_owned(),
        interval,
        timeout,
        initial: initial(report, &fields),
        success_before_passing: fields.count(report, "success_before_passing"),
        failures_before_warning: Some(fields.count(report, "failures_before_warning"))
            .filter(|count| *count > 0),
        failures_before_critical: fields.count(report, "failures_before_critical"),
        deregister_critical_after: deregister_after(report, &fields),
        kind: kind?,
    };
    if definition.kind.is_script() {
        cx.claims.scripts.push(Site { source: cx.report.source(), span: fields.span });
    }
    let service = service.map(|(id, span)| (id.to_owned(), span));
    (cx.report.errors() == errors).then_some(NodeCheck { definition, service })
}

/// The id as given, else the default, else the name. Default ids come from the id of the service and
/// are as unique as that is; all others must be free.
fn id(cx: &mut Context<'_, '_>, fields: &Fields<'_>, default_id: Option<String>, name: &str) -> String {
    let mut given = |key| fields.text_entry(cx.report, key).filter(|(id, _)| !id.is_empty());
    let explicit = given("id").or_else(|| given("check_id"));
    let (id, span) = match (explicit, default_id) {
        (Some(explicit), _) => explicit,
        (None, Some(default_id)) => return default_id,
        (None, None) => (name, fields.all("name").last().map_or(fields.span, |entry| entry.value.span)),
    };
    if !id.is_empty() {
        cx.claim_check(id, span);
    }
    id.to_owned()
}

/// The kinds by the key that chooses each, with how it is read.
const KINDS: [(&str, Decode); 10] = [
    ("http", http),
    ("tcp", tcp),
    ("udp", udp),
    ("grpc", grpc),
    ("h2ping", h2ping),
    ("os_service", os_service),
    ("args", script),
    ("ttl", ttl),
    ("alias_service", alias),
    ("alias_node", alias),
];

type Decode = fn(&mut Report<'_>, &Fields<'_>) -> Option<CheckKind>;

/// The one kind of the check.
fn kind(report: &mut Report<'_>, fields: &Fields<'_>) -> Option<CheckKind> {
    const REFUSED: [&str; 2] = ["docker_container_id", "script"];
    let given = |key: &'static str| fields.all(key).any(|entry| !entry.value.is_unset());
    let names = |key: &'static str| given(key) || (key == "args" && given("script_args"));
    let mut kinds: Vec<(&'static str, Decode)> =
        KINDS.into_iter().filter(|(key, _)| names(key)).collect();
    // Both say whom one alias follows.
    if kinds.iter().any(|(key, _)| *key == "alias_service") {
        kinds.retain(|(key, _)| *key != "alias_node");
    }
    match kinds.as_slice() {
        // Already reported as not supported, or the value was faulty.
        [] if REFUSED.into_iter().any(given) || fields.is_damaged(&KINDS.map(|(key, _)| key)) => None,
        [] => {
            let message = "this check does not say what to check";
            let fault = report.missing(fields.span, message);
            fault.help("give one of `http`, `tcp`, `udp`, `grpc`, `h2ping`, `ttl` or `alias_service`");
            fault.consul("Invalid check: TTL must be > 0 for TTL checks");
            None
        }
        [(_, decode)] => decode(report, fields),
        [(first, _), (second, _), ..] => {
            let message = format!("a check has one kind; this one has `{first}` and `{second}`");
            let fault = report.error(Code::Conflict, fields.span, message);
            fault.help("make two checks of it");
            if kinds.iter().any(|(key, _)| *key == "ttl") {
                fault.consul("Invalid check: Interval and TTL cannot both be specified");
            }
            None
        }
    }
}

fn http(report: &mut Report<'_>, fields: &Fields<'_>) -> Option<CheckKind> {
    let url = fields.parsed(report, "http", |url| {
        let rest = ["http://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
        let is_sound = !host.is_empty() && !url.contains(|c: char| c.is_control() || c == ' ');
        if is_sound {
            Ok(url.to_owned())
        } else {
            Err("`http` must be a URL such as \"http://localhost:8080/health\"")
        }
    })?;
    let method = fields.text(report, "method").filter(|method| !method.is_empty()).unwrap_or("GET");
    let mut headers = BTreeMap::new();
    for entry in fields.free_object(report, "header") {
        headers.insert(entry.key.clone(), texts_of(report, entry));
    }
    Some(CheckKind::Http {
        url,
        method: method.to_ascii_uppercase(),
        headers,
        body: fields.text(report, "body").unwrap_or_default().to_owned(),
        tls_skip_verify: fields.boolean(report, "tls_skip_verify").unwrap_or_default(),
    })
}

fn tcp(report: &mut Report<'_>, fields: &Fields<'_>) -> Option<CheckKind> {
    let address = fields.parsed(report, "tcp", |text| host_and_port(text, "tcp"))?;
    Some(CheckKind::Tcp {
        address,
        use_tls: fields.boolean(report, "tcp_use_tls").unwrap_or_default(),
        tls_skip_verify: fields.boolean(report, "tls_skip_verify").unwrap_or_default(),
    })
}

fn udp(report: &mut Report<'_>, fields: &Fields<'_>) -> Option<CheckKind> {
    let address = fields.parsed(report, "udp", |text| host_and_port(text, "udp"))?;
    Some(CheckKind::Udp { address })
}

/// Over TLS unless the file says otherwise, as in Consul.
fn h2ping(report: &mut Report<'_>, fields: &Fields<'_>) -> Option<CheckKind> {
    let address = fields.parsed(report, "h2ping", |text| host_and_port(text, "h2ping"))?;
    Some(CheckKind::H2ping {
        address,
        use_tls: fields.boolean(report, "h2ping_use_tls").unwrap_or(true),
        tls_skip_verify: fields.boolean(report, "tls_skip_verify").unwrap_or_default(),
    })
}

fn os_service(report: &mut Report<'_>, fields: &Fields<'_>) -> Option<CheckKind> {
    let unit = fields.text(report, "os_service")?.to_owned();
    Some(CheckKind::OsService { unit })
}

/// Whether it may run is decided when all files are read (`scripts`), and by the API.
fn script(report: &mut Report<'_>, fields: &Fields<'_>) -> Option<CheckKind> {
    let mut args = fields.texts(report, "args");
    args.extend(fields.texts(report, "script_args"));
    if args.len() > MAX_SCRIPT_ARGS || args.iter().any(|arg| arg.contains('\0')) {
        let message = format!("`args` has at most {MAX_SCRIPT_ARGS} words without zero bytes");
        report.error(Code::Value, fields.span, message);
        return None;
    }
    (!args.is_empty()).then_some(CheckKind::Script { args })
}

/// `host:port[/service]`.
fn grpc(report: &mut Report<'_>, fields: &Fields<'_>) -> Option<CheckKind> {
    let (address, service) = fields.parsed(report, "grpc", |text| {
        let (address, service) = text.split_once('/').unwrap_or((text, ""));
        host_and_port(address, "grpc").map(|address| (address, service.to_owned()))
    })?;
    Some(CheckKind::Grpc {
        address,
        service,
        use_tls: fields.boolean(report, "grpc_use_tls").unwrap_or_default(),
        tls_skip_verify: fields.boolean(report, "tls_skip_verify").unwrap_or_default(),
    })
}

fn host_and_port(text: &str, key: &str) -> Result<String, String> {
    let sound = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(char::is_whitespace)
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if sound {
        Ok(text.to_owned())
    } else {
        Err(format!("`{key}` must be a host and a port such as \"localhost:8080\""))
    }
}

fn ttl(report: &mut Report<'_>, fields: &Fields<'_>) -> Option<CheckKind> {
    let (ttl, span) = fields.duration(report, "ttl")?;
    if ttl.is_zero() {
        let fault = report.error(Code::Value, span, "`ttl` must be more than zero");
        fault.consul("Invalid check: TTL must be > 0 for TTL checks");
        return None;
    }
    Some(CheckKind::Ttl { ttl })
}

fn alias(report: &mut Report<'_>, fields: &Fields<'_>) -> Option<CheckKind> {
    let service = fields.parsed(report, "alias_service", InstanceId::new);
    let node = fields.parsed(report, "alias_node", NodeName::new);
    (service.is_some() || node.is_some()).then_some(CheckKind::Alias { service, node })
}

/// Interval and timeout; both zero for kinds that probe nothing.
fn schedule(
    report: &mut Report<'_>,
    fields: &Fields<'_>,
    kind: Option<&CheckKind>,
) -> (Duration, Duration) {
    let interval = fields.duration(report, "interval");
    let timeout = fields.duration(report, "timeout").map(|(timeout, _)| timeout);
    match kind {
        None => (Duration::ZERO, Duration::ZERO),
        Some(CheckKind::Alias { .. }) => (Duration::ZERO, Duration::ZERO),
        Some(CheckKind::Ttl { .. }) => {
            if let Some((_, span)) = interval.filter(|(interval, _)| !interval.is_zero()) {
                let fault = report.error(Code::Conflict, span, "a TTL check has no `interval`");
                fault.help("remove the interval, or the `ttl`");
                fault.consul("Invalid check: Interval and TTL cannot both be specified");
            }
            (Duration::ZERO, Duration::ZERO)
        }
        Some(kind) => {
            let default = if kind.is_script() { SCRIPT_TIMEOUT } else { DEFAULT_CHECK_TIMEOUT };
            let timeout = timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(default);
            (probe_interval(report, fields, kind, interval), timeout)
        }
    }
}

fn probe_interval(
    report: &mut Report<'_>,
    fields: &Fields<'_>,
    kind: &CheckKind,
    interval: Option<(Duration, Span)>,
) -> Duration {
    match interval {
        Some((interval, _)) if interval >= MIN_INTERVAL => interval,
        Some((interval, span)) if !interval.is_zero() => {
            report.warning(Code::Adjusted, span, "`interval` is raised to 1s, the shortest there is");
            MIN_INTERVAL
        }
        // A faulty interval has had its word.
        None if fields.all("interval").next().is_some() || fields.is_damaged(&["interval"]) => {
            MIN_INTERVAL
        }
        _ => {
            let what = kind.type_name();
            let fault = report.missing(fields.span, format!("this {what} check has no `interval`"));
            fault.help("add one: interval = \"10s\"");
            fault.consul("Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks");
            MIN_INTERVAL
        }
    }
}

fn initial(report: &mut Report<'_>, fields: &Fields<'_>) -> CheckStatus {
    let given = fields.text_entry(report, "status").filter(|(word, _)| !word.is_empty());
    let Some((word, span)) = given else { return CheckStatus::Critical };
    CheckStatus::parse(word).unwrap_or_else(|| {
        let message = "`status` must be passing, warning or critical";
        report.error(Code::Value, span, message).consul("Bad check status");
        CheckStatus::Critical
    })
}

fn deregister_after(report: &mut Report<'_>, fields: &Fields<'_>) -> Option<Duration> {
    let (after, span) = fields.duration(report, "deregister_critical_service_after")?;
    if after.is_zero() {
        return None;
    }
    if after < MIN_DEREGISTER {
        let message = "`deregister_critical_service_after` is raised to 1m, the shortest there is";
        report.warning(Code::Adjusted, span, message);
    }
    Some(after.max(MIN_DEREGISTER))
}
