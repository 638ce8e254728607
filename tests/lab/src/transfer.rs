//! Sends bytes as streams, datagrams and frames, and checks that they are received unchanged.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
        sockopt::{ReceiveTimeout, UdpGsoSegment},
    },
    time::TimeVal,
};

use super::{netns::Netns, wait::eventually};

/// Longest time of a transfer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of one write: those of an SCTP message must fit into the sender's buffer.
const PIECE: usize = 1 << 16;
/// The Ethertype for experiments (IEEE 802, RFC 7042, appendix B).
pub const ETHERTYPE: u16 = 0x88b5;

/// Pseudo-random bytes, by which a missing or misplaced part is noticed.
#[must_use]
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let words = std::iter::repeat_with(|| {
        // xorshift64 (Marsaglia).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

/// Sends a stream from a socket in `from` to one at `address` in `to`, and fails if the received bytes are not
/// those that were sent.
pub fn stream(from: &Netns, to: &Netns, address: SocketAddr, length: usize) -> Result<()> {
    stream_by(from, address, to, address, length)
}

/// Does the same as [`stream`] by way of another address, `asked`, from which something on the way leads to `address`.
pub fn stream_by(
    from: &Netns,
    asked: SocketAddr,
    to: &Netns,
    address: SocketAddr,
    length: usize,
) -> Result<()> {
    let listener = to.enter(|| {
        let listener = TcpListener::bind(address).with_context(|| format!("bind {address}"))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })?;
    let sender = from.enter(|| {
        TcpStream::connect_timeout(&asked, PATIENCE).with_context(|| format!("connect to {asked}"))
    })?;
    carry(sender, &listener, &pattern(length, u64::from(address.port())))
}

/// Sends bytes by a connection to its listener, which accepts none before, and closes it.
pub(crate) fn carry(mut sender: TcpStream, listener: &TcpListener, sent: &[u8]) -> Result<()> {
    sender.set_write_timeout(Some(PATIENCE))?;
    let (mut receiver, _) =
        eventually("the connection is accepted", PATIENCE, || Ok(listener.accept()?))?;
    receiver.set_nonblocking(false)?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    thread::scope(|scope| {
        let sending = scope.spawn(|| -> Result<()> {
            for piece in sent.chunks(PIECE) {
                sender.write_all(piece).context("the stream got stuck")?;
            }
            sender.shutdown(std::net::Shutdown::Write)?;
            Ok(())
        });
        let mut received = Vec::with_capacity(sent.len());
        let read = receiver.read_to_end(&mut received);
        sending.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        read.with_context(|| format!("after {} bytes", received.len()))?;
        same(&received, sent)
    })
}

/// Sends datagrams of one size to `address` in `to`, all in one call, which the kernel cuts (UDP_SEGMENT). All
/// must arrive unchanged.
pub fn datagrams(
    from: &Netns,
    to: &Netns,
    address: SocketAddr,
    (size, count): (usize, usize),
) -> Result<()> {
    let (sender, receiver) = udp_pair(from, to, address)?;
    setsockopt(&sender, UdpGsoSegment, &i32::try_from(size)?).context("UDP_SEGMENT")?;
    let sent = pattern(size * count, 7);
    sender.send(&sent)?;
    for (number, datagram) in sent.chunks(size).enumerate() {
        same(&receive(&receiver)?, datagram).with_context(|| format!("datagram {number}"))?;
    }
    Ok(())
}

/// Sends one datagram, which IP cuts into fragments if it is large.
pub fn datagram(from: &Netns, to: &Netns, address: SocketAddr, size: usize) -> Result<()> {
    let (sender, receiver) = udp_pair(from, to, address)?;
    let sent = pattern(size, 9);
    sender.send(&sent)?;
    same(&receive(&receiver)?, &sent)
}

fn udp_pair(from: &Netns, to: &Netns, address: SocketAddr) -> Result<(UdpSocket, UdpSocket)> {
    let receiver = to.enter(|| Ok(UdpSocket::bind(address)?))?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let any = match address.ip() {
        IpAddr::V4(_) => "0.0.0.0:0",
        IpAddr::V6(_) => "[::]:0",
    };
    let sender = from.enter(|| {
        let sender = UdpSocket::bind(any)?;
        sender.connect(address)?;
        Ok(sender)
    })?;
    Ok((sender, receiver))
}

fn receive(socket: &UdpSocket) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 1 << 16];
    let length = socket.recv(&mut buffer).context("a datagram did not come")?;
    buffer.truncate(length);
    Ok(buffer)
}

/// A frame of [`ETHERTYPE`] with `payload` bytes after its header.
#[must_use]
pub fn frame(from: [u8; 6], to: [u8; 6], payload: usize) -> Vec<u8> {
    [&to[..], &from, &ETHERTYPE.to_be_bytes(), &pattern(payload, 11)].concat()
}

/// Opens a socket that receives every frame that enters a namespace from now on.
pub fn listen(netns: &Netns) -> Result<OwnedFd> {
    netns.enter(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
        let seconds = i64::try_from(PATIENCE.as_secs())?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(seconds, 0))?;
        Ok(socket)
    })
}

/// Waits for a frame that begins with `sent`, and has nothing but padding after it.
pub fn heard(socket: &OwnedFd, sent: &[u8]) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) if buffer[..length].starts_with(sent) => {
                ensure!(length <= sent.len().max(64), "{} bytes became {length}", sent.len());
                return Ok(());
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => bail!("a frame of {} bytes did not come: {errno}", sent.len()),
        }
    }
}

fn same(received: &[u8], sent: &[u8]) -> Result<()> {
    if received == sent {
        return Ok(());
    }
    let first = received.iter().zip(sent).position(|(a, b)| a != b);
    bail!("{} bytes of {} came; the first that differs: {first:?}", received.len(), sent.len());
}

/// Number of segments that a namespace's TCP has sent, and number of those that were retransmissions.
pub fn tcp_segments(netns: &Netns) -> Result<(u64, u64)> {
    let snmp = netns.enter(|| Ok(std::fs::read_to_string("/proc/thread-self/net/snmp")?))?;
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = lines.next().zip(lines.next()).context("two lines of TCP")?;
    let value = |wanted: &str| -> Result<u64> {
        let mut fields = names.split(' ').zip(values.split(' '));
        let (_, value) = fields.find(|(name, _)| *name == wanted).context("the counter")?;
        Ok(value.parse()?)
    };
    Ok((value("OutSegs")?, value("RetransSegs")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_repeats_nowhere_near() {
        let bytes = pattern(100_000, 3);
        assert_eq!(bytes.len(), 100_000);
        assert_ne!(bytes, pattern(100_000, 5));
        assert!(same(&bytes, &bytes).is_ok());
        assert!(same(&bytes[8..], &bytes[..99_992]).is_err());
        let windows: std::collections::BTreeSet<&[u8]> = bytes.chunks(8).collect();
        assert_eq!(windows.len(), 12_500);
    }
}
