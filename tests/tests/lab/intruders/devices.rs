//! What web1 does to its own devices with the rights of a network administrator inside: its addresses, devices on
//! top of them, detours between them. Each is undone before the next.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{Netns, Requirement, eventually};

use super::scene::{GATEWAY, Scene};
use crate::{
    attack::Victims,
    support::{Endpoint, leg, scenario},
};

/// How long a count may take after the attempt.
const PATIENCE: Duration = Duration::from_secs(5);

const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ping"),
    Requirement::Tool("nft"),
    Requirement::Tool("tcpdump"),
    Requirement::Tool("tshark"),
    Requirement::Tool("ethtool"),
];

/// An attempt. In the commands, `$own` and `$neighbour`, `$leg` and `$neighbour_leg` are the addresses of web1 and
/// of its neighbour on their network and on their legs; `$mac` and `$leg_mac` are web1's MACs, `$neighbour_mac` is
/// the neighbour's; `$web2`, `$near`, `$node` (another one), and `$gateway` are addresses. A command that says that this
/// kernel lacks a device (LACKS) ends the row.
struct Row {
    name: &'static str,
    /// The commands that prepare it, inside web1.
    prepare: &'static str,
    /// The command that tries it. Its result does not matter.
    attempt: &'static str,
    /// The command that undoes it.
    undo: &'static str,
    /// The program and the reason that must count it.
    counted: (&'static str, &'static str),
}

/// Longest time of a ping that nobody answers: one request, one second.
macro_rules! ping {
    ($arguments:literal) => {
        concat!("ping -n -c 1 -W 1 ", $arguments)
    };
}

/// A filter for the addresses and the MAC that only these attempts use.
const ODD: &str = "host 172.16.16.99 or host 172.18.0.9 or host 172.18.0.99 or host 10.77.0.99 \
                   or ether host 02:66:00:00:00:01";
