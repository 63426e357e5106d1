//! Takes more than its due, never lets go of it, and looks for what others have left: one way for each configuration.

use std::cell::{Cell, RefCell};
use std::env;
use std::fs;
use std::hint::black_box;
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use weir_sdk::shared::{self, Scope};
use weir_sdk::{
    About, Decision, Error, Middleware, Plan, Reply, Request, RequestEdit, Response, ResponseVerdict, clock, random,
};

use bindings::wasi::clocks::monotonic_clock::subscribe_duration;
use bindings::wasi::io::poll::Pollable;
use bindings::wasi::random::random::get_random_bytes;

pub struct Hoards {
    config: Config,
    calls: Cell<u64>,
    handles: RefCell<Vec<Pollable>>,
    bytes: RefCell<Vec<Vec<u8>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    how: How,
    /// How many, how much, or how long.
    #[serde(default)]
    amount: usize,
    /// Milliseconds since 1970.
    #[serde(default)]
    from: u64,
    #[serde(default)]
    to: u64,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
enum How {
    Nothing,
    /// So many handles more with each call.
    KeepsHandles,
    /// So many bytes more with each call.
    KeepsMemory,
    LoopsInInit,
    /// So many milliseconds.
    SleepsInInit,
    /// The same, at full speed.
    WorksInInit,
    /// `init` traps from one moment to another.
    TrapsInInit,
    /// Takes a lock that all instances see, and keeps it.
    KeepsLock,
    /// Waits for that lock, at full speed.
    SpinsForLock,
    /// The same with pauses of so many milliseconds.
    SleepsForLock,
    /// Has the host wait so many milliseconds.
    Delays,
    LoopsOnResponse,
    SleepsOnResponse,
    /// At everything that a program usually sees.
    LooksAround,
    AsksForRandom,
    AsksWasiForRandom,
    /// Writes a word all over so many bytes.
    WritesSecret,
    /// The same, and traps.
    WritesSecretAndTraps,
    /// Counts that word in all the memory that it can have, `amount` bytes more than it has.
    LooksForSecret,
    /// Writes it and counts it, in one call.
    FindsOwnSecret,
}

impl Middleware for Hoards {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("hoards").config_schema(
        r#"{"type": "object", "properties": {"how": {"type": "string"}, "amount": {"type": "integer"},
            "from": {"type": "integer"}, "to": {"type": "integer"}}}"#,
    );

    fn init(config: Config) -> Result<(Self, Plan), Error> {
        match config.how {
            How::LoopsInInit => loops(),
            How::SleepsInInit => sleep(config.amount),
            How::WorksInInit => {
                let end = clock::monotonic_ns() + config.amount as u64 * 1_000_000;
                while clock::monotonic_ns() < end {}
            }
            How::TrapsInInit if (config.from..config.to).contains(&clock::unix_ms()) => panic!("on purpose"),
            _ => {}
        }
        let plan = match config.how {
            How::LoopsOnResponse | How::SleepsOnResponse => Plan::new().on_response(&[]),
            _ => Plan::new().on_request(&[]),
        };
        Ok((Self { config, calls: Cell::default(), handles: RefCell::default(), bytes: RefCell::default() }, plan))
    }

    fn on_request(&self, _: &Request<'_>) -> Decision {
        self.calls.set(self.calls.get() + 1);
        let amount = self.config.amount;
        match self.config.how {
            How::KeepsHandles => self.handles.borrow_mut().extend((0..amount).map(|_| subscribe_duration(u64::MAX))),
            How::KeepsMemory => self.bytes.borrow_mut().push(black_box(vec![1; amount])),
            How::KeepsLock => assert!(has_lock(), "it is free at first"),
            How::SpinsForLock => while !has_lock() {},
            How::SleepsForLock => {
                while !has_lock() {
                    sleep(amount);
                }
            }
            How::Delays => return RequestEdit::new().delay_ms(u32::try_from(amount).unwrap_or(u32::MAX)).into(),
            How::LooksAround => return replies(&looks_around()),
            How::AsksForRandom => {
                return replies(&random::bytes(u32::try_from(amount).unwrap_or(u32::MAX)).len().to_string());
            }
            How::AsksWasiForRandom => return replies(&get_random_bytes(amount as u64).len().to_string()),
            How::WritesSecret => self.bytes.borrow_mut().push(secrets(amount)),
            How::WritesSecretAndTraps => {
                self.bytes.borrow_mut().push(black_box(secrets(amount)));
                panic!("on purpose");
            }
            How::LooksForSecret => return replies(&memory::count(!NO_SECRET, amount).to_string()),
            How::FindsOwnSecret => {
                let kept = black_box(secrets(amount));
                let found = memory::count(!NO_SECRET, 0);
                drop(kept);
                return replies(&found.to_string());
            }
            _ => {}
        }
        replies(&self.calls.get().to_string())
    }

    fn on_response(&self, _: &[u8], _: &Response<'_>) -> ResponseVerdict {
        match self.config.how {
            How::LoopsOnResponse => loops(),
            _ => sleep(self.config.amount),
        }
        ResponseVerdict::Pass
    }
}

