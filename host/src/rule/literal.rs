//! Go's two forms of string literal, read and written: `` `raw` `` and `"with \t escapes"`.
//!
//! <https://go.dev/ref/spec#String_literals>

use std::fmt;
use std::ops::Range;

use super::Error;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Literal {
    pub(super) value: String,
    /// With the quotes.
    pub(super) span: Range<usize>,
    /// The value is the text between the quotes, byte for byte.
    verbatim: bool,
}

impl Literal {
    /// Reads the literal whose opening quote is at `start`.
    ///
    /// # Errors
    ///
    /// No closing quote, an unknown escape, or a value that is not UTF-8.
    pub(super) fn read(text: &str, start: usize) -> Result<Self, Error> {
        if text[start..].starts_with('`') {
            return Self::read_raw(text, start);
        }
        let mut bytes = Vec::new();
        let mut verbatim = true;
        let mut at = start + 1;
        loop {
            let c = text[at..].chars().next().filter(|&c| c != '\n');
            let Some(c) = c else {
                return Err(Error::at(start..start + 1, "the literal does not end on its line"));
            };
            at += c.len_utf8();
            match c {
                '"' => break,
                '\\' => {
                    verbatim = false;
                    at = unescape(text, at - 1, &mut bytes)?;
                }
                _ => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        let span = start..at;
        match String::from_utf8(bytes) {
            Ok(value) => Ok(Self { value, span, verbatim }),
            Err(_) => Err(Error::at(span, "the escapes of this literal do not make UTF-8")),
        }
    }

    fn read_raw(text: &str, start: usize) -> Result<Self, Error> {
        let body = &text[start + 1..];
        let Some(length) = body.find('`') else {
            return Err(Error::at(start..start + 1, "the literal has no closing backtick"));
        };
        // Go drops carriage returns from raw literals.
        let value = body[..length].replace('\r', "");
        Ok(Self { verbatim: value.len() == length, value, span: start..start + length + 2 })
    }

    /// The place in the rule of a part of the value; the whole literal where escapes moved it.
    pub(super) fn place(&self, part: Range<usize>) -> Range<usize> {
        if self.verbatim {
            let first = self.span.start + 1;
            return first + part.start..first + part.end;
        }
        self.span.clone()
    }
}

/// A value as a literal: in backticks where that is possible.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.contains(|c: char| c == '`' || c.is_control()) {
            return write!(f, "`{}`", self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

/// Appends what the escape at `at` stands for, and returns where it ends.
fn unescape(text: &str, at: usize, bytes: &mut Vec<u8>) -> Result<usize, Error> {
    let Some(letter) = text[at + 1..].chars().next() else {
        return Err(Error::at(at..at + 1, "the literal does not end on its line"));
    };
    let after = at + 1 + letter.len_utf8();
    let simple = match letter {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '"' => b'"',
        'x' | 'u' | 'U' | '0'..='7' => return unescape_number(text, at, letter, bytes),
        _ => {
            let span = at..after;
            return Err(Error::at(span, "unknown escape in double quotes")
                .with_help("in backticks a `\\` stands for itself, which regular expressions need"));
        }
    };
    bytes.push(simple);
    Ok(after)
}

fn unescape_number(text: &str, at: usize, letter: char, bytes: &mut Vec<u8>) -> Result<usize, Error> {
    let (first, digits, radix) = match letter {
        'x' => (at + 2, 2, 16),
        'u' => (at + 2, 4, 16),
        'U' => (at + 2, 8, 16),
        _ => (at + 1, 3, 8),
    };
    let number = text.get(first..first + digits).filter(|digits| digits.chars().all(|c| c.is_digit(radix)));
    let number = number.and_then(|digits| u32::from_str_radix(digits, radix).ok());
    let Some(number) = number else {
        return Err(Error::at(at..first, format!("the escape `\\{letter}` needs {digits} digits in base {radix}")));
    };
    let span = at..first + digits;
    if matches!(letter, 'u' | 'U') {
        let Some(c) = char::from_u32(number) else {
            return Err(Error::at(span, "the escape is no character"));
        };
        bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        let Ok(byte) = u8::try_from(number) else {
            return Err(Error::at(span, "the escape is more than a byte"));
        };
        bytes.push(byte);
    }
    Ok(first + digits)
}
