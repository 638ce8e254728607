//! Removal leaves nothing behind, and does not touch what belongs to others.

use std::{collections::BTreeSet, fs, net::TcpListener, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{Host, MachineState, Requirement, eventually, netns_files, overlay_binary, rows};
use serde_json::Value;

use crate::support::{
    CATCH_UP, NETWORK, NODES, attach, create_network, follows, pair, refused_with, scenario, vni,
};

const FOREIGN: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ping"),
    Requirement::Tool("bpftool"),
    Requirement::Tool("tc"),
];

/// A removed node learns of its removal within a second, or at its next start.
const BOUND: Duration = Duration::from_secs(20);

#[test]
fn endpoints_and_networks_leave_nothing_behind() {
    scenario(NODES, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        lab.start_cluster(&hosts)?;
        let [h1, h2] = &hosts;
        let before = [MachineState::of(h1)?, MachineState::of(h2)?];
        create_network(h1)?;
        let web1 = attach(lab, h1, "web1", &[])?;
        let web2 = attach(lab, h2, "web2", &[])?;
        web1.netns.reaches(web2.address)?;
        ensure!(MachineState::of(h1)? != before[0], "the state does not show an endpoint");

        h1.overlay(&["endpoint", "rm", "web1"])?;
        ensure!(web1.netns.links()? == ["lo"], "{:?}", web1.netns.links()?);
        ensure!(web2.netns.ping(web1.address, 2)?.received == 0);
        // The removal is asked of a node other than the endpoint's own.
        h1.overlay(&["endpoint", "rm", "web2"])?;
        ensure!(web2.netns.links()? == ["lo"], "{:?}", web2.netns.links()?);
        h2.overlay(&["network", "rm", NETWORK])?;
        for (host, before) in hosts.iter().zip(&before) {
            eventually("the host is as it was", Duration::from_secs(10), || {
                MachineState::of(host)?.same_as(before)
            })?;
            for map in ["FDB", "NEIGH", "PORTS", "FLOOD"] {
                let dump: Value = serde_json::from_str(&host.map_dump(map)?)?;
                ensure!(dump.as_array().is_some_and(Vec::is_empty), "{map}: {dump}");
            }
        }
        // The network's name and first address are free again.
        create_network(h2)?;
        let again = attach(lab, h2, "web3", &[])?;
        ensure!(again.address == web1.address, "{}", again.address);
        Ok(())
    });
}

/// A removed node leaves its host as it was before the node's first start. The node may be an agent or a
/// voter, and may learn of its removal from its stream or at its next start.
#[test]
fn a_host_is_as_it_was_before_its_node_when_that_is_removed() {
    scenario(NODES, |lab| {
        let hosts = lab.four_hosts()?;
        let mut before = Vec::new();
        for host in &hosts {
            before.push((MachineState::of(host)?, netns_files(lab.prefix())?));
        }
        lab.start_cluster(&hosts)?;
        let [h1, _, h3, h4] = &hosts;
        create_network(h1)?;
        let ends = [attach(lab, h1, "web1", &[])?, attach(lab, h3, "web3", &["-p", "8080:80"])?];
        let web4 = attach(lab, h4, "web4", &["-p", "8080:80"])?;
        ends[0].netns.reaches(web4.address)?;
        let changed = MachineState::of(h4)?.difference(&before[3].0);
        for what in ["pin", "nft", "link", "route", "qdisc", "sysctl"] {
            let seen = changed.iter().any(|line| line[2..].starts_with(what));
            ensure!(seen, "the state does not show a node's {what}: {changed:#?}");
        }
        h1.overlay(&["endpoint", "rm", "web3", "web4"])?;

        // h4 is a running agent. h3 is a voter that is down, and is told when it comes back.
        h1.overlay(&["node", "rm", "h4"])?;
        h3.kill9()?;
        h1.overlay(&["node", "rm", "h3"])?;
        h3.spawn_again()?;
        for (place, host) in [(3, h4), (2, h3)] {
            eventually("the node ends, and the host is as it was", BOUND, || {
                ensure!(!host.is_running()?, "{} still runs", host.name);
                MachineState::of(host)?.same_as(&before[place].0)
            })
            .with_context(|| host.name.clone())?;
        }
        h1.overlay(&["endpoint", "rm", "web1"])?;
        ensure!(netns_files(lab.prefix())? == before[0].1, "files of resolvers are left");
        Ok(())
    });
}

