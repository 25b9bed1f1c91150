//! Query parameters: read once per request, checked in the order Consul checks them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, MatchedPath, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::error::ApiError;
use super::filter::{Filter, Schema};
use super::limits::{DEFAULT_WAIT, MAX_WAIT};
use super::reply::Layout;
use super::{Index, Shared};
use crate::model::duration;

/// The routes that filter their answers. `?filter` is refused on all others, so that no handler can
/// ignore it: an answer that was not filtered would look like one that was.
const FILTERED: [&str; 14] = [
    "/v1/agent/services",
    "/v1/agent/checks",
    "/v1/catalog/nodes",
    "/v1/catalog/services",
    "/v1/catalog/service/{name}",
    "/v1/catalog/connect/{name}",
    "/v1/catalog/node/{node}",
    "/v1/catalog/node-services/{node}",
    "/v1/health/service/{name}",
    "/v1/health/connect/{name}",
    "/v1/health/node/{node}",
    "/v1/health/checks/{name}",
    "/v1/health/state/{state}",
    "/v1/connect/intentions",
];

/// Parameters on which no body depends.
const UNSHAPING: [&str; 8] = ["index", "wait", "hash", "dc", "stale", "consistent", "cached", "token"];

/// All parameters of a request.
#[derive(Debug, Clone)]
pub(super) struct Params {
    pairs: Vec<(String, String)>,
    pub(super) layout: Layout,
    /// Whether the caller takes a compressed body.
    pub(super) zipped: bool,
}

/// How fresh an answer must be. One server holds all state, so all three read the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consistency {
    Leader,
    Stale,
    Consistent,
}

impl Consistency {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Stale => "stale",
            Self::Consistent => "consistent",
        }
    }
}

/// What a read of the catalog asks for besides its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadOptions {
    pub(super) consistency: Consistency,
    /// Wait until the index passes this one; 0 means do not wait.
    pub(super) index: Index,
    pub(super) wait: Duration,
}

impl ReadOptions {
    /// Whether the caller has seen everything up to `index`, the current one, or claims to.
    pub(super) const fn must_wait(&self, index: Index) -> bool {
        self.index > 0 && self.index >= index
    }
}

/// The words Go reads as a boolean.
pub(super) fn parse_bool(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl Params {
    /// The first value of a parameter. Present without a value is the empty text.
    pub(super) fn first(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The first value of a parameter unless it is empty.
    pub(super) fn non_empty(&self, key: &str) -> Option<&str> {
        self.first(key).filter(|value| !value.is_empty())
    }

    pub(super) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// `?passing`: present and empty means true, otherwise a word Go reads as a boolean.
    pub(super) fn passing(&self) -> Result<bool, ApiError> {
        match self.first("passing") {
            None => Ok(false),
            Some("") => Ok(true),
            Some(word) => {
                parse_bool(word).ok_or_else(|| ApiError::bad_request("Invalid value for ?passing"))
            }
        }
    }

    /// `?filter` over items of the given fields; without one everything is kept.
    pub(super) fn filter(&self, schema: Schema) -> Result<Filter, ApiError> {
        Ok(Filter::compile(self.first("filter").unwrap_or_default(), schema)?)
    }

    /// The parameters that shape the body of an answer: all but those known to say only when it is given,
    /// to whom, and with which headers.
    pub(super) fn shaping(&self) -> Vec<(String, String)> {
        let shapes = |pair: &&(String, String)| !UNSHAPING.contains(&pair.0.as_str());
        self.pairs.iter().filter(shapes).cloned().collect()
    }

    /// The `node-meta` conditions as key and value.
    pub(super) fn node_meta(&self) -> Vec<(&str, &str)> {
        self.all("node-meta").map(|pair| pair.split_once(':').unwrap_or((pair, ""))).collect()
    }

    /// Consistency, wait, index and datacenter, in that order.
    pub(super) fn read_options(&self, datacenter: &str) -> Result<ReadOptions, ApiError> {
        let consistency = self.consistency()?;
        let wait = match self.non_empty("wait").map(duration::parse) {
            None => DEFAULT_WAIT,
            Some(Ok(wait)) if wait.is_zero() => DEFAULT_WAIT,
            Some(Ok(wait)) => wait.min(MAX_WAIT),
            Some(Err(_)) => return Err(ApiError::bad_request("Invalid wait time")),
        };
        let index = match self.non_empty("index").map(str::parse) {
            None => 0,
            Some(Ok(index)) => index,
            Some(Err(_)) => return Err(ApiError::bad_request("Invalid index")),
        };
        if self.non_empty("dc").is_some_and(|wanted| !wanted.eq_ignore_ascii_case(datacenter)) {
            return Err(ApiError::internal("No path to datacenter").with_index());
        }
        Ok(ReadOptions { consistency, index, wait })
    }

    fn consistency(&self) -> Result<Consistency, ApiError> {
        match (self.first("stale").is_some(), self.first("consistent").is_some()) {
            (true, true) => Err(ApiError::bad_request(
                "Cannot specify ?stale with ?consistent, conflicting semantics.",
            )),
            (true, false) => Ok(Consistency::Stale),
            (false, true) => Ok(Consistency::Consistent),
            (false, false) => Ok(Consistency::Leader),
        }
    }
}

impl FromRequestParts<Arc<Shared>> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<Shared>) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, app)
            .await
            .map_err(|fault| ApiError::bad_request(format!("Invalid query string: {fault}")))?;
        let zipped = takes_gzip(&parts.headers);
        let mut params = Self { pairs, layout: Layout::Compact, zipped };
        if app.state.pretty || params.first("pretty").is_some() {
            params.layout = Layout::Pretty;
        }
        let route = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
        if params.non_empty("filter").is_some() && !route.is_some_and(|route| FILTERED.contains(&route))
        {
            return Err(ApiError::bad_request(
                "?filter is not supported by this endpoint; leave it out and filter the answer",
            ));
        }
        Ok(params)
    }
}

