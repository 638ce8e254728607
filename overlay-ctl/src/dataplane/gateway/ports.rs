//! Ports of the host: finds the free ones, and reserves those that are published.
//!
//! A packet to a published port is rewritten before the host's own sockets could see it. A program that
//! listened on such a port would never get a connection. Therefore a socket of the node binds each
//! published port, and the program gets the error that the port is in use.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{Ipv4Addr, SocketAddrV4},
    num::NonZeroU16,
    ops::RangeInclusive,
};

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    dataplane::kernel::HostPort,
    model::{FIRST_FREE_PORT, Transport},
};

/// Bytes of a receive buffer, which the kernel raises to its minimum (`SOCK_MIN_RCVBUF`): nothing is ever
/// read from these sockets.
const LEAST_BUFFER: usize = 1;
/// Tables of the sockets in a thread's network namespace, and the protocol of each.
const SOCKETS: [(&str, Transport); 4] = [
    ("tcp", Transport::Tcp),
    ("tcp6", Transport::Tcp),
    ("udp", Transport::Udp),
    ("udp6", Transport::Udp),
];

/// So many free TCP ports are tried before they are given out.
const TRIED: usize = 16;
/// The ports that the host gives to nobody who asks for any, as "1-3,5".
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
/// The first and the last of the ports that the host gives to whoever asks for any.
const LOCAL_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The reason why a port of the host cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PortTaken {
    /// Another program has the port.
    #[error(
        "{transport} port {port} of {} is in use by another program (`ss -anp sport = :{port}` shows which): stop it, or publish another port{}", place(.address), range_hint(*.in_local_range)
    )]
    Bound {
        /// Protocol.
        transport: Transport,
        /// The host's address; 0.0.0.0 = all.
        address: Ipv4Addr,
        /// The port.
        port: NonZeroU16,
        /// The host gives such ports to its own connections.
        in_local_range: bool,
    },
    /// The host has no such address.
    #[error(
        "port {port} can't be published on {address}: no device of this host has that address (`ip addr` shows those it has)"
    )]
    NoSuchAddress {
        /// The address that was asked for.
        address: Ipv4Addr,
        /// The port.
        port: NonZeroU16,
    },
    /// The node receives VXLAN on the port: `from_underlay` takes each packet to it for VXLAN, and no endpoint would get
    /// one.
    #[error("udp port {0} is this host's VXLAN port: publish another port")]
    Vxlan(NonZeroU16),
    /// Binding failed for another reason.
    #[error("{transport} port {port} of {} could not be bound", place(.address))]
    System {
        /// Protocol.
        transport: Transport,
        /// The host's address; 0.0.0.0 = all.
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

fn range_hint(in_local_range: bool) -> &'static str {
    if in_local_range {
        "; the host takes such ports for its own connections too, unless net.ipv4.ip_local_reserved_ports has them"
    } else {
        ""
    }
}

/// Tells if the host must already have the address that is bound.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AddressPresence {
    Required,
    /// The address may be added later, for example to a device that is not up yet.
    Optional,
}

/// Binds a socket to the port. `None` if the kernel has no SCTP, so that no program can take the port.
fn bind(
    (transport, address, port): HostPort,
    presence: AddressPresence,
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
        // SO_REUSEADDR, so that the port is not held by connections of a program that is gone, which stay
        // in TIME_WAIT for a minute. It is switched off below, because a program that sets it, as servers
        // do, could else listen on the same port. UDP has no TIME_WAIT, and two UDP sockets that both set
        // the option would share the port.
        let reuse = transport == Transport::Tcp;
        socket.set_reuse_address(reuse)?;
        socket.set_freebind_v4(presence == AddressPresence::Optional)?;
        socket.bind(&SocketAddrV4::new(address, port.get()).into())?;
        if reuse {
            socket.set_reuse_address(false)?;
        }
        Ok(Some(socket))
    };
    bound().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => {
            let in_local_range = local_range().is_some_and(|range| range.contains(&port.get()));
            PortTaken::Bound { transport, address, port, in_local_range }
        }
        io::ErrorKind::AddrNotAvailable => PortTaken::NoSuchAddress { address, port },
        _ => PortTaken::System { transport, address, port, source },
    })
}

fn is_unknown_protocol(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT))
}

/// Ports from 32768 up that a socket of this host is bound to. They are not given when no port is asked
/// for. TCP sockets that are bound but neither listen nor are connected are missing, because the kernel
/// lists them nowhere.
#[must_use]
pub fn busy_ports() -> BTreeSet<(Transport, NonZeroU16)> {
    let mut busy = BTreeSet::new();
    for (table, transport) in SOCKETS {
        // The tables of IPv6 are absent if the kernel has no IPv6. The thread's tables are read, not the
        // process's, because the threads of a process may be in several namespaces.
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}"));
        let text = text.unwrap_or_default();
        busy.extend(text.lines().filter_map(local_port).map(|port| (transport, port)));
    }
    let text = fs::read_to_string("/proc/thread-self/net/sctp/eps").unwrap_or_default();
    busy.extend(text.lines().filter_map(sctp_port).map(|port| (Transport::Sctp, port)));
    busy.retain(|(_, port)| port.get() >= FIRST_FREE_PORT);
    busy
}

/// Ports from 32768 up that the host keeps for a purpose: they are published only if they are asked for.
fn reserved_ports() -> BTreeSet<NonZeroU16> {
    // /proc/sys/net shows the parameters of the reading thread's namespace.
    let text = fs::read_to_string(RESERVED).unwrap_or_default();
    let ranges = text.trim().split(',').filter_map(port_range);
    ranges
        .flat_map(|range| (*range.start()).max(FIRST_FREE_PORT)..=*range.end())
        .filter_map(NonZeroU16::new)
        .collect()
}

