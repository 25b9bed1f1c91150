//! Lines of Consul, and what becomes of them.

use super::*;

fn wish(line: &str) -> Wish {
    translate(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
}

fn order_of(line: &str) -> Order {
    match wish(line) {
        Wish::Run(order) => *order,
        Wish::Validate { .. } => panic!("{line}: validates"),
        Wish::Say { text, .. } => panic!("{line}: {text}"),
    }
}

fn weft(line: &str) -> String {
    let order = order_of(line);
    let parsed = Cli::try_parse_from(&order.argv);
    assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    order.argv.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ")
}

fn said(line: &str) -> (String, u8) {
    match wish(line) {
        Wish::Say { text, exit } => (text, exit),
        _ => panic!("{line}: says nothing"),
    }
}

#[test]
fn lines_by_table() {
    for (consul, expected) in [
        ("services register reg.hcl", "weft services register -- reg.hcl"),
        (
            "services register -name=cli1 -port=99 -tag=a -tag b --meta=k=v",
            "weft services register --name=cli1 --port=99 --tag=a --tag=b --meta=k=v",
        ),
        ("services deregister -id=cli1", "weft services deregister --id=cli1"),
        ("catalog services -tags", "weft catalog services --tags"),
        ("catalog nodes -service=web -detailed=false", "weft catalog nodes --service=web"),
        ("catalog datacenters -stale", "weft catalog datacenters"),
        ("intention create -deny web api", "weft intention create --deny -- web api"),
        ("intention match -source web", "weft intention match --source -- web"),
        ("intention check web default/api", "weft intention check -- web default/api"),
        ("intention delete web api", "weft intention delete -- web api"),
        ("members -wan -status=alive", "weft members --wan --status=alive"),
        ("info", "weft info"),
        ("kv put -cas -modify-index=7 a -5", "weft kv put --cas --modify-index=7 -- a -5"),
        ("kv put a -cas", "weft kv put -- a -cas"),
        ("kv get -recurse", "weft kv get --recurse"),
        ("kv export", "weft kv export"),
        ("watch -type=service -service web", "weft watch --type=service --service=web"),
        (
            "watch -type key -key a -shell=false cat -n",
            "weft watch --type=key --key=a --shell=false -- cat -n",
        ),
        ("maint -enable -service=api -reason=x", "weft maint --enable --service=api --reason=x"),
        ("lock -n=3 -try 5s foo true", "weft lock --limit=3 --timeout=5s -- foo true"),
        ("config write -", "weft config write -- -"),
        (
            "config delete -kind service-defaults -name api",
            "weft config delete --kind=service-defaults --name=api",
        ),
        ("reload", "weft reload"),
        ("monitor -log-level=DEBUG -log-json", "weft monitor --log-level=DEBUG --log-json"),
        ("join 127.0.0.1", "weft join -- 127.0.0.1"),
        ("force-leave -prune n2", "weft force-leave --prune -- n2"),
    ] {
        assert_eq!(weft(consul), expected, "{consul}");
    }
}

#[test]
fn every_flag_of_the_table_is_one_of_wefts() {
    use clap::CommandFactory;
    let cli = Cli::command();
    for verb in VERBS {
        let mut command = &cli;
        for word in verb.name.split(' ') {
            command = command.find_subcommand(word).unwrap_or_else(|| panic!("weft {}", verb.name));
        }
        for flag in verb.flags {
            let name = match flag.becomes {
                Becomes::Nothing(_) => continue,
                Becomes::ValueOf(other) => other,
                Becomes::Switch | Becomes::Value => flag.name,
            };
            let argument = command.get_arguments().find(|argument| argument.get_long() == Some(name));
            let argument = argument.unwrap_or_else(|| panic!("weft {} has no --{name}", verb.name));
            let takes_value = argument.get_action().takes_values();
            assert_eq!(takes_value, flag.becomes != Becomes::Switch, "{} --{name}", verb.name);
        }
    }
}

#[test]
fn agents_by_table() {
    for (consul, expected) in [
        ("agent -dev", "weft dev --fixed-ports"),
        (
            "agent -dev -config-dir=/etc/c -config-file x.hcl -node n1 -data-dir=/d -http-port 1",
            "weft dev --http-addr=127.0.0.1:1 --config-dir=/etc/c --config-file=x.hcl --node=n1 --fixed-ports",
        ),
        (
            "agent -server -bootstrap-expect=1 -data-dir=/d -client 0.0.0.0 -bind=10.0.0.1 -log-level=ERR",
            "weft server --http-addr=0.0.0.0:8500 --dns-addr=0.0.0.0:8600 --grpc-addr=10.0.0.1:8503 \
             --log-level=error --data-dir=/d --advertise=10.0.0.1",
        ),
        ("agent -data-dir=/d -bind=::", "weft server --grpc-addr=[::]:8503 --data-dir=/d"),
        (
            "agent -data-dir=/d -dns-port=-1 -grpc-tls-port 1 -log-json -advertise=h",
            "weft server --dns-addr=off --grpc-addr=127.0.0.1:1 --log-format=json --data-dir=/d --advertise=h",
        ),
    ] {
        assert_eq!(weft(consul), expected, "{consul}");
    }
    let notes = order_of("agent -dev -ui -retry-join a -server -data-dir=/d -client=127.0.0.1").notes;
    assert_eq!(
        notes,
        [
            "note: -ui has no effect: there is no user interface",
            "note: -retry-join has no effect: there is no gossip and no Raft; servers meet in the store",
            "note: -data-dir has no effect: with -dev all state is in memory",
        ]
    );
    for (line, fault) in [
        ("agent -bogus", "flag provided but not defined: -bogus"),
        ("agent -dev x", "Unexpected extra arguments: x"),
        ("agent -http-port=-1", "-http-port cannot turn the HTTP API off; give it a number"),
        ("agent -http-port=x", "invalid value \"x\" for flag -http-port: not a port"),
        ("agent -bind=eth0", "-bind: \"eth0\" is not an IP address (templates are not read)"),
    ] {
        assert_eq!(said(line), (fault.to_owned(), 1), "{line}");
    }
}

#[test]
fn what_all_questions_take_goes_to_the_connection() {
    let order = order_of(
        "kv get -http-addr=h:1 -token=t -token-file f -datacenter dc2 -stale -ca-file x -namespace=team a",
    );
    let Flags { http_addr, token, token_file, datacenter, stale, tls, tenancy } = order.flags;
    assert_eq!((http_addr.as_deref(), token.as_deref()), (Some("h:1"), Some("t")));
    assert_eq!((token_file.as_deref(), datacenter.as_deref(), stale), (Some("f"), Some("dc2"), true));
    assert_eq!(
        (tls, tenancy),
        (vec![("ca-file", "x".to_owned())], vec![("namespace", "team".to_owned())])
    );
    assert_eq!(order.argv, ["weft", "kv", "get", "--", "a"]);
}

#[test]
fn a_flag_without_effect_has_a_note() {
    let order = order_of("members -segment=alpha");
    assert_eq!(order.notes, ["note: -segment has no effect: there are no network segments"]);
}

#[test]
fn texts_and_codes_by_table() {
    for (line, exit, begin) in [
        ("", 127, "Usage: consul [--version] [--help] <command>"),
        ("bogus", 127, "Usage: consul [--version] [--help] <command>"),
        ("--help", 0, "Usage: consul [--version] [--help] <command>"),
        ("kv", 1, "Usage: consul kv <subcommand>"),
        ("kv bogus", 1, "Usage: consul kv <subcommand>"),
        ("kv -help", 0, "Usage: consul kv <subcommand>"),
        ("kv get -h", 0, "Usage: consul kv get [options] [KEY_OR_PREFIX]\n"),
        ("kv get -format=json a", 1, "flag provided but not defined: -format\nUsage: consul kv get"),
        ("intention check -bogus a b", 2, "flag provided but not defined: -bogus\n"),
        ("acl token list", 1, "`consul acl` is not part of Weft: tokens have scopes"),
        ("validate", 1, "Must specify at least one config file or directory"),
        ("version", 0, "Consul v1.8.7\nWeft "),
        ("--version", 0, "Consul v1.8.7\nWeft "),
        ("agent -help", 0, "Usage: consul agent [options]"),
    ] {
        let (text, code) = said(line);
        assert_eq!(code, exit, "{line}");
        assert!(text.starts_with(begin), "{line}: {text}");
    }
    // What follows two dashes is no flag of ours.
    assert_eq!(weft("lock a -- prog -help"), "weft lock -- a -- prog -help");
}

#[test]
fn names_by_table() {
    for (name, is) in
        [("consul", true), ("/usr/bin/consul", true), ("weft", false), ("./consul2", false)]
    {
        assert_eq!(is_name(OsStr::new(name)), is, "{name}");
    }
}
