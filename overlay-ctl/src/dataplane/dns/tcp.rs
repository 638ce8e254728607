//! One namespace's questions by TCP (RFC 7766).

use std::{
    future::{Future, pending},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures::FutureExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    ask::frame,
    message::Transport,
    responder::{Outcome, Responder},
};

/// Greatest number of connections of one namespace. Each is a file descriptor of the node.
const CONNECTIONS_MAX: usize = 32;
/// Greatest number of questions of one connection that are relayed at once; further ones wait in the kernel's queue.
const RELAYS_MAX: usize = 256;
/// Longest time to wait for the rest of a question, for the next question, and for the client to read an answer.
const IDLE: Duration = Duration::from_secs(10);
/// Pause after a failed accept, because missing descriptors or memory do not come back at once.
const PAUSE: Duration = Duration::from_millis(100);
/// Octets of the length before each message.
const LENGTH: usize = 2;

/// Serves the connections of one namespace. Where all places are taken, the connection that has been idle for the
/// longest time gives its place to a new one (RFC 7766, section 6.2.3).
pub(super) async fn serve(listener: TcpListener, responder: Responder) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let shortage = Arc::new(Notify::new());
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        if room.available_permits() == 0 {
            // Wakes the first in the queue, which has waited the longest; if none waits, the next that is idle.
            shortage.notify_one();
        }
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        // Another connection may have ended by itself: no other one has to give way then.
        shortage.notified().now_or_never();
        let (responder, shortage) = (responder.clone(), Arc::clone(&shortage));
        connections.spawn(async move {
            if let Err(error) = serve_connection(stream, client, responder, &shortage).await {
                tracing::debug!(%error, "a client's connection ended");
            }
            drop(place);
        });
    }
}

/// Answers questions until the client closes the connection, sends nothing for too long, or the connection is idle and
/// has to give way. A question that is relayed does not hold up those behind it: answers are sent as soon as they are
/// there, in whatever order (RFC 7766, section 6.2.1.1).
async fn serve_connection(
    mut stream: TcpStream,
    client: SocketAddr,
    mut responder: Responder,
    shortage: &Notify,
) -> io::Result<()> {
    let mut received = Vec::new();
    let mut reply = Vec::new();
    let mut relays = JoinSet::new();
    let mut is_open = true;
    let mut heard = Instant::now();
    loop {
        while let Some(message) = take_message(&mut received) {
            match responder.handle(&message, client, Transport::Tcp, &mut reply) {
                Outcome::Silence => {}
                Outcome::Reply => send(&mut stream, &reply).await?,
                Outcome::Relay(relay) => {
                    relays.spawn(relay.run());
                }
            }
            heard = Instant::now();
        }
        if !is_open && relays.is_empty() {
            return Ok(());
        }
        let is_idle = relays.is_empty() && received.is_empty();
        let is_read = is_open && relays.len() < RELAYS_MAX;
        tokio::select! {
            // A client that waits for an answer is not idle, however long that takes.
            () = sleep_until(heard + IDLE), if relays.is_empty() => return Ok(()),
            () = only_if(is_idle, shortage.notified()) => return Ok(()),
            read = stream.read_buf(&mut received), if is_read => is_open = read? > 0,
            Some(answer) = relays.join_next(), if !relays.is_empty() => {
                // A relay neither panics nor is it aborted while the set exists.
                if let Ok(answer) = answer {
                    send(&mut stream, &answer).await?;
                }
                heard = Instant::now();
            }
        }
    }
}

async fn only_if(holds: bool, event: impl Future<Output = ()>) {
    if holds { event.await } else { pending().await }
}

async fn send(stream: &mut TcpStream, reply: &[u8]) -> io::Result<()> {
    timeout(IDLE, stream.write_all(&frame(reply)?)).await?
}

/// Takes the first message out of what was received; `None` while it is not complete.
fn take_message(received: &mut Vec<u8>) -> Option<Vec<u8>> {
    let len = usize::from(u16::from_be_bytes(*received.first_chunk()?));
    let message = received.get(LENGTH..LENGTH + len)?.to_vec();
    received.drain(..LENGTH + len);
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_out_of_the_stream_whatever_its_pieces_are() {
        let stream = [0, 3, 1, 2, 3, 0, 0, 0, 1, 9];
        for piece in 1..=stream.len() {
            let (mut received, mut messages) = (Vec::new(), Vec::new());
            for part in stream.chunks(piece) {
                received.extend_from_slice(part);
                messages.extend(std::iter::from_fn(|| take_message(&mut received)));
            }
            assert_eq!(messages, [vec![1, 2, 3], vec![], vec![9]], "{piece}");
            assert!(received.is_empty());
        }
    }
}
