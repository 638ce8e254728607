//! Hosts, routers and containers as network namespaces of one machine, and real nodes on them.
//!
//! A [`Lab`] owns everything it makes under one prefix and removes it when dropped, also by a panic:
//! processes, namespaces (and with them every device), pins, folders. What a lab that was killed left
//! behind is removed by the next one. Nothing that does not carry the prefix is touched.

pub mod capture;
pub mod clients;
pub mod command;
pub mod dns;
pub mod flood;
mod host;
pub mod mirror;
mod netns;
pub mod outside;
pub mod page;
pub mod probe;
mod process;
mod raw;
mod requirements;
pub mod sctp;
mod state;
mod sweep;
mod tools;
pub mod transfer;
mod wait;

pub use self::{
    host::{Failure, Host, number, rows, text},
    netns::Netns,
    outside::Outside,
    process::Process,
    requirements::{Requirement, missing, overlay_binary, skip},
    state::{MachineState, netns_files},
    tools::{Iperf, Ping, pinned},
    wait::{attainable, check_interrupted, eventually, interrupt, patient},
};

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// Where bpffs is mounted.
pub const BPFFS: &str = "/sys/fs/bpf";

static LABS: AtomicU32 = AtomicU32::new(0);

/// A router's leg: hosts on it are in one subnet, and on one Ethernet segment.
#[derive(Debug, Clone)]
pub struct Subnet {
    bridge: String,
    gateway: Ipv4Addr,
    prefix_len: u8,
}

/// Everything that was built for one test, or for the demo.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    folder: PathBuf,
    detached: bool,
    hosts: Vec<Arc<Host>>,
    router: Option<Netns>,
    subnets: usize,
    adopted: Vec<Process>,
}

impl Lab {
    /// An empty lab with a prefix of its own.
    pub fn new() -> Result<Self> {
        sweep::orphans()?;
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        Self::build(format!("{}{}x{number}-", sweep::PREFIX, std::process::id()), false)
    }

    /// An empty lab with a given prefix; the one that stands under it already is removed first.
    /// `detached`: its programs may outlive us, see [`Self::keep`].
    pub fn named(prefix: &str, detached: bool) -> Result<Self> {
        sweep::remove(prefix)?;
        Self::build(prefix.to_owned(), detached)
    }

    /// Whether a lab stands under a prefix: one that was kept.
    #[must_use]
    pub fn stands(prefix: &str) -> bool {
        sweep::folder(prefix).exists()
    }

    /// Removes the lab that stands under a prefix.
    pub fn remove(prefix: &str) -> Result<()> {
        sweep::remove(prefix)
    }

