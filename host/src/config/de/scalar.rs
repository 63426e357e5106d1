//! The text of a scalar as a number, a boolean, a duration, a network or a range of status codes.
//!
//! Called by the deserializer and by the conversion to JSON. Errors are whole messages about the text; help follows
//! after a line break.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::WebOrigin;

/// A message and the help after its line break.
pub(in crate::config) fn split(text: &str) -> (String, Option<String>) {
    match text.split_once('\n') {
        Some((message, help)) => (message.to_owned(), Some(help.to_owned())),
        None => (text.to_owned(), None),
    }
}

/// A type of whole number with its bounds.
pub(in crate::config) trait Number: TryFrom<i128> {
    const LEAST: i128;
    const MOST: i128;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Number for $number {
            const LEAST: i128 = <$number>::MIN as i128;
            const MOST: i128 = <$number>::MAX as i128;
        }
    )*};
}

numbers!(i8, i16, i32, i64, u8, u16, u32, u64);

/// A whole number: decimal, `0x…`, `0o…` or `0b…`.
pub(in crate::config) fn number<T: Number>(text: &str) -> Result<T, String> {
    let number = whole(text).ok_or_else(|| format!("`{text}` is not a whole number"))?;
    if number < T::LEAST {
        return Err(format!("`{text}` is less than {}", T::LEAST));
    }
    T::try_from(number).map_err(|_| format!("`{text}` is more than {}", T::MOST))
}

/// As [`number`], without bounds.
pub(in crate::config) fn whole(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ => (10, digits),
    };
    if !digits.starts_with(|first: char| first.is_digit(radix)) {
        return None;
    }
    i128::from_str_radix(digits, radix).ok().map(|number| sign * number)
}

/// What Go takes for a boolean.
pub(in crate::config) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "True" | "TRUE" | "t" | "T" | "1" => return Ok(true),
        "false" | "False" | "FALSE" | "f" | "F" | "0" => return Ok(false),
        _ => {}
    }
    let meant = match text.to_ascii_lowercase().as_str() {
        "yes" | "y" | "on" => "\nwrite `true`",
        "no" | "n" | "off" => "\nwrite `false`",
        _ => "",
    };
    Err(format!("`{text}` is neither `true` nor `false`{meant}"))
}

/// Go's duration text (`1m30s`, `1.5h`, `100ms`) or whole seconds. Negative ones are refused.
pub(in crate::config) fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("`{text}` is not a duration\nwrite `10s`, `1m30s`, `100ms`, or whole seconds");
    if text.starts_with('-') {
        return Err(format!("`{text}` is negative"));
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    if let Some(seconds) = whole(text) {
        return u64::try_from(seconds).map(Duration::from_secs).map_err(|_| invalid());
    }
    let mut rest = text;
    let mut nanoseconds = 0_u128;
    while !rest.is_empty() {
        let digits = rest.find(|byte: char| !byte.is_ascii_digit() && byte != '.').ok_or_else(invalid)?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|byte: char| byte.is_ascii_digit() || byte == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let part = unit_nanoseconds(unit).and_then(|unit| scaled(number, unit)).ok_or_else(invalid)?;
        nanoseconds = nanoseconds.checked_add(part).ok_or_else(invalid)?;
        rest = after;
    }
    match u64::try_from(nanoseconds) {
        Ok(nanoseconds) if !text.is_empty() => Ok(Duration::from_nanos(nanoseconds)),
        _ => Err(invalid()),
    }
}

fn unit_nanoseconds(unit: &str) -> Option<u128> {
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

/// A decimal number times a unit, such as `1.5` times an hour.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let parse = |digits: &str| {
        if digits.is_empty() { Some(0) } else { digits.parse::<u128>().ok() }
    };
    let fraction = fraction.get(..fraction.len().min(18))?;
    let parts = parse(fraction)?.checked_mul(unit)? / 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    parse(whole)?.checked_mul(unit)?.checked_add(parts)
}

/// A network, or a single address as the network that holds only it.
pub(in crate::config) fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| format!("`{text}` is neither an address nor a network\nwrite `192.168.1.7` or `10.0.0.0/8`"))
}

/// `https://login.example.com`, and nothing behind host and port.
pub(in crate::config) fn origin(text: &str) -> Result<WebOrigin, String> {
    let help = "write scheme, host and port alone: `https://login.example.com:8443`";
    WebOrigin::parse_alone(text).map_err(|problem| format!("`{text}` is no origin: {problem}\n{help}"))
}

