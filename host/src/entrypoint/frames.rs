//! The frames that a client sends, looked at before HTTP/2 is parsed: ends connections whose frames are work for us and
//! bring no request further.
//!
//! The parser bounds what a connection may hold. What it takes in its stride is counted here: fields by the thousand that
//! cost their sender a byte each, and frames that ask for an answer or for nothing. It never changes a byte.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::HTTP2_PREFACE;
use super::io::Activity;
use super::unfinished::Unfinished;

/// Fields of one block, cookie crumbs among them. Browsers send a crumb per cookie, and keep at most 180 for a host.
const FIELDS_AT_MOST: u32 = 256;

/// What frames that are no progress may cost in [`WINDOW`], each of them 1 or more, beyond what was earned.
const ALLOWANCE: u64 = 1000;
const WINDOW: Duration = Duration::from_secs(10);

/// A frame that makes us change many streams, or throw work away.
const DEAR: u64 = 5;

/// An answer to a question that was not asked. Draining asks once.
const UNASKED: u64 = 100;

pub(super) const HEAD: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// Counts what is read. An error says what there was too much of, and the connection is to end.
pub(super) fn counting(activity: Arc<Activity>, unfinished: Unfinished) -> impl FnMut(&[u8]) -> io::Result<()> + Unpin {
    activity.head_opens(true);
    let mut frames = Frames::new(Some(unfinished));
    move |bytes| {
        frames.earned = activity.earned();
        frames.read(bytes).map_err(|flood| io::Error::other(flood.0))?;
        activity.head_opens(frames.is_within_head());
        Ok(())
    }
}

