//! Tests of loading, of request bodies, and the properties that hold for any input.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::value::{Kind, MAX_FILE_BYTES, Span, Value};
use super::*;
use crate::model::{Action, CheckKind, CheckStatus};

/// Loads files, given by name and text, from one directory.
fn load_dir(files: &[(&str, &str)]) -> Loaded {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    load(&[dir.path().to_owned()])
}

fn messages(loaded: &Loaded) -> Vec<&str> {
    loaded.diagnostics.iter().map(|fault| fault.message.as_str()).collect()
}

#[test]
fn files_are_read_by_name_and_the_last_scalar_wins() {
    let loaded = load_dir(&[
        ("b.json", r#"{"datacenter": "two", "services": [{"name": "b"}]}"#),
        ("a.hcl", "datacenter = \"one\"\nnode_name = \"n1\"\nservices { name = \"a\" }"),
        ("c.txt", "not configuration"),
    ]);
    assert!(loaded.is_valid(), "{:?}", messages(&loaded));
    assert_eq!(loaded.agent.datacenter.as_deref(), Some("two"));
    assert_eq!(loaded.agent.node_name.as_ref().map(ToString::to_string).as_deref(), Some("n1"));
    let names: Vec<&str> = loaded.definitions.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn an_explicit_policy_outranks_the_default_of_acls_in_any_order() {
    let acl = "acl { enabled = true default_policy = \"deny\" }";
    let policy = |files: &[(&str, &str)]| load_dir(files).agent.default_intention_policy;
    assert_eq!(policy(&[("a.hcl", acl)]), Some(Action::Deny));
    assert_eq!(policy(&[("a.hcl", "acl { default_policy = \"deny\" }")]), None);
    let explicit = "default_intention_policy = \"allow\"";
    assert_eq!(policy(&[("a.hcl", explicit), ("b.hcl", acl)]), Some(Action::Allow));
    let halves = [("a.hcl", "acl { enabled = true }"), ("b.hcl", "acl { default_policy = \"deny\" }")];
    assert_eq!(policy(&halves), Some(Action::Deny));
}

#[test]
fn ids_are_unique_among_all_files() {
    let loaded =
        load_dir(&[("a.hcl", "service { name = \"web\" }"), ("b.hcl", "service { name = \"web\" }")]);
    assert!(!loaded.is_valid());
    let fault = &loaded.diagnostics[0];
    assert_eq!((fault.code, fault.message.as_str()), (Code::Duplicate, "the service id `web` is taken"));
    assert!(fault.help.as_deref().unwrap().contains("a.hcl:1:18"), "{fault}");
}

#[test]
fn a_check_finds_its_service_in_a_later_file() {
    let loaded = load_dir(&[
        ("a.hcl", "check { name = \"memory\" ttl = \"10s\" service_id = \"web\" }"),
        ("b.hcl", "service { name = \"web\" check { ttl = \"5s\" } }"),
    ]);
    assert!(loaded.is_valid(), "{:?}", messages(&loaded));
    let ids: Vec<&str> = loaded.definitions[0].checks.iter().map(|check| check.id.as_str()).collect();
    assert_eq!(ids, ["service:web", "memory"]);
    assert!(loaded.node_checks.is_empty());
}

#[test]
fn a_definition_with_a_fault_is_not_handed_on() {
    let loaded =
        load_dir(&[("a.hcl", "services { name = \"a\" port = \"80\" }\nservices { name = \"b\" }")]);
    let names: Vec<&str> = loaded.definitions.iter().map(|d| d.name.as_str()).collect();
    assert_eq!((loaded.is_valid(), names), (false, vec!["b"]));
}

#[test]
fn paths_that_cannot_be_read_are_faults() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("web.txt");
    fs::write(&text, "service {}").unwrap();
    let long = dir.path().join("long.hcl");
    fs::write(&long, "#".repeat(MAX_FILE_BYTES + 1)).unwrap();
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let cases = [
        (dir.path().join("none.hcl"), Code::File, Severity::Error),
        (text, Code::File, Severity::Error),
        (long, Code::Limit, Severity::Error),
        (empty, Code::File, Severity::Warning),
    ];
    for (path, code, severity) in cases {
        let loaded = load(std::slice::from_ref(&path));
        let [fault] = loaded.diagnostics.as_slice() else { panic!("{:?}", loaded.diagnostics) };
        assert_eq!((fault.code, fault.severity), (code, severity), "{fault}");
        assert!(fault.to_string().contains(&path.display().to_string()), "{fault}");
    }
}

#[test]
fn a_pipe_is_refused_instead_of_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.hcl");
    let status = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(status.success());
    let loaded = load(&[pipe]);
    assert_eq!(messages(&loaded), ["this is not a regular file"]);
}

