//! Asks the host's resolvers one question: in which order, how long each, and what counts as an answer.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use hickory_proto::op::Query;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout_at},
};

use super::{
    memory::Place,
    message::{Verdict, judge, random_id, set_id},
    servers::Server,
};

/// Bytes of the longest answer that is received by UDP if the client names no greater size (RFC 1035 allows
/// 512; some servers send more).
const UDP_BUFFER: usize = 4096;

/// A question, as a client wrote it.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) message: Vec<u8>,
    pub(super) query: Query,
    /// Bytes of the longest answer that the client accepts by UDP; its message tells the server the same.
    pub(super) limit: usize,
}

/// What the host's resolvers said.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// A server's answer; if all failed, that of the first one which said so.
    Answer(Arc<Vec<u8>>),
    /// No server answered in time.
    Silence,
    /// Every server that could answer sends questions back to this node.
    Loop,
}

/// Whom to ask, and for how long.
#[derive(Debug)]
pub(super) struct Plan {
    /// In this order.
    pub(super) servers: Vec<Arc<Server>>,
    /// Asked at once, beside the first of the others.
    pub(super) trials: Vec<Arc<Server>>,
    /// A server is left out because it sends questions back.
    pub(super) has_loop: bool,
    /// Time until the next server is asked.
    pub(super) share: Duration,
    /// Time after which a question without an answer is sent again.
    pub(super) again: Duration,
    /// Time after which it is given up.
    pub(super) total: Duration,
}

/// A server that could not be asked, or whose answer is of no use.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("it sends questions back to this node")]
    Loop,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One server's part in a question.
struct Attempt {
    place: usize,
    outcome: Result<(Verdict, Vec<u8>), AskError>,
}

/// Asks one server after the other. When the next server is asked, the earlier ones may still answer, because a slow
/// server is not a dead one. All servers are asked once within one time-out; a server that stays silent is asked again
/// after each time-out. A server that fails, in whatever way, gives its turn to the next one at once.
///
/// A server that stayed silent until another one answered is remembered as silent. Where nobody answers, the question
/// may be the cause.
pub(super) async fn ask(plan: Plan, question: Arc<Question>, memory: Place) -> Reply {
    let Plan { servers, trials, mut has_loop, share, again, total } = plan;
    let mut next_at = Instant::now();
    let deadline = next_at + total;
    let begin = |place: usize, server: Arc<Server>| {
        attempt(place, server, Arc::clone(&question), again, deadline)
    };
    let mut asked = FuturesUnordered::new();
    // In the order in which they were asked, and when.
    let mut tried: Vec<(Arc<Server>, Instant)> = Vec::new();
    for server in trials {
        asked.push(begin(tried.len(), Arc::clone(&server)));
        tried.push((server, next_at));
    }
    let trials = tried.len();
    let mut waiting = servers.into_iter();
    let mut failure = None;
    let nothing = |has_loop, failure: Option<Vec<u8>>| match failure {
        Some(answer) => Reply::Answer(Arc::new(answer)),
        None if has_loop => Reply::Loop,
        None => Reply::Silence,
    };
    loop {
        let now = Instant::now();
        if asked.is_empty() || now >= next_at {
            match waiting.next() {
                Some(server) => {
                    asked.push(begin(tried.len(), Arc::clone(&server)));
                    tried.push((server, now));
                    next_at = now + share;
                }
                None if asked.is_empty() => return nothing(has_loop, failure),
                None => {}
            }
        }
        let until = if waiting.len() > 0 { next_at.min(deadline) } else { deadline };
        let Ok(ended) = timeout_at(until, asked.next()).await else {
            if Instant::now() >= deadline {
                return nothing(has_loop, failure);
            }
            continue;
        };
        let Some(Attempt { place, outcome }) = ended else { continue };
        match outcome {
            Ok((Verdict::Answer, answer)) => {
                let earlier = tried.iter().take(place).skip(trials);
                earlier.for_each(|(server, at)| server.silent(*at));
                if !asked.is_empty() {
                    // A late answer of another server shows that it lives.
                    let until = deadline.min(Instant::now() + again);
                    tokio::spawn(async move {
                        let _memory = memory;
                        while let Ok(Some(_)) = timeout_at(until, asked.next()).await {}
                    });
                }
                return Reply::Answer(Arc::new(answer));
            }
            Ok((_, answer)) => failure = failure.or(Some(answer)),
            Err(error) => {
                has_loop |= matches!(error, AskError::Loop);
                let server = tried.get(place).map(|(server, _)| server.address);
                tracing::debug!(?server, %error, "a resolver of the host gave no answer");
            }
        }
        next_at = Instant::now();
    }
}

async fn attempt(
    place: usize,
    server: Arc<Server>,
    question: Arc<Question>,
    again: Duration,
    deadline: Instant,
) -> Attempt {
    let outcome = tokio::select! {
        biased;
        () = server.until_looping() => Err(AskError::Loop),
        outcome = exchange(&server, &question, again, deadline) => outcome.map_err(AskError::Io),
    };
    if outcome.is_ok() {
        server.answered();
    }
    Attempt { place, outcome }
}

/// Asks one server, and returns its answer or the socket's failure. From the `deadline` on nothing is sent.
pub(super) async fn exchange(
    server: &Server,
    question: &Question,
    again: Duration,
    deadline: Instant,
) -> io::Result<(Verdict, Vec<u8>)> {
    let id = random_id();
    let mut message = question.message.clone();
    set_id(&mut message, id);
    if server.tcp {
        let answer = timeout_at(deadline, by_tcp(server.address, &message)).await??;
        return match judge(&answer, id, &question.query) {
            Verdict::Foreign => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "it does not answer the question"))
            }
            verdict => Ok((verdict, answer)),
        };
    }
    // Each question has a socket of its own: its random port is half of the bits that a forger must guess
    // (RFC 5452). A connected socket receives from the server only, also its "port unreachable".
    let any: IpAddr = match server.address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server.address).await?;
    let mut answer = vec![0; question.limit.max(UDP_BUFFER)];
    loop {
        socket.send(&message).await?;
        let resend = Instant::now() + again;
        while let Ok(received) = timeout_at(resend, receive(&socket, &mut answer)).await {
            let len = received?;
            match judge(&answer[..len], id, &question.query) {
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

/// Receives a datagram, or the error that the network reported ("port unreachable"), which alone does not make a socket
/// readable.
async fn receive(socket: &UdpSocket, answer: &mut [u8]) -> io::Result<usize> {
    tokio::select! {
        received = socket.recv(answer) => received,
        ready = socket.ready(Interest::ERROR) => {
            ready?;
            Err(socket.take_error()?.unwrap_or_else(|| io::ErrorKind::ConnectionRefused.into()))
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
