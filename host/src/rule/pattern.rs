//! Regular expressions of Go, run by the `regex` crate.
//!
//! Both descend from RE2; what is spelled or meant differently is rewritten here: ASCII classes, `\Q…\E`, octal
//! escapes, a `{` that repeats nothing, and brackets, which have no set operations in Go.
//! <https://pkg.go.dev/regexp/syntax>

use std::fmt::Write;
use std::ops::Range;

use regex::{Regex, RegexBuilder};

use super::Error;

/// Bytes that one compiled expression may take.
const SIZE_LIMIT: usize = 2 << 20;

/// An expression that is searched anywhere in a text; equal to another of the same text.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    ///
    /// The place, in bytes of `text`, of what Go's syntax or the size limit forbids.
    pub(super) fn new(text: &str) -> Result<Self, Error> {
        let translated = Translation::of(text)?;
        let regex = RegexBuilder::new(&translated).size_limit(SIZE_LIMIT).build();
        match regex {
            Ok(regex) => Ok(Self { text: text.to_owned(), regex }),
            Err(error) => Err(Error::at(0..text.len(), describe(&error))),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// The crate's messages show the rewritten text; only their last line is of use here.
fn describe(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => format!("the regular expression takes more than {SIZE_LIMIT} bytes"),
        error => {
            let text = error.to_string();
            let reason = text.rsplit("error: ").next().unwrap_or(&text).trim();
            format!("bad regular expression: {reason}")
        }
    }
}

struct Translation<'a> {
    text: &'a str,
    at: usize,
    out: String,
    /// Where the open groups start.
    groups: Vec<usize>,
}

impl<'a> Translation<'a> {
    fn of(text: &'a str) -> Result<String, Error> {
        let mut this = Self { text, at: 0, out: String::with_capacity(text.len() + 8), groups: Vec::new() };
        while let Some(c) = this.peek() {
            match c {
                '\\' => this.escape()?,
                '[' => this.class()?,
                '{' => this.repetition(),
                '(' => this.open_group()?,
                ')' if this.groups.pop().is_none() => return Err(this.bad(this.at..this.at + 1, "`)` closes nothing")),
                _ => this.copy(c.len_utf8()),
            }
        }
        match this.groups.pop() {
            Some(open) => Err(this.bad(open..open + 1, "`(` is not closed")),
            None => Ok(this.out),
        }
    }

    /// A `{` that starts no `{2}`, `{2,}` or `{2,3}` is a brace.
    fn repetition(&mut self) {
        let rest = &self.text[self.at..];
        let inside = rest.find('}').map(|end| &rest[1..end]);
        let counts = inside.filter(|inside| match inside.split_once(',') {
            Some((least, "")) => is_count(least),
            Some((least, most)) => is_count(least) && is_count(most),
            None => is_count(inside),
        });
        match counts {
            Some(counts) => self.copy(counts.len() + 2),
            None => {
                self.at += 1;
                self.push('{');
            }
        }
    }

    /// Names are dropped: nothing asks for them, and Go allows more of them.
    fn open_group(&mut self) -> Result<(), Error> {
        self.groups.push(self.at);
        let rest = &self.text[self.at..];
        let named = ["(?P<", "(?<"].into_iter().find(|prefix| rest.starts_with(prefix));
        if let Some(prefix) = named
            && !rest.starts_with("(?<=")
            && !rest.starts_with("(?<!")
        {
            let Some(end) = rest.find('>') else {
                return Err(self.bad(self.at..self.at + prefix.len(), "the name of the group does not end"));
            };
            self.at += end + 1;
            self.out.push('(');
            return Ok(());
        }
        let Some(flags) = rest.strip_prefix("(?") else {
            self.copy(1);
            return Ok(());
        };
        let length = flags.find(|c| !matches!(c, 'i' | 'm' | 's' | 'U' | '-')).unwrap_or(flags.len());
        match flags[length..].chars().next() {
            Some(':') => self.copy(length + 3),
            Some(')') => self.copy(length + 2),
            Some('=' | '!' | '<') if length == 0 => {
                return Err(self
                    .bad(self.at..self.at + 3, "there is no look-around")
                    .with_help("Traefik has none either; combine matchers with `!` and `&&`"));
            }
            Some(flag) => {
                let end = self.at + 2 + length + flag.len_utf8();
                return Err(self.bad(self.at..end, "unknown kind of group"));
            }
            None => return Err(self.bad(self.at..self.at + 1, "`(` is not closed")),
        }
        Ok(())
    }

