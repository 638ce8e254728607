//! Reservations of host ports, tested with real sockets.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use overlay_ctl::{
    dataplane::{
        gateway::{PortTaken, Reservations, busy_ports},
        kernel::HostPort,
    },
    model::Transport::{Sctp, Tcp, Udp},
};
use socket2::{Domain, Socket, Type};

use crate::{
    gateway::{inside, port},
    lab::{Netns, skip},
};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn one(
    transport: overlay_ctl::model::Transport,
    host: Ipv4Addr,
    number: u16,
) -> BTreeSet<HostPort> {
    BTreeSet::from([(transport, host, port(number))])
}

/// Checks ports as a node does that has reserved none yet.
fn check_free(ports: &BTreeSet<HostPort>) -> Result<(), PortTaken> {
    Reservations::default().check_free(ports)
}

fn all<const N: usize>(ports: [BTreeSet<HostPort>; N]) -> BTreeSet<HostPort> {
    ports.into_iter().flatten().collect()
}

/// Makes a namespace whose only addresses are localhost's and 10.0.0.1.
fn host() -> Netns {
    let host = Netns::new("host");
    host.sh("ip addr add 10.0.0.1/32 dev lo");
    host
}

fn dual_stack(number: u16, only_v6: bool) -> Socket {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_only_v6(only_v6).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([0u16; 8], number)).into()).unwrap();
    socket.listen(1).unwrap();
    socket
}

#[test]
fn a_port_that_a_program_has_is_found() {
    if skip() {
        return;
    }
    let host = host();
    inside(&host, || {
        let taken =
            |ports: &BTreeSet<HostPort>| matches!(check_free(ports), Err(PortTaken::Bound { .. }));
        for address in [ANY, LOCAL, Ipv4Addr::new(10, 0, 0, 1)] {
            let listener = TcpListener::bind((address, 8080)).unwrap();
            assert!(taken(&one(Tcp, ANY, 8080)), "listening on {address}");
            assert!(taken(&one(Tcp, address, 8080)));
            check_free(&one(Udp, ANY, 8080)).unwrap();
            check_free(&one(Tcp, ANY, 8081)).unwrap();
            drop(listener);
            let socket = UdpSocket::bind((address, 8080)).unwrap();
            assert!(taken(&one(Udp, ANY, 8080)), "bound to {address}");
            check_free(&one(Tcp, ANY, 8080)).unwrap();
            drop(socket);
            check_free(&one(Udp, ANY, 8080)).unwrap();
        }
        let elsewhere = TcpListener::bind((LOCAL, 8080)).unwrap();
        check_free(&one(Tcp, Ipv4Addr::new(10, 0, 0, 1), 8080)).unwrap();
        drop(elsewhere);
        let both = dual_stack(8080, false);
        assert!(taken(&one(Tcp, ANY, 8080)), "[::] takes IPv4 too");
        assert!(taken(&one(Tcp, LOCAL, 8080)));
        drop(both);
        let v6 = dual_stack(8080, true);
        check_free(&one(Tcp, ANY, 8080)).unwrap();
        drop(v6);
        check_free(&one(Sctp, ANY, 8080)).unwrap();
        let error = check_free(&one(Tcp, Ipv4Addr::new(192, 0, 2, 1), 8080)).unwrap_err();
        assert!(matches!(error, PortTaken::NoSuchAddress { .. }), "{error}");
        let _listener = TcpListener::bind((ANY, 8080)).unwrap();
        let two = all([one(Tcp, ANY, 8079), one(Tcp, ANY, 8080)]);
        let error = check_free(&two).unwrap_err().to_string();
        assert!(error.contains("tcp port 8080 of this host"), "{error}");
    });
}