const NETWORK: &str = "from_endpoint";
const GATEWAY_LEG: &str = "from_gateway";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row {
        name: "a MAC of its own choice",
        prepare: "ip link set eth0 address 02:66:00:00:00:01",
        attempt: ping!("$web2"),
        undo: "ip link set eth0 address $mac",
        counted: (NETWORK, "spoofed_mac"),
    },
    Row {
        name: "the neighbour's MAC",
        prepare: "ip link set eth0 address $neighbour_mac",
        attempt: ping!("$web2"),
        undo: "ip link set eth0 address $mac",
        counted: (NETWORK, "spoofed_mac"),
    },
    Row {
        name: "the neighbour's address",
        prepare: "ip addr add $neighbour/32 dev eth0",
        attempt: ping!("-I $neighbour $web2"),
        undo: "ip addr del $neighbour/32 dev eth0",
        counted: (NETWORK, "spoofed_ip"),
    },
    Row {
        name: "an address that nobody has",
        prepare: "ip addr add 172.16.16.99/24 dev eth0",
        attempt: ping!("-I 172.16.16.99 $web2"),
        undo: "ip addr del 172.16.16.99/24 dev eth0",
        counted: (NETWORK, "spoofed_ip"),
    },
    Row {
        name: "the neighbour's address and an announcement",
        prepare: "sysctl -qw net.ipv4.conf.eth0.arp_notify=1; ip addr add $neighbour/32 dev eth0",
        attempt: "arping -q -c 1 -w 1 -U -I eth0 -s $neighbour $neighbour",
        undo: "ip addr del $neighbour/32 dev eth0; sysctl -qw net.ipv4.conf.eth0.arp_notify=0",
        counted: (NETWORK, "spoofed_ip"),
    },
    Row {
        name: "the neighbour's address on the leg",
        prepare: "ip addr add $neighbour_leg/32 dev eth1",
        attempt: ping!("-I $neighbour_leg $node"),
        undo: "ip addr del $neighbour_leg/32 dev eth1",
        counted: (GATEWAY_LEG, "spoofed_ip"),
    },
    Row {
        name: "an address that nobody has on the leg",
        prepare: "ip addr add 172.18.0.9/32 dev eth1",
        attempt: ping!("-I 172.18.0.9 $node"),
        undo: "ip addr del 172.18.0.9/32 dev eth1",
        counted: (GATEWAY_LEG, "spoofed_ip"),
    },
    Row {
        name: "the neighbour by its leg",
        prepare: "true",
        attempt: ping!("$neighbour_leg"),
        undo: "true",
        counted: (GATEWAY_LEG, "gateway_neighbour"),
    },
    Row {
        name: "the neighbour by its leg and a fixed entry",
        prepare: "ip neigh replace $neighbour_leg lladdr 02:42:ac:12:00:01 dev eth1",
        attempt: ping!("$neighbour_leg"),
        undo: "ip neigh del $neighbour_leg dev eth1",
        counted: (GATEWAY_LEG, "gateway_neighbour"),
    },
    Row {
        name: "the other network by a route",
        prepare: "ip route add $near/32 dev eth0",
        attempt: ping!("$near"),
        undo: "ip route del $near/32 dev eth0",
        counted: (NETWORK, "arp_unknown_target"),
    },
    Row {
        name: "the gateway by its network",
        prepare: "ip route add $node/32 dev eth0",
        attempt: ping!("$node"),
        undo: "ip route del $node/32 dev eth0",
        counted: (NETWORK, "arp_unknown_target"),
    },
    Row {
        name: "a device of its own MAC",
        prepare: "ip link add odd link eth0 type macvlan mode bridge; ip addr add 172.16.16.99/24 dev odd; ip link set odd up",
        attempt: ping!("-I odd $web2"),
        undo: "ip link del odd",
        counted: (NETWORK, "spoofed_mac"),
    },
    Row {
        name: "a device of its own MAC on the leg",
        prepare: "ip link add odd link eth1 type macvlan mode private; ip addr add 172.18.0.99/16 dev odd; ip link set odd up",
        attempt: ping!("-I odd $gateway"),
        undo: "ip link del odd",
        counted: (GATEWAY_LEG, "spoofed_mac"),
    },
    Row {
        name: "a device of its own address",
        prepare: "ip link add odd link eth0 type ipvlan mode l2; ip addr add 172.16.16.99/24 dev odd; ip link set odd up",
        attempt: ping!("-I odd $web2"),
        undo: "ip link del odd",
        counted: (NETWORK, "spoofed_ip"),
    },
    Row {
        name: "a VLAN on the leg",
        prepare: "ip link add odd link eth1 type vlan id 7; ip addr add 172.18.0.99/16 dev odd; ip link set odd up",
        attempt: ping!("-I odd $gateway"),
        undo: "ip link del odd",
        counted: (GATEWAY_LEG, "vlan_unsupported"),
    },
    Row {
        name: "a VLAN of providers on the leg",
        prepare: "ip link add odd link eth1 type vlan protocol 802.1ad id 7; ip addr add 172.18.0.99/16 dev odd; ip link set odd up",
        attempt: ping!("-I odd $gateway"),
        undo: "ip link del odd",
        counted: (GATEWAY_LEG, "vlan_unsupported"),
    },
    Row {
        name: "a VXLAN device of its own",
        prepare: "ip link add odd type vxlan id $vni remote $node dstport 4789 local $leg dev eth1; ip addr add 10.77.0.99/24 dev odd; ip link set odd up",
        attempt: ping!("-I odd $near"),
        undo: "ip link del odd",
        counted: (GATEWAY_LEG, "vxlan_from_endpoint"),
    },
    // Of the two source ports some kernels take only the first, and others one by the hash of the flow.
    Row {
        name: "a VXLAN device that answers",
        prepare: "ip link add odd type vxlan id $vni remote $node dstport 5000 srcport 4789 4790 local $leg dev eth1; ip addr add 10.77.0.99/24 dev odd; ip link set odd up; for n in $(seq 16); do ip neigh add 10.77.0.$n lladdr 02:00:5e:00:01:09 dev odd || exit; done",
        attempt: "for n in $(seq 16); do ping -c 1 -W 0.2 10.77.0.$n & done; wait",
        undo: "ip link del odd",
        counted: (GATEWAY_LEG, "vxlan_from_endpoint"),
    },
    Row {
        name: "IPv6 on the leg",
        prepare: "sysctl -qw net.ipv6.conf.eth1.disable_ipv6=0; ip -6 addr add fd00::9/64 dev eth1 nodad",
        attempt: ping!("-6 fd00::1"),
        undo: "ip -6 addr del fd00::9/64 dev eth1",
        counted: (GATEWAY_LEG, "gateway_protocol"),
    },
    Row {
        name: "frames of the leg on the network",
        prepare: "tc qdisc add dev eth1 clsact; tc filter add dev eth1 egress u32 match u32 0 0 action mirred egress redirect dev eth0",
        attempt: ping!("$gateway"),
        undo: "tc qdisc del dev eth1 clsact",
        counted: (NETWORK, "spoofed_mac"),
    },
    Row {
        name: "frames of the network on the leg",
        prepare: "tc qdisc add dev eth0 clsact; tc filter add dev eth0 egress u32 match u32 0 0 action mirred egress redirect dev eth1",
        attempt: ping!("$web2"),
        undo: "tc qdisc del dev eth0 clsact",
        counted: (GATEWAY_LEG, "spoofed_mac"),
    },
    Row {
        name: "a bond of both devices",
        prepare: "ip link add odd type bond mode balance-rr; ip link set eth0 down; ip link set eth1 down; ip link set eth0 master odd; ip link set eth1 master odd; ip link set odd up; ip addr add 172.16.16.99/24 dev odd",
        attempt: ping!("-I odd $web2"),
        undo: "ip link set eth0 nomaster; ip link set eth1 nomaster; ip link del odd; ip link set eth0 address $mac; ip link set eth1 address $leg_mac; ip link set eth0 up; ip link set eth1 up; ip route replace default via $gateway dev eth1",
        counted: (GATEWAY_LEG, "spoofed_mac"),
    },
    Row {
        name: "a device that passes all through, on the leg",
        prepare: "ip link add odd link eth1 type macvlan mode passthru; ip addr add 172.18.0.99/16 dev odd; ip link set odd up",
        attempt: ping!("-I odd $gateway"),
        undo: "ip link del odd",
        counted: (GATEWAY_LEG, "spoofed_ip"),
    },
    Row {
        name: "a device that routes, on the leg",
        prepare: "ip link add odd link eth1 type ipvlan mode l3; ip addr add 172.18.0.99/16 dev odd; ip link set odd up",
        attempt: ping!("-I odd $gateway"),
        undo: "ip link del odd",
        counted: (GATEWAY_LEG, "spoofed_ip"),
    },
    Row {
        name: "a queue that flips a bit of each packet",
        prepare: "tc qdisc add dev eth0 root netem corrupt 100%",
        attempt: "ping -n -f -q -c 1000 -w 4 $web2",
        undo: "tc qdisc del dev eth0 root",
        counted: (NETWORK, "spoofed_mac"),
    },
    Row {
        name: "a queue that flips a bit of each packet, on the leg",
        prepare: "tc qdisc add dev eth1 root netem corrupt 100% duplicate 50%",
        attempt: "ping -n -f -q -c 1000 -w 4 $node",
        undo: "tc qdisc del dev eth1 root",
        counted: (GATEWAY_LEG, "spoofed_mac"),
    },
    Row {
        name: "a queue that lets little through, and an address that nobody has",
        prepare: "tc qdisc add dev eth1 root tbf rate 1mbit burst 16kb latency 50ms; ip addr add 172.18.0.9/32 dev eth1",
        attempt: ping!("-I 172.18.0.9 $node"),
        undo: "ip addr del 172.18.0.9/32 dev eth1; tc qdisc del dev eth1 root",
        counted: (GATEWAY_LEG, "spoofed_ip"),
    },
    Row {
        name: "offloads that are off, and an address that nobody has",
        prepare: "ethtool -K eth1 tx off sg off tso off gso off gro off; ip addr add 172.18.0.9/32 dev eth1",
        attempt: ping!("-s 4000 -I 172.18.0.9 $node"),
        undo: "ip addr del 172.18.0.9/32 dev eth1; ethtool -K eth1 tx on sg on tso on gso on gro on",
        counted: (GATEWAY_LEG, "spoofed_ip"),
    },
    Row {
        name: "a small MTU, and an address that nobody has",
        prepare: "ip link set eth1 mtu 100; ip addr add 172.18.0.9/32 dev eth1",
        attempt: ping!("-s 40 -I 172.18.0.9 $node"),
        undo: "ip addr del 172.18.0.9/32 dev eth1; ip link set eth1 mtu 1500",
        counted: (GATEWAY_LEG, "spoofed_ip"),
    },
    Row {
        name: "a bridge of both devices",
        prepare: "ip link add odd type bridge; ip link set eth0 master odd; ip link set eth1 master odd; ip link set odd up; ip addr add 172.16.16.99/24 dev odd",
        attempt: ping!("-I odd $web2"),
        undo: "ip link set eth0 nomaster; ip link set eth1 nomaster; ip link del odd",
        counted: (GATEWAY_LEG, "spoofed_mac"),
    },
];

