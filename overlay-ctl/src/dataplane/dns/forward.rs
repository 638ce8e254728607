//! Questions about names that are not ours: relayed to the host's resolvers, from the node's own
//! network namespace, and their answers relayed back as they are.
//!
//! The message is passed on byte for byte, but for its id. So whatever a client may ask and a server
//! may say (record types to come, EDNS options, signatures) goes through.

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

/// Questions of all namespaces that may be under way at once. Each holds a socket for each server
/// asked, which is one as long as the first server answers.
const NODE_MAX: usize = 512;
/// The same of one namespace: one that asks a silent server without end leaves the others seven
/// eighths.
const NAMESPACE_MAX: usize = 64;
/// Longest answer by UDP that is waited for where the client names no size (RFC 1035 allows 512; some
/// servers send more).
const UDP_BUFFER: usize = 4096;

/// The way to the host's resolvers, shared by all namespaces of a node.
#[derive(Debug)]
pub(super) struct Forwarder {
    conf: ResolvConf,
    under_way: Arc<Semaphore>,
    turn: AtomicUsize,
    over_limit: AtomicU64,
}

/// One namespace's share of it.
#[derive(Debug)]
pub(super) struct Share {
    under_way: Arc<Semaphore>,
    warned: AtomicBool,
}

impl Default for Share {
    fn default() -> Self {
        Self { under_way: Arc::new(Semaphore::new(NAMESPACE_MAX)), warned: AtomicBool::new(false) }
    }
}

/// Leave to relay one question.
#[derive(Debug)]
pub(super) struct Leave {
    _share: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
}

impl Forwarder {
    pub(super) fn new(conf: ResolvConf) -> Self {
        Self {
            conf,
            under_way: Arc::new(Semaphore::new(NODE_MAX)),
            turn: AtomicUsize::new(0),
            over_limit: AtomicU64::new(0),
        }
    }

    /// Questions that were not relayed since too many were under way.
    pub(super) fn over_limit(&self) -> u64 {
        self.over_limit.load(Ordering::Relaxed)
    }

    /// Leave to relay a question of `namespace`; `None` where too many are under way.
    pub(super) fn admit(&self, share: &Share, namespace: &Path) -> Option<Leave> {
        // The namespace's own first, so that one over its limit takes nothing of the node's.
        let leave = Arc::clone(&share.under_way).try_acquire_owned().ok().and_then(|own| {
            let node = Arc::clone(&self.under_way).try_acquire_owned().ok()?;
            Some(Leave { _share: own, _node: node })
        });
        if leave.is_none() {
            self.over_limit.fetch_add(1, Ordering::Relaxed);
            if !share.warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    namespace = %namespace.display(),
                    "too many questions to the host's resolvers are under way ({NAMESPACE_MAX} of one namespace, {NODE_MAX} of all): more get SERVFAIL"
                );
            }
        }
        leave
    }

    /// Asks the host's resolvers; gives the answer of the first that has one, with the request's id.
    /// `None`: none answered within their time-out, or there is none.
    pub(super) async fn relay(
        &self,
        _leave: Leave,
        message: Vec<u8>,
        request: &Request,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let upstreams = self.conf.upstreams();
        let first = if upstreams.rotate { self.turn.fetch_add(1, Ordering::Relaxed) } else { 0 };
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
    /// Bytes that the client takes by UDP, which it told the server too.
    limit: usize,
    tcp: bool,
}

/// Asks one server after the other. A server that has not answered when the next one's turn comes is
/// still listened to: slow is not dead. All are asked once within one time-out; who stays silent is
/// asked again after each.
async fn ask(upstreams: &Upstreams, first: usize, question: &Question<'_>) -> Option<Vec<u8>> {
    let count = upstreams.servers.len();
    let share = upstreams.timeout / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    let deadline = Instant::now() + upstreams.total;
    let mut turn = Instant::now();
    let mut waiting = (0..count).map(|place| upstreams.servers[first.wrapping_add(place) % count]);
    let mut asked = FuturesUnordered::new();
    let mut failure = None;
    loop {
        if asked.is_empty() || Instant::now() >= turn {
            match waiting.next() {
                Some(server) => {
                    asked.push(exchange(server, question, upstreams.timeout, deadline));
                    turn = Instant::now() + share;
                }
                None if asked.is_empty() => return failure,
                None => {}
            }
        }
        let until = if waiting.len() > 0 { turn.min(deadline) } else { deadline };
        match timeout_at(until, asked.next()).await {
            Ok(Some(Ok((Verdict::Answer, answer)))) => return Some(answer),
            Ok(Some(Ok((_, answer)))) => {
                failure = failure.or(Some(answer));
                turn = Instant::now();
            }
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "a resolver of the host could not be asked");
                turn = Instant::now();
            }
            Ok(None) => {}
            Err(_) if Instant::now() >= deadline => return failure,
            Err(_) => {}
        }
    }
}

/// Asks one server. Ends with its answer or with the socket's failure; silence is for the caller to
/// bound: nothing is sent from the `deadline` on, also where the caller is late to say so.
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
            Verdict::Foreign => Err(io::Error::new(io::ErrorKind::InvalidData, "not our answer")),
            verdict => Ok((verdict, answer)),
        };
    }
    // A socket of its own: its random port is half of what a forger has to guess (RFC 5452), and
    // connected it hears the server alone, also its "port unreachable".
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

/// A message as it travels by TCP: behind its length (RFC 1035, section 4.2.2), in one write.
pub(super) fn frame(message: &[u8]) -> io::Result<Vec<u8>> {
    let len = u16::try_from(message.len()).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "a message longer than DNS allows")
    })?;
    Ok([&len.to_be_bytes(), message].concat())
}
