//! Sets up logging for the whole process: to stderr, text for people and JSON for machines.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::access;
use super::feed::{FeedLayer, Wanted};

/// The access log is on, and what the DNS library thinks of the packets of strangers is off, unless the
/// filter says otherwise: a line for each would be theirs to fill disks with.
const DEFAULTS: &str = "access=info,hickory_proto=error";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Text when stderr is a terminal, JSON otherwise.
    #[default]
    Auto,
    Text,
    Json,
}

impl Format {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = LoggingError;
    fn from_str(word: &str) -> Result<Self, LoggingError> {
        [Self::Auto, Self::Text, Self::Json]
            .into_iter()
            .find(|format| format.as_str() == word)
            .ok_or_else(|| LoggingError::Format(word.to_owned()))
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error(
        "log level {text:?} is not a level (error, warn, info, debug, trace, off) or a list of target=level: {source}"
    )]
    Filter { text: String, source: ParseError },
    #[error(
        "log level {text:?} names {word:?}, which is not a level; use error, warn, info, debug, trace or off"
    )]
    Level { text: String, word: String },
    #[error("log format {0:?} is unknown; use auto, text or json")]
    Format(String),
    #[error("the thread that writes the access log cannot be started: {0}")]
    Thread(std::io::Error),
    #[error("logging is set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// Starts logging. `level` is a level (`info`) or a list of them per target (`info,access=off`).
///
/// # Errors
/// When the level cannot be parsed, or a logger was installed before.
pub fn init(level: &str, format: Format) -> Result<(), LoggingError> {
    let filter = filter(level)?;
    let terminal = std::io::stderr().is_terminal();
    let text = match format {
        Format::Text => true,
        Format::Json => false,
        Format::Auto => terminal,
    };
    if filter.would_enable(access::TARGET, &Level::INFO) {
        let format = if text { access::Format::Text } else { access::Format::Json };
        access::start(format).map_err(LoggingError::Thread)?;
    }
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
    let registry = tracing_subscriber::registry().with(FeedLayer.with_filter(Wanted));
    if text {
        registry.with(layer.with_filter(filter)).try_init()?;
    } else {
        registry.with(layer.json().flatten_event(true).with_filter(filter)).try_init()?;
    }
    Ok(())
}

/// The later directive for a target wins, so the user's text can override the default.
fn filter(level: &str) -> Result<Targets, LoggingError> {
    check_bare_words(level)?;
    format!("{DEFAULTS},{level}")
        .parse()
        .map_err(|source| LoggingError::Filter { text: level.to_owned(), source })
}

/// A bare word means "this target, everything" to the filter, so that a misspelt `inof` would silence
/// all logs. Only levels may stand alone here.
fn check_bare_words(level: &str) -> Result<(), LoggingError> {
    let words = level.split(',').map(str::trim);
    for word in words.filter(|word| !word.contains(['=', '[']) && !word.is_empty()) {
        if word.parse::<LevelFilter>().is_err() {
            return Err(LoggingError::Level { text: level.to_owned(), word: word.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of (access at info, other targets at info, other targets at warn) are let through.
    fn passes(level: &str) -> (bool, bool, bool) {
        let everything = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).finish();
        let subscriber = everything.with(filter(level).unwrap());
        tracing::subscriber::with_default(subscriber, || {
            (
                tracing::enabled!(target: "access", Level::INFO),
                tracing::enabled!(target: "weft::proxy", Level::INFO),
                tracing::enabled!(target: "weft::proxy", Level::WARN),
            )
        })
    }

    #[test]
    fn the_access_log_is_on_by_default_and_can_be_turned_off() {
        assert_eq!(passes("info"), (true, true, true));
        assert_eq!(passes("warn"), (true, false, true));
        assert_eq!(passes("info,access=off"), (false, true, true));
        assert_eq!(passes("access=off"), (false, false, false));
        assert_eq!(passes("weft::proxy=warn"), (true, false, true));
    }

    #[test]
    fn a_bad_level_is_named() {
        for bad in ["inof", "info,weft=loud", "a=b=c"] {
            let error = filter(bad).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
        assert!("yaml".parse::<Format>().unwrap_err().to_string().contains("yaml"));
        assert_eq!("json".parse::<Format>().unwrap(), Format::Json);
    }
}
