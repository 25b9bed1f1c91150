//! Durations as Go writes them (`10s`, `1h5m`, `300ms`, `1.5s`), because Consul's files, API and
//! query parameters use that notation.

use std::time::Duration;

/// Why a text is not a duration. The texts are Go's, which Consul passes on to its clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit { unit: String, text: String },
}

/// Parses a non-negative Go duration.
///
/// # Errors
/// When the text is empty, negative, has no unit or an unknown one, or does not fit 64 bits of
/// nanoseconds.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total_ns: u128 = 0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_len);
        if number.is_empty() || number == "." || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        if unit.is_empty() {
            return Err(DurationError::MissingUnit(text.to_owned()));
        }
        let scale = unit_ns(unit).ok_or_else(|| DurationError::UnknownUnit {
            unit: unit.to_owned(),
            text: text.to_owned(),
        })?;
        total_ns = scaled(number, scale).and_then(|ns| total_ns.checked_add(ns)).ok_or_else(invalid)?;
        rest = next;
    }
    u64::try_from(total_ns)
        .ok()
        .filter(|ns| i64::try_from(*ns).is_ok())
        .map(Duration::from_nanos)
        .ok_or_else(invalid)
}

fn unit_ns(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `number` (decimal, at most one point) times `scale`, in nanoseconds, cut off below one.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole_ns = if whole.is_empty() { 0 } else { whole.parse::<u128>().ok()?.checked_mul(scale)? };
    let digits = &fraction[..fraction.len().min(18)];
    if digits.is_empty() {
        return Some(whole_ns);
    }
    let power = 10u128.pow(u32::try_from(digits.len()).ok()?);
    whole_ns.checked_add(digits.parse::<u128>().ok()?.checked_mul(scale)? / power)
}

/// Writes a duration as Go's `String` does: `72h0m0s`, `1.5s`, `300ms`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let ns = duration.as_nanos();
    if ns == 0 {
        return "0s".to_owned();
    }
    if ns < 1_000_000_000 {
        let (scale, unit) = match ns {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{}{unit}", decimal(ns, scale));
    }
    let minutes = ns / 60_000_000_000;
    let seconds = decimal(ns % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, m) => format!("{m}m{seconds}s"),
        (h, m) => format!("{h}h{m}m{seconds}s"),
    }
}

fn decimal(value: u128, scale: u128) -> String {
    let width = scale.ilog10() as usize;
    if value.is_multiple_of(scale) {
        return (value / scale).to_string();
    }
    let fraction = format!("{:0width$}", value % scale);
    format!("{}.{}", value / scale, fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read() {
        for (text, ms) in [
            ("10s", 10_000),
            ("1h5m", 3_900_000),
            ("300ms", 300),
            ("1.5s", 1_500),
            ("0", 0),
            (".5s", 500),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn faults_have_gos_words() {
        assert_eq!(parse("10").unwrap_err().to_string(), "time: missing unit in duration \"10\"");
        assert_eq!(parse("abc").unwrap_err().to_string(), "time: invalid duration \"abc\"");
        assert_eq!(parse("5q").unwrap_err().to_string(), "time: unknown unit \"q\" in duration \"5q\"");
        for bad in ["", "-1s", "1.2.3s", "9999999999h", "."] {
            assert!(parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn format_is_gos() {
        for text in ["72h0m0s", "1.5s", "300ms", "1m30s", "0s", "1.001s", "15µs"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }
}
