//! What a plugin must not do, one way for each configuration.

use std::hint::black_box;

use serde::Deserialize;
use weir_sdk::{About, Decision, Error, Middleware, Plan, Reply, Request, RequestEdit, Response, ResponseVerdict};

pub struct Misbehaves(How);

#[derive(Deserialize)]
pub struct Config {
    how: How,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
enum How {
    /// Until the host ends it.
    Loops,
    /// Only while the request has the header `x-trap`.
    Traps,
    TrapsInInit,
    TrapsOnResponse,
    RefusesInInit,
    /// Far beyond what an instance may have.
    GrowsMemory,
    /// A line break in a value would begin another header.
    InjectsHeader,
    EditsContentLength,
    EditsConnection,
    RepliesWithInformational,
    RemembersTooMuch,
    /// Without a call that would read them.
    WantsBodies,
    /// Which it does not have.
    AsksForFilter,
}

impl Middleware for Misbehaves {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("misbehaves")
        .config_schema(r#"{"type": "object", "properties": {"how": {"type": "string"}}, "required": ["how"]}"#);

    fn init(Config { how }: Config) -> Result<(Self, Plan), Error> {
        match how {
            How::TrapsInInit => panic!("on purpose"),
            How::RefusesInInit => Err(Error::invalid_config("like `refusesInInit`: write another way")),
            How::TrapsOnResponse => Ok((Self(how), Plan::new().on_response(&[]))),
            How::WantsBodies => Ok((Self(how), Plan::new().request_body(weir_sdk::BodyMode::Buffered(1024)))),
            _ => Ok((Self(how), Plan::new().on_request(&["x-trap"]))),
        }
    }

    fn on_request(&self, request: &Request<'_>) -> Decision {
        match self.0 {
            How::Loops => loops(),
            How::Traps if request.header("x-trap").is_some() => panic!("on purpose"),
            How::GrowsMemory => grows(),
            How::InjectsHeader => RequestEdit::new().set("x-injected", "1\r\nx-evil: 1").into(),
            How::EditsContentLength => RequestEdit::new().set("content-length", "7").into(),
            How::EditsConnection => RequestEdit::new().set("connection", "x-real-ip").into(),
            How::AsksForFilter => RequestEdit::new().filter([]).into(),
            How::RepliesWithInformational => Reply::new(101).into(),
            How::RemembersTooMuch => Decision::pass().remember(vec![0; 5000]),
            _ => Decision::pass(),
        }
    }

    fn on_response(&self, _: &[u8], _: &Response<'_>) -> ResponseVerdict {
        panic!("on purpose")
    }
}

weir_sdk::export!(Misbehaves);

fn loops() -> ! {
    let mut count = 0_u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

fn grows() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1_u8; 1 << 20]));
    }
}
