//! The language by table, and what holds for any text.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn fault(expression: &str, schema: Schema) -> String {
    let text = Filter::compile(expression, schema).unwrap_err().to_string();
    let prefix = "Failed to create boolean expression evaluator: ";
    text.strip_prefix(prefix).map_or(text.clone(), str::to_owned)
}

#[test]
fn syntax_faults_have_consuls_words() {
    let no_match = |at: &str, expected: &str| format!("{at}: no match found, expected: {expected}");
    let operand = r#""(", "-", "0", "\"", "`", "not", [ \t\r\n], [1-9] or [a-zA-Z]"#;
    for (expression, expected) in [
        // These two were captured from Consul 1.8.7.
        ("bogus", no_match("1:6 (5)", r#""!=", ".", "==", "[", [ \t\r\n] or [a-zA-Z0-9_]"#)),
        (
            "CheckID==_node_maintenance",
            no_match("1:10 (9)", r#""-", "0", "\"", "`", [ \t\r\n], [1-9] or [a-zA-Z]"#),
        ),
        (" ", no_match("1:2 (1)", operand)),
        ("Node in Tags and ", no_match("1:18 (17)", operand)),
        (
            "Node in Tags or not ",
            no_match(
                "1:21 (20)",
                r#""!=", "(", "-", "0", "==", "\"", "`", "contains", "in", "is", "matches", "not", [ \t\r\n], [1-9] or [a-zA-Z]"#,
            ),
        ),
        ("Node in Tags abc", no_match("1:14 (13)", r#""and", "or", [ \t\r\n] or EOF"#)),
        ("Node is", no_match("1:8 (7)", r"[ \t\r\n]")),
        ("32 == 32", no_match("1:4 (3)", r#""in", "not" or [ \t\r\n]"#)),
        ("Node == a-b", no_match("1:10 (9)", r#"".", "[", [ \t\r\n], [a-zA-Z0-9_] or EOF"#)),
        ("a == b)", no_match("1:7 (6)", r#"".", "[", [ \t\r\n], [a-zA-Z0-9_] or EOF"#)),
        ("\u{e9} == b", no_match("1:1 (0)", operand)),
        ("\u{a0}", no_match("1:1 (0)", operand)),
        ("a ==\n\n #", no_match("3:2 (7)", r#""-", "0", "\"", "`", [ \t\r\n], [1-9] or [a-zA-Z]"#)),
        ("a == \"\u{e9}\" x", no_match("1:10 (10)", r#""and", "or", [ \t\r\n] or EOF"#)),
        ("a == \"12x", r#"1:10 (9): rule "string": Unterminated string literal"#.to_owned()),
        ("a == `12x", r#"1:10 (9): rule "string": Unterminated string literal"#.to_owned()),
        (r#"a == "\q""#, r#"1:6 (5): rule "string": invalid syntax"#.to_owned()),
        ("a == 3x", r#"1:7 (6): rule "number": Invalid number literal"#.to_owned()),
        ("a == 03", r#"1:7 (6): rule "number": Invalid number literal"#.to_owned()),
        ("a[3] == b", r#"1:3 (2): rule "index": Invalid index"#.to_owned()),
        ("x in a[\"b\"", r#"1:11 (10): rule "index": Unclosed index expression"#.to_owned()),
        ("x in 32", r#"1:6 (5): rule "match": Invalid selector"#.to_owned()),
        ("(a == 4", r#"1:8 (7): rule "grouping": Unmatched parentheses"#.to_owned()),
        (
            "a == \"b\" or c[\"d\" == 3x",
            r#"1:19 (18): rule "index": Unclosed index expression"#.to_owned(),
        ),
    ] {
        assert_eq!(fault(expression, schema::CHECK), expected, "{expression}");
    }
}

#[test]
fn what_does_not_fit_the_fields_is_refused_in_consuls_words() {
    for (expression, expected) in [
        ("Nope == a", r#"Selector "Nope" is not valid"#),
        ("Node == a", r#"Invalid match operator "Equal" for selector "Node""#),
        ("Node.Node.More == a", r#"Selector "Node.Node.More" is not valid"#),
        ("service.Port == 1", r#"Selector "service" is not valid"#),
        (r#"Service["Meta"].a.b == c"#, r#"Selector "Service.Meta.a.b" is not valid"#),
        ("Service.Tags == a", r#"Invalid match operator "Equal" for selector "Service.Tags""#),
        ("Service.Meta == a", r#"Invalid match operator "Equal" for selector "Service.Meta""#),
        ("Service.Port is empty", r#"Invalid match operator "Is Empty" for selector "Service.Port""#),
        (
            "Service.ID is not empty",
            r#"Invalid match operator "Is Not Empty" for selector "Service.ID""#,
        ),
        ("a not in Service.Port", r#"Invalid match operator "Not In" for selector "Service.Port""#),
        ("Checks contains a", r#"Invalid match operator "In" for selector "Checks""#),
        (
            "Service.Tags not matches a",
            r#"Invalid match operator "Not Matches" for selector "Service.Tags""#,
        ),
        ("Service.CreateIndex == 1", r#"Selector "Service.CreateIndex" is not valid"#),
        (
            "Service.Port == http",
            r#"Failed to coerce value "http" for selector "Service.Port": strconv.ParseInt: parsing "http": invalid syntax"#,
        ),
        (
            "Service.Port == 99999999999999999999",
            r#"Failed to coerce value "99999999999999999999" for selector "Service.Port": strconv.ParseInt: parsing "99999999999999999999": value out of range"#,
        ),
        (
            "Service.Connect.Native == yes",
            r#"Failed to coerce value "yes" for selector "Service.Connect.Native": strconv.ParseBool: parsing "yes": invalid syntax"#,
        ),
    ] {
        assert_eq!(fault(expression, schema::HEALTH), expected, "{expression}");
    }
    let fault = fault("Node.Node matches `a(`", schema::HEALTH);
    assert!(fault.starts_with(r#"Failed to compile regular expression "a(": "#), "{fault}");
}

#[test]
fn bounds_are_told() {
    let parentheses = |levels: usize| format!("{}Name == a{}", "(".repeat(levels), ")".repeat(levels));
    let negations = |levels: usize| format!("{}Name == a", "not ".repeat(levels));
    let patterns = |count: usize| vec!["Name matches a"; count].join(" or ");
    let alternatives = |length: usize| {
        let mut text = "Name == a".to_owned();
        while text.len() + 13 <= length {
            text.push_str(" or Name == a");
        }
        format!("{text:<length$}")
    };
    for fine in [
        parentheses(MAX_FILTER_DEPTH),
        negations(MAX_FILTER_DEPTH),
        patterns(MAX_FILTER_PATTERNS),
        alternatives(MAX_FILTER_BYTES),
    ] {
        assert!(Filter::compile(&fine, schema::CHECK).is_ok(), "{fine}");
    }
    for (beyond, expected) in [
        (parentheses(MAX_FILTER_DEPTH + 1), FilterError::TooDeep),
        (negations(MAX_FILTER_DEPTH + 1), FilterError::TooDeep),
        ("(".repeat(MAX_FILTER_BYTES), FilterError::TooDeep),
        (patterns(MAX_FILTER_PATTERNS + 1), FilterError::TooManyPatterns),
        (alternatives(MAX_FILTER_BYTES + 1), FilterError::TooLong),
    ] {
        assert_eq!(Filter::compile(&beyond, schema::CHECK).unwrap_err(), expected, "{beyond}");
    }
    let greedy = fault("Name matches `(a{1000}){1000}`", schema::CHECK);
    assert!(greedy.starts_with("Failed to compile regular expression"), "{greedy}");
}

fn entry() -> Value {
    json!({
        "Node": { "Node": "n1", "Address": "10.0.0.1", "Meta": { "zone": "a" }, "TaggedAddresses": null },
        "Service": {
            "ID": "web-1", "Service": "web", "Tags": ["v1", "production"], "Address": "", "Port": 8080,
            "Meta": { "version": "1.2", "a-b": "x y", "empty": "" },
            "TaggedAddresses": { "lan": { "Address": "10.0.0.2", "Port": 80 } },
            "Weights": { "Passing": 10, "Warning": 1 }, "EnableTagOverride": true,
            "Proxy": { "Upstreams": [
                { "DestinationName": "db", "LocalBindPort": 1 },
                { "DestinationName": "cache", "LocalBindPort": 2 },
            ] },
            "Connect": {},
        },
        "Checks": [
            { "CheckID": "serfHealth", "Status": "passing", "ServiceTags": [] },
            { "CheckID": "service:web-1", "Status": "warning", "ServiceTags": ["v1"] },
        ],
    })
}

fn keeps(expression: &str, item: &Value) -> bool {
    Filter::compile(expression, schema::HEALTH)
        .unwrap_or_else(|e| panic!("{expression}: {e}"))
        .keeps(item)
}

/// What holds for [`entry`].
const EXPRESSIONS: &[(&str, bool)] = &[
    ("Node.Node == n1", true),
    ("Node.Node==n1", true),
    ("Node.Node != n1", false),
    ("\t Node.Node\n==\r\nn1 ", true),
    ("Service.ID == \"web-1\"", true),
    ("Service.ID == `web-1`", true),
    ("Service.Service == WEB", false),
    // Texts: equal, part, pattern.
    ("web in Service.ID", true),
    ("Service.ID contains eb", true),
    ("Service.ID not contains eb", false),
    ("db not in Service.ID", true),
    ("Service.ID matches `^web-[0-9]+$`", true),
    ("Service.ID matches eb", true),
    ("Service.ID not matches `^web$`", true),
    (r#"Service.ID matches "^\\w+-\\d$""#, true),
    // Numbers and booleans are compared as such.
    ("Service.Port == 8080", true),
    ("Service.Port == `0x1F90`", true),
    ("Service.Port != 80", true),
    ("Service.Weights.Passing == 10", true),
    ("Service.EnableTagOverride == true", true),
    ("Service.EnableTagOverride == t", true),
    ("Service.EnableTagOverride != false", true),
    // Lists of texts.
    ("v1 in Service.Tags", true),
    ("v in Service.Tags", false),
    ("\"v2\" not in Service.Tags", true),
    ("Service.Tags contains production", true),
    ("Service.Tags is empty", false),
    ("Service.Tags is not empty", true),
    // Maps: an absent key equals nothing, is in nothing and is empty.
    ("Service.Meta.version == `1.2`", true),
    ("Service.Meta.version == 1.2", true),
    ("Service.Meta[\"a-b\"] == \"x y\"", true),
    ("Service.Meta[ `a-b` ] contains x", true),
    ("version in Service.Meta", true),
    ("Service.Meta contains nope", false),
    ("Service.Meta.nope == \"\"", false),
    ("Service.Meta.empty == \"\"", true),
    ("Service.Meta.nope != 1", true),
    ("1 in Service.Meta.nope", false),
    ("1 not in Service.Meta.nope", true),
    ("Service.Meta.nope matches `.*`", false),
    ("Service.Meta.nope not matches `.*`", true),
    ("Service.TaggedAddresses.lan.Port == 80", true),
    ("Service.TaggedAddresses.wan.Port == 0", false),
    ("Service.TaggedAddresses.wan.Port != 0", true),
    ("Service.TaggedAddresses[\"lan\"].Address == \"10.0.0.2\"", true),
    ("Service.Meta is not empty", true),
    // Fields that the answer leaves out have the empty value.
    ("Service.Kind == \"\"", true),
    ("Service.Connect.Native == false", true),
    ("Service.Proxy.LocalServicePort == 0", true),
    ("Service.Proxy.Expose.Paths is empty", true),
    ("Node.TaggedAddresses is empty", true),
    ("lan in Node.TaggedAddresses", false),
    ("Node.TaggedAddresses.lan == \"\"", false),
    // Lists of objects: one is enough, whatever the operator.
    ("Checks.Status == warning", true),
    ("Checks.Status != warning", true),
    ("Checks.Status == critical", false),
    ("Checks.ServiceTags is empty", true),
    ("v1 in Checks.ServiceTags", true),
    ("Checks is empty", false),
    ("Service.Proxy.Upstreams.DestinationName == cache", true),
    ("Service.Proxy.Upstreams.LocalBindPort == 3", false),
    ("Service.Proxy.Upstreams.MeshGateway.Mode == \"\"", true),
    // not binds closer than and, and closer than or; both are read from the left.
    ("not Node.Node == n1", false),
    ("not not Node.Node == n1", true),
    ("not Node.Node == n2 and Service.Port == 8080", true),
    ("not (Node.Node == n1 and Service.Port == 1)", true),
    ("Node.Node == n1 or Service.Port == 1 and Service.Port == 2", true),
    ("(Node.Node == n1 or Service.Port == 1) and Service.Port == 2", false),
    ("((((Service.Port == 8080))))", true),
    ("( Service.Port == 8080 ) and Node.Node == n1", true),
    // Words of the language are values where a value is due.
    ("not in Service.Tags", false),
    ("empty not in Service.Tags", true),
    ("Node.Node == and or Node.Node == n1", true),
];

#[test]
fn expressions_by_table() {
    let entry = entry();
    for (expression, expected) in EXPRESSIONS {
        assert_eq!(keeps(expression, &entry), *expected, "{expression}");
    }
    assert!(Filter::compile("", schema::HEALTH).unwrap().keeps_all());
    assert!(Filter::compile("", schema::HEALTH).unwrap().keeps(&Value::Null));
}

/// Words that often make an expression.
fn expression() -> impl Strategy<Value = String> {
    let words = [
        "Node.Node",
        "Service.Port",
        "Service.Tags",
        "Service.Meta.version",
        "Checks.Status",
        "Checks",
        "==",
        "!=",
        "in",
        "not",
        "contains",
        "matches",
        "is",
        "empty",
        "and",
        "or",
        "(",
        ")",
        "n1",
        "8080",
        "\"v1\"",
        "`1.2`",
        "[\"a-b\"]",
        ".",
        "-",
        "\"",
        "`",
        "\u{e9}",
    ];
    let word = prop::sample::select(words.to_vec());
    prop::collection::vec((word, prop::sample::select(vec!["", " ", "\n"])), 0..24)
        .prop_map(|parts| parts.into_iter().map(|(word, space)| format!("{word}{space}")).collect())
}

/// An expression that compiles, and whether it holds for [`entry`], worked out beside it.
fn valid() -> impl Strategy<Value = (String, bool)> {
    let leaf = prop::sample::select(vec![
        ("Node.Node == n1", true),
        ("Service.Port == 1", false),
        ("v1 in Service.Tags", true),
        ("Checks.Status matches crit", false),
        ("Service.Tags is empty", false),
    ])
    .prop_map(|(text, holds)| (text.to_owned(), holds));
    leaf.prop_recursive(5, 32, 4, |inner| {
        let parts = prop::collection::vec(inner.clone(), 2..4);
        let join = |word: &'static str| {
            move |parts: Vec<(String, bool)>| {
                let texts: Vec<_> = parts.iter().map(|(text, _)| format!("({text})")).collect();
                let all = parts.iter().all(|(_, holds)| *holds);
                let any = parts.iter().any(|(_, holds)| *holds);
                (texts.join(word), if word == " and " { all } else { any })
            }
        };
        prop_oneof![
            inner.prop_map(|(text, holds)| (format!("not ({text})"), !holds)),
            parts.clone().prop_map(join(" and ")),
            parts.prop_map(join(" or ")),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_answered(text in any::<String>(), words in expression()) {
        for text in [text, words] {
            match Filter::compile(&text, schema::HEALTH) {
                Ok(filter) => {
                    let opposite = Filter::compile(&format!("not ({text})"), schema::HEALTH);
                    if let (Ok(opposite), false) = (opposite, filter.keeps_all()) {
                        prop_assert_ne!(filter.keeps(&entry()), opposite.keeps(&entry()));
                    }
                }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }

    #[test]
    fn connectives_are_boolean((text, holds) in valid()) {
        prop_assert_eq!(keeps(&text, &entry()), holds, "{}", text);
    }
}