/// A host before its node: its kernel, and the folder with the node's socket and state folder.
struct Bare {
    state: MachineState,
    files: BTreeSet<PathBuf>,
}

impl Bare {
    fn of(host: &Host) -> Result<Self> {
        Ok(Self { state: MachineState::of(host)?, files: beside_the_socket(host)? })
    }

    /// Fails unless the host is as it was.
    fn same_as(&self, before: &Self) -> Result<()> {
        self.state.same_as(&before.state)?;
        ensure!(self.files == before.files, "was {:?}, is {:?}", before.files, self.files);
        Ok(())
    }
}

fn beside_the_socket(host: &Host) -> Result<BTreeSet<PathBuf>> {
    let socket = host.socket();
    let entries = match fs::read_dir(socket.parent().context("it is in a folder")?) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Resets the host's node. The command is told the state folder alone: what else was chosen, the folder has to say.
fn reset(host: &Host) -> Result<Value> {
    let (binary, folder) = (overlay_binary(), host.state_dir());
    let words = [binary.to_str().context("a path")?, "node", "reset", "-o", "json", "--state-dir"];
    let text = host.netns.run(&[&words[..], &[folder.to_str().context("a path")?]].concat())?;
    serde_json::from_str(&text).context(text)
}

/// The sentences of a reset's answer under one name.
fn sentences<'a>(reset: &'a Value, of: &str) -> Vec<&'a str> {
    rows(&reset[of]).iter().filter_map(Value::as_str).collect()
}

/// Resets the host's node. Fails unless the host is as it was before its first start, and a second reset finds nothing.
fn is_reset(host: &Host, before: &Bare) -> Result<Value> {
    let done = reset(host)?;
    let (removed, errors) = (sentences(&done, "removed"), sentences(&done, "errors"));
    ensure!(!removed.is_empty() && errors.is_empty(), "{done}");
    Bare::of(host)?.same_as(before).with_context(|| format!("{}: {done}", host.name))?;
    let again = reset(host)?;
    let said = ["removed", "remarks", "errors"].map(|of| sentences(&again, of).len());
    ensure!(said == [0, 0, 0], "{again}");
    Bare::of(host)?.same_as(before)?;
    Ok(done)
}

