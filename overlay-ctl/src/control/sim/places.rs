//! Where hosts listen, and how a message finds the one that it is for. What a node knows of places, and in which order it tries
//! them, is the product's (`peers/places.rs`, by its directory), and so are the rows that two nodes exchange
//! (`state/vteps.rs`); when a stream opens and breaks is a model of it.

use super::{
    commands,
    disaster::CLUSTER,
    host::Host,
    jobs::leaders_state,
    request::Request,
    world::{World, note},
};
use crate::{
    control::{
        peers::{Directory, Peer, raft::Turn},
        state::{Applied, Refusal, State},
    },
    model::{Lease, Node, NodeId, Version},
};
use std::net::SocketAddr;

/// Pause before a way that led to nobody is tried again, in steps.
const REOPEN: u64 = 20;
/// A way that is open for so long has reached its peer.
const REACHED: u64 = 500;

/// A stream to a peer.
#[derive(Default)]
pub(super) struct Way {
    turn: Turn,
    place: Option<SocketAddr>,
    /// When it was opened, and when another one is.
    since: u64,
    next: u64,
    /// What the peer was told of places.
    seen: Option<u64>,
}

/// What a node that has moved asks of the leader.
pub(super) enum Moving {
    Registers(Request),
    Exchanges(Request),
}

/// Where a host listens at first.
pub(super) fn first_place(number: u64) -> SocketAddr {
    ([10, 10, 10, u8::try_from(number).unwrap()], 7400).into()
}

impl Host {
    /// What it knows of places, as another process of its node does: what its file says.
    pub(super) fn forget_places(&mut self) {
        let kept = self.directory.to_keep();
        self.know(kept);
    }

    /// Knows these peers, and nothing else.
    pub(super) fn know(&mut self, peers: Vec<Peer>) {
        self.directory = Directory::new(CLUSTER, peers);
        self.ways.clear();
        if let Some(node) = self.node.or(self.copied) {
            self.directory.introduce(node, self.listen);
        }
    }
}

impl World {
    /// The host at which a message to a member arrives, if one does.
    pub(super) fn way_to(&mut self, from: u64, life: u64) -> Option<u64> {
        let Self { hosts, addresses, reach, now, .. } = self;
        let host = hosts.get_mut(&from)?;
        let node = host.directory.node_of(life)?;
        let way = host.ways.entry(node).or_default();
        if way.place.is_none() && *now >= way.next {
            way.place = way.turn.next(&host.directory.places(node));
            (way.since, way.seen) = (*now, None);
        }
        let place = way.place?;
        let there = addresses.get(&place).copied();
        let is_it = there
            .and_then(|there| hosts.get(&there))
            .is_some_and(|host| host.is_up() && host.node == Some(node));
        let host = hosts.get_mut(&from)?;
        let way = host.ways.entry(node).or_default();
        if !is_it {
            reach.hit(if there.is_some() {
                "places: another node there, or none"
            } else {
                "places: nobody there"
            });
            (way.place, way.next) = (None, *now + REOPEN);
            host.directory.lost(node, place);
            return None;
        }
        if *now == way.since + REACHED || (*now > way.since + REACHED && now.is_multiple_of(50)) {
            way.turn.was_right();
            host.directory.reached(node, place);
        }
        there
    }

    /// What a host tells the peer to which it has a way: places that the peer was not told yet.
    pub(super) fn tell(&mut self, from: u64, to: u64) {
        let Some(node) = self.hosts.get(&to).and_then(|host| host.node) else { return };
        let host = self.host(from);
        let Some(way) = host.ways.get_mut(&node) else { return };
        let told = host.directory.to_tell(&mut way.seen);
        self.host(to).directory.told(&told);
    }

