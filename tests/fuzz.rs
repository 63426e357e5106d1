//! Whatever files, clients and guests say, what must hold holds. Each property has some hundreds of cases here, and as
//! many as `PROPTEST_CASES` says by hand (CONTRIBUTING.md). What only the crate can see is tested there.

mod configuration;
mod forwarding;
mod rewriting;
mod rules;
mod targets;

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof};
use proptest::sample::{Index, select};

/// So many cases, unless the environment has another number.
fn cases(few: u32) -> ProptestConfig {
    let many = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: many.unwrap_or(few), failure_persistence: None, ..ProptestConfig::default() }
}

/// One careless change of a text.
#[derive(Clone, Debug)]
enum Mutation {
    Replace(Index, u8),
    Remove(Index, usize),
    Repeat(Index, usize),
    Insert(Index, &'static str),
    CutOff(Index),
}

impl Mutation {
    fn apply(&self, text: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        let end = |at: usize, length: usize| (at + length).min(text.len());
        match self {
            Self::Replace(at, byte) => *at.get_mut(text) = *byte,
            Self::Remove(at, length) => {
                let at = at.index(text.len());
                text.drain(at..end(at, *length));
            }
            Self::Repeat(at, length) => {
                let at = at.index(text.len());
                let piece = text[at..end(at, *length)].to_vec();
                text.splice(at..at, piece);
            }
            Self::Insert(at, token) => {
                let at = at.index(text.len());
                text.splice(at..at, token.bytes());
            }
            Self::CutOff(at) => text.truncate(at.index(text.len())),
        }
    }
}

/// One of the texts with a few changes; `tokens` are what is worth inserting.
fn mutated(texts: Vec<Vec<u8>>, tokens: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let mutation = prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Replace(at, byte)),
        2 => (any::<Index>(), 1..40_usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        2 => (any::<Index>(), 1..200_usize).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        6 => (any::<Index>(), select(tokens)).prop_map(|(at, token)| Mutation::Insert(at, token)),
        1 => any::<Index>().prop_map(Mutation::CutOff),
    ];
    (select(texts), vec(mutation, 1..4)).prop_map(|(mut text, mutations)| {
        mutations.iter().for_each(|mutation| mutation.apply(&mut text));
        text
    })
}
