//! As much of websockets (RFC 6455) as the tests need: the handshake, and text in single frames.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{read_head, soon};

/// The example of RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const MASKED: u8 = 0x80;

pub(crate) struct WebSocket<S> {
    stream: S,
    /// Clients mask what they send.
    is_client: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Asks for one; fails with the whole answer if there is none.
    pub(crate) async fn connect(mut stream: S, host: &str, path: &str) -> Result<Self, String> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("a request can be sent");
        let head = read_head(&mut stream).await;
        let lower = head.to_lowercase();
        let agreed = head.starts_with("HTTP/1.1 101 ")
            && lower.contains("upgrade: websocket\r\n")
            && lower.contains("connection: upgrade\r\n")
            && head.contains(&format!("{ACCEPT}\r\n"));
        if agreed { Ok(Self::agreed(stream)) } else { Err(head) }
    }

    /// The client's side of one that a server has agreed to.
    pub(crate) const fn agreed(stream: S) -> Self {
        Self { stream, is_client: true }
    }

    /// Agrees to one, and answers with the head of the request.
    pub(crate) async fn accept(mut stream: S) -> (Self, String) {
        let head = read_head(&mut stream).await;
        (Self::agree(stream).await, head)
    }

    /// The same when the request has been read.
    pub(crate) async fn agree(mut stream: S) -> Self {
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        );
        // The client may have gone already.
        drop(stream.write_all(response.as_bytes()).await);
        Self { stream, is_client: false }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        let mask: [u8; 4] = [1, 2, 3, 4];
        let length = u16::try_from(text.len()).expect("a short message");
        let mut frame = vec![TEXT];
        let masked = if self.is_client { MASKED } else { 0 };
        match u8::try_from(length) {
            Ok(length @ 0..126) => frame.push(masked | length),
            _ => {
                frame.push(masked | 126);
                frame.extend(length.to_be_bytes());
            }
        }
        if self.is_client {
            frame.extend(mask);
            frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        } else {
            frame.extend(text.bytes());
        }
        // Whoever waits for an answer finds out.
        drop(self.stream.write_all(&frame).await);
    }

    /// The next message; `None` at the end, however it comes.
    pub(crate) async fn receive(&mut self) -> Option<String> {
        soon("a message or the end of a websocket", self.next()).await
    }

    /// What was sent comes back.
    pub(crate) async fn echo(&mut self, text: &str) -> Option<String> {
        self.send(text).await;
        self.receive().await
    }

    /// Says good-bye, and waits for the other side to do so.
    pub(crate) async fn close(mut self) {
        let frame = if self.is_client { vec![CLOSE, MASKED, 0, 0, 0, 0] } else { vec![CLOSE, 0] };
        drop(self.stream.write_all(&frame).await);
        drop(self.stream.shutdown().await);
        assert_eq!(self.receive().await, None, "nothing comes after the end");
    }

    async fn next(&mut self) -> Option<String> {
        let stream = &mut self.stream;
        let kind = stream.read_u8().await.ok()?;
        let second = stream.read_u8().await.ok()?;
        let length = match second & !MASKED {
            126 => usize::from(stream.read_u16().await.ok()?),
            short => usize::from(short),
        };
        let mut mask = [0; 4];
        if second & MASKED != 0 {
            stream.read_exact(&mut mask).await.ok()?;
        }
        let mut text = vec![0; length];
        stream.read_exact(&mut text).await.ok()?;
        if kind != TEXT {
            return None;
        }
        text.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Some(String::from_utf8(text).expect("text in UTF-8"))
    }
}
