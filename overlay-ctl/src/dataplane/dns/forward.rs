//! Relays questions about names that no endpoint has to the host's resolvers, from the node's own network
//! namespace, and relays their answers back.
//!
//! A message is passed on byte for byte, except for its id. Therefore everything that clients and servers
//! may exchange goes through: future record types, EDNS options, signatures.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use hickory_proto::op::Query;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{
    message::{Request, Transport, Verdict, judge, random_id, set_id},
    upstream::{ResolvConf, Upstreams},
};

/// Greatest number of pending questions of all namespaces. Each holds a socket for each server that was
/// asked, which is one as long as the first server answers.
const NODE_MAX: usize = 512;
/// Greatest number of pending questions of one namespace. A namespace that asks a silent server without
/// end leaves seven eighths of [`NODE_MAX`] to the others.
const NAMESPACE_MAX: usize = 64;
/// Bytes of the longest answer that is received by UDP if the client names no greater size (RFC 1035 allows
/// 512; some servers send more).
const UDP_BUFFER: usize = 4096;

/// The way to the host's resolvers, shared by all namespaces of a node.
#[derive(Debug)]
pub(super) struct Forwarder {
    conf: ResolvConf,
    pending: Arc<Semaphore>,
    rotation: AtomicUsize,
    over_limit: AtomicU64,
}

/// The limit of one namespace's pending questions.
#[derive(Debug)]
pub(super) struct NamespaceQuota {
    pending: Arc<Semaphore>,
    warned: AtomicBool,
}

impl Default for NamespaceQuota {
    fn default() -> Self {
        Self { pending: Arc::new(Semaphore::new(NAMESPACE_MAX)), warned: AtomicBool::new(false) }
    }
}

/// The permission to relay one question.
#[derive(Debug)]
pub(super) struct Permit {
    _namespace: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
}

impl Forwarder {
    pub(super) fn new(conf: ResolvConf) -> Self {
        Self {
            conf,
            pending: Arc::new(Semaphore::new(NODE_MAX)),
            rotation: AtomicUsize::new(0),
            over_limit: AtomicU64::new(0),
        }
    }

    /// Number of questions that were not relayed, because too many were pending.
    pub(super) fn over_limit(&self) -> u64 {
        self.over_limit.load(Ordering::Relaxed)
    }

    /// The permission to relay a question of `namespace`; `None` if too many questions are pending.
    pub(super) fn admit(&self, quota: &NamespaceQuota, namespace: &Path) -> Option<Permit> {
        // The namespace's limit comes first, so that a namespace above it takes nothing from the node's.
        let permit = Arc::clone(&quota.pending).try_acquire_owned().ok().and_then(|own| {
            let node = Arc::clone(&self.pending).try_acquire_owned().ok()?;
            Some(Permit { _namespace: own, _node: node })
        });
        if permit.is_none() {
            self.over_limit.fetch_add(1, Ordering::Relaxed);
            if !quota.warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    namespace = %namespace.display(),
                    "too many questions to the host's resolvers are pending (the limit is {NAMESPACE_MAX} for one namespace, {NODE_MAX} for all): further ones get SERVFAIL"
                );
            }
        }
        permit
    }

    /// Asks the host's resolvers, and returns the first answer with the request's id. `None` if no resolver
    /// answered within the time-out, or there is no resolver.
    pub(super) async fn relay(
        &self,
        _permit: Permit,
        message: Vec<u8>,
        request: &Request,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let upstreams = self.conf.upstreams();
        let first =
            if upstreams.rotate { self.rotation.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let question = Question {
            message: &message,
            query: &request.query,
            limit: request.limit(transport).into(),
            tcp: upstreams.tcp || transport == Transport::Tcp,
        };
        let mut answer = ask(&upstreams, first, &question).await?;
        set_id(&mut answer, request.id());
        Some(answer)
    }
}

struct Question<'a> {
    message: &'a [u8],
    query: &'a Query,
    /// Bytes of the longest answer that the client accepts by UDP; its message tells the server the same.
    limit: usize,
    tcp: bool,
}

/// Asks one server after the other. When the next server is asked, the earlier ones may still answer,
/// because a slow server is not a dead one. All servers are asked once within one time-out; a server that
/// stays silent is asked again after each time-out.
async fn ask(upstreams: &Upstreams, first: usize, question: &Question<'_>) -> Option<Vec<u8>> {
    let count = upstreams.servers.len();
    let share = upstreams.timeout / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    let deadline = Instant::now() + upstreams.total;
    let mut next_at = Instant::now();
    let mut waiting = (0..count).map(|place| upstreams.servers[first.wrapping_add(place) % count]);
    let mut asked = FuturesUnordered::new();
    let mut failure = None;
    loop {
        if asked.is_empty() || Instant::now() >= next_at {
            match waiting.next() {
                Some(server) => {
                    asked.push(exchange(server, question, upstreams.timeout, deadline));
                    next_at = Instant::now() + share;
                }
                None if asked.is_empty() => return failure,
                None => {}
            }
        }
        let until = if waiting.len() > 0 { next_at.min(deadline) } else { deadline };
        match timeout_at(until, asked.next()).await {
            Ok(Some(Ok((Verdict::Answer, answer)))) => return Some(answer),
            Ok(Some(Ok((_, answer)))) => {
                failure = failure.or(Some(answer));
                next_at = Instant::now();
            }
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "a resolver of the host could not be asked");
                next_at = Instant::now();
            }
            Ok(None) => {}
            Err(_) if Instant::now() >= deadline => return failure,
            Err(_) => {}
        }
    }
}

/// Asks one server, and returns its answer or the socket's failure. The caller limits the time of the
/// wait; from the `deadline` on nothing is sent, even if the caller drops the future late.
async fn exchange(
    server: SocketAddr,
    question: &Question<'_>,
    again: Duration,
    deadline: Instant,
) -> io::Result<(Verdict, Vec<u8>)> {
    let id = random_id();
    let mut message = question.message.to_vec();
    set_id(&mut message, id);
    if question.tcp {
        let answer = by_tcp(server, &message).await?;
        return match judge(&answer, id, question.query) {
            Verdict::Foreign => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "it does not answer the question"))
            }
            verdict => Ok((verdict, answer)),
        };
    }
    // Each question has a socket of its own: its random port is half of the bits that a forger must guess
    // (RFC 5452). A connected socket receives from the server only, also its "port unreachable".
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let mut answer = vec![0; question.limit.max(UDP_BUFFER)];
    loop {
        socket.send(&message).await?;
        let resend = Instant::now() + again;
        while let Ok(received) = timeout_at(resend, socket.recv(&mut answer)).await {
            let len = received?;
            match judge(&answer[..len], id, question.query) {
                Verdict::Foreign => {}
                verdict => {
                    answer.truncate(len);
                    return Ok((verdict, answer));
                }
            }
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

async fn by_tcp(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&frame(message)?).await?;
    let len = stream.read_u16().await?;
    let mut answer = vec![0; len.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// A message in its form for TCP, after its length (RFC 1035, section 4.2.2), so that one write sends both.
pub(super) fn frame(message: &[u8]) -> io::Result<Vec<u8>> {
    let len = u16::try_from(message.len()).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "the message is longer than DNS allows")
    })?;
    Ok([&len.to_be_bytes(), message].concat())
}
