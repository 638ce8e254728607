//! Commands as the nodes and users of the simulated cluster give them.

use super::host::Host;
use crate::{
    control::state::{Command, Placement, PortsWanted},
    model::{EndpointAddrs, NetworkOptions, Permissions, Pool, Speaks},
    seeded::Rng,
};

/// The registration of a host's present life, whose program speaks this.
pub(super) fn registration(host: &Host, speaks: Speaks) -> Command {
    Command::RegisterNode {
        instance: host.instance(),
        name: host.name().parse().unwrap(),
        vtep: host.listen.ip().into(),
        listen: host.listen,
        returning: host.node,
        gateway: None,
        metrics: None,
        local_listen: None,
        speaks: Some(speaks),
    }
}

/// Any command of a user; most are carried out, some refused. One of the nodes does
/// not exist.
pub(super) fn any(rng: &mut Rng, hosts: u64, agents: u64) -> Command {
    let number = rng.below(4);
    let network = format!("net{number}").parse().unwrap();
    let name = format!("e{}", rng.below(16));
    let node = match rng.below(hosts + agents + 1) {
        agent if agent < agents => format!("a{}", agent + 1),
        host => format!("h{}", host - agents + 1),
    };
    match rng.below(20) {
        0..3 => Command::CreateNetwork {
            name: network,
            // So small that it is soon used up.
            pool: Some(Pool::whole(format!("10.0.{number}.0/29").parse().unwrap())),
            vni: None,
            options: NetworkOptions { internal: rng.percent(30), ..NetworkOptions::default() },
        },
        3..5 => Command::RemoveNetwork { name: network, only: None },
        5..14 => Command::CreateEndpoint {
            name: name.parse().unwrap(),
            network,
            placement: Placement::Node {
                node: node.parse().unwrap(),
                netns: format!("/run/netns/{}", rng.below(5)).into(),
                addresses: EndpointAddrs::default(),
            },
            permissions: Permissions::NONE,
            aliases: Default::default(),
            ports: PortsWanted::default(),
        },
        _ => Command::RemoveEndpoint {
            name: name.parse().unwrap(),
            network: rng.percent(70).then_some(network),
            only: None,
        },
    }
}
