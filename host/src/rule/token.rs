//! Cuts a rule's text into tokens with their places. The parser calls it.
//!
//! Traefik reads rules as Go expressions, therefore comments are allowed and literals are Go's.

use std::fmt;
use std::ops::Range;

use super::Error;
use super::literal::Literal;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    And,
    Close,
    Comma,
    End,
    Literal(Literal),
    Name(&'a str),
    Not,
    Open,
    Or,
    /// A character that starts no token, or an operator of Go that rules do not have.
    Stray(&'a str),
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::And => f.write_str("`&&`"),
            Self::Close => f.write_str("`)`"),
            Self::Comma => f.write_str("`,`"),
            Self::End => f.write_str("the end of the rule"),
            Self::Literal(_) => f.write_str("a literal"),
            Self::Name(text) | Self::Stray(text) => write!(f, "`{text}`"),
            Self::Not => f.write_str("`!`"),
            Self::Open => f.write_str("`(`"),
            Self::Or => f.write_str("`||`"),
        }
    }
}

/// The token that starts at or after `at`, and its place.
///
/// # Errors
///
/// A literal or a comment that does not end, or a bad escape in a literal.
pub(super) fn next(text: &str, at: usize) -> Result<(Token<'_>, Range<usize>), Error> {
    let start = skip_blank(text, at)?;
    let rest = &text[start..];
    let Some(first) = rest.chars().next() else {
        return Ok((Token::End, start..start));
    };
    let (token, length) = match first {
        '(' => (Token::Open, 1),
        ')' => (Token::Close, 1),
        ',' => (Token::Comma, 1),
        '!' if !rest.starts_with("!=") => (Token::Not, 1),
        '&' if rest.starts_with("&&") => (Token::And, 2),
        '|' if rest.starts_with("||") => (Token::Or, 2),
        '`' | '"' => {
            let literal = Literal::read(text, start)?;
            let length = literal.span.len();
            (Token::Literal(literal), length)
        }
        c if c == '_' || c.is_alphabetic() => {
            let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
            (Token::Name(&rest[..length]), length)
        }
        c => (Token::Stray(&rest[..c.len_utf8()]), c.len_utf8()),
    };
    Ok((token, start..start + length))
}

fn skip_blank(text: &str, mut at: usize) -> Result<usize, Error> {
    loop {
        let rest = &text[at..];
        let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        at += blank;
        let rest = &rest[blank..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if let Some(comment) = rest.strip_prefix("/*") {
            let Some(end) = comment.find("*/") else {
                return Err(Error::at(at..at + 2, "the comment does not end"));
            };
            at += end + 4;
        } else {
            return Ok(at);
        }
    }
}
