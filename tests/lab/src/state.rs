//! The state of a host as an observer sees it, to prove that a host has returned to an earlier state, and
//! that foreign objects were not touched.

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

/// Longest time until the kernel has checked that an IPv6 address is not in use elsewhere.
const SETTLED: Duration = Duration::from_secs(5);

/// Parameters that change by themselves.
const RESTLESS: [&str; 1] = ["net/netfilter/nf_conntrack_count"];

/// The state of a host at one moment: the configuration of its kernel, and the node's pins.
#[derive(Clone, PartialEq, Eq)]
pub struct MachineState {
    /// Devices: MAC, master, MTU, sizes of super-packets, XDP, and addresses of both families.
    pub links: Vec<String>,
    /// Routes of all tables, of both families.
    pub routes: Vec<String>,
    /// The rules that choose a routing table, of both families.
    pub rules: Vec<String>,
    /// Neighbours and entries of bridges that somebody set or has resolved, without those that the kernel learned.
    pub neighbours: Vec<String>,
    /// Queueing disciplines, clsact included, and the filters of both directions.
    pub qdiscs: Vec<String>,
    /// The output of `nft list ruleset`; empty if there is no nft.
    pub ruleset: Vec<String>,
    /// Everything below /proc/sys/net that can be read, by path.
    pub sysctls: Vec<String>,
    /// Everything below the node's folder of bpffs.
    pub pins: Vec<PathBuf>,
}

/// Removes the kernel's own routes to IPv6 multicast from a list. The kernel adds one by itself each time
/// that a device gets its carrier (`addrconf_add_mroute`), and keeps it when the carrier goes.
fn without_multicast(mut routes: Vec<String>) -> Vec<String> {
    routes.retain(|route| !(route.contains("\"ff00::/8\"") && route.contains("\"kernel\"")));
    routes
}

impl MachineState {
    /// Reads the state of a host, after its addresses have settled.
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
        // Without TCX, programs are attached through clsact, which the node leaves on the device, because
        // somebody else may use it by then.
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
            (value != "0").then_some(device)
        };
        self.sysctls.iter().filter_map(forwards).collect()
    }

    /// Fails, with the differences, unless the two states are the same.
    pub fn same_as(&self, before: &Self) -> Result<()> {
        let difference = self.difference(before);
        if !difference.is_empty() {
            bail!("the host is not as it was:\n{}", difference.join("\n"));
        }
        Ok(())
    }

    /// Lines that only one of the two states has: `-` for the earlier one, `+` for this one.
    #[must_use]
    pub fn difference(&self, before: &Self) -> Vec<String> {
        let (was, is) = (before.lines(), self.lines());
        let gone = was.difference(&is).map(|line| format!("- {line}"));
        gone.chain(is.difference(&was).map(|line| format!("+ {line}"))).collect()
    }

    /// The whole state, one fact a line.
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
                // A rule that exists twice differs from one that exists once.
                while !lines.insert(line.clone()) {
                    line.push_str(" (again)");
                }
            }
        }
        lines
    }
}

impl fmt::Debug for MachineState {
    /// Leaves out the kernel's parameters, which are a thousand lines.
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

/// The devices. Fails while one of their addresses is tentative, which lasts a second with IPv6.
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
    // A program's id changes with each load, so only its name and its mode are compared.
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

/// Permanent neighbours and bridge entries, and neighbours that the kernel is to keep resolved, without those that the
/// kernel learned, and without groups that it joined.
fn neighbours(host: &Host) -> Result<Vec<String>> {
    let netns = &host.netns;
    let mut rows = Vec::new();
    for family in ["-4", "-6"] {
        let listed = netns.ip_json(&[family, "neigh", "show", "nud", "permanent"])?;
        // `ip` shows an entry that another program has learnt (extern_learn) whatever its state is.
        let set =
            listed.as_array().into_iter().flatten().filter(|row| row.get("managed").is_none());
        rows.extend(set.map(Value::to_string));
    }
    let shown = netns.ip(&["-d", "neigh", "show", "nud", "all"])?;
    for line in shown.lines().filter(|line| line.contains("managed")) {
        // "10.10.10.102 dev eth0", and neither MAC nor state.
        let place: Vec<&str> = line.split_whitespace().take(3).collect();
        rows.push(format!("{} managed", place.join(" ")));
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

/// The value of every parameter that can be read.
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
            // Some parameters can only be written, and some have no value yet.
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

/// Returns true if the kernel can attach programs by TCX, which shows in the name of a kernel function.
fn has_tcx() -> bool {
    static HAS: LazyLock<bool> = LazyLock::new(|| {
        let names = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        names.lines().any(|line| line.ends_with(" tcx_prog_attach"))
    });
    *HAS
}

/// Removes the ids of our programs from `tc`'s list of filters. A restarted node replaces its programs in the
/// same filters, and only the ids differ.
fn without_our_ids(filters: &str) -> String {
    /// The handle by which the controller marks its filters: "ovly".
    const OURS: &str = " handle 0x6f766c79 ";
    let unnumbered = |line: &str| match line.split_once(" id ") {
        Some((head, tail)) if line.contains(OURS) => {
            format!("{head} {}", tail.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        _ => line.to_owned(),
    };
    filters.lines().map(unnumbered).collect::<Vec<_>>().join("\n")
}

/// The lines of the ruleset, sorted, because the order of the elements of sets and maps has no meaning.
fn ruleset(host: &Host) -> Result<Vec<String>> {
    if missing(&[Requirement::Tool("nft")]).is_some() {
        return Ok(Vec::new());
    }
    let text = host.netns.run(&["nft", "--stateless", "list", "ruleset"])?;
    let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    lines.sort();
    Ok(lines)
}

/// The files of a lab's namespaces below /etc/netns, with their content. All hosts of a lab share these
/// folders, because they are one machine.
pub fn netns_files(prefix: &str) -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    let Ok(folders) = fs::read_dir(NETNS_FILES) else { return Ok(files) };
    for folder in folders {
        let folder = folder?;
        if !folder.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        // The folder itself is listed too, so that an empty one that was left behind is found.
        files.insert(folder.path(), String::new());
        for file in fs::read_dir(folder.path())? {
            let path = file?.path();
            let content = fs::read_to_string(&path)?;
            files.insert(path, content);
        }
    }
    Ok(files)
}
