//! One namespace's resolver: its sockets inside, and who asks through them.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use hickory_proto::op::ResponseCode;

use super::{
    DnsError,
    forward::{Forwarder, Leave, Share, frame},
    lookup::{Answer, Decision, decide},
    message::{Request, Transport, UDP_QUERY_MAX, Unfit, header_only},
    upstream::RESOLVER,
};
use crate::{
    dataplane::{kernel::Names, netlink::Netns},
    model::NetworkId,
};

const PORT: u16 = 53;
/// How soon a namespace that was removed is let go. Our sockets keep it alive, and with it the other
/// ends of its devices, by whose end the node notices.
const LOOK: Duration = Duration::from_millis(250);
/// Connections of one namespace; more wait in the kernel's queue. Each is a file descriptor of the
/// node.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may be without a question, a question under way, or an answer unread.
const IDLE: Duration = Duration::from_secs(10);
/// Pause after a failed accept or receive: what it lacks (descriptors, memory) does not come back by
/// asking at once.
const PAUSE: Duration = Duration::from_millis(100);
/// Counters that turn the answers of names which several endpoints hold.
const TURNS: usize = 64;

/// A resolver that runs until it is dropped, or its namespace is gone.
#[derive(Debug)]
pub(super) struct Resolver {
    task: JoinHandle<()>,
    pub(super) incarnation: u32,
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Resolver {
    /// Opens the sockets inside the namespace at `path` and answers there.
    pub(super) fn start(
        path: &Path,
        incarnation: u32,
        names: watch::Receiver<Arc<Names>>,
        forwarder: Arc<Forwarder>,
    ) -> Result<Self, DnsError> {
        let netns = Netns::open(path)?;
        let identity = netns.identity().map_err(DnsError::Socket)?;
        let (udp, tcp) = netns.run(bind)??;
        let udp = UdpSocket::from_std(udp).map_err(DnsError::Socket)?;
        let tcp = TcpListener::from_std(tcp).map_err(DnsError::Socket)?;
        let desk = Desk {
            view: View::new(names, path),
            shared: Arc::new(Shared {
                path: path.to_owned(),
                forwarder,
                share: Share::default(),
                turns: [const { AtomicUsize::new(0) }; TURNS],
            }),
        };
        let path = path.to_owned();
        let task = tokio::spawn(async move {
            // One task: whatever ends it, all sockets are closed.
            tokio::select! {
                () = serve_udp(udp, desk.clone()) => {}
                () = serve_tcp(tcp, desk) => {}
                () = gone(&path, identity) => {
                    tracing::info!(namespace = %path.display(), "gone: its resolver is closed");
                }
            }
        });
        Ok(Self { task, incarnation })
    }

    /// Closes its sockets before it returns.
    pub(super) async fn stop(mut self) {
        self.task.abort();
        // An abort is what was asked for; whether it or the namespace's end came first is the same.
        (&mut self.task).await.ok();
    }

    pub(super) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }
}

fn bind() -> Result<(StdUdpSocket, StdTcpListener), DnsError> {
    let taken = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => DnsError::Taken,
        io::ErrorKind::AddrNotAvailable => DnsError::LoopbackDown,
        _ => DnsError::Socket(error),
    };
    let udp = StdUdpSocket::bind((RESOLVER, PORT)).map_err(taken)?;
    let tcp = StdTcpListener::bind((RESOLVER, PORT)).map_err(taken)?;
    udp.set_nonblocking(true).map_err(DnsError::Socket)?;
    tcp.set_nonblocking(true).map_err(DnsError::Socket)?;
    Ok((udp, tcp))
}

/// Returns when the namespace at `path` is another than `identity`, or none.
async fn gone(path: &Path, identity: (u64, u64)) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        match fs::metadata(path) {
            Ok(meta) if (meta.dev(), meta.ino()) == identity => {}
            Ok(_) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => tracing::debug!(%error, "a namespace could not be looked at"),
        }
    }
}

/// The names as one namespace sees them.
#[derive(Debug, Clone)]
struct View {
    source: watch::Receiver<Arc<Names>>,
    path: PathBuf,
    names: Arc<Names>,
    networks: Vec<NetworkId>,
}

impl View {
    fn new(source: watch::Receiver<Arc<Names>>, path: &Path) -> Self {
        let mut view =
            Self { source, path: path.to_owned(), names: Arc::default(), networks: Vec::new() };
        view.read();
        view
    }

    fn read(&mut self) {
        self.names = Arc::clone(&self.source.borrow_and_update());
        self.networks = self
            .names
            .namespaces
            .get(&self.path)
            .map_or_else(Vec::new, |namespace| namespace.networks.clone());
    }

    /// The newest names. One atomic load where they did not change.
    fn refresh(&mut self) -> (&Names, &[NetworkId]) {
        if self.source.has_changed().unwrap_or(false) {
            self.read();
        }
        (&self.names, &self.networks)
    }
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    forwarder: Arc<Forwarder>,
    share: Share,
    /// By the questioned name's hash, so that names which are asked for in turns turn each.
    turns: [AtomicUsize; TURNS],
}

