//! Where the endpoints of a view are: counts that each new view changes by its difference. So nobody walks a million
//! endpoints to find the few on this node, or the VTEPs of the others.

use crate::{
    control::state::{Changed, View},
    model::{Endpoint, EndpointId, Lease, Location, NetworkId, Node, NodeId, Permission, Vtep},
};
use std::collections::{BTreeMap, BTreeSet};

/// The place of an endpoint that is not on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Site {
    Node(NodeId),
    External(Vtep),
}

impl Site {
    /// The VTEP to which packets for the site are sent; `None` where the node is not known (yet), or is lost.
    pub(super) fn vtep(self, view: &View) -> Option<Vtep> {
        match self {
            Self::Node(id) => view.nodes.get(&id).and_then(|node| node.reachable_vtep()),
            Self::External(vtep) => Some(vtep),
        }
    }

    /// The VTEP of the site, also of a node that is lost; `None` where the node is not known (yet).
    fn any_vtep(self, view: &View) -> Option<Vtep> {
        match self {
            Self::Node(id) => view.nodes.get(&id).map(|node| node.vtep),
            Self::External(vtep) => Some(vtep),
        }
    }
}

/// The site of an endpoint; `None` for an endpoint of this node.
pub(super) fn site(endpoint: &Endpoint, local: NodeId) -> Option<Site> {
    match &endpoint.location {
        Location::Node { node, .. } if *node == local => None,
        Location::Node { node, .. } => Some(Site::Node(*node)),
        Location::External { vtep } => Some(Site::External(*vtep)),
    }
}

/// Returns true if the row of a node changed by more than a doubt about its life, which changes nothing here: only a node
/// that is [lost](Lease::Lost) is sent nothing.
fn is_more_than_a_doubt(change: &Changed<'_, Node>) -> bool {
    let (Some(old), Some(new)) = (change.old, change.new) else { return true };
    let is_lost = |node: &Node| node.lease == Lease::Lost;
    is_lost(old) != is_lost(new) || Node { lease: old.lease, ..new.clone() } != *old
}

fn is_bridging(endpoint: &Endpoint) -> bool {
    endpoint.permissions.has(Permission::Bridging)
}

/// The sites of all endpoints of one view.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sites {
    local: NodeId,
    view: View,
    sites: Counted,
    networks: BTreeMap<NetworkId, Part>,
}

/// The sites of one network, its endpoints on this node, and its bridging endpoints anywhere.
#[derive(Clone, Debug, Default, PartialEq)]
struct Part {
    sites: Counted,
    here: BTreeSet<EndpointId>,
    bridging: BTreeSet<EndpointId>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Counted(BTreeMap<Site, usize>);

impl Counted {
    /// Returns true if it is the first endpoint there.
    fn add(&mut self, site: Site) -> bool {
        let count = self.0.entry(site).or_default();
        *count += 1;
        *count == 1
    }

    /// Returns true if it was the last endpoint there.
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

impl Sites {
    /// The sites of a view without endpoints.
    pub(super) fn new(local: NodeId) -> Self {
        Self { local, view: View::default(), sites: Counted::default(), networks: BTreeMap::new() }
    }

    /// Follows `view`. Returns true if more than remote endpoints and doubts changed: a node, a network, a local endpoint, a bridging
    /// one, or a network's set of VTEPs.
    pub(super) fn update(&mut self, view: &View) -> bool {
        let older = std::mem::replace(&mut self.view, view.clone());
        let mut more = view.changed_nodes(&older).any(|change| is_more_than_a_doubt(&change))
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
            && !is_bridging(old)
            && !is_bridging(new)
        {
            return place(new).1.is_none();
        }
        let lost = change.old.is_some_and(|old| self.remove(old));
        let got = change.new.is_some_and(|new| self.add(new));
        lost || got
    }

    fn add(&mut self, endpoint: &Endpoint) -> bool {
        let part = self.networks.entry(endpoint.network).or_default();
        let bridges = is_bridging(endpoint) && part.bridging.insert(endpoint.id);
        bridges
            | match site(endpoint, self.local) {
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
        let bridged = part.bridging.remove(&endpoint.id);
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
        more | bridged
    }

    /// The endpoints of this node, network by network.
    pub(super) fn here(&self) -> impl Iterator<Item = &Endpoint> {
        self.networks.iter().flat_map(|(network, part)| self.listed(*network, &part.here))
    }

    /// The bridging endpoints of one network, on all nodes.
    pub(super) fn bridging_of(&self, network: NetworkId) -> impl Iterator<Item = &Endpoint> {
        let part = self.networks.get(&network).into_iter();
        part.flat_map(move |part| self.listed(network, &part.bridging))
    }

    fn listed<'a>(
        &'a self,
        network: NetworkId,
        ids: &'a BTreeSet<EndpointId>,
    ) -> impl Iterator<Item = &'a Endpoint> {
        let endpoints = self.view.endpoints.get(&network);
        let get = move |id| endpoints.and_then(|endpoints| endpoints.get(id));
        ids.iter().filter_map(get).map(AsRef::as_ref)
    }

    /// The endpoints of this node on one network.
    pub(super) fn here_of(&self, network: NetworkId) -> impl Iterator<Item = EndpointId> {
        self.networks.get(&network).into_iter().flat_map(|part| part.here.iter().copied())
    }

    /// The VTEPs of the other endpoints of one network.
    pub(super) fn vteps_of(&self, network: NetworkId) -> BTreeSet<Vtep> {
        let sites = self.networks.get(&network).into_iter().flat_map(|part| part.sites.0.keys());
        sites.filter_map(|site| site.vtep(&self.view)).collect()
    }

    /// The VTEPs that have an endpoint behind them, those of lost nodes too: the ways there, and what follows from them,
    /// stay as they are until the endpoints are gone.
    pub(super) fn vteps(&self) -> BTreeSet<Vtep> {
        self.sites.0.keys().filter_map(|site| site.any_vtep(&self.view)).collect()
    }

    /// Those of them that this node sends to.
    pub(super) fn reachable_vteps(&self) -> BTreeSet<Vtep> {
        self.sites.0.keys().filter_map(|site| site.vtep(&self.view)).collect()
    }

    /// Those that are no node of the cluster.
    pub(super) fn externals(&self) -> impl Iterator<Item = Vtep> {
        self.sites.0.keys().filter_map(|site| match site {
            Site::External(vtep) => Some(*vtep),
            Site::Node(_) => None,
        })
    }

    /// Returns true if an endpoint is on that node.
    pub(super) fn has(&self, node: NodeId) -> bool {
        self.sites.0.contains_key(&Site::Node(node))
    }
}
