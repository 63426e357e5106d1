//! A name server for tests: authoritative, recursive and open to updates in one, on a port of its own, over UDP and TCP.
//!
//! It uses nothing of ours, so that it is a second opinion and that other tests can include it. What goes wrong in the
//! world goes wrong here on request: `misbehave`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::hmac;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::tsig::{TsigError, make_tsig_record, message_tbs, signed_bitmessage_to_buf};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, SOA, TSIG, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::AbortHandle;

/// Until it is dropped.
pub struct DnsServer {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
    mood: Arc<Mutex<Mood>>,
    tasks: Vec<AbortHandle>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub enum On {
    Any,
    Name(&'static str),
    Type(RecordType),
    Update,
}

/// What happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Answers(ResponseCode),
    /// Updates: it does as it is told and says nothing.
    AppliesInSilence,
    /// Before the right answer come some with a wrong identifier, a wrong question, and noise.
    Forges,
    /// Nothing but forgeries.
    ForgesAlone,
    /// As if there were no records.
    Lacks,
    /// As a server that the zone has left: without authority and without an answer.
    IsLame,
    IsSilent,
    KnowsNoEdns,
    /// Over UDP.
    Truncates,
    /// Updates are answered without a signature.
    Unsigned,
}

/// What servers have in common that serve the same zones.
#[derive(Default)]
struct World {
    zones: Vec<Name>,
    records: Vec<Record>,
    key: Option<(Name, hmac::Key)>,
}

#[derive(Default)]
struct Mood {
    misdeeds: Vec<(On, How, usize)>,
    asked: Vec<(String, RecordType)>,
    updates: usize,
    over_tcp: usize,
}

impl DnsServer {
    /// On 127.0.0.1.
    pub async fn start() -> Self {
        // The port must be free for TCP too.
        for _ in 0..100 {
            if let Ok(server) = Self::listen((IpAddr::from([127, 0, 0, 1]), 0).into(), Arc::default()).await {
                return server;
            }
        }
        panic!("no port is free");
    }

    /// There and nowhere else.
    pub async fn start_at(address: SocketAddr) -> io::Result<Self> {
        Self::listen(address, Arc::default()).await
    }

    /// Another server of the same zones, on the same port of another address.
    pub async fn secondary(&self, address: IpAddr) -> io::Result<Self> {
        Self::listen((address, self.address.port()).into(), Arc::clone(&self.world)).await
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// With its SOA and its name servers, which need not be here.
    pub fn add_zone(&self, zone: &str, name_servers: &[(&str, IpAddr)]) {
        let zone = name(zone);
        let soa = SOA::new(zone.clone(), zone.clone(), 1, 600, 60, 3600, 30);
        self.add(&zone, RData::SOA(soa));
        for (server, address) in name_servers {
            self.add(&zone, RData::NS(NS(name(server))));
            self.add_address(server, *address);
        }
        self.world().zones.push(zone);
    }

    pub fn add_address(&self, host: &str, address: IpAddr) {
        let data = match address {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        self.add(&name(host), data);
    }

    pub fn add_cname(&self, alias: &str, target: &str) {
        self.add(&name(alias), RData::CNAME(CNAME(name(target))));
    }

    pub fn add_txt(&self, host: &str, value: &str) {
        self.add(&name(host), text(&[value]));
    }

    /// As one record of several strings.
    pub fn add_txt_of(&self, host: &str, strings: &[&str]) {
        self.add(&name(host), text(strings));
    }

    pub fn remove_txt(&self, host: &str, value: &str) {
        let (host, data) = (name(host), text(&[value]));
        self.world().records.retain(|record| record.name != host || record.data != data);
    }

    pub fn txt(&self, host: &str) -> Vec<String> {
        let host = name(host);
        let world = self.world();
        let values = world.records.iter().filter_map(|record| match &record.data {
            RData::TXT(text) if record.name == host => Some(String::from_utf8_lossy(&text.txt_data.concat()).into()),
            _ => None,
        });
        values.collect()
    }

    /// Only updates that are signed with it are done.
    pub fn require_key(&self, key: &str, algorithm: hmac::Algorithm, secret: &[u8]) {
        self.world().key = Some((name(key), hmac::Key::new(algorithm, secret)));
    }

    /// So many times, after what was said before.
    pub fn misbehave(&self, on: On, how: How, times: usize) {
        self.mood().misdeeds.push((on, how, times));
    }

    pub fn behave(&self) {
        self.mood().misdeeds.clear();
    }

    /// All questions in their order.
    pub fn asked(&self) -> Vec<(String, RecordType)> {
        self.mood().asked.clone()
    }

    pub fn forget_questions(&self) {
        self.mood().asked.clear();
    }

    /// How many updates have come, good or bad.
    pub fn updates(&self) -> usize {
        self.mood().updates
    }

    pub fn over_tcp(&self) -> usize {
        self.mood().over_tcp
    }

    async fn listen(address: SocketAddr, world: Arc<Mutex<World>>) -> io::Result<Self> {
        let udp = UdpSocket::bind(address).await?;
        let address = udp.local_addr()?;
        let tcp = TcpListener::bind(address).await?;
        let mood = Arc::<Mutex<Mood>>::default();
        let served = Served { world: Arc::clone(&world), mood: Arc::clone(&mood) };
        let tasks = [tokio::spawn(serve_udp(udp, served.clone())), tokio::spawn(serve_tcp(tcp, served))];
        Ok(Self { address, world, mood, tasks: tasks.map(|task| task.abort_handle()).into() })
    }

    fn add(&self, host: &Name, data: RData) {
        self.world().records.push(Record::from_rdata(host.clone(), 30, data));
    }

    fn world(&self) -> MutexGuard<'_, World> {
        locked(&self.world)
    }

    fn mood(&self) -> MutexGuard<'_, Mood> {
        locked(&self.mood)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[derive(Clone)]
struct Served {
    world: Arc<Mutex<World>>,
    mood: Arc<Mutex<Mood>>,
}

async fn serve_udp(socket: UdpSocket, served: Served) {
    let mut buffer = vec![0; 65_535];
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        for reply in served.replies(&buffer[..length], false) {
            // The client may be gone.
            let _ = socket.send_to(&reply, client).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, served: Served) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_stream(stream, served.clone()));
    }
}

async fn serve_stream(mut stream: TcpStream, served: Served) -> io::Result<()> {
    loop {
        let mut request = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut request).await?;
        let replies = served.replies(&request, true);
        if replies.is_empty() {
            // It says nothing and does not hang up either.
            std::future::pending::<()>().await;
        }
        for reply in replies {
            stream.write_u16(u16::try_from(reply.len()).unwrap_or(u16::MAX)).await?;
            stream.write_all(&reply).await?;
        }
    }
}

