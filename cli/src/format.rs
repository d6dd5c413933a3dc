//! Numbers and texts as a person likes to see and to write them.

use std::time::Duration;

use shared::config::{Bytes, FromSetting};

/// A duration in its two largest units.
pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{seconds}.{} s", ms % 1000 / 100),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A text on one line: what would move a terminal's cursor is shown as what it is.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// The beginning of a text, with a sign that there is more.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Reads `90`, `1.5`, `500ms`, `90s`, `5m`, `2h` or `1d` as seconds.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let end = text.find(|character: char| character.is_ascii_alphabetic());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let factor = match unit {
        "ms" => Some(0.001),
        "" | "s" => Some(1.0),
        "m" | "min" => Some(60.0),
        "h" => Some(3_600.0),
        "d" => Some(86_400.0),
        _ => None,
    };
    let number = number.trim().parse::<f64>().ok();
    let seconds = number.zip(factor).map(|(number, factor)| number * factor);
    seconds
        .filter(|seconds| Duration::try_from_secs_f64(*seconds).is_ok())
        .ok_or_else(|| "write seconds, or 500ms, 90s, 5m, 2h, 1d".to_owned())
}

/// Reads what [`seconds`] does, but no fraction of a second.
pub(crate) fn whole_seconds(text: &str) -> Result<i64, String> {
    let whole = || "write whole seconds, or 90s, 5m, 2h, 1d".to_owned();
    let seconds = Duration::from_secs_f64(seconds(text).map_err(|_| whole())?);
    let count = i64::try_from(seconds.as_secs()).ok();
    count
        .filter(|_| seconds.subsec_nanos() == 0)
        .ok_or_else(whole)
}

/// Reads `1048576`, `64MiB` or `1GiB` as bytes.
pub(crate) fn bytes(text: &str) -> Result<i64, String> {
    let Bytes(bytes) = Bytes::from_setting(text).map_err(|form| format!("write {form}"))?;
    i64::try_from(bytes).map_err(|_| "that is too much".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        let shown = [999, 1_234, 65_000, 3_700_000, 90_000_000].map(duration);
        assert_eq!(
            shown,
            ["999 ms", "1.2 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]
        );
    }

    #[test]
    fn times_are_read_with_and_without_units() {
        for (text, expected) in [("90", 90.0), ("1.5", 1.5), ("500ms", 0.5), ("5m", 300.0)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for bad in ["", "s", "1x", "-1", "inf", "nan", "1e300d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        assert_eq!(whole_seconds("1.5m"), Ok(90));
        for bad in ["1.5", "500ms", "x", "1e19"] {
            assert!(whole_seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_text_stays_on_its_line() {
        assert_eq!(one_line("a\nb\x1b[2J"), "a\\nb\\u{1b}[2J");
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("ärger", 5), "ärger");
    }
}