    /// A host listens elsewhere from now on; whoever was there listens nowhere.
    pub(super) fn move_to(&mut self, number: u64, place: SocketAddr) {
        let host = self.host(number);
        let before = std::mem::replace(&mut host.listen, place);
        host.directory.moved(place);
        host.ways.clear();
        host.next_renewal = 0;
        if self.addresses.get(&before) == Some(&number) {
            self.addresses.remove(&before);
        }
        self.addresses.insert(place, number);
        note!(self, "host {number} listens at {place}");
    }

    /// Some hosts get other addresses: each other's, or new ones. One voter at least stays where it is.
    pub(super) fn renumber(&mut self) {
        let mut all = self.numbers();
        all.retain(|number| self.hosts[number].node.is_some());
        let voters = self.with_a_log();
        let Some(stays) = self.rng.pick(&voters) else { return };
        all.retain(|number| *number != stays);
        let count = usize::try_from(1 + self.rng.below(4)).unwrap();
        let mut chosen = Vec::new();
        for _ in 0..count {
            let Some(number) = self.rng.pick(&all) else { break };
            all.retain(|other| *other != number);
            chosen.push(number);
        }
        let places: Vec<SocketAddr> =
            chosen.iter().map(|number| self.hosts[number].listen).collect();
        // Rows of version 1 can't be exchanged.
        let can = leaders_state(self).is_some_and(|state| state.version() >= Version::V2);
        if chosen.len() > 1 && can && self.rng.percent(60) {
            self.reach.hit("places: hosts swapped their addresses");
            for (number, place) in chosen.iter().zip(places.iter().cycle().skip(1)) {
                self.move_to(*number, *place);
            }
        } else {
            self.reach.hit("places: hosts got new addresses");
            for number in chosen {
                self.moves += 1;
                let [high, low] = self.moves.to_be_bytes();
                self.move_to(number, ([10, 11, high, low], 7400).into());
            }
        }
    }

    /// Whether a host finds the leader: where it takes it to be, or by way of a node that it takes for a voter.
    pub(super) fn finds(&self, number: u64, leader: u64) -> bool {
        let knows = |from: u64, to: u64| {
            let (Some(from), Some(to)) = (self.hosts.get(&from), self.hosts.get(&to)) else {
                return false;
            };
            let places = to.node.map(|node| from.directory.places(node)).unwrap_or_default();
            places.contains(&to.listen) && self.reaches(from.number, to.number)
        };
        let Some(host) = self.hosts.get(&number) else { return false };
        let asked = self.known_voters(number, host.node.unwrap_or_default());
        // One with a seat passes on to the leader, as far as it knows that.
        number == leader
            || (host.is_up() && knows(number, leader))
            || asked.into_iter().map(|(_, _, there)| there).any(|there| {
                self.reaches(number, there)
                    && self.hosts[&there].runs()
                    && (there == leader || knows(there, leader))
            })
    }

    /// What a node learns from the answer to its registration, as `node/registration.rs` does.
    pub(super) fn learn(&mut self, number: u64, state: &State) {
        let host = self.host(number);
        let voters: Vec<Peer> = state
            .nodes()
            .filter(|row| row.voter && Some(row.id) != host.node)
            .map(Peer::from)
            .collect();
        for peer in &voters {
            host.directory.heard_of(peer.id, peer.listen);
            if let Some(life) = peer.life() {
                host.directory.note_life(peer.id, life);
            }
        }
        host.directory.name_voters(voters.iter().map(|peer| peer.id));
    }

    /// An operator starts a node that knows nobody's place again, with `--join` and the place of a voter.
    pub(super) fn say_where(&mut self, number: u64) {
        let others = self.with_a_log().into_iter().filter(|other| *other != number);
        let unknown = |other: &u64| !self.finds(number, *other);
        let Some(other) = self.leader().into_iter().chain(others).find(unknown) else { return };
        let other = &self.hosts[&other];
        if let (Some(node), listen) = (other.node, other.listen) {
            self.reach.hit("places: an operator says where a voter is");
            self.host(number).directory.heard_from(node, listen);
            self.host(number).directory.name_voters([node]);
        }
    }