    /// An escape outside of brackets.
    fn escape(&mut self) -> Result<(), Error> {
        match self.text[self.at + 1..].chars().next() {
            Some('A' | 'z') => self.copy(2),
            Some(letter @ ('b' | 'B')) => {
                self.at += 2;
                let _ = write!(self.out, r"(?-u:\{letter})");
            }
            Some('Q') => self.quote(),
            Some('p' | 'P') => self.property()?,
            letter => match letter.and_then(perl_class) {
                Some(class) => {
                    self.at += 2;
                    self.out.push_str(class);
                }
                None => {
                    let c = self.escaped_character()?;
                    self.push(c);
                }
            },
        }
        Ok(())
    }

    /// `\Q…\E`, or to the end.
    fn quote(&mut self) {
        let quoted = &self.text[self.at + 2..];
        let (literal, end) = match quoted.find(r"\E") {
            Some(length) => (&quoted[..length], length + 2),
            None => (quoted, quoted.len()),
        };
        literal.chars().for_each(|c| self.push(c));
        self.at += 2 + end;
    }

    /// `\pL`, `\p{Greek}`, and Go's `\p{^Greek}`.
    fn property(&mut self) -> Result<(), Error> {
        let rest = &self.text[self.at + 2..];
        let Some(name) = rest.strip_prefix('{') else {
            let length = rest.chars().next().map_or(0, char::len_utf8);
            self.copy(2 + length);
            return Ok(());
        };
        let Some(end) = name.find('}') else {
            return Err(self.bad(self.at..self.at + 3, "the name of the class does not end"));
        };
        let Some(negated) = name[..end].strip_prefix('^') else {
            self.copy(end + 4);
            return Ok(());
        };
        let letter = if self.text[self.at..].starts_with(r"\p") { 'P' } else { 'p' };
        let _ = write!(self.out, r"\{letter}{{{negated}}}");
        self.at += end + 4;
        Ok(())
    }

    /// A bracket expression. In Go `[`, `&&`, `--` and `~~` have no meaning inside of it.
    fn class(&mut self) -> Result<(), Error> {
        let start = self.at;
        self.copy(1);
        if self.peek() == Some('^') {
            self.copy(1);
        }
        let first = self.at;
        loop {
            let rest = &self.text[self.at..];
            match rest.chars().next() {
                None => return Err(self.bad(start..start + 1, "`[` is not closed")),
                Some(']') if self.at > first => break,
                _ => {}
            }
            let letter = rest.strip_prefix('\\').and_then(|escape| escape.chars().next());
            if let Some(end) = rest.strip_prefix("[:").and_then(|name| name.find(":]")) {
                self.copy(end + 4);
            } else if matches!(letter, Some('p' | 'P')) {
                self.property()?;
            } else if let Some(class) = letter.and_then(perl_class) {
                self.at += 2;
                self.out.push_str(class);
            } else {
                self.class_range()?;
            }
        }
        self.copy(1);
        Ok(())
    }

    /// One character of a bracket expression, or two with a hyphen between them.
    fn class_range(&mut self) -> Result<(), Error> {
        let start = self.at;
        let low = self.class_character()?;
        self.push(low);
        let rest = &self.text[self.at..];
        if !rest.starts_with('-') || rest.len() < 2 || rest.starts_with("-]") {
            return Ok(());
        }
        self.copy(1);
        let high = self.class_character()?;
        if high < low {
            return Err(self.bad(start..self.at, "the range runs backwards"));
        }
        self.push(high);
        Ok(())
    }

