//! ICMP echo from a raw socket, which measures the time of the first answer and counts every packet.
//!
//! `ping` is not used, because it can only be stopped by a signal and then counts the pending request as lost,
//! and because starting it takes longer than the time that is measured.

use std::{
    io::{IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recvmsg,
            sendmsg, setsockopt, socket, sockopt,
        },
        time::{TimeVal, TimeValLike as _},
    },
};

use super::netns::Netns;

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const IPV4_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;
/// Time to wait for late answers after the last request.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// A sender of echo requests from inside a namespace.
#[derive(Debug)]
pub struct Prober {
    socket: OwnedFd,
    to: SockaddrIn,
    id: u16,
}

/// The result of a run of requests.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// Number of requests.
    pub sent: usize,
    /// Number of requests that were answered.
    pub received: usize,
    /// The longest time between two answers.
    pub longest_gap: Duration,
}

/// A run of requests at a steady pace, in the background.
#[derive(Debug)]
pub struct SteadyProbe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Counted>>,
}

impl Prober {
    /// Opens a socket inside the namespace.
    pub fn new(netns: &Netns, to: Ipv4Addr) -> Result<Self> {
        let socket = netns.enter(|| {
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)
                .context("cannot open an ICMP socket")
        })?;
        let id = u16::try_from(std::process::id() & 0xffff)?;
        Ok(Self { socket, to: SocketAddrV4::new(to, 0).into(), id })
    }

    /// Sends a request each millisecond until the first answer; returns the time until then.
    pub fn first_reply(&self, patience: Duration) -> Result<Duration> {
        self.answer_within(Duration::from_millis(1))?;
        let begun = Instant::now();
        let mut sequence = 0;
        while begun.elapsed() < patience {
            self.send(sequence)?;
            sequence = sequence.wrapping_add(1);
            if self.receive()?.is_some() {
                return Ok(begun.elapsed());
            }
        }
        bail!("no answer within {patience:?}")
    }

    /// Sends requests at a steady pace until told to stop.
    #[must_use]
    pub fn start(self, interval: Duration) -> SteadyProbe {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = thread::spawn(move || self.run(interval, &seen));
        SteadyProbe { stop, thread }
    }

    fn run(&self, interval: Duration, stop: &AtomicBool) -> Result<Counted> {
        self.answer_within(Duration::from_millis(1))?;
        let mut answered: Vec<bool> = Vec::new();
        let mut next = Instant::now();
        let mut last_answer = next;
        let mut longest_gap = Duration::ZERO;
        let mut stopped = None;
        loop {
            let now = Instant::now();
            if stopped.is_none() && stop.load(Ordering::Relaxed) {
                stopped = Some(now);
            }
            match stopped {
                Some(at) if now - at > STRAGGLERS || answered.iter().all(|&answer| answer) => break,
                None if now >= next => {
                    let sequence = u16::try_from(answered.len()).context("a run this long")?;
                    self.send(sequence)?;
                    answered.push(false);
                    next += interval;
                }
                _ => {}
            }
            if let Some(sequence) = self.receive()? {
                if let Some(answer) = answered.get_mut(usize::from(sequence)) {
                    *answer = true;
                }
                let now = Instant::now();
                longest_gap = longest_gap.max(now - last_answer);
                last_answer = now;
            }
        }
        let received = answered.iter().filter(|&&answer| answer).count();
        Ok(Counted { sent: answered.len(), received, longest_gap })
    }

    fn answer_within(&self, time: Duration) -> Result<()> {
        let time = TimeVal::microseconds(i64::try_from(time.as_micros())?);
        setsockopt(&self.socket, sockopt::ReceiveTimeout, &time)?;
        Ok(())
    }

    fn send(&self, sequence: u16) -> Result<()> {
        let packet = request(self.id, sequence);
        let iov = [IoSlice::new(&packet)];
        let fd = self.socket.as_raw_fd();
        match sendmsg(fd, &iov, &[], MsgFlags::empty(), Some(&self.to)) {
            // The address does not answer ARP yet: the request counts as sent and lost.
            Ok(_) | Err(Errno::EHOSTUNREACH | Errno::ENETUNREACH) => Ok(()),
            Err(error) => Err(error).context("cannot send an echo request"),
        }
    }

    /// The sequence number of the next answer to this prober; `None` if there was none in time.
    fn receive(&self) -> Result<Option<u16>> {
        let mut packet = [0; 256];
        let mut iov = [IoSliceMut::new(&mut packet)];
        let fd = self.socket.as_raw_fd();
        let length = match recvmsg::<SockaddrIn>(fd, &mut iov, None, MsgFlags::empty()) {
            Ok(message) => message.bytes,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::EHOSTUNREACH) => return Ok(None),
            Err(error) => return Err(error).context("cannot receive"),
        };
        Ok(reply_sequence(&packet[..length], self.id))
    }
}

impl SteadyProbe {
    /// Stops sending, waits for pending answers, and returns the result.
    pub fn stop(self) -> Result<Counted> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the probe panicked"))?
    }
}

impl Counted {
    /// Fails if a packet was lost.
    pub fn none_lost(self) -> Result<()> {
        if self.received != self.sent {
            bail!(
                "{} of {} packets were lost; the longest gap was {:?}",
                self.sent - self.received,
                self.sent,
                self.longest_gap
            );
        }
        if self.sent == 0 {
            bail!("nothing was sent");
        }
        Ok(())
    }
}

fn request(id: u16, sequence: u16) -> [u8; ICMP_HEADER + 8] {
    let mut packet = [0; ICMP_HEADER + 8];
    packet[0] = ECHO_REQUEST;
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn reply_sequence(packet: &[u8], id: u16) -> Option<u16> {
    let icmp = packet.get(IPV4_HEADER..)?;
    let ours = *icmp.first()? == ECHO_REPLY && icmp.get(4..6)? == id.to_be_bytes();
    ours.then(|| Some(u16::from_be_bytes(icmp.get(6..8)?.try_into().ok()?)))?
}

/// The checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_else(|_| unreachable!("folded to 16 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_sums_to_zero_and_a_reply_is_recognised() {
        let packet = request(0x1234, 7);
        assert_eq!(checksum(&packet), 0);
        let mut reply = vec![0; IPV4_HEADER];
        reply.extend(packet);
        assert_eq!(reply_sequence(&reply, 0x1234), None, "a request is no reply");
        reply[IPV4_HEADER] = ECHO_REPLY;
        assert_eq!(reply_sequence(&reply, 0x1234), Some(7));
        assert_eq!(reply_sequence(&reply, 0x1235), None, "the answer to another prober");
        assert_eq!(reply_sequence(&reply[..24], 0x1234), None, "cut short");
    }
}
