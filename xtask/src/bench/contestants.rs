//! The three ways from one container to another over two hosts, each on a pair of hosts of its own.

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::{Context as _, Result};
use overlay_lab::{Host, Lab, Netns, text};

/// The overlay's MTU over an underlay of 1500.
const MTU: &str = "1450";

pub(crate) const UNDERLAY: &str = "underlay";
pub(crate) const KERNEL: &str = "kernel VXLAN + bridge";
pub(crate) const OURS: &str = "ours";

/// One contestant: where its two ends are, and the underlay between them.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) client: Netns,
    pub(crate) server: Netns,
    pub(crate) server_address: Ipv4Addr,
    pub(crate) hosts: [Arc<Host>; 2],
}

impl Contestant {
    /// The wire alone: the limit.
    pub(crate) fn underlay(lab: &mut Lab) -> Result<Self> {
        let hosts = lab.wired_pair(("u1", "10.9.0.1"), ("u2", "10.9.0.2"))?;
        let [client, server] = hosts.each_ref().map(|host| host.netns.clone());
        let server_address = hosts[1].address;
        Ok(Self { name: UNDERLAY, client, server, server_address, hosts })
    }

    /// A kernel VXLAN device in a bridge with the container's veth: Docker's and Flannel's data path.
    /// Forwarding and neighbour entries are static, as those write them.
    pub(crate) fn kernel(lab: &mut Lab) -> Result<Self> {
        Self::kernel_named(lab, "k")
    }

    /// The same, its namespaces' names starting so.
    pub(crate) fn kernel_named(lab: &mut Lab, prefix: &str) -> Result<Self> {
        let name = |rest: &str| format!("{prefix}{rest}");
        let hosts = lab.wired_pair((&name("1"), "10.9.0.1"), (&name("2"), "10.9.0.2"))?;
        let ends = [(name("c1"), "10.0.0.1"), (name("c2"), "10.0.0.2")];
        let macs = ["02:42:0a:00:00:01", "02:42:0a:00:00:02"];
        let mut containers = Vec::new();
        for (side, (name, address)) in ends.iter().enumerate() {
            let (host, other) = (&hosts[side], 1 - side);
            let container = lab.container(name)?;
            let inside = host.netns.name();
            host.netns.ip(&[
                "link",
                "add",
                "v0",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                container.name(),
            ])?;
            container.ip(&["link", "set", "eth0", "address", macs[side], "mtu", MTU, "up"])?;
            container.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
            let (peer, peer_mac) = (ends[other].1, macs[other]);
            container.ip(&["neigh", "add", peer, "lladdr", peer_mac, "dev", "eth0"])?;
            let (local, remote) = (host.address.to_string(), hosts[other].address.to_string());
            let netns = &host.netns;
            netns.ip(&["link", "add", "br0", "mtu", MTU, "type", "bridge"])?;
            netns.ip(&[
                "link",
                "add",
                "vx0",
                "type",
                "vxlan",
                "id",
                "100",
                "dstport",
                "4789",
                "local",
                &local,
                "dev",
                "eth0",
                "nolearning",
            ])?;
            netns.ip(&["link", "set", "br0", "up"])?;
            netns.ip(&["link", "set", "vx0", "mtu", MTU, "master", "br0", "up"])?;
            netns.ip(&["link", "set", "v0", "mtu", MTU, "master", "br0", "up"])?;
            netns
                .run(&["bridge", "fdb", "add", peer_mac, "dev", "vx0", "dst", &remote])
                .with_context(|| format!("the forwarding entry in {inside}"))?;
            containers.push(container);
        }
        let server = containers.pop().context("two containers")?;
        let client = containers.pop().context("two containers")?;
        let server_address = ends[1].1.parse()?;
        Ok(Self { name: KERNEL, client, server, server_address, hosts })
    }

    /// Two real nodes.
    pub(crate) fn ours(lab: &mut Lab) -> Result<Self> {
        let hosts = lab.wired_pair(("o1", "10.9.0.1"), ("o2", "10.9.0.2"))?;
        lab.start_cluster(&hosts)?;
        hosts[0].overlay(&["network", "create", "bench", "--subnet", "10.0.0.0/24"])?;
        let (client, _) = attach(lab, &hosts[0], "oc1")?;
        let (server, server_address) = attach(lab, &hosts[1], "oc2")?;
        Ok(Self { name: OURS, client, server, server_address, hosts })
    }

    /// Switches the underlay's segmentation offloads: on, 64 KiB super-packets cross the wire; off,
    /// real packets of its MTU do, and the receiver's GRO matters.
    pub(crate) fn set_tso(&self, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        for host in &self.hosts {
            let mut words = vec!["ethtool", "-K", "eth0", "gro", "on"];
            let features =
                ["tso", "gso", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];
            words.extend(features.iter().flat_map(|feature| [feature, state]));
            host.netns.run(&words)?;
        }
        Ok(())
    }
}

/// A container on the network `bench`, and its address there.
pub(crate) fn attach(lab: &Lab, host: &Host, name: &str) -> Result<(Netns, Ipv4Addr)> {
    let container = lab.container(name)?;
    let address = create_endpoint(host, name, &container, &[])?;
    Ok((container, address))
}

/// `overlay endpoint create` with these options besides; returns the address that it was given.
pub(crate) fn create_endpoint(
    host: &Host,
    name: &str,
    container: &Netns,
    options: &[&str],
) -> Result<Ipv4Addr> {
    let netns = container.name();
    let words = ["endpoint", "create", name, "--network", "bench", "--netns", netns];
    let created = host.overlay_json(&[&words, options].concat())?;
    let endpoint = created.get("endpoint").unwrap_or(&created);
    let address = text(endpoint, "address");
    let (address, _) = address.split_once('/').with_context(|| format!("no address: {created}"))?;
    Ok(address.parse()?)
}
