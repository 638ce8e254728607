//! Traffic of which each packet says who sent it, to whom, and how many were sent before it: what is lost is counted, and what
//! reaches somebody else.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::socket::{setsockopt, sockopt};

use super::netns::Netns;

/// The port of all parties.
const PORT: u16 = 7373;
/// Bytes that wait for a thread which gets no CPU for seconds.
const BUFFER: usize = 8 << 20;
/// Time to wait for what is on its way after the last packet was sent.
const STRAGGLERS: Duration = Duration::from_secs(1);
/// How many packets that reached somebody else are told of.
const TOLD_OF: usize = 5;
/// Begins each packet.
const MAGIC: [u8; 4] = *b"tag1";

/// Somebody who sends to all others of the same network, and receives from them.
#[derive(Debug, Clone)]
pub struct Party {
    /// How it is called in an error.
    pub name: String,
    /// Where its socket is.
    pub netns: Netns,
    /// Its address. Parties of several networks may have the same.
    pub address: Ipv4Addr,
    /// The number of its network.
    pub network: u32,
}

/// Traffic in the background.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Tally>>,
}

/// What became of all packets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets that were sent.
    pub sent: u64,
    /// Of these, those that did not arrive.
    pub lost: u64,
    /// Packets that reached another party than the one that they were for, or came from another address than their
    /// sender's.
    pub misdelivered: u64,
    /// Packets that arrived once more.
    pub doubled: u64,
    /// Flows that lost packets, and the first packets that were misdelivered, in words.
    pub examples: Vec<String>,
}

/// From one party to another one.
struct Flow {
    from: usize,
    to: usize,
    /// Of each packet that was sent, whether it arrived.
    arrived: Vec<bool>,
}

struct Run {
    parties: Vec<Party>,
    sockets: Vec<UdpSocket>,
    flows: Vec<Flow>,
    tally: Tally,
}

impl Traffic {
    /// Opens a socket for each party, and begins to send a packet of each flow at each interval.
    pub fn start(parties: &[Party], interval: Duration) -> Result<Self> {
        let sockets: Result<Vec<UdpSocket>> = parties.iter().map(open).collect();
        let is_flow = |&(from, to): &(usize, usize)| {
            from != to && parties[from].network == parties[to].network
        };
        let pairs =
            (0..parties.len()).flat_map(|from| (0..parties.len()).map(move |to| (from, to)));
        let flows: Vec<Flow> = pairs
            .filter(is_flow)
            .map(|(from, to)| Flow { from, to, arrived: Vec::new() })
            .collect();
        if flows.is_empty() {
            bail!("nobody has anybody to send to");
        }
        let (parties, tally) = (parties.to_vec(), Tally::default());
        let run = Run { parties, sockets: sockets?, flows, tally };
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = thread::spawn(move || run.until(&seen, interval));
        Ok(Self { stop, thread })
    }

    /// Stops sending, waits for what is on its way, and counts.
    pub fn stop(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the traffic panicked"))?
    }
}

fn open(party: &Party) -> Result<UdpSocket> {
    let socket = party.netns.enter(|| {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("cannot open a UDP socket")
    })?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    Ok(socket)
}

impl Run {
    fn until(mut self, stop: &AtomicBool, interval: Duration) -> Result<Tally> {
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            self.send()?;
            self.receive()?;
            next += interval;
            #[expect(clippy::disallowed_methods, reason = "it keeps the pace of the traffic")]
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let end = Instant::now() + STRAGGLERS;
        while Instant::now() < end && !self.has_all() {
            self.receive()?;
            thread::yield_now();
        }
        Ok(self.count())
    }

    fn send(&mut self) -> Result<()> {
        for (number, flow) in self.flows.iter_mut().enumerate() {
            let packet = packet(number, flow.arrived.len());
            let to = SocketAddr::from((self.parties[flow.to].address, PORT));
            // A packet that the sender's own kernel refuses counts as lost.
            match self.sockets[flow.from].send_to(&packet, to) {
                Ok(_) => {}
                Err(error) if is_of_the_way(error.kind()) => {}
                Err(error) => return Err(error).context("cannot send a tagged packet"),
            }
            flow.arrived.push(false);
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        let mut bytes = [0; 256];
        for place in 0..self.sockets.len() {
            loop {
                match self.sockets[place].recv_from(&mut bytes) {
                    Ok((length, source)) => self.note(place, &bytes[..length], source.ip()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // The answer to an earlier packet: it counts as lost.
                    Err(error) if is_of_the_way(error.kind()) => {}
                    Err(error) => return Err(error).context("cannot receive tagged packets"),
                }
            }
        }
        Ok(())
    }

    /// Notes a packet that reached a party.
    fn note(&mut self, place: usize, bytes: &[u8], source: IpAddr) {
        let tag = tag(bytes);
        let flow = tag.and_then(|(flow, _)| self.flows.get_mut(flow));
        let (Some((_, number)), Some(flow)) = (tag, flow) else {
            return self.misdelivered(format!(
                "{} got {} bytes without a tag from {source}",
                self.parties[place].name,
                bytes.len()
            ));
        };
        let [from, to, by] = [flow.from, flow.to, place].map(|place| &self.parties[place]);
        if flow.to != place || source != IpAddr::V4(from.address) {
            return self.misdelivered(format!(
                "{} got packet {number} of {} to {}, from {source}",
                by.name, from.name, to.name
            ));
        }
        match flow.arrived.get_mut(number) {
            Some(true) => self.tally.doubled += 1,
            Some(arrived) => *arrived = true,
            None => self.misdelivered(format!("packet {number} was never sent")),
        }
    }

    fn misdelivered(&mut self, what: String) {
        self.tally.misdelivered += 1;
        if self.tally.examples.len() < TOLD_OF {
            self.tally.examples.push(what);
        }
    }

    fn has_all(&self) -> bool {
        self.flows.iter().all(|flow| flow.arrived.iter().all(|&arrived| arrived))
    }

    fn count(self) -> Tally {
        let Self { parties, sockets: _, flows, mut tally } = self;
        for flow in &flows {
            let missing: Vec<usize> =
                (0..flow.arrived.len()).filter(|&number| !flow.arrived[number]).collect();
            tally.sent += flow.arrived.len() as u64;
            tally.lost += missing.len() as u64;
            if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
                let [from, to] = [flow.from, flow.to].map(|place| &parties[place].name);
                let of = flow.arrived.len();
                tally.examples.push(format!(
                    "{from} to {to}: {} lost, from packet {first} to {last} of {of}",
                    missing.len()
                ));
            }
        }
        tally
    }
}

/// Errors that tell of the way and not of the socket.
fn is_of_the_way(kind: ErrorKind) -> bool {
    use ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, WouldBlock};
    matches!(kind, ConnectionRefused | HostUnreachable | NetworkUnreachable | WouldBlock)
}

fn packet(flow: usize, number: usize) -> [u8; 20] {
    let mut packet = [0; 20];
    packet[..4].copy_from_slice(&MAGIC);
    packet[4..12].copy_from_slice(&(flow as u64).to_be_bytes());
    packet[12..].copy_from_slice(&(number as u64).to_be_bytes());
    packet
}

/// The number of a packet's flow, and its own.
fn tag(bytes: &[u8]) -> Option<(usize, usize)> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (flow, number) = rest.split_first_chunk::<8>()?;
    let number = u64::from_be_bytes(number.try_into().ok()?);
    let flow = u64::from_be_bytes(*flow);
    (*magic == MAGIC).then_some((usize::try_from(flow).ok()?, usize::try_from(number).ok()?))
}

#[cfg(test)]
mod tests;
