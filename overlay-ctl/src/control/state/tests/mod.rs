//! Commands in, rows and refusals out.

mod dead_nodes;
mod format;
mod generations;
mod hashes;
mod leases;
mod legs;
mod lives;
mod names;
mod ports;
mod provisional;
mod random;
mod requests;
mod rows;
mod seats;
mod version;
mod vteps;
mod withdrawn;

use super::*;
use crate::model::{
    Endpoint, EndpointAddrs, EndpointPort, NetworkOptions, Permission, Permissions, Pool, Publish,
    Published, SPEAKS, Speaks, Transport,
};
use std::{collections::BTreeSet, num::NonZeroU16, path::PathBuf};

fn request_id(n: u64) -> RequestId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    id
}

fn envelope(request: u64, command: Command) -> Vec<u8> {
    let id = request_id(request);
    Envelope::new(Mutation::new(id, &command), command).encode().unwrap()
}

/// An endpoint to be: on `net`, on h1, in a namespace of its own, unless told otherwise.
#[derive(Clone)]
struct Wish {
    name: &'static str,
    network: &'static str,
    node: &'static str,
    netns: &'static str,
    aliases: &'static [&'static str],
    exposed: &'static [&'static str],
    publish: &'static [&'static str],
    publish_all: bool,
    busy: &'static [(Transport, u16)],
}

impl Wish {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            network: "net",
            node: "h1",
            netns: name,
            aliases: &[],
            exposed: &[],
            publish: &[],
            publish_all: false,
            busy: &[],
        }
    }

    fn command(&self) -> Command {
        let port = |port: u16| NonZeroU16::new(port).unwrap();
        Command::CreateEndpoint {
            name: self.name.parse().unwrap(),
            network: self.network.parse().unwrap(),
            placement: Placement::Node {
                node: self.node.parse().unwrap(),
                netns: format!("/run/netns/{}", self.netns).into(),
                addresses: EndpointAddrs::default(),
            },
            permissions: Permissions::NONE,
            aliases: self.aliases.iter().map(|alias| alias.parse().unwrap()).collect(),
            ports: PortsWanted {
                exposed: self.exposed.iter().map(|port| port.parse().unwrap()).collect(),
                publish: self.publish.iter().map(|wish| wish.parse::<Publish>().unwrap()).collect(),
                publish_all: self.publish_all,
                busy: self.busy.iter().map(|(transport, n)| (*transport, port(*n))).collect(),
            },
        }
    }
}

/// Applies commands at ascending revisions.
#[derive(Default)]
struct Replica {
    state: State,
    index: u64,
}

impl Replica {
    fn apply(&mut self, command: Command) -> Outcome {
        self.index += 1;
        self.state.apply_entry(self.index, &envelope(self.index, command))
    }

    /// What nodes say that they speak, in a cluster that takes them in.
    fn speaks(&self) -> Option<Speaks> {
        (self.state.version() >= Version::V2).then_some(SPEAKS)
    }

    fn node(&mut self, number: u8) -> Outcome {
        self.apply(Command::RegisterNode {
            instance: [number; 16],
            name: format!("h{number}").parse().unwrap(),
            vtep: Ipv4Addr::new(10, 10, 10, number).into(),
            listen: (Ipv4Addr::new(10, 10, 10, number), 7400).into(),
            returning: None,
            gateway: None,
            metrics: None,
            local_listen: None,
            speaks: self.speaks(),
        })
    }

    /// Node `number` with a gateway bridge.
    fn node_at(&mut self, number: u8, gateway: &str) -> Outcome {
        self.apply(Command::RegisterNode {
            instance: [number; 16],
            name: format!("h{number}").parse().unwrap(),
            vtep: Ipv4Addr::new(10, 10, 10, number).into(),
            listen: (Ipv4Addr::new(10, 10, 10, number), 7400).into(),
            returning: None,
            gateway: Some(gateway.parse().unwrap()),
            metrics: None,
            local_listen: None,
            speaks: self.speaks(),
        })
    }

    /// A network of which endpoints have no leg to the outside.
    fn internal(&mut self, name: &str, subnet: &str) -> Outcome {
        self.apply(Command::CreateNetwork {
            name: name.parse().unwrap(),
            pool: Some(Pool::whole(subnet.parse().unwrap())),
            vni: None,
            options: NetworkOptions { internal: true, ..Default::default() },
        })
    }

    /// The endpoint that was made, or why none was.
    fn wish(&mut self, wish: &Wish) -> Result<Endpoint, Refusal> {
        self.apply(wish.command()).map(|applied| match applied {
            Applied::Endpoint(endpoint) => endpoint,
            other => panic!("{other:?}"),
        })
    }

    /// The gateway address of each endpoint that has one, by name.
    fn legs(&self) -> Vec<(String, String)> {
        let mut legs: Vec<_> = self
            .state
            .endpoints()
            .filter_map(|endpoint| {
                Some((endpoint.name.to_string(), endpoint.leg?.addresses.to_string()))
            })
            .collect();
        legs.sort();
        legs
    }

    fn network(&mut self, name: &str, subnet: &str, range: Option<&str>) -> Outcome {
        self.apply(Command::CreateNetwork {
            name: name.parse().unwrap(),
            pool: Some(Pool::new(subnet.parse().unwrap(), range).unwrap()),
            vni: None,
            options: NetworkOptions::default(),
        })
    }

    fn endpoint(&mut self, name: &str, network: &str, node: u8, ip: Option<&str>) -> Outcome {
        self.apply(Command::CreateEndpoint {
            name: name.parse().unwrap(),
            network: network.parse().unwrap(),
            placement: Placement::Node {
                node: format!("h{node}").parse().unwrap(),
                netns: PathBuf::from(format!("/run/netns/{name}")),
                addresses: ip.map(addresses).unwrap_or_default(),
            },
            permissions: Permissions::NONE,
            aliases: BTreeSet::default(),
            ports: PortsWanted::default(),
        })
    }

    fn remove(&mut self, name: &str) -> Outcome {
        self.apply(Command::RemoveEndpoint {
            name: name.parse().unwrap(),
            network: None,
            only: None,
        })
    }
}

fn addresses(text: &str) -> EndpointAddrs {
    text.parse::<Ipv4Addr>().unwrap().into()
}

fn address(outcome: Outcome) -> String {
    match outcome.unwrap() {
        Applied::Endpoint(endpoint) => endpoint.addresses.to_string(),
        other => panic!("{other:?}"),
    }
}
