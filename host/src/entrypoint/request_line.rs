//! Looks for a fragment in the request lines of HTTP/1.1.
//!
//! No target has one (RFC 9112, section 3.2), and servers that cut it off and servers that do not are of two minds about
//! the path. hyper cuts it off and does not say so, which is why this sits between hyper and the socket. It sees the
//! line of each request that does not come in one piece with the request before it; of others the fragment is cut off
//! for rules and servers alike.

use std::sync::Arc;

use super::io::Activity;

/// Where in its request lines a client is.
pub(super) struct RequestLines {
    activity: Arc<Activity>,
    /// The request whose line was looked at last, counted from 1.
    request: u64,
    line: Line,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Empty lines may come first (RFC 9112, section 2.2).
    Before,
    Within,
    After,
}

impl RequestLines {
    pub(super) const fn new(activity: Arc<Activity>) -> Self {
        Self { activity, request: 0, line: Line::After }
    }

    /// Takes the next bytes that were read.
    pub(super) fn look(&mut self, bytes: &[u8]) {
        let next = self.activity.requests() + 1;
        if self.request < next && self.activity.is_between_requests() {
            (self.request, self.line) = (next, Line::Before);
        }
        if self.line == Line::After {
            return;
        }
        for byte in bytes {
            match (byte, self.line) {
                (b'\r' | b'\n', Line::Before) => {}
                (b'\n', _) => {
                    self.line = Line::After;
                    return;
                }
                (b'#', _) => self.activity.found_fragment(self.request),
                _ => self.line = Line::Within,
            }
        }
    }
}
