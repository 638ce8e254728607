//! A node's resolvers, clients inside namespaces, and servers that the host can use.

use std::{
    collections::BTreeSet,
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    str::FromStr as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use overlay_ctl::dataplane::{
    dns::{Fate, Resolvers, Settings},
    kernel::{Names, Namespace, NetnsId, NetworkNames},
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::Mutex};

use super::lab::{Netns, enter};

pub(super) const BOUND: Duration = Duration::from_secs(20);
pub(super) const NO_TROUBLE: [String; 0] = [];
pub(super) const RESOLVER: &str = "127.0.0.11:53";
pub(super) const UPSTREAM: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Repeats a check until it is true, for a limited time.
#[track_caller]
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

/// A node with nothing but resolvers. Its runtime's threads are in the host's namespace.
pub(super) struct Node {
    pub(super) host: Netns,
    pub(super) folder: TempDir,
    resolvers: Arc<Mutex<Option<Resolvers>>>,
    runtime: Runtime,
}

impl Node {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    /// Makes a node with other settings.
    pub(super) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let host = Netns::new("host");
        let folder = tempfile::tempdir().unwrap();
        let path = host.path();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .on_thread_start(move || enter(&path))
            .enable_all()
            .build()
            .unwrap();
        let mut settings =
            Settings::new(folder.path().join("resolv.conf"), folder.path().join("netns"));
        settings.nsswitch = folder.path().join("nsswitch.conf");
        change(&mut settings);
        let resolvers = Resolvers::new(settings, "ovk");
        Self { host, folder, resolvers: Arc::new(Mutex::new(Some(resolvers))), runtime }
    }

    /// Makes a node whose host has a link to a namespace with [`UPSTREAM`] and 10.0.0.3.
    pub(super) fn with_upstream(conf: &str) -> (Self, Netns) {
        Self::new().and_upstream(conf)
    }

    /// The same for a node that exists.
    pub(super) fn and_upstream(self, conf: &str) -> (Self, Netns) {
        let (node, dns) = (self, Netns::new("dns"));
        node.host.join("eth7", &dns, "eth7");
        node.host.sh("ip addr add 10.0.0.1/24 dev eth7");
        dns.sh("ip addr add 10.0.0.2/24 dev eth7; ip addr add 10.0.0.3/24 dev eth7");
        node.conf(conf);
        (node, dns)
    }

    /// Writes the host's resolv.conf.
    pub(super) fn conf(&self, text: &str) {
        fs::write(self.folder.path().join("resolv.conf"), text).unwrap();
    }

    pub(super) fn file(&self, netns: &Netns) -> PathBuf {
        self.folder.path().join("netns").join(&netns.name).join("resolv.conf")
    }

    /// Sets the names of all namespaces. Returns the problems that were found.
    pub(super) fn set(&self, names: Names) -> Vec<String> {
        let resolvers = Arc::clone(&self.resolvers);
        // The call runs on a worker, because only the workers are in the host's namespace.
        let set =
            async move { resolvers.lock().await.as_mut().unwrap().set(Arc::new(names)).await };
        self.runtime.block_on(self.runtime.spawn(set)).unwrap()
    }

    #[track_caller]
    pub(super) fn set_well(&self, names: Names) {
        assert_eq!(self.set(names), NO_TROUBLE);
    }

    pub(super) fn remove_files(&self) -> Vec<String> {
        self.runtime
            .block_on(async { self.resolvers.lock().await.as_mut().unwrap().remove_files().await })
    }

    pub(super) fn count(&self) -> usize {
        self.resolvers.blocking_lock().as_ref().unwrap().count()
    }

    /// The number of questions with this fate so far.
    pub(super) fn questions(&self, fate: Fate) -> u64 {
        self.resolvers.blocking_lock().as_ref().unwrap().counts().get(fate)
    }

    pub(super) fn fallbacks(&self) -> Vec<String> {
        self.resolvers.blocking_lock().as_ref().unwrap().fallbacks()
    }

    pub(super) fn drop_resolvers(&self) {
        drop(self.resolvers.blocking_lock().take());
    }
}

pub(super) const WEB2: Ipv4Addr = Ipv4Addr::new(172, 16, 16, 4);

/// The names of one network, `myoverlay`, to which each namespace in `inside` belongs.
pub(super) fn names(records: &[(&str, &[Ipv4Addr])], inside: &[&Netns]) -> Names {
    let network = NetworkNames {
        name: "myoverlay".parse().unwrap(),
        subnet: "172.16.16.0/24".parse().unwrap(),
        records: records.iter().map(|(name, to)| ((*name).to_owned(), to.to_vec())).collect(),
        pointers: records
            .iter()
            .filter(|(_, to)| to.len() == 1)
            .map(|(name, to)| (to[0], (*name).to_owned()))
            .collect(),
    };
    Names {
        networks: [(1u64, network)].into_iter().collect(),
        namespaces: inside.iter().map(|netns| (netns.path(), namespace(1))).collect(),
    }
}

pub(super) fn namespace(netns: i32) -> Namespace {
    Namespace { networks: vec![1], netns: NetnsId::new(netns), has_outside: true }
}

pub(super) fn web2(inside: &[&Netns]) -> Names {
    names(&[("web2", &[WEB2])], inside)
}

