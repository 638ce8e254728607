//! A host as Docker sets it up: a bridge, a veth pair for each container, and rules of iptables.
//!
//! The rules are those that dockerd 20.10 writes (libnetwork's `iptables` and `bridge` drivers) for
//! `docker_gwbridge`, on which ICC is off, in the same order and with one command for each. Docker's proxy in
//! user space only serves localhost and is not in this path.

use std::net::Ipv4Addr;

use anyhow::Result;
use overlay_lab::{Host, Lab, Netns};

const BRIDGE: &str = "docker_gwbridge";
pub(super) const SUBNET: &str = "172.18.0.0/16";
pub(super) const ENDPOINT: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
/// Host side of the container's veth pair.
pub(super) const LEG: &str = "leg";

/// The rules that are written once.
pub(super) const RULES: [&str; 21] = [
    "-t nat -N DOCKER",
    "-t filter -N DOCKER",
    "-t filter -N DOCKER-ISOLATION-STAGE-1",
    "-t filter -N DOCKER-ISOLATION-STAGE-2",
    "-t filter -N DOCKER-USER",
    "-t filter -P FORWARD DROP",
    "-t filter -A DOCKER-USER -j RETURN",
    "-t filter -A FORWARD -j DOCKER-USER",
    "-t filter -A FORWARD -j DOCKER-ISOLATION-STAGE-1",
    "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
    "-t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER",
    "-t nat -A POSTROUTING -s 172.18.0.0/16 ! -o docker_gwbridge -j MASQUERADE",
    "-t nat -A DOCKER -i docker_gwbridge -j RETURN",
    "-t filter -A FORWARD -o docker_gwbridge -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-t filter -A FORWARD -o docker_gwbridge -j DOCKER",
    "-t filter -A FORWARD -i docker_gwbridge ! -o docker_gwbridge -j ACCEPT",
    "-t filter -A FORWARD -i docker_gwbridge -o docker_gwbridge -j DROP",
    "-t filter -A DOCKER-ISOLATION-STAGE-1 -i docker_gwbridge ! -o docker_gwbridge -j \
     DOCKER-ISOLATION-STAGE-2",
    "-t filter -A DOCKER-ISOLATION-STAGE-1 -j RETURN",
    "-t filter -A DOCKER-ISOLATION-STAGE-2 -o docker_gwbridge -j DROP",
    "-t filter -A DOCKER-ISOLATION-STAGE-2 -j RETURN",
];

/// The rules for one published port. `how`: -A appends them, as dockerd does; -D deletes them.
pub(super) fn publish_rules(how: &str, to: Ipv4Addr, port: u16, inside: u16) -> [String; 3] {
    [
        format!(
            "-t nat {how} DOCKER ! -i {BRIDGE} -p tcp -m tcp --dport {port} -j DNAT \
             --to-destination {to}:{inside}"
        ),
        format!(
            "-t filter {how} DOCKER -d {to}/32 ! -i {BRIDGE} -o {BRIDGE} -p tcp -m tcp --dport \
             {inside} -j ACCEPT"
        ),
        format!(
            "-t nat {how} POSTROUTING -s {to}/32 -d {to}/32 -p tcp -m tcp --dport {inside} -j \
             MASQUERADE"
        ),
    ]
}

/// Writes one rule with a process of its own, as dockerd does.
pub(super) fn run(host: &Host, rule: &str) -> Result<()> {
    let words: Vec<&str> = ["iptables", "--wait"].into_iter().chain(rule.split(' ')).collect();
    host.netns.run(&words).map(drop)
}

/// Publishes many ports of containers that need not exist. Half of the rules come before the existing ones,
/// so that an existing port is found as late as a port among so many is found on average.
pub(super) fn publish_many(host: &Host, ports: &[u16], inside: u16) -> Result<()> {
    let (mut nat, mut filter) = (String::from("*nat\n"), String::from("*filter\n"));
    for (number, &port) in ports.iter().enumerate() {
        let how = if number < ports.len() / 2 { "-I" } else { "-A" };
        let to = Ipv4Addr::new(172, 18, 1, u8::try_from(number / 100 + 1)?);
        for rule in publish_rules(how, to, port, inside) {
            let (table, rule) = match rule.strip_prefix("-t nat ") {
                Some(rule) => (&mut nat, rule),
                None => (&mut filter, rule.trim_start_matches("-t filter ")),
            };
            *table += &format!("{rule}\n");
        }
    }
    let file = host.netns.log_file("rules");
    std::fs::write(&file, format!("{nat}COMMIT\n{filter}COMMIT\n"))?;
    let file = file.to_string_lossy();
    host.netns.run(&["iptables-restore", "--wait", "--noflush", &file])?;
    Ok(())
}

/// A bridge with an address, and a container on it.
pub(super) fn bridged(lab: &Lab, host: &Host, name: &str) -> Result<Netns> {
    let (netns, container) = (&host.netns, lab.container(name)?);
    netns.sysctl("net.ipv4.ip_forward", "1")?;
    netns.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    netns.ip(&["addr", "add", "172.18.0.1/16", "dev", BRIDGE])?;
    netns.ip(&["link", "set", BRIDGE, "up"])?;
    let inside = container.name();
    netns.ip(&["link", "add", LEG, "type", "veth", "peer", "name", "eth1", "netns", inside])?;
    netns.ip(&["link", "set", LEG, "master", BRIDGE, "up"])?;
    container.ip(&["addr", "add", &format!("{ENDPOINT}/16"), "dev", "eth1"])?;
    container.ip(&["link", "set", "eth1", "up"])?;
    container.ip(&["route", "add", "default", "via", "172.18.0.1"])?;
    Ok(container)
}
