//! Decides which tracked connections must end. No I/O.
//!
//! NAT is decided by a connection's first packet, and holds until the connection ends. So a connection outlives what it
//! was decided by: the leg that it leads to, the target of the port that it came by, the absence of the rules that would
//! have masqueraded it. The next packet of a connection that is deleted is decided anew: it goes where a new connection
//! goes, or gets the answer of a host that knows no such connection, which is a reset.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::{
    contents::protocol_number,
    flow::{Direction, Flow},
    suspicion::{Suspicion, target},
};
use crate::{
    dataplane::kernel::PublishedPorts,
    model::{Subnet, Transport},
};

/// What connections are compared with.
pub(super) struct Truth<'a> {
    pub(super) suspicion: &'a Suspicion<'a>,
    /// The gateway bridge's.
    pub(super) subnet: Subnet,
    /// The addresses of the legs.
    pub(super) legs: &'a BTreeSet<Ipv4Addr>,
    pub(super) published: &'a PublishedPorts,
    /// The host's addresses.
    pub(super) local: &'a BTreeSet<Ipv4Addr>,
}

impl Truth<'_> {
    /// Returns true if the connection must end. Connections of others never are.
    pub(super) fn is_stale(&self, flow: &Flow) -> bool {
        self.has_no_leg(flow) || self.goes_astray(flow) || self.lacks_masquerade(flow)
    }

    /// One of its ends was a leg that is gone.
    fn has_no_leg(&self, flow: &Flow) -> bool {
        let Direction { source, destination } = flow.original;
        let ends = [source, destination, flow.reply.source, flow.reply.destination];
        ends.iter().any(|end| self.suspicion.gone.contains(&end.address))
            // A connection without NAT may be the host's own, to a network that has the same addresses.
            || self.suspicion.is_whole
                && flow.is_translated()
                && [source, flow.reply.source].iter().any(|end| self.is_nobodys(end.address))
    }

    /// It came to a port of the host, and goes elsewhere than the port leads.
    fn goes_astray(&self, flow: &Flow) -> bool {
        let asked = flow.original.destination;
        let Some(transport) = transport(flow.protocol) else { return false };
        let Ok(number) = asked.port.try_into() else { return false };
        // A connection to another host, as an endpoint's query to port 53 of a DNS server, does not concern the
        // same port of this host.
        if !self.is_local(asked.address) {
            return false;
        }
        let keys = [asked.address, Ipv4Addr::UNSPECIFIED].map(|host| (transport, host, number));
        let leads = keys.iter().find_map(|key| target(self.published, key));
        let mut former = keys.iter().filter_map(|key| self.suspicion.moved.get(key));
        let is_suspect =
            self.suspicion.is_whole && leads.is_some() || former.clone().next().is_some();
        let goes = flow.reply.source;
        if !is_suspect || goes == leads.unwrap_or(asked) {
            return false;
        }
        if goes == asked {
            // The host itself has it. A connection that a program of the host holds is not ours to end, and a new one
            // is decided anew by its handshake.
            return !flow.is_connected();
        }
        // Others may translate the same port, of another address of the host.
        self.is_on_bridge(goes.address) || former.any(|former| *former == Some(goes))
    }

    /// It began while the rules were away, and leaves with the address of a leg or of localhost.
    fn lacks_masquerade(&self, flow: &Flow) -> bool {
        let source = flow.original.source;
        // Another address would end a connection that works, as where a router behind this host masquerades too.
        if !self.suspicion.is_whole || flow.reply.destination != source || flow.is_connected() {
            return false;
        }
        let goes = flow.reply.source;
        let by_published_port =
            goes != flow.original.destination && self.is_on_bridge(goes.address);
        if self.is_on_bridge(source.address) {
            by_published_port || !(self.is_on_bridge(goes.address) || self.is_here(goes.address))
        } else {
            by_published_port && source.address.is_loopback()
        }
    }

    /// Returns true for an address that only a leg can have.
    fn is_on_bridge(&self, address: Ipv4Addr) -> bool {
        self.subnet.net().contains(&address) && address != self.subnet.gateway()
    }

    fn is_nobodys(&self, address: Ipv4Addr) -> bool {
        self.is_on_bridge(address) && !self.legs.contains(&address)
    }

    fn is_local(&self, address: Ipv4Addr) -> bool {
        address.is_loopback() || self.local.contains(&address)
    }

    /// Returns true for an address of the host, the bridge's included.
    fn is_here(&self, address: Ipv4Addr) -> bool {
        self.is_local(address) || address == self.subnet.gateway()
    }
}

