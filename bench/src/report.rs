//! Tables from what was seen: a median with its range, and ratios that compare within each round.

use std::fmt::Write as _;

use crate::options::Options;
use crate::stats::median;
use crate::suite::Seen;

/// The peer that ratios refer to: the best proxy with a TLS connection for each connection.
const REFERENCE: &str = "envoy";
const DIRECT: &str = "direct";

/// How a cell follows from the samples of one figure.
#[derive(Clone, Copy)]
enum Cell {
    /// The median of the rounds and their range, times a factor.
    Value(f64),
    /// The median, over the rounds, of this peer's figure divided by the reference's.
    Ratio,
    /// The median, over the rounds, of this peer's figure less direct's.
    Added,
    /// The median, over the rounds, of this figure divided by another of the same sample.
    To(&'static str),
}

struct Column {
    title: String,
    figure: String,
    cell: Cell,
}

struct Table {
    title: String,
    measure: &'static str,
    columns: Vec<Column>,
}

fn column(title: impl Into<String>, figure: impl Into<String>, cell: Cell) -> Column {
    Column { title: title.into(), figure: figure.into(), cell }
}

/// A table of throughput or rate and CPU per unit of work, which most are.
fn work(title: &str, measure: &'static str, rate: (&str, &str), unit: &str, more: Vec<Column>) -> Table {
    let mut columns = vec![column(rate.0, rate.1, Cell::Value(1.0))];
    columns.extend(more);
    columns.extend([
        column(format!("proxy CPU s/{unit}"), "cpu_s", Cell::Value(1.0)),
        column(format!("machine CPU s/{unit}"), "machine_cpu_s", Cell::Value(1.0)),
        column(format!("{} ÷ {REFERENCE}", rate.0), rate.1, Cell::Ratio),
        column(format!("CPU ÷ {REFERENCE}"), "cpu_s", Cell::Ratio),
    ]);
    Table { title: title.to_owned(), measure, columns }
}

fn latency(unit: &str, factor: f64) -> Vec<Column> {
    ["p50", "p99"].map(|p| column(format!("{p} {unit}"), format!("{p}_us"), Cell::Value(factor))).into()
}

fn tables(idle: &[usize]) -> Vec<Table> {
    let gbit = ("Gbit/s", "gbit_s");
    let mut connections = latency("ms", 1e-3);
    connections.push(column("control plane CPU s/1k", "helpers_cpu_s", Cell::Value(1.0)));
    connections.push(column("failures", "failures", Cell::Value(1.0)));
    let ping_pong = vec![
        column("p50 µs", "p50_us", Cell::Value(1.0)),
        column("p99 µs", "p99_us", Cell::Value(1.0)),
        column("added p50 µs", "p50_us", Cell::Added),
        column("added p99 µs", "p99_us", Cell::Added),
        column("proxy CPU s/100k", "cpu_s", Cell::Value(1.0)),
        column(format!("CPU ÷ {REFERENCE}"), "cpu_s", Cell::Ratio),
    ];
    vec![
        work("Bulk, 1 stream", "bulk1", gbit, "GB", Vec::new()),
        work("Bulk, 8 streams", "bulk8", gbit, "GB", Vec::new()),
        work("Bulk, 1 stream, server to client", "reverse1", gbit, "GB", Vec::new()),
        work(
            "HTTP keep-alive, 64 connections",
            "http",
            ("requests/s", "rate"),
            "100k",
            latency("ms", 1e-3),
        ),
        Table {
            title: "Ping-pong, 1 connection, 64 bytes".to_owned(),
            measure: "pingpong",
            columns: ping_pong,
        },
        work("New connections, 32 at once", "connect", ("connections/s", "rate"), "1k", connections),
        mixed_table(),
        idle_table(idle),
        Table {
            title: "Start-up, from exec".to_owned(),
            measure: "start",
            columns: vec![
                column("client side accepts, ms", "client_accept_ms", Cell::Value(1.0)),
                column("first echo, ms", "client_echo_ms", Cell::Value(1.0)),
                column("server side accepts, ms", "server_accept_ms", Cell::Value(1.0)),
            ],
        },
    ]
}

fn mixed_table() -> Table {
    let mut columns = vec![column("p99 ms alone", "alone_p99_us", Cell::Value(1e-3))];
    for (phase, title) in [("stalled", "stalled reader"), ("bulk", "8 bulk"), ("both", "both")] {
        columns.push(column(format!("{title}: p99 ms"), format!("{phase}_p99_us"), Cell::Value(1e-3)));
        columns.push(column("÷ alone", format!("{phase}_p99_us"), Cell::To("alone_p99_us")));
    }
    columns.push(column("bulk Gbit/s", "bulk_gbit_s", Cell::Value(1.0)));
    columns.push(column("bulk Gbit/s, both", "both_gbit_s", Cell::Value(1.0)));
    Table { title: "HTTP beside other load".to_owned(), measure: "mixed", columns }
}

fn idle_table(stages: &[usize]) -> Table {
    let mut columns = Vec::new();
    for count in stages {
        columns.push(column(
            format!("KiB each at {count}"),
            format!("{count}_kib_each"),
            Cell::Value(1.0),
        ));
    }
    let last = stages.last().copied().unwrap_or_default().to_string();
    for (side, title) in [("client", "client side"), ("server", "server side")] {
        columns.push(column(
            format!("{title}: RSS MiB at start"),
            format!("start_{side}_rss_mib"),
            Cell::Value(1.0),
        ));
        for (label, when) in
            [(last.as_str(), format!("at {last}")), ("closed", "after close".to_owned())]
        {
            columns.push(column(when, format!("{label}_{side}_rss_mib"), Cell::Value(1.0)));
        }
    }
    columns.push(column("threads, both", "threads", Cell::Value(1.0)));
    let title = "Memory of idle connections, both sides (growth of PSS)".to_owned();
    Table { title, measure: "idle", columns }
}

impl Column {
    fn show(&self, seen: &Seen, measure: &str, peer: &str) -> Option<String> {
        let of = |peer: &str, figure: &str| by_round(seen, measure, peer, figure);
        let against = |others: Vec<(usize, f64)>, combine: fn(f64, f64) -> f64| {
            let pairs = of(peer, &self.figure).into_iter().filter_map(|(round, value)| {
                let (_, other) = others.iter().find(|(other, _)| *other == round)?;
                Some(combine(value, *other))
            });
            median(&pairs.filter(|value| value.is_finite()).collect::<Vec<_>>()).map(number)
        };
        match self.cell {
            Cell::Value(factor) => {
                let values: Vec<f64> =
                    of(peer, &self.figure).iter().map(|(_, value)| value * factor).collect();
                let middle = number(median(&values)?);
                let least = values.iter().copied().fold(f64::INFINITY, f64::min);
                let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                Some(if values.len() == 1 {
                    middle
                } else {
                    format!("{middle} ({}..{})", number(least), number(most))
                })
            }
            Cell::Ratio => against(of(REFERENCE, &self.figure), |value, other| value / other),
            Cell::Added => against(of(DIRECT, &self.figure), |value, other| value - other),
            Cell::To(figure) => against(of(peer, figure), |value, other| value / other),
        }
    }
}

fn by_round(seen: &Seen, measure: &str, peer: &str, figure: &str) -> Vec<(usize, f64)> {
    let samples = seen.samples.iter().filter(|sample| sample.measure == measure && sample.peer == peer);
    samples.filter_map(|sample| Some((sample.round, *sample.figures.get(figure)?))).collect()
}

/// Three digits that matter.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        large if large >= 100.0 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        large if large >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn line(out: &mut String, cells: impl IntoIterator<Item = String>) {
    let cells: Vec<String> = cells.into_iter().collect();
    let _infallible = writeln!(out, "| {} |", cells.join(" | "));
}

