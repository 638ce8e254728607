//! Hosts, routers and containers as network namespaces of one machine, and real nodes on them.
//!
//! A [`Lab`] owns everything that it makes under one prefix: processes, namespaces with their devices, pins
//! and folders. It removes them when it is dropped, also by a panic. If a lab's process was killed, the next
//! lab removes what is left of it. Nothing without the prefix is touched.

pub mod capture;
pub mod clients;
pub mod command;
mod disk;
pub mod dns;
mod faults;
pub mod flood;
mod host;
pub mod linear;
pub mod mirror;
mod netns;
pub mod outside;
pub mod page;
pub mod probe;
mod process;
pub mod raw;
mod requirements;
pub mod sctp;
mod state;
mod sweep;
pub mod tagged;
mod tools;
pub mod transfer;
mod wait;
pub mod xdp;

pub use self::{
    disk::SmallDisk,
    faults::{Cut, Ways},
    host::{Failure, Host, number, rows, text},
    netns::Netns,
    outside::Outside,
    process::Process,
    requirements::{
        Requirement, load_module, may_lack, missing, overlay_binary, previous_binary, skip,
        tried_enough,
    },
    state::{MachineState, netns_files},
    tools::{Iperf, Ping, pinned},
    wait::{attainable, check_interrupted, eventually, interrupt, pass, patient},
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

/// The folder on which bpffs is mounted.
pub const BPFFS: &str = "/sys/fs/bpf";

static LABS: AtomicU32 = AtomicU32::new(0);

/// A leg of the router. The hosts on it are in one subnet, and on one Ethernet segment.
#[derive(Debug, Clone)]
pub struct Subnet {
    bridge: String,
    gateway: Ipv4Addr,
    prefix_len: u8,
}

/// Everything that was built for one test or for the demo.
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
    /// Makes an empty lab with a prefix of its own.
    pub fn new() -> Result<Self> {
        sweep::orphans()?;
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        Self::build(format!("{}{}x{number}-", sweep::PREFIX, std::process::id()), false)
    }

    /// Makes an empty lab with a given prefix, after it has removed an existing lab with this prefix. If
    /// `detached` is true, programs of the lab may outlive this process, see [`Self::keep`].
    pub fn named(prefix: &str, detached: bool) -> Result<Self> {
        sweep::remove(prefix)?;
        Self::build(prefix.to_owned(), detached)
    }

    /// Returns true if a lab with this prefix exists, which was kept.
    #[must_use]
    pub fn stands(prefix: &str) -> bool {
        sweep::folder(prefix).exists()
    }

    /// Removes the lab with this prefix.
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

    /// Ends the ownership without removing anything, so that the lab stays.
    pub fn keep(mut self) {
        for host in self.hosts.drain(..) {
            host.detach();
        }
        self.adopted.drain(..).for_each(Process::detach);
        self.prefix.clear();
    }

    /// The prefix of all names in this lab.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The folder with states, sockets and logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All hosts that have been made so far.
    #[must_use]
    pub fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    /// Makes an empty namespace, like the one that a container engine hands over.
    pub fn container(&self, name: &str) -> Result<Netns> {
        Netns::create(&format!("{}{name}", self.prefix), &self.folder, self.detached)
    }

    /// Gives a namespace that somebody else made, and that a file refers to, a name in this lab. The name
    /// keeps the namespace until the lab is removed.
    pub fn adopt_netns(&self, name: &str, file: &Path) -> Result<Netns> {
        Netns::adopt(&format!("{}{name}", self.prefix), file, &self.folder, self.detached)
    }

    /// The router between the subnets, which is made at its first use.
    pub fn router(&mut self) -> Result<Netns> {
        if let Some(router) = &self.router {
            return Ok(router.clone());
        }
        let router = self.container("router")?;
        router.sysctl("net.ipv4.ip_forward", "1")?;
        self.router = Some(router.clone());
        Ok(router)
    }

    /// Adds a leg to the router. `gateway` is the router's address on it: `10.10.10.1/24`.
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

    /// Adds a host on a subnet. Its underlay device is eth0, and its default route leads to the router.
    pub fn host(&mut self, subnet: &Subnet, name: &str, address: &str) -> Result<Arc<Host>> {
        let host = self.bare_host(name, address)?;
        self.connect(&host.netns, name, subnet, host.address)?;
        Ok(host)
    }

    /// Connects a namespace to a subnet, as a host is connected.
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

    /// Adds two hosts that are connected by one wire, in one subnet, without a router.
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
        // Frames that cross a bridge must not pass the host's firewall. The parameter may be missing, which
        // is no error.
        drop(netns.sysctl("net.bridge.bridge-nf-call-iptables", "0"));
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        let bpffs = sweep::bpffs(&self.prefix, name);
        let host = Arc::new(Host::new(name, netns, address.parse()?, folder, bpffs));
        self.hosts.push(Arc::clone(&host));
        Ok(host)
    }

    /// Adds the four hosts in two subnets that the issue and the demo use, in this order: 10.10.10.101,
    /// 10.10.10.102, 192.168.50.101, 192.168.50.102.
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

    /// Starts a node on each host. The first one founds the cluster, and the others join it.
    pub fn start_cluster(&self, hosts: &[Arc<Host>]) -> Result<()> {
        self.start_cluster_with(hosts, &[])
    }

    /// Starts a cluster like [`Self::start_cluster`], with these further arguments for each node.
    pub fn start_cluster_with(&self, hosts: &[Arc<Host>], args: &[&str]) -> Result<()> {
        let Some((founder, others)) = hosts.split_first() else { bail!("no host") };
        founder.start_node(args)?;
        for host in others {
            host.start_node(&[args, &["--join", &founder.listen()]].concat())?;
        }
        eventually(
            "every node lists every node as ready, and all vote that should",
            Duration::from_secs(20),
            || {
                for host in hosts {
                    // A node programs its gateway and rules in its first pass, which comes after the others
                    // know it.
                    if !host.is_programmed()? {
                        bail!("{}'s kernel does not hold anything yet", host.name);
                    }
                    let ready = host.ready_nodes()?;
                    if ready.len() < hosts.len() {
                        bail!("{} sees {ready:?}", host.name);
                    }
                }
                // Three nodes must have a vote, or one if there are fewer than three nodes.
                let voters = founder.voters()?;
                if voters.len() != if hosts.len() < 3 { 1 } else { 3 } {
                    bail!("{voters:?} vote");
                }
                Ok(())
            },
        )
    }

    /// Takes over a background program, which then lives as long as the lab.
    pub fn adopt(&mut self, process: Process) {
        self.adopted.push(process);
    }

    /// The last lines of every log in the lab's folder, for a failing test.
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