    fn class_character(&mut self) -> Result<char, Error> {
        match self.peek() {
            Some('\\') => self.escaped_character(),
            Some(c) => {
                self.at += c.len_utf8();
                Ok(c)
            }
            None => Err(self.bad(self.text.len()..self.text.len(), "`[` is not closed")),
        }
    }

    /// Reads an escape that stands for one character.
    fn escaped_character(&mut self) -> Result<char, Error> {
        let start = self.at;
        let rest = &self.text[start + 1..];
        let Some(letter) = rest.chars().next() else {
            return Err(self.bad(start..start + 1, r"nothing follows `\`"));
        };
        let octal = rest.bytes().take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
        let (c, length) = match letter {
            'a' => (Some('\x07'), 1),
            'f' => (Some('\x0c'), 1),
            'n' => (Some('\n'), 1),
            'r' => (Some('\r'), 1),
            't' => (Some('\t'), 1),
            'v' => (Some('\x0b'), 1),
            'x' => hexadecimal(rest),
            // A single digit would refer back to a group, which neither engine does.
            '0'..='7' if letter == '0' || octal > 1 => (number(&rest[..octal], 8), octal),
            letter if letter.is_ascii() && !letter.is_ascii_alphanumeric() => (Some(letter), 1),
            letter => (None, letter.len_utf8()),
        };
        self.at += 1 + length;
        c.ok_or_else(|| self.bad(start..start + 1 + length, "unknown escape"))
    }

    /// Writes a character that means itself, inside and outside of brackets.
    fn push(&mut self, c: char) {
        if c.is_ascii_punctuation() {
            let _ = write!(self.out, r"\x{{{:x}}}", u32::from(c));
        } else {
            self.out.push(c);
        }
    }

    fn copy(&mut self, length: usize) {
        self.out.push_str(&self.text[self.at..self.at + length]);
        self.at += length;
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn bad(&self, span: Range<usize>, reason: &str) -> Error {
        Error::at(span, format!("bad regular expression: {reason}"))
    }
}

/// ASCII in Go, Unicode in the crate. The brackets nest where they stand inside of others.
fn perl_class(letter: char) -> Option<&'static str> {
    match letter {
        'd' => Some("[0-9]"),
        'D' => Some("[^0-9]"),
        's' => Some(r"[\t\n\f\r ]"),
        'S' => Some(r"[^\t\n\f\r ]"),
        'w' => Some("[0-9A-Za-z_]"),
        'W' => Some("[^0-9A-Za-z_]"),
        _ => None,
    }
}

/// `x7f` or `x{10ffff}`, and how long it is.
fn hexadecimal(escape: &str) -> (Option<char>, usize) {
    let Some(braced) = escape.strip_prefix("x{") else {
        let length = escape.bytes().skip(1).take(2).take_while(u8::is_ascii_hexdigit).count();
        let c = if length == 2 { number(&escape[1..3], 16) } else { None };
        return (c, 1 + length);
    };
    match braced.find('}') {
        Some(end) => (number(&braced[..end], 16), end + 3),
        None => (None, 2),
    }
}

fn number(digits: &str, radix: u32) -> Option<char> {
    // The parser of integers would take a sign.
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok().and_then(char::from_u32)
}

