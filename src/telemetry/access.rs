//! The access log: one structured event per connection, written when it ends or is refused.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::model::Reason;

/// The `tracing` target of access-log lines; a log filter can name it.
pub const TARGET: &str = "access";

/// One finished (or refused) connection. `Display`ed nowhere: `emit` writes it.
#[derive(Debug, Clone)]
pub struct AccessRecord {
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    pub source: String,
    pub destination: String,
    pub source_id: String,
    pub destination_id: String,
    /// Instance id of the endpoint, when one was chosen.
    pub endpoint: String,
    pub endpoint_address: Option<SocketAddr>,
    pub client_address: Option<SocketAddr>,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub duration: Duration,
    /// Time to an open stream.
    pub connect: Duration,
    pub attempts: u32,
    pub reason: Reason,
    /// The verdict's rule, or the cause in words.
    pub detail: String,
}

impl AccessRecord {
    /// Writes the line: target `access`, level info. Costs one comparison when that is filtered out.
    pub fn emit(&self) {
        tracing::info!(
            target: TARGET,
            direction = self.direction,
            src = %Escaped(&self.source),
            dst = %Escaped(&self.destination),
            src_id = %Escaped(&self.source_id),
            dst_id = %Escaped(&self.destination_id),
            endpoint = %Escaped(&self.endpoint),
            endpoint_addr = self.endpoint_address.map(tracing::field::display),
            client_addr = self.client_address.map(tracing::field::display),
            bytes_sent = self.bytes_sent,
            bytes_received = self.bytes_received,
            duration_ms = milliseconds(self.duration),
            connect_ms = milliseconds(self.connect),
            attempts = self.attempts,
            reason = self.reason.as_str(),
            detail = %Escaped(&self.detail),
            "connection"
        );
    }
}

/// Milliseconds with microsecond resolution, as people read latencies.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

/// A text with its control characters escaped, so that nobody can forge a line or drive a terminal.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() || is_invisible(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Line separators and direction marks: not control characters, but a viewer obeys them as such.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written_with(filter: &str, record: &AccessRecord) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::level_filters::LevelFilter::TRACE)
            .with_writer(move || writer.clone())
            .finish()
            .with(filter.parse::<tracing_subscriber::filter::Targets>().unwrap());
        tracing::subscriber::with_default(subscriber, || record.emit());
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn record() -> AccessRecord {
        AccessRecord {
            direction: "outbound",
            source: "web".into(),
            destination: "api".into(),
            source_id: "spiffe://t.consul/ns/default/dc/dc1/svc/web".into(),
            destination_id: String::new(),
            endpoint: "api-1".into(),
            endpoint_address: Some("127.0.0.1:21000".parse().unwrap()),
            client_address: None,
            bytes_sent: 5,
            bytes_received: 7,
            duration: Duration::from_micros(1_234_567),
            connect: Duration::from_micros(850),
            attempts: 2,
            reason: Reason::Denied,
            detail: "rule\n\u{1b}[31m \u{202e}x".into(),
        }
    }

    #[test]
    fn a_record_is_one_line_with_all_fields() {
        let text = written_with("info", &record());
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "target": "access", "message": "connection", "direction": "outbound", "src": "web", "dst": "api",
            "src_id": "spiffe://t.consul/ns/default/dc/dc1/svc/web", "dst_id": "", "endpoint": "api-1",
            "endpoint_addr": "127.0.0.1:21000", "bytes_sent": 5, "bytes_received": 7,
            "duration_ms": 1234.567, "connect_ms": 0.85, "attempts": 2, "reason": "denied",
            "detail": "rule\\n\\u{1b}[31m \\u{202e}x",
        });
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&line[field], value, "{field}");
        }
        assert!(line.get("client_addr").is_none());
    }

    #[test]
    fn a_filter_can_turn_it_off() {
        assert_eq!(written_with("info,access=off", &record()), "");
    }
}