#[test]
fn the_seeds_file_registers_however_it_is_sent() {
    let file = include_str!("../../tests/corpus/config/good/consul-service.json");
    let without_line_breaks = file.replace('\n', "");
    let bare = r#"{"Name":"user-service","ID":"user-service-1","Port":8080,"Tags":["v1","production"],
        "Meta":{"version":"1.2.3","protocol":"http"},
        "Check":{"HTTP":"http://localhost:8080/health","Interval":10000000000,"Timeout":"5s"}}"#;
    let listed = format!("{{\"services\": [{bare}]}}");
    let expected = parse_definition_json(file.as_bytes()).unwrap();
    assert_eq!((expected.id.as_str(), expected.port), ("user-service-1", 8080));
    assert_eq!(expected.checks[0].interval, Duration::from_secs(10));
    for body in [without_line_breaks.as_str(), bare, listed.as_str()] {
        assert_eq!(parse_definition_json(body.as_bytes()).as_ref(), Ok(&expected), "{body}");
    }
}

#[test]
fn what_go_clients_send_for_unset_fields_is_accepted() {
    let body = r#"{"ID":"","Name":"web","Kind":"","Tags":null,"Port":0,"Address":"","SocketPath":"","Check":{},
        "Checks":null,"Proxy":{"MeshGateway":{},"Expose":{}},"Namespace":"default","Partition":"","Locality":null,
        "Connect":{"Native":false,"SidecarService":{"Check":{},"Checks":null,"Connect":null,
        "Proxy":{"Mode":"","TransparentProxy":{},"MeshGateway":{"Mode":""},"Expose":{"Paths":null}}}}}"#;
    let web = parse_definition_json(body.as_bytes()).unwrap();
    assert_eq!((web.id.as_str(), web.checks.len()), ("web", 0));
    assert_eq!(web.sidecar, Some(crate::model::Sidecar::default()));
}

#[test]
fn both_spellings_of_keys_are_accepted_everywhere() {
    let snake = r#"{"name":"w","enable_tag_override":true,"tagged_addresses":{"lan":{"address":"10.0.0.1"}},
        "checks":[{"ttl":"10s","check_id":"c","success_before_passing":2,"deregister_critical_service_after":"2m"}],
        "connect":{"sidecar_service":{"proxy":{"local_service_port":1,
        "upstreams":[{"destination_name":"d","local_bind_port":2,"local_bind_address":"127.0.0.2"}]}}}}"#;
    let camel = r#"{"Name":"w","EnableTagOverride":true,"TaggedAddresses":{"lan":{"Address":"10.0.0.1"}},
        "Checks":[{"TTL":"10s","CheckID":"c","SuccessBeforePassing":2,"DeregisterCriticalServiceAfter":"2m"}],
        "Connect":{"SidecarService":{"Proxy":{"LocalServicePort":1,
        "Upstreams":[{"DestinationName":"d","LocalBindPort":2,"LocalBindAddress":"127.0.0.2"}]}}}}"#;
    let first = parse_definition_json(snake.as_bytes()).unwrap();
    assert_eq!(parse_definition_json(camel.as_bytes()).as_ref(), Ok(&first));
    let check = &first.checks[0];
    assert_eq!(
        (check.id.as_str(), check.success_before_passing, check.initial),
        ("c", 2, CheckStatus::Critical)
    );
    assert_eq!(check.kind, CheckKind::Ttl { ttl: Duration::from_secs(10) });
}