weir_sdk::export!(Hoards);

/// What is not the secret: the word itself must not be in the memory of who looks for it.
const NO_SECRET: u64 = 0x1234_5678_9abc_def0;

fn secrets(bytes: usize) -> Vec<u8> {
    (!black_box(NO_SECRET)).to_ne_bytes().repeat(bytes / 8)
}

fn replies(text: &str) -> Decision {
    Reply::new(200).body(text).into()
}

fn has_lock() -> bool {
    shared::increment(Scope::Plugin, "lock", 1, None).is_ok_and(|holders| holders == 1)
}

fn loops() -> ! {
    let mut count = 0_u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

fn sleep(milliseconds: usize) {
    #[expect(clippy::disallowed_methods, reason = "a sleep that the host's limits know nothing of")]
    thread::sleep(Duration::from_millis(milliseconds as u64));
}

/// What was found, if anything.
fn looks_around() -> String {
    let mut found = Vec::new();
    found.extend(env::vars().map(|(name, _)| format!("variable {name}")));
    found.extend(env::args().map(|argument| format!("argument {argument}")));
    for path in ["/", ".", "/etc/passwd", "/proc/self/environ"] {
        if fs::metadata(path).is_ok() || fs::read(path).is_ok() || fs::read_dir(path).is_ok() {
            found.push(format!("file {path}"));
        }
    }
    if fs::write("/tmp/hoards", "x").is_ok() {
        found.push("a file of its own".to_owned());
    }
    if Command::new("/bin/true").spawn().is_ok() {
        found.push("a program".to_owned());
    }
    if UdpSocket::bind("127.0.0.1:0").is_ok() || TcpStream::connect("127.0.0.1:1").is_ok() {
        found.push("a socket".to_owned());
    }
    if ("localhost", 1).to_socket_addrs().is_ok() {
        found.push("a name".to_owned());
    }
    if clock::monotonic_ns() > 60_000_000_000 {
        found.push("since when the host runs".to_owned());
    }
    found.join(", ")
}

/// All of the instance's memory, whether or not it has ever been its own.
#[cfg(target_arch = "wasm32")]
mod memory {
    use std::arch::wasm32::{memory_grow, memory_size};

    const PAGE: usize = 64 << 10;

    /// How often the word is there, after the memory has grown by so many bytes.
    #[expect(unsafe_code, reason = "what this instance has never written is what is looked at")]
    pub(super) fn count(word: u64, more: usize) -> usize {
        memory_grow::<0>(more / PAGE);
        let end = memory_size::<0>() * PAGE;
        // SAFETY: they are aligned and within the memory, and bytes that somebody changes meanwhile do not matter.
        (8..end).step_by(8).filter(|address| unsafe { (*address as *const u64).read_volatile() } == word).count()
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod memory {
    pub(super) fn count(_: u64, _: usize) -> usize {
        0
    }
}

mod bindings {
    wit_bindgen::generate!({
        inline: "
            package guest:hoards;

            world takes {
                import wasi:clocks/monotonic-clock@0.2.0;
                import wasi:random/random@0.2.0;
            }

            package wasi:io@0.2.0 {
                interface poll {
                    resource pollable {
                        ready: func() -> bool;
                        block: func();
                    }
                    poll: func(in: list<borrow<pollable>>) -> list<u32>;
                }
            }

            package wasi:clocks@0.2.0 {
                interface monotonic-clock {
                    use wasi:io/poll@0.2.0.{pollable};
                    type instant = u64;
                    type duration = u64;
                    now: func() -> instant;
                    resolution: func() -> duration;
                    subscribe-instant: func(when: instant) -> pollable;
                    subscribe-duration: func(when: duration) -> pollable;
                }
            }

            package wasi:random@0.2.0 {
                interface random {
                    get-random-bytes: func(len: u64) -> list<u8>;
                    get-random-u64: func() -> u64;
                }
            }
        ",
        generate_all,
    });
}