    fn build(prefix: String, detached: bool) -> Result<Self> {
        let folder = sweep::folder(&prefix);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self {
            prefix,
            folder,
            detached,
            hosts: Vec::new(),
            router: None,
            subnets: 0,
            adopted: Vec::new(),
        })
    }

    /// Leaves everything standing.
    pub fn keep(mut self) {
        for host in self.hosts.drain(..) {
            host.detach();
        }
        self.adopted.drain(..).for_each(Process::detach);
        self.prefix.clear();
    }

    /// The prefix of everything made here.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The folder of states, sockets and logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All hosts so far.
    #[must_use]
    pub fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    /// A namespace that nothing is in yet: what a container engine hands over.
    pub fn container(&self, name: &str) -> Result<Netns> {
        Netns::create(&format!("{}{name}", self.prefix), &self.folder, self.detached)
    }

    /// A namespace that somebody else made, as a file tells: it gets a name of the lab's, which keeps it
    /// until the lab goes.
    pub fn adopt_netns(&self, name: &str, file: &Path) -> Result<Netns> {
        Netns::adopt(&format!("{}{name}", self.prefix), file, &self.folder, self.detached)
    }

    /// The router between the subnets, made at first use.
    pub fn router(&mut self) -> Result<Netns> {
        if let Some(router) = &self.router {
            return Ok(router.clone());
        }
        let router = self.container("router")?;
        router.sysctl("net.ipv4.ip_forward", "1")?;
        self.router = Some(router.clone());
        Ok(router)
    }

    /// Another leg of the router. `gateway` is its address there: `10.10.10.1/24`.
    pub fn subnet(&mut self, gateway: &str) -> Result<Subnet> {
        let (address, prefix_len) = gateway.split_once('/').context("an address with a length")?;
        let bridge = format!("lan{}", self.subnets);
        self.subnets += 1;
        let router = self.router()?;
        router.ip(&["link", "add", &bridge, "type", "bridge"])?;
        router.ip(&["addr", "add", gateway, "dev", &bridge])?;
        router.ip(&["link", "set", &bridge, "up"])?;
        Ok(Subnet { bridge, gateway: address.parse()?, prefix_len: prefix_len.parse()? })
    }

    /// A host on a subnet: its underlay device is eth0, its default route leads to the router.
    pub fn host(&mut self, subnet: &Subnet, name: &str, address: &str) -> Result<Arc<Host>> {
        let host = self.bare_host(name, address)?;
        self.connect(&host.netns, name, subnet, host.address)?;
        Ok(host)
    }

    /// Puts a namespace on a subnet, as a host is.
    pub(crate) fn connect(
        &mut self,
        netns: &Netns,
        name: &str,
        subnet: &Subnet,
        address: Ipv4Addr,
    ) -> Result<()> {
        let router = self.router()?;
        let port = format!("to-{name}");
        add_veth((netns, "eth0"), (&router, &port))?;
        let cidr = format!("{address}/{}", subnet.prefix_len);
        router.ip(&["link", "set", &port, "master", &subnet.bridge, "up"])?;
        netns.ip(&["addr", "add", &cidr, "dev", "eth0"])?;
        netns.ip(&["link", "set", "eth0", "up"])?;
        netns.ip(&["route", "add", "default", "via", &subnet.gateway.to_string()])?;
        Ok(())
    }

    /// Two hosts joined by one wire, in one subnet, with no router between.
    pub fn wired_pair(
        &mut self,
        (first, first_address): (&str, &str),
        (second, second_address): (&str, &str),
    ) -> Result<[Arc<Host>; 2]> {
        let pair = [self.bare_host(first, first_address)?, self.bare_host(second, second_address)?];
        add_veth((&pair[0].netns, "eth0"), (&pair[1].netns, "eth0"))?;
        for host in &pair {
            host.netns.ip(&["addr", "add", &format!("{}/24", host.address), "dev", "eth0"])?;
            host.netns.ip(&["link", "set", "eth0", "up"])?;
        }
        Ok(pair)
    }

    fn bare_host(&mut self, name: &str, address: &str) -> Result<Arc<Host>> {
        let netns = self.container(name)?;
        // Frames that cross a bridge are not the host's firewall's business.
        drop(netns.sysctl("net.bridge.bridge-nf-call-iptables", "0"));
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        let bpffs = sweep::bpffs(&self.prefix, name);
        let host = Arc::new(Host::new(name, netns, address.parse()?, folder, bpffs));
        self.hosts.push(Arc::clone(&host));
        Ok(host)
    }

    /// The four hosts in two subnets that the issue and the demo speak of, in this order:
    /// 10.10.10.101, 10.10.10.102, 192.168.50.101, 192.168.50.102.
    pub fn four_hosts(&mut self) -> Result<[Arc<Host>; 4]> {
        let left = self.subnet("10.10.10.1/24")?;
        let right = self.subnet("192.168.50.1/24")?;
        Ok([
            self.host(&left, "h1", "10.10.10.101")?,
            self.host(&left, "h2", "10.10.10.102")?,
            self.host(&right, "h3", "192.168.50.101")?,
            self.host(&right, "h4", "192.168.50.102")?,
        ])
    }

    /// Starts a node on each host: the first founds the cluster, the others join it.
    pub fn start_cluster(&self, hosts: &[Arc<Host>]) -> Result<()> {
        self.start_cluster_with(hosts, &[])
    }

    /// The same, each with these arguments besides.
    pub fn start_cluster_with(&self, hosts: &[Arc<Host>], args: &[&str]) -> Result<()> {
        let Some((founder, others)) = hosts.split_first() else { bail!("no host") };
        founder.start_node(args)?;
        for host in others {
            host.start_node(&[args, &["--join", &founder.listen()]].concat())?;
        }
        eventually("every node lists every node as ready", Duration::from_secs(20), || {
            for host in hosts {
                // Its gateway and rules come with the first pass, after it is known to the others.
                if !host.is_programmed()? {
                    bail!("{}'s kernel does not hold anything yet", host.name);
                }
                let ready = host.ready_nodes()?;
                if ready.len() < hosts.len() {
                    bail!("{} sees {ready:?}", host.name);
                }
            }
            Ok(())
        })
    }

    /// Takes a background program over: it lives as long as the lab.
    pub fn adopt(&mut self, process: Process) {
        self.adopted.push(process);
    }

    /// What the nodes wrote, for a failing test.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut text = String::new();
        let Ok(dir) = fs::read_dir(&self.folder) else { return text };
        let mut files: Vec<_> = dir
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        files.sort();
        for file in files {
            let log = fs::read_to_string(&file).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.len().saturating_sub(60);
            text += &format!("--- {} ({} lines)\n", file.display(), lines.len());
            text += &lines[tail..].join("\n");
            text.push('\n');
        }
        text
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.prefix.is_empty() {
            return;
        }
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        self.adopted.clear();
        self.hosts.clear();
        if let Err(error) = sweep::remove(&self.prefix) {
            eprintln!("the lab {} was not removed: {error:#}", self.prefix);
        }
    }
}

fn add_veth((first, first_device): (&Netns, &str), (second, device): (&Netns, &str)) -> Result<()> {
    let (first_name, second_name) = (first.name(), second.name());
    netns::ip(&[
        "link",
        "add",
        first_device,
        "netns",
        first_name,
        "type",
        "veth",
        "peer",
        "name",
        device,
        "netns",
        second_name,
    ])?;
    Ok(())
}