fn head(out: &mut String, titles: &[String]) {
    line(out, titles.iter().cloned());
    line(out, titles.iter().map(|_| "---".to_owned()));
}

pub fn markdown(options: &Options, seen: &Seen) -> String {
    let mut out = String::new();
    method(&mut out, options, seen);
    let peers: Vec<&str> = seen.contenders.iter().map(|contender| contender.name()).collect();
    for table in tables(&options.settings.idle) {
        let rows: Vec<(&str, Vec<Option<String>>)> = peers
            .iter()
            .map(|peer| {
                (*peer, table.columns.iter().map(|c| c.show(seen, table.measure, peer)).collect())
            })
            .filter(|(_, cells): &(_, Vec<_>)| cells.iter().any(Option::is_some))
            .collect();
        if rows.is_empty() {
            continue;
        }
        let _infallible = writeln!(out, "\n### {}\n", table.title);
        let titles =
            [vec!["".to_owned()], table.columns.iter().map(|c| c.title.clone()).collect()].concat();
        head(&mut out, &titles);
        for (peer, cells) in rows {
            let cells = cells.into_iter().map(|cell| cell.unwrap_or_else(|| "–".to_owned()));
            line(&mut out, [peer.to_owned()].into_iter().chain(cells));
        }
    }
    noise(&mut out, seen);
    if !seen.failures.is_empty() {
        out.push_str("\n### Failures\n\n");
        for failure in &seen.failures {
            let _infallible =
                writeln!(out, "- round {}, {}: {}", failure.round, failure.peer, failure.why);
        }
    }
    out
}

