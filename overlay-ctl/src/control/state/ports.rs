//! Chooses the ports of its node that lead to a new endpoint.

use super::{
    PortsWanted, Refusal, State,
    index::{HostPort, taken_by},
};
use crate::model::{EndpointPort, FIRST_FREE_PORT, Node, Publish, Published, Transport};
use imbl::OrdMap;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    num::NonZeroU16,
};

impl State {
    /// The ports of `node` that lead to an endpoint with these wishes: ports that are asked for by number,
    /// then the lowest free ports for the rest, in the order of the request. Two equal wishes are
    /// one wish.
    pub(super) fn publish(
        &self,
        node: &Node,
        wanted: &PortsWanted,
    ) -> Result<BTreeSet<Published>, Refusal> {
        let mut choice = Choice {
            state: self,
            node,
            busy: &wanted.busy,
            chosen: BTreeMap::new(),
            from: BTreeMap::new(),
        };
        let (asked, free) = wishes(wanted);
        for published in asked {
            choice.ask(published)?;
        }
        for Publish { host, port, .. } in free {
            choice.find(host, port)?;
        }
        Ok(choice.chosen())
    }
}

/// The wishes for a port by its number, and those for any free port.
fn wishes(wanted: &PortsWanted) -> (BTreeSet<Published>, Vec<Publish>) {
    let mut asked = BTreeSet::new();
    let mut free = Vec::new();
    let mut seen = BTreeSet::new();
    for wish in wanted.publish.iter().filter(|wish| seen.insert(**wish)) {
        match wish.host_port {
            Some(host_port) => {
                asked.insert(Published { host: wish.host, host_port, port: wish.port });
            }
            None => free.push(*wish),
        }
    }
    if wanted.publish_all {
        let named: BTreeSet<EndpointPort> = wanted.publish.iter().map(|wish| wish.port).collect();
        let rest = wanted.exposed.difference(&named);
        free.extend(rest.map(|port| Publish {
            host: Ipv4Addr::UNSPECIFIED,
            host_port: None,
            port: *port,
        }));
    }
    (asked, free)
}

struct Choice<'a> {
    state: &'a State,
    node: &'a Node,
    busy: &'a BTreeSet<(Transport, NonZeroU16)>,
    chosen: BTreeMap<HostPort, OrdMap<Ipv4Addr, EndpointPort>>,
    /// No port below this one is free, so that a thousand wishes look at each port only once.
    from: BTreeMap<(Transport, Ipv4Addr), u16>,
}

impl Choice<'_> {
    fn key(&self, transport: Transport, host_port: NonZeroU16) -> HostPort {
        (self.node.id, transport, host_port)
    }

    fn ask(&mut self, published: Published) -> Result<(), Refusal> {
        let Published { host, host_port, port } = published;
        let key = self.key(port.transport, host_port);
        if let Some(other) = self.state.publisher(key, host) {
            return Err(Refusal::HostPortInUse {
                host_port: host_port.get(),
                transport: port.transport,
                node: self.node.name.clone(),
                endpoint: other.name.clone(),
                network: self.state.network_of(other).name.clone(),
            });
        }
        if self.chosen.get(&key).is_some_and(|hosts| taken_by(hosts, host).is_some()) {
            return Err(Refusal::HostPortTwice {
                host_port: host_port.get(),
                transport: port.transport,
            });
        }
        self.chosen.entry(key).or_default().insert(host, port);
        Ok(())
    }

    fn find(&mut self, host: Ipv4Addr, port: EndpointPort) -> Result<(), Refusal> {
        let transport = port.transport;
        let from = self.from.get(&(transport, host)).copied().unwrap_or(FIRST_FREE_PORT);
        let free = |host_port: &NonZeroU16| {
            let key = self.key(transport, *host_port);
            let chosen = self.chosen.get(&key).and_then(|hosts| taken_by(hosts, host));
            !self.busy.contains(&(transport, *host_port))
                && chosen.is_none()
                && self.state.publisher(key, host).is_none()
        };
        let mut ports = (from..=u16::MAX).filter_map(NonZeroU16::new);
        let Some(host_port) = ports.find(free) else {
            return Err(Refusal::HostPortsExhausted { transport, node: self.node.name.clone() });
        };
        self.from.insert((transport, host), host_port.get());
        let key = self.key(transport, host_port);
        self.chosen.entry(key).or_default().insert(host, port);
        Ok(())
    }

    fn chosen(self) -> BTreeSet<Published> {
        let published = |((_, _, host_port), hosts): (HostPort, OrdMap<_, _>)| {
            hosts.into_iter().map(move |(host, port)| Published { host, host_port, port })
        };
        self.chosen.into_iter().flat_map(published).collect()
    }
}