/// A reset takes away all that a node made, whatever became of its cluster: it goes on, with the node's row or without;
/// it was never entered, since the node died in its first join; or the node is its last one.
#[test]
fn reset_leaves_a_host_as_it_was() {
    scenario(NODES, |lab| {
        let hosts = lab.four_hosts()?;
        let before = [Bare::of(&hosts[0])?, Bare::of(&hosts[1])?, Bare::of(&hosts[2])?];
        let files = netns_files(lab.prefix())?;
        let [h1, h2, h3, _] = &hosts;
        lab.start_cluster_with(&hosts[..2], &["--big-tcp", "on"])?;
        create_network(h1)?;
        let web1 = attach(lab, h1, "web1", &["-p", "8080:80"])?;
        let web2 = attach(lab, h2, "web2", &["-p", "8080:80"])?;
        web1.netns.reaches(web2.address)?;

        // The cluster goes on. Nobody has told it.
        let running = h2.overlay_fails(&["node", "reset", "--state-dir", &state_dir(h2)])?;
        refused_with(&running, "a node runs here")?;
        web1.netns.reaches(web2.address)?;
        let changed = MachineState::of(h2)?.difference(&before[1].state);
        for what in ["pin", "nft", "link", "route", "qdisc", "sysctl"] {
            let seen = changed.iter().any(|line| line[2..].starts_with(what));
            ensure!(seen, "the state does not show a node's {what}: {changed:#?}");
        }
        h2.kill9()?;
        let done = is_reset(h2, &before[1])?;
        let remarks = sentences(&done, "remarks");
        ensure!(remarks.iter().any(|said| said.contains("overlay node rm h2")), "{done}");
        ensure!(web2.netns.links()? == ["lo"], "{:?}", web2.netns.links()?);

        // It is the same cluster's again, as a new node, and leaves it.
        h1.overlay(&["endpoint", "rm", "web2"])?;
        h1.overlay(&["node", "rm", "h2"])?;
        h2.start_node(&["--join", &h1.listen()])?;
        follows(h2, h1, CATCH_UP)?;
        let web3 = attach(lab, h2, "web3", &[])?;
        web1.netns.reaches(web3.address)?;
        refused_with(&h2.overlay_fails(&["node", "leave"])?, "web3")?;
        h1.overlay(&["endpoint", "rm", "web3"])?;
        h2.overlay(&["node", "leave"])?;
        MachineState::of(h2)?.same_as(&before[1].state)?;
        refused_with(&h2.node_fails(&["--join", &h1.listen()])?, "overlay node reset")?;
        is_reset(h2, &before[1])?;
        ensure!(h1.ready_nodes()? == ["h1"], "{:?}", h1.ready_nodes()?);

        // A first join that somebody takes and does not answer, and that is killed.
        let silent = h2.listen();
        let _silent = h2.netns.enter(|| TcpListener::bind(&silent).context("the port"))?;
        h3.spawn_node(&["--join", &silent])?;
        eventually("h3 has made something", BOUND, || {
            let changed = MachineState::of(h3)?.difference(&before[2].state);
            let has_made = |what: &str| changed.iter().any(|line| line[2..].starts_with(what));
            ensure!(has_made("pin") && has_made("link"), "{changed:?}");
            Ok(())
        })?;
        h3.kill9()?;
        is_reset(h3, &before[2])?;

        // The last node, with its endpoint.
        let whole = h1.overlay_fails(&["node", "leave"])?;
        refused_with(&whole, "overlay node reset")?;
        h1.stop()?;
        let nowhere = lab.folder().join("nowhere").display().to_string();
        let mistyped = h1.overlay_fails(&["node", "reset", "--state-dir", &nowhere])?;
        refused_with(&mistyped, "--force")?;
        let done = is_reset(h1, &before[0])?;
        ensure!(sentences(&done, "remarks").is_empty(), "{done}");
        ensure!(web1.netns.links()? == ["lo"], "{:?}", web1.netns.links()?);
        ensure!(netns_files(lab.prefix())? == files, "files of resolvers are left");
        Ok(())
    });
}

fn state_dir(host: &Host) -> String {
    host.state_dir().display().to_string()
}

#[test]
fn an_endpoint_whose_namespace_has_gone_can_be_removed() {
    scenario(NODES, |lab| {
        let ([h1, h2], [web1, web2]) = pair(lab)?;
        h1.overlay(&["endpoint", "rm", "web1"])?;
        let before = MachineState::of(&h1)?;
        let gone = attach(lab, &h1, "gone", &[])?;
        gone.netns.remove()?;
        h2.overlay(&["endpoint", "rm", "gone"])?;
        eventually("the host is as it was", Duration::from_secs(10), || {
            MachineState::of(&h1)?.same_as(&before)
        })?;
        web2.netns.remove()?;
        drop(web1);
        h1.overlay(&["endpoint", "rm", "web2"])?;
        h1.overlay(&["network", "rm", NETWORK])?;
        Ok(())
    });
}