/// Where a namespace's questions are answered.
#[derive(Debug, Clone)]
struct Desk {
    view: View,
    shared: Arc<Shared>,
}

/// What became of a message.
enum Outcome {
    /// The answer is written.
    Reply,
    /// Nothing is to be said.
    Silence,
    /// It is to be relayed.
    Relay(Box<Request>, Leave),
}

impl Desk {
    fn handle(&mut self, message: &[u8], transport: Transport, reply: &mut Vec<u8>) -> Outcome {
        let request = match Request::parse(message) {
            Ok(request) => request,
            Err(Unfit::Ignore) => return Outcome::Silence,
            Err(Unfit::Reply(header, code)) => {
                header_only(&header, code, reply);
                return Outcome::Reply;
            }
        };
        if request.bad_version() {
            request.error(ResponseCode::BADVERS, transport, reply);
            return Outcome::Reply;
        }
        let (names, networks) = self.view.refresh();
        let decision = decide(names, networks, &request.query);
        if decision == Decision::Forward {
            let Shared { path, forwarder, share, .. } = &*self.shared;
            if let Some(leave) = forwarder.admit(share, path) {
                return Outcome::Relay(Box::new(request), leave);
            }
        }
        let turn = match decision {
            Decision::Answer(Answer::Addresses([_, _, ..])) => self.shared.turn(&request),
            _ => 0,
        };
        request.answer(decision, turn, transport, reply);
        Outcome::Reply
    }
}

impl Shared {
    fn turn(&self, request: &Request) -> usize {
        // FNV-1a, without regard to case.
        let hash =
            request.query.name.iter().flatten().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
                (hash ^ u64::from(octet.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
            });
        let slot = usize::try_from(hash % (TURNS as u64)).unwrap_or(0);
        self.turns[slot].fetch_add(1, Ordering::Relaxed)
    }

    /// Writes what the host's resolvers say, or that they say nothing.
    async fn relay(
        &self,
        leave: Leave,
        message: Vec<u8>,
        request: &Request,
        transport: Transport,
        reply: &mut Vec<u8>,
    ) {
        match self.forwarder.relay(leave, message, request, transport).await {
            Some(answer) if answer.len() > request.limit(transport).into() => {
                request.truncated(&answer, reply);
            }
            Some(answer) => *reply = answer,
            None => request.error(ResponseCode::ServFail, transport, reply),
        }
    }
}

async fn serve_udp(socket: UdpSocket, mut desk: Desk) {
    let socket = Arc::new(socket);
    let mut message = vec![0; UDP_QUERY_MAX.into()];
    let mut reply = Vec::new();
    // Dropped, and so ended, with this.
    let mut relays = JoinSet::new();
    loop {
        let (len, client) = match socket.recv_from(&mut message).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "a question could not be received");
                sleep(PAUSE).await;
                continue;
            }
        };
        match desk.handle(&message[..len], Transport::Udp, &mut reply) {
            Outcome::Silence => {}
            Outcome::Reply => send(&socket, &reply, client).await,
            Outcome::Relay(request, leave) => {
                while relays.try_join_next().is_some() {}
                let message = message[..len].to_vec();
                let (shared, socket) = (Arc::clone(&desk.shared), Arc::downgrade(&socket));
                relays.spawn(async move {
                    let mut reply = Vec::new();
                    shared.relay(leave, message, &request, Transport::Udp, &mut reply).await;
                    // Weak: a relay that is still ending must not hold the port.
                    if let Some(socket) = Weak::upgrade(&socket) {
                        send(&socket, &reply, client).await;
                    }
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    // A client that went meanwhile is not our trouble; any other asks again.
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%client, %error, "an answer could not be sent");
    }
}

async fn serve_tcp(listener: TcpListener, desk: Desk) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = desk.clone();
                connections.spawn(async move {
                    if let Err(error) = converse(stream, desk).await {
                        tracing::debug!(%error, "a client's connection ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Answers one question after the other until the client closes, or is silent for too long.
async fn converse(mut stream: TcpStream, mut desk: Desk) -> io::Result<()> {
    let mut message = Vec::new();
    let mut reply = Vec::new();
    loop {
        let read = async {
            let len = match stream.read_u16().await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                len => len?,
            };
            message.resize(len.into(), 0);
            stream.read_exact(&mut message).await.map(|_| true)
        };
        if !timeout(IDLE, read).await?? {
            return Ok(());
        }
        match desk.handle(&message, Transport::Tcp, &mut reply) {
            Outcome::Silence => continue,
            Outcome::Reply => {}
            Outcome::Relay(request, leave) => {
                let question = message.clone();
                desk.shared.relay(leave, question, &request, Transport::Tcp, &mut reply).await;
            }
        }
        timeout(IDLE, stream.write_all(&frame(&reply)?)).await??;
    }
}
