//! What a host looks like from outside: to prove that something came back to where it was, and that
//! what is not ours was left alone.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::LazyLock};

use anyhow::{Result, bail};
use serde_json::Value;

use super::{
    host::Host,
    requirements::{Requirement, missing},
    sweep::NETNS_FILES,
};

/// Devices, addresses, routes, queueing disciplines, packet filter and pins of a host, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineState {
    /// Devices, with their addresses and master.
    pub links: Vec<String>,
    /// Routes of all tables that a person sets.
    pub routes: Vec<String>,
    /// Queueing disciplines (clsact shows here) and filters below them.
    pub qdiscs: Vec<String>,
    /// What `nft list ruleset` prints; empty where there is no nft.
    pub ruleset: Vec<String>,
    /// Devices that forward IPv4.
    pub forwarding: Vec<String>,
    /// Everything below the node's folder of bpffs.
    pub pins: Vec<PathBuf>,
}

impl MachineState {
    /// Looks at a host.
    pub fn of(host: &Host) -> Result<Self> {
        let netns = &host.netns;
        let mut links = Vec::new();
        let mut qdiscs = Vec::new();
        for link in netns.ip_json(&["addr", "show"])?.as_array().into_iter().flatten() {
            let name = link["ifname"].as_str().unwrap_or_default();
            let addresses: Vec<String> = link["addr_info"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|address| address["family"] == "inet")
                .map(|address| format!("{}/{}", address["local"], address["prefixlen"]))
                .collect();
            links.push(format!("{name} {} {addresses:?} {}", link["address"], link["master"]));
            let filters = netns.output(&["tc", "filter", "show", "dev", name, "ingress"])?;
            qdiscs.push(format!("{name} {}", without_our_ids(filters.stdout.trim())));
        }
        links.sort();
        // Where programs are attached to one, since there is no TCX, it stays when they have gone: it may have
        // become somebody else's by then.
        let stays = |qdisc: &&str| qdisc.starts_with("qdisc clsact") && !has_tcx();
        let shown = netns.run(&["tc", "qdisc", "show"])?;
        qdiscs.extend(shown.lines().filter(|line| !stays(line)).map(str::to_owned));
        qdiscs.sort();
        let mut routes: Vec<String> = netns
            .ip_json(&["route", "show"])?
            .as_array()
            .into_iter()
            .flatten()
            .map(Value::to_string)
            .collect();
        routes.sort();
        Ok(Self {
            links,
            routes,
            qdiscs,
            ruleset: ruleset(host)?,
            forwarding: forwarding(host)?,
            pins: host.pins()?,
        })
    }

    /// Fails, with what is different, unless the two are the same.
    pub fn same_as(&self, before: &Self) -> Result<()> {
        if self != before {
            bail!("before: {before:#?}\nafter: {self:#?}");
        }
        Ok(())
    }
}

/// Whether the kernel attaches programs by TCX: whether it has a function for that.
fn has_tcx() -> bool {
    static HAS: LazyLock<bool> = LazyLock::new(|| {
        let names = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        names.lines().any(|line| line.ends_with(" tcx_prog_attach"))
    });
    *HAS
}

/// Filters as `tc` shows them. A restarted node has put its own programs in the place of those before, by the same
/// filter; a program's number says which one it is.
fn without_our_ids(filters: &str) -> String {
    /// "ovly", as the controller marks its filters.
    const OURS: &str = " handle 0x6f766c79 ";
    let unnumbered = |line: &str| match line.split_once(" id ") {
        Some((head, tail)) if line.contains(OURS) => {
            format!("{head} {}", tail.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        _ => line.to_owned(),
    };
    filters.lines().map(unnumbered).collect::<Vec<_>>().join("\n")
}

/// Sets and maps keep no order of their elements that means anything.
fn ruleset(host: &Host) -> Result<Vec<String>> {
    if missing(&[Requirement::Tool("nft")]).is_some() {
        return Ok(Vec::new());
    }
    let text = host.netns.run(&["nft", "--stateless", "list", "ruleset"])?;
    let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    lines.sort();
    Ok(lines)
}

fn forwarding(host: &Host) -> Result<Vec<String>> {
    host.netns.enter(|| {
        let mut devices = Vec::new();
        for entry in fs::read_dir("/proc/sys/net/ipv4/conf")? {
            let entry = entry?;
            if fs::read_to_string(entry.path().join("forwarding"))?.trim() == "1" {
                devices.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        devices.sort();
        Ok(devices)
    })
}

/// The files in the folders of namespaces of a lab below /etc/netns, with their content: one folder for
/// all hosts of a lab, since they are one machine.
pub fn netns_files(prefix: &str) -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    let Ok(folders) = fs::read_dir(NETNS_FILES) else { return Ok(files) };
    for folder in folders {
        let folder = folder?;
        if !folder.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        // A folder that stays behind is found too.
        files.insert(folder.path(), String::new());
        for file in fs::read_dir(folder.path())? {
            let path = file?.path();
            let content = fs::read_to_string(&path)?;
            files.insert(path, content);
        }
    }
    Ok(files)
}
