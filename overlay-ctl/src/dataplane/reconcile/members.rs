//! Who is where: counts over a view's endpoints, kept by difference, so that nobody walks a million of
//! them to find the few that are here or the VTEPs that the others are behind.

use crate::{
    control::state::{Changed, View},
    model::{Endpoint, EndpointId, Location, NetworkId, NodeId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

/// Where an endpoint is that is not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Site {
    Node(NodeId),
    External(Ipv4Addr),
}

impl Site {
    /// Its VTEP; `None` where the node is not known (yet).
    pub(super) fn vtep(self, view: &View) -> Option<Ipv4Addr> {
        match self {
            Self::Node(id) => view.nodes.get(&id).map(|node| node.vtep),
            Self::External(vtep) => Some(vtep),
        }
    }
}

/// The site of an endpoint; `None` for one that is here.
pub(super) fn site(endpoint: &Endpoint, local: NodeId) -> Option<Site> {
    match &endpoint.location {
        Location::Node { node, .. } if *node == local => None,
        Location::Node { node, .. } => Some(Site::Node(*node)),
        Location::External { vtep } => Some(Site::External(*vtep)),
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Members {
    local: NodeId,
    view: View,
    sites: Counted,
    networks: BTreeMap<NetworkId, Part>,
}

/// One network's.
#[derive(Clone, Debug, Default, PartialEq)]
struct Part {
    sites: Counted,
    here: BTreeSet<EndpointId>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Counted(BTreeMap<Site, usize>);

impl Counted {
    /// Whether it is the first one.
    fn add(&mut self, site: Site) -> bool {
        let count = self.0.entry(site).or_default();
        *count += 1;
        *count == 1
    }

    /// Whether it was the last one.
    fn remove(&mut self, site: Site) -> bool {
        let Some(count) = self.0.get_mut(&site) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.0.remove(&site);
        }
        is_last
    }
}

impl Members {
    /// Nobody is anywhere.
    pub(super) fn new(local: NodeId) -> Self {
        let (view, sites, networks) = Default::default();
        Self { local, view, sites, networks }
    }

    /// Moves on to `view`. Whether more than entries of endpoints elsewhere is another by it: a node, a
    /// network, an endpoint of this node, or the VTEPs of a network.
    pub(super) fn advance(&mut self, view: &View) -> bool {
        let older = std::mem::replace(&mut self.view, view.clone());
        let mut more = view.changed_nodes(&older).next().is_some()
            || view.changed_networks(&older).next().is_some();
        for change in view.changed_endpoints(&older) {
            more |= self.change(&change);
        }
        more
    }

    fn change(&mut self, change: &Changed<'_, Endpoint>) -> bool {
        let place = |endpoint: &Endpoint| (endpoint.network, site(endpoint, self.local));
        if let (Some(old), Some(new)) = (change.old, change.new)
            && place(old) == place(new)
        {
            return place(new).1.is_none();
        }
        let lost = change.old.is_some_and(|old| self.remove(old));
        let got = change.new.is_some_and(|new| self.add(new));
        lost || got
    }

    fn add(&mut self, endpoint: &Endpoint) -> bool {
        let part = self.networks.entry(endpoint.network).or_default();
        match site(endpoint, self.local) {
            None => {
                part.here.insert(endpoint.id);
                true
            }
            Some(site) => {
                self.sites.add(site);
                part.sites.add(site)
            }
        }
    }

    fn remove(&mut self, endpoint: &Endpoint) -> bool {
        let Some(part) = self.networks.get_mut(&endpoint.network) else { return false };
        let more = match site(endpoint, self.local) {
            None => {
                part.here.remove(&endpoint.id);
                true
            }
            Some(site) => {
                self.sites.remove(site);
                part.sites.remove(site)
            }
        };
        if part.here.is_empty() && part.sites.0.is_empty() {
            self.networks.remove(&endpoint.network);
        }
        more
    }

    /// This node's endpoints, network by network.
    pub(super) fn here(&self) -> impl Iterator<Item = &Endpoint> {
        self.networks.iter().flat_map(|(network, part)| {
            let endpoints = self.view.endpoints.get(network);
            let get = move |id| endpoints.and_then(|endpoints| endpoints.get(id));
            part.here.iter().filter_map(get).map(AsRef::as_ref)
        })
    }

    /// One network's endpoints of this node.
    pub(super) fn here_of(&self, network: NetworkId) -> impl Iterator<Item = EndpointId> {
        self.networks.get(&network).into_iter().flat_map(|part| part.here.iter().copied())
    }

    /// The VTEPs that the other endpoints of one network are behind.
    pub(super) fn vteps_of(&self, network: NetworkId) -> BTreeSet<Ipv4Addr> {
        let sites = self.networks.get(&network).into_iter().flat_map(|part| part.sites.0.keys());
        sites.filter_map(|site| site.vtep(&self.view)).collect()
    }

    /// The VTEPs that this node sends to: those behind which an endpoint of a network of ours is.
    pub(super) fn vteps(&self) -> BTreeSet<Ipv4Addr> {
        self.sites.0.keys().filter_map(|site| site.vtep(&self.view)).collect()
    }

    /// Those of them that are no node's.
    pub(super) fn externals(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.sites.0.keys().filter_map(|site| match site {
            Site::External(vtep) => Some(*vtep),
            Site::Node(_) => None,
        })
    }

    /// Whether an endpoint is on that node.
    pub(super) fn has(&self, node: NodeId) -> bool {
        self.sites.0.contains_key(&Site::Node(node))
    }
}
