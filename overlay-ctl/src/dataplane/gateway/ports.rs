//! Ports of the host: which are free, and keeping those that are published.
//!
//! A packet to a published port is rewritten before the host's own sockets could see it. A program
//! that listened there all the same would wonder why nobody comes: so a published port is bound by a
//! socket of the node, and the program is told that the port is taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{Ipv4Addr, SocketAddrV4},
    num::NonZeroU16,
};

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::model::{FIRST_FREE_PORT, Transport};

/// A port of the host: 0.0.0.0 = on each of its addresses.
pub type HostPort = (Transport, Ipv4Addr, NonZeroU16);

/// The least that the kernel grants (`SOCK_MIN_RCVBUF`): nothing is ever read from these sockets.
const LEAST_BUFFER: usize = 1;
/// Tables of the sockets in a thread's network namespace, and the column of the local address.
const SOCKETS: [(&str, Transport); 4] = [
    ("tcp", Transport::Tcp),
    ("tcp6", Transport::Tcp),
    ("udp", Transport::Udp),
    ("udp6", Transport::Udp),
];

/// A port of the host cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PortTaken {
    /// Another program has it.
    #[error(
        "{transport} port {port} of {} is in use by another program (`ss -lnp sport = :{port}` shows which): stop it, or publish another port", place(.address)
    )]
    Bound {
        /// Protocol.
        transport: Transport,
        /// The host's address; 0.0.0.0 = each.
        address: Ipv4Addr,
        /// The port.
        port: NonZeroU16,
    },
    /// The host has no such address.
    #[error(
        "port {port} can't be published on {address}: no device of this host has that address (`ip addr` shows those it has)"
    )]
    NoSuchAddress {
        /// What was asked for.
        address: Ipv4Addr,
        /// The port.
        port: NonZeroU16,
    },
    /// Binding failed otherwise.
    #[error("{transport} port {port} of {} could not be bound", place(.address))]
    System {
        /// Protocol.
        transport: Transport,
        /// The host's address; 0.0.0.0 = each.
        address: Ipv4Addr,
        /// The port.
        port: NonZeroU16,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

fn place(address: &Ipv4Addr) -> String {
    if address.is_unspecified() { "this host".to_owned() } else { address.to_string() }
}

/// Whether the address must be the host's now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Address {
    MustExist,
    /// It may come later: a device that is not up yet.
    MayCome,
}

/// `None` where there is nothing to bind: the kernel has no SCTP.
fn bind(
    (transport, address, port): HostPort,
    presence: Address,
) -> Result<Option<Socket>, PortTaken> {
    let bound = || -> io::Result<Option<Socket>> {
        let (kind, protocol) = match transport {
            Transport::Tcp => (Type::STREAM, Protocol::TCP),
            Transport::Udp => (Type::DGRAM, Protocol::UDP),
            Transport::Sctp => (Type::STREAM, Protocol::from(libc::IPPROTO_SCTP)),
        };
        let socket = match Socket::new(Domain::IPV4, kind, Some(protocol)) {
            Err(error) if transport == Transport::Sctp && is_unknown_protocol(&error) => {
                return Ok(None);
            }
            made => made?,
        };
        if transport == Transport::Udp {
            socket.set_recv_buffer_size(LEAST_BUFFER)?;
        }
        // With it, connections of a program that is gone, and linger for a minute, don't hold the port.
        // It is taken back below, or a program that sets it, as servers do, could listen beside us. UDP
        // knows no such remains, and sockets that both set it share a port.
        let reuse = transport == Transport::Tcp;
        socket.set_reuse_address(reuse)?;
        socket.set_freebind_v4(presence == Address::MayCome)?;
        socket.bind(&SocketAddrV4::new(address, port.get()).into())?;
        if reuse {
            socket.set_reuse_address(false)?;
        }
        Ok(Some(socket))
    };
    bound().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => PortTaken::Bound { transport, address, port },
        io::ErrorKind::AddrNotAvailable => PortTaken::NoSuchAddress { address, port },
        _ => PortTaken::System { transport, address, port, source },
    })
}

fn is_unknown_protocol(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT))
}

