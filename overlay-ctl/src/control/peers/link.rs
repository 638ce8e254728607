//! Raft's own connections.
//!
//! A connection that carries heartbeats carries nothing else: behind a long answer they would come too late, and the
//! leader would lose its lead. Raft's connections come to the same port as the API's and begin with a word of their
//! own. By that word the node that accepts a connection recognises Raft's before it reads any HTTP/2, and can serve it on
//! a thread where nothing else runs.

use hyper_util::rt::TokioIo;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{sleep, timeout},
};
use tonic::transport::{Channel, Endpoint, Uri};

/// The first bytes of Raft's connections. HTTP/2 begins with `PRI`, so that the first byte tells the two apart.
const WORD: [u8; 16] = *b"\0overlay raft 1\n";
/// A connection that sends nothing for this long is closed.
const SILENT: Duration = Duration::from_secs(10);
/// Pause after an accept that failed, for example for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Longest wait for a peer to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A silent connection is probed after this time, and given up after as long again.
const KEEPALIVE: Duration = Duration::from_secs(2);

/// A connection that is opened at the first use.
#[must_use]
pub fn connect_lazy(listen: SocketAddr) -> Channel {
    endpoint(listen).connect_lazy()
}

/// A peer's address, with the times after which the peer is given up.
fn endpoint(listen: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{listen}"))
        .unwrap_or_else(|_| unreachable!("a socket address makes a URI"))
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
}

/// A connection for Raft's messages, opened at the first use, on the runtime of the caller.
pub(super) fn connect_raft_lazy(listen: SocketAddr) -> Channel {
    let connector = tower::service_fn(move |_: Uri| async move {
        let mut stream = TcpStream::connect(listen).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&WORD).await?;
        Ok::<_, io::Error>(TokioIo::new(stream))
    });
    endpoint(listen).connect_with_connector_lazy(connector)
}

/// Accepts connections without end and sorts them: Raft's stay on the runtime of the caller; the API's go to the runtime
/// that receives them. A listener that comes by `moved` takes the place of the one before it.
pub async fn part_connections(
    mut listener: TcpListener,
    mut moved: mpsc::Receiver<std::net::TcpListener>,
    raft: mpsc::Sender<TcpStream>,
    api: mpsc::Sender<std::net::TcpStream>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(next) = moved.recv() => {
                match TcpListener::from_std(next) {
                    Ok(next) => listener = next,
                    Err(error) => tracing::warn!(%error, "a listener can't be used"),
                }
                continue;
            }
        };
        match accepted {
            // On a task of its own: a silent connection must not keep the next one waiting.
            Ok((stream, _)) => drop(tokio::spawn(part(stream, raft.clone(), api.clone()))),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn part(
    mut stream: TcpStream,
    raft: mpsc::Sender<TcpStream>,
    api: mpsc::Sender<std::net::TcpStream>,
) {
    let parted = async {
        stream.set_nodelay(true)?;
        let is_raft = timeout(SILENT, begins_with_the_word(&mut stream)).await??;
        // If nobody receives it any more, the node is ending.
        if is_raft {
            drop(raft.send(stream).await);
        } else {
            drop(api.send(stream.into_std()?).await);
        }
        Ok::<_, io::Error>(())
    };
    if let Err(error) = parted.await {
        tracing::debug!(%error, "a connection was given up before it said what it is for");
    }
}

/// Returns true if the connection begins with the word, and then removes the word.
async fn begins_with_the_word(stream: &mut TcpStream) -> io::Result<bool> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] != WORD[0] {
        return Ok(false);
    }
    let mut word = [0; WORD.len()];
    stream.read_exact(&mut word).await?;
    if word == WORD { Ok(true) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(20);
    const PREFACE: [u8; 14] = *b"PRI * HTTP/2.0";

    async fn read(stream: &mut TcpStream) -> [u8; PREFACE.len()] {
        let mut bytes = [0; PREFACE.len()];
        timeout(BOUND, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
        bytes
    }

    #[tokio::test]
    async fn connections_are_parted_by_their_first_bytes_and_lose_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ((rafts, mut raft), (apis, mut api)) = (mpsc::channel(8), mpsc::channel(8));
        let (moves, moved) = mpsc::channel(1);
        let parting = tokio::spawn(part_connections(listener, moved, rafts, apis));

        // Silent, gone, and almost right: none of them holds up the others or is anybody's.
        let silent = TcpStream::connect(address).await.unwrap();
        drop(TcpStream::connect(address).await.unwrap());
        let mut wrong = TcpStream::connect(address).await.unwrap();
        wrong.write_all(b"\0overlay raft 2\n").await.unwrap();
        let mut one = [0];
        // Ends, or is reset.
        let ended = timeout(BOUND, wrong.read(&mut one)).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");

        let mut caller = TcpStream::connect(address).await.unwrap();
        caller.write_all(&PREFACE).await.unwrap();
        let served = timeout(BOUND, api.recv()).await.unwrap().unwrap();
        let mut served = TcpStream::from_std(served).unwrap();
        assert_eq!(read(&mut served).await, PREFACE);

        let mut peer = TcpStream::connect(address).await.unwrap();
        // However it is cut.
        for byte in WORD.iter().chain(&PREFACE) {
            peer.write_all(&[*byte]).await.unwrap();
            peer.flush().await.unwrap();
        }
        let mut served = timeout(BOUND, raft.recv()).await.unwrap().unwrap();
        assert_eq!(read(&mut served).await, PREFACE);
        assert!(api.try_recv().is_err() && raft.try_recv().is_err());

        // The node has another address.
        let next = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let now = next.local_addr().unwrap();
        moves.send(next.into_std().unwrap()).await.unwrap();
        let mut caller = TcpStream::connect(now).await.unwrap();
        caller.write_all(&PREFACE).await.unwrap();
        let served = timeout(BOUND, api.recv()).await.unwrap().unwrap();
        assert_eq!(read(&mut TcpStream::from_std(served).unwrap()).await, PREFACE);
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens there any more");
        drop(moves);
        let mut caller = TcpStream::connect(now).await.unwrap();
        caller.write_all(&PREFACE).await.unwrap();
        let served = timeout(BOUND, api.recv()).await.unwrap();
        assert!(served.is_some(), "also when the listener can't change any more");
        drop((silent, peer));
        parting.abort();
    }
}
