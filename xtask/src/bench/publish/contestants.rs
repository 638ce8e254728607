//! The contestants, which are different paths from an outside host through a host to an endpoint's port, each
//! on its own pair of hosts.

use std::{net::Ipv4Addr, process::Command, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use overlay_lab::{Host, Lab, Netns, eventually, number, pinned};

use super::{
    HTTP, SERVER_CPU,
    docker::{self, ENDPOINT, SUBNET, publish_rules},
};
use crate::{bench::endpoint::create_endpoint, exec::capture};

/// Ports of iperf3 and of the web server at the endpoint. The first is published under the same number, the
/// second at [`HTTP`].
const IPERF: u16 = 5201;
const WEB: u16 = 80;
/// The first of the ports that only fill the table.
const FIRST_FILLER: u16 = 20_000;
/// Number of these ports that one endpoint publishes.
const FILLER_PORTS: usize = 110;

pub(super) const ROUTED: &str = "routed, no NAT";
pub(super) const DOCKER: &str = "Docker's rules";
pub(super) const OURS: &str = "ours";

/// One contestant.
pub(super) struct Contestant {
    pub(super) name: &'static str,
    /// The host of the endpoint.
    pub(super) host: Arc<Host>,
    /// The host of the client.
    outside: Arc<Host>,
    /// The endpoint, with the servers.
    endpoint: Netns,
    /// The address that the client connects to.
    address: Ipv4Addr,
    web_port: u16,
    published: u16,
}

impl Contestant {
    /// A plain bridge that is reached by a route, which is the limit for the others.
    pub(super) fn routed(lab: &mut Lab) -> Result<Self> {
        let (outside, host) = pair(lab, "ur", "hr")?;
        let endpoint = docker::bridged(lab, &host, "er")?;
        outside.netns.ip(&["route", "add", SUBNET, "via", &host.address.to_string()])?;
        Self::new(lab, ROUTED, outside, host, endpoint, (ENDPOINT, WEB))
    }

    /// The same bridge, which is reached through dockerd's rules.
    pub(super) fn docker(lab: &mut Lab) -> Result<Self> {
        let (outside, host) = pair(lab, "ud", "hd")?;
        let endpoint = docker::bridged(lab, &host, "ed")?;
        for rule in docker::RULES {
            docker::run(&host, rule)?;
        }
        for (port, inside) in [(IPERF, IPERF), (HTTP, WEB)] {
            for rule in publish_rules("-A", ENDPOINT, port, inside) {
                docker::run(&host, &rule)?;
            }
        }
        let address = host.address;
        Self::new(lab, DOCKER, outside, host, endpoint, (address, HTTP))
    }

    /// A real node.
    pub(super) fn ours(lab: &mut Lab) -> Result<Self> {
        let (outside, host) = pair(lab, "uo", "ho")?;
        lab.start_cluster(&[Arc::clone(&host)])?;
        host.overlay(&["network", "create", "bench", "--subnet", "10.0.0.0/20"])?;
        let endpoint = lab.container("eo")?;
        let ports = [format!("{IPERF}:{IPERF}"), format!("{HTTP}:{WEB}")];
        create_endpoint(&host, "eo", &endpoint, &["-p", &ports[0], "-p", &ports[1]])?;
        let address = host.address;
        Self::new(lab, OURS, outside, host, endpoint, (address, HTTP))
    }

    fn new(
        lab: &mut Lab,
        name: &'static str,
        outside: Arc<Host>,
        host: Arc<Host>,
        endpoint: Netns,
        (address, web_port): (Ipv4Addr, u16),
    ) -> Result<Self> {
        // The kernel keeps a closed connection for a minute (TIME_WAIT), and the client cannot use its port
        // again. After 28,000 connections the figure would only show the lack of ports.
        for end in [&endpoint, &outside.netns] {
            end.sysctl("net.ipv4.tcp_max_tw_buckets", "64")?;
        }
        let xtask = std::env::current_exe()?;
        let server = [&xtask.to_string_lossy(), "serve-page", "hello"];
        let words: Vec<&str> = pinned(SERVER_CPU).into_iter().chain(server).collect();
        lab.adopt(endpoint.start(&words)?);
        endpoint.wait_for_listener(WEB)?;
        let contestant = Self { name, host, outside, endpoint, address, web_port, published: 2 };
        let page = contestant.client().curl(&contestant.url()).context(name)?;
        if page.trim() != "hello" {
            bail!("{name}: another page: {page}");
        }
        Ok(contestant)
    }

    pub(super) fn client(&self) -> &Netns {
        &self.outside.netns
    }

    pub(super) fn server(&self) -> &Netns {
        &self.endpoint
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.address
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}:{}/", self.address, self.web_port)
    }

    /// Publishes more ports, of other endpoints, until `total` ports are published.
    pub(super) fn fill(&mut self, lab: &Lab, total: u16) -> Result<()> {
        let ports: Vec<u16> = (self.published..total).map(|number| FIRST_FILLER + number).collect();
        match self.name {
            DOCKER => docker::publish_many(&self.host, &ports, WEB)?,
            OURS => self.fill_ours(lab, &ports, total)?,
            _ => {}
        }
        self.published = total;
        Ok(())
    }

    fn fill_ours(&self, lab: &Lab, ports: &[u16], total: u16) -> Result<()> {
        for chunk in ports.chunks(FILLER_PORTS) {
            let name = format!("filler{}", chunk[0]);
            let published: Vec<String> = chunk.iter().map(|port| format!("{port}:{WEB}")).collect();
            let options: Vec<&str> =
                published.iter().flat_map(|port| ["-p", port.as_str()]).collect();
            create_endpoint(&self.host, &name, &lab.container(&name)?, &options)?;
        }
        eventually("all ports are published", Duration::from_secs(20), || {
            let status = self.host.overlay_json(&["status"])?;
            let published = number(&status["datapath"]["gateway"], "published_ports");
            if published == u64::from(total) { Ok(()) } else { bail!("{published} of {total}") }
        })
    }

    /// Switches segmentation offload, as in the benchmark of the data path. When it is off, packets of the
    /// wire's MTU cross the wire and the bridge.
    pub(super) fn set_tso(&self, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        for netns in [&self.outside.netns, &self.host.netns, &self.endpoint] {
            for device in netns.links()?.iter().filter(|device| is_measured(device)) {
                let words = ["ethtool", "-K", device, "gro", "on", "tso", state, "gso", state];
                netns.run(&words)?;
            }
        }
        Ok(())
    }
}

/// Returns true for the wire's device and for the two ends of the endpoint's leg.
fn is_measured(device: &str) -> bool {
    matches!(device, "eth0" | "eth1" | docker::LEG) || device.starts_with("ovgw0")
}

/// An outside host and the host with the endpoint, joined by a wire.
fn pair(lab: &mut Lab, outside: &str, host: &str) -> Result<(Arc<Host>, Arc<Host>)> {
    let [outside, host] = lab.wired_pair((outside, "10.9.0.1"), (host, "10.9.0.2"))?;
    Ok((outside, host))
}

/// The version of iptables, which says if it is the one on nftables or the old one.
pub(super) fn iptables_version() -> Result<String> {
    let program = crate::exec::find_program("iptables").context("iptables is not installed")?;
    Ok(capture(Command::new(program).arg("-V"))?.trim().to_owned())
}
