//! Following differences and events leads to the same kernel as a look at everything.

use super::{cluster::behind, *};
use crate::{
    control::state::{Command, PortsWanted},
    dataplane::reconcile::{Trigger, audit::Audit},
    model::{NetworkOptions, Permission, Permissions, Pool, SPEAKS},
};
use proptest::prelude::*;

/// What may happen between two looks.
#[derive(Clone, Debug)]
enum Step {
    /// An endpoint on a node; 4 stands for a VTEP that is no node's.
    Create {
        name: u8,
        network: u8,
        node: u8,
    },
    Remove {
        name: u8,
    },
    Network {
        network: u8,
    },
    RemoveNetwork {
        network: u8,
    },
    /// A node comes, or comes back with another VTEP.
    Register {
        node: u8,
        vtep: u8,
    },
    RemoveNode {
        node: u8,
        with_endpoints: bool,
    },
    /// Somebody does something to a device.
    Device {
        nth: usize,
        how: Harm,
    },
    /// The router behind which a VTEP is has another MAC.
    Reroute {
        mac: u8,
    },
    /// Somebody else writes to a map.
    Meddle {
        what: u8,
        nth: usize,
    },
    /// The kernel refuses the next write.
    Fail,
}

/// What happens to a device.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Removed,
    /// Its namespace was made anew.
    Elsewhere,
    SetDown,
    OtherMtu,
    OutOfTheBridge,
    Queued,
}

fn step() -> impl Strategy<Value = Step> {
    let (name, network, node) = (0..8u8, 0..3u8, 1..=4u8);
    prop_oneof![
        8 => (name.clone(), network.clone(), node.clone())
            .prop_map(|(name, network, node)| Step::Create { name, network, node }),
        5 => name.prop_map(|name| Step::Remove { name }),
        2 => network.clone().prop_map(|network| Step::Network { network }),
        1 => network.prop_map(|network| Step::RemoveNetwork { network }),
        2 => (2..=4u8, 1..6u8).prop_map(|(node, vtep)| Step::Register { node, vtep }),
        2 => (2..=4u8, any::<bool>())
            .prop_map(|(node, with_endpoints)| Step::RemoveNode { node, with_endpoints }),
        4 => (0..8usize, harm()).prop_map(|(nth, how)| Step::Device { nth, how }),
        1 => any::<u8>().prop_map(|mac| Step::Reroute { mac }),
        2 => (0..6u8, 0..8usize).prop_map(|(what, nth)| Step::Meddle { what, nth }),
        1 => Just(Step::Fail),
    ]
}

fn harm() -> impl Strategy<Value = Harm> {
    proptest::sample::select(vec![
        Harm::Removed,
        Harm::Elsewhere,
        Harm::SetDown,
        Harm::OtherMtu,
        Harm::OutOfTheBridge,
        Harm::Queued,
    ])
}

/// Does it, and returns what the kernel reports of it.
fn harm_device(kernel: &mut FakeKernel, nth: usize, how: Harm) -> Option<Scope> {
    let indexes: Vec<u32> = kernel.devices.keys().copied().collect();
    let ifindex = *indexes.get(nth % indexes.len().max(1))?;
    let device = kernel.devices.get_mut(&ifindex)?;
    match how {
        Harm::Removed => _ = kernel.devices.remove(&ifindex),
        Harm::Elsewhere => {
            let netns = device.peer.as_ref()?.netns.as_raw();
            kernel.remake_namespace(ifindex);
            let path = kernel.namespaces.iter().nth(netns.cast_unsigned() as usize)?;
            return Some(Scope::namespace(path.clone()));
        }
        Harm::SetDown => device.up = false,
        Harm::OtherMtu => device.mtu += 1,
        Harm::OutOfTheBridge => device.bridge = 0,
        Harm::Queued => device.queued = !device.queued,
    }
    Some(Scope::device(ifindex))
}

/// Does the step, and returns what the kernel reports of it.
fn take(cluster: &mut Cluster, kernel: &mut FakeKernel, step: &Step) -> Option<Scope> {
    match *step {
        Step::Create { name, network, node } => {
            let command = create(name, network, node);
            cluster.attempt(command);
        }
        Step::Remove { name } => cluster.attempt(Command::RemoveEndpoint {
            name: format!("e{name}").parse().unwrap(),
            network: None,
            only: None,
        }),
        Step::Network { network } => {
            let options = NetworkOptions { multicast: network == 1, ..NetworkOptions::default() };
            let octet = 16 + network;
            cluster.attempt(Command::CreateNetwork {
                name: format!("n{network}").parse().unwrap(),
                pool: Some(Pool::whole(format!("172.16.{octet}.0/24").parse().unwrap())),
                vni: None,
                options,
            });
        }
        Step::RemoveNetwork { network } => {
            let name = format!("n{network}").parse().unwrap();
            cluster.attempt(Command::RemoveNetwork { name, only: None });
        }
        Step::Register { node, vtep } => {
            let name = format!("h{node}").parse().unwrap();
            let known = cluster.state.nodes().find(|known| known.name == name).map(|n| n.id);
            cluster.attempt(Command::RegisterNode {
                instance: [node; 16],
                name,
                vtep: Ipv4Addr::new(10, 0, vtep, node).into(),
                listen: (Ipv4Addr::new(10, 0, vtep, node), 7400).into(),
                returning: known,
                gateway: None,
                metrics: None,
                local_listen: None,
                speaks: Some(SPEAKS),
            });
        }
        Step::RemoveNode { node, with_endpoints } => {
            let name = format!("h{node}").parse().unwrap();
            cluster.attempt(Command::RemoveNode { name, only: None, with_endpoints });
        }
        Step::Device { nth, how } => return harm_device(kernel, nth, how),
        Step::Reroute { mac } => {
            kernel.router = mac;
            return Some(Scope::ways());
        }
        Step::Meddle { what, nth } => {
            kernel.is_meddled = true;
            meddle(&mut kernel.tables, what, nth);
        }
        Step::Fail => kernel.fail_writes = 1,
    }
    None
}

