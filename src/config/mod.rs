//! Configuration: files and API bodies into typed definitions, with all faults at once.
//!
//! Consul's files load as they are: HCL and JSON, services, checks and the agent keys a server takes
//! over. Called by the server and by `weft validate` for files and by the HTTP API for the body of a
//! registration.
//!
//! text → `lexer` → `hcl` or `json` → tree (`value`) → `decode` → `model::Definition`
//!
//! Invariants: nothing here panics on any input; time and memory are linear in the input, which is
//! bounded; every fault names its file, line and column; a definition with an error in it is never
//! handed on.

mod decode;
mod diagnostic;
mod excerpt;
mod files;
mod hcl;
mod json;
mod lexer;
mod parser;
mod report;
mod strings;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;

use self::decode::{AgentDraft, Attached, Claims, Context};
use self::lexer::Notation;
use self::parser::Parsed;
use self::report::{MAX_FAULTS, Origin, Report};
use crate::model::{CheckDefinition, Definition, go_json};

pub use self::decode::{
    AgentKeys, DnsKeys, HttpsKeys, PortSetting, RecursorStrategy, SoaKeys, ZoneKeys, ZoneKind,
};
pub use self::diagnostic::{Code, Diagnostic, Severity};

/// What diagnostics call the body of a request.
const BODY: &str = "request body";

/// What a set of files says.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Without those that had errors.
    pub definitions: Vec<Definition>,
    /// Checks of the node itself.
    pub node_checks: Vec<CheckDefinition>,
    pub agent: AgentKeys,
    /// In the order of the files.
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// Whether there was no error; warnings do not matter.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Loads files, and the `.hcl` and `.json` files of directories (not of their directories) by name.
///
/// Over all files the last scalar wins and lists grow, as in Consul. Faults, of reading too, are in
/// the diagnostics.
#[must_use]
pub fn load(paths: &[PathBuf]) -> Loaded {
    let mut loaded = Loaded::default();
    let texts = files::read_all(paths, &mut loaded.diagnostics);
    let mut claims = Claims::default();
    let mut agent = AgentDraft::default();
    let mut attached = Vec::new();
    for text in &texts {
        let mut report = Report::new(&text.source, Origin::File);
        let parsed = parse(&mut report, text.notation);
        if parsed.balanced {
            let mut cx = Context { report: &mut report, claims: &mut claims };
            let found = decode::file(&mut cx, &parsed.root, &mut agent);
            loaded.definitions.extend(found.definitions);
            loaded.node_checks.extend(found.node_checks);
            attached.extend(found.attached);
        }
        loaded.diagnostics.extend(report.finish());
    }
    loaded.agent = agent.finish();
    attach(&mut loaded, attached, &claims);
    forbid_scripts(&mut loaded, &claims);
    loaded
}

/// Reads the body of a registration: a definition, bare or under `service`.
///
/// Comments are accepted, because the same file is used for both. A body whose line breaks were
/// stripped on the way (`curl -d @file` does that) may begin with a comment line, too: the comment
/// then ends where the object begins.
///
/// # Errors
/// All faults, when there is an error among them.
pub fn parse_definition_json(bytes: &[u8]) -> Result<Definition, Vec<Diagnostic>> {
    let source = files::source(BODY, without_leading_comment(bytes)).map_err(|fault| vec![*fault])?;
    let mut report = Report::new(&source, Origin::Api);
    let parsed = parse(&mut report, Notation::Json);
    let mut claims = Claims::default();
    let definition = if parsed.balanced {
        decode::registration(&mut Context { report: &mut report, claims: &mut claims }, &parsed.root)
    } else {
        None
    };
    match definition {
        Some(definition) if report.errors() == 0 => Ok(definition),
        _ => Err(in_gos_words(report.finish(), bytes)),
    }
}

/// Reads the body of `agent/check/register`: a check, and the id of the service it is about, if any.
///
/// # Errors
/// All faults, when there is an error among them.
pub fn parse_check_json(bytes: &[u8]) -> Result<(CheckDefinition, Option<String>), Vec<Diagnostic>> {
    let source = files::source(BODY, bytes).map_err(|fault| vec![*fault])?;
    let mut report = Report::new(&source, Origin::Api);
    let parsed = parse(&mut report, Notation::Json);
    let mut claims = Claims::default();
    let check = if parsed.balanced {
        decode::check(&mut Context { report: &mut report, claims: &mut claims }, &parsed.root)
    } else {
        None
    };
    match check {
        Some(check) if report.errors() == 0 => Ok(check),
        _ => Err(in_gos_words(report.finish(), bytes)),
    }
}

