//! One exchange with one name server: over UDP with EDNS, and over TCP where the answer does not fit (RFC 1035, 6891, 7766).
//!
//! Whatever comes that does not answer what was asked is thrown away, and the answer is waited for: each exchange has a
//! socket and an identifier of its own, so that who cannot see the question has to guess both.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// What is received at most over UDP. Larger answers come over TCP rather than in fragments that firewalls drop.
const DATAGRAM: u16 = 4096;
#[derive(Clone, Copy, Debug)]
pub(super) struct Transport {
    /// For the whole exchange.
    pub(super) timeout: Duration,
    pub(super) tcp_only: bool,
}

/// A message to a server and its bytes, which a signature may be part of.
pub(super) struct Request {
    message: Message,
    bytes: Vec<u8>,
}

pub(super) struct Reply {
    pub(super) message: Message,
    /// What signatures are checked against.
    pub(super) bytes: Vec<u8>,
}

/// Why there is no reply. Reads after the server's name.
#[derive(Debug)]
pub(super) enum Trouble {
    Malformed(&'static str),
    Silent(Duration),
    Unreachable(io::Error),
}

impl Transport {
    /// Asks a question.
    pub(super) async fn ask(
        self,
        server: SocketAddr,
        name: &Name,
        kind: RecordType,
        recursion_desired: bool,
    ) -> Result<Message, Trouble> {
        let reply = self.exchange(server, &Request::question(name, kind, recursion_desired, true)?).await?;
        // A server that is older than EDNS (RFC 6891, section 7).
        if reply.message.metadata.response_code == ResponseCode::FormErr && reply.message.edns.is_none() {
            let plain = Request::question(name, kind, recursion_desired, false)?;
            return Ok(self.exchange(server, &plain).await?.message);
        }
        Ok(reply.message)
    }

    pub(super) async fn exchange(self, server: SocketAddr, request: &Request) -> Result<Reply, Trouble> {
        let exchange = async {
            if !self.tcp_only {
                // A datagram may get lost: it is sent again after a while, then after twice as long.
                let reply = over_udp(server, request, self.timeout / 5).await?;
                if !reply.message.metadata.truncation {
                    return Ok(reply);
                }
            }
            over_tcp(server, request).await
        };
        timeout(self.timeout, exchange).await.unwrap_or(Err(Trouble::Silent(self.timeout)))
    }
}

impl Request {
    pub(super) fn new(message: Message) -> Result<Self, ProtoError> {
        let bytes = message.to_vec()?;
        Ok(Self { message, bytes })
    }

    fn question(name: &Name, kind: RecordType, recursion_desired: bool, edns: bool) -> Result<Self, Trouble> {
        // With a random identifier.
        let mut message = Message::query();
        message.add_query(Query::query(name.clone(), kind));
        message.metadata.recursion_desired = recursion_desired;
        if edns {
            let mut edns = Edns::new();
            edns.set_max_payload(DATAGRAM);
            message.set_edns(edns);
        }
        Self::new(message).map_err(|_| Trouble::Malformed("cannot be asked for such a name"))
    }

    fn is_answered_by(&self, reply: &Message) -> bool {
        let (asked, told) = (&self.message.metadata, &reply.metadata);
        // Updates need not be echoed (RFC 2136, section 3.8), and who does not understand a message may have no question.
        let may_be_left_out = asked.op_code == OpCode::Update || told.response_code != ResponseCode::NoError;
        let is_echoed = self.message.queries == reply.queries || (reply.queries.is_empty() && may_be_left_out);
        told.message_type == MessageType::Response && told.id == asked.id && told.op_code == asked.op_code && is_echoed
    }

    fn reply(&self, bytes: &[u8]) -> Option<Reply> {
        let message = Message::from_vec(bytes).ok()?;
        self.is_answered_by(&message).then(|| Reply { message, bytes: bytes.to_vec() })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => f.write_str(what),
            Self::Silent(limit) => write!(f, "does not answer within {} s", limit.as_secs_f32()),
            Self::Unreachable(error) => write!(f, "cannot be reached: {error}"),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error)
    }
}

async fn over_udp(server: SocketAddr, request: &Request, mut patience: Duration) -> Result<Reply, Trouble> {
    // The system chooses a port by chance, and connected it takes nothing but what comes from the server.
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    loop {
        socket.send(&request.bytes).await?;
        if let Ok(reply) = timeout(patience, receive(&socket, request)).await {
            return reply;
        }
        patience *= 2;
    }
}

async fn receive(socket: &UdpSocket, request: &Request) -> Result<Reply, Trouble> {
    let mut buffer = vec![0; usize::from(DATAGRAM)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(reply) = request.reply(&buffer[..length]) {
            return Ok(reply);
        }
    }
}

async fn over_tcp(server: SocketAddr, request: &Request) -> Result<Reply, Trouble> {
    let length = u16::try_from(request.bytes.len()).map_err(|_| Trouble::Malformed("takes no message that long"))?;
    let mut stream = TcpStream::connect(server).await?;
    // In one segment (RFC 7766, section 8).
    stream.write_all(&[&length.to_be_bytes()[..], &request.bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    request.reply(&bytes).ok_or(Trouble::Malformed("answers what was not asked"))
}
