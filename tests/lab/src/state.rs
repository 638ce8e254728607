//! What a host looks like from outside: to prove that something came back to where it was, and that
//! what is not ours was left alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{
    host::Host,
    requirements::{Requirement, missing},
    sweep::NETNS_FILES,
    wait::eventually,
};

/// An IPv6 address is found free within that time.
const SETTLED: Duration = Duration::from_secs(5);

/// What changes by itself while nobody does anything.
const RESTLESS: [&str; 1] = ["net/netfilter/nf_conntrack_count"];

/// A host at one moment: what is configured in its kernel, and the node's pins.
#[derive(Clone, PartialEq, Eq)]
pub struct MachineState {
    /// Devices: address, master, MTU, sizes of super-packets, XDP, and addresses of both families.
    pub links: Vec<String>,
    /// Routes of all tables, of both families.
    pub routes: Vec<String>,
    /// Which table is asked for what, of both families.
    pub rules: Vec<String>,
    /// Neighbours and entries of bridges that somebody set.
    pub neighbours: Vec<String>,
    /// Queueing disciplines (clsact shows here), and the filters on the way in and out.
    pub qdiscs: Vec<String>,
    /// What `nft list ruleset` prints; empty where there is no nft.
    pub ruleset: Vec<String>,
    /// Everything below /proc/sys/net, by path.
    pub sysctls: Vec<String>,
    /// Everything below the node's folder of bpffs.
    pub pins: Vec<PathBuf>,
}

/// Without the kernel's own route to IPv6 multicast: it adds one by itself each time that a device gets its carrier
/// (`addrconf_add_mroute`), and leaves it when the carrier goes.
fn without_multicast(mut routes: Vec<String>) -> Vec<String> {
    routes.retain(|route| !(route.contains("\"ff00::/8\"") && route.contains("\"kernel\"")));
    routes
}

impl MachineState {
    /// Looks at a host, once its addresses are settled.
    pub fn of(host: &Host) -> Result<Self> {
        let links = eventually("no address is tentative", SETTLED, || settled_links(host))?;
        let netns = &host.netns;
        let mut qdiscs = Vec::new();
        for name in links.iter().filter_map(|link| link["ifname"].as_str()) {
            for way in ["ingress", "egress"] {
                let filters = netns.output(&["tc", "filter", "show", "dev", name, way])?;
                qdiscs.push(format!("{name} {way} {}", without_our_ids(filters.stdout.trim())));
            }
        }
        // Where programs are attached to one, since there is no TCX, it stays when they have gone: it may have
        // become somebody else's by then.
        let stays = |qdisc: &&str| qdisc.starts_with("qdisc clsact") && !has_tcx();
        let shown = netns.run(&["tc", "qdisc", "show"])?;
        qdiscs.extend(shown.lines().filter(|line| !stays(line)).map(str::to_owned));
        qdiscs.sort();
        let listed = |commands: &[&[&str]]| -> Result<Vec<String>> {
            let mut rows = Vec::new();
            for command in commands {
                let listed = netns.ip_json(command)?;
                rows.extend(listed.as_array().into_iter().flatten().map(Value::to_string));
            }
            rows.sort();
            Ok(rows)
        };
        Ok(Self {
            links: sorted(links.iter().map(shown_link)),
            routes: without_multicast(listed(&[
                &["route", "show", "table", "all"],
                &["-6", "route", "show", "table", "all"],
            ])?),
            rules: listed(&[&["rule", "show"], &["-6", "rule", "show"]])?,
            neighbours: neighbours(host)?,
            qdiscs,
            ruleset: ruleset(host)?,
            sysctls: sysctls(host)?,
            pins: host.pins()?,
        })
    }

    /// Devices that forward IPv4.
    #[must_use]
    pub fn forwarding(&self) -> Vec<String> {
        let forwards = |line: &String| {
            let (path, value) = line.split_once(" = ")?;
            let device =
                path.strip_prefix("net/ipv4/conf/")?.strip_suffix("/forwarding")?.to_owned();
            (value == "1").then_some(device)
        };
        self.sysctls.iter().filter_map(forwards).collect()
    }

    /// Fails, with what is different, unless the two are the same.
    pub fn same_as(&self, before: &Self) -> Result<()> {
        let difference = self.difference(before);
        if !difference.is_empty() {
            bail!("the host is not as it was:\n{}", difference.join("\n"));
        }
        Ok(())
    }

    /// Lines that only one of the two has: `-` what was, `+` what is.
    #[must_use]
    pub fn difference(&self, before: &Self) -> Vec<String> {
        let (was, is) = (before.lines(), self.lines());
        let gone = was.difference(&is).map(|line| format!("- {line}"));
        gone.chain(is.difference(&was).map(|line| format!("+ {line}"))).collect()
    }

