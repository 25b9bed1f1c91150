//! Points in time as RFC 3339 in UTC, the way Go writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_S: u64 = 24 * 60 * 60;

/// `2026-11-23T08:30:46.229Z`: milliseconds since the epoch, zeros at the end of the fraction left out.
#[must_use]
pub fn rfc3339(epoch_ms: u64) -> String {
    let (seconds, millis) = (epoch_ms / 1000, epoch_ms % 1000);
    let (year, month, day) = date(seconds / DAY_S);
    let second = seconds % DAY_S;
    let clock = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    let fraction = format!(".{millis:03}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{year:04}-{month:02}-{day:02}T{clock}{fraction}Z")
}

/// `Monday, 23-Nov-26 08:37:29 UTC` (RFC 850), from a time in UTC as [`rfc3339`] writes it; `None` for
/// any other text.
#[must_use]
pub fn rfc850(text: &str) -> Option<String> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // 1970-01-01 was the first of these.
    const DAYS: [&str; 7] =
        ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let (day, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let clock = clock.split('.').next().filter(|clock| clock.len() == "00:00:00".len())?;
    let parts: Vec<u64> = day.split('-').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [year @ 1970..=9999, month @ 1..=12, day @ 1..=31] = parts[..] else { return None };
    let name = MONTHS.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    let weekday = DAYS.get(usize::try_from(days(year, month, day) % 7).ok()?)?;
    Some(format!("{weekday}, {day:02}-{name}-{:02} {clock} UTC", year % 100))
}

/// Days from the epoch to a day of the Gregorian calendar; the inverse of [`date`].
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).saturating_sub(719_468)
}

/// Milliseconds since the epoch; times before it are the epoch.
#[must_use]
pub fn epoch_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Year, month and day of a day since the epoch, in the Gregorian calendar. Counts in eras of 400
/// years that begin on the first of March, so that the leap day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // 0000-03-01 to 1970-01-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_by_table() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (951_868_800_000, "2000-03-01T00:00:00Z"),
            (1_709_210_096_120, "2024-02-29T12:34:56.12Z"),
            (1_795_422_646_229, "2026-11-23T08:30:46.229Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn days_of_the_week_by_table() {
        for (text, said) in [
            ("2026-11-23T08:37:29.123Z", Some("Monday, 23-Nov-26 08:37:29 UTC")),
            ("1970-01-01T00:00:00Z", Some("Thursday, 01-Jan-70 00:00:00 UTC")),
            ("2000-02-29T23:59:59Z", Some("Tuesday, 29-Feb-00 23:59:59 UTC")),
            ("2026-11-23T08:37:29+01:00", None),
            ("2026-13-23T08:37:29Z", None),
            ("2026-00-23T08:37:29Z", None),
            ("0001-01-01T00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(rfc850(text).as_deref(), said, "{text}");
        }
    }

    #[test]
    fn days_and_dates_are_inverse() {
        for day in (0..200_000).step_by(97) {
            let (year, month, of_month) = date(day);
            assert_eq!(days(year, month, of_month), day);
        }
    }
}
