//! Durations as Dask writes them.

use thiserror::Error;

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(r#"must be a Dask duration such as "60s", "1.5 minutes", "100ms" or "2h"; a number alone means seconds"#)]
pub struct TimedeltaError;

/// Most digits before and after the point: more would only lose precision.
const WHOLE_DIGITS_MAX: usize = 12;
const FRACTION_DIGITS_MAX: usize = 9;

/// What a text such as `60s`, `1.5 minutes` or `100ms` means in seconds.
///
/// Takes what `dask.utils.parse_timedelta` takes and reads it alike, but for what that one reads other than it looks: a
/// sign, a fraction without a digit before the point (Dask reads `.5s` as 1.5 s), exponents and spaces within a number.
///
/// # Errors
/// When the text is no such duration.
pub fn parse_timedelta(text: &str) -> Result<f64, TimedeltaError> {
    let unit_start = text.rfind(|c: char| !c.is_ascii_alphabetic()).map_or(0, |last| last + char_length(text, last));
    let (number, unit) = text.split_at(unit_start);
    if number.is_empty() && unit.is_empty() {
        return Err(TimedeltaError);
    }
    let seconds = seconds_of(unit).ok_or(TimedeltaError)?;
    if number.is_empty() {
        return Ok(seconds);
    }
    let number = number.trim_end_matches(' ');
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = (1..=WHOLE_DIGITS_MAX).contains(&whole.len())
        && fraction.len() <= FRACTION_DIGITS_MAX
        && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if !is_number {
        return Err(TimedeltaError);
    }
    number.parse::<f64>().map(|number| number * seconds).map_err(|_| TimedeltaError)
}

fn char_length(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(0, char::len_utf8)
}

/// Source: dask 2026.8.0, dask/utils.py: `timedelta_sizes`; any case, and none means seconds.
fn seconds_of(unit: &str) -> Option<f64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "" | "s" | "second" | "seconds" => 1.0,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "us" | "microsecond" | "microseconds" => 1e-6,
        "ns" | "nanosecond" | "nanoseconds" => 1e-9,
        "m" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "week" | "weeks" => 604_800.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `dask.utils.parse_timedelta` of 2026.8.0 gave for each.
    const AS_DASK: &[(&str, f64)] = &[
        ("60s", 60.0),
        ("60", 60.0),
        ("0", 0.0),
        ("0s", 0.0),
        ("1.5 minutes", 90.0),
        ("2h", 7200.0),
        ("100ms", 0.1),
        ("7 us", 7e-06),
        ("7us", 7e-06),
        ("3 ns", 3.0000000000000004e-09),
        ("1 minute", 60.0),
        ("1.5HOURS", 5400.0),
        ("2 Days", 172800.0),
        ("1w", 604800.0),
        ("0.25 week", 151200.0),
        ("s", 1.0),
        ("minute", 60.0),
        ("1. s", 1.0),
        ("300 milliseconds", 0.3),
        ("12 microseconds", 1.2e-05),
        ("9 nanoseconds", 9.000000000000001e-09),
        ("1000000 seconds", 1000000.0),
        ("0.000001s", 1e-06),
        ("1.5   h", 5400.0),
        ("365 d", 31536000.0),
        ("999999999999", 999999999999.0),
    ];

    #[test]
    fn durations_mean_what_they_mean_in_dask() {
        for (text, seconds) in AS_DASK {
            let found = parse_timedelta(text).unwrap_or_else(|_| panic!("{text} is refused"));
            assert!((found - seconds).abs() <= seconds * 1e-12, "{text}: {found}, not {seconds}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            " ",
            "60 parsecs",
            "-5s",
            "+5s",
            ".5s",
            "1e3s",
            "1 000s",
            "1,5s",
            "5s ",
            " 5s",
            "5 s s",
            "1.2.3s",
            "٣s",
            "5µs",
            "µ",
        ] {
            assert_eq!(parse_timedelta(text), Err(TimedeltaError), "{text:?}");
        }
        assert_eq!(parse_timedelta(&"9".repeat(13)), Err(TimedeltaError));
    }
}
