//! Three nodes on one Ethernet segment with a stranger in it, and endpoints of two networks.

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::{Result, ensure};
use overlay_lab::{Host, Lab, text};

use crate::{
    attack::Victims,
    frames::Party,
    support::{Endpoint, attach, attach_to, create_network, leg, mac_of, vni},
};

/// The address of every node's gateway bridge.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);

/// The network that must receive nothing from the first one.
pub(super) const OTHER: &str = "other";

/// The scene of this module. On h1 are web1 and its neighbour, and `near` of the other network. On h2 are
/// web2, and `far` of the other network. On h3 is web3.
pub(super) struct Scene {
    pub(super) hosts: [Arc<Host>; 3],
    /// A host on the underlay that runs no node.
    pub(super) stranger: Arc<Host>,
    pub(super) web1: Endpoint,
    pub(super) neighbour: Endpoint,
    pub(super) web2: Endpoint,
    pub(super) web3: Endpoint,
    pub(super) near: Endpoint,
    pub(super) far: Endpoint,
    pub(super) vni: u32,
    pub(super) other_vni: u32,
}

/// The ends of frames on web1's leg that leads out. What lies beyond the gateway has the gateway's MAC.
pub(super) struct Outward {
    /// Web1.
    pub(super) own: Party,
    /// Another endpoint of web1's network and node, on its own leg.
    pub(super) neighbour: Party,
    /// An endpoint of the other network and of web1's node, on its own leg.
    pub(super) near: Party,
    pub(super) gateway: Party,
    /// The nodes, web1's own first.
    pub(super) nodes: [Party; 3],
    /// A host that runs no node.
    pub(super) stranger: Party,
}

impl Scene {
    pub(super) fn build(lab: &mut Lab) -> Result<Self> {
        Self::with_networks(lab, &[])
    }

    /// Builds the scene, with these options of both networks.
    pub(super) fn with_networks(lab: &mut Lab, options: &[&str]) -> Result<Self> {
        let subnet = lab.subnet("10.10.10.1/24")?;
        let hosts = [
            lab.host(&subnet, "h1", "10.10.10.101")?,
            lab.host(&subnet, "h2", "10.10.10.102")?,
            lab.host(&subnet, "h3", "10.10.10.103")?,
        ];
        let stranger = lab.host(&subnet, "stranger", "10.10.10.66")?;
        lab.start_cluster(&hosts)?;
        let [h1, h2, h3] = &hosts;
        if options.is_empty() {
            create_network(h1)?;
        } else {
            let create =
                ["network", "create", crate::support::NETWORK, "--subnet", "172.16.16.0/24"];
            h1.overlay(&[&create, options].concat())?;
        }
        let create = ["network", "create", OTHER, "--subnet", "10.77.0.0/24"];
        h1.overlay(&[&create, options].concat())?;
        let web1 = attach(lab, h1, "web1", &[])?;
        let neighbour = attach(lab, h1, "neighbour", &[])?;
        let web2 = attach(lab, h2, "web2", &[])?;
        let web3 = attach(lab, h3, "web3", &[])?;
        let near = attach_to(OTHER, h1, "near", lab.container("near")?, &[])?;
        let far = attach_to(OTHER, h2, "far", lab.container("far")?, &[])?;
        let vni = vni(h1)?.parse()?;
        let network = h1.overlay_json(&["network", "inspect", OTHER])?;
        let other_vni = u32::try_from(overlay_lab::number(&network, "vni"))?;
        ensure!(other_vni != 0 && other_vni != vni, "{network}");
        Ok(Self { hosts, stranger, web1, neighbour, web2, web3, near, far, vni, other_vni })
    }

    /// Captures on everybody's eth0, except that of web1, which attacks.
    pub(super) fn victims(&self) -> Result<Victims> {
        let mut victims = self.others()?;
        for endpoint in [&self.neighbour, &self.web2, &self.web3] {
            victims.listen(&endpoint.name, &endpoint.netns, "eth0")?;
        }
        Ok(victims)
    }

    /// Captures on every leg that leads out, except that of web1.
    pub(super) fn outward_victims(&self, victims: &mut Victims) -> Result<()> {
        for endpoint in [&self.neighbour, &self.near, &self.web2, &self.far, &self.web3] {
            victims.listen(&endpoint.name, &endpoint.netns, "eth1")?;
        }
        Ok(())
    }

    /// The ends of frames on web1's leg that leads out.
    pub(super) fn outward(&self) -> Result<Outward> {
        let gateway = Party::new(&mac_of(GATEWAY), GATEWAY)?;
        let on_leg = |endpoint: &Endpoint| -> Result<Party> {
            let leg = leg(&endpoint.netns)?;
            Party::new(&leg.mac, leg.address)
        };
        let [h1, h2, h3] = &self.hosts;
        Ok(Outward {
            own: on_leg(&self.web1)?,
            neighbour: on_leg(&self.neighbour)?,
            near: on_leg(&self.near)?,
            gateway,
            nodes: [h1, h2, h3].map(|host| gateway.with(host.address)),
            stranger: gateway.with(self.stranger.address),
        })
    }

    /// Checks that every leg leads out.
    pub(super) fn leads_out(&self) -> Result<()> {
        for endpoint in [&self.web1, &self.neighbour, &self.near, &self.web2, &self.far, &self.web3]
        {
            endpoint.netns.reaches(self.stranger.address)?;
        }
        self.web1.netns.reaches(GATEWAY)
    }

    /// Checks that all traffic works that is allowed, between endpoints, hosts and the outside.
    pub(super) fn everything_works(&self) -> Result<()> {
        self.works()?;
        self.leads_out()?;
        let [h1, h2, h3] = &self.hosts;
        h1.netns.reaches(h2.address)?;
        h3.netns.reaches(h1.address)?;
        self.stranger.netns.reaches(h2.address)
    }

    /// Captures on every interface of the other network's endpoints.
    pub(super) fn others(&self) -> Result<Victims> {
        let mut victims = Victims::default();
        for endpoint in [&self.near, &self.far] {
            victims.listen(&endpoint.name, &endpoint.netns, "eth0")?;
        }
        Ok(victims)
    }

    /// Checks that the traffic of the networks works: within each network, every endpoint reaches every
    /// other.
    pub(super) fn works(&self) -> Result<()> {
        self.web1.netns.reaches(self.neighbour.address)?;
        self.web1.netns.reaches(self.web2.address)?;
        self.web3.netns.reaches(self.web1.address)?;
        self.neighbour.netns.reaches(self.web2.address)?;
        self.near.netns.reaches(self.far.address)
    }
}

/// An endpoint on its network.
pub(super) fn party(endpoint: &Endpoint) -> Result<Party> {
    Party::new(&endpoint.mac, endpoint.address)
}

/// A host on the underlay.
pub(super) fn host_party(host: &Host) -> Result<Party> {
    Party::new(&host.netns.mac("eth0")?, host.address)
}

/// The name of the host's side of an endpoint's eth0.
pub(super) fn host_side(endpoint: &Endpoint) -> Result<String> {
    let links = endpoint.netns.ip_json(&["link", "show", "dev", "eth0"])?;
    let index = &links[0]["link_index"];
    let links = endpoint.host.netns.ip_json(&["link", "show"])?;
    let link = links.as_array().and_then(|all| all.iter().find(|link| link["ifindex"] == *index));
    Ok(link.map(|link| text(link, "ifname").to_owned()).unwrap_or_default())
}
