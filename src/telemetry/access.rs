//! The access log: one line per connection, written when it ends or is refused.
//!
//! Lines look like those of `tracing` with the target `access`, but are formatted by hand and written by
//! a thread of their own (`telemetry::lines`): a thousand connections cost a few system calls, and whoever
//! reads the log slowly never holds up traffic.

use std::fmt::{self, Display, Write as _};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::lines::Lines;
use crate::model::{EndpointId, Reason, ServiceName, SpiffeId};

/// The `tracing` target of access-log lines; a log filter can name it.
pub const TARGET: &str = "access";

static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    format: Format,
    lines: Lines,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

/// From now on lines are written to stderr. Called once, when the process sets up its logs.
///
/// # Errors
/// When the thread that writes cannot be started.
pub(super) fn start(format: Format) -> std::io::Result<()> {
    let lines = Lines::start(std::io::stderr())?;
    // A second log is refused by whoever sets up logging.
    let _twice = LOG.set(Log { format, lines });
    Ok(())
}

/// Waits until every line so far is written, but not for long. For the end of the process.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.lines.flush();
    }
}

/// One finished (or refused) connection.
#[derive(Debug, Clone)]
pub struct AccessRecord {
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    pub source: ServiceName,
    pub destination: ServiceName,
    pub source_id: Option<SpiffeId>,
    pub destination_id: Option<SpiffeId>,
    /// When one was chosen.
    pub endpoint: Option<EndpointId>,
    pub endpoint_address: Option<SocketAddr>,
    pub client_address: Option<SocketAddr>,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub duration: Duration,
    /// Time to an open stream.
    pub connect: Duration,
    pub attempts: u32,
    pub reason: Reason,
    /// The rule that let it pass only for the log: `deny` in its place would have refused.
    pub audited: Option<String>,
    /// The verdict's rule, or the cause in words.
    pub detail: String,
}

impl AccessRecord {
    /// Writes the line, unless the access log is off. Says whether it was lost because nobody reads
    /// the log fast enough.
    #[must_use]
    pub fn emit(&self) -> Emitted {
        let Some(log) = LOG.get() else { return Emitted::Off };
        let taken = log.lines.put(|line| self.format(log.format, line));
        if taken { Emitted::Taken } else { Emitted::Lost }
    }

    fn format(&self, format: Format, line: &mut String) {
        // Writing to a string cannot fail.
        let _infallible = match format {
            Format::Json => self.json(line),
            Format::Text => self.text(line),
        };
    }

