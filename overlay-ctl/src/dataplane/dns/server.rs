//! One namespace's resolver: its sockets inside the namespace, and the answers to its clients by UDP.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket},
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use super::{
    DnsError,
    client_conf::RESOLVER,
    forward::Forwarder,
    message::{Transport, UDP_QUERY_MAX},
    presence::until_gone,
    responder::{Outcome, Responder},
    tcp,
};
use crate::dataplane::{
    kernel::{Names, NetnsId},
    netlink::Netns,
};

const PORT: u16 = 53;
/// Bytes of the kernel's queue for questions by UDP: a thousand that come at once. Twice as much is memory that the
/// kernel counts for them, and none is used while they are answered as they come.
const QUEUE: usize = 1 << 20;
/// Pause after a failed receive, because missing memory does not come back at once.
const PAUSE: Duration = Duration::from_millis(100);

/// A resolver, which runs until it is dropped or its namespace is gone.
#[derive(Debug)]
pub(super) struct Resolver {
    task: JoinHandle<()>,
    /// The namespace that it was started for.
    pub(super) netns: Option<NetnsId>,
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Resolver {
    /// Opens the sockets inside the namespace at `path` and answers there. `looks` says when to look whether the
    /// namespace is still there.
    pub(super) fn start(
        path: &Path,
        netns: Option<NetnsId>,
        names: watch::Receiver<Arc<Names>>,
        forwarder: Arc<Forwarder>,
        looks: Arc<Notify>,
    ) -> Result<Self, DnsError> {
        let inside = Netns::open(path)?;
        let identity = inside.identity().map_err(DnsError::Socket)?;
        let (udp, tcp) = inside.run(bind)??;
        let udp = UdpSocket::from_std(udp).map_err(DnsError::Socket)?;
        let tcp = TcpListener::from_std(tcp).map_err(DnsError::Socket)?;
        let responder = Responder::new(names, path, forwarder);
        let path = path.to_owned();
        let task = tokio::spawn(async move {
            // All parts are in one task, so that all sockets are closed when any part ends.
            tokio::select! {
                () = serve_udp(udp, responder.clone()) => {}
                () = tcp::serve(tcp, responder) => {}
                () = until_gone(looks, &path, identity) => {
                    tracing::info!(
                        namespace = %path.display(), "the namespace is gone: its resolver is closed"
                    );
                }
            }
        });
        Ok(Self { task, netns })
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
    if let Err(error) = setsockopt(&udp, RcvBufForce, &QUEUE) {
        tracing::debug!(%error, "the queue for questions stays as short as it is");
    }
    udp.set_nonblocking(true).map_err(DnsError::Socket)?;
    tcp.set_nonblocking(true).map_err(DnsError::Socket)?;
    Ok((udp, tcp))
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
        match responder.handle(&message[..len], client, Transport::Udp, &mut reply) {
            Outcome::Silence => {}
            Outcome::Reply => send(&socket, &reply, client).await,
            Outcome::Relay(relay) => {
                while relays.try_join_next().is_some() {}
                let socket = Arc::downgrade(&socket);
                relays.spawn(async move {
                    let reply = relay.run().await;
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