/// What a client sends too much of.
#[derive(Debug, PartialEq)]
struct Flood(&'static str);

/// Where in its frames a client is.
struct Frames {
    place: Place,
    /// Whether a block of fields goes on in the next frame.
    is_within_block: bool,
    fields: Fields,
    /// What frames without progress have cost, and when counting began.
    spent: u64,
    since: Instant,
    /// What the client may spend beyond [`ALLOWANCE`], for the responses that it takes.
    earned: u64,
    /// Told of the streams that begin and that the client resets.
    unfinished: Option<Unfinished>,
}

enum Place {
    Preface { left: usize },
    Head { bytes: [u8; HEAD], have: usize },
    Payload { kind: Payload, left: usize },
}

enum Payload {
    /// Padding and priority of HEADERS come before its fields, `before` bytes of them; so much padding comes after.
    Fields {
        before: usize,
        padding: usize,
        is_padded: bool,
    },
    Other,
}

impl Frames {
    fn new(unfinished: Option<Unfinished>) -> Self {
        Self {
            unfinished,
            place: Place::Preface { left: HTTP2_PREFACE.len() },
            is_within_block: false,
            fields: Fields::default(),
            spent: 0,
            since: Instant::now(),
            earned: 0,
        }
    }

    /// Whether what is to come must come soon: the rest of the preface, or of a block of fields.
    const fn is_within_head(&self) -> bool {
        self.is_within_block
            || matches!(self.place, Place::Preface { .. } | Place::Payload { kind: Payload::Fields { .. }, .. })
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        while !bytes.is_empty() {
            bytes = match &mut self.place {
                Place::Preface { left } => {
                    let count = bytes.len().min(*left);
                    *left -= count;
                    if *left == 0 {
                        self.place = Place::Head { bytes: [0; HEAD], have: 0 };
                    }
                    &bytes[count..]
                }
                Place::Head { bytes: head, have } => {
                    let count = bytes.len().min(HEAD - *have);
                    head[*have..*have + count].copy_from_slice(&bytes[..count]);
                    *have += count;
                    if *have == HEAD {
                        let head = *head;
                        self.begin(head)?;
                    }
                    &bytes[count..]
                }
                Place::Payload { .. } => self.payload(bytes)?,
            };
        }
        Ok(())
    }

    fn begin(&mut self, head: [u8; HEAD]) -> Result<(), Flood> {
        let [a, b, c, kind, flags, stream @ ..] = head;
        self.follow(kind, u32::from_be_bytes(stream) & (u32::MAX >> 1));
        let left = u32::from_be_bytes([0, a, b, c]) as usize;
        let has = |flag: u8| flags & flag != 0;
        let payload = match kind {
            HEADERS | PUSH_PROMISE | CONTINUATION => {
                if kind != CONTINUATION {
                    self.fields = Fields::default();
                }
                self.is_within_block = !has(END_HEADERS);
                let is_padded = kind == HEADERS && has(PADDED);
                let before = usize::from(is_padded) + if kind == HEADERS && has(PRIORITY) { 5 } else { 0 };
                Payload::Fields { before, padding: 0, is_padded }
            }
            _ => {
                self.spend(match kind {
                    DATA if left > 0 && !has(PADDED) || has(END_STREAM) => 0,
                    PING if has(ACK) => UNASKED,
                    SETTINGS | RST_STREAM => DEAR,
                    _ => 1,
                })?;
                Payload::Other
            }
        };
        self.place = match left {
            0 => Place::Head { bytes: [0; HEAD], have: 0 },
            left => Place::Payload { kind: payload, left },
        };
        Ok(())
    }

    fn follow(&self, kind: u8, stream: u32) {
        let Some(unfinished) = &self.unfinished else { return };
        match kind {
            HEADERS => unfinished.begins(stream),
            RST_STREAM => unfinished.ends(stream),
            _ => {}
        }
    }

    /// Looks at what has come of a payload, and answers with what comes after it.
    fn payload<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Flood> {
        let Place::Payload { kind, left } = &mut self.place else { return Ok(bytes) };
        let (mine, rest) = bytes.split_at(bytes.len().min(*left));
        if let Payload::Fields { before, padding, is_padded } = kind {
            let mut block = mine;
            if let (true, Some((length, after))) = (*is_padded, block.split_first()) {
                (*padding, *is_padded) = (usize::from(*length), false);
                *before -= 1;
                block = after;
                *left -= 1;
            }
            let skip = block.len().min(*before);
            *before -= skip;
            *left -= skip;
            block = &block[skip..];
            let fields = block.len().min(left.saturating_sub(*padding));
            *left -= block.len();
            self.fields.read(&block[..fields])?;
        } else {
            *left -= mine.len();
        }
        if *left == 0 {
            self.place = Place::Head { bytes: [0; HEAD], have: 0 };
        }
        Ok(rest)
    }

    fn spend(&mut self, cost: u64) -> Result<(), Flood> {
        self.spent += cost;
        if self.spent <= ALLOWANCE + self.earned {
            return Ok(());
        }
        if self.since.elapsed() < WINDOW {
            return Err(Flood("too many frames that bring no request further"));
        }
        // What was earned was earned for the time before.
        self.since = Instant::now();
        self.spent = self.earned + cost;
        Ok(())
    }
}

/// Counts the fields of a block without decoding them (RFC 7541, section 6).
#[derive(Default)]
struct Fields {
    count: u32,
    place: Representation,
}

/// Where in a field's representation the next byte is.
#[derive(Clone, Copy, Default)]
enum Representation {
    #[default]
    Start,
    /// An integer goes on: an index, after which so many strings come.
    Index { strings: u8 },
    /// The length of a string comes, this one and so many after it.
    Length { strings: u8 },
    /// That length goes on, with what it is so far and the weight of its next bits.
    More { strings: u8, length: usize, shift: u32 },
    /// So many bytes of a string.
    Text { strings: u8, left: usize },
}

impl Fields {
    fn read(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        while let Some((&byte, rest)) = bytes.split_first() {
            self.place = match self.place {
                Representation::Text { strings, left } => {
                    let count = bytes.len().min(left);
                    self.place = Representation::text(strings, left - count);
                    bytes = &bytes[count..];
                    continue;
                }
                Representation::Start => self.start(byte)?,
                Representation::Index { strings } if byte & 0x80 == 0 => Representation::strings(strings),
                Representation::Index { strings } => Representation::Index { strings },
                Representation::Length { strings } => match usize::from(byte & 0x7f) {
                    0x7f => Representation::More { strings, length: 0x7f, shift: 0 },
                    length => Representation::text(strings, length),
                },
                Representation::More { strings, length, shift } => {
                    let length = length + (usize::from(byte & 0x7f) << shift);
                    match byte & 0x80 {
                        0 => Representation::text(strings, length),
                        // No honest string is so long, and the parser refuses it.
                        _ if shift > 21 => return Err(Flood("a field whose length is no length")),
                        _ => Representation::More { strings, length, shift: shift + 7 },
                    }
                }
            };
            bytes = rest;
        }
        Ok(())
    }

    fn start(&mut self, byte: u8) -> Result<Representation, Flood> {
        self.count += 1;
        if self.count > FIELDS_AT_MOST {
            return Err(Flood("too many fields in a block"));
        }
        let (bits, strings) = match byte {
            // Indexed.
            0x80.. => (0x7f, 0),
            // A literal to be indexed.
            0x40.. => (0x3f, 1),
            // A new size of the table.
            0x20.. => (0x1f, 0),
            // A literal.
            _ => (0x0f, 1),
        };
        let index = byte & bits;
        // Without an index the name is a string too.
        let strings = if strings == 1 && index == 0 { 2 } else { strings };
        Ok(if index == bits { Representation::Index { strings } } else { Representation::strings(strings) })
    }
}

impl Representation {
    const fn strings(strings: u8) -> Self {
        match strings {
            0 => Self::Start,
            more => Self::Length { strings: more - 1 },
        }
    }

    const fn text(strings: u8, left: usize) -> Self {
        if left == 0 { Self::strings(strings) } else { Self::Text { strings, left } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads frames in pieces of each size, which must make no difference.
    fn read(bytes: &[u8]) -> Result<Frames, Flood> {
        let whole = in_pieces(bytes, bytes.len()).map(|_| ());
        for size in [1, 2, 3, 7, 100] {
            assert_eq!(in_pieces(bytes, size).map(|_| ()), whole, "in pieces of {size}");
        }
        in_pieces(bytes, 5)
    }

    fn in_pieces(bytes: &[u8], size: usize) -> Result<Frames, Flood> {
        let mut frames = Frames::new(None);
        frames.read(HTTP2_PREFACE)?;
        for piece in bytes.chunks(size.max(1)) {
            frames.read(piece)?;
        }
        Ok(frames)
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.extend(payload);
        frame
    }

    #[test]
    fn fields_are_counted_as_they_are_written() {
        // RFC 7541, appendix C, and what is made of it.
        let long = [&[0x40, 0x01, b'n', 0x7f, 0x81, 0x01][..], &[b'v'; 256]].concat();
        for (block, fields) in [
            (&b""[..], 0),
            (b"\x40\x0acustom-key\x0dcustom-header", 1),
            (b"\x04\x0c/sample/path", 1),
            (b"\x10\x08password\x06secret", 1),
            (b"\x82\x86\x84\x41\x0fwww.example.com", 4),
            (b"\x82\x86\x84\xbe\x58\x08no-cache", 5),
            (b"\x3f\xe1\x1f\x82", 2),
            (b"\xff\x80\x01\x82", 2),
            (b"\x0f\x2f\x01a\x40\x00\x00\x82", 3),
            (&long, 1),
        ] {
            let frames = read(&frame(HEADERS, END_HEADERS, block)).expect("few fields");
            assert_eq!(frames.fields.count, fields, "{block:x?}");
            assert!(matches!(frames.fields.place, Representation::Start), "{block:x?}");
            assert!(!frames.is_within_head());
        }
    }

    #[test]
    fn padding_and_priority_are_no_fields() {
        let padded = [&[3][..], b"\x82\x86", &[0x82; 3]].concat();
        assert_eq!(read(&frame(HEADERS, END_HEADERS | PADDED, &padded)).expect("few fields").fields.count, 2);
        let both = [&[2, 0x82, 0x82, 0x82, 0x82, 0x82][..], b"\x84", &[0x82; 2]].concat();
        assert_eq!(read(&frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &both)).expect("few fields").fields.count, 1);
        // More padding than payload is the parser's to refuse.
        assert!(read(&frame(HEADERS, END_HEADERS | PADDED, &[200, 0x82])).is_ok());
        assert!(read(&frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &[1, 2])).is_ok());
    }

    #[test]
    fn fields_by_the_thousand_are_a_flood() {
        let flood = Err(Flood("too many fields in a block"));
        let just = usize::try_from(FIELDS_AT_MOST).expect("a small number");
        assert!(read(&frame(HEADERS, END_HEADERS, &vec![0xbe; just])).is_ok());
        assert_eq!(read(&frame(HEADERS, END_HEADERS, &vec![0xbe; just + 1])).map(|_| ()), flood);
        let crumbs = b"\x60\x01a".repeat(just + 1);
        assert_eq!(read(&frame(HEADERS, END_HEADERS, &crumbs)).map(|_| ()), flood);
        // A block counts as a whole, in however many frames.
        let mut bytes = frame(HEADERS, 0, &[0xbe; 200]);
        assert!(read(&bytes).expect("few fields").is_within_head());
        bytes.extend(frame(CONTINUATION, 0, &[]));
        bytes.extend(frame(CONTINUATION, END_HEADERS, &[0xbe; 56]));
        assert!(read(&bytes).is_ok());
        bytes.extend(frame(HEADERS, END_HEADERS, &[0xbe; 200]));
        assert!(read(&bytes).is_ok(), "another request");
        let bytes = [frame(HEADERS, 0, &[0xbe; 200]), frame(CONTINUATION, 0, &[0xbe; 57])].concat();
        assert_eq!(read(&bytes).map(|_| ()), flood);
    }

    #[test]
    fn frames_without_progress_are_a_flood() {
        for (kind, flags, payload, at_most) in [
            (PING, 0, &[0; 8][..], 1000),
            (PING, ACK, &[0; 8], 10),
            (SETTINGS, 0, &[], 200),
            (RST_STREAM, 0, &[0; 4], 200),
            (2, 0, &[0; 5], 1000),
            (8, 0, &[0; 4], 1000),
            (DATA, 0, &[], 1000),
            (DATA, PADDED, &[1, 0], 1000),
            (0xfa, 0, b"unknown", 1000),
        ] {
            let frames = frame(kind, flags, payload);
            assert!(read(&frames.repeat(at_most)).is_ok(), "{kind} {flags}");
            let flood = in_pieces(&frames.repeat(at_most + 1), 16 << 10).map(|_| ());
            assert_eq!(flood, Err(Flood("too many frames that bring no request further")), "{kind} {flags}");
        }
        for (kind, flags, payload) in [(DATA, 0, &b"x"[..]), (DATA, END_STREAM, b""), (HEADERS, END_HEADERS, b"\x82")] {
            assert!(read(&frame(kind, flags, payload).repeat(10_000)).is_ok(), "{kind} {flags}");
        }
    }

    #[test]
    fn time_and_responses_make_up_for_them() {
        let pings = frame(PING, 0, &[0; 8]).repeat(1000);
        let mut frames = in_pieces(&pings, 16 << 10).expect("just as many as allowed");
        frames.since = Instant::now() - WINDOW;
        assert!(frames.read(&pings).is_ok());
        assert!(frames.read(&pings).is_err());
        let mut frames = in_pieces(&pings, 16 << 10).expect("just as many as allowed");
        frames.earned = 1000;
        assert!(frames.read(&pings).is_ok());
        assert!(frames.read(&pings).is_err());
    }

    #[test]
    fn what_is_no_frame_does_no_harm() {
        let mut seed = 1_u32;
        let mut noise = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed.to_be_bytes()[0]
        };
        for _ in 0..1000 {
            let mut bytes = frame(HEADERS, noise(), &[]);
            bytes[2] = noise();
            bytes.extend((0..300).map(|_| noise()));
            // Whatever it says, it says the same however the bytes come.
            drop(read(&bytes));
        }
    }
}
