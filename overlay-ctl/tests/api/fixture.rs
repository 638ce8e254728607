//! A node for each test, in a network namespace with an underlay, and the node's clients.

use std::{
    fmt::Debug,
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use overlay_ctl::{
    config::{BigTcp, NodeRunArgs, Underlay, Xdp},
    dataplane::datapath::Datapath,
    error_chain,
    proto::v1::{
        CreateEndpointRequest, CreateNetworkRequest, Network, StatusRequest, StatusResponse,
        cluster_client::ClusterClient, endpoints_client::EndpointsClient,
        networks_client::NetworksClient, nodes_client::NodesClient, watch_client::WatchClient,
    },
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    sync::oneshot,
    time::Instant,
};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint, Uri},
};

use crate::lab::{Netns, skip};

/// Longest time for any step of a test.
pub(crate) const BOUND: Duration = Duration::from_secs(20);
/// Time between two checks of a value whose changes are not reported.
const PAUSE: Duration = Duration::from_millis(20);

/// The node's VTEP.
pub(crate) const VTEP: &str = "10.0.0.1";
/// The address at the other end of the underlay's wire.
pub(crate) const PEER: &str = "10.0.0.2";
/// The node's name.
pub(crate) const NODE: &str = "h1";
/// The network of most tests, which [`Api::network`] creates.
pub(crate) const NETWORK: &str = "lab";

/// A host's namespace in which a node can run, with the folders that a node needs.
pub(crate) struct Host {
    pub(crate) netns: Netns,
    /// The other end of the wire, where nothing runs.
    _peer: Option<Netns>,
    dir: TempDir,
    pub(crate) bpffs: PathBuf,
}

impl Host {
    /// Makes a host whose device `eth7` carries the underlay.
    pub(crate) fn new() -> Self {
        let (netns, peer) = wire();
        Self::at(netns, Some(peer))
    }

    /// Makes two hosts on one wire, with the addresses [`VTEP`] and [`PEER`].
    pub(crate) fn pair() -> [Self; 2] {
        let (first, second) = wire();
        [Self::at(first, None), Self::at(second, None)]
    }

    fn at(netns: Netns, peer: Option<Netns>) -> Self {
        let bpffs = Path::new("/sys/fs/bpf").join(&netns.name);
        Self { netns, _peer: peer, dir: tempfile::tempdir().unwrap(), bpffs }
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/overlay.sock")
    }

    pub(crate) fn args(&self) -> NodeRunArgs {
        NodeRunArgs {
            name: Some(NODE.to_owned()),
            underlay: Some(Underlay::Device("eth7".to_owned())),
            listen: None,
            advertise: None,
            join: None,
            token: None,
            state_dir: self.state_dir(),
            socket: self.socket(),
            bpffs: self.bpffs.clone(),
            vxlan_port: 4789,
            gateway_subnet: None,
            resolv_conf: "/etc/resolv.conf".into(),
            metrics: None,
            xdp: Xdp::Off,
            mtu: None,
            big_tcp: BigTcp::default(),
            copy_dscp: false,
            storm_limit: 0,
            raise_version_after: 0,
            lease: 30,
            voters: None,
            replace_voter_after: 600,
        }
    }
}

/// Two namespaces that `eth7` connects.
fn wire() -> (Netns, Netns) {
    let (netns, peer) = (Netns::new("host"), Netns::new("peer"));
    netns.join("eth7", &peer, "eth7");
    netns.sh(&format!("ip addr add {VTEP}/24 dev eth7"));
    peer.sh(&format!("ip addr add {PEER}/24 dev eth7"));
    (netns, peer)
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = Datapath::remove_all(&self.bpffs) {
            eprintln!("{} is left: {}", self.bpffs.display(), error_chain(&error));
        }
    }
}

/// A running node. When this is dropped, the node is stopped, and everything that it made is removed.
pub(crate) struct Node {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), String>>>,
    pub(crate) host: Host,
}

impl Node {
    /// Starts a node, and returns when the node serves.
    pub(crate) fn start(configure: impl FnOnce(&mut NodeRunArgs)) -> Self {
        Self::start_on(Host::new(), configure)
    }

    /// Starts two nodes of one cluster, `h1` and `h2`. The first one has the only vote.
    pub(crate) fn start_pair() -> [Self; 2] {
        let [first, second] = Host::pair();
        let first = Self::start_on(first, |_| {});
        let join = first.listen();
        let second = Self::start_on(second, |args| {
            args.name = Some("h2".to_owned());
            args.join = Some(join);
        });
        [first, second]
    }

    /// Starts a node on this host, and returns when the node serves.
    pub(crate) fn start_on(host: Host, configure: impl FnOnce(&mut NodeRunArgs)) -> Self {
        let mut args = host.args();
        configure(&mut args);
        let (stop, stopped) = oneshot::channel();
        let netns = host.netns.path();
        let thread = std::thread::spawn(move || {
            crate::lab::enter(&netns);
            // The runtime's workers are started on this thread, so that they are in the namespace too.
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let ended = runtime.block_on(async {
                tokio::select! {
                    ended = overlay_ctl::node::run(args) => {
                        ended.map_err(|error| error_chain(&error))
                    }
                    _ = stopped => Ok(()),
                }
            });
            runtime.shutdown_timeout(BOUND);
            ended
        });
        let mut node = Self { stop: Some(stop), thread: Some(thread), host };
        node.wait_until_it_serves();
        node
    }

