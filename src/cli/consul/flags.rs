//! Flags as Consul reads them: Go's rules, one or two dashes, up to the first argument that is none.

use std::ffi::OsString;

use crate::cli::access::parse_bool;

/// Whether a flag has a value. A switch takes one behind `=` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    Value,
}

/// The flags of a command line in their order, and what follows them. The value of a switch is `true`
/// or `false`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parsed<'a> {
    pub(super) flags: Vec<(&'a str, &'a str)>,
    pub(super) rest: &'a [OsString],
}

/// Reads flags that `known` knows.
///
/// # Errors
/// Go's message for the first one that cannot be read.
pub(super) fn parse<'a>(
    mut args: &'a [OsString],
    known: &dyn Fn(&str) -> Option<Takes>,
) -> Result<Parsed<'a>, String> {
    let mut flags = Vec::new();
    while let [first, rest @ ..] = args {
        let Some(text) = first.to_str() else {
            if first.as_encoded_bytes().starts_with(b"-") {
                return Err(format!("bad flag syntax: {}", first.to_string_lossy()));
            }
            break;
        };
        if text == "--" {
            args = rest;
            break;
        }
        let Some(name) = text.strip_prefix('-').filter(|name| !name.is_empty()) else { break };
        args = rest;
        let name = name.strip_prefix('-').unwrap_or(name);
        if name.is_empty() || name.starts_with(['-', '=']) {
            return Err(format!("bad flag syntax: {text}"));
        }
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        let takes = known(name).ok_or_else(|| format!("flag provided but not defined: -{name}"))?;
        let value = match (takes, value) {
            (Takes::Nothing, None) => "true",
            (Takes::Nothing, Some(value)) => switch(name, value)?,
            (Takes::Value, Some(value)) => value,
            (Takes::Value, None) => {
                let (value, rest) =
                    args.split_first().ok_or_else(|| format!("flag needs an argument: -{name}"))?;
                args = rest;
                value.to_str().ok_or_else(|| format!("invalid value for flag -{name}: not UTF-8"))?
            }
        };
        flags.push((name, value));
    }
    Ok(Parsed { flags, rest: args })
}

fn switch(name: &str, value: &str) -> Result<&'static str, String> {
    match parse_bool(value) {
        Some(true) => Ok("true"),
        Some(false) => Ok("false"),
        None => Err(format!("invalid boolean value {value:?} for -{name}: parse error")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> Option<Takes> {
        match name {
            "cas" | "recurse" => Some(Takes::Nothing),
            "flags" | "http-addr" => Some(Takes::Value),
            _ => None,
        }
    }

    #[test]
    fn lines_by_table() {
        for (line, flags, rest) in [
            ("", vec![], vec![]),
            ("-cas k v", vec![("cas", "true")], vec!["k", "v"]),
            ("--cas=false -flags 3 k", vec![("cas", "false"), ("flags", "3")], vec!["k"]),
            ("-flags=3 k -cas", vec![("flags", "3")], vec!["k", "-cas"]),
            ("-flags -cas", vec![("flags", "-cas")], vec![]),
            ("-http-addr= -- -cas", vec![("http-addr", "")], vec!["-cas"]),
            ("k", vec![], vec!["k"]),
            ("- -cas", vec![], vec!["-", "-cas"]),
        ] {
            let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let parsed = parse(&args, &known).unwrap();
            assert_eq!(
                (parsed.flags, parsed.rest.to_vec()),
                (flags, rest.iter().map(OsString::from).collect()),
                "{line}"
            );
        }
    }

    #[test]
    fn faults_are_gos() {
        for (line, fault) in [
            ("-format=json", "flag provided but not defined: -format"),
            ("-flags", "flag needs an argument: -flags"),
            ("-cas=maybe", "invalid boolean value \"maybe\" for -cas: parse error"),
            ("---cas", "bad flag syntax: ---cas"),
            ("-=3", "bad flag syntax: -=3"),
        ] {
            let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            assert_eq!(parse(&args, &known).unwrap_err(), fault);
        }
    }
}
