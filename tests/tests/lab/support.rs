//! Parts that the scenarios share: requirements, hosts with nodes and endpoints, and waits.

use std::{
    net::Ipv4Addr,
    panic::Location,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{
    Failure, Host, Lab, Netns, Outside, Requirement, Subnet, eventually, missing, number, skip,
    text,
};
use serde_json::Value;

/// The requirements of nearly every scenario.
pub(crate) const NODES: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ping"),
    Requirement::Tool("nft"),
];

/// The requirements of a scenario with an outside host.
pub(crate) const OUTSIDE: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ping"),
    Requirement::Tool("arping"),
    Requirement::Tool("nft"),
    Requirement::Tool("tcpdump"),
    Requirement::Tool("tshark"),
    Requirement::Tool("dnsmasq"),
    Requirement::Tool("dig"),
];

/// A node asks another every three seconds, one at random, and reports what it learned in the next round.
const PROBED: Duration = Duration::from_secs(60);

/// Copies the files of a state folder.
pub(crate) fn copy_folder(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for file in std::fs::read_dir(from)? {
        let file = file?;
        std::fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

/// The network of most scenarios.
pub(crate) const NETWORK: &str = "myoverlay";

/// Runs a scenario in a lab of its own. If the machine lacks a requirement, the scenario is skipped and the
/// reason is recorded. If the scenario fails, the nodes' logs are printed.
#[track_caller]
pub(crate) fn scenario(needs: &[Requirement], body: impl FnOnce(&mut Lab) -> Result<()>) {
    if let Some(reason) = missing(needs) {
        return skip(&reason, Location::caller()).expect("the file that counts skips");
    }
    let mut lab = Lab::new().expect("the lab is empty and the machine is ours");
    if let Err(error) = body(&mut lab) {
        // The lab prints its logs when this panic drops it.
        panic!("{error:?}");
    }
}

/// A namespace that is attached to a network.
pub(crate) struct Endpoint {
    pub(crate) name: String,
    pub(crate) netns: Netns,
    pub(crate) host: Arc<Host>,
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: String,
}

/// Four nodes in two subnets, the network, and an endpoint of it on three of them: web1 on h1, web2 on h3 (in
/// the other subnet), web2-2 on h2. h4 has none.
pub(crate) struct Cluster {
    pub(crate) hosts: [Arc<Host>; 4],
    pub(crate) web1: Endpoint,
    pub(crate) web2: Endpoint,
    pub(crate) web2_2: Endpoint,
}

/// Builds a [`Cluster`].
pub(crate) fn cluster(lab: &mut Lab) -> Result<Cluster> {
    cluster_with(lab, &[])
}

/// The same, with these further arguments for each node.
pub(crate) fn cluster_with(lab: &mut Lab, args: &[&str]) -> Result<Cluster> {
    let hosts = lab.four_hosts()?;
    cluster_of(lab, hosts, args)
}

/// The same, of hosts that are there already.
pub(crate) fn cluster_of(lab: &Lab, hosts: [Arc<Host>; 4], args: &[&str]) -> Result<Cluster> {
    lab.start_cluster_with(&hosts, args)?;
    create_network(&hosts[0])?;
    let web1 = attach(lab, &hosts[0], "web1", &[])?;
    let web2 = attach(lab, &hosts[2], "web2", &[])?;
    let web2_2 = attach(lab, &hosts[1], "web2-2", &[])?;
    Ok(Cluster { hosts, web1, web2, web2_2 })
}

/// Longest time until another leader exists and every node knows it: an election takes a second or two, an
/// agent leaves a voter without a quorum within three, and the machine is shared.
pub(crate) const ELECTION: Duration = Duration::from_secs(10);
/// Longest time until a node whose wire or process is whole again has the changes that it missed. TCP repeats
/// a segment less often the longer a wire was cut, and a connection is given up after four seconds.
pub(crate) const CATCH_UP: Duration = Duration::from_secs(10);

/// The host that leads, as the agent h4 sees it.
pub(crate) fn leader(cluster: &Cluster) -> Result<Arc<Host>> {
    let name = cluster.hosts[3].leader()?;
    let leader = cluster.hosts.iter().find(|host| host.name == name);
    leader.cloned().with_context(|| format!("{name} is none of the hosts"))
}

/// All voters except this one.
pub(crate) fn other_voters<'a>(cluster: &'a Cluster, voter: &Host) -> Vec<&'a Arc<Host>> {
    cluster.hosts[..3].iter().filter(|host| host.name != voter.name).collect()
}

/// Waits until another node than `old` leads, as `asked` sees it.
pub(crate) fn another_leads(asked: &Host, old: &Host) -> Result<()> {
    eventually("another leads", ELECTION, || {
        let name = asked.leader()?;
        if name == old.name { bail!("{name} still leads") } else { Ok(()) }
    })
}

