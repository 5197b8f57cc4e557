//! The text of durations, sizes and file modes.
//!
//! A duration must have a unit, because a number without one is often wrong by a factor of 1000. Sizes have units of 1024 (`KiB`) and
//! of 1000 (`kB`). `K` alone could be either and is refused.

use std::time::Duration;

/// `500ms`, `10s`, `1m`, `1h`, `1d`. The error says what would be right.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let Ok(number) = number.parse::<u64>() else { return Err(DURATION.to_owned()) };
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        "" => return Err(format!("add the unit: `{number}s` or `{number}ms`")),
        _ if unit.starts_with(['.', ',']) => {
            return Err(format!("{DURATION}; for a fraction use a smaller unit, for example `1500ms`"));
        }
        _ if unit.starts_with(|c: char| c.is_alphabetic()) && unit.contains(|c: char| c.is_ascii_digit()) => {
            return Err("write one number and one unit, for example `90s` for a minute and a half".to_owned());
        }
        _ => return Err(DURATION.to_owned()),
    };
    milliseconds.map(Duration::from_millis).ok_or_else(|| "this number is too large".to_owned())
}

const DURATION: &str = "write a whole number and `ms`, `s`, `m`, `h` or `d`, for example `10s`";

/// `64KiB`, `1MB`, `512`. The error says what would be right.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let Ok(number) = number.parse::<u64>() else { return Err(SIZE.to_owned()) };
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "k" | "K" | "m" | "M" | "g" | "G" => {
            let prefix = unit.to_uppercase();
            return Err(format!("write `{number}{prefix}iB` (units of 1024) or `{number}{prefix}B` (units of 1000)"));
        }
        _ => return Err(SIZE.to_owned()),
    };
    number.checked_mul(factor).ok_or_else(|| "this number is too large".to_owned())
}

const SIZE: &str = "write a whole number and `B`, `KiB`, `MiB`, `GiB`, `KB`, `MB` or `GB`, for example `64KiB`";

/// `077`, `0o077`, up to `777`.
pub(super) fn mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = !digits.is_empty() && digits.bytes().all(|b| matches!(b, b'0'..=b'7'));
    u32::from_str_radix(digits, 8).ok().filter(|mode| octal && *mode <= 0o777)
}

/// The shortest text of a duration.
pub(crate) fn duration_text(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms % 1000 != 0 || ms == 0 => format!("{ms}ms"),
        ms if ms % 86_400_000 == 0 => format!("{}d", ms / 86_400_000),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms => format!("{}s", ms / 1000),
    }
}

/// The shortest text of a size.
pub(super) fn size_text(bytes: u64) -> String {
    match bytes {
        b if b != 0 && b % (1 << 30) == 0 => format!("{}GiB", b >> 30),
        b if b != 0 && b % (1 << 20) == 0 => format!("{}MiB", b >> 20),
        b if b != 0 && b % (1 << 10) == 0 => format!("{}KiB", b >> 10),
        1 => "1 byte".to_owned(),
        b => format!("{b} bytes"),
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
        for bad in ["", "s", "10", "1.5s", "-1s", "1m30s", "10 seconds", "99999999999999999999s", "999999999999999999h"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(duration("10").unwrap_err().contains("`10s`"));
        assert!(duration("1.5s").unwrap_err().contains("`1500ms`"));
        assert!(!duration("off").unwrap_err().contains("1500"));
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("64 KiB"), Ok(65_536));
        assert_eq!(size("1MB"), Ok(1_000_000));
        assert_eq!(size("16MiB"), Ok(16 << 20));
        for bad in ["", "KiB", "-1", "1.5MiB", "1K", "1TiB", "99999999999999999999", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert!(size("1k").unwrap_err().contains("1KiB"));
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("077"), Some(0o077));
        assert_eq!(mode("0o022"), Some(0o022));
        assert_eq!(mode("0"), Some(0));
        for bad in ["", "8", "1000", "-1", "+7", "0o"] {
            assert_eq!(mode(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_and_sizes_are_written_as_they_are_read() {
        for text in ["500ms", "10s", "90s", "1h", "7d"] {
            assert_eq!(duration_text(duration(text).unwrap()), text);
        }
        for text in ["64KiB", "1MiB", "3GiB"] {
            assert_eq!(size_text(size(text).unwrap()), text);
        }
    }
}
