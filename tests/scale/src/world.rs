//! The state of a cluster with one large network.

use anyhow::{Context as _, Result};
use overlay_ctl::{
    control::state::{Command, Envelope, Mutation, Placement, PortsWanted, State, View},
    model::{EndpointAddrs, Location, NetworkOptions, NodeName, Permissions, Pool, Subnet},
};
use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

pub(crate) const LOCAL_VTEP: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);
/// The node that is measured.
pub(crate) const LOCAL: u64 = 1;
const NODES: u32 = 100;

/// A state that is filled by commands.
pub(crate) struct World {
    pub(crate) state: State,
    index: u64,
}

impl World {
    pub(crate) fn new() -> Result<Self> {
        let mut world = Self { state: State::default(), index: 0 };
        for n in 1..=NODES {
            let vtep = Ipv4Addr::from(u32::from(LOCAL_VTEP) + n - 1);
            world.apply(Command::RegisterNode {
                instance: u128::from(n).to_be_bytes(),
                name: node_name(n)?,
                vtep: vtep.into(),
                listen: (vtep, 7400).into(),
                returning: None,
                gateway: None,
                metrics: None,
                local_listen: None,
                speaks: None,
            })?;
        }
        let subnet = "10.0.0.0/8".parse().context("the subnet")?;
        world.apply(Command::CreateNetwork {
            name: "big".parse().context("the network's name")?,
            pool: Some(Pool::whole(subnet)),
            vni: None,
            options: NetworkOptions::default(),
        })?;
        // With one endpoint on it, the measured node holds the whole network.
        world.endpoint(0, 1)?;
        Ok(world)
    }

    /// Creates the endpoint of this number, on a node that is not the measured one.
    pub(crate) fn create(&mut self, number: u32) -> Result<()> {
        self.endpoint(number, 2 + number % (NODES - 1))
    }

    fn endpoint(&mut self, number: u32, node: u32) -> Result<()> {
        let name = format!("endpoint-{number}");
        self.apply(Command::CreateEndpoint {
            placement: Placement::Node {
                node: node_name(node)?,
                netns: format!("/run/netns/{name}").into(),
                addresses: EndpointAddrs::default(),
            },
            name: name.parse().context("a name")?,
            network: "big".parse().context("the network's name")?,
            permissions: Permissions::NONE,
            aliases: BTreeSet::new(),
            ports: PortsWanted::default(),
        })
    }

    fn apply(&mut self, command: Command) -> Result<()> {
        self.index += 1;
        let request = u128::from(self.index).to_be_bytes();
        let entry = Envelope::new(Mutation::new(request, &command), command);
        let refused = |refusal| anyhow::anyhow!("refused: {refusal:?}");
        self.state.apply(self.index, entry).map(drop).map_err(refused)
    }
}

/// A view that differs from `view` in one endpoint, which is removed, moved or added, in turns by `number`.
pub(crate) fn changed(view: &View, number: u32) -> Result<View> {
    let mut view = view.clone();
    view.revision += 1;
    let network = *view.networks.keys().next().context("a network")?;
    let endpoints = view.endpoints.get_mut(&network).context("endpoints")?;
    // The endpoints are chosen all over the network; removed ones are skipped.
    let wanted = u64::from(number.wrapping_mul(2_654_435_761)) % endpoints.len() as u64 + 200;
    let (id, endpoint) =
        endpoints.range(wanted..).next().map(|(id, e)| (*id, Arc::clone(e))).context("one")?;
    let mut endpoint = overlay_ctl::model::Endpoint::clone(&endpoint);
    match number % 3 {
        0 => _ = endpoints.remove(&id),
        1 => {
            let Location::Node { node, .. } = &mut endpoint.location else {
                anyhow::bail!("an endpoint of a node");
            };
            *node = *node % u64::from(NODES - 1) + 2;
            endpoints.insert(id, Arc::new(endpoint));
        }
        _ => {
            let new = view.revision;
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + number);
            endpoint.id = new;
            endpoint.name = format!("new-{number}").parse().context("a name")?;
            endpoint.addresses = address.into();
            endpoint.mac = overlay_ctl::model::Mac::of_endpoint(address);
            endpoints.insert(new, Arc::new(endpoint));
        }
    }
    Ok(view)
}

fn node_name(n: u32) -> Result<NodeName> {
    format!("node-{n}").parse().context("a node's name")
}

/// The gateway subnet, in which no endpoint has an address.
pub(crate) fn gateway_subnet() -> Result<Subnet> {
    "172.18.0.0/16".parse().context("the gateway's subnet")
}