/// `64MiB`, `500kB`, or bytes.
pub(in crate::config) fn size(text: &str) -> Result<u64, String> {
    let invalid = || format!("`{text}` is not a size\nwrite `64MiB`, `500kB`, or bytes");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start().to_ascii_lowercase().trim_end_matches('b') {
        "" => 1,
        "k" => 1_000,
        "ki" => 1 << 10,
        "m" => 1_000_000,
        "mi" => 1 << 20,
        "g" => 1_000_000_000,
        "gi" => 1 << 30,
        _ => return Err(invalid()),
    };
    number.parse().ok().and_then(|number: u64| number.checked_mul(unit)).ok_or_else(invalid)
}

/// `0.5`, up to more than any machine has.
pub(in crate::config) fn cores(text: &str) -> Result<f64, String> {
    let cores = text.parse().ok().filter(|cores| (0.0..=10_000.0).contains(cores));
    cores.ok_or_else(|| {
        format!("`{text}` is no number of processor cores\nwrite `0.5` for half a core, or 0 for no limit")
    })
}

/// `1024` for a gigabyte.
pub(in crate::config) fn megabytes(text: &str) -> Result<u64, String> {
    number(text).map_err(|message| format!("{message}\nwrite megabytes without a unit: `1024` for 1 GB"))
}

/// `404` or `500-599`.
pub(in crate::config) fn status_codes(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let code = |text: &str| text.trim().parse::<u16>().ok().filter(|code| (100..1000).contains(code));
    match (code(first), code(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(format!("`{text}` is no range of status codes\nwrite `404` or `500-599`")),
    }
}

/// Numbers above zero, each greater than the one before.
pub(in crate::config) fn ascending(texts: &[String]) -> Result<Vec<f64>, String> {
    let number = |text: &String| {
        let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
        number.ok_or_else(|| format!("`{text}` is no number above zero"))
    };
    let numbers = texts.iter().map(number).collect::<Result<Vec<f64>, String>>()?;
    match numbers.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => Err(format!("`{}` must not come before `{}`\nput the smaller one first", pair[0], pair[1])),
        None => Ok(numbers),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{boolean, duration, network, number, size, status_codes};

    #[test]
    fn numbers() {
        for (text, expected) in
            [("12", Some(12)), ("-1", Some(-1)), ("+7", Some(7)), ("0x10", Some(16)), ("0o17", Some(15))]
        {
            assert_eq!(number::<i64>(text).ok(), expected, "{text}");
        }
        for text in ["", "high", "1.5", "1e3", "- 1", "--1", "0x", "1_000", "9223372036854775808"] {
            assert!(number::<i64>(text).is_err(), "{text}");
        }
        assert_eq!(number::<u16>("70000"), Err("`70000` is more than 65535".to_owned()));
        assert_eq!(number::<u16>("-1"), Err("`-1` is less than 0".to_owned()));
    }

    #[test]
    fn durations() {
        for (text, expected) in [
            ("10", Duration::from_secs(10)),
            ("0", Duration::ZERO),
            ("10s", Duration::from_secs(10)),
            ("1m30s", Duration::from_secs(90)),
            ("100ms", Duration::from_millis(100)),
            ("1.5h", Duration::from_secs(5400)),
            (".5s", Duration::from_millis(500)),
            ("1h2m3.004s", Duration::from_millis(3_723_004)),
            ("3us", Duration::from_micros(3)),
        ] {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
        for text in ["", "soon", "s", "10 s", "1.s.", "-1s", "5d", "1.5", "99999999999999999999h", "1m30"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", 0),
            ("1000", 1000),
            ("1b", 1),
            ("2kB", 2000),
            ("64 MiB", 64 << 20),
            ("1Gi", 1 << 30),
            ("3M", 3_000_000),
        ] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "1TiB", "1 MiB x", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn others() {
        assert_eq!(boolean("True"), Ok(true));
        assert_eq!(boolean("yes"), Err("`yes` is neither `true` nor `false`\nwrite `true`".to_owned()));
        assert_eq!(network("10.0.0.1").map(|network| network.to_string()), Ok("10.0.0.1/32".to_owned()));
        assert!(network("10.0.0.0/33").is_err());
        assert_eq!(status_codes("500-599"), Ok(500..=599));
        assert!(status_codes("599-500").is_err());
    }

    #[test]
    fn ends_of_classes_ascend() {
        let read = |text: &str| {
            let texts: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            super::ascending(&texts)
        };
        assert_eq!(read("0.1 5 1e3"), Ok(vec![0.1, 5.0, 1000.0]));
        assert_eq!(read(""), Ok(Vec::new()));
        for bad in ["0", "-1", "x", "NaN", "inf", "1 1", "2 1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
