//! Reading a body before it goes on: what was read stays part of it.
//!
//! Middlewares that look into bodies call it through `plugin`. It never reads more than it is told to, but for the frame
//! in which that ends.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;

use super::{Body, Broken};

/// Smaller pieces are put together: a client that sends bytes one by one may not take thirty times their room.
const SMALL: usize = 4 << 10;
const TOGETHER_AT_MOST: usize = 64 << 10;

/// What has been read of a body that has it still.
#[derive(Debug, Default)]
pub struct Ahead {
    pub pieces: Vec<Bytes>,
    pub length: u64,
    /// Whether that is all of the body.
    pub is_all: bool,
}

impl Body {
    /// Reads until so many bytes are at hand, or all there are.
    pub async fn read_ahead(&mut self, enough: u64) -> Result<Ahead, Broken> {
        let mut pieces = Pieces::default();
        let mut trailers = None;
        let mut is_all = self.is_end_stream();
        while !is_all && pieces.length < enough {
            let Some(frame) = self.frame().await else {
                is_all = true;
                break;
            };
            match frame?.into_data() {
                Ok(bytes) => pieces.push(bytes),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
            is_all = trailers.is_some() || self.is_end_stream();
        }
        let length = pieces.length;
        let pieces = pieces.finish();
        let rest = std::mem::take(self);
        *self = match (pieces.as_slice(), &trailers) {
            ([], None) if is_all => Self::empty(),
            ([], None) => rest,
            ([only], None) if is_all => only.clone().into(),
            _ => Self::made(Resumed {
                pieces: pieces.iter().cloned().collect(),
                trailers,
                rest: Some(rest).filter(|_| !is_all),
            }),
        };
        Ok(Ahead { pieces, length, is_all })
    }
}

impl Ahead {
    /// Leaves the first so many bytes.
    pub fn shorten(&mut self, length: u64) {
        while self.length > length {
            let Some(last) = self.pieces.pop() else { return };
            self.is_all = false;
            self.length -= last.len() as u64;
            let keep = usize::try_from(length.saturating_sub(self.length)).unwrap_or(usize::MAX);
            if keep > 0 {
                self.length += keep as u64;
                self.pieces.push(last.slice(..keep));
            }
        }
    }
}

#[derive(Default)]
struct Pieces {
    whole: Vec<Bytes>,
    /// Small ones, which come after the whole ones.
    together: BytesMut,
    length: u64,
}

impl Pieces {
    fn push(&mut self, bytes: Bytes) {
        self.length += bytes.len() as u64;
        if bytes.len() >= SMALL || self.together.len() + bytes.len() > TOGETHER_AT_MOST {
            self.flush();
        }
        if bytes.len() < SMALL {
            self.together.extend_from_slice(&bytes);
        } else {
            self.whole.push(bytes);
        }
    }

    fn flush(&mut self) {
        if !self.together.is_empty() {
            self.whole.push(std::mem::take(&mut self.together).freeze());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.flush();
        self.whole
    }
}

/// A body of which the beginning has been read already.
struct Resumed {
    pieces: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    /// What comes after the pieces; `None` if that is nothing but the trailers.
    rest: Option<Body>,
}

impl http_body::Body for Resumed {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(bytes) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        };
        Pin::new(rest).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.trailers.is_none() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    /// With trailers it is not exact: a message with a length has none in HTTP/1.1.
    fn size_hint(&self) -> SizeHint {
        let pieces: u64 = self.pieces.iter().map(|piece| piece.len() as u64).sum();
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(pieces + rest.lower());
        if let Some(upper) = rest.upper().filter(|_| self.trailers.is_none()) {
            hint.set_upper(pieces.saturating_add(upper));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Frames that are there at once, and trailers after them.
    struct Frames(VecDeque<Frame<Bytes>>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Broken;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn body(pieces: &[&'static str], trailer: Option<&'static str>) -> Body {
        let mut frames: VecDeque<Frame<Bytes>> =
            pieces.iter().map(|piece| Frame::data(Bytes::from_static(piece.as_bytes()))).collect();
        frames.extend(trailer.map(|value| {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static(value));
            Frame::trailers(trailers)
        }));
        Body::made(Frames(frames))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_was_read_is_still_there() {
        for trailer in [None, Some("1")] {
            for enough in 0..8 {
                for again in 0..8 {
                    let mut body = body(&["ab", "", "cd", "e"], trailer);
                    for (round, enough) in [enough, again].into_iter().enumerate() {
                        let ahead = body.read_ahead(enough).await.expect("a good body");
                        assert_eq!(ahead.length, ahead.pieces.iter().map(|piece| piece.len() as u64).sum::<u64>());
                        assert!(ahead.length >= enough.min(5), "{enough}: {}", ahead.length);
                        assert!(ahead.is_all || enough <= 5, "{enough} {again}");
                        assert!(round > 0 || ahead.is_all || ahead.length < enough + 2, "{enough}: {}", ahead.length);
                        assert!(body.size_hint().lower() >= ahead.length, "{enough} {again}");
                        if ahead.is_all {
                            assert_eq!(body.size_hint().exact(), trailer.is_none().then_some(5), "{enough} {again}");
                        }
                    }
                    let collected = body.collect().await.expect("a good body");
                    assert_eq!(collected.trailers().is_some(), trailer.is_some(), "{enough} {again}");
                    assert_eq!(collected.to_bytes(), "abcde", "{enough} {again}");
                }
            }
        }
    }

    #[test]
    fn no_more_is_shown_than_was_asked_for() {
        for length in 0..8 {
            let pieces = ["ab", "cd", "e"].map(|piece| Bytes::from_static(piece.as_bytes())).to_vec();
            let mut ahead = Ahead { pieces, length: 5, is_all: true };
            ahead.shorten(length);
            let shown = usize::try_from(length.min(5)).expect("a small number");
            assert_eq!(ahead.pieces.concat(), b"abcde"[..shown]);
            assert_eq!((ahead.length, ahead.is_all), (length.min(5), length >= 5));
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn small_pieces_are_put_together_in_their_order() {
        let large = "L".repeat(SMALL).leak();
        let mut pieces = vec!["s"; 3];
        pieces.push(large);
        pieces.extend(vec!["t"; TOGETHER_AT_MOST + 1]);
        let mut body = body(&pieces, None);
        let ahead = body.read_ahead(u64::MAX).await.expect("a good body");
        let lengths: Vec<usize> = ahead.pieces.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [3, SMALL, TOGETHER_AT_MOST, 1]);
        assert_eq!(body.collect().await.expect("a good body").to_bytes(), pieces.concat());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nothing_is_all_there_is_of_an_empty_body() {
        let mut body = Body::empty();
        let ahead = body.read_ahead(10).await.expect("a good body");
        assert!(ahead.is_all && ahead.pieces.is_empty());
        assert!(body.is_end_stream());
    }
}
