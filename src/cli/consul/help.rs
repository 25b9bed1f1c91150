//! Help in Consul's manner.

use std::fmt::Write;

use super::flags::Takes;
use super::verbs::{Flag, VERBS, Verb};

/// Commands that are not in the table of verbs because they are no questions to a server.
const OTHERS: [(&str, &str); 3] = [
    ("agent", "Runs an agent"),
    ("validate", "Validates config files and directories"),
    ("version", "Prints the version"),
];
const GROUPS: [(&str, &str); 5] = [
    ("catalog", "Interacts with the catalog"),
    ("config", "Interacts with centralized config entries"),
    ("intention", "Interacts with intentions"),
    ("kv", "Interacts with the key-value store"),
    ("services", "Interacts with services"),
];

pub(super) fn is_group(name: &str) -> bool {
    GROUPS.iter().any(|(group, _)| *group == name)
}

/// All commands.
pub(super) fn all() -> String {
    let top = |verb: &&Verb| !verb.name.contains(' ');
    let mut commands: Vec<(&str, &str)> =
        VERBS.iter().filter(top).map(|verb| (verb.name, verb.about)).collect();
    commands.extend(OTHERS);
    commands.extend(GROUPS);
    format!(
        "Usage: consul [--version] [--help] <command> [<args>]\n\nAvailable commands are:\n{}",
        list(commands)
    )
}

/// The commands of a group.
pub(super) fn group(name: &str) -> String {
    let member = |verb: &'static Verb| {
        let (group, sub) = verb.name.split_once(' ')?;
        (group == name).then_some((sub, verb.about))
    };
    format!(
        "Usage: consul {name} <subcommand> [options] [args]\n\nSubcommands:\n{}",
        list(VERBS.iter().filter_map(member).collect())
    )
}

fn list(mut commands: Vec<(&str, &str)>) -> String {
    commands.sort_unstable();
    let width = commands.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    commands.iter().fold(String::new(), |mut text, (name, about)| {
        let _never_fails = writeln!(text, "    {name:width$}    {about}");
        text
    })
}

/// One command: its use, and its flags after those that all have.
pub(super) fn verb(verb: &Verb) -> String {
    let space = if verb.arguments.is_empty() { "" } else { " " };
    let mut text =
        format!("Usage: consul {} [options]{space}{}\n\n  {}.\n", verb.name, verb.arguments, verb.about);
    if !verb.flags.is_empty() {
        text += "\nCommand Options\n\n";
        text.extend(verb.flags.iter().map(|flag| line(flag.name, flag.takes)));
    }
    text += "\nHTTP API Options\n\n";
    text.extend(HTTP.iter().map(|flag| line(flag.name, flag.takes)));
    text
}

fn line(name: &str, takes: Takes) -> String {
    match takes {
        Takes::Nothing => format!("  -{name}\n"),
        Takes::Value => format!("  -{name}=<value>\n"),
    }
}

const fn of(name: &'static str, takes: Takes) -> Flag {
    Flag { name, takes, becomes: super::verbs::Becomes::Value }
}

/// The flags that every question to a server takes.
pub(super) const HTTP: [Flag; 12] = [
    of("ca-file", Takes::Value),
    of("ca-path", Takes::Value),
    of("client-cert", Takes::Value),
    of("client-key", Takes::Value),
    of("datacenter", Takes::Value),
    of("http-addr", Takes::Value),
    of("namespace", Takes::Value),
    of("partition", Takes::Value),
    of("stale", Takes::Nothing),
    of("tls-server-name", Takes::Value),
    of("token", Takes::Value),
    of("token-file", Takes::Value),
];