impl Served {
    fn replies(&self, bytes: &[u8], over_tcp: bool) -> Vec<Vec<u8>> {
        let Ok(request) = Message::from_vec(bytes) else {
            return Vec::new();
        };
        let Some(question) = request.queries.first().cloned() else {
            return Vec::new();
        };
        let how = locked(&self.mood).note(&request, &question, over_tcp);
        if how == Some(How::IsSilent) {
            return Vec::new();
        }
        let mut reply = empty(&request);
        let mut signature = None;
        match how {
            Some(How::Answers(code)) => reply.metadata.response_code = code,
            Some(How::KnowsNoEdns) if request.edns.is_some() => {
                reply.metadata.response_code = ResponseCode::FormErr;
                reply.edns = None;
            }
            Some(How::Truncates) if !over_tcp => reply.metadata.truncation = true,
            Some(How::IsLame) => reply.metadata.authoritative = false,
            _ if request.metadata.op_code == OpCode::Update => {
                signature = locked(&self.world).update(&request, bytes, &mut reply);
            }
            _ => locked(&self.world).answer(&request, &question, how == Some(How::Lacks), &mut reply),
        }
        if let (Some(signature), true) = (signature, how != Some(How::Unsigned)) {
            sign(&mut reply, &signature);
        }
        let reply = reply.to_vec().unwrap_or_default();
        match how {
            Some(How::AppliesInSilence) => Vec::new(),
            Some(How::Forges) => forgeries(&request).chain([reply]).collect(),
            Some(How::ForgesAlone) => forgeries(&request).collect(),
            _ => vec![reply],
        }
    }
}

impl Mood {
    fn note(&mut self, request: &Message, question: &Query, over_tcp: bool) -> Option<How> {
        let is_update = request.metadata.op_code == OpCode::Update;
        if is_update {
            self.updates += 1;
        } else {
            self.asked.push((question.name.to_ascii(), question.query_type));
        }
        self.over_tcp += usize::from(over_tcp);
        let (_, how, times) = self.misdeeds.iter_mut().find(|(on, _, times)| {
            let is_meant = match on {
                On::Any => true,
                On::Name(host) => !is_update && question.name == name(host),
                On::Type(kind) => !is_update && question.query_type == *kind,
                On::Update => is_update,
            };
            is_meant && *times > 0
        })?;
        *times -= 1;
        Some(*how)
    }
}

