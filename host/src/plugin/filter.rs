//! Bodies that flow through a guest: each piece is handed to it when the other side takes more, and what it answers goes
//! on.
//!
//! `instance` puts a filter around a body when a middleware asks for it. An instance is held until the body has ended, and
//! kept after that; it is dropped with a body that does not come to its end. Nothing is read ahead of the guest.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;
use wasmtime::component::ResourceAny;

use super::Plugin;
pub(super) use super::bindings::filter::exports::weir::plugin::body_filter::Direction;
use super::bindings::filter::{Filter, FilterIndices};
use super::bindings::middleware::weir::plugin::types::Error;
use super::edit;
use super::imports::{Exchange, printable};
use super::limits::in_time;
use super::pool::{Instance, Lease};
use super::usage::Cause;
use crate::http::{Body, Broken, Failure};

/// The most that an edit may hand to the filter which it asks for.
const STATE_BYTES_AT_MOST: usize = 4 << 10;
/// The largest piece that a guest gets, or that is made of what it answers.
const PIECE: usize = 64 << 10;
/// What a guest may answer to one piece.
pub(super) const ANSWER_AT_MOST: usize = 16 << 20;
/// What is shown of a guest's error.
const MESSAGE_CHARACTERS_AT_MOST: usize = 1000;

/// What an edit asks for.
pub(super) struct Wanted {
    indices: FilterIndices,
    state: Vec<u8>,
}

impl Wanted {
    /// A filter of that plugin, which begins with that state.
    pub(super) fn of(plugin: &Plugin, state: Vec<u8>) -> Result<Self, String> {
        let Some(indices) = plugin.filter.clone() else {
            return Err("it asks for a filter of the body, and exports none (`weir:plugin/body-filter`)".to_owned());
        };
        if state.len() > STATE_BYTES_AT_MOST {
            return Err(format!(
                "its filter's state has {} bytes: at most {STATE_BYTES_AT_MOST} are handed on",
                state.len()
            ));
        }
        Ok(Self { indices, state })
    }
}

/// Puts a guest's filter around a body.
pub(super) async fn filtered(
    lease: Lease<'static>,
    wanted: Wanted,
    direction: Direction,
    (exchange, hops): (Option<Exchange>, u8),
    body: Body,
) -> Result<Body, Failure> {
    let call = Call::begin(lease, wanted, direction, exchange, hops).await?;
    let next = Rc::<Next>::default();
    let pieces = Rc::clone(&next);
    let running = Box::pin(async move {
        let ended = run(call, body, pieces).await;
        if ended.is_err() {
            // Whoever reads has time to send what came before, or it would go down with the connection.
            yield_now().await;
        }
        ended
    });
    Ok(Body::made(Filtered { running: Some(running), next }))
}

/// Takes a body through a guest, to its end.
async fn run(mut call: Call, mut body: Body, next: Rc<Next>) -> Result<(), Broken> {
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(bytes) => {
                for piece in pieces(bytes) {
                    let answer = call.chunk(piece).await?;
                    next.bytes(answer).await;
                    // A guest that is done at once each time must let others run too.
                    consume_budget().await;
                }
            }
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    let (answer, trailers) = call.end(trailers).await?;
    next.bytes(answer).await;
    if !trailers.is_empty() {
        next.put(Frame::trailers(trailers)).await;
    }
    Ok(())
}

fn pieces(mut bytes: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let piece = bytes.split_to(bytes.len().min(PIECE));
        Some(piece).filter(|piece| !piece.is_empty())
    })
}

/// A guest's filter of one body.
struct Call {
    lease: Lease<'static>,
    guest: Arc<Filter>,
    filter: ResourceAny,
    /// Of the request.
    hops: u8,
}

impl Call {
    async fn begin(
        mut lease: Lease<'static>,
        wanted: Wanted,
        direction: Direction,
        exchange: Option<Exchange>,
        hops: u8,
    ) -> Result<Self, Failure> {
        let Instance { store, component, .. } = lease.resume(hops);
        store.data_mut().exchange = exchange;
        let guest = match wanted.indices.load(&mut *store, component) {
            Ok(guest) => Arc::new(guest),
            Err(error) => return Err(lease.failed(Cause::Start, &error.to_string())),
        };
        let called = Arc::clone(&guest);
        let made = lease
            .call(move |Instance { store, .. }| {
                Box::pin(async move {
                    let filter = called.weir_plugin_body_filter().filter();
                    in_time(&store.data().meter.clone(), pin!(filter.call_constructor(store, direction, &wanted.state)))
                        .await
                })
            })
            .await;
        let filter = lease.pause(made)?;
        Ok(Self { lease, guest, filter, hops })
    }