/// Parses "5" or "1-3".
fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

fn local_range() -> Option<RangeInclusive<u16>> {
    let text = fs::read_to_string(LOCAL_RANGE).ok()?;
    let mut ends = text.split_whitespace().map(str::parse);
    Some(ends.next()?.ok()?..=ends.next()?.ok()?)
}

/// The local port in a line "  0: 0100007F:1F90 00000000:0000 0A ...".
fn local_port(line: &str) -> Option<NonZeroU16> {
    let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
    NonZeroU16::new(u16::from_str_radix(port, 16).ok()?)
}

/// The local port in a line " ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS".
fn sctp_port(line: &str) -> Option<NonZeroU16> {
    line.split_whitespace().nth(5)?.parse().ok()
}

/// The published ports that the node keeps bound.
#[derive(Debug, Default)]
pub struct Reservations {
    /// `None` = held without a socket, because the kernel lacks the protocol.
    held: BTreeMap<HostPort, Option<Socket>>,
    /// The UDP port that the node receives VXLAN on. No socket has it, because the programs take the packets.
    vxlan: Option<NonZeroU16>,
}

impl Reservations {
    /// No port is reserved yet. `vxlan_port` is never published on UDP.
    #[must_use]
    pub fn new(vxlan_port: u16) -> Self {
        Self { held: BTreeMap::new(), vxlan: NonZeroU16::new(vxlan_port) }
    }

    /// Ports from 32768 up that are not given when no port is asked for: see [`busy_ports`], the VXLAN port, those that
    /// the host's `net.ipv4.ip_local_reserved_ports` has, and TCP ports of the first ones that cannot be bound.
    #[must_use]
    pub fn busy(&self) -> BTreeSet<(Transport, NonZeroU16)> {
        let mut busy = busy_ports();
        let vxlan = self.vxlan.filter(|port| port.get() >= FIRST_FREE_PORT);
        busy.extend(vxlan.map(|port| (Transport::Udp, port)));
        for port in reserved_ports() {
            busy.extend([Transport::Tcp, Transport::Udp, Transport::Sctp].map(|of| (of, port)));
        }
        // The kernel lists a TCP port nowhere whose program neither listens nor is connected.
        let held = |port| self.held.keys().any(|held| held.0 == Transport::Tcp && held.2 == port);
        let mut tried = 0;
        for port in (FIRST_FREE_PORT..=u16::MAX).filter_map(NonZeroU16::new) {
            let key = (Transport::Tcp, port);
            if tried == TRIED || busy.contains(&key) || held(port) {
                continue;
            }
            let any = (Transport::Tcp, Ipv4Addr::UNSPECIFIED, port);
            match bind(any, AddressPresence::Required) {
                Ok(_) => tried += 1,
                Err(PortTaken::Bound { .. }) => _ = busy.insert(key),
                // The others would fail in the same way.
                Err(_) => break,
            }
        }
        busy
    }

    fn bind(&self, port: HostPort, presence: AddressPresence) -> Result<Option<Socket>, PortTaken> {
        match port {
            (Transport::Udp, _, number) if Some(number) == self.vxlan => {
                Err(PortTaken::Vxlan(number))
            }
            _ => bind(port, presence),
        }
    }

    /// Reserves `wanted`, releases all other ports, and returns those that could not be reserved, which the
    /// next call tries again. A port on an address that the host does not have (yet) is reserved too.
    pub fn hold(&mut self, wanted: &BTreeSet<HostPort>) -> Vec<PortTaken> {
        // Ports are released first, because they may conflict with the wanted ones.
        self.held.retain(|port, _| wanted.contains(port));
        let mut missing = Vec::new();
        for port in wanted {
            if !self.held.contains_key(port) {
                match self.bind(*port, AddressPresence::Optional) {
                    Ok(socket) => {
                        self.held.insert(*port, socket);
                    }
                    Err(error) => missing.push(error),
                }
            }
        }
        missing
    }

    /// Checks that all of `ports` could be published: no program of this host has one of them on an address
    /// where it would be published. Ports that are reserved here count as free, because the controller
    /// decides about conflicts between endpoints, and an endpoint that is created again must get its own
    /// port again.
    ///
    /// # Errors
    /// The first port that cannot be published.
    pub fn check_free(&mut self, ports: &BTreeSet<HostPort>) -> Result<(), PortTaken> {
        for port in ports {
            if self.held.keys().any(|held| covers(*held, *port)) {
                continue;
            }
            // The node's own reservations of the port on single addresses are released for the moment of
            // the check, because they would conflict with it.
            let ours: BTreeSet<HostPort> =
                self.held.keys().copied().filter(|held| covers(*port, *held)).collect();
            self.held.retain(|held, _| !ours.contains(held));
            let outcome = self.bind(*port, AddressPresence::Required);
            let free = outcome.map(drop);
            for port in ours {
                // If another program took the port in these microseconds, the next `hold` reports it.
                if let Ok(socket) = bind(port, AddressPresence::Optional) {
                    self.held.insert(port, socket);
                }
            }
            free?;
        }
        Ok(())
    }
}

/// Returns true if no other program can bind `inner` while `outer` is bound.
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

    #[test]
    fn ranges_are_read_as_the_kernel_writes_them() {
        assert_eq!(port_range("5"), Some(5..=5));
        assert_eq!(port_range("32768-40000"), Some(32768..=40000));
        for bad in ["", "-", "1-", "65536", "a-b"] {
            assert_eq!(port_range(bad), None, "{bad:?}");
        }
    }
}