#[test]
fn foreign_devices_programs_and_pins_are_left_alone() {
    scenario(FOREIGN, |lab| {
        let ([h1, _], [web1, web2]) = pair(lab)?;
        let vni = vni(&h1)?;
        // Foreign objects: a VXLAN device with our VNI on another port, a bridge, a veth pair, a route, and a
        // classifier on the underlay.
        let netns = &h1.netns;
        netns.ip(&[
            "link",
            "add",
            "flannel.1",
            "type",
            "vxlan",
            "id",
            &vni,
            "dstport",
            "8472",
            "local",
            "10.10.10.101",
            "dev",
            "eth0",
        ])?;
        netns.ip(&["link", "add", "cni0", "type", "bridge"])?;
        netns.ip(&["link", "add", "veth9", "type", "veth", "peer", "name", "veth10"])?;
        netns.ip(&["link", "set", "veth9", "master", "cni0", "up"])?;
        netns.ip(&["link", "set", "cni0", "up"])?;
        netns.ip(&["addr", "add", "10.88.0.1/24", "dev", "cni0"])?;
        netns.run(&["tc", "qdisc", "replace", "dev", "eth0", "clsact"])?;
        netns.run(&[
            "tc",
            "filter",
            "add",
            "dev",
            "eth0",
            "ingress",
            "prio",
            "77",
            "bpf",
            "bytecode",
            "1,6 0 0 0,",
        ])?;
        let pin = h1.bpffs.with_file_name(format!("{}-foreign", h1.netns.name()));
        fs::create_dir(&pin)?;
        // The bridge has an address, so endpoints and its neighbours are to reach each other.
        eventually("the node forwards for cni0", Duration::from_secs(20), || {
            let forwarding = MachineState::of(&h1)?.forwarding();
            ensure!(forwarding.iter().any(|device| device == "cni0"), "{forwarding:?}");
            Ok(())
        })?;
        let remove_pin = scopeguard(|| fs::remove_dir(&pin).expect("the foreign folder is there"));
        let before = MachineState::of(&h1)?;

        h1.kill9()?;
        h1.restart()?;
        let web3 = attach(lab, &h1, "web3", &[])?;
        web2.netns.reaches(web3.address)?;
        h1.overlay(&["endpoint", "rm", "web3"])?;
        eventually("the host is as it was", Duration::from_secs(10), || {
            MachineState::of(&h1)?.same_as(&before)
        })?;
        ensure!(pin.exists());
        drop(remove_pin);

        // The foreign objects also stay when the node has no objects of its own left.
        h1.overlay(&["endpoint", "rm", "web1", "web2"])?;
        h1.overlay(&["network", "rm", NETWORK])?;
        drop(web1);
        let links = h1.netns.links()?;
        for foreign in ["flannel.1", "cni0", "veth9", "veth10"] {
            ensure!(links.iter().any(|link| link == foreign), "{foreign} is gone: {links:?}");
        }
        let filters = h1.netns.run(&["tc", "filter", "show", "dev", "eth0", "ingress"])?;
        ensure!(filters.contains("pref 77"), "the foreign filter is gone: {filters}");
        Ok(())
    });
}

#[test]
fn a_network_with_endpoints_stays() {
    scenario(NODES, |lab| {
        let ([h1, _], [web1, web2]) = pair(lab)?;
        let refused = h1.overlay_fails(&["network", "rm", NETWORK])?;
        refused_with(&refused, "endpoints")?;
        web1.netns.reaches(web2.address)?;
        let networks = h1.overlay_json(&["network", "ls"])?;
        if networks.as_array().map(Vec::len) != Some(1) {
            bail!("{networks}");
        }
        Ok(())
    });
}

/// Calls a function when the result goes out of scope.
fn scopeguard<F: FnMut()>(end: F) -> impl Drop {
    struct Guard<F: FnMut()>(F);
    impl<F: FnMut()> Drop for Guard<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    Guard(end)
}
