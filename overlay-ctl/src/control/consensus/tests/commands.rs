//! Commands for the simulated cluster, as its nodes and users would give them.

use std::{iter::repeat_n, net::Ipv4Addr};

use raft::eraftpb::Message;
use uuid::Uuid;

use super::agents::AGENTS;
use crate::{
    control::{
        consensus::codec,
        state::{Command, Envelope, Mutation, Placement, PortsWanted},
    },
    model::{EndpointAddrs, NetworkOptions, Permissions, Pool},
    seeded::Rng,
};

/// The registration of a node that an agent is.
pub(crate) fn registration(agent: u64, gateway: u64) -> Command {
    let number = u8::try_from(agent).unwrap();
    let vtep = Ipv4Addr::new(10, 10, 10, number);
    Command::RegisterNode {
        instance: [number; 16],
        name: format!("h{agent}").parse().unwrap(),
        vtep: vtep.into(),
        listen: (vtep, 7400).into(),
        returning: None,
        gateway: Some(format!("172.{}.0.0/24", 18 + gateway).parse().unwrap()),
        metrics: None,
        local_listen: None,
        speaks: None,
    }
}

/// Any command; most are carried out, some refused.
pub(crate) fn any(rng: &mut Rng) -> Command {
    let network = format!("net{}", rng.below(4)).parse().unwrap();
    let name = format!("e{}", rng.below(24));
    let agent = rng.pick(&AGENTS).unwrap();
    match rng.below(20) {
        0..3 => Command::CreateNetwork {
            name: network,
            pool: rng
                .percent(30)
                .then(|| Pool::whole(format!("10.0.{}.0/26", rng.below(3)).parse().unwrap())),
            vni: None,
            options: NetworkOptions { internal: rng.percent(30), ..NetworkOptions::default() },
        },
        3 => Command::RemoveNetwork { name: network, only: None },
        4 => registration(agent, rng.below(3)),
        5..14 => Command::CreateEndpoint {
            name: name.parse().unwrap(),
            network,
            placement: Placement::Node {
                node: format!("h{agent}").parse().unwrap(),
                netns: format!("/run/netns/{}", rng.below(8)).into(),
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

/// The command that `text` stands for: it makes a network, and asked for again it is the same request.
pub(crate) fn word(text: &str) -> Vec<u8> {
    let request = Uuid::new_v5(&Uuid::nil(), text.as_bytes());
    let command = Command::CreateNetwork {
        name: format!("n{}", request.simple()).parse().unwrap(),
        pool: None,
        vni: None,
        options: NetworkOptions::default(),
    };
    Envelope::new(Mutation::new(request.into_bytes(), &command), command).encode().unwrap()
}

/// What a command begins with that only a newer version knows. No command of this version does: MessagePack never uses it.
pub(crate) const NEWER: u8 = 0xc1;

/// The [`word`] as a command that only a newer version knows.
pub(crate) fn newer(text: &str) -> Vec<u8> {
    [vec![NEWER], word(text)].concat()
}

/// A ledger's snapshot as a newer version would encode it: with the number of another format.
pub(crate) fn newer_snapshot(snapshot: &[u8]) -> Vec<u8> {
    const KEY: &[u8] = b"format";
    let (commands, mut state): (Vec<(u64, Vec<u8>)>, Vec<u8>) =
        rmp_serde::from_slice(snapshot).unwrap();
    let at = state.windows(KEY.len()).position(|bytes| bytes == KEY).expect("the key");
    state[at + KEY.len()] = 99;
    rmp_serde::to_vec(&(commands, state)).unwrap()
}

/// The message, with the snapshot in it as a newer version would encode it.
pub(crate) fn with_a_newer_snapshot(message: &[u8]) -> Vec<u8> {
    let mut message: Message = codec::decode(message).unwrap();
    let snapshot = message.snapshot.as_mut().expect("a snapshot");
    snapshot.data = newer_snapshot(&snapshot.data);
    codec::encode(&message)
}

/// A command of so many bytes, and a few more. It is refused, since its network is not there.
pub(crate) fn large(bytes: usize) -> Vec<u8> {
    let netns: String = repeat_n('x', bytes).collect();
    let command = Command::CreateEndpoint {
        name: "large".parse().unwrap(),
        network: "nowhere".parse().unwrap(),
        placement: Placement::Node {
            node: "h1".parse().unwrap(),
            netns: netns.into(),
            addresses: EndpointAddrs::default(),
        },
        permissions: Permissions::NONE,
        aliases: Default::default(),
        ports: PortsWanted::default(),
    };
    entry(bytes as u64, command)
}

/// What the log holds of the request `number`.
pub(crate) fn entry(number: u64, command: Command) -> Vec<u8> {
    let mut request = [0; 16];
    request[..8].copy_from_slice(&number.to_be_bytes());
    Envelope::new(Mutation::new(request, &command), command).encode().unwrap()
}
