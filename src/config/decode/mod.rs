//! From the tree of a file to the definitions of the model.
//!
//! Nothing stops at a fault: each is reported and decoding goes on, so that one run shows them all.
//! A definition in which anything was an error is not handed on.
//!
//! What Consul knows and this mesh does not falls under one rule. If leaving a key out would change
//! who may talk, where traffic goes or what is checked, it is an error; otherwise it is a warning
//! that gives the reason. A key that is set to its zero value says nothing and is accepted.

mod agent;
mod agent_schema;
mod check;
mod dns;
mod fields;
mod proxy;
mod service;
mod sidecar;
mod suggest;

use std::collections::BTreeMap;

use super::diagnostic::Code;
use super::excerpt::Source;
use super::report::Report;
use super::value::{Kind, Span, Value};
use crate::model::{CheckDefinition, Definition};

pub(super) use agent::AgentDraft;
pub use agent::{AgentKeys, HttpsKeys, PortSetting};
pub use dns::{DnsKeys, RecursorStrategy, SoaKeys, ZoneKeys, ZoneKind};

/// A place in one of the files of a load.
#[derive(Clone, Copy)]
pub(super) struct Site<'s> {
    pub(super) source: &'s Source,
    pub(super) span: Span,
}

/// Ids that must be unique among all files of a load.
#[derive(Default)]
pub(super) struct Claims<'s> {
    instances: BTreeMap<String, Site<'s>>,
    checks: BTreeMap<String, Site<'s>>,
    /// Checks that run a program, which not every operator allows.
    pub(super) scripts: Vec<Site<'s>>,
}

/// What decoding one file needs.
pub(super) struct Context<'c, 's> {
    pub(super) report: &'c mut Report<'s>,
    pub(super) claims: &'c mut Claims<'s>,
}

/// What one file holds.
#[derive(Default)]
pub(super) struct File<'s> {
    pub(super) definitions: Vec<Definition>,
    pub(super) node_checks: Vec<CheckDefinition>,
    /// Checks of services that may stand in another file.
    pub(super) attached: Vec<Attached<'s>>,
}

/// A top-level check that names a service.
pub(super) struct Attached<'s> {
    pub(super) service: String,
    pub(super) check: CheckDefinition,
    /// Where the service is named.
    pub(super) site: Site<'s>,
}

/// Decodes a file into its definitions and, over what earlier files said, `agent`.
pub(super) fn file<'s>(cx: &mut Context<'_, 's>, root: &Value, agent: &mut AgentDraft) -> File<'s> {
    let mut found = File::default();
    let Some(fields) = agent::decode(cx.report, root, agent) else { return found };
    for value in single_and_list(cx.report, &fields, "service", "services") {
        found.definitions.extend(service::decode(cx, value));
    }
    for value in single_and_list(cx.report, &fields, "check", "checks") {
        let Some(check) = check::of_node(cx, value) else { continue };
        let Some((service, span)) = check.service else {
            found.node_checks.push(check.definition);
            continue;
        };
        let site = Site { source: cx.report.source(), span };
        found.attached.push(Attached { service, check: check.definition, site });
    }
    found
}

/// Decodes the body of a registration: a definition, or one under `service` or `services`.
pub(super) fn registration(cx: &mut Context<'_, '_>, root: &Value) -> Option<Definition> {
    let wrapped = match &root.kind {
        Kind::Object(entries) => match entries.as_slice() {
            [only] if fields::is_key(&only.key, "service") || fields::is_key(&only.key, "services") => {
                &only.value
            }
            _ => root,
        },
        _ => root,
    };
    let errors = cx.report.errors();
    let definition = match &wrapped.kind {
        Kind::List(items) => match items.as_slice() {
            [item] => service::decode(cx, item),
            _ => {
                let message = format!("one service can be registered at a time, not {}", items.len());
                cx.report.error(Code::Value, wrapped.span, message).help("send one request for each");
                None
            }
        },
        _ => service::decode(cx, wrapped),
    };
    if definition.is_none() && cx.report.errors() == errors {
        cx.report.error(Code::Missing, wrapped.span, "there is no service in this request");
    }
    definition
}

/// Decodes the body of a check's registration: the check, and the service it names.
pub(super) fn check(
    cx: &mut Context<'_, '_>,
    root: &Value,
) -> Option<(CheckDefinition, Option<String>)> {
    let check = check::of_node(cx, root)?;
    Some((check.definition, check.service.map(|(id, _)| id)))
}

/// The objects under a key that takes one, and under its plural, which takes a list.
fn single_and_list<'v>(
    report: &mut Report<'_>,
    fields: &fields::Fields<'v>,
    one: &'static str,
    many: &'static str,
) -> Vec<&'v Value> {
    let mut values: Vec<&Value> = fields.all(one).map(|entry| &entry.value).collect();
    for again in fields.all(one).skip(1) {
        let message = format!("a file has at most one `{one}`");
        let help = format!("use `{many}` for all of them");
        report.error(Code::Duplicate, again.key_span, message).help(help);
    }
    for list in fields.all(one).filter(|entry| matches!(entry.value.kind, Kind::List(_))) {
        let message = format!("`{one}` must be an object, not a list");
        report.error(Code::Type, list.value.span, message).help(format!("use `{many}` for a list"));
    }
    values.retain(|value| !matches!(value.kind, Kind::List(_)));
    values.extend(fields.objects(many));
    values
}

impl Claims<'_> {
    /// Whether some file defines an instance with this id.
    pub(super) fn has_instance(&self, id: &str) -> bool {
        self.instances.contains_key(id)
    }
}

impl Context<'_, '_> {
    /// Reports an instance id that is taken.
    fn claim_instance(&mut self, id: &str, span: Span) {
        let site = Site { source: self.report.source(), span };
        claim(self.report, &mut self.claims.instances, "service", id, site);
    }

    /// Reports a check id that is taken.
    fn claim_check(&mut self, id: &str, span: Span) {
        let site = Site { source: self.report.source(), span };
        claim(self.report, &mut self.claims.checks, "check", id, site);
    }
}

fn claim<'s>(
    report: &mut Report<'s>,
    taken: &mut BTreeMap<String, Site<'s>>,
    what: &str,
    id: &str,
    site: Site<'s>,
) {
    let Some(first) = taken.get(id) else {
        taken.insert(id.to_owned(), site);
        return;
    };
    if report.is_full() {
        report.error(Code::Duplicate, site.span, "");
        return;
    }
    let (place, _) = first.source.show(first.span);
    let at = format!("{}:{}:{}", first.source.name, place.line, place.column);
    let message = format!("the {what} id `{id}` is taken");
    report
        .error(Code::Duplicate, site.span, message)
        .help(format!("it was first used at {at}; give each its own `id`"));
}
