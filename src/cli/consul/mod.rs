//! The program called as `consul`: Consul's commands and single-dash flags, its words and exit codes.
//!
//! A line becomes one of Weft's (`translate`, pure), which `cli` parses and carries out as ever; only
//! what is printed differs, and each command knows both forms. `verbs` is the table of commands,
//! `flags` reads flags as Go does, `agent` is `consul agent`, `tables` are layouts.

mod agent;
mod flags;
mod help;
pub(super) mod tables;
mod verbs;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::Parser;

use self::flags::{Takes, parse};
use self::verbs::{ABSENT, Becomes, VERBS, Verb};
use super::access::Flags;
use super::{Cli, Dialect, Stage, execute, say, validate};

/// The version whose command line, API and names this program answers for.
const SURFACE: &str = "1.8.7";
/// A command that does not exist.
const UNKNOWN: u8 = 127;
const FAILURE: u8 = 1;

/// Whether the name a program was called by is Consul's.
pub(super) fn is_name(name: &OsStr) -> bool {
    Path::new(name).file_name().is_some_and(|name| name == "consul")
}

/// What a line asks for.
enum Wish {
    /// Weft's line, with what is not in it.
    Run(Box<Order>),
    Validate {
        quiet: bool,
        paths: Vec<PathBuf>,
    },
    /// A text that is asked for, or that explains what is wrong.
    Say {
        text: String,
        exit: u8,
    },
}

struct Order {
    argv: Vec<OsString>,
    flags: Flags,
    notes: Vec<String>,
    /// Exit code of any failure.
    failure: u8,
    /// What to show when the line cannot be parsed.
    help: String,
}

pub(super) fn run(args: &[OsString], stage: &mut Stage<'_>) -> u8 {
    match translate(args) {
        Wish::Say { text, exit } => {
            let to = if exit == 0 { &mut *stage.out } else { &mut *stage.err };
            say(to, &text.trim_end());
            exit
        }
        Wish::Validate { quiet, paths } => {
            validate::as_consul(&paths, quiet, &mut stage.out, &mut stage.err)
        }
        Wish::Run(order) => {
            for note in &order.notes {
                say(stage.err, note);
            }
            match Cli::try_parse_from(&order.argv) {
                Ok(cli) => {
                    execute(&cli, &order.flags, Dialect::Consul { failure: order.failure }, stage)
                }
                Err(fault) => {
                    say(stage.err, &format_args!("{}\n\n{}", in_consul(&fault), order.help.trim_end()));
                    order.failure
                }
            }
        }
    }
}

/// The first paragraph of a fault, with flags as they were written.
fn in_consul(fault: &clap::Error) -> String {
    let text = fault.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    first.trim_start_matches("error: ").replace("--", "-")
}

fn translate(args: &[OsString]) -> Wish {
    let is = |arg: &OsStr, names: [&str; 3]| names.iter().any(|name| arg == *name);
    let before_dashes = || args.iter().take_while(|arg| *arg != "--");
    let wants_help = before_dashes().any(|arg| is(arg, ["-h", "-help", "--help"]));
    let words: Vec<&str> = args.iter().map_while(|arg| arg.to_str()).take(3).collect();
    match words[..] {
        [first, ..] if is(OsStr::new(first), ["-v", "-version", "--version"]) => version(),
        ["version", ..] if !wants_help => version(),
        ["agent", ..] if wants_help => Wish::Say { text: agent::help(), exit: 0 },
        ["agent", ..] => agent::translate(args.get(1..).unwrap_or_default()),
        ["validate", ..] if !wants_help => validation(args.get(1..).unwrap_or_default()),
        _ => question(args, &words, wants_help),
    }
}

fn version() -> Wish {
    let weft = env!("CARGO_PKG_VERSION");
    let text = format!("Consul v{SURFACE}\nWeft {weft}, which answers as that version does");
    Wish::Say { text, exit: 0 }
}