/// The values of the names in the commands, as a shell's assignments.
fn names(scene: &Scene) -> Result<String> {
    let (own, neighbour) = (leg(&scene.web1.netns)?, leg(&scene.neighbour.netns)?);
    Ok(format!(
        "own={} mac={} leg={} leg_mac={} neighbour={} neighbour_mac={} neighbour_leg={} web2={} near={} node={} \
         gateway={GATEWAY} vni={}; ",
        scene.web1.address,
        scene.web1.mac,
        own.address,
        own.mac,
        scene.neighbour.address,
        scene.neighbour.mac,
        neighbour.address,
        scene.web2.address,
        scene.near.address,
        scene.hosts[1].address,
        scene.other_vni
    ))
}

/// What the tools say of a kind of device, or of a queueing discipline, that this kernel lacks.
const LACKS: [&str; 2] = ["Unknown device type", "qdisc kind is unknown"];

/// Runs shell commands inside, which must succeed. Returns false if this kernel lacks a kind of device, so that
/// nobody can try it.
fn shell(netns: &Netns, names: &str, commands: &str) -> Result<bool> {
    let output = netns.output(&["sh", "-ec", &format!("{names}{commands}")])?;
    if LACKS.iter().any(|words| output.stderr.contains(words)) {
        eprintln!("this kernel lacks it: {commands}");
        return Ok(false);
    }
    ensure!(output.status.success(), "{commands}: {}", output.stderr);
    Ok(true)
}