    fn json(&self, line: &mut String) -> fmt::Result {
        line.push_str(r#"{"timestamp":""#);
        SystemTime.format_time(&mut Writer::new(line))?;
        line.push_str(r#"","level":"INFO","message":"connection""#);
        self.fields(&mut |name, value| match value {
            Value::Number(number) => write!(line, r#","{name}":{number}"#),
            Value::Text(text) => {
                write!(line, r#","{name}":""#)?;
                put_escaped(line, text, true)?;
                line.write_char('"')
            }
        })?;
        writeln!(line, r#","target":"{TARGET}"}}"#)
    }

    fn text(&self, line: &mut String) -> fmt::Result {
        SystemTime.format_time(&mut Writer::new(line))?;
        write!(line, "  INFO {TARGET}: connection")?;
        self.fields(&mut |name, value| match value {
            Value::Number(number) => write!(line, " {name}={number}"),
            Value::Text(text) => {
                write!(line, " {name}=")?;
                put_escaped(line, text, false)
            }
        })?;
        line.write_char('\n')
    }

    /// Every field of a line, in order.
    fn fields(&self, put: &mut impl FnMut(&str, Value<'_>) -> fmt::Result) -> fmt::Result {
        use Value::{Number, Text};
        put("direction", Text(&self.direction))?;
        put("src", Text(&self.source))?;
        put("dst", Text(&self.destination))?;
        put("src_id", Text(or_empty(self.source_id.as_ref())))?;
        put("dst_id", Text(or_empty(self.destination_id.as_ref())))?;
        put("endpoint", Text(or_empty(self.endpoint.as_ref())))?;
        if let Some(address) = &self.endpoint_address {
            put("endpoint_addr", Text(address))?;
        }
        if let Some(address) = &self.client_address {
            put("client_addr", Text(address))?;
        }
        put("bytes_sent", Number(&self.bytes_sent))?;
        put("bytes_received", Number(&self.bytes_received))?;
        put("duration_ms", Number(&Milliseconds(self.duration)))?;
        put("connect_ms", Number(&Milliseconds(self.connect)))?;
        put("attempts", Number(&self.attempts))?;
        put("reason", Text(&self.reason.as_str()))?;
        if let Some(rule) = &self.audited {
            put("audited", Text(rule))?;
        }
        put("detail", Text(&self.detail))
    }
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emitted {
    Taken,
    /// The access log is off.
    Off,
    /// Too many lines wait to be written.
    Lost,
}

enum Value<'a> {
    Number(&'a dyn Display),
    Text(&'a dyn Display),
}

fn or_empty<T: Display>(value: Option<&T>) -> &dyn Display {
    value.map_or(&"", |value| value as &dyn Display)
}

/// Milliseconds with microsecond resolution, as people read latencies.
struct Milliseconds(Duration);

impl Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0.as_micros();
        write!(f, "{}.{:03}", us / 1000, us % 1000)
    }
}

/// Appends a text with its control characters escaped, so that nobody can forge a line or drive a
/// terminal.
fn put_escaped(line: &mut String, text: &dyn Display, json: bool) -> fmt::Result {
    let start = line.len();
    write!(line, "{text}")?;
    let harmless = |byte: u8| (byte == b' ' || byte.is_ascii_graphic()) && byte != b'"' && byte != b'\\';
    if line.as_bytes()[start..].iter().all(|byte| harmless(*byte)) {
        return Ok(()); // as nearly all are
    }
    let text = line.split_off(start);
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            for c in c.escape_default() {
                put_char(line, c, json);
            }
        } else {
            put_char(line, c, json);
        }
    }
    Ok(())
}

fn put_char(line: &mut String, c: char, json: bool) {
    if json && matches!(c, '"' | '\\') {
        line.push('\\');
    }
    line.push(c);
}

/// Line separators and direction marks: not control characters, but a viewer obeys them as such.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InstanceId, NodeName};

    fn record() -> AccessRecord {
        AccessRecord {
            direction: "outbound",
            source: ServiceName::new("web").unwrap(),
            destination: ServiceName::new("api").unwrap(),
            source_id: Some(SpiffeId::parse("spiffe://t.consul/ns/default/dc/dc1/svc/web").unwrap()),
            destination_id: None,
            endpoint: Some(EndpointId {
                node: NodeName::new("n1").unwrap(),
                instance: InstanceId::new("api-1").unwrap(),
            }),
            endpoint_address: Some("127.0.0.1:21000".parse().unwrap()),
            client_address: None,
            bytes_sent: 5,
            bytes_received: 7,
            duration: Duration::from_micros(1_234_567),
            connect: Duration::from_micros(850),
            attempts: 2,
            reason: Reason::Denied,
            audited: None,
            detail: "rule\n\u{1b}[31m \u{202e}x \"quoted\" \\".into(),
        }
    }

    fn written(format: Format) -> String {
        let mut line = String::new();
        record().format(format, &mut line);
        line
    }

    #[test]
    fn a_record_is_one_line_with_all_fields() {
        let text = written(Format::Json);
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "level": "INFO", "target": "access", "message": "connection", "direction": "outbound",
            "src": "web", "dst": "api",
            "src_id": "spiffe://t.consul/ns/default/dc/dc1/svc/web", "dst_id": "",
            "endpoint": record().endpoint.unwrap().to_string(),
            "endpoint_addr": "127.0.0.1:21000", "bytes_sent": 5, "bytes_received": 7,
            "duration_ms": 1234.567, "connect_ms": 0.85, "attempts": 2, "reason": "denied",
            "detail": "rule\\n\\u{1b}[31m \\u{202e}x \"quoted\" \\",
        });
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&line[field], value, "{field}");
        }
        assert!(line.get("client_addr").is_none());
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    }

    #[test]
    fn text_is_for_people_and_cannot_be_forged() {
        let text = written(Format::Text);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(" INFO access: connection direction=outbound src=web dst=api "), "{text}");
        assert!(text.contains(r"detail=rule\n\u{1b}[31m \u{202e}x"), "{text}");
    }
}