impl World {
    fn answer(&self, request: &Message, question: &Query, lacks: bool, reply: &mut Message) {
        let recursive = request.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        let Some(zone) = self.zone(&question.name) else {
            reply.metadata.response_code = if recursive { ResponseCode::NXDomain } else { ResponseCode::Refused };
            return;
        };
        reply.metadata.authoritative = !recursive;
        let mut host = question.name.clone();
        for _ in 0..16 {
            let mut records = self.records.iter().filter(|record| record.name == host && !lacks);
            let found: Vec<_> =
                records.clone().filter(|record| record.record_type() == question.query_type).cloned().collect();
            let alias = records.find_map(|record| match &record.data {
                RData::CNAME(target) => Some((record, target)),
                _ => None,
            });
            let (true, Some((record, target))) = (found.is_empty(), alias) else {
                reply.answers.extend(found);
                break;
            };
            reply.answers.push(record.clone());
            if !recursive {
                break;
            }
            host = target.0.clone();
        }
        if reply.answers.is_empty() {
            let exists = self.records.iter().any(|record| host.zone_of(&record.name));
            reply.metadata.response_code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
            let mut records = self.records.iter();
            let soa = records.find(|record| record.name == zone && record.record_type() == RecordType::SOA);
            reply.authorities.extend(soa.cloned());
        }
    }

    fn zone(&self, host: &Name) -> Option<Name> {
        let zones = self.zones.iter().filter(|zone| zone.zone_of(host));
        zones.max_by_key(|zone| zone.num_labels()).cloned()
    }

    /// Of one record (RFC 2136). The answer is what the reply is to be signed with.
    fn update(&mut self, request: &Message, bytes: &[u8], reply: &mut Message) -> Option<Signature> {
        let signature = match self.verify(request, bytes, reply) {
            Ok(signature) => signature,
            Err(code) => {
                reply.metadata.response_code = code;
                return None;
            }
        };
        let zone = &request.queries[0].name;
        for change in &request.authorities {
            if !self.zones.contains(zone) {
                reply.metadata.response_code = ResponseCode::NotAuth;
            } else if !zone.zone_of(&change.name) {
                reply.metadata.response_code = ResponseCode::NotZone;
            } else {
                let is_same = |record: &Record| record.name == change.name && record.data == change.data;
                self.records.retain(|record| !is_same(record));
                if change.dns_class == DNSClass::IN {
                    self.records.push(change.clone());
                }
            }
        }
        signature
    }

    fn verify(&self, request: &Message, bytes: &[u8], reply: &mut Message) -> Result<Option<Signature>, ResponseCode> {
        let Some((key, secret)) = &self.key else {
            return Ok(None);
        };
        let Some(record) = request.signature() else {
            return Err(ResponseCode::Refused);
        };
        let Ok((covered, _)) = signed_bitmessage_to_buf(bytes, None, true) else {
            return Err(ResponseCode::FormErr);
        };
        let asked = record.data.clone();
        let unsigned = asked.clone().set_mac(Vec::new());
        let mut refuse = |error| {
            let mut data = unsigned.clone();
            data.error = Some(error);
            reply.set_signature(Box::new(make_tsig_record(record.name.clone(), data)));
            ResponseCode::NotAuth
        };
        if record.name != *key {
            return Err(refuse(TsigError::BadKey));
        }
        hmac::verify(secret, &covered, &asked.mac).map_err(|_| refuse(TsigError::BadSig))?;
        Ok(Some(Signature { key: key.clone(), secret: secret.clone(), unsigned, asked: asked.mac }))
    }
}

struct Signature {
    key: Name,
    secret: hmac::Key,
    unsigned: TSIG,
    /// The request's.
    asked: Vec<u8>,
}

fn sign(reply: &mut Message, signature: &Signature) {
    let length = u16::try_from(signature.asked.len()).unwrap_or(u16::MAX).to_be_bytes();
    let message = message_tbs(reply, &signature.unsigned, &signature.key).unwrap_or_default();
    let mac = hmac::sign(&signature.secret, &[&length[..], &signature.asked, &message].concat());
    let data = signature.unsigned.clone().set_mac(mac.as_ref().to_vec());
    reply.set_signature(Box::new(make_tsig_record(signature.key.clone(), data)));
}

fn empty(request: &Message) -> Message {
    let mut reply = Message::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.queries = request.queries.clone();
    if request.edns.is_some() {
        reply.set_edns(Edns::new());
    }
    reply
}

/// With an answer that must not be believed.
fn forgeries(request: &Message) -> impl Iterator<Item = Vec<u8>> {
    let mut other_id = empty(request);
    other_id.metadata.id = other_id.metadata.id.wrapping_add(1);
    other_id.metadata.response_code = ResponseCode::Refused;
    let mut other_question = empty(request);
    other_question.queries[0].name = name("forged.example");
    let mut no_reply = empty(request);
    no_reply.metadata.message_type = MessageType::Query;
    let messages = [other_id, other_question, no_reply].map(|message| message.to_vec().unwrap_or_default());
    messages.into_iter().chain([b"noise".to_vec()])
}

fn name(text: &str) -> Name {
    let mut name = Name::from_str_relaxed(text).unwrap_or_else(|error| panic!("`{text}`: {error}"));
    name.set_fqdn(true);
    name
}

fn text(strings: &[&str]) -> RData {
    RData::TXT(TXT::new(strings.iter().map(|&string| string.to_owned()).collect()))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