    /// A node whose row says another address than it has registers anew. Where the address is that of another node, which has
    /// moved, the two rows exchange theirs.
    pub(super) fn follow_the_move(&mut self, number: u64, row: &Node) {
        let listen = self.host(number).listen;
        let is_in_hand = self.in_hand == Some(number);
        // An exchange gives a node another VTEP, and leaves where it listens.
        let is_right = row.listen == listen && row.vtep.ip() == listen.ip();
        if self.host(number).moving.is_some() || is_right || is_in_hand {
            return;
        }
        // The leader hears where it is, whatever comes of the registration.
        if let Some(leader) = self.leader() {
            self.host(leader).directory.heard_from(row.id, listen);
        }
        let speaks = self.speaks(number);
        let command = commands::registration(self.host(number), speaks);
        let request = Request::new(self, command);
        self.host(number).moving = Some(Moving::Registers(request));
    }

    /// Goes on with what a node that has moved asked for.
    pub(super) fn go_on_moving(&mut self, number: u64) {
        let Some(moving) = self.host(number).moving.take() else { return };
        let moving = match moving {
            Moving::Registers(mut request) => match request.poll(self) {
                None => Some(Moving::Registers(request)),
                Some(Ok(Applied::Node(row))) => {
                    self.reach.hit("places: a node that moved is registered");
                    self.host(number).epoch = row.epoch;
                    None
                }
                Some(Err(Refusal::VtepExists { .. })) => self.exchange(number),
                Some(outcome) => {
                    note!(self, "host {number} is not registered: {outcome:?}");
                    None
                }
            },
            Moving::Exchanges(mut request) => match request.poll(self) {
                None => Some(Moving::Exchanges(request)),
                Some(_) => {
                    self.reach.hit("places: two rows exchanged their addresses");
                    self.host(number).next_renewal = 0;
                    None
                }
            },
        };
        self.host(number).moving = moving;
    }

    /// The exchange that the leader makes for a node, if it knows that the other one has left the address.
    fn exchange(&mut self, number: u64) -> Option<Moving> {
        let state = leaders_state(self)?;
        let leader = self.leader()?;
        let host = self.host(number);
        let (instance, vtep) = (host.instance(), host.listen.ip().into());
        let (other, command) = state.exchange(instance, vtep)?;
        let (id, listen, lease) = (other.id, other.listen, other.lease);
        let has_moved =
            lease == Lease::Lost || self.host(leader).directory.has_moved(id, listen.ip());
        let is_there = self.addresses.get(&listen).and_then(|there| self.hosts.get(there));
        let is_back = is_there.is_some_and(|host| host.node == Some(id) && host.runs());
        if state.version().is_first() || !has_moved || is_back {
            self.reach.hit("places: the address is another node's still");
            return None;
        }
        Some(Moving::Exchanges(Request::new(self, command)))
    }

    /// The voters that an agent knows, each with the host that is there.
    pub(super) fn known_voters(&self, number: u64, own: NodeId) -> Vec<(NodeId, SocketAddr, u64)> {
        let Some(host) = self.hosts.get(&number) else { return Vec::new() };
        let others = host.directory.voters().into_iter().filter(|peer| peer.id != own);
        let there = |peer: Peer| {
            let there = *self.addresses.get(&peer.listen)?;
            (self.hosts.get(&there)?.node == Some(peer.id)).then_some((peer.id, peer.listen, there))
        };
        others.filter_map(there).collect()
    }

    /// Whether each row says where its node is.
    pub(super) fn is_registered_rightly(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let Some(core) = &self.hosts[&leader].core else { return false };
        core.machine().state.read(|state| {
            self.hosts
                .values()
                .filter_map(|host| Some((host, state.node(host.node?)?)))
                .all(|(host, row)| row.listen == host.listen && row.vtep.ip() == host.listen.ip())
        })
    }
}
