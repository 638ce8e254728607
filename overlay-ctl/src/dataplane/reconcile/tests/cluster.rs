//! A cluster that consists of its state alone: commands become views.

use crate::{
    control::state::{Command, Envelope, Mutation, Placement, PortsWanted, State, View},
    dataplane::{
        kernel::{LargePackets, LocalGateway, SuperPacketHealth},
        reconcile::{LocalNode, LocalVtep},
    },
    model::{
        EndpointAddrs, NetworkOptions, Permission, Permissions, Pool, SPEAKS, Subnet, Version,
    },
};
use std::{collections::BTreeSet, net::Ipv4Addr};

#[derive(Default)]
pub(super) struct Cluster {
    pub(super) state: State,
    pub(super) index: u64,
}

impl Cluster {
    /// Three nodes and a network.
    pub(super) fn new() -> Self {
        let mut cluster = Self::default();
        for n in 1..=3u8 {
            cluster.apply(Command::RegisterNode {
                instance: [n; 16],
                name: format!("h{n}").parse().unwrap(),
                vtep: Ipv4Addr::new(10, 0, 0, n).into(),
                listen: (Ipv4Addr::new(10, 0, 0, n), 7400).into(),
                returning: None,
                gateway: None,
                metrics: None,
                local_listen: None,
                speaks: None,
            });
        }
        cluster.network("net");
        cluster
    }

    pub(super) fn apply(&mut self, command: Command) {
        self.try_apply(command).unwrap();
    }

    /// Gives node 1 a gateway bridge: its endpoints get legs, and can publish ports.
    pub(super) fn gateway(&mut self) {
        self.apply(Command::RegisterNode {
            instance: [1; 16],
            name: "h1".parse().unwrap(),
            vtep: Ipv4Addr::new(10, 0, 0, 1).into(),
            listen: (Ipv4Addr::new(10, 0, 0, 1), 7400).into(),
            returning: Some(1),
            gateway: Some(gateway_subnet()),
            metrics: None,
            local_listen: None,
            speaks: None,
        });
    }

    /// Raises the cluster to version 2.
    pub(super) fn raise(&mut self) {
        let speaks = self.state.nodes().map(|node| (node.id, SPEAKS)).collect();
        self.apply(Command::RaiseVersion { to: Version::V2, speaks });
    }

    /// The command may be refused.
    pub(super) fn attempt(&mut self, command: Command) {
        drop(self.try_apply(command));
    }

    fn try_apply(&mut self, command: Command) -> crate::control::state::Outcome {
        self.index += 1;
        let mut request = [0; 16];
        request[..8].copy_from_slice(&self.index.to_be_bytes());
        let request = Mutation::new(request, &command);
        let entry = Envelope::new(request, command).encode().unwrap();
        self.state.apply_entry(self.index, &entry)
    }

    pub(super) fn network(&mut self, name: &str) {
        self.network_with(name, "172.16.16.0/24", NetworkOptions::default());
    }

    pub(super) fn network_with(&mut self, name: &str, subnet: &str, options: NetworkOptions) {
        self.apply(Command::CreateNetwork {
            name: name.parse().unwrap(),
            pool: Some(Pool::whole(subnet.parse().unwrap())),
            vni: None,
            options,
        });
    }

    /// An endpoint in a namespace of its own name.
    pub(super) fn endpoint(&mut self, name: &str, network: &str, node: u8) {
        let netns = format!("/run/netns/{name}");
        self.endpoint_with(name, network, on_node(node, &netns), &[]);
    }

    /// An endpoint that publishes ports.
    pub(super) fn endpoint_with(
        &mut self,
        name: &str,
        network: &str,
        placement: Placement,
        publish: &[&str],
    ) {
        let publish = publish.iter().map(|port| port.parse().unwrap()).collect();
        self.apply(Command::CreateEndpoint {
            name: name.parse().unwrap(),
            network: network.parse().unwrap(),
            placement,
            permissions: permissions_of(name),
            aliases: BTreeSet::default(),
            ports: PortsWanted { publish, ..PortsWanted::default() },
        });
    }

    /// An endpoint with permissions.
    pub(super) fn permit(
        &mut self,
        name: &str,
        network: &str,
        placement: Placement,
        permissions: Permissions,
    ) {
        self.apply(Command::CreateEndpoint {
            name: name.parse().unwrap(),
            network: network.parse().unwrap(),
            placement,
            permissions,
            aliases: BTreeSet::default(),
            ports: PortsWanted::default(),
        });
    }

    pub(super) fn remove(&mut self, name: &str) {
        let name = name.parse().unwrap();
        self.apply(Command::RemoveEndpoint { name, network: None, only: None });
    }

    pub(super) fn view(&self) -> View {
        let mut view = View::default();
        view.apply(self.state.view_of(1));
        view
    }
}

/// A router and a bridge may more than others.
fn permissions_of(name: &str) -> Permissions {
    match name {
        "router" => [Permission::Routing, Permission::Advertising].into_iter().collect(),
        "bridge" | "switch" => [Permission::Bridging].into_iter().collect(),
        _ => Permissions::NONE,
    }
}

/// In a namespace of that node.
pub(super) fn on_node(node: u8, netns: &str) -> Placement {
    Placement::Node {
        node: format!("h{node}").parse().unwrap(),
        netns: netns.into(),
        addresses: EndpointAddrs::default(),
    }
}

/// Behind a VTEP that is no node's.
pub(super) fn behind(vtep: [u8; 4], number: u8, address: [u8; 4]) -> Placement {
    Placement::External {
        vtep: vtep.into(),
        mac: format!("02:00:00:00:00:{number:02x}").parse().unwrap(),
        addresses: Ipv4Addr::from(address).into(),
    }
}

pub(super) fn node() -> LocalNode {
    LocalNode {
        id: 1,
        vtep: LocalVtep { address: [10, 0, 0, 1].into(), port: 4789, ttl: 64, mtu: 1500 },
        endpoint_mtu: 1450,
        asked_mtu: None,
        gateway: LocalGateway { subnet: gateway_subnet(), mtu: 1500 },
        large_packets: LargePackets::default(),
        super_packets: SuperPacketHealth::default(),
    }
}

fn gateway_subnet() -> Subnet {
    "172.18.0.0/16".parse().unwrap()
}