fn attempt(scene: &Scene, names: &str, row: &Row) -> Result<()> {
    let (netns, h1) = (&scene.web1.netns, &scene.hosts[0]);
    if !shell(netns, names, row.prepare)? {
        return Ok(());
    }
    let (program, reason) = row.counted;
    let count =
        || -> Result<u64> { Ok(h1.counters(program)?.get(reason).copied().unwrap_or_default()) };
    let before = count()?;
    netns.output(&["sh", "-c", &format!("{names}{}", row.attempt)])?;
    let counted = eventually("it is counted", PATIENCE, || {
        if count()? > before { Ok(()) } else { bail!("not as {reason}") }
    });
    let undone = shell(netns, names, row.undo).context("to undo it");
    counted.and(undone).map(drop)
}

/// What is left of web1's own addresses and routes after an attempt must still work.
fn is_whole(scene: &Scene) -> Result<()> {
    eventually("web1 is as it was", PATIENCE, || {
        scene.web1.netns.reaches(scene.web2.address)?;
        scene.web1.netns.reaches(scene.stranger.address)
    })
}

#[test]
fn whatever_an_endpoint_does_to_its_devices_it_stays_itself() {
    scenario(NEEDS, |lab| {
        let scene = Scene::build(lab)?;
        let names = names(&scene)?;
        // These frames have no mark. Their odd addresses show them.
        let mut victims = Victims::default();
        let everybody: [&Endpoint; 5] =
            [&scene.neighbour, &scene.near, &scene.web2, &scene.far, &scene.web3];
        for endpoint in everybody {
            for device in ["eth0", "eth1"] {
                victims.listen(&endpoint.name, &endpoint.netns, device)?;
            }
        }
        scene.works()?;
        scene.leads_out()?;
        let mut failed = String::new();
        for row in ROWS {
            if let Err(error) = attempt(&scene, &names, row).and_then(|()| is_whole(&scene)) {
                writeln!(failed, "{}: {error:#}", row.name)?;
            }
        }
        scene.works()?;
        scene.leads_out()?;
        let heard = victims.heard_none(ODD);
        ensure!(failed.is_empty(), "{failed}{heard:?}");
        heard
    });
}