    async fn chunk(&mut self, bytes: Bytes) -> Result<Bytes, Broken> {
        let (guest, filter) = self.resumed();
        let answer = self
            .lease
            .call(move |Instance { store, .. }| {
                Box::pin(async move {
                    let guest = guest.weir_plugin_body_filter().filter();
                    in_time(&store.data().meter.clone(), pin!(guest.call_chunk(store, filter, &bytes))).await
                })
            })
            .await;
        let bytes = self.lease.pause(answer).and_then(|answer| self.checked(answer));
        bytes.map_err(|failure| self.lease.cut(failure))
    }

    async fn end(mut self, trailers: HeaderMap) -> Result<(Bytes, HeaderMap), Broken> {
        match self.finish(trailers).await {
            Ok(last) => {
                self.lease.keep();
                Ok(last)
            }
            Err(failure) => Err(self.lease.cut(failure)),
        }
    }

    async fn finish(&mut self, trailers: HeaderMap) -> Result<(Bytes, HeaderMap), Failure> {
        let lines: Vec<_> =
            trailers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
        let (guest, filter) = self.resumed();
        let answer = self
            .lease
            .call(move |Instance { store, .. }| {
                Box::pin(async move {
                    let guest = guest.weir_plugin_body_filter().filter();
                    in_time(&store.data().meter.clone(), pin!(guest.call_end(store, filter, &lines))).await
                })
            })
            .await;
        let (bytes, trailers) = self.lease.pause(answer)?.map_err(|error| self.refused(&error))?;
        let bytes = self.checked(Ok(bytes))?;
        let trailers = edit::fields(trailers).map_err(|reason| self.lease.failed(Cause::Answer, &reason))?;
        self.resumed();
        let dropped = self
            .lease
            .call(move |Instance { store, .. }| {
                Box::pin(
                    async move { in_time(&store.data().meter.clone(), pin!(filter.resource_drop_async(store))).await },
                )
            })
            .await;
        self.lease.pause(dropped)?;
        Ok((bytes, trailers))
    }

    /// What the next call is made with.
    fn resumed(&mut self) -> (Arc<Filter>, ResourceAny) {
        self.lease.resume(self.hops);
        (Arc::clone(&self.guest), self.filter)
    }

    fn checked(&self, answer: Result<Vec<u8>, Error>) -> Result<Bytes, Failure> {
        let bytes = answer.map_err(|error| self.refused(&error))?;
        if bytes.len() > ANSWER_AT_MOST {
            let reason = format!("its filter answered with {} bytes: at most {ANSWER_AT_MOST} are taken", bytes.len());
            return Err(self.lease.failed(Cause::Answer, &reason));
        }
        Ok(bytes.into())
    }

    fn refused(&self, error: &Error) -> Failure {
        let message = printable(&error.message, MESSAGE_CHARACTERS_AT_MOST);
        self.lease.failed(Cause::Answer, &format!("it failed to {message}"))
    }
}

/// The body that comes out of a filter.
struct Filtered {
    /// `None` when it has ended.
    running: Option<Running>,
    next: Rc<Next>,
}

type Running = Pin<Box<dyn Future<Output = Result<(), Broken>>>>;

/// The frame that comes out next. The filter goes on when it has been taken.
#[derive(Default)]
struct Next(RefCell<Option<Frame<Bytes>>>);

impl Next {
    async fn bytes(&self, bytes: Bytes) {
        for piece in pieces(bytes) {
            self.put(Frame::data(piece)).await;
        }
    }

    /// Waits until somebody takes it, which is whoever polls the filter.
    async fn put(&self, frame: Frame<Bytes>) {
        self.0.replace(Some(frame));
        poll_fn(|_| if self.0.borrow().is_some() { Poll::Pending } else { Poll::Ready(()) }).await;
    }
}

impl http_body::Body for Filtered {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(running) = &mut self.running else { return Poll::Ready(None) };
        let ended = running.as_mut().poll(context);
        if let Some(frame) = self.next.0.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Poll::Ready(ended) = ended else { return Poll::Pending };
        self.running = None;
        Poll::Ready(ended.err().map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.running.is_none()
    }
}