fn validation(args: &[OsString]) -> Wish {
    let known = |name: &str| match name {
        "quiet" => Some(Takes::Nothing),
        _ => None,
    };
    let usage = "Usage: consul validate [options] FILE_OR_DIRECTORY...\n\n  -quiet";
    match parse(args, &known) {
        Err(fault) => Wish::Say { text: format!("{fault}\n{usage}"), exit: FAILURE },
        Ok(parsed) if parsed.rest.is_empty() => {
            let text = "Must specify at least one config file or directory".to_owned();
            Wish::Say { text, exit: FAILURE }
        }
        Ok(parsed) => Wish::Validate {
            quiet: parsed.flags.contains(&("quiet", "true")),
            paths: parsed.rest.iter().map(PathBuf::from).collect(),
        },
    }
}

fn question(args: &[OsString], words: &[&str], wants_help: bool) -> Wish {
    let named = |count: usize| {
        let name = words.get(..count)?.join(" ");
        VERBS.iter().find(|verb| verb.name == name).map(|verb| (verb, count))
    };
    let absent = |first: &str| ABSENT.iter().find(|(name, _)| *name == first);
    let found = named(3).or_else(|| named(2)).or_else(|| named(1));
    match (found, words.first()) {
        (Some((verb, _)), _) if wants_help => Wish::Say { text: help::verb(verb), exit: 0 },
        (Some((verb, count)), _) => order(verb, args.get(count..).unwrap_or_default()),
        (None, Some(group)) if help::is_group(group) => {
            Wish::Say { text: help::group(group), exit: if wants_help { 0 } else { FAILURE } }
        }
        (None, Some(first)) if absent(first).is_some() => {
            let reason = absent(first).map_or("", |(_, reason)| *reason);
            let text = format!("`consul {first}` is not part of Weft: {reason}");
            Wish::Say { text, exit: FAILURE }
        }
        _ => Wish::Say { text: help::all(), exit: if wants_help { 0 } else { UNKNOWN } },
    }
}

/// The line of Weft that does the same.
fn order(verb: &'static Verb, args: &[OsString]) -> Wish {
    // Its negative answer is 1, so that all else is 2.
    let failure = if verb.name == "intention check" { 2 } else { FAILURE };
    let known = |name: &str| {
        let flags = verb.flags.iter().chain(&help::HTTP);
        flags.into_iter().find(|flag| flag.name == name).map(|flag| flag.takes)
    };
    let parsed = match parse(args, &known) {
        Ok(parsed) => parsed,
        Err(fault) => {
            return Wish::Say { text: format!("{fault}\n{}", help::verb(verb)), exit: failure };
        }
    };
    let mut argv: Vec<OsString> = vec!["weft".into()];
    argv.extend(verb.name.split(' ').map(OsString::from));
    let (mut flags, mut notes) = (Flags::default(), Vec::new());
    for (name, value) in parsed.flags {
        match verb.flags.iter().find(|flag| flag.name == name).map(|flag| flag.becomes) {
            None => common(&mut flags, name, value),
            Some(Becomes::Switch) if value == "false" => {}
            Some(Becomes::Switch) => argv.push(format!("--{name}").into()),
            Some(Becomes::Value) => argv.push(format!("--{name}={value}").into()),
            Some(Becomes::ValueOf(other)) => argv.push(format!("--{other}={value}").into()),
            Some(Becomes::Nothing(reason)) => {
                notes.push(format!("note: -{name} has no effect: {reason}"));
            }
        }
    }
    if !parsed.rest.is_empty() {
        argv.push("--".into());
        argv.extend(parsed.rest.iter().cloned());
    }
    Wish::Run(Box::new(Order { argv, flags, notes, failure, help: help::verb(verb) }))
}

/// The flags that every question takes.
fn common(flags: &mut Flags, name: &str, value: &str) {
    let given = Some(value.to_owned()).filter(|value| !value.is_empty());
    match name {
        "http-addr" => flags.http_addr = given,
        "token" => flags.token = given,
        "token-file" => flags.token_file = given,
        "datacenter" => flags.datacenter = given,
        "stale" => flags.stale = value == "true",
        "namespace" => flags.tenancy.push(("namespace", value.to_owned())),
        "partition" => flags.tenancy.push(("partition", value.to_owned())),
        _ => {
            let known = help::HTTP.iter().map(|flag| flag.name).find(|known| *known == name);
            flags.tls.extend(known.map(|name| (name, value.to_owned())));
        }
    }
}

#[cfg(test)]
mod tests;