/// Waits until `node` has the revision of `voter`, and counts as ready there.
pub(crate) fn follows(node: &Host, voter: &Host, patience: Duration) -> Result<()> {
    let revision =
        |host: &Host| -> Result<u64> { Ok(number(&host.overlay_json(&["status"])?, "revision")) };
    let what = format!("{} follows {}", node.name, voter.name);
    eventually(&what, patience, || {
        let (has, should) = (revision(node)?, revision(voter)?);
        ensure!(has >= should, "{} is at {has}, {} at {should}", node.name, voter.name);
        let ready = voter.ready_nodes()?;
        ensure!(ready.contains(&node.name), "only {ready:?} are ready");
        Ok(())
    })
}

/// Two nodes on one wire with an endpoint each, for scenarios in which more hosts would prove nothing more.
pub(crate) fn pair(lab: &mut Lab) -> Result<([Arc<Host>; 2], [Endpoint; 2])> {
    let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
    lab.start_cluster(&hosts)?;
    create_network(&hosts[0])?;
    let endpoints = [attach(lab, &hosts[0], "web1", &[])?, attach(lab, &hosts[1], "web2", &[])?];
    Ok((hosts, endpoints))
}

/// Two nodes in two subnets, the network, and the outside host behind the router.
pub(crate) struct World {
    pub(crate) hosts: [Arc<Host>; 2],
    pub(crate) outside: Outside,
}

impl World {
    /// The hosts and the outside host, without nodes. h1 is on the returned subnet.
    pub(crate) fn bare(lab: &mut Lab) -> Result<(Self, Subnet)> {
        let left = lab.subnet("10.10.10.1/24")?;
        let right = lab.subnet("192.168.50.1/24")?;
        let h1 = lab.host(&left, "h1", "10.10.10.101")?;
        let h2 = lab.host(&right, "h2", "192.168.50.101")?;
        Ok((Self { hosts: [h1, h2], outside: lab.outside()? }, left))
    }

    /// Starts the nodes, with the outside's DNS server as their resolver, and creates the network.
    pub(crate) fn start(&self, lab: &Lab) -> Result<()> {
        lab.start_cluster_with(&self.hosts, &["--resolv-conf", &self.resolv_conf()])?;
        create_network(&self.hosts[0])
    }

    /// Builds the hosts and the outside host, starts the nodes and creates the network.
    pub(crate) fn build(lab: &mut Lab) -> Result<Self> {
        let (world, _) = Self::bare(lab)?;
        world.start(lab)?;
        Ok(world)
    }

    pub(crate) fn resolv_conf(&self) -> String {
        self.outside.resolv_conf.display().to_string()
    }
}

/// A gateway leg as its own namespace shows it.
pub(crate) struct Leg {
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix_len: u64,
    pub(crate) mac: String,
    pub(crate) mtu: u64,
    /// Index of the host's side.
    pub(crate) peer: u64,
}

/// Reads the state of eth1.
pub(crate) fn leg(netns: &Netns) -> Result<Leg> {
    let links = netns.ip_json(&["addr", "show", "dev", "eth1"])?;
    let link = &links[0];
    ensure!(link["operstate"] == "UP", "{link}");
    let addresses = link["addr_info"].as_array().context("addresses")?;
    let [inet] = &addresses[..] else { bail!("not one address: {link}") };
    Ok(Leg {
        address: text(inet, "local").parse()?,
        prefix_len: inet["prefixlen"].as_u64().context("a prefix length")?,
        mac: text(link, "address").to_owned(),
        mtu: link["mtu"].as_u64().context("an MTU")?,
        peer: link["link_index"].as_u64().context("a peer")?,
    })
}

