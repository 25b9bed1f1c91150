//! What a name below Consul's domain asks for. Pure.
//!
//! Labels come in lower case. A label such as `service` says what is asked for; before it stands the
//! name, behind it the datacenter. What fits no form is a name that does not exist.

/// What is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lookup<'q> {
    Service {
        service: &'q str,
        tag: Option<String>,
    },
    Connect {
        service: &'q str,
    },
    /// The name may have dots.
    Node(String),
    Address(&'q str),
}

impl<'q> Lookup<'q> {
    /// Reads the labels before the domain. With `srv`, the label `service` may be left out behind the
    /// names of RFC 2782, which begin with `_`.
    pub(super) fn parse(labels: &'q [String], srv: bool, datacenter: &str) -> Option<Self> {
        let is_kind = |label: &str| matches!(label, "service" | "connect" | "node" | "addr");
        let is_bare = |label: &str| srv && label.starts_with('_');
        let at = labels.iter().rposition(|label| is_kind(label) || is_bare(label))?;
        let (kind, before, after) = match labels.get(at)?.as_str() {
            kind if is_kind(kind) => (kind, labels.get(..at)?, labels.get(at + 1..)?),
            _ => ("service", labels.get(..=at)?, labels.get(at + 1..)?),
        };
        if !is_here(after, datacenter) {
            return None;
        }
        match (kind, before) {
            ("service", before) => service(before),
            ("connect", [service]) => Some(Self::Connect { service }),
            ("node", [_, ..]) => Some(Self::Node(before.join("."))),
            ("addr", [address]) => Some(Self::Address(address)),
            _ => None,
        }
    }
}

/// `svc`, `tag.svc` (a tag may have dots), or `_svc._tag`, where the tag `tcp` stands for any.
fn service(labels: &[String]) -> Option<Lookup<'_>> {
    if let [service, tag] = labels
        && let (Some(service), Some(tag)) = (service.strip_prefix('_'), tag.strip_prefix('_'))
    {
        let tag = Some(tag.to_owned()).filter(|tag| tag != "tcp");
        return Some(Lookup::Service { service, tag });
    }
    let (service, tag) = labels.split_last()?;
    let tag = (!tag.is_empty()).then(|| tag.join("."));
    Some(Lookup::Service { service, tag })
}

/// Whether the labels behind the kind mean this place: nothing, the datacenter, or the long form of
/// later versions, `default.ns`, `default.ap` and `dc1.dc`.
fn is_here(labels: &[String], datacenter: &str) -> bool {
    match labels {
        [] => true,
        [label] => label == datacenter,
        pairs if pairs.len().is_multiple_of(2) => pairs.chunks_exact(2).all(|pair| match pair {
            [value, what] if what == "dc" => value == datacenter,
            [value, what] if what == "ns" || what == "ap" => value == "default",
            _ => false,
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(service: &str, tag: &str) -> Option<Lookup<'static>> {
        let service = Box::leak(service.to_owned().into_boxed_str());
        Some(Lookup::Service { service, tag: Some(tag.to_owned()).filter(|tag| !tag.is_empty()) })
    }

    #[test]
    fn names_by_table() {
        let node = |name: &str| Some(Lookup::Node(name.to_owned()));
        for (name, srv, expected) in [
            ("web.service", false, service("web", "")),
            ("web.service.dc1", false, service("web", "")),
            ("web.service.dc9", false, None),
            ("web.service.dc1.dc", false, service("web", "")),
            ("web.service.default.ns.default.ap.dc1.dc", false, service("web", "")),
            ("web.service.team.ns.dc1.dc", false, None),
            ("web.service.other.peer", false, None),
            ("web.service.a.dc1", false, None),
            ("v1.web.service", false, service("web", "v1")),
            ("v1.2.web.service", false, service("web", "v1.2")),
            ("_web._tcp.service", false, service("web", "")),
            ("_web._v1.service.dc1", true, service("web", "v1")),
            ("_web._tcp", true, service("web", "")),
            ("_web._tcp.dc1", true, service("web", "")),
            ("_web._tcp", false, None),
            ("_web._v1._tcp.service", true, service("_tcp", "_web._v1")),
            ("node.service", false, service("node", "")),
            ("service", false, None),
            ("web.connect", false, Some(Lookup::Connect { service: "web" })),
            ("v1.web.connect", false, None),
            ("n1.node.dc1", false, node("n1")),
            ("n1.lan.node", false, node("n1.lan")),
            ("node", false, None),
            ("7f000001.addr", false, Some(Lookup::Address("7f000001"))),
            ("a.7f000001.addr", false, None),
            ("web.virtual", false, None),
            ("web.ingress", false, None),
            ("web.query", false, None),
            ("web", false, None),
            ("service.virtual", false, None),
        ] {
            let labels: Vec<String> = name.split('.').map(str::to_owned).collect();
            assert_eq!(Lookup::parse(&labels, srv, "dc1"), expected, "{name}");
        }
        assert_eq!(Lookup::parse(&[], false, "dc1"), None);
    }
}
