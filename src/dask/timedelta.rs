//! Durations as Dask writes them.

use thiserror::Error;

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(r#"must be a Dask duration such as "60s", "1.5 minutes", "100ms" or "2h"; a number alone means seconds"#)]
pub struct TimedeltaError;

/// What a text such as `60s`, `1.5 minutes` or `100ms` means in seconds.
///
/// Takes what `dask.utils.parse_timedelta` takes, with the same value, odd as it may look: spaces mean nothing anywhere,
/// and a text that does not begin with a digit gets a 1 before it, so that `.5s` is 1.5 seconds and `minute` is 60. One
/// difference is deliberate: digits and spaces beyond ASCII, which Python knows, are refused.
///
/// Source: dask 2026.8.0, dask/utils.py: `parse_timedelta`.
///
/// # Errors
/// When the text is no such duration.
pub fn parse_timedelta(text: &str) -> Result<f64, TimedeltaError> {
    let mut text = text.replace(' ', "");
    match text.bytes().next() {
        None => return Err(TimedeltaError),
        Some(first) if first.is_ascii_digit() => {}
        Some(_) => text.insert(0, '1'),
    }
    let (number, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
    let seconds = float_of(number).ok_or(TimedeltaError)? * seconds_of(unit).ok_or(TimedeltaError)?;
    if seconds.is_finite() { Ok(seconds) } else { Err(TimedeltaError) }
}

/// A number as Python's `float` reads it: with single underscores between digits, a fraction and an exponent.
fn float_of(text: &str) -> Option<f64> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_number = is_digits(whole) && (fraction.is_empty() || is_digits(fraction)) && exponent.is_none_or(is_digits);
    if is_number { text.replace('_', "").parse().ok() } else { None }
}

fn is_digits(text: &str) -> bool {
    text.split('_').all(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
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
        (".5s", 1.5),
        ("0.5s", 0.5),
        (".5", 1.5),
        ("1e3 ms", 1.0),
        ("1E3ms", 1.0),
        ("1e-3s", 0.001),
        ("1e3", 1000.0),
        ("2.5e+1 m", 1500.0),
        (" 3 s ", 3.0),
        ("10S", 10.0),
        ("1 0 s", 10.0),
        ("1_000 ms", 1.0),
        ("1_0.5_0s", 10.5),
        ("_5s", 15.0),
        ("e3s", 1000.0),
        ("e3", 1000.0),
        ("1.s", 1.0),
        ("5.e1s", 50.0),
        ("00012s", 12.0),
        ("  minute ", 60.0),
        ("W", 604800.0),
        ("1 H", 3600.0),
        ("3 Weeks", 1814400.0),
        ("1234567890123456789 ns", 1234567890.123457),
        ("0.1 us", 1e-07),
        ("1e-400s", 0.0),
        ("1e2_0ns", 100000000000.0),
    ];

    /// What it raised at.
    const REFUSED_BY_DASK: &[&str] = &[
        "-.5",
        "",
        " ",
        "   ",
        "soon",
        "60 parsecs",
        "-5s",
        "+5s",
        "--1",
        "-",
        "1h30m",
        "1 s 2",
        "5 s s",
        "5µs",
        "5 µs",
        "µ",
        "1,5s",
        "1.2.3s",
        "1..5s",
        "1__0s",
        "1_s",
        "1_.5s",
        "1._5s",
        "1e",
        "1es",
        "1e+s",
        "1e5.5s",
        "0x10",
        "inf",
        "nan",
        "infinity",
        "1e999s",
        "1e308 w",
        "5\ts5",
        "½s",
        "5s\n",
        "s5",
        "2 sec",
        "3 mins",
        "1 month",
        "1y",
        "s.",
        "5-s",
        "5;s",
    ];

    #[test]
    fn durations_mean_what_they_mean_in_dask() {
        for (text, seconds) in AS_DASK {
            let found = parse_timedelta(text).unwrap_or_else(|_| panic!("{text} is refused"));
            assert_eq!(found, *seconds, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in REFUSED_BY_DASK {
            assert_eq!(parse_timedelta(text), Err(TimedeltaError), "{text:?}");
        }
    }

    /// The deliberate difference: Python takes these.
    #[test]
    fn digits_and_spaces_beyond_ascii_are_refused() {
        for text in ["٣s", "5\ts", "60\n"] {
            assert_eq!(parse_timedelta(text), Err(TimedeltaError), "{text:?}");
        }
    }
}