fn create(name: u8, network: u8, node: u8) -> Command {
    let placement = match node {
        4 => behind([10, 9, 0, name % 2], name, [172, 16, 16 + network, 100 + name]),
        node => on_node(node, &format!("/run/netns/{name}")),
    };
    Command::CreateEndpoint {
        name: format!("e{name}").parse().unwrap(),
        network: format!("n{network}").parse().unwrap(),
        placement,
        permissions: match name {
            3 => Permissions::ALL,
            4 | 5 => [Permission::Bridging].into_iter().collect(),
            _ => Permissions::NONE,
        },
        aliases: [format!("a{}", name % 3).parse().unwrap()].into(),
        ports: PortsWanted::default(),
    }
}

fn meddle(tables: &mut Tables, what: u8, nth: usize) {
    let fdb = tables.fdb.keys().nth(nth % tables.fdb.len().max(1)).copied();
    let neigh = tables.neigh.keys().nth(nth % tables.neigh.len().max(1)).copied();
    match (what, fdb, neigh) {
        (0, Some(key), _) => _ = tables.fdb.remove(&key),
        (1, Some(key), _) => _ = tables.fdb.entry(key).and_modify(|entry| entry.flags ^= 1 << 9),
        (2, _, Some(key)) => _ = tables.neigh.remove(&key),
        (3, _, Some(key)) => _ = tables.neigh.entry(key).and_modify(|entry| entry.mac[5] ^= 1),
        (4, Some(key), Some(neigh)) => {
            let strange = FdbKey { vni: key.vni + 1, ..key };
            let mut entry = tables.fdb[&key];
            entry.endpoint = 0;
            tables.fdb.insert(strange, entry);
            let mac = tables.neigh[&neigh];
            tables.neigh.insert(NeighKey { vni: 1, ..neigh }, mac);
        }
        (5, Some(key), _) => _ = tables.nodes.remove(&NodeKey { vtep: tables.fdb[&key].vtep }),
        _ => {}
    }
}

async fn whatever(
    rounds: Vec<Vec<Step>>,
    part: usize,
    has_legs: bool,
) -> Result<(), TestCaseError> {
    let mut cluster = Cluster::new();
    if has_legs {
        cluster.gateway();
    }
    cluster.raise();
    let namespaces = (0..8).map(|name| format!("/run/netns/{name}").into()).collect();
    let mut kernel = FakeKernel { namespaces, bridge_mtu: 1500, ..FakeKernel::default() };
    let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
    reconciler.audit = Audit::with_part(part);
    for steps in rounds {
        let mut events = Scope::default();
        for step in &steps {
            if let Some(event) = take(&mut cluster, reconciler.kernel, step) {
                events.add(event);
            }
        }
        let view = cluster.view();
        // Of what others write no event tells, so the kernel is looked at as often as a round of the audit takes.
        let is_unseen = steps.iter().any(|step| matches!(step, Step::Meddle { .. } | Step::Fail));
        let triggers = if is_unseen {
            vec![Trigger::Periodic; 24 / part + 2]
        } else if events.is_empty() {
            vec![Trigger::NewView]
        } else {
            vec![Trigger::Changed(events)]
        };
        for trigger in triggers {
            if reconciler.work(&view, &trigger).await.is_err() {
                prop_assert!(reconciler.work(&view, &Trigger::Periodic).await.is_ok());
            }
        }
        reconciler.kernel.is_meddled = false;
        prop_assert_eq!(status.borrow().programmed, view.revision);

        let mut twin = reconciler.kernel.clone();
        let (mut fresh, of_all) = Reconciler::new(&mut twin, node());
        prop_assert!(fresh.pass(&view).await.is_ok());
        let names = Arc::clone(&fresh.names);
        prop_assert_eq!(&fresh.held.sites, &reconciler.held.sites, "where the endpoints are");
        prop_assert_eq!(&of_all.borrow().endpoints, &status.borrow().endpoints, "their health");
        prop_assert_eq!(&twin.tables, &reconciler.kernel.tables, "a look at everything");
        prop_assert_eq!(&twin.devices, &reconciler.kernel.devices, "finds nothing to do");
        prop_assert_eq!(&twin.log, &reconciler.kernel.log);
        prop_assert_eq!(&twin.published, &reconciler.kernel.published);
        let published = reconciler.published.as_ref().map(|published| &published.legs);
        prop_assert_eq!(published, Some(&twin.legs));
        prop_assert_eq!(&names, &reconciler.names);
        prop_assert_eq!(&reconciler.kernel.names, &reconciler.names);
        prop_assert_eq!(&reconciler.held.tables, &twin.tables, "what is remembered");
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_kept_by_difference_is_what_a_look_at_everything_finds(
        rounds in proptest::collection::vec(proptest::collection::vec(step(), 1..5), 1..24),
        part in 3usize..24,
        has_legs: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(whatever(rounds, part, has_legs))?;
    }
}
