//! Finds out which tracked connections can have become stale, so that the kernel need not list them all. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::flow::End;
use crate::{
    dataplane::kernel::{HostPort, Legs, PublishedPorts},
    model::Transport,
};

/// So many parts of the table of connections are asked for one by one. For more, the whole table is read once: for each
/// part the kernel goes through the whole table too.
pub(super) const PARTS_MAX: usize = 8;

/// What changed in the kernel's table `ip overlay` since the connections were last compared with it.
#[derive(Debug, Default)]
pub(super) struct Shift {
    /// The rules were missing or others: any connection may have begun without them.
    pub(super) is_rewritten: bool,
    /// Ports that lead elsewhere now, and the former target; `None` = the host itself, whose UDP flows go on.
    pub(super) moved: BTreeMap<HostPort, Option<End>>,
}

impl Shift {
    /// Adds the ports that lead elsewhere `now` than `before`.
    pub(super) fn add(&mut self, before: &PublishedPorts, now: &PublishedPorts) {
        for port in before.keys().chain(now.keys()) {
            let former = target(before, port);
            // A connection with a handshake to a port that led nowhere has ended, or is a program's of the host.
            let is_fresh = former.is_none() && port.0 != Transport::Udp;
            if former != target(now, port) && !is_fresh {
                self.moved.entry(*port).or_insert(former);
            }
        }
    }
}

/// Where a port leads.
pub(super) fn target(ports: &PublishedPorts, port: &HostPort) -> Option<End> {
    ports.get(port).map(|target| End { address: target.address, port: target.port.get() })
}

/// The reasons to look at the connections.
#[derive(Debug)]
pub(super) struct Suspicion<'a> {
    /// Nothing is known of earlier legs, or the rules were not in place: any connection may be stale.
    pub(super) is_whole: bool,
    /// The addresses of legs that are gone. One of them may be a newer leg's that was not set up yet.
    pub(super) gone: BTreeSet<Ipv4Addr>,
    pub(super) moved: &'a BTreeMap<HostPort, Option<End>>,
}

impl<'a> Suspicion<'a> {
    /// `before` are the legs that the connections were last compared with, if they ever were.
    pub(super) fn new(before: Option<&Legs>, now: &Legs, shift: &'a Shift) -> Self {
        let has = |address: &Ipv4Addr| now.values().any(|leg| leg == address);
        let went =
            before.into_iter().flatten().filter(|(id, address)| now.get(id) != Some(address));
        let former = shift.moved.values().flatten().map(|end| end.address);
        Self {
            is_whole: before.is_none() || shift.is_rewritten,
            gone: went.map(|(_, address)| *address).chain(former.filter(|a| !has(a))).collect(),
            moved: &shift.moved,
        }
    }

    /// Returns true if no connection can have become stale.
    pub(super) fn is_none(&self) -> bool {
        !self.is_whole && self.gone.is_empty() && self.moved.is_empty()
    }

    /// The parts of the table of connections that have all stale ones.
    pub(super) fn parts(&self) -> Vec<Part> {
        if self.is_whole {
            return vec![Part::All];
        }
        // NAT of ours never changes both: a leg is the source of what it sends, and of the answers to what it gets.
        let of_leg = |address: &Ipv4Addr| [Part::From(*address), Part::AnsweredBy(*address)];
        let parts = self.gone.iter().flat_map(of_leg);
        let parts: Vec<Part> = parts.chain(self.moved.keys().copied().map(Part::To)).collect();
        if parts.len() > PARTS_MAX { vec![Part::All] } else { parts }
    }
}

/// A part of the table of connections that the kernel can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Everything.
    All,
    /// What an address began.
    From(Ipv4Addr),
    /// What an address answers.
    AnsweredBy(Ipv4Addr),
    /// What was sent to a port of the host.
    To(HostPort),
}