/// The MAC of an endpoint's device with this address: 02:42 and the four bytes of the address.
pub(crate) fn mac_of(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// The address of a host's gateway bridge, with its prefix length.
pub(crate) fn bridge_address(host: &Host) -> Result<String> {
    let links = host.netns.ip_json(&["addr", "show", "dev", "ov_gwbridge"])?;
    let addresses = links[0]["addr_info"].as_array().context("addresses")?;
    let inet: Vec<&Value> = addresses.iter().filter(|a| a["family"] == "inet").collect();
    let [inet] = inet[..] else { bail!("not one address: {links}") };
    Ok(format!("{}/{}", text(inet, "local"), inet["prefixlen"]))
}

/// Creates [`NETWORK`], with the options that the issue gives.
pub(crate) fn create_network(host: &Host) -> Result<()> {
    let (subnet, range) = ("172.16.16.0/24", "172.16.16.128/25");
    host.overlay(&["network", "create", NETWORK, "--subnet", subnet, "--ip-range", range])?;
    Ok(())
}

/// Creates a namespace and attaches it to [`NETWORK`]. Returns when every node has programmed it.
pub(crate) fn attach(lab: &Lab, host: &Arc<Host>, name: &str, more: &[&str]) -> Result<Endpoint> {
    attach_to(NETWORK, host, name, lab.container(name)?, more)
}

/// Attaches a namespace to a network. Returns when every node has programmed it.
pub(crate) fn attach_to(
    network: &str,
    host: &Arc<Host>,
    name: &str,
    netns: Netns,
    more: &[&str],
) -> Result<Endpoint> {
    attach_without(&[], network, host, name, netns, more)
}

/// Attaches a namespace to a network while these nodes are lost. Returns when every other node has programmed it.
pub(crate) fn attach_without(
    lost: &[&str],
    network: &str,
    host: &Arc<Host>,
    name: &str,
    netns: Netns,
    more: &[&str],
) -> Result<Endpoint> {
    let inside = netns.name().to_owned();
    let words = ["endpoint", "create", name, "--network", network, "--netns", &inside];
    let words: Vec<&str> = words.into_iter().chain(more.iter().copied()).collect();
    let created = host.overlay_json(&words)?;
    let made = created.get("endpoint").unwrap_or(&created);
    let lagging = created["lagging_nodes"].as_array().cloned().unwrap_or_default();
    ensure!(lagging == lost, "{created}");
    Ok(Endpoint {
        name: name.to_owned(),
        netns,
        host: Arc::clone(host),
        address: address(made)?,
        mac: text(made, "mac").to_owned(),
    })
}

/// The address in an endpoint's row, without its prefix length.
pub(crate) fn address(endpoint: &Value) -> Result<Ipv4Addr> {
    let address = text(endpoint, "address");
    let (address, length) = address.split_once('/').with_context(|| format!("{endpoint}"))?;
    ensure!(length == "24", "{endpoint}");
    Ok(address.parse()?)
}

/// Returns true if the map NEIGH on a host has an endpoint's address.
pub(crate) fn knows(host: &Host, address: Ipv4Addr) -> Result<bool> {
    let neighbours: Value = serde_json::from_str(&host.map_dump("NEIGH")?)?;
    Ok(holds(&neighbours, &address.octets()))
}

/// Returns true if the value contains an array whose last numbers are these.
fn holds(value: &Value, octets: &[u8]) -> bool {
    match value {
        Value::Array(values) => {
            let bytes: Vec<u8> = values.iter().filter_map(byte).collect();
            bytes.ends_with(octets) || values.iter().any(|value| holds(value, octets))
        }
        Value::Object(fields) => fields.values().any(|value| holds(value, octets)),
        _ => false,
    }
}

/// A byte, which bpftool prints as a number or as "0xac".
fn byte(value: &Value) -> Option<u8> {
    match value {
        Value::Number(number) => number.as_u64()?.try_into().ok(),
        Value::String(text) => u8::from_str_radix(text.strip_prefix("0x")?, 16).ok(),
        _ => None,
    }
}

/// Waits until the VTEP of each of these hosts has answered probes that were sent from now on.
pub(crate) fn answer_probes(hosts: &[Arc<Host>]) -> Result<()> {
    let begun = Instant::now();
    for host in hosts {
        eventually(&format!("the VTEP of {} answers probes", host.name), PROBED, || {
            let node = hosts[0].overlay_json(&["node", "inspect", &host.name])?;
            let answered = node["answered_ms_ago"].as_u64().map(Duration::from_millis);
            ensure!(answered.is_some_and(|ago| ago < begun.elapsed()), "{node}");
            Ok(())
        })?;
    }
    Ok(())
}

/// The VNI of [`NETWORK`].
pub(crate) fn vni(host: &Host) -> Result<String> {
    let network = host.overlay_json(&["network", "inspect", NETWORK])?;
    Ok(network["vni"].as_u64().with_context(|| format!("{network}"))?.to_string())
}

/// Fails unless the command was refused with exit code 1 and one line that starts with `error:` and contains
/// these words. The output may also contain a node's log.
pub(crate) fn refused_with(failure: &Failure, words: &str) -> Result<()> {
    ensure!(failure.code == Some(1), "exit code {:?}: {}", failure.code, failure.stderr);
    let errors: Vec<&str> =
        failure.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors[..] else {
        bail!("{} error lines: {}", errors.len(), failure.stderr);
    };
    ensure!(error.to_lowercase().contains(&words.to_lowercase()), "not {words:?}: {error}");
    Ok(())
}
