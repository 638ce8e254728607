//! What comes to an address by TCP or UDP is sent back, and must be what was sent.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use overlay_lab::{Netns, patient, transfer::pattern};

/// Longest time without progress.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a stream: some hundred super-packets.
const STREAM: usize = 8 << 20;
/// Sizes of datagrams. The last ones are cut into fragments.
const DATAGRAMS: [usize; 7] = [1, 17, 64, 1400, 1422, 4000, 16_000];
/// Datagrams that are sent in one call, which the kernel or the card cuts (UDP_SEGMENT), and the bytes of each.
const AT_ONCE: (usize, usize) = (12, 1000);

/// Sends everything back, for ever.
pub(super) fn serve(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address)?;
    let socket = UdpSocket::bind(address)?;
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            // What cannot be sent back is missed by the sender.
            drop(socket.send_to(&buffer[..length], from));
        }
    });
    for connection in listener.incoming() {
        let mut connection = connection?;
        thread::spawn(move || {
            let mut sink = connection.try_clone()?;
            std::io::copy(&mut connection, &mut sink)?;
            sink.shutdown(std::net::Shutdown::Write)
        });
    }
    Ok(())
}

/// Sends a stream and datagrams from `netns` to an echo, and checks what comes back.
pub(super) fn check(netns: &Netns, address: SocketAddr) -> Result<()> {
    stream(netns, address).context("the stream")?;
    let socket = netns.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(patient(PATIENCE)))?;
        Ok(socket)
    })?;
    for size in DATAGRAMS {
        let sent = pattern(size, size as u64);
        socket.send(&sent)?;
        back(&socket, &sent).with_context(|| format!("a datagram of {size} bytes"))?;
    }
    let (count, size) = AT_ONCE;
    let sent = pattern(count * size, 3);
    setsockopt(&socket, UdpGsoSegment, &i32::try_from(size)?).context("UDP_SEGMENT")?;
    socket.send(&sent)?;
    for (number, datagram) in sent.chunks(size).enumerate() {
        back(&socket, datagram).with_context(|| format!("datagram {number} of {count} at once"))?;
    }
    Ok(())
}

fn back(socket: &UdpSocket, sent: &[u8]) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let length = socket.recv(&mut buffer).context("it did not come back")?;
    ensure!(buffer[..length] == *sent, "other bytes came back");
    Ok(())
}

fn stream(netns: &Netns, address: SocketAddr) -> Result<()> {
    let mut receiver =
        netns.enter(|| Ok(TcpStream::connect_timeout(&address, patient(PATIENCE))?))?;
    receiver.set_read_timeout(Some(patient(PATIENCE)))?;
    receiver.set_write_timeout(Some(patient(PATIENCE)))?;
    let mut sender = receiver.try_clone()?;
    let sent = pattern(STREAM, 5);
    let received = thread::scope(|scope| -> Result<Vec<u8>> {
        let sending = scope.spawn(|| -> Result<()> {
            sender.write_all(&sent).context("it got stuck")?;
            sender.shutdown(std::net::Shutdown::Write)?;
            Ok(())
        });
        let mut received = Vec::with_capacity(STREAM);
        let read = receiver.read_to_end(&mut received);
        let Ok(sending) = sending.join() else { bail!("the sender panicked") };
        sending?;
        read.with_context(|| format!("after {} bytes", received.len()))?;
        Ok(received)
    })?;
    ensure!(received == sent, "{} bytes came back, or other ones", received.len());
    Ok(())
}