fn is_count(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, prop_assert, proptest};

    use super::Pattern;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")).matches(text)
    }

    #[test]
    fn expressions_mean_what_they_mean_in_go() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            (r"^a\z", &["a"], &["a\n", "ab"]),
            (r"^a$", &["a"], &["a\n"]),
            (r"(?P<1st>a)(?<n>b)(?P<n>c)", &["abc"], &["ab"]),
            (r"(?i)a(?-i:b)", &["Ab"], &["aB"]),
            (r"(?s-m:a.b)", &["a\nb"], &["ab"]),
            (r"a.b", &["a+b"], &["a\nb"]),
            (r"\Qa.b[\E+", &["a.b[["], &["axb[", "a.b"]),
            (r"\Qa+", &["a+"], &["aa"]),
            (r"^\d\D$", &["1a", "1٣"], &["٣a", "11"]),
            (r"^\w\W$", &["aé", "_-"], &["éa", "aa"]),
            (r"^\s\S$", &[" x", "\tx"], &["\u{a0}x", "\u{b}x"]),
            (r"^.\b", &["a", "aé"], &["éé"]),
            (r"a\Bb", &["ab"], &["a b"]),
            (r"^a{2}b{1,}c{0,1}$", &["aabb", "aabc"], &["ab", "aac"]),
            (r"^a{,2}$", &["a{,2}"], &["aa"]),
            (r"^{a}{01}{1,2,3}{x:y}{$", &["{a}{01}{1,2,3}{x:y}{"], &["a"]),
            (r"^[\w-.]+$", &["a-.b"], &["a/b"]),
            (r"^[a-]+$", &["a-"], &["b"]),
            (r"^[]a]+$", &["]a"], &["b"]),
            (r"^[^]a]+$", &["b^"], &["]", "a"]),
            (r"^[[a&&b]+$", &["[&ab"], &["]", "|"]),
            (r"^[+--]$", &["+", ",", "-"], &["."]),
            (r"^[[:alpha:]\d~~x]+$", &["a1~"], &["-"]),
            (r"^[[:^alpha:]]$", &["1"], &["a"]),
            (r"^[\]\[\-\x41-\x{43}\102\n]+$", &["][-ABC\n"], &["D", "\\"]),
            (r"^[\D]$", &["a"], &["1"]),
            (r"^\p{Greek}\P{Greek}\p{^Greek}\pL$", &["αaaa"], &["aααa"]),
            (r"^[\p{Greek}x]$", &["α", "x"], &["a"]),
            (r"^\/\_\<\-\@\101\x42\x{43}\07$", &["/_<-@ABC\u{7}"], &["<"]),
            (r"a#b c/&~", &["a#b c/&~"], &["ab"]),
            (r"a]b}", &["a]b}"], &["ab"]),
            ("", &["", "a"], &[]),
        ];
        for (pattern, matching, other) in cases {
            for text in *matching {
                assert!(matches(pattern, text), "{pattern} should match {text:?}");
            }
            for text in *other {
                assert!(!matches(pattern, text), "{pattern} should not match {text:?}");
            }
        }
    }

    #[test]
    fn errors_have_a_place() {
        for (pattern, place) in [
            ("a(b", "("),
            ("a)", ")"),
            ("(?P<n", "(?P<"),
            ("a(?i", "("),
            ("(?x:a)", "(?x"),
            ("(?<=a)", "(?<"),
            ("(?!a)", "(?!"),
            ("[a", "["),
            ("[]", "["),
            ("a[b-", "["),
            (r"[a-\d]", r"\d"),
            ("[é-a]", "é-a"),
            ("a\\", "\\"),
            (r"\8", r"\8"),
            (r"\x4g", r"\x4"),
            (r"\x{+41}", r"\x{+41}"),
            (r"\x{110000}", r"\x{110000}"),
            (r"\é", r"\é"),
            (r"\Z", r"\Z"),
            (r"\C", r"\C"),
            (r"\p{Greek", r"\p{"),
            (r"\p", r"\p"),
            ("a|*", "a|*"),
            (r"\p{L}{1000}", r"\p{L}{1000}"),
        ] {
            let error = Pattern::new(pattern).expect_err(pattern);
            assert_eq!(pattern.get(error.span.clone()), Some(place), "{pattern}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn any_text_compiles_or_has_a_place(text in r"([a-c^$.|?*+(){},0-9\[\]\-:&é]|\\[a-zA-Z0-9\[-]){0,16}") {
            if let Err(error) = Pattern::new(&text) {
                prop_assert!(text.get(error.span.clone()).is_some(), "{:?}", error);
            }
        }

        #[test]
        fn quoted_text_finds_itself(text in "[ -~éß\n]{0,16}") {
            let pattern = format!(r"^\Q{text}\E$");
            prop_assert!(text.contains(r"\E") || matches(&pattern, &text));
        }
    }
}
