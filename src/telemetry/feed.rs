//! The log as it comes, for those who watch a running server (`agent/monitor`).
//!
//! One layer of the subscriber. While nobody watches it asks for no event at all; with watchers, for the
//! most detailed level among them, whatever the process itself logs. A watcher that does not keep up
//! loses lines and costs nobody time; what waits for it is bounded.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer};

use crate::model::time;

/// Watchers at a time.
const MAX_WATCHERS: usize = 16;
/// Lines that may wait for one watcher.
const MAX_LINES: usize = 1024;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Text,
    Json,
}

/// One watcher's end: lines until it is dropped.
pub struct Watcher {
    number: u64,
    lines: mpsc::Receiver<String>,
}

#[derive(Debug)]
struct Seat {
    level: Level,
    form: Form,
    lines: mpsc::Sender<String>,
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    taken: BTreeMap<u64, Seat>,
}

static SEATS: Mutex<Seats> = Mutex::new(Seats { next: 0, taken: BTreeMap::new() });
/// The most detailed level that anybody wants, as an index of [`LEVELS`]: asked for every event.
static WANTED: AtomicUsize = AtomicUsize::new(0);
const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

fn seats() -> MutexGuard<'static, Seats> {
    SEATS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to watch; `None` while too many do.
#[must_use]
pub fn watch(level: Level, form: Form) -> Option<Watcher> {
    let mut seats = seats();
    if seats.taken.len() >= MAX_WATCHERS {
        return None;
    }
    let (sender, lines) = mpsc::channel(MAX_LINES);
    let number = seats.next;
    seats.next += 1;
    seats.taken.insert(number, Seat { level, form, lines: sender });
    seats.publish();
    drop(seats);
    tracing::callsite::rebuild_interest_cache();
    Some(Watcher { number, lines })
}

impl Seats {
    fn publish(&self) {
        let most = self.taken.values().map(|seat| LevelFilter::from(seat.level)).max();
        let place = LEVELS.iter().position(|level| Some(*level) == most);
        WANTED.store(place.unwrap_or(0), Ordering::Relaxed);
    }
}

impl Watcher {
    /// The next line, with its newline. Cancel-safe.
    pub async fn next(&mut self) -> Option<String> {
        self.lines.recv().await
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut seats = seats();
        seats.taken.remove(&self.number);
        seats.publish();
        drop(seats);
        tracing::callsite::rebuild_interest_cache();
    }
}

/// The layer that feeds the watchers.
pub(super) struct FeedLayer;

impl<S: Subscriber> Layer<S> for FeedLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let (mut text, mut json): (Option<Arc<str>>, Option<Arc<str>>) = (None, None);
        for seat in seats().taken.values().filter(|seat| *event.metadata().level() <= seat.level) {
            let line = match seat.form {
                Form::Text => text.get_or_insert_with(|| as_text(event).into()),
                Form::Json => json.get_or_insert_with(|| as_json(event).into()),
            };
            // Full: this watcher is slow and loses the line.
            let _slow = seat.lines.try_send(line.to_string());
        }
    }
}

/// Lets through what some watcher wants to see.
pub(super) struct Wanted;

impl Wanted {
    fn level() -> LevelFilter {
        LEVELS.get(WANTED.load(Ordering::Relaxed)).copied().unwrap_or(LevelFilter::OFF)
    }
}

impl<S> Filter<S> for Wanted {
    fn enabled(&self, meta: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        *meta.level() <= Self::level()
    }

    fn callsite_enabled(&self, meta: &'static Metadata<'static>) -> Interest {
        if *meta.level() <= Self::level() { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(Self::level())
    }
}

/// The fields of an event: the message, and the others as text.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string cannot fail.
            let _infallible = write!(self.message, "{value:?}");
        } else {
            self.others.push((field.name(), format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.others.push((field.name(), value.to_owned()));
        }
    }
}

fn fields(event: &Event<'_>) -> Fields {
    let mut fields = Fields::default();
    event.record(&mut fields);
    fields
}

/// `2026-11-23T08:26:30.123Z [INFO]  target: message: key=value`, as Consul's lines look. Control characters are
/// escaped, so that a line stays a line.
fn as_text(event: &Event<'_>) -> String {
    let meta = event.metadata();
    let Fields { message, others } = fields(event);
    let level = format!("[{}]", meta.level());
    let mut line = format!("{} {level:<7} {}: {message}", now(), meta.target());
    for (count, (key, value)) in others.iter().enumerate() {
        let colon = if count == 0 { ":" } else { "" };
        // Writing to a string cannot fail.
        let _infallible = write!(line, "{colon} {key}={value}");
    }
    let mut line: String = line.chars().flat_map(escaped).collect();
    line.push('\n');
    line
}

fn escaped(c: char) -> impl Iterator<Item = char> {
    let (plain, escape) =
        if c.is_control() { (None, Some(c.escape_default())) } else { (Some(c), None) };
    plain.into_iter().chain(escape.into_iter().flatten())
}

fn as_json(event: &Event<'_>) -> String {
    let meta = event.metadata();
    let Fields { message, others } = fields(event);
    let mut object = serde_json::Map::new();
    object.insert("@level".to_owned(), meta.level().as_str().to_ascii_lowercase().into());
    object.insert("@message".to_owned(), message.into());
    object.insert("@module".to_owned(), meta.target().into());
    object.insert("@timestamp".to_owned(), now().into());
    for (key, value) in others {
        object.insert(key.to_owned(), value.into());
    }
    let mut line = serde_json::Value::Object(object).to_string();
    line.push('\n');
    line
}

fn now() -> String {
    time::rfc3339(time::epoch_ms(std::time::SystemTime::now()))
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn a_watcher_sees_its_level_in_its_form_and_nobody_else_is_asked() {
        let subscriber = tracing_subscriber::registry().with(FeedLayer.with_filter(Wanted));
        tracing::subscriber::with_default(subscriber, || {
            let mut text = watch(Level::INFO, Form::Text).unwrap();
            let mut json = watch(Level::DEBUG, Form::Json).unwrap();
            tracing::info!(target: "feed-test", service = "web", "first\nline");
            tracing::debug!(target: "feed-test", "second");
            tracing::trace!(target: "feed-test", "third");
            let mine = |watcher: &mut Watcher| -> Vec<String> {
                let lines = std::iter::from_fn(|| watcher.lines.try_recv().ok());
                lines.filter(|line| line.contains("feed-test")).collect()
            };
            let seen = mine(&mut text);
            assert_eq!(seen.len(), 1);
            assert!(seen[0].ends_with(" [INFO]  feed-test: first\\nline: service=web\n"), "{}", seen[0]);
            let seen = mine(&mut json);
            assert_eq!(seen.len(), 2);
            let first: serde_json::Value = serde_json::from_str(&seen[0]).unwrap();
            assert_eq!((&first["@level"], &first["@message"]), (&"info".into(), &"first\nline".into()));
            assert_eq!(first["service"], "web");
        });
    }

    #[test]
    fn a_watcher_that_does_not_read_loses_lines_only() {
        let subscriber = tracing_subscriber::registry().with(FeedLayer.with_filter(Wanted));
        tracing::subscriber::with_default(subscriber, || {
            let mut slow = watch(Level::WARN, Form::Text).unwrap();
            for _ in 0..MAX_LINES + 10 {
                tracing::warn!(target: "feed-slow", "line");
            }
            let kept = std::iter::from_fn(|| slow.lines.try_recv().ok()).count();
            assert_eq!(kept, MAX_LINES);
        });
    }
}