    /// All of it, a line a fact.
    fn lines(&self) -> BTreeSet<String> {
        let Self { links, routes, rules, neighbours, qdiscs, ruleset, sysctls, pins } = self;
        let pins: Vec<String> = pins.iter().map(|pin| pin.display().to_string()).collect();
        let sections = [
            ("link", links),
            ("route", routes),
            ("rule", rules),
            ("neighbour", neighbours),
            ("qdisc", qdiscs),
            ("nft", ruleset),
            ("sysctl", sysctls),
            ("pin", &pins),
        ];
        let mut lines = BTreeSet::new();
        for (section, rows) in sections {
            for row in rows {
                let mut line = format!("{section}: {row}");
                // The same rule twice is not the same rule once.
                while !lines.insert(line.clone()) {
                    line.push_str(" (again)");
                }
            }
        }
        lines
    }
}

impl fmt::Debug for MachineState {
    /// Without what is the same on every host: a kernel has a thousand parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let configured = |line: &&String| !line.starts_with("sysctl");
        f.debug_list().entries(self.lines().iter().filter(configured)).finish()
    }
}

fn sorted(rows: impl Iterator<Item = String>) -> Vec<String> {
    let mut rows: Vec<String> = rows.collect();
    rows.sort();
    rows
}

/// The devices, none of whose addresses still waits to be found free (which takes IPv6 a second).
fn settled_links(host: &Host) -> Result<Vec<Value>> {
    let links = host.netns.ip_json(&["addr", "show"])?;
    let links = links.as_array().context("devices")?;
    for link in links {
        let addresses = link["addr_info"].as_array().into_iter().flatten();
        let tentative: Vec<&Value> =
            addresses.filter(|address| address["tentative"] == true).collect();
        ensure!(tentative.is_empty(), "{}: {tentative:?}", link["ifname"]);
    }
    Ok(links.clone())
}

fn shown_link(link: &Value) -> String {
    let addresses = link["addr_info"].as_array().into_iter().flatten();
    let addresses =
        addresses.map(|address| format!("{}/{}", address["local"], address["prefixlen"]));
    let sizes: Vec<String> =
        ["gso_max_size", "gro_max_size", "gso_ipv4_max_size", "gro_ipv4_max_size"]
            .iter()
            .map(|size| format!("{size} {}", link[size]))
            .collect();
    // A program's number is another after each load; its name and its way of running are not.
    let xdp = &link["xdp"];
    let flags = link["flags"].as_array().into_iter().flatten();
    let is_up = flags.into_iter().any(|flag| flag == "UP");
    format!(
        "{} up {is_up} promiscuity {} {} master {} mtu {} {sizes:?} xdp {} {} {:?}",
        link["ifname"],
        link["promiscuity"],
        link["address"],
        link["master"],
        link["mtu"],
        xdp["mode"],
        xdp["prog"]["name"],
        sorted(addresses)
    )
}

/// Without what the kernel learns or joins by itself.
fn neighbours(host: &Host) -> Result<Vec<String>> {
    let netns = &host.netns;
    let mut rows = Vec::new();
    for family in ["-4", "-6"] {
        let listed = netns.ip_json(&[family, "neigh", "show", "nud", "permanent"])?;
        rows.extend(listed.as_array().into_iter().flatten().map(Value::to_string));
    }
    let entries = netns.run(&["bridge", "fdb", "show"])?;
    let is_group = |line: &str| {
        let first = line.split(':').next().and_then(|byte| u8::from_str_radix(byte, 16).ok());
        first.is_none_or(|byte| byte & 1 == 1)
    };
    let set = entries.lines().filter(|line| line.contains("permanent") && !is_group(line));
    rows.extend(set.map(|line| line.trim().to_owned()));
    rows.sort();
    Ok(rows)
}

/// Every parameter that can be read, and its value.
fn sysctls(host: &Host) -> Result<Vec<String>> {
    const ROOT: &str = "/proc/sys";
    fn walk(folder: &Path, found: &mut Vec<String>) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                walk(&path, found)?;
                continue;
            }
            // Some are there to be written alone, and some have no value yet.
            let Ok(value) = fs::read_to_string(&path) else { continue };
            let name = path.strip_prefix(ROOT)?.display().to_string();
            if !RESTLESS.contains(&name.as_str()) {
                found.push(format!("{name} = {}", value.trim().replace(['\t', '\n'], " ")));
            }
        }
        Ok(())
    }
    host.netns.enter(|| {
        let mut found = Vec::new();
        walk(&Path::new(ROOT).join("net"), &mut found)?;
        found.sort();
        Ok(found)
    })
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