#[test]
fn the_api_answers_in_consuls_words() {
    let cases = [
        ("{}", "Missing service name"),
        (
            r#"{"Name":"x","Port":"abc"}"#,
            "Request decode failed: json: cannot unmarshal string into Go struct field .Port of type int",
        ),
        (r#"{"Name":"x","Foo":1}"#, "Request decode failed: json: unknown field \"Foo\""),
        (r#"{"Name":"x","Address":"0.0.0.0"}"#, "Invalid service address"),
        (
            r#"{"Name":"x","Check":{"HTTP":"http://x/"}}"#,
            "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks",
        ),
        (
            r#"{"Name":"x","Check":{"TTL":"10s","HTTP":"http://x/","Interval":"10s"}}"#,
            "Invalid check: Interval and TTL cannot both be specified",
        ),
        (r#"{"Name":"x","Check":{"Interval":"10s"}}"#, "Invalid check: TTL must be > 0 for TTL checks"),
        (
            r#"{"Name":"x","Check":{"TTL":"abc"}}"#,
            "Request decode failed: time: invalid duration \"abc\"",
        ),
        (
            r#"{"Name":"x","Meta":{"bad key!":"1"}}"#,
            "Invalid Service Meta: Couldn't load metadata pair ('bad key!', '1'): Key contains invalid characters",
        ),
        (
            r#"{"Name":"x","Weights":{"Passing":-1,"Warning":1}}"#,
            "Invalid Weights: Passing must be greater than 0",
        ),
        (
            r#"{"Name":"p","Kind":"connect-proxy","Port":1}"#,
            "1 error occurred:\n\t* Proxy.DestinationServiceName must be non-empty for Connect proxy services\n\n",
        ),
        (
            r#"{"Name":"p","Kind":"connect-proxy","Port":0,"Proxy":{"DestinationServiceName":"a"}}"#,
            "1 error occurred:\n\t* Port must be set for a Connect proxy\n\n",
        ),
        (
            r#"{"Name":"p","Connect":{"SidecarService":{"Proxy":{"Upstreams":[{"LocalBindPort":1}]}}}}"#,
            "1 error occurred:\n\t* upstream destination name cannot be empty\n\n",
        ),
        (
            r#"{"Name":"p","Connect":{"SidecarService":{"Proxy":{"Upstreams":[{"DestinationName":"b"}]}}}}"#,
            "1 error occurred:\n\t* upstream local bind port cannot be zero\n\n",
        ),
        (
            r#"{"Name":"p","Connect":{"SidecarService":{"Connect":{"SidecarService":{}}}}}"#,
            "1 error occurred:\n\t* A SidecarService cannot have a nested SidecarService\n\n",
        ),
        (
            r#"{"Name":"p","Connect":{"SidecarService":{"ID":"zz"}}}"#,
            "1 error occurred:\n\t* A SidecarService cannot specify an ID as this is managed by the agent\n\n",
        ),
        (
            r#"{"services":[]}"#,
            "one service can be registered at a time, not 0: send one request for each",
        ),
    ];
    for (body, words) in cases {
        let faults = parse_definition_json(body.as_bytes()).unwrap_err();
        assert_eq!(api_message(&faults), words, "{body}");
    }
}

#[test]
fn a_body_that_is_not_an_object_is_refused() {
    for body in [
        "",
        "null",
        "[]",
        "notjson",
        "\"x\"",
        "{",
        "// only a comment",
        "{\"Name\":\"x\"} {}",
        "{\"service\":null}",
        "{\"services\":[null]}",
    ] {
        let faults = parse_definition_json(body.as_bytes()).unwrap_err();
        assert!(!faults.is_empty() && !api_message(&faults).is_empty(), "{body}");
    }
}

#[test]
fn secrets_are_in_no_diagnostic() {
    let body = r#"{"Name":"x","Token":"hunter2","Prot":1,"Check":{"HTTP":"x","Header":{"Authorization":["hunter2"]}}}"#;
    let faults = parse_definition_json(body.as_bytes()).unwrap_err();
    let shown: String = faults.iter().map(|fault| format!("{fault}{fault:?}")).collect();
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn what_a_file_says_is_quoted_safely_and_in_bounds() {
    let long = "k".repeat(100_000);
    for text in ["\"\t\"", "\"\0 x\" 5", "service \"\u{1b}[2J\" {}", "\u{202e} = 1", long.as_str()] {
        exercise(text.as_bytes()).unwrap();
        let loaded = load_dir(&[("a.hcl", text)]);
        let shown: String = loaded.diagnostics.iter().map(ToString::to_string).collect();
        assert!(shown.len() < 4096, "{} bytes", shown.len());
    }
}

/// Every file of the corpus, good and broken.
fn corpus() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/config");
    let mut files: Vec<PathBuf> = [dir.clone(), dir.join("good")]
        .iter()
        .flat_map(|dir| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|e| e == "hcl" || e == "json"))
        .collect();
    files.sort();
    assert!(files.len() > 35);
    files.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Parses and decodes a text in both notations, checks every span and renders every fault.
fn exercise(bytes: &[u8]) -> Result<(), TestCaseError> {
    for notation in [Notation::Hcl, Notation::Json] {
        let Ok(source) = files::source("fuzz", bytes) else { return Ok(()) };
        let mut report = Report::new(&source, Origin::File);
        let parsed = parse(&mut report, notation);
        spans_are_inside(&parsed.root, &source.text)?;
        let mut claims = Claims::default();
        let mut cx = Context { report: &mut report, claims: &mut claims };
        decode::file(&mut cx, &parsed.root, &mut AgentDraft::default());
        let lines = source.text.split('\n').count();
        for fault in report.finish() {
            prop_assert!(fault.line <= lines && fault.column <= fault.end_column, "{:?}", fault);
            prop_assert!(fault.to_string().chars().all(|c| c == '\n' || !c.is_control()), "{:?}", fault);
        }
    }
    let _answer = parse_definition_json(bytes).map_err(|faults| api_message(&faults));
    Ok(())
}

fn spans_are_inside(value: &Value, text: &str) -> Result<(), TestCaseError> {
    let is_inside = |span: Span| text.get(span.start..span.end).is_some();
    prop_assert!(is_inside(value.span), "{:?}", value);
    match &value.kind {
        Kind::List(items) => items.iter().try_for_each(|item| spans_are_inside(item, text)),
        Kind::Object(entries) => entries.iter().try_for_each(|entry| {
            prop_assert!(is_inside(entry.key_span), "{:?}", entry);
            spans_are_inside(&entry.value, text)
        }),
        _ => Ok(()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        exercise(&bytes)?;
    }

    #[test]
    fn no_text_of_its_own_alphabet_makes_it_panic(
        text in "([{}=:,\"#/*<$\\\\\\[\\]-]|EOF|service|port|check|upstreams|\\n| |0x|9|é|\\t){0,120}",
    ) {
        exercise(text.as_bytes())?;
    }

    #[test]
    fn no_mutation_of_the_corpus_makes_it_panic(
        file in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..8),
    ) {
        let corpus = corpus();
        let mut bytes = corpus[file.index(corpus.len())].clone();
        for (at, byte, edit) in edits {
            let at = at.index(bytes.len().max(1));
            match edit {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at.min(bytes.len()), b"{}[]\"=,\n"[usize::from(byte % 8)]),
            }
        }
        exercise(&bytes)?;
    }

    #[test]
    fn no_cut_off_file_makes_it_panic(file in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>()) {
        let corpus = corpus();
        let bytes = &corpus[file.index(corpus.len())];
        exercise(&bytes[..cut.index(bytes.len() + 1)])?;
    }
}