fn method(out: &mut String, options: &Options, seen: &Seen) {
    let machine =
        |key| seen.machine.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value);
    let _infallible = writeln!(
        out,
        "{}: {} cores ({}), Linux {}, network: {}, TCP {}. Rounds: {}, in rotated order, {} s a load, fresh \
         processes each round. Cells are the median of the rounds (and their range); ratios and differences are \
         medians of those within a round. CPU is user and system of the two proxies.\n",
        seen.when,
        machine("cores"),
        machine("cpu"),
        machine("kernel"),
        machine("network"),
        machine("tcp"),
        options.rounds,
        options.settings.span.as_secs(),
    );
    head(out, &["", "version", "program, MB"].map(str::to_owned));
    for contender in seen.contenders.iter().filter(|contender| contender.peer.is_some()) {
        let size = number(contender.program_bytes as f64 / 1e6);
        line(out, [contender.name().to_owned(), contender.version.clone(), size]);
    }
    for (name, why) in &seen.missing {
        line(out, [(*name).to_owned(), format!("missing: {why}"), "–".to_owned()]);
    }
}

/// How much the machine did for others while each contender was measured.
fn noise(out: &mut String, seen: &Seen) {
    out.push_str("\n### Noise\n\n");
    head(
        out,
        &["", "work of others, median % of the machine", "most, %", "measures repeated"]
            .map(str::to_owned),
    );
    for contender in &seen.contenders {
        let samples = || seen.samples.iter().filter(|sample| sample.peer == contender.name());
        let shares: Vec<f64> = samples()
            .filter_map(|s| s.figures.get("foreign_share"))
            .map(|share| share * 100.0)
            .collect();
        let Some(middle) = median(&shares) else { continue };
        let most = shares.iter().copied().fold(0.0, f64::max);
        let repeated =
            samples().filter(|s| s.figures.get("tries").is_some_and(|tries| *tries > 1.0)).count();
        line(out, [contender.name().to_owned(), number(middle), number(most), repeated.to_string()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Contender;
    use crate::suite::Sample;

    fn seen(samples: &[(&'static str, usize, f64)]) -> Seen {
        let sample = |&(peer, round, value): &(&'static str, usize, f64)| Sample {
            peer,
            round,
            measure: "bulk1",
            figures: [("gbit_s".to_owned(), value), ("foreign_share".to_owned(), 0.01)].into(),
        };
        Seen {
            when: "now".to_owned(),
            machine: Vec::new(),
            contenders: vec![Contender { peer: None, version: String::new(), program_bytes: 0 }],
            missing: vec![("envoy", "not here".to_owned())],
            samples: samples.iter().map(sample).collect(),
            failures: Vec::new(),
        }
    }

    #[test]
    fn ratios_compare_within_a_round() {
        let seen = seen(&[
            ("weft", 1, 10.0),
            ("envoy", 1, 5.0),
            ("weft", 2, 30.0),
            ("envoy", 2, 10.0),
            ("weft", 3, 9.0),
        ]);
        let show = |cell| column("", "gbit_s", cell).show(&seen, "bulk1", "weft").unwrap();
        assert_eq!(show(Cell::Ratio), "2.50");
        assert_eq!(show(Cell::Value(1.0)), "10.0 (9.00..30.0)");
        assert_eq!(column("", "gbit_s", Cell::Added).show(&seen, "bulk1", "weft"), None);
    }

    #[test]
    fn a_report_names_what_is_missing_and_leaves_out_empty_tables() {
        let text = markdown(&Options::default(), &seen(&[(DIRECT, 1, 40.0)]));
        assert!(text.contains("| envoy | missing: not here | – |"), "{text}");
        assert!(text.contains("### Bulk, 1 stream\n") && !text.contains("### Bulk, 8"), "{text}");
        assert!(text.contains("| direct | 40.0 | – |"), "{text}");
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0, 0.5, 1.234, 12.34, 123.4, 12_345.6].map(number);
        assert_eq!(shown, ["0", "0.500", "1.23", "12.3", "123", "12346"]);
    }
}
