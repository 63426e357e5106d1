//! Recursive descent from a rule's text to its tree: `||` binds weakest, then `&&`, then `!`.
//!
//! It knows the grammar and no matcher; what a name and its arguments mean is decided in `matcher`.

use std::ops::Range;

use super::literal::{Literal, Quoted};
use super::matcher::{Kind, Matcher};
use super::token::{self, Token};
use super::{Error, Expression};

/// A rule comes from a file that may be hostile, and every level costs stack here and on each request.
const MAX_DEPTH: usize = 64;

/// Reads a whole rule.
///
/// # Errors
///
/// The first place where `text` is not a rule.
pub(super) fn rule(text: &str) -> Result<Expression, Error> {
    let mut parser = Parser::new(text)?;
    if parser.token == Token::End {
        return Err(Error::at(0..text.len(), "the rule is empty").with_help("PathPrefix(`/`) matches every request"));
    }
    let root = parser.expression()?;
    match parser.token {
        Token::End => Ok(root),
        Token::Close => Err(Error::at(parser.span, "`)` closes nothing")),
        _ => Err(parser.unexpected("`&&` or `||`")),
    }
}

/// A matcher as it is written, before its meaning is known.
pub(super) struct Call<'a> {
    pub(super) name: &'a str,
    pub(super) arguments: Vec<Literal>,
    /// From the name to the closing parenthesis.
    pub(super) span: Range<usize>,
}

struct Parser<'a> {
    text: &'a str,
    /// The token to read next, and its place.
    token: Token<'a>,
    span: Range<usize>,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, Error> {
        let (token, span) = token::next(text, 0)?;
        Ok(Self { text, token, span, depth: 0 })
    }

    fn expression(&mut self) -> Result<Expression, Error> {
        let mut terms = vec![self.conjunction()?];
        while self.token == Token::Or {
            self.operator()?;
            terms.push(self.conjunction()?);
        }
        Ok(either(terms))
    }

    fn conjunction(&mut self) -> Result<Expression, Error> {
        let mut terms = vec![self.term()?];
        while self.token == Token::And {
            self.operator()?;
            terms.push(self.term()?);
        }
        Ok(both(terms))
    }

    fn term(&mut self) -> Result<Expression, Error> {
        let mut negated = false;
        while self.token == Token::Not {
            self.operator()?;
            negated = !negated;
        }
        let expression = match self.token {
            Token::Name(name) => Expression::Matcher(self.matcher(name)?),
            Token::Open => self.group()?,
            _ => return Err(self.unexpected("a matcher")),
        };
        Ok(if negated { not(expression) } else { expression })
    }

    fn group(&mut self) -> Result<Expression, Error> {
        let open = self.span.clone();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error::at(open, format!("parentheses are nested more than {MAX_DEPTH} deep")));
        }
        self.advance()?;
        let expression = self.expression()?;
        match self.token {
            Token::Close => self.advance()?,
            Token::End => return Err(Error::at(open, "`(` is not closed")),
            _ => return Err(self.unexpected("`&&`, `||` or `)`")),
        }
        self.depth -= 1;
        Ok(expression)
    }

    fn matcher(&mut self, name: &'a str) -> Result<Matcher, Error> {
        let start = self.span.start;
        let kind = Kind::named(name, &self.span)?;
        self.advance()?;
        if self.token != Token::Open {
            return Err(self.unexpected(&format!("`(` after `{name}`")));
        }
        let open = self.span.clone();
        self.advance()?;
        let arguments = self.arguments(&open)?;
        let span = start..self.span.end;
        self.advance()?;
        Matcher::new(kind, &Call { name, arguments, span })
    }

    /// Reads up to the closing parenthesis, which stays the next token. Go allows a comma before it.
    fn arguments(&mut self, open: &Range<usize>) -> Result<Vec<Literal>, Error> {
        let mut arguments = Vec::new();
        loop {
            match std::mem::replace(&mut self.token, Token::End) {
                Token::Close => break,
                Token::Literal(literal) => arguments.push(literal),
                Token::End => return Err(Error::at(open.clone(), "`(` is not closed")),
                _ => return Err(self.bare_argument()),
            }
            self.advance()?;
            match self.token {
                Token::Close => break,
                Token::Comma => self.advance()?,
                Token::End => return Err(Error::at(open.clone(), "`(` is not closed")),
                _ => return Err(self.unexpected("`,` or `)`")),
            }
        }
        self.token = Token::Close;
        Ok(arguments)
    }

    /// Steps over `&&`, `||` or `!`, after which something must follow.
    fn operator(&mut self) -> Result<(), Error> {
        let (operator, place) = (self.token.to_string(), self.span.clone());
        self.advance()?;
        match self.token {
            Token::End => Err(Error::at(place, format!("no matcher follows {operator}"))),
            _ => Ok(()),
        }
    }

    fn advance(&mut self) -> Result<(), Error> {
        (self.token, self.span) = token::next(self.text, self.span.end)?;
        Ok(())
    }

    fn unexpected(&self, expected: &str) -> Error {
        let error = Error::at(self.span.clone(), format!("expected {expected}, found {}", self.token));
        let help = match self.token {
            Token::Name(word) if word.eq_ignore_ascii_case("and") => "write `&&` for and",
            Token::Name(word) if word.eq_ignore_ascii_case("or") => "write `||` for or",
            Token::Stray("&") => "write `&&` for and",
            Token::Stray("|") => "write `||` for or",
            Token::Stray(";") | Token::Comma => "rules are joined by `&&` or `||`",
            Token::Stray("'" | "‘" | "’" | "“" | "”") => "literals stand in backticks or double quotes",
            _ => return error,
        };
        error.with_help(help)
    }

    /// The word at the current place, which is no literal.
    fn bare_argument(&self) -> Error {
        let rest = &self.text[self.span.start..];
        let end = rest.find([',', ')', ' ', '\t', '\r', '\n', '`']).unwrap_or(rest.len()).max(self.span.len());
        let word = &rest[..end];
        let error = Error::at(self.span.start..self.span.start + end, "an argument must be a literal");
        let value = word.trim_matches(['\'', '‘', '’', '“', '”', '"']);
        if !value.contains(char::is_alphanumeric) || value.contains('(') {
            return error.with_help("literals stand in backticks or double quotes");
        }
        error.with_help(format!("write {}", Quoted(value)))
    }
}

fn either(mut terms: Vec<Expression>) -> Expression {
    if terms.len() == 1 {
        return terms.swap_remove(0);
    }
    let flatten = |term| match term {
        Expression::Or(inner) => inner,
        term => vec![term],
    };
    Expression::Or(terms.into_iter().flat_map(flatten).collect())
}

fn both(mut terms: Vec<Expression>) -> Expression {
    if terms.len() == 1 {
        return terms.swap_remove(0);
    }
    let flatten = |term| match term {
        Expression::And(inner) => inner,
        term => vec![term],
    };
    Expression::And(terms.into_iter().flat_map(flatten).collect())
}

fn not(expression: Expression) -> Expression {
    match expression {
        Expression::Not(inner) => *inner,
        expression => Expression::Not(Box::new(expression)),
    }
}
