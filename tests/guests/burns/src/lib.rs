//! Takes more than it may have, one way for each configuration: time, memory, stack and room for headers.

use std::hint::black_box;
#[cfg(target_arch = "wasm32")]
use std::time::{Duration, Instant};

use serde::Deserialize;
use weir_sdk::{About, Decision, Error, Middleware, Plan, Reply, Request, RequestEdit};

/// What an instance may not have beside what it has.
const FAR_TOO_MUCH: usize = 1 << 30;

pub struct Burns(How);

#[derive(Deserialize)]
pub struct Config {
    how: How,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
enum How {
    /// Until the host ends it.
    Loops,
    /// The same by the instruction that fills memory, 24 MiB at a time.
    Fills,
    /// The same by the one that copies it.
    Copies,
    /// A little less than it may, each time.
    Slow,
    /// Asks for 4 GiB at once.
    Grows,
    /// Takes a little at a time, and uses it.
    Hoards,
    /// Until the stack ends.
    Recurses,
    ManyHeaders,
    LongHeader,
    ManyHeadersInReply,
    LongHeaderInReply,
    /// Without a look at the body.
    Refuses,
    Traps,
}

impl Middleware for Burns {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("burns")
        .config_schema(r#"{"type": "object", "properties": {"how": {"type": "string"}}, "required": ["how"]}"#);

    fn init(Config { how }: Config) -> Result<(Self, Plan), Error> {
        Ok((Self(how), Plan::new().on_request(&[])))
    }

    fn on_request(&self, _: &Request<'_>) -> Decision {
        match self.0 {
            How::Loops => loops(),
            How::Fills => fills(),
            How::Copies => copies(),
            How::Slow => slow(),
            How::Grows => return RequestEdit::new().set("x-got", grows().to_string()).into(),
            How::Hoards => hoards(),
            How::Recurses => return RequestEdit::new().set("x-got", deeper(0).to_string()).into(),
            How::ManyHeaders => {
                let edits =
                    (0..100_000).fold(RequestEdit::new(), |edit, number| edit.append("x-many", number.to_string()));
                return edits.into();
            }
            How::LongHeader => return RequestEdit::new().set("x-long", long()).into(),
            How::ManyHeadersInReply => {
                let reply =
                    (0..100_000).fold(Reply::new(200), |reply, number| reply.header("x-many", number.to_string()));
                return reply.into();
            }
            How::LongHeaderInReply => return Reply::new(200).header("x-long", long()).into(),
            How::Refuses => return Reply::new(403).body("refused").into(),
            How::Traps => panic!("on purpose"),
        }
        Decision::pass()
    }
}

weir_sdk::export!(Burns);

fn loops() -> ! {
    let mut count = 0_u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

fn fills() -> ! {
    let mut room = vec![0_u8; 24 << 20];
    let mut byte = 0_u8;
    loop {
        byte = byte.wrapping_add(1);
        black_box(&mut room).fill(byte);
    }
}

fn copies() -> ! {
    let mut room = vec![1_u8; 24 << 20];
    loop {
        black_box(&mut room).copy_within(..12 << 20, 12 << 20);
    }
}

/// For 30 ms.
fn slow() {
    #[cfg(target_arch = "wasm32")]
    {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(30) {
            black_box(begun);
        }
    }
}

/// Whether there was room for almost all that can be addressed.
fn grows() -> bool {
    #[cfg(target_arch = "wasm32")]
    return core::arch::wasm32::memory_grow::<0>(60_000) != usize::MAX;
    #[cfg(not(target_arch = "wasm32"))]
    false
}

fn hoards() {
    let mut kept = Vec::new();
    while kept.len() << 20 < FAR_TOO_MUCH {
        kept.push(black_box(vec![1_u8; 1 << 20]));
    }
}

fn long() -> Vec<u8> {
    vec![b'x'; 10 << 20]
}

/// Deeper than any stack. What is done after the call keeps a compiler from making a loop of it.
fn deeper(depth: u64) -> u64 {
    if black_box(depth) == u64::MAX {
        return 0;
    }
    deeper(depth + 1).rotate_left(3) ^ depth
}
