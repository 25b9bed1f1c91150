//! Consul's commands: the flags of each, and what becomes of them in Weft's.

use super::flags::Takes;

/// A command, in the words of both programs: Weft's names are the same.
#[derive(Debug)]
pub(super) struct Verb {
    pub(super) name: &'static str,
    /// What follows the flags, for help.
    pub(super) arguments: &'static str,
    pub(super) about: &'static str,
    pub(super) flags: &'static [Flag],
}

#[derive(Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) takes: Takes,
    pub(super) becomes: Becomes,
}

/// What a flag is translated into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Becomes {
    /// `--name`, if it is true.
    Switch,
    /// `--name=value`.
    Value,
    /// `--other=value`.
    ValueOf(&'static str),
    /// A note that gives the reason.
    Nothing(&'static str),
}

const fn switch(name: &'static str) -> Flag {
    Flag { name, takes: Takes::Nothing, becomes: Becomes::Switch }
}

/// A switch that is on unless it is turned off.
const fn on(name: &'static str) -> Flag {
    Flag { name, takes: Takes::Nothing, becomes: Becomes::Value }
}

const fn value(name: &'static str) -> Flag {
    Flag { name, takes: Takes::Value, becomes: Becomes::Value }
}

const fn value_of(name: &'static str, other: &'static str) -> Flag {
    Flag { name, takes: Takes::Value, becomes: Becomes::ValueOf(other) }
}

const fn nothing(name: &'static str, takes: Takes, reason: &'static str) -> Flag {
    Flag { name, takes, becomes: Becomes::Nothing(reason) }
}

const fn verb(
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    flags: &'static [Flag],
) -> Verb {
    Verb { name, arguments, about, flags }
}

pub(super) const VERBS: &[Verb] = &[
    verb("catalog datacenters", "", "Lists all known datacenters", &[]),
    verb(
        "catalog nodes",
        "",
        "Lists all nodes",
        &[switch("detailed"), value("filter"), value("near"), value("node-meta"), value("service")],
    ),
    verb(
        "catalog services",
        "",
        "Lists all registered services",
        &[value("node"), value("node-meta"), switch("tags")],
    ),
    verb(
        "config delete",
        "",
        "Deletes a config entry",
        &[switch("cas"), value("kind"), value("modify-index"), value("name")],
    ),
    verb("config list", "", "Lists config entries of a kind", &[value("kind")]),
    verb("config read", "", "Reads a config entry", &[value("kind"), value("name")]),
    verb(
        "config write",
        "FILE",
        "Creates or updates a config entry",
        &[switch("cas"), value("modify-index")],
    ),
    verb("connect ca get-config", "", "Prints the configuration of the certificate authority", &[]),
    verb(
        "connect ca set-config",
        "",
        "Changes the configuration of the certificate authority",
        &[
            value("config-file"),
            nothing("force-without-cross-signing", Takes::Nothing, "sidecars are waited for instead"),
        ],
    ),
    verb(
        "force-leave",
        "NODE",
        "Removes a node",
        &[switch("prune"), nothing("wan", Takes::Nothing, "there is one datacenter")],
    ),
    verb("info", "", "Shows the numbers of the agent", &[]),
    verb(
        "intention check",
        "SRC DST",
        "Checks whether a connection is allowed",
        &[nothing("source-type", Takes::Value, "`consul` is the only type of source")],
    ),
    verb(
        "intention create",
        "SRC DST",
        "Creates an intention",
        &[switch("allow"), switch("deny"), switch("file"), value("meta"), switch("replace")],
    ),
    verb("intention delete", "SRC DST | ID", "Deletes an intention", &[]),
    verb("intention get", "SRC DST | ID", "Shows an intention", &[]),
    verb("intention list", "", "Lists all intentions", &[]),
    verb(
        "intention match",
        "SRC|DST",
        "Shows the intentions that match",
        &[switch("destination"), switch("source")],
    ),
    verb("join", "ADDRESS...", "Tells the agent to join others", &[switch("wan")]),
    verb(
        "kv delete",
        "KEY_OR_PREFIX",
        "Removes data from the KV store",
        &[switch("cas"), value("modify-index"), switch("recurse")],
    ),
    verb("kv export", "[PREFIX]", "Exports a tree of the KV store as JSON", &[]),
    verb(
        "kv get",
        "[KEY_OR_PREFIX]",
        "Retrieves or lists data of the KV store",
        &[switch("base64"), switch("detailed"), switch("keys"), switch("recurse"), value("separator")],
    ),
    verb("kv import", "DATA", "Imports a tree into the KV store", &[value("prefix")]),
    verb(
        "kv put",
        "KEY [DATA]",
        "Sets or updates data in the KV store",
        &[
            switch("acquire"),
            switch("base64"),
            switch("cas"),
            value("flags"),
            value("modify-index"),
            switch("release"),
            value("session"),
        ],
    ),
    verb("leave", "", "Ends the agent gracefully", &[]),
    verb(
        "lock",
        "PREFIX CHILD...",
        "Executes a command holding a lock",
        &[
            switch("child-exit-code"),
            value("monitor-retry"),
            value_of("n", "limit"),
            value("name"),
            switch("pass-stdin"),
            on("shell"),
            value("timeout"),
            value_of("try", "timeout"),
            switch("verbose"),
        ],
    ),
    verb(
        "maint",
        "",
        "Controls node or service maintenance mode",
        &[switch("disable"), switch("enable"), value("reason"), value("service")],
    ),
    verb(
        "members",
        "",
        "Lists the members of the cluster",
        &[
            switch("detailed"),
            value("filter"),
            nothing("segment", Takes::Value, "there are no network segments"),
            value("status"),
            switch("wan"),
        ],
    ),
    verb("monitor", "", "Streams the log of the agent", &[switch("log-json"), value("log-level")]),
    verb("reload", "", "Makes the agent read its configuration files again", &[]),
    verb("services deregister", "[FILE...]", "Deregisters services", &[value("id")]),
    verb(
        "services register",
        "[FILE...]",
        "Registers services",
        &[
            value("address"),
            value("id"),
            value("kind"),
            value("meta"),
            value("name"),
            value("port"),
            value("tag"),
            value("tagged-address"),
        ],
    ),
    verb(
        "watch",
        "[CHILD...]",
        "Watches for changes",
        &[
            value("key"),
            value("name"),
            value("passingonly"),
            value("prefix"),
            value("service"),
            on("shell"),
            value("state"),
            value("tag"),
            value("type"),
        ],
    ),
];

/// Commands that there are not, and why.
pub(super) const ABSENT: &[(&str, &str)] = &[
    ("acl", "tokens have scopes instead of policies; see `weft api-token --help`"),
    (
        "connect",
        "of it there is `connect ca`; run a sidecar with `weft proxy --config FILE`; it needs no Envoy",
    ),
    ("debug", "see `consul info`, `consul monitor` and the metrics at /metrics"),
    ("event", "there are no events; let receivers watch a key"),
    ("exec", "nothing is run on behalf of a remote caller"),
    ("keygen", "there is no gossip to encrypt"),
    ("keyring", "there is no gossip to encrypt"),
    ("login", "there are no auth methods; see `weft api-token --help`"),
    ("logout", "there are no auth methods; see `weft api-token --help`"),
    ("operator", "there is no Raft; servers meet in the store"),
    ("peering", "there is one cluster"),
    ("resource", "there are no resources; use `consul config`"),
    ("rtt", "there are no network coordinates"),
    ("snapshot", "copy the data directory of a server that is stopped"),
    ("tls", "the mesh makes its own certificates"),
    ("troubleshoot", "see `weft status`, `weft proxies` and `weft intention check`"),
];