fn transport(protocol: u8) -> Option<Transport> {
    let all = [Transport::Tcp, Transport::Udp, Transport::Sctp];
    all.into_iter().find(|transport| protocol_number(*transport) == protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::{
        gateway::{
            flow::tests::end,
            suspicion::{PARTS_MAX, Part, Shift},
        },
        kernel::{DeviceId, DeviceKind, HostPort, Legs, Target},
    };

    const TCP: u8 = 6;
    const UDP: u8 = 17;
    const ICMP: u8 = 1;
    const SCTP: u8 = 132;
    const UDP_LITE: u8 = 136;

    /// A connection that answers come back by; its handshake is over.
    fn flow(protocol: u8, original: [&str; 2], reply: [&str; 2]) -> Flow {
        let direction = |[source, destination]: [&str; 2]| Direction {
            source: end(source),
            destination: end(destination),
        };
        let (original, reply) = (direction(original), direction(reply));
        Flow { protocol, original, reply, is_assured: true }
    }

    fn plain(protocol: u8, source: &str, destination: &str) -> Flow {
        flow(protocol, [source, destination], [destination, source])
    }

    fn begun(flow: Flow) -> Flow {
        Flow { is_assured: false, ..flow }
    }

    /// A client outside, by port 8080 of the host, at port 80 of the leg.
    fn published_to(protocol: u8, leg: &str) -> Flow {
        let (client, leg) = ("10.0.0.9:40000", format!("{leg}:80"));
        flow(protocol, [client, "10.0.0.1:8080"], [&leg, client])
    }

    /// A leg's connection to the outside, masqueraded.
    fn out(protocol: u8, leg: &str) -> Flow {
        let (leg, server) = (format!("{leg}:5000"), "10.0.0.9:9999");
        flow(protocol, [&leg, server], [server, "10.0.0.1:5000"])
    }

    fn leg(last: u8) -> (DeviceId, Ipv4Addr) {
        let id = DeviceId { kind: DeviceKind::Leg, number: last.into() };
        (id, Ipv4Addr::new(172, 18, 0, last))
    }

    fn port(transport: Transport, host: &str, to: &str) -> (HostPort, Target) {
        let (host, to) = (end(host), end(to));
        let port = |number: u16| number.try_into().unwrap();
        let target = Target { address: to.address, port: port(to.port), comment: String::new() };
        ((transport, host.address, port(host.port)), target)
    }

    /// The node has web at 172.18.0.2 and db at 172.18.0.3.
    struct World {
        before: Option<Legs>,
        legs: Legs,
        published: PublishedPorts,
        shift: Shift,
    }

    impl World {
        /// Nothing has changed.
        fn new() -> Self {
            let legs: Legs = [leg(2), leg(3)].into();
            let published = [port(Transport::Tcp, "0.0.0.0:8080", "172.18.0.2:80")].into();
            Self { before: Some(legs.clone()), legs, published, shift: Shift::default() }
        }

        fn publish(mut self, now: impl IntoIterator<Item = (HostPort, Target)>) -> Self {
            let now = now.into_iter().collect();
            self.shift.add(&self.published, &now);
            Self { published: now, ..self }
        }

        fn rewritten(mut self) -> Self {
            self.shift.is_rewritten = true;
            self
        }

        fn suspicion(&self) -> Suspicion<'_> {
            Suspicion::new(self.before.as_ref(), &self.legs, &self.shift)
        }

        #[track_caller]
        fn check(&self, stale: &[Flow], live: &[Flow]) {
            let suspicion = self.suspicion();
            let local: BTreeSet<_> =
                ["10.0.0.1", "172.18.0.1", "10.1.0.1"].map(|a| a.parse().unwrap()).into();
            let legs = self.legs.values().copied().collect();
            let truth = Truth {
                suspicion: &suspicion,
                subnet: "172.18.0.0/16".parse().unwrap(),
                legs: &legs,
                published: &self.published,
                local: &local,
            };
            for flow in stale {
                assert!(truth.is_stale(flow), "must end: {flow:?}");
            }
            for flow in live {
                assert!(!truth.is_stale(flow), "must live: {flow:?}");
            }
        }
    }

    /// What is never ours to end.
    fn of_others() -> Vec<Flow> {
        let docker = |host| flow(TCP, ["10.0.0.9:4", host], ["172.17.0.2:80", "10.0.0.9:4"]);
        vec![
            docker("10.1.0.1:8080"),
            docker("10.1.0.1:81"),
            Flow { protocol: UDP, ..docker("10.1.0.1:8080") },
            plain(TCP, "10.0.0.9:40000", "10.0.0.1:22"),
            plain(TCP, "10.0.0.1:50000", "10.0.0.9:8080"),
            plain(UDP, "10.0.0.1:8080", "10.0.0.9:53"),
            plain(ICMP, "10.0.0.1", "10.0.0.9"),
            flow(TCP, ["172.17.0.2:5", "10.0.0.9:80"], ["10.0.0.9:80", "10.0.0.1:5"]),
        ]
    }

    /// What the legs of the node have.
    fn of_ours() -> Vec<Flow> {
        let legs = ["172.18.0.2", "172.18.0.3"];
        let mut all: Vec<Flow> =
            legs.iter().flat_map(|leg| [TCP, UDP, ICMP].map(|p| out(p, leg))).collect();
        all.push(published_to(TCP, "172.18.0.2"));
        all.push(plain(TCP, "172.18.0.2:5", "172.18.0.1:7"));
        all.push(plain(UDP, "172.18.0.2:5", "10.0.0.1:7"));
        all.push(plain(TCP, "172.18.0.1:5", "172.18.0.2:80"));
        all.push(plain(TCP, "10.0.0.1:5", "172.18.0.3:80"));
        // From a neighbour, and from the host itself.
        let by_port =
            |client: &str| flow(TCP, [client, "10.0.0.1:8080"], ["172.18.0.2:80", "172.18.0.1:5"]);
        all.extend([by_port("172.18.0.3:5"), by_port("127.0.0.1:5")]);
        all
    }

    #[test]
    fn nothing_ends_without_a_reason() {
        let world = World::new();
        assert!(world.suspicion().is_none());
        for world in [world, World::new().rewritten(), World { before: None, ..World::new() }] {
            world.check(&[], &of_others());
            world.check(&[], &of_ours());
        }
    }

    #[test]
    fn a_leg_that_goes_takes_what_it_began_and_what_it_answered() {
        let mut world = World::new();
        world.legs = [leg(3)].into();
        let stale: Vec<Flow> = [TCP, UDP, ICMP, SCTP, UDP_LITE, 47, 33]
            .into_iter()
            .flat_map(|p| [out(p, "172.18.0.2"), published_to(p, "172.18.0.2")])
            .chain([
                plain(TCP, "172.18.0.1:5", "172.18.0.2:80"),
                plain(TCP, "172.18.0.2:5", "172.18.0.1:7"),
                begun(plain(TCP, "172.18.0.2:5", "10.0.0.9:80")),
                flow(UDP, ["172.18.0.3:5", "10.0.0.1:53"], ["172.18.0.2:53", "172.18.0.1:5"]),
            ])
            .collect();
        world.check(&stale, &of_others());
        world.check(&[], &[out(TCP, "172.18.0.3"), plain(TCP, "10.0.0.1:5", "172.18.0.3:80")]);
        let gone = leg(2).1;
        assert_eq!(world.suspicion().parts(), [Part::From(gone), Part::AnsweredBy(gone)]);
    }

    #[test]
    fn the_next_owner_of_an_address_inherits_no_connection() {
        // The next owner is there, and not set up yet.
        let mut world = World::new();
        world.legs = [leg(3)].into();
        world.check(&[out(UDP, "172.18.0.2"), published_to(TCP, "172.18.0.2")], &of_others());
        // One more leg is no reason to look.
        world.before = Some([leg(3)].into());
        world.legs = [leg(2), leg(3)].into();
        assert!(world.suspicion().is_none());
    }

    #[test]
    fn a_port_takes_its_connections_along() {
        let moved = World::new().publish([port(Transport::Tcp, "0.0.0.0:8080", "172.18.0.3:80")]);
        let here = "10.0.0.1:8080";
        moved.check(
            &[published_to(TCP, "172.18.0.2"), begun(plain(TCP, "10.0.0.9:1", here))],
            &[published_to(TCP, "172.18.0.3"), published_to(UDP, "172.18.0.2")],
        );
        moved.check(&[], &of_others());
        assert_eq!(moved.suspicion().parts().len(), 1);
        let gone = World::new().publish([]);
        gone.check(&[published_to(TCP, "172.18.0.2")], &[plain(TCP, "10.0.0.9:1", here)]);
        gone.check(&[], &of_others());
        // The leg's other port is another matter.
        gone.check(
            &[],
            &[flow(TCP, ["10.0.0.9:1", "10.0.0.1:81"], ["172.18.0.2:81", "10.0.0.9:1"])],
        );
    }

    #[test]
    fn what_began_before_a_port_was_published_comes_to_it() {
        let udp = |host: &str| port(Transport::Udp, host, "172.18.0.2:53");
        let to = |host: &str| plain(UDP, "10.0.0.9:4", host);
        let any = World::new().publish([udp("0.0.0.0:53")]);
        any.check(
            &[to("10.0.0.1:53"), to("10.1.0.1:53"), to("127.0.0.1:53")],
            &[to("10.0.0.1:54"), to("10.0.0.9:53"), plain(TCP, "10.0.0.9:4", "10.0.0.1:53")],
        );
        let one = World::new().publish([udp("10.0.0.1:53")]);
        one.check(&[to("10.0.0.1:53")], &[to("10.1.0.1:53")]);
        // A connection that a program of the host still holds is the program's, and a handshake begins anew.
        let tcp = port(Transport::Tcp, "0.0.0.0:53", "172.18.0.2:53");
        let tcp = World::new().publish(World::new().published.into_iter().chain([tcp]));
        assert!(tcp.suspicion().is_none());
        let held = plain(TCP, "10.0.0.9:4", "10.0.0.1:53");
        tcp.rewritten().check(&[begun(held)], &[held]);
        // From one address to all of them: the former key is gone, the connection has a target all the same.
        let wider = one.publish([udp("0.0.0.0:53")]);
        wider.check(&[to("10.0.0.1:53"), to("10.1.0.1:53")], &[]);
    }

    #[test]
    fn what_began_without_the_rules_is_decided_by_them() {
        let stale = [
            plain(UDP, "172.18.0.2:5", "10.0.0.9:53"),
            plain(ICMP, "172.18.0.3", "10.0.0.9"),
            begun(plain(TCP, "172.18.0.2:5", "10.0.0.9:80")),
            begun(plain(SCTP, "172.18.0.2:5", "10.0.0.9:80")),
            flow(UDP, ["172.18.0.3:5", "10.0.0.1:53"], ["172.18.0.2:53", "172.18.0.3:5"]),
            flow(UDP, ["127.0.0.1:5", "127.0.0.1:53"], ["172.18.0.2:53", "127.0.0.1:5"]),
            begun(plain(TCP, "10.0.0.9:5", "10.0.0.1:8080")),
            // Legs that went while nobody looked.
            out(UDP, "172.18.0.77"),
            published_to(TCP, "172.18.0.77"),
        ];
        // The last may be the host's own, to a network with the same addresses.
        let live =
            [plain(TCP, "172.18.0.2:5", "10.0.0.9:80"), plain(TCP, "10.0.0.1:5", "172.18.0.77:80")];
        for world in [World::new().rewritten(), World { before: None, ..World::new() }] {
            assert_eq!(world.suspicion().parts(), [Part::All]);
            world.check(&stale, &live);
        }
        World::new().publish([]).check(&[], &stale[..6]);
    }

    #[test]
    fn the_former_subnet_is_still_ours_where_a_port_led_to_it() {
        let mut world = World { before: None, ..World::new() };
        world.published = [port(Transport::Tcp, "0.0.0.0:8080", "172.30.0.2:80")].into();
        let world = world.publish([port(Transport::Tcp, "0.0.0.0:8080", "172.18.0.2:80")]);
        world.check(&[published_to(TCP, "172.30.0.2"), out(UDP, "172.30.0.2")], &of_others());
    }

    #[test]
    fn many_parts_are_asked_for_as_one() {
        let mut world = World::new();
        for last in 10..14 {
            world.before.as_mut().unwrap().extend([leg(last)]);
        }
        assert_eq!(world.suspicion().parts().len(), PARTS_MAX);
        world.before.as_mut().unwrap().extend([leg(14)]);
        assert_eq!(world.suspicion().parts(), [Part::All]);
    }
}
