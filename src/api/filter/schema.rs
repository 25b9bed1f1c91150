//! The selectors of each endpoint and the kinds of their fields. Indexes and check definitions cannot be
//! selected, as in Consul.

/// The fields of an item.
pub type Schema = &'static [Field];

/// A field by its name in the JSON.
#[derive(Debug)]
pub struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// What a field holds, and with it what can be asked of it.
#[derive(Debug)]
pub(super) enum Kind {
    Text,
    Number,
    Bool,
    Texts,
    /// Objects; a selector goes on inside of any of them.
    List(&'static [Field]),
    /// Values by key; any key may be selected.
    Map(&'static Self),
    Object(&'static [Field]),
}

const fn text(name: &'static str) -> Field {
    Field { name, kind: Kind::Text }
}

const fn number(name: &'static str) -> Field {
    Field { name, kind: Kind::Number }
}

const fn boolean(name: &'static str) -> Field {
    Field { name, kind: Kind::Bool }
}

const fn texts(name: &'static str) -> Field {
    Field { name, kind: Kind::Texts }
}

const fn text_map(name: &'static str) -> Field {
    Field { name, kind: Kind::Map(&Kind::Text) }
}

const fn addresses(name: &'static str) -> Field {
    Field { name, kind: Kind::Map(&Kind::Object(ADDRESS)) }
}

const fn object(name: &'static str, fields: &'static [Field]) -> Field {
    Field { name, kind: Kind::Object(fields) }
}

const fn list(name: &'static str, fields: &'static [Field]) -> Field {
    Field { name, kind: Kind::List(fields) }
}

const ADDRESS: &[Field] = &[text("Address"), number("Port")];
const WEIGHTS: &[Field] = &[number("Passing"), number("Warning")];
const CONNECT: &[Field] = &[boolean("Native")];
const MESH_GATEWAY: &[Field] = &[text("Mode")];

const EXPOSE: &[Field] = &[
    boolean("Checks"),
    list(
        "Paths",
        &[
            number("ListenerPort"),
            text("Path"),
            number("LocalPathPort"),
            text("Protocol"),
            boolean("ParsedFromCheck"),
        ],
    ),
];

const UPSTREAM: &[Field] = &[
    text("DestinationType"),
    text("DestinationNamespace"),
    text("DestinationName"),
    text("Datacenter"),
    text("LocalBindAddress"),
    number("LocalBindPort"),
    object("MeshGateway", MESH_GATEWAY),
];

const PROXY: &[Field] = &[
    text("DestinationServiceName"),
    text("DestinationServiceID"),
    text("LocalServiceAddress"),
    number("LocalServicePort"),
    list("Upstreams", UPSTREAM),
    object("MeshGateway", MESH_GATEWAY),
    object("Expose", EXPOSE),
];

/// `catalog/nodes`.
pub const NODE: Schema = &[
    text("ID"),
    text("Node"),
    text("Address"),
    text("Datacenter"),
    text_map("TaggedAddresses"),
    text_map("Meta"),
];

/// Instances of `agent/services`, `catalog/node` and `catalog/node-services`.
pub const SERVICE: Schema = &[
    text("Kind"),
    text("ID"),
    text("Service"),
    texts("Tags"),
    text("Address"),
    addresses("TaggedAddresses"),
    text_map("Meta"),
    number("Port"),
    object("Weights", WEIGHTS),
    boolean("EnableTagOverride"),
    object("Proxy", PROXY),
    object("Connect", CONNECT),
];

/// Items of `catalog/service` and `catalog/connect`.
pub const CATALOG_SERVICE: Schema = &[
    text("ID"),
    text("Node"),
    text("Address"),
    text("Datacenter"),
    text_map("TaggedAddresses"),
    text_map("NodeMeta"),
    text("ServiceKind"),
    text("ServiceID"),
    text("ServiceName"),
    texts("ServiceTags"),
    text("ServiceAddress"),
    addresses("ServiceTaggedAddresses"),
    object("ServiceWeights", WEIGHTS),
    text_map("ServiceMeta"),
    number("ServicePort"),
    boolean("ServiceEnableTagOverride"),
    object("ServiceProxy", PROXY),
    object("ServiceConnect", CONNECT),
];

/// Checks of `agent/checks` and of `health/checks`, `health/node` and `health/state`.
pub const CHECK: Schema = &[
    text("Node"),
    text("CheckID"),
    text("Name"),
    text("Status"),
    text("Notes"),
    text("Output"),
    text("ServiceID"),
    text("ServiceName"),
    texts("ServiceTags"),
    text("Type"),
];

/// Entries of `health/service` and `health/connect`.
pub const HEALTH: Schema = &[object("Node", NODE), object("Service", SERVICE), list("Checks", CHECK)];

/// Intentions of the list.
pub const INTENTION: Schema = &[
    text("ID"),
    text("Description"),
    text("SourceNS"),
    text("SourceName"),
    text("DestinationNS"),
    text("DestinationName"),
    text("SourceType"),
    text("Action"),
    text_map("Meta"),
    number("Precedence"),
];
