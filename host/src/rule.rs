//! Traefik's rule language, third version: the text after `rule:` becomes a [`Rule`] that answers for each request.
//!
//! The snapshot parses rules, the router asks them. This module reads no configuration, and it alters no request: what
//! it matches is the [`Subject`] that the router lays out.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;

use http::{HeaderMap, Method};

use matcher::{HostName, Matcher};

mod literal;
mod matcher;
mod parse;
mod pattern;
mod query;
mod token;

/// What a router answers for, for example ``Host(`a.example`) && PathPrefix(`/api`)``.
///
/// Two rules are equal when they ask the same questions in the same order; spaces, redundant parentheses and spelling
/// do not count. [`Display`](fmt::Display) prints the plainest text of an equal rule.
/// <https://doc.traefik.io/traefik/reference/routing-configuration/http/routing/rules-and-priority/>
#[derive(Clone, Debug)]
pub struct Rule {
    root: Expression,
    priority: i64,
}

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    ///
    /// The first place where `text` is not a rule.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self { root: parse::rule(text)?, priority: i64::try_from(text.len()).unwrap_or(i64::MAX) })
    }

    /// The priority of a router that sets none: the length of the rule's text in bytes, as it was written.
    pub fn priority(&self) -> i64 {
        self.priority
    }

    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        self.root.matches(subject)
    }

    /// The hosts outside of which the rule cannot match; it need not match all requests for them.
    pub fn hosts(&self) -> Hosts {
        self.root.hosts()
    }

    /// The names that a certificate for this rule would carry: those of `Host`, lower case, in order, each once.
    ///
    /// Wildcards such as `*.a.example` are among them, `*` is not, nor are names under a negation.
    pub fn certificate_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.root.collect_names(true, &mut names);
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.root == other.root
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root)
    }
}

/// The parts of a request that rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Lower case, without port, trailing dot and the brackets of an IPv6 address; empty when the request names none.
    pub host: &'a str,
    /// Unreserved characters decoded, reserved ones (and `%`) still encoded.
    pub path: &'a str,
    /// As sent, without the question mark.
    pub query: Option<&'a str>,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    /// The other end of the connection, whatever forwarding fields say.
    pub client: IpAddr,
}

/// The hosts that a rule can match, for an index over many rules.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Hosts {
    Any,
    /// In the form of [`Subject::host`], sorted, each once. Empty for a rule that matches nothing.
    Exact(Vec<String>),
}

/// Why a text is not a rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Error {
    /// Bytes of the rule's text, on character boundaries.
    pub span: Range<usize>,
    pub message: String,
    /// What to write instead, where that can be told.
    pub help: Option<String>,
}

impl Error {
    /// Shows the place in `text`, which is the text that was parsed: the line, and a caret line with the message.
    /// Indented by two spaces, without a final newline.
    pub fn render(&self, text: &str) -> String {
        let start = text.floor_char_boundary(self.span.start);
        let end = text.ceil_char_boundary(self.span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);

        let marked_end = end.min(line_end);

        let before = last(&text[line_start..start]);
        let marked = first(&text[start..marked_end]);
        let after = first(&text[marked_end..line_end]);
        let line = format!("{before}{marked}{after}");
        let padding: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let carets = "^".repeat(marked.chars().count().max(1));

        format!("  {}\n  {padding}{carets} {}", line.trim_end(), self.message)
    }

    fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: printable(&message.into()), help: None }
    }

    fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(printable(&help.into())), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Characters shown of the marked text and on each side of it, so that a rule of many hosts still shows its caret.
const CONTEXT: usize = 60;

fn last(text: &str) -> String {
    match text.char_indices().rev().nth(CONTEXT) {
        Some((at, c)) => format!("…{}", printable(&text[at + c.len_utf8()..])),
        None => printable(text),
    }
}

fn first(text: &str) -> String {
    match text.char_indices().nth(CONTEXT) {
        Some((at, _)) => format!("{}…", printable(&text[..at])),
        None => printable(text),
    }
}

/// Keeps control characters away from terminals and logs, one character for one.
fn printable(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }
    };
    text.trim_end_matches('\r').chars().map(shown).collect()
}

/// A rule's tree in normal form: no `And` directly in an `And`, no `Or` in an `Or`, no `Not` in a `Not`, and at least
/// two terms in `And` and `Or`. The parser bounds its depth.
#[derive(Clone, Debug, PartialEq)]
enum Expression {
    And(Vec<Self>),
    Matcher(Matcher),
    Not(Box<Self>),
    Or(Vec<Self>),
}

impl Expression {
    fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::And(terms) => terms.iter().all(|term| term.matches(subject)),
            Self::Matcher(matcher) => matcher.matches(subject),
            Self::Not(term) => !term.matches(subject),
            Self::Or(terms) => terms.iter().any(|term| term.matches(subject)),
        }
    }

    fn hosts(&self) -> Hosts {
        match self {
            Self::And(terms) => terms.iter().map(Self::hosts).fold(Hosts::Any, Hosts::intersect),
            Self::Matcher(Matcher::Host(HostName::Exact(name))) => Hosts::Exact(vec![name.clone()]),
            Self::Matcher(_) | Self::Not(_) => Hosts::Any,
            Self::Or(terms) => Hosts::union(terms.iter().map(Self::hosts)),
        }
    }

    fn collect_names(&self, positive: bool, names: &mut Vec<String>) {
        match self {
            Self::And(terms) | Self::Or(terms) => {
                for term in terms {
                    term.collect_names(positive, names);
                }
            }
            Self::Matcher(Matcher::Host(name)) if positive => names.extend(name.certificate_name()),
            Self::Matcher(_) => {}
            Self::Not(term) => term.collect_names(!positive, names),
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(terms) => join(f, terms, " && ", |term| matches!(term, Self::Or(_))),
            Self::Matcher(matcher) => write!(f, "{matcher}"),
            Self::Not(term) => match **term {
                Self::Matcher(_) => write!(f, "!{term}"),
                _ => write!(f, "!({term})"),
            },
            Self::Or(terms) => join(f, terms, " || ", |_| false),
        }
    }
}

fn join(
    f: &mut fmt::Formatter<'_>,
    terms: &[Expression],
    operator: &str,
    needs_parentheses: fn(&Expression) -> bool,
) -> fmt::Result {
    for (i, term) in terms.iter().enumerate() {
        if i > 0 {
            f.write_str(operator)?;
        }
        if needs_parentheses(term) {
            write!(f, "({term})")?;
        } else {
            write!(f, "{term}")?;
        }
    }
    Ok(())
}

impl Hosts {
    fn intersect(self, other: Self) -> Self {
        match (self, other) {
            (Self::Any, hosts) | (hosts, Self::Any) => hosts,
            (Self::Exact(mut left), Self::Exact(right)) => {
                left.retain(|name| right.binary_search(name).is_ok());
                Self::Exact(left)
            }
        }
    }

    fn union(terms: impl Iterator<Item = Self>) -> Self {
        let mut all = Vec::new();
        for hosts in terms {
            match hosts {
                Self::Any => return Self::Any,
                Self::Exact(names) => all.extend(names),
            }
        }
        all.sort_unstable();
        all.dedup();
        Self::Exact(all)
    }
}

#[cfg(test)]
mod tests;
