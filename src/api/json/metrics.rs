//! `agent/metrics`: our own text of metrics in the shape of Consul's telemetry. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

/// The whole answer.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct MetricsJson {
    timestamp: String,
    gauges: Vec<Gauge>,
    points: Vec<()>,
    counters: Vec<Aggregate>,
    samples: Vec<Aggregate>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Gauge {
    name: String,
    value: f64,
    labels: BTreeMap<String, String>,
}

/// Counts since the start. Consul's rates and extremes are those of an interval of ten seconds, which we
/// do not keep: they are zero.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Aggregate {
    name: String,
    count: f64,
    rate: f64,
    sum: f64,
    min: f64,
    max: f64,
    mean: f64,
    stddev: f64,
    labels: BTreeMap<String, String>,
}

/// Reads OpenMetrics as our own encoder writes it.
pub(in crate::api) fn metrics_json(text: &str, now: &str) -> MetricsJson {
    let mut metrics = MetricsJson { timestamp: timestamp(now), ..MetricsJson::default() };
    let mut kind = "";
    let mut samples: BTreeMap<(String, String), Aggregate> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            kind = rest.rsplit(' ').next().unwrap_or_default();
            continue;
        }
        let Some((name, labels, value)) = sample(line) else { continue };
        match kind {
            "gauge" => metrics.gauges.push(Gauge { name: name.to_owned(), value, labels }),
            "counter" => metrics.counters.push(Aggregate {
                name: name.strip_suffix("_total").unwrap_or(name).to_owned(),
                count: value,
                sum: value,
                labels,
                ..Aggregate::default()
            }),
            "histogram" => add_to_sample(&mut samples, name, labels, value),
            _ => {}
        }
    }
    metrics.samples = samples.into_values().collect();
    for sample in metrics.samples.iter_mut().filter(|sample| sample.count > 0.0) {
        sample.mean = sample.sum / sample.count;
    }
    metrics
}

fn add_to_sample(
    samples: &mut BTreeMap<(String, String), Aggregate>,
    name: &str,
    labels: BTreeMap<String, String>,
    value: f64,
) {
    let parts = [("_count", true), ("_sum", false)];
    let found = parts.into_iter().find_map(|(end, is_count)| Some((name.strip_suffix(end)?, is_count)));
    // The buckets have no place in Consul's shape.
    let Some((name, is_count)) = found else { return };
    let key = (name.to_owned(), format!("{labels:?}"));
    let fresh = || Aggregate { name: name.to_owned(), labels, ..Aggregate::default() };
    let sample = samples.entry(key).or_insert_with(fresh);
    if is_count {
        sample.count = value;
    } else {
        sample.sum = value;
    }
}

/// `name{label="value",…} number`
fn sample(line: &str) -> Option<(&str, BTreeMap<String, String>, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let (head, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = head.split_once('{') else {
        return Some((head, BTreeMap::new(), value));
    };
    Some((name, labels_of(labels.strip_suffix('}')?), value))
}

fn labels_of(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, other)) => value.push(other),
                    None => {}
                },
                '"' => {
                    end = at + 1;
                    break;
                }
                other => value.push(other),
            }
        }
        labels.insert(name.to_owned(), value);
        text = rest.get(end..).unwrap_or_default().trim_start_matches(',');
    }
    labels
}

/// `2026-11-23 08:26:30 +0000 UTC` from RFC 3339.
fn timestamp(now: &str) -> String {
    let (day, clock) = now.split_once('T').unwrap_or((now, ""));
    let clock = clock.trim_end_matches('Z').split('.').next().unwrap_or_default();
    format!("{day} {clock} +0000 UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_finds_its_place() {
        let text = "\
# HELP a A.
# TYPE a gauge
a{kind=\"x\\\"y\",other=\"\"} 2.5
# TYPE b counter
b_total 7
# TYPE c histogram
c_sum 6.0
c_count 3
c_bucket{le=\"1\"} 2
# TYPE d info
d_info{version=\"1\"} 1
# EOF
";
        let json = serde_json::to_value(metrics_json(text, "2026-11-23T08:26:30.5Z")).unwrap();
        assert_eq!(json["Timestamp"], "2026-11-23 08:26:30 +0000 UTC");
        let labels = serde_json::json!({ "kind": "x\"y", "other": "" });
        assert_eq!(json["Gauges"], serde_json::json!([{ "Name": "a", "Value": 2.5, "Labels": labels }]));
        assert_eq!(
            (&json["Counters"][0]["Name"], &json["Counters"][0]["Count"]),
            (&"b".into(), &7.0.into())
        );
        let sample = &json["Samples"][0];
        assert_eq!(
            (&sample["Name"], &sample["Count"], &sample["Mean"]),
            (&"c".into(), &3.0.into(), &2.0.into())
        );
        assert_eq!(json["Samples"].as_array().unwrap().len(), 1);
    }
}
