//! Texts in columns, and numbers as people read them.

use std::fmt;
use std::time::Duration;

use super::line;

/// A label, and lines of text beside it.
pub(super) fn row(text: &mut String, label: &str, lines: impl IntoIterator<Item = impl fmt::Display>) {
    for (index, value) in lines.into_iter().enumerate() {
        let label = if index == 0 { label } else { "" };
        line(text, format!("{label:<13} {value}").trim_end());
    }
}

/// `1.23 µs`: three digits that count.
pub(super) fn time(duration: Duration) -> String {
    let nanoseconds = duration.as_secs_f64() * 1e9;
    let (value, unit) = match nanoseconds {
        small if small < 1e3 => (small, "ns"),
        small if small < 1e6 => (small / 1e3, "µs"),
        large if large < 1e9 => (large / 1e6, "ms"),
        large => (large / 1e9, "s"),
    };
    let decimals = match value {
        small if small < 10.0 && unit != "ns" => 2,
        middle if middle < 100.0 && unit != "ns" => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// `128 KiB`.
pub(super) fn size(bytes: usize) -> String {
    match bytes {
        0..10_240 => format!("{bytes} bytes"),
        10_240..10_485_760 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}

/// `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (nanoseconds, expected) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1234, "1.23 µs"),
            (12_340, "12.3 µs"),
            (123_400, "123 µs"),
            (1_500_000, "1.50 ms"),
            (2_000_000_000, "2.00 s"),
        ] {
            assert_eq!(time(Duration::from_nanos(nanoseconds)), expected);
        }
        for (bytes, expected) in [(10, "10 bytes"), (131_072, "128 KiB"), (18 << 20, "18 MiB")] {
            assert_eq!(size(bytes), expected);
        }
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), expected);
        }
    }
}