/// Ports from 32768 up that a socket of this host is bound to: not to be given out unasked. Bound TCP
/// sockets that neither listen nor are connected are not among them, the kernel tells of them nowhere.
#[must_use]
pub fn busy_ports() -> BTreeSet<(Transport, NonZeroU16)> {
    let mut busy = BTreeSet::new();
    for (table, transport) in SOCKETS {
        // Absent where the kernel has no IPv6. Of the thread, not the process: threads of a process may
        // be in several namespaces.
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}"));
        let text = text.unwrap_or_default();
        busy.extend(text.lines().filter_map(local_port).map(|port| (transport, port)));
    }
    let text = fs::read_to_string("/proc/thread-self/net/sctp/eps").unwrap_or_default();
    busy.extend(text.lines().filter_map(sctp_port).map(|port| (Transport::Sctp, port)));
    busy.retain(|(_, port)| port.get() >= FIRST_FREE_PORT);
    busy
}

/// Of a line "  0: 0100007F:1F90 00000000:0000 0A ...".
fn local_port(line: &str) -> Option<NonZeroU16> {
    let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
    NonZeroU16::new(u16::from_str_radix(port, 16).ok()?)
}

/// Of a line " ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS".
fn sctp_port(line: &str) -> Option<NonZeroU16> {
    line.split_whitespace().nth(5)?.parse().ok()
}

/// The published ports that the node keeps bound.
#[derive(Debug, Default)]
pub struct Reservations {
    /// `None` = held without a socket: the kernel has none of that protocol.
    held: BTreeMap<HostPort, Option<Socket>>,
}

impl Reservations {
    /// Keeps `wanted`, lets go of all else, and returns those that could not be had, which are tried
    /// again the next time. A port on an address that the host doesn't have (yet) is kept too.
    pub fn hold(&mut self, wanted: &BTreeSet<HostPort>) -> Vec<PortTaken> {
        // First: what is let go may be in the way of what is wanted.
        self.held.retain(|port, _| wanted.contains(port));
        let mut missing = Vec::new();
        for port in wanted {
            if !self.held.contains_key(port) {
                match bind(*port, Address::MayCome) {
                    Ok(socket) => {
                        self.held.insert(*port, socket);
                    }
                    Err(error) => missing.push(error),
                }
            }
        }
        missing
    }

    /// Whether `ports` could all be published: no program of this host has one of them on an address that
    /// it would be published on. Ports that are kept here count as free: whether one endpoint may have what
    /// another has is the controller's to say, and an endpoint that goes and comes is no stranger to
    /// its own port.
    ///
    /// # Errors
    /// The first that can't be published.
    pub fn check_free(&mut self, ports: &BTreeSet<HostPort>) -> Result<(), PortTaken> {
        for port in ports {
            if self.held.keys().any(|held| covers(*held, *port)) {
                continue;
            }
            // What we keep on single addresses of the port is let go for as long as it takes to see
            // whether others are on the rest.
            let ours: BTreeSet<HostPort> =
                self.held.keys().copied().filter(|held| covers(*port, *held)).collect();
            self.held.retain(|held, _| !ours.contains(held));
            let outcome = bind(*port, Address::MustExist);
            let free = outcome.map(drop);
            for port in ours {
                // Lost within microseconds: `hold` says so the next time.
                if let Ok(socket) = bind(port, Address::MayCome) {
                    self.held.insert(port, socket);
                }
            }
            free?;
        }
        Ok(())
    }
}

/// Whether nobody else can have `inner` while somebody has `outer`.
fn covers(outer: HostPort, inner: HostPort) -> bool {
    outer.0 == inner.0 && outer.2 == inner.2 && (outer.1 == inner.1 || outer.1.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_off_the_kernels_tables() {
        let line = "   1: 0100007F:DCBA 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0";
        assert_eq!(local_port(line).unwrap().get(), 0xdcba);
        let line = "  12: 00000000000000000000000000000000:8001 0000000000000000000000:0000 07";
        assert_eq!(local_port(line).unwrap().get(), 0x8001);
        assert_eq!(local_port("  sl  local_address rem_address   st tx_queue rx_queue"), None);
        let line = "ffff8880b1c0a000 ffff8880b1c09000 0   10  29  33333    0 12345 0.0.0.0";
        assert_eq!(sctp_port(line).unwrap().get(), 33333);
        assert_eq!(sctp_port(" ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS"), None);
    }
}
