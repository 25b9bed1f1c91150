//! What must hold for any `?filter` that a client could send: the oracle of the filter's fuzz target.
//!
//! Used by `fuzz_targets/filter.rs` with what libFuzzer makes up, and by `tests/it/fuzz_corpus.rs` with
//! the corpus. It ends with a panic when something does not hold.
//!
//! An input is one byte that picks the fields, and the expression.

use serde_json::{Value, json};
use weft::api::filter::{Filter, Schema, schema};

const SCHEMAS: [Schema; 6] = [
    schema::NODE,
    schema::SERVICE,
    schema::CATALOG_SERVICE,
    schema::CHECK,
    schema::HEALTH,
    schema::INTENTION,
];

/// Checks one input. Returns whether it is an expression that asks something.
pub fn check(input: &[u8]) -> bool {
    let Some((&pick, text)) = input.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let fields = SCHEMAS[usize::from(pick) % SCHEMAS.len()];
    let filter = match Filter::compile(text, fields) {
        Ok(filter) => filter,
        Err(error) => {
            let again = Filter::compile(text, fields).map(|_| ());
            assert_eq!(again, Err(error.clone()), "a fault is told in two ways");
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let opposite = Filter::compile(&format!("not ({text})"), fields);
    for item in [items(), json!({}), Value::Null] {
        let kept = filter.keeps(&item);
        if filter.keeps_all() {
            assert!(kept, "nothing was asked");
        } else if let Ok(opposite) = &opposite {
            assert_ne!(kept, opposite.keeps(&item), "an item is both wanted and not, or neither");
        }
    }
    !filter.keeps_all()
}

/// One object that has fields of every kind for every schema.
fn items() -> Value {
    let service = json!({
        "ID": "web-1", "Service": "web", "Tags": ["v1"], "Port": 80, "Meta": { "version": "1.2", "": "x" },
        "TaggedAddresses": { "lan": { "Address": "10.0.0.1", "Port": 80 } }, "EnableTagOverride": true,
        "Proxy": { "Upstreams": [{ "DestinationName": "db", "LocalBindPort": 1 }] },
    });
    let mut all = service.clone();
    for (name, value) in [
        ("Node", json!({ "Node": "n1", "Meta": { "zone": "a" } })),
        ("Service", service),
        ("Checks", json!([{ "Status": "passing" }, { "Status": "critical", "ServiceTags": ["v1"] }])),
        ("ServiceTags", json!(["v1"])),
        ("ServicePort", json!(80)),
        ("Precedence", json!(9)),
        ("SourceName", json!("web")),
    ] {
        all[name] = value;
    }
    all
}
