//! Answers against the rules of components, as no compiler does: text that is no UTF-8, pointers to nowhere, and cases
//! that no type has. The functions are those that `export!` would write, by hand.
#![cfg(target_arch = "wasm32")]
#![expect(unsafe_code, reason = "the host reads what these functions say is there")]

use std::sync::OnceLock;

use weir_sdk::{About, Error, Middleware, Plan};

/// What `init` was given.
static HOW: OnceLock<String> = OnceLock::new();

struct Forges;

impl Middleware for Forges {
    type Config = ();

    const ABOUT: About = weir_sdk::about!("forges").config_schema(r#"{"type": "object"}"#);

    fn init((): ()) -> Result<(Self, Plan), Error> {
        Ok((Self, Plan::new()))
    }
}

impl weir_sdk::description::Guest for Forges {
    fn describe() -> weir_sdk::description::About {
        weir_sdk::description::answer(Self::ABOUT)
    }
}

/// The macro that says what a component exports looks here for the functions.
mod forged {
    pub(crate) mod exports {
        pub(crate) mod weir {
            pub(crate) mod plugin {
                pub(crate) mod middleware {
                    macro_rules! nothing {
                        ($($ignored:tt)*) => {};
                    }
                    pub(crate) use nothing as __export_weir_plugin_middleware_0_1_0_cabi;
                }
            }
        }
    }
}

weir_sdk::description::bindings::export_description!(Forges with_types_in weir_sdk::description::bindings);
weir_sdk::bindings::export_middleware!(Forges with_types_in forged);

/// Where the host looks for an answer.
#[repr(C, align(8))]
struct Answer([u8; 128]);

impl Answer {
    const fn new() -> Self {
        Self([0; 128])
    }

    fn byte(mut self, at: usize, value: u8) -> Self {
        self.0[at] = value;
        self
    }

    /// A pointer and a length.
    fn list(mut self, at: usize, pointer: u32, length: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&pointer.to_le_bytes());
        self.0[at + 4..at + 8].copy_from_slice(&length.to_le_bytes());
        self
    }

    fn bytes(self, at: usize, bytes: &'static [u8]) -> Self {
        self.list(at, bytes.as_ptr() as u32, bytes.len() as u32)
    }

    fn address(self) -> u32 {
        Box::into_raw(Box::new(self)) as u32
    }
}

const NOWHERE: u32 = 0xffff_fff0;
const NO_TEXT: &[u8] = b"/\xff\xfe";
/// Half of a surrogate pair, as no UTF-8 has it.
const LONE_SURROGATE: &[u8] = b"/\xed\xa0\x80";

/// `result<plan, error>`: the case at 0; of a plan the phases at 8, the lists from 12 on, the modes of bodies at 48 and 64; of an
/// error the kind at 8 and the message at 12.
#[unsafe(export_name = "weir:plugin/middleware@0.1.0#init")]
extern "C" fn init(config: *mut u8, length: usize) -> u32 {
    // SAFETY: the host has written the configuration there, and gives it away.
    let config = unsafe { String::from_raw_parts(config, length, length) };
    let how = HOW.get_or_init(|| config);
    let plan = Answer::new().byte(8, 1);
    let says = |what| how.contains(what);
    if says("unknownResult") {
        plan.byte(0, 9).address()
    } else if says("unknownPhases") {
        plan.byte(8, 0xfd).address()
    } else if says("unknownBodyMode") {
        plan.byte(48, 77).address()
    } else if says("planOfNowhere") {
        plan.list(12, NOWHERE, 3).address()
    } else if says("planTooLong") {
        plan.list(28, 8, 0x2000_0001).address()
    } else if says("unknownError") {
        Answer::new().byte(0, 1).byte(8, 99).bytes(12, b"well").address()
    } else if says("errorWithoutText") {
        Answer::new().byte(0, 1).bytes(12, NO_TEXT).address()
    } else if says("initOfNowhere") {
        NOWHERE
    } else {
        plan.address()
    }
}

/// `tuple<request-verdict, list<u8>>`: the case at 0 (1 is an edit, 2 a reply), its payload from 4 on, the state at 76. Of an edit
/// the path is at 28, the headers at 40, the body at 48; of a reply the status at 4, the headers at 8, the body at 16.
#[unsafe(export_name = "weir:plugin/middleware@0.1.0#on-request")]
extern "C" fn on_request(
    _method: u32,
    _method_length: u32,
    _tls: u32,
    _path: u32,
    _path_length: u32,
    _headers: u32,
    _headers_count: u32,
) -> u32 {
    let how = HOW.get().map_or("", String::as_str);
    let says = |what| how.contains(what);
    let (edit, reply) = (Answer::new().byte(0, 1), Answer::new().byte(0, 2).byte(4, 200));
    if says("pathWithoutText") {
        edit.byte(28, 1).bytes(32, NO_TEXT).address()
    } else if says("loneSurrogate") {
        edit.byte(28, 1).bytes(32, LONE_SURROGATE).address()
    } else if says("unknownOption") {
        edit.byte(28, 2).bytes(32, b"/").address()
    } else if says("unknownVerdict") {
        edit.byte(0, 9).address()
    } else if says("unknownEdit") {
        let line = Answer::new().byte(0, 9).address();
        edit.list(40, line, 1).address()
    } else if says("headersOfNowhere") {
        edit.list(40, NOWHERE, 1).address()
    } else if says("headersAskew") {
        edit.list(40, 3, 1).address()
    } else if says("tooManyHeaders") {
        edit.list(40, 8, u32::MAX).address()
    } else if says("bodyOfNowhere") {
        reply.list(16, NOWHERE, 64).address()
    } else if says("bodyTooLong") {
        reply.list(16, 8, u32::MAX).address()
    } else if says("stateTooLong") {
        Answer::new().list(76, 8, u32::MAX).address()
    } else if says("answerOfNowhere") {
        NOWHERE
    } else if says("answerAskew") {
        Answer::new().address() + 1
    } else {
        Answer::new().address()
    }
}

/// Is never asked for.
#[unsafe(export_name = "weir:plugin/middleware@0.1.0#on-response")]
extern "C" fn on_response(_state: u32, _length: u32, _status: u32, _headers: u32, _count: u32) -> u32 {
    NOWHERE
}