/// Runs `work` on a thread inside the namespace, and returns its result, for example a socket.
pub(super) fn inside<T: Send>(netns: &Netns, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let entered = || {
            enter(&netns.path());
            work()
        };
        scope.spawn(entered).join().unwrap()
    })
}

pub(super) fn question(name: &str, wanted: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    let mut name = Name::from_str(name).unwrap();
    // A name that is read from a message is fully qualified.
    name.set_fqdn(true);
    message.add_query(Query::query(name, wanted));
    message
}

pub(super) fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

pub(super) fn udp(netns: &Netns) -> UdpSocket {
    inside(netns, || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(RESOLVER).unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        socket
    })
}

pub(super) fn tcp(netns: &Netns) -> TcpStream {
    inside(netns, || {
        let stream = TcpStream::connect(RESOLVER).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        stream
    })
}

#[track_caller]
pub(super) fn receive(socket: &UdpSocket) -> (Message, usize) {
    let mut buffer = [0; 65_535];
    let len = socket.recv(&mut buffer).expect("an answer");
    (Message::from_vec(&buffer[..len]).unwrap(), len)
}

/// Asks by UDP. Returns the answer and its length.
#[track_caller]
pub(super) fn ask(socket: &UdpSocket, message: &Message) -> (Message, usize) {
    socket.send(&message.to_vec().unwrap()).unwrap();
    let (answer, len) = receive(socket);
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert_eq!(answer.metadata.op_code, OpCode::Query);
    (answer, len)
}

pub(super) fn write_frame(stream: &mut TcpStream, message: &Message) {
    let bytes = message.to_vec().unwrap();
    let len = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    stream.write_all(&[&len, &bytes[..]].concat()).unwrap();
}

#[track_caller]
pub(super) fn read_frame(stream: &mut TcpStream) -> Message {
    let mut len = [0; 2];
    stream.read_exact(&mut len).expect("an answer");
    let mut bytes = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut bytes).unwrap();
    Message::from_vec(&bytes).unwrap()
}

/// The addresses in an answer, in the answer's order.
pub(super) fn addresses(answer: &Message) -> Vec<Ipv4Addr> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(address.0),
        _ => None,
    };
    answer.answers.iter().filter_map(|record| address(&record.data)).collect()
}

pub(super) fn code(answer: &Message) -> ResponseCode {
    answer.metadata.response_code
}

pub(super) fn set_of(addresses: &[Ipv4Addr]) -> BTreeSet<Ipv4Addr> {
    addresses.iter().copied().collect()
}

/// A program inside a namespace, which is killed when this is dropped.
pub(super) struct Server(Child);

impl Server {
    /// Starts dnsmasq as a name server at [`UPSTREAM`], and waits until it answers.
    pub(super) fn dnsmasq(netns: &Netns, arguments: &[String]) -> Self {
        let child = Command::new("nsenter")
            .arg(format!("--net={}", netns.path().display()))
            .args(["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"])
            .args(["--no-hosts", "--pid-file=", "--bind-interfaces", "--user=root"])
            .args(["--listen-address=10.0.0.2", "--local=/example/", "--log-facility=-"])
            .args(arguments)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self(child);
        let socket = inside(netns, || UdpSocket::bind("10.0.0.2:0").unwrap());
        socket.connect((UPSTREAM, 53)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let ready = question("ready.example", RecordType::A).to_vec().unwrap();
        // Before dnsmasq listens, a call to send or receive fails, because the port is unreachable.
        eventually("dnsmasq answers", || {
            socket.send(&ready).is_ok() && socket.recv(&mut [0; 512]).is_ok()
        });
        server
    }
}

impl Server {
    /// Starts a program that does nothing, and waits until it is in the namespace.
    pub(super) fn sleep(netns: &Netns) -> Self {
        let child = Command::new("nsenter")
            .arg(format!("--net={}", netns.path().display()))
            .args(["sleep", "600"])
            .spawn()
            .unwrap();
        let server = Self(child);
        let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
        let inside = PathBuf::from(format!("/proc/{}/ns/net", server.0.id()));
        eventually("it is inside", || inode(inside.clone()) == inode(netns.path()));
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A UDP server whose answers a test chooses.
pub(super) struct Fake {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Starts the server. `answer` is called for each question, and may send anything.
    pub(super) fn start(
        netns: &Netns,
        address: &str,
        mut answer: impl FnMut(&UdpSocket, &Message, SocketAddr) + Send + 'static,
    ) -> Self {
        let socket = inside(netns, || UdpSocket::bind((address, 53)).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !over.load(Ordering::Relaxed) {
                match socket.recv_from(&mut buffer) {
                    Ok((len, client)) => {
                        let question = Message::from_vec(&buffer[..len]).unwrap();
                        answer(&socket, &question, client);
                    }
                    Err(error) => assert!(
                        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                        "{error}"
                    ),
                }
            }
        });
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// An answer to `question` with one address.
pub(super) fn reply(question: &Message, address: Ipv4Addr) -> Message {
    use hickory_proto::rr::{Record, rdata::A};
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.add_queries(question.queries.iter().cloned());
    let name = question.queries[0].name.clone();
    answer.add_answer(Record::from_rdata(name, 60, RData::A(A(address))));
    answer
}

pub(super) fn refusal(question: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::error_msg(question.metadata.id, OpCode::Query, code);
    answer.add_queries(question.queries.iter().cloned());
    answer
}