/// Whether `Accept-Encoding` names gzip, and not in order to refuse it.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|item| {
        let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
        let weight = weight.trim().trim_start_matches("q=");
        coding.trim().eq_ignore_ascii_case("gzip")
            && !matches!(weight, "0" | "0." | "0.0" | "0.00" | "0.000")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Params { pairs, layout: Layout::Compact, zipped: false }
    }

    fn options(pairs: &[(&str, &str)]) -> Result<ReadOptions, String> {
        params(pairs).read_options("dc1").map_err(|fault| format!("{} {fault}", fault.status.as_u16()))
    }

    #[test]
    fn options_by_table() {
        let read = |consistency, index, seconds| {
            Ok(ReadOptions { consistency, index, wait: Duration::from_secs(seconds) })
        };
        let table = [
            (vec![], read(Consistency::Leader, 0, 300)),
            (vec![("stale", "")], read(Consistency::Stale, 0, 300)),
            (vec![("consistent", "")], read(Consistency::Consistent, 0, 300)),
            (vec![("index", "7"), ("wait", "2s")], read(Consistency::Leader, 7, 2)),
            (vec![("index", "7"), ("wait", "20m")], read(Consistency::Leader, 7, 600)),
            (vec![("index", ""), ("wait", "")], read(Consistency::Leader, 0, 300)),
            (vec![("dc", "DC1"), ("wait", "0s")], read(Consistency::Leader, 0, 300)),
            (vec![("index", "abc")], Err("400 Invalid index".to_owned())),
            (vec![("index", "-1")], Err("400 Invalid index".to_owned())),
            (vec![("index", "1"), ("wait", "abc")], Err("400 Invalid wait time".to_owned())),
            (vec![("index", "x"), ("wait", "2")], Err("400 Invalid wait time".to_owned())),
            (vec![("dc", "dc9")], Err("500 No path to datacenter".to_owned())),
            (
                vec![("stale", ""), ("consistent", "")],
                Err("400 Cannot specify ?stale with ?consistent, conflicting semantics.".to_owned()),
            ),
        ];
        for (pairs, expected) in table {
            assert_eq!(options(&pairs), expected, "{pairs:?}");
        }
    }

    #[test]
    fn gzip_is_taken_by_those_who_name_it() {
        for (list, takes) in [
            ("gzip", true),
            ("deflate, GZIP", true),
            ("gzip;q=0.5, br", true),
            ("br", false),
            ("identity", false),
            ("", false),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("notgzip", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, list.parse().unwrap())]);
            assert_eq!(takes_gzip(&headers), takes, "{list}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn passing_is_gos_boolean() {
        for (value, expected) in [("", true), ("1", true), ("true", true), ("0", false), ("f", false)] {
            assert_eq!(params(&[("passing", value)]).passing().ok(), Some(expected), "{value}");
        }
        assert_eq!(params(&[]).passing().ok(), Some(false));
        let fault = params(&[("passing", "yes")]).passing().unwrap_err();
        assert_eq!(fault.text, "Invalid value for ?passing");
    }
}