#[test]
fn what_a_program_left_behind_does_not_hold_a_port() {
    if skip() {
        return;
    }
    let host = host();
    inside(&host, || {
        let listener = TcpListener::bind((ANY, 8080)).unwrap();
        let mut client = TcpStream::connect((LOCAL, 8080)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"bye").unwrap();
        // The side that closes first lingers, which is the one at the checked port.
        drop((server, listener));
        client.read_to_end(&mut Vec::new()).unwrap();
        drop(client);
        let lingers = || std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
        assert!(lingers().contains(":1F90 "), "{}", lingers());
        check_free(&one(Tcp, ANY, 8080)).unwrap();
    });
}

#[test]
fn a_port_that_is_kept_is_nobody_elses() {
    if skip() {
        return;
    }
    let host = host();
    inside(&host, || {
        let mut kept = Reservations::default();
        let wanted = all([one(Tcp, ANY, 8080), one(Udp, LOCAL, 53), one(Sctp, ANY, 99)]);
        assert!(kept.hold(&wanted).is_empty());
        assert!(kept.hold(&wanted).is_empty(), "again: nothing to do");
        // Binding fails although std sets SO_REUSEADDR, as servers do.
        assert!(TcpListener::bind((ANY, 8080)).is_err());
        assert!(TcpListener::bind((LOCAL, 8080)).is_err());
        assert!(UdpSocket::bind((ANY, 53)).is_err());
        // A reserved port accepts no connection.
        assert!(TcpStream::connect((LOCAL, 8080)).is_err());

        // The first address may be added to the host later. The second port is in use.
        let other = TcpListener::bind((LOCAL, 9000)).unwrap();
        let more = all([one(Tcp, Ipv4Addr::new(192, 0, 2, 1), 80), one(Tcp, ANY, 9000)]);
        let missing = kept.hold(&more);
        assert!(matches!(missing[..], [PortTaken::Bound { .. }]), "{missing:?}");
        drop(other);
        assert!(kept.hold(&more).is_empty(), "tried again");
        drop(TcpListener::bind((ANY, 8080)).unwrap());
        drop(UdpSocket::bind((ANY, 53)).unwrap());
    });
}

#[test]
fn ports_that_the_node_keeps_are_its_own() {
    if skip() {
        return;
    }
    let host = host();
    inside(&host, || {
        let mut kept = Reservations::default();
        let wanted = all([one(Tcp, ANY, 8080), one(Udp, ANY, 53), one(Tcp, LOCAL, 9000)]);
        assert!(kept.hold(&wanted).is_empty());
        assert!(check_free(&wanted).is_err(), "a stranger to the reservations");
        kept.check_free(&wanted).unwrap();
        kept.check_free(&one(Tcp, LOCAL, 8080)).unwrap();
        // The port is reserved on one address and requested on all, while others may use it on the rest.
        kept.check_free(&one(Tcp, ANY, 9000)).unwrap();
        assert!(TcpListener::bind((LOCAL, 9000)).is_err(), "kept again");
        let other = TcpListener::bind((Ipv4Addr::new(10, 0, 0, 1), 9000)).unwrap();
        assert!(kept.check_free(&one(Tcp, ANY, 9000)).is_err());
        assert!(TcpListener::bind((LOCAL, 9000)).is_err(), "kept again");
        kept.check_free(&one(Tcp, LOCAL, 9000)).unwrap();
        drop(other);
    });
}

#[test]
fn what_comes_to_a_kept_udp_port_does_not_pile_up() {
    if skip() {
        return;
    }
    let host = host();
    inside(&host, || {
        let mut kept = Reservations::default();
        assert!(kept.hold(&one(Udp, ANY, 5353)).is_empty());
        let client = UdpSocket::bind((LOCAL, 0)).unwrap();
        for _ in 0..200 {
            client.send_to(&[0; 1000], (LOCAL, 5353)).unwrap();
        }
        let table = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap();
        let line = table.lines().find(|line| line.contains(":14E9 ")).unwrap();
        let queue = line.split_whitespace().nth(4).unwrap().split_once(':').unwrap().1;
        let bytes = u32::from_str_radix(queue, 16).unwrap();
        assert!(bytes < 8192, "{bytes} bytes wait for nobody");
    });
}

