//! Bad input causes one clear error and the right exit code, and leaves nothing half-made.

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Host, MachineState, Netns};

use crate::support::{NETWORK, NODES, attach, pair, refused_with, scenario};

/// The state of a host and of the cluster that a refusal must not change.
struct Untouched<'a> {
    host: &'a Host,
    state: MachineState,
    rows: [String; 2],
}

impl<'a> Untouched<'a> {
    fn note(host: &'a Host) -> Result<Self> {
        Ok(Self { host, state: MachineState::of(host)?, rows: Self::rows(host)? })
    }

    fn rows(host: &Host) -> Result<[String; 2]> {
        Ok([
            host.overlay_json(&["network", "ls"])?.to_string(),
            host.overlay_json(&["endpoint", "ls"])?.to_string(),
        ])
    }

    fn check(&self) -> Result<()> {
        MachineState::of(self.host)?.same_as(&self.state)?;
        let rows = Self::rows(self.host)?;
        ensure!(rows == self.rows, "before: {:?}\nafter: {rows:?}", self.rows);
        Ok(())
    }
}

/// Checks that each of these commands is refused with these words, and changes nothing.
fn all_refused(host: &Host, netns: &Netns, cases: &[(&str, &str)]) -> Result<()> {
    let untouched = Untouched::note(host)?;
    let inside = netns.links()?;
    for (line, words) in cases {
        let line = line.replace("NETNS", netns.name()).replace("NETWORK", NETWORK);
        let args: Vec<&str> = line.split(' ').collect();
        let refused = host.overlay_fails(&args)?;
        refused_with(&refused, words).with_context(|| format!("overlay {line}"))?;
        untouched.check().with_context(|| format!("overlay {line}"))?;
        ensure!(netns.links()? == inside, "overlay {line}: {:?}", netns.links()?);
    }
    Ok(())
}

#[test]
fn endpoints_that_cannot_be() {
    scenario(NODES, |lab| {
        let ([h1, h2], [web1, _]) = pair(lab)?;
        let free = lab.container("free")?;
        let cases = [
            (
                "endpoint create web2 --network NETWORK --netns NETNS",
                "service endpoint with name web2 already exists",
            ),
            ("endpoint create x --network NETWORK --netns NETNS --ip 172.16.16.129", "in use"),
            ("endpoint create x --network NETWORK --netns NETNS --ip 172.16.17.5", "outside"),
            (
                "endpoint create x --network NETWORK --netns NETNS --ip 172.16.16.0",
                "network address",
            ),
            ("endpoint create x --network NETWORK --netns NETNS --ip 172.16.16.255", "broadcast"),
            ("endpoint create x --network nowhere --netns NETNS", "nowhere"),
            ("endpoint create x --network NETWORK --netns not-there", "not-there"),
            ("endpoint create x --network NETWORK --netns NETNS --node not-there", "not-there"),
            ("endpoint create UPPER_and/slash --network NETWORK --netns NETNS", "name"),
            ("endpoint rm not-there", "not-there"),
            ("endpoint inspect not-there", "not-there"),
            ("node inspect not-there", "not-there"),
        ];
        // Both nodes refuse the same: the one that has web2, and the one that has not.
        all_refused(&h1, &free, &cases)?;
        all_refused(&h2, &free, &cases)?;

        let taken = web1.netns.clone();
        let create = "endpoint create x --network NETWORK --netns NETNS";
        all_refused(&h1, &taken, &[(create, "already")])?;
        // Linux would send by one of both interfaces what is for either.
        for (twin, subnet) in [("twin", "172.16.16.0/24"), ("nest", "172.16.0.0/16")] {
            h1.overlay(&["network", "create", twin, "--subnet", subnet])?;
            let create = format!("endpoint create x --network {twin} --netns NETNS");
            all_refused(&h1, &taken, &[(&create, "meets the network's subnet")])?;
        }
        let cases = [(create, "eth0")];
        free.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "other"])?;
        all_refused(&h1, &free, &cases)?;
        ensure!(free.links()? == ["eth0", "lo", "other"], "{:?}", free.links()?);
        Ok(())
    });
}

#[test]
fn networks_that_cannot_be() {
    scenario(NODES, |lab| {
        let ([h1, h2], _) = pair(lab)?;
        let free = lab.container("free")?;
        let vni = crate::support::vni(&h1)?;
        let same_vni = format!("network create x --subnet 10.1.0.0/24 --vni {vni}");
        let cases = [
            ("network create NETWORK --subnet 10.1.0.0/24", "already exists"),
            (&same_vni, "VNI"),
            ("network create x --subnet 10.1.0.0/24 --vni 16777216", "VNI"),
            ("network create x --subnet 10.1.0/24", "10.1.0/24"),
            ("network create x --subnet 10.1.0.0/33", "10.1.0.0/33"),
            ("network create x --subnet 10.1.0.0/31", "too small"),
            ("network create x --subnet 10.1.0.0/24 --ip-range 10.2.0.0/25", "outside"),
            ("network create x --subnet 10.1.0.0/24 --ip-range 10.1.0.0/16", "outside"),
            ("network rm NETWORK", "endpoints"),
            ("network rm not-there", "not-there"),
            ("network inspect not-there", "not-there"),
        ];
        all_refused(&h1, &free, &cases)?;
        all_refused(&h2, &free, &cases)?;
        Ok(())
    });
}

#[test]
fn an_empty_pool_is_an_error_and_a_release_refills_it() {
    scenario(NODES, |lab| {
        let ([h1, _], _) = pair(lab)?;
        let range = ["--subnet", "10.1.0.0/24", "--ip-range", "10.1.0.128/30"];
        h1.overlay(&[&["network", "create", "small"], &range[..]].concat())?;
        let mut made = Vec::new();
        let refused = loop {
            let netns = lab.container(&format!("small{}", made.len()))?;
            let name = format!("small{}", made.len());
            let create =
                ["endpoint", "create", &name, "--network", "small", "--netns", netns.name()];
            ensure!(made.len() <= 3, "four addresses out of three");
            if h1.overlay(&create).is_err() {
                ensure!(netns.links()? == ["lo"], "{:?}", netns.links()?);
                break h1.overlay_fails(&create)?;
            }
            made.push(name);
        };
        // Only three of the range's four addresses are given to endpoints, because the first stays free.
        ensure!(made.len() == 3, "{made:?}");
        refused_with(&refused, "no free address")?;
        h1.overlay(&["endpoint", "rm", &made[0]])?;
        let netns = lab.container("late")?;
        h1.overlay(&["endpoint", "create", "late", "--network", "small", "--netns", netns.name()])?;
        Ok(())
    });
}

#[test]
fn names_are_unique_in_a_network_not_across_networks() {
    scenario(NODES, |lab| {
        let ([h1, h2], _) = pair(lab)?;
        h1.overlay(&["network", "create", "other", "--subnet", "172.16.17.0/24"])?;
        let netns = lab.container("web2-other")?;
        let create = ["endpoint", "create", "web2", "--network", "other", "--netns", netns.name()];
        h2.overlay(&create)?;
        // Two networks have an endpoint of that name now, so that the name alone is ambiguous.
        let refused = h1.overlay_fails(&["endpoint", "inspect", "web2"])?;
        refused_with(&refused, "--network")?;
        h1.overlay(&["endpoint", "inspect", "web2", "--network", "other"])?;
        let _web3 = attach(lab, &h1, "web3", &[])?;
        Ok(())
    });
}
