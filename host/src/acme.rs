//! Certificates by ACME (RFC 8555): which ones are wanted, when they are ordered, and how control of a name is proved.
//!
//! `server` starts it and tells it what routers want; `entrypoint` and `admin` ask it for the answers to challenges. It
//! runs on the control runtime alone, and serves nothing itself.

pub mod account;
pub mod challenge;
pub mod client;
mod clock;
pub mod failure;
pub mod key;
#[cfg(test)]
pub mod mock;
pub mod order;
pub mod renewal_info;
mod session;

pub use self::clock::Clock;