#[test]
fn ports_in_use_are_not_given_out() {
    if skip() {
        return;
    }
    let host = host();
    inside(&host, || {
        assert_eq!(busy_ports(), BTreeSet::new());
        let _low = TcpListener::bind((ANY, 8080)).unwrap();
        let _tcp = TcpListener::bind((LOCAL, 40000)).unwrap();
        let _tcp6 = dual_stack(40001, false);
        let _udp = UdpSocket::bind((ANY, 40002)).unwrap();
        let expected = [(Tcp, 40000), (Tcp, 40001), (Udp, 40002)];
        let expected = expected.map(|(transport, number)| (transport, port(number)));
        assert_eq!(busy_ports(), BTreeSet::from(expected));
    });
}

#[test]
fn ports_that_the_host_keeps_or_that_cannot_be_bound_are_not_given_out() {
    if skip() {
        return;
    }
    let host = host();
    inside(&host, || {
        // The kernel lists this socket nowhere.
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        bound.bind(&SocketAddr::from((ANY, 32769)).into()).unwrap();
        let mut kept = Reservations::default();
        assert!(kept.hold(&one(Tcp, ANY, 32770)).is_empty());
        // Ports that the node itself holds are the controller's to decide about.
        assert_eq!(kept.busy(), [(Tcp, port(32769))].into());
        drop(bound);
        let reserve = |ports: &str| {
            std::fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", ports).unwrap();
        };
        reserve("80,32760-32768,40000");
        let expected = [32768, 40000].map(|number| [Tcp, Udp, Sctp].map(|of| (of, port(number))));
        assert_eq!(kept.busy(), expected.into_iter().flatten().collect());
        // They are kept for whoever asks for them by number.
        kept.check_free(&one(Tcp, ANY, 40000)).unwrap();
        reserve("\n");
        assert_eq!(kept.busy(), BTreeSet::new());
    });
}

#[test]
fn a_port_that_the_hosts_own_connection_has_is_refused_with_the_way_out() {
    if skip() {
        return;
    }
    let host = host();
    inside(&host, || {
        let server = TcpListener::bind((LOCAL, 8080)).unwrap();
        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let taken = client.local_addr().unwrap().port();
        let said = check_free(&one(Tcp, LOCAL, taken)).unwrap_err().to_string();
        assert!(said.contains("ip_local_reserved_ports"), "{said}");
        let said = check_free(&one(Tcp, LOCAL, 8080)).unwrap_err().to_string();
        assert!(!said.contains("ip_local_reserved_ports"), "{said}");
        // The node's own reservation keeps the port from the host's connections.
        let mut kept = Reservations::default();
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50001").unwrap();
        assert!(kept.hold(&all([one(Tcp, ANY, 50000), one(Udp, ANY, 50000)])).is_empty());
        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        assert_eq!(client.local_addr().unwrap().port(), 50001);
        let client = UdpSocket::bind((ANY, 0)).unwrap();
        assert_eq!(client.local_addr().unwrap().port(), 50001);
    });
}

#[test]
fn the_vxlan_port_is_never_published_on_udp() {
    if skip() {
        return;
    }
    let host = host();
    inside(&host, || {
        let mut kept = Reservations::new(4789);
        let refused = kept.check_free(&one(Udp, ANY, 4789)).unwrap_err();
        let said = "udp port 4789 is this host's VXLAN port: publish another port";
        assert_eq!(refused.to_string(), said);
        assert!(matches!(kept.hold(&one(Udp, LOCAL, 4789))[..], [PortTaken::Vxlan(_)]));
        kept.check_free(&one(Tcp, ANY, 4789)).unwrap();
        // A request for any free port does not get this one either.
        assert!(Reservations::new(40_000).busy().contains(&(Udp, port(40_000))));
    });
}