    fn wait_until_it_serves(&mut self) {
        let socket = self.host.socket();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let serves = async || {
                if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                    let ended = self.thread.take().map(JoinHandle::join);
                    panic!("the node ended: {ended:?}");
                }
                let channel = unix(&socket).await.ok()?;
                let status = ClusterClient::new(channel).status(StatusRequest {}).await.ok()?;
                (status.into_inner().programmed_revision > 0).then_some(())
            };
            eventually("the node serves", serves).await;
        });
    }

    /// Runs `body` in the node's namespace.
    pub(crate) fn call(&self, body: impl AsyncFnOnce(&Self, Api) + Send) {
        self.host.netns.block_on(|| async {
            let api = Api::new(unix(&self.host.socket()).await.unwrap());
            body(self, api).await;
        });
    }

    /// The address of the node's API.
    pub(crate) fn listen(&self) -> SocketAddr {
        format!("{VTEP}:7400").parse().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // If the thread has ended already, nobody receives the message.
        self.stop.take().map(|stop| stop.send(()).ok());
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Ok(()))) | None => {}
            Some(failed) => eprintln!("the node ended: {failed:?}"),
        }
    }
}

/// Starts a node and runs `body` in its namespace, or skips the test.
#[track_caller]
pub(crate) fn with_node(body: impl AsyncFnOnce(&Node, Api) + Send) {
    if !skip() {
        Node::start(|_| {}).call(body);
    }
}

/// The address at which metrics are served by default, and with them whether the node is ready.
pub(crate) const METRICS: &str = "127.0.0.1:7401";

/// The head and the body of the answer to `method path` at [`METRICS`].
pub(crate) async fn http(method: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(METRICS).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Opens a channel over a unix socket.
pub(crate) async fn unix(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    Endpoint::from_static("http://node.overlay").connect_with_connector(connector).await
}

/// Opens a channel over TCP.
pub(crate) async fn tcp(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// Clients of all services.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) networks: NetworksClient<Channel>,
    pub(crate) endpoints: EndpointsClient<Channel>,
    pub(crate) nodes: NodesClient<Channel>,
    pub(crate) cluster: ClusterClient<Channel>,
    pub(crate) watch: WatchClient<Channel>,
}

impl Api {
    pub(crate) fn new(channel: Channel) -> Self {
        Self {
            networks: NetworksClient::new(channel.clone()),
            endpoints: EndpointsClient::new(channel.clone()),
            nodes: NodesClient::new(channel.clone()),
            cluster: ClusterClient::new(channel.clone()),
            watch: WatchClient::new(channel),
        }
    }

    /// Creates the network `name`.
    pub(crate) async fn network(&mut self, name: &str, subnet: &str) -> Network {
        let request = CreateNetworkRequest {
            name: name.to_owned(),
            subnet: subnet.to_owned(),
            ..Default::default()
        };
        self.networks.create(request).await.unwrap().into_inner()
    }

    pub(crate) async fn status(&mut self) -> StatusResponse {
        self.cluster.status(StatusRequest {}).await.unwrap().into_inner()
    }

    /// The revision of the log's next entry, which is found by creating another network. That network stays.
    pub(crate) async fn next_revision(&mut self) -> u64 {
        let name = format!("mark-{}", uuid::Uuid::new_v4().simple());
        self.network(&name, "").await.created_revision
    }
}

/// A request for an endpoint of [`NETWORK`] in a namespace.
pub(crate) fn endpoint(name: &str, netns: &Netns) -> CreateEndpointRequest {
    CreateEndpointRequest {
        name: name.to_owned(),
        network: NETWORK.to_owned(),
        netns: netns.name.clone(),
        ..Default::default()
    }
}

/// A request for an endpoint of [`NETWORK`] behind a foreign VTEP.
pub(crate) fn external(name: &str, vtep: &str, mac: &str, ip: &str) -> CreateEndpointRequest {
    CreateEndpointRequest {
        name: name.to_owned(),
        network: NETWORK.to_owned(),
        vtep: vtep.to_owned(),
        mac: mac.to_owned(),
        ip: ip.to_owned(),
        ..Default::default()
    }
}

/// Checks that a call was refused with `code`, and that the message contains all of `words`.
#[track_caller]
pub(crate) fn assert_refused<T: Debug>(
    answer: Result<Response<T>, Status>,
    code: Code,
    words: &[&str],
) {
    let status = answer.map(Response::into_inner).expect_err("it must be refused");
    assert_eq!(status.code(), code, "{status:?}");
    for word in words {
        assert!(status.message().contains(word), "{word:?} is not in {:?}", status.message());
    }
}

/// Waits until `look` returns a value, for a limited time.
#[track_caller]
pub(crate) fn eventually<T>(
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let at = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + BOUND;
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            assert!(Instant::now() < deadline, "{at}: not within {BOUND:?}: {what}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