/// Reads a text as plain values without asking what they mean: for what a server is going to decode.
///
/// JSON if the name ends in `.json` or the text begins with a brace, else HCL. A block that stands
/// once is an object, one that is repeated a list.
///
/// # Errors
/// All faults of the notation.
pub fn parse_values(name: &str, bytes: &[u8]) -> Result<serde_json::Value, Vec<Diagnostic>> {
    let source = files::source(name, bytes).map_err(|fault| vec![*fault])?;
    let is_json = name.ends_with(".json") || bytes.trim_ascii_start().starts_with(b"{");
    let mut report = Report::new(&source, Origin::File);
    let parsed = parse(&mut report, if is_json { Notation::Json } else { Notation::Hcl });
    if report.errors() > 0 { Err(report.finish()) } else { Ok(parsed.root.to_json()) }
}

/// Gives faults of the notation the text that Consul's clients know: Go's, which names the first.
fn in_gos_words(mut faults: Vec<Diagnostic>, bytes: &[u8]) -> Vec<Diagnostic> {
    let syntax = faults.iter_mut().filter(|fault| fault.code == Code::Syntax);
    if let Some((first, text)) = syntax.min_by_key(|fault| fault.line).zip(go_json::fault(bytes)) {
        first.consul = Some(format!("Request decode failed: {text}"));
    }
    faults
}

/// The text the HTTP API answers a faulty registration with: Consul's words for the first fault if
/// it has any, else ours.
#[must_use]
pub fn api_message(faults: &[Diagnostic]) -> String {
    let rank = |fault: &&Diagnostic| match fault.code {
        Code::File | Code::Limit | Code::Syntax => 0,
        Code::UnknownKey | Code::Type => 1,
        _ => 2,
    };
    let Some(fault) = faults.iter().filter(|fault| fault.is_error()).min_by_key(rank) else {
        return String::new();
    };
    if let Some(text) = &fault.consul {
        return text.clone();
    }
    match &fault.help {
        Some(help) => format!("{}: {help}", fault.message),
        None => fault.message.clone(),
    }
}

fn parse(report: &mut Report<'_>, notation: Notation) -> Parsed {
    let parsed = match notation {
        Notation::Hcl => hcl::parse(report),
        Notation::Json => json::parse(report),
    };
    if report.errors() > 0 {
        report.mark_damaged();
    }
    parsed
}

/// Gives the top-level checks that name a service to that service.
fn attach(loaded: &mut Loaded, attached: Vec<Attached<'_>>, claims: &Claims<'_>) {
    let ids = loaded.definitions.iter().enumerate();
    let places: BTreeMap<String, usize> = ids.map(|(at, found)| (found.id.to_string(), at)).collect();
    let faulty = !loaded.is_valid();
    let mut orphans = 0;
    for Attached { service, check, site } in attached {
        let place = places.get(&service).and_then(|at| loaded.definitions.get_mut(*at));
        match place {
            Some(definition) => definition.checks.push(check),
            // The service is there, but was dropped for a fault that is reported.
            None if faulty && claims.has_instance(&service) => {}
            None if orphans < MAX_FAULTS => {
                orphans += 1;
                let message = format!("there is no service with the id `{}`", service);
                let error = Severity::Error;
                loaded.diagnostics.push(Diagnostic::at(
                    site.source,
                    site.span,
                    error,
                    Code::Value,
                    &message,
                ));
            }
            None => {}
        }
    }
}

/// Scripts run with the rights of this process, so an operator has to allow them.
fn forbid_scripts(loaded: &mut Loaded, claims: &Claims<'_>) {
    if loaded.agent.scripts == Some(true) {
        return;
    }
    for site in claims.scripts.iter().take(MAX_FAULTS) {
        let message = "this check runs a program, which is not allowed";
        let (severity, code) = (Severity::Error, Code::Unsupported);
        let mut fault = Diagnostic::at(site.source, site.span, severity, code, message);
        fault.help("set `enable_local_script_checks = true` at the top of a file to allow it");
        loaded.diagnostics.push(fault);
    }
    loaded.definitions.retain(|definition| !definition.checks.iter().any(|c| c.kind.is_script()));
    loaded.node_checks.retain(|check| !check.kind.is_script());
}

fn without_leading_comment(bytes: &[u8]) -> &[u8] {
    let trimmed = bytes.trim_ascii();
    let is_comment = trimmed.starts_with(b"//") || trimmed.starts_with(b"#");
    if !is_comment || trimmed.contains(&b'\n') {
        return bytes;
    }
    let start = trimmed.iter().position(|byte| *byte == b'{');
    start.and_then(|start| trimmed.get(start..)).unwrap_or(bytes)
}
