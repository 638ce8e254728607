//! Which events a caller of `Watch.Events` wants.

use super::parties::{Parties, Party};
use crate::{
    faces::ServedNode,
    proto::v1::{Event, EventsRequest},
};
use overlay_common::{DropReason, FORWARDED};
use std::collections::BTreeSet;
use tonic::Status;

/// The events that a caller wants.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// The endpoint at either end: its name, and its network if that was given.
    endpoint: Option<(String, Option<String>)>,
    network: Option<String>,
    /// Numbers of the reasons; empty = all.
    reasons: BTreeSet<u32>,
}

impl Filter {
    /// The filter of a request. Fails if the request can't match any event.
    pub(super) fn new(request: EventsRequest, node: &ServedNode) -> Result<Self, Status> {
        let EventsRequest { sample, endpoint, network, reasons } = request;
        let numbers = reasons.iter().map(|reason| number(reason));
        let filter = Self {
            endpoint: (!endpoint.is_empty()).then(|| match endpoint.split_once('.') {
                Some((name, network)) => (name.to_owned(), Some(network.to_owned())),
                None => (endpoint, None),
            }),
            network: (!network.is_empty()).then_some(network),
            reasons: numbers.collect::<Result<_, Status>>()?,
        };
        if sample == 0 && filter.reasons.contains(&FORWARDED) {
            return Err(Status::invalid_argument(format!(
                "reasons: `{}` asks for packets that are not dropped, so say one in how many",
                DropReason::name_of(None)
            )));
        }
        filter.check_names(node)?;
        Ok(filter)
    }

    /// Fails for a name that this node does not know: a caller would wait in vain for a mistyped one.
    fn check_names(&self, node: &ServedNode) -> Result<(), Status> {
        let view = node.view.borrow().clone();
        let networks = view.iter().flat_map(|view| view.networks.values());
        let networks: Vec<_> = networks
            .filter(|network| {
                self.network.as_ref().is_none_or(|name| network.name.as_str() == name)
            })
            .collect();
        if let Some(name) = &self.network
            && networks.is_empty()
        {
            return Err(Status::not_found(format!(
                "this node has no endpoint on a network named {name}: ask a node that has one"
            )));
        }
        let Some((name, network)) = &self.endpoint else { return Ok(()) };
        let known = networks.iter().any(|row| {
            network.as_ref().is_none_or(|network| row.name.as_str() == network)
                && view.iter().filter_map(|view| view.endpoints.get(&row.id)).any(|endpoints| {
                    endpoints.values().any(|endpoint| endpoint.name.as_str() == name)
                })
        });
        if !known {
            let on = match network.as_ref().or(self.network.as_ref()) {
                Some(network) => format!(" on a network named {network}"),
                None => String::new(),
            };
            return Err(Status::not_found(format!(
                "this node knows no endpoint named {name}{on}: ask a node that has an endpoint on \
                 its network"
            )));
        }
        Ok(())
    }

    /// The event with its names; `None` if the caller does not want it.
    pub(super) fn show(&self, event: &overlay_common::Event, node: &ServedNode) -> Option<Event> {
        if !self.reasons.is_empty() && !self.reasons.contains(&event.reason) {
            return None;
        }
        let parties = Parties::of(event, node);
        let wanted = self.is_of_network(&parties) && self.is_of_endpoint(&parties);
        wanted.then(|| parties.show(event))
    }

    fn is_of_network(&self, parties: &Parties) -> bool {
        let Some(wanted) = &self.network else { return true };
        parties.network.as_ref() == Some(wanted)
            || parties.ends().any(|party| party.network == *wanted)
    }

    fn is_of_endpoint(&self, parties: &Parties) -> bool {
        let Some((name, network)) = &self.endpoint else { return true };
        let is_wanted = |party: &Party| {
            party.name == *name && network.as_ref().is_none_or(|network| party.network == *network)
        };
        parties.ends().any(is_wanted)
    }
}

fn number(reason: &str) -> Result<u32, Status> {
    let forwarded = DropReason::name_of(None);
    if reason == forwarded {
        return Ok(FORWARDED);
    }
    let known = DropReason::ALL.iter().find(|known| known.name() == reason);
    known.map(|reason| *reason as u32).ok_or_else(|| {
        let names: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        Status::invalid_argument(format!(
            "reasons: `{reason}` is no drop reason; they are {forwarded}, {}",
            names.join(", ")
        ))
    })
}
