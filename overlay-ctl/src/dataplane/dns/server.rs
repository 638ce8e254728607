//! One namespace's resolver: its sockets inside the namespace, and the answers to its clients.

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
    forward::{Forwarder, NamespaceQuota, Permit, frame},
    lookup::{Answer, Decision, decide},
    message::{Request, Transport, UDP_QUERY_MAX, Unfit, header_only},
    upstream::RESOLVER,
};
use crate::{
    dataplane::{kernel::Names, netlink::Netns},
    model::NetworkId,
};

const PORT: u16 = 53;
/// Time between checks that the namespace still exists. The resolver's sockets keep a removed namespace
/// alive, and with it the peers of the host's devices, by whose disappearance the node notices the removal.
const CHECK_PERIOD: Duration = Duration::from_millis(250);
/// Greatest number of connections of one namespace; further ones wait in the kernel's queue. Each is a file
/// descriptor of the node.
const CONNECTIONS_MAX: usize = 16;
/// Longest time to wait for a whole question, or for the client to read an answer.
const IDLE: Duration = Duration::from_secs(10);
/// Pause after a failed accept or receive, because missing descriptors or memory do not come back at once.
const PAUSE: Duration = Duration::from_millis(100);
/// Number of counters by which the answers for names of several endpoints are rotated.
const ROTATIONS: usize = 64;

/// A resolver, which runs until it is dropped or its namespace is gone.
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
        let responder = Responder {
            view: View::new(names, path),
            shared: Arc::new(Shared {
                path: path.to_owned(),
                forwarder,
                quota: NamespaceQuota::default(),
                rotations: [const { AtomicUsize::new(0) }; ROTATIONS],
            }),
        };
        let path = path.to_owned();
        let task = tokio::spawn(async move {
            // All parts are in one task, so that all sockets are closed when any part ends.
            tokio::select! {
                () = serve_udp(udp, responder.clone()) => {}
                () = serve_tcp(tcp, responder) => {}
                () = until_gone(&path, identity) => {
                    tracing::info!(
                        namespace = %path.display(), "the namespace is gone: its resolver is closed"
                    );
                }
            }
        });
        Ok(Self { task, incarnation })
    }

    /// Stops the resolver; its sockets are closed when this returns.
    pub(super) async fn stop(mut self) {
        self.task.abort();
        // The result is the abort, or the end of the namespace if that came first: neither is an error.
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

/// Returns when there is no namespace at `path`, or one with an identity different from `identity`.
async fn until_gone(path: &Path, identity: (u64, u64)) {
    let mut check = interval(CHECK_PERIOD);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        check.tick().await;
        match fs::metadata(path) {
            Ok(meta) if (meta.dev(), meta.ino()) == identity => {}
            Ok(_) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => tracing::debug!(%error, "a namespace could not be checked"),
        }
    }
}

/// The names that one namespace may see.
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

    /// The newest names. Costs one atomic load if they did not change.
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
    quota: NamespaceQuota,
    /// Indexed by the hash of the name, so that a name's answers are rotated even if other names are asked
    /// for in between.
    rotations: [AtomicUsize; ROTATIONS],
}

/// The answering of one namespace's questions.
#[derive(Debug, Clone)]
struct Responder {
    view: View,
    shared: Arc<Shared>,
}

/// The result of handling a message.
enum Outcome {
    /// The answer is written.
    Reply,
    /// The message gets no answer.
    Silence,
    /// The message is to be relayed.
    Relay(Box<Request>, Permit),
}

impl Responder {
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
            let Shared { path, forwarder, quota, .. } = &*self.shared;
            if let Some(permit) = forwarder.admit(quota, path) {
                return Outcome::Relay(Box::new(request), permit);
            }
        }
        let rotation = match decision {
            Decision::Answer(Answer::Addresses([_, _, ..])) => self.shared.next_rotation(&request),
            _ => 0,
        };
        request.answer(decision, rotation, transport, reply);
        Outcome::Reply
    }
}

impl Shared {
    fn next_rotation(&self, request: &Request) -> usize {
        // FNV-1a of the name in lower case.
        let hash =
            request.query.name.iter().flatten().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
                (hash ^ u64::from(octet.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
            });
        let slot = usize::try_from(hash % (ROTATIONS as u64)).unwrap_or(0);
        self.rotations[slot].fetch_add(1, Ordering::Relaxed)
    }

    /// Relays the question and writes the answer of the host's resolvers, or SERVFAIL if there is none.
    async fn relay(
        &self,
        permit: Permit,
        message: Vec<u8>,
        request: &Request,
        transport: Transport,
        reply: &mut Vec<u8>,
    ) {
        match self.forwarder.relay(permit, message, request, transport).await {
            Some(answer) if answer.len() > request.limit(transport).into() => {
                request.truncated(&answer, reply);
            }
            Some(answer) => *reply = answer,
            None => request.error(ResponseCode::ServFail, transport, reply),
        }
    }
}

async fn serve_udp(socket: UdpSocket, mut responder: Responder) {
    let socket = Arc::new(socket);
    let mut message = vec![0; UDP_QUERY_MAX.into()];
    let mut reply = Vec::new();
    // The relays end when the set is dropped.
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
        match responder.handle(&message[..len], Transport::Udp, &mut reply) {
            Outcome::Silence => {}
            Outcome::Reply => send(&socket, &reply, client).await,
            Outcome::Relay(request, permit) => {
                while relays.try_join_next().is_some() {}
                let message = message[..len].to_vec();
                let (shared, socket) = (Arc::clone(&responder.shared), Arc::downgrade(&socket));
                relays.spawn(async move {
                    let mut reply = Vec::new();
                    shared.relay(permit, message, &request, Transport::Udp, &mut reply).await;
                    // Weak, so that a relay which has not ended yet does not keep the port bound.
                    if let Some(socket) = Weak::upgrade(&socket) {
                        send(&socket, &reply, client).await;
                    }
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    // A client that is gone needs no answer; any other client asks again.
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%client, %error, "an answer could not be sent");
    }
}

async fn serve_tcp(listener: TcpListener, responder: Responder) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let responder = responder.clone();
                connections.spawn(async move {
                    if let Err(error) = serve_connection(stream, responder).await {
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

/// Answers one question after the other until the client closes the connection or sends nothing for too
/// long.
async fn serve_connection(mut stream: TcpStream, mut responder: Responder) -> io::Result<()> {
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
        match responder.handle(&message, Transport::Tcp, &mut reply) {
            Outcome::Silence => continue,
            Outcome::Reply => {}
            Outcome::Relay(request, permit) => {
                let question = message.clone();
                responder
                    .shared
                    .relay(permit, question, &request, Transport::Tcp, &mut reply)
                    .await;
            }
        }
        timeout(IDLE, stream.write_all(&frame(&reply)?)).await??;
    }
}
