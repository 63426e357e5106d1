//! Certificates by ACME (RFC 8555): which ones are wanted, when they are ordered, and how control of a name is proved.
//!
//! `server` starts it and tells it what routers want; `entrypoint` and `admin` ask it for the answers to challenges. It
//! runs on the control runtime alone, and serves nothing itself.

mod clock;
#[cfg_attr(not(test), expect(dead_code, reason = "no resolver uses it yet"))]
mod file;
#[cfg_attr(not(test), expect(dead_code, reason = "no resolver uses it yet"))]
mod name;
#[cfg_attr(not(test), expect(dead_code, reason = "no resolver uses it yet"))]
mod schedule;
#[cfg_attr(not(test), expect(dead_code, reason = "no resolver uses it yet"))]
mod state;
#[cfg_attr(not(test), expect(dead_code, reason = "no resolver uses it yet"))]
mod storage;
#[cfg_attr(not(test), expect(dead_code, reason = "no resolver uses it yet"))]
mod wanted;

pub use self::clock::Clock;
