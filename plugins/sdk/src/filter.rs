//! Bodies as they flow: what a middleware's filter is written with, and the glue between it and the host. Only components
//! that name a filter in `export!` have this export.

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::{Error, ErrorKind, Middleware};

pub use bindings::exports::weir::plugin::body_filter::{Direction, Guest as Filters, GuestFilter};

/// One field line after a body: name, in lower case, and value.
pub type Header = (String, Vec<u8>);

/// One body that flows through the plugin, piece by piece: neither the host nor the plugin has all of it. A middleware asks
/// for it with [`RequestEdit::filter`](crate::RequestEdit::filter) or [`ResponseEdit::filter`](crate::ResponseEdit::filter).
///
/// The host removes `Content-Length`. What else the head says of the content is the middleware's to change in the same
/// edit: `ETag`, `Content-Encoding` (the host decodes nothing), `Content-Range`, and `Trailer` for those that
/// [`end`](Self::end) adds. A message without content, such as an answer to HEAD, is not filtered.
///
/// ```
/// use weir_sdk::{
///     About, BodyFilter, Direction, Error, Middleware, Plan, Response, ResponseEdit, ResponseVerdict,
/// };
///
/// pub struct Shout;
///
/// impl Middleware for Shout {
///     type Config = serde_json::Value;
///
///     const ABOUT: About = weir_sdk::about!("shout").config_schema(r#"{"type": "object"}"#);
///
///     fn init(_: Self::Config) -> Result<(Self, Plan), Error> {
///         Ok((Self, Plan::new().on_response(&["content-type"])))
///     }
///
///     fn on_response(&self, _: &[u8], response: &Response<'_>) -> ResponseVerdict {
///         match response.header("content-type").as_deref() {
///             Some(b"text/plain") => ResponseEdit::new().remove("etag").filter([]).into(),
///             _ => ResponseVerdict::Pass,
///         }
///     }
/// }
///
/// pub struct Louder;
///
/// impl BodyFilter for Louder {
///     type Middleware = Shout;
///
///     fn new(_: &Shout, _: Direction, _: &[u8]) -> Self {
///         Self
///     }
///
///     fn chunk(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
///         Ok(bytes.to_ascii_uppercase())
///     }
/// }
///
/// weir_sdk::export!(Shout, filter = Louder);
/// # fn main() {}
/// ```
pub trait BodyFilter: Sized + 'static {
    /// The middleware that asks for it.
    type Middleware: Middleware;

    /// Begins a body. `state` is what the edit gave, at most 4 KiB; the middleware may be another instance than the one
    /// that asked, with the same configuration.
    fn new(middleware: &Self::Middleware, direction: Direction, state: &[u8]) -> Self;

    /// The next bytes, never empty and at most 64 KiB; what is answered goes on, and may be empty or longer, up to 16 MiB.
    ///
    /// # Errors
    /// The message is cut: a client that has had the head sees no clean end.
    fn chunk(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, Error>;

    /// The end: the last bytes, and the trailers that go on. Those of requests never do. HTTP/1.1 sends trailers that the
    /// head has announced in `Trailer`, to clients that say `TE: trailers`.
    ///
    /// # Errors
    /// As with [`chunk`](Self::chunk).
    fn end(self, trailers: Vec<Header>) -> Result<(Vec<u8>, Vec<Header>), Error> {
        Ok((Vec::new(), trailers))
    }
}

/// The middleware of a component. Implemented by `export!`.
pub trait Configured<M> {
    fn with<T>(work: impl FnOnce(&M) -> T) -> T;
}

/// A filter as the host calls it: `None` after its end.
pub struct Exported<C, F> {
    filter: RefCell<Option<F>>,
    component: PhantomData<C>,
}

impl<C: Configured<F::Middleware> + 'static, F: BodyFilter> GuestFilter for Exported<C, F> {
    fn new(direction: Direction, state: Vec<u8>) -> Self {
        let filter = C::with(|middleware| F::new(middleware, direction, &state));
        Self { filter: RefCell::new(Some(filter)), component: PhantomData }
    }

    fn chunk(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        match &mut *self.filter.borrow_mut() {
            Some(filter) => filter.chunk(bytes),
            None => Err(Error::new(ErrorKind::Internal, "filter more of a body that has ended")),
        }
    }

    fn end(&self, trailers: Vec<Header>) -> Result<(Vec<u8>, Vec<Header>), Error> {
        match self.filter.take() {
            Some(filter) => filter.end(trailers),
            None => Err(Error::new(ErrorKind::Internal, "end a body that has ended")),
        }
    }
}

/// Makes `export!` an error for what is no filter of that middleware, also where nothing is exported.
pub const fn check<M: Middleware, F: BodyFilter<Middleware = M>>() {}

pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package weir:sdk;
            world filter-part {
                export weir:plugin/body-filter@0.1.0;
            }
        ",
        generate_all,
        export_macro_name: "export_filter",
        pub_export_macro: true,
        default_bindings_module: "weir_sdk::filter::bindings",
        additional_derives: [PartialEq],
        with: { "weir:plugin/types@0.1.0": crate::bindings::weir::plugin::types },
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{About, Plan, testing};

    struct Counting;

    impl Middleware for Counting {
        type Config = serde_json::Value;

        const ABOUT: About = crate::about!("counting").config_schema("{}");

        fn init(_: Self::Config) -> Result<(Self, Plan), Error> {
            Ok((Self, Plan::new()))
        }
    }

    struct Count(usize, Vec<u8>);

    impl BodyFilter for Count {
        type Middleware = Counting;

        fn new(_: &Counting, direction: Direction, state: &[u8]) -> Self {
            assert_eq!(direction, Direction::Response);
            Self(0, state.to_vec())
        }

        fn chunk(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
            self.0 += bytes.len();
            if bytes == b"bad" { Err(Error::new(ErrorKind::Internal, "count it")) } else { Ok(bytes) }
        }

        fn end(self, mut trailers: Vec<Header>) -> Result<(Vec<u8>, Vec<Header>), Error> {
            trailers.push(("x-count".to_owned(), self.0.to_string().into_bytes()));
            Ok((self.1, trailers))
        }
    }

    #[test]
    fn a_filter_is_tested_without_a_host() {
        let filtered = testing::filter::<Count>(&Counting, Direction::Response, b"!", &["ab", "c"], &[("a", "b")]);
        let (body, trailers) = filtered.expect("a good body");
        assert_eq!(body, b"abc!");
        assert_eq!(trailers, [("a".to_owned(), b"b".to_vec()), ("x-count".to_owned(), b"3".to_vec())]);
        let error = testing::filter::<Count>(&Counting, Direction::Response, b"", &["a", "bad"], &[]);
        assert_eq!(error.expect_err("it fails").message, "count it");
    }
}
