//! The merge pair: a veth in the node's own namespace, through which TCP segments go that came in one by one.
//!
//! A veth merges what it receives (GRO) if its receiving end has GRO on and its sending end takes no super-packets
//! (`veth_skb_is_eligible_for_gro`, kernel 5.13). A host whose network card is a veth does not have the other end of that
//! one; of this pair the node has both. Each CPU has a queue of its own. Both ends are in the barrier, so nothing that
//! goes through the pair reaches the host's stack.

use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use nix::{
    errno::Errno,
    unistd::{SysconfVar, sysconf},
};
use overlay_common::MERGE_MAC;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{
    LinkList, MergePairError, Netlink, NetlinkError, Offloads, OffloadsError, bridge_port,
    link::{self, Link, Owner},
    names::{GROUP, MERGE_IN, MERGE_IN_ALIAS, MERGE_OUT, MERGE_OUT_ALIAS},
};
use crate::dataplane::kernel::{LinkLayer, Uplink};

/// The largest that a veth has, so that the pair takes the packets of every uplink.
const MTU: u32 = 65_535;
/// A veth has no more than this.
const QUEUES_MAX: u32 = 4096;
/// The sending end has none of the offloads whose names begin with this (NETIF_F_ALL_TSO); newer kernels have more of them.
const CUTTING: &str = "tx-tcp";
/// The receiving end has this,
const MERGING: &str = "rx-gro";
/// and not this: it makes lists of packets, in which each keeps its own outer headers.
const LISTS: &str = "rx-gro-list";

/// The pair, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergePair {
    /// Index of the sending end.
    pub sends: u32,
    /// The receiving end, by which VXLAN comes in as by an uplink.
    pub receives: Uplink,
}

impl MergePair {
    /// The pair of the ends with these indexes. What comes in by the second is merged already, so it counts as no veth.
    fn new(sends: u32, receives: u32) -> Self {
        let receives = Uplink {
            ifindex: receives,
            name: MERGE_IN.to_owned(),
            link_layer: LinkLayer::Ethernet,
            is_veth: false,
        };
        Self { sends, receives }
    }
}

impl LinkList {
    /// The pair, if it stands among these devices as it was made, and is up. What it merges is not looked at.
    #[must_use]
    pub fn merge_pair(&self) -> Option<MergePair> {
        let named = |name: &str| self.0.iter().find(|link| link.name == name);
        pair(named(MERGE_OUT)?, named(MERGE_IN)?)
    }

    /// Returns true if an end of the overlay's pair stands among these devices, whatever its state is.
    #[must_use]
    pub fn has_merge_pair(&self) -> bool {
        self.0.iter().any(is_merge_end)
    }
}

impl Netlink {
    /// Makes the pair where it does not stand as it should, and has its receiving end merge.
    ///
    /// # Errors
    /// [`MergePairError`]; no half of a pair is left.
    pub async fn ensure_merge_pair_among(
        &self,
        links: &LinkList,
    ) -> Result<MergePair, MergePairError> {
        if let Some(pair) = links.merge_pair() {
            switch_offloads(&pair).await?;
            return Ok(pair);
        }
        let mut found = Vec::new();
        for name in [MERGE_OUT, MERGE_IN] {
            let Some(link) = link::link_by_name(&self.handle, name).await? else { continue };
            if !is_merge_end(&link) {
                return Err(MergePairError::NameTaken(name.to_owned()));
            }
            found.push(link);
        }
        // A list that was interrupted lacks devices that stand.
        if let [sends, receives] = &found[..]
            && let Some(pair) = pair(sends, receives)
        {
            switch_offloads(&pair).await?;
            return Ok(pair);
        }
        for link in found {
            link::delete(&self.handle, link.index).await?;
        }
        let made = self.make_merge_pair().await;
        if made.is_err() {
            self.remove_merge_pair().await?;
        }
        made
    }

    /// Removes the pair, where it exists and is the overlay's. Returns true if some of it stood.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn remove_merge_pair(&self) -> Result<bool, NetlinkError> {
        let mut stood = false;
        for name in [MERGE_OUT, MERGE_IN] {
            match link::link_by_name(&self.handle, name).await? {
                Some(link) if is_merge_end(&link) => {
                    link::delete(&self.handle, link.index).await?;
                    stood = true;
                }
                _ => {}
            }
        }
        Ok(stood)
    }

    async fn make_merge_pair(&self) -> Result<MergePair, MergePairError> {
        let queues = queues();
        let receives =
            end(LinkUnspec::new_with_name(MERGE_IN), queues).address(MERGE_MAC.to_vec()).build();
        let message: LinkMessage = end(LinkVeth::new(MERGE_OUT, MERGE_IN), queues)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(receives)))
            .build();
        let made = self.handle.link().add(message).execute().await;
        made.map_err(|error| NetlinkError::new("create the merge pair", error))?;
        let barrier = self.barrier().await?;
        // The receiving end first: the sending end must lead to a device that takes what is sent.
        let ends = [(MERGE_IN, MERGE_IN_ALIAS), (MERGE_OUT, MERGE_OUT_ALIAS)];
        let mut indexes = [0; 2];
        for ((name, alias), index) in ends.into_iter().zip(&mut indexes) {
            let link = link::link_by_name(&self.handle, name).await?;
            let link = link.ok_or_else(|| MergePairError::Gone(name.to_owned()))?;
            *index = link.index;
            link::set_addr_gen_none(&self.handle, link.index).await?;
            if let Some(barrier) = barrier {
                match bridge_port::set_controller(&self.handle, link.index, barrier).await {
                    // `ensure_barrier` reports it.
                    Err(error) if error.errno() == Some(Errno::EXFULL) => {}
                    put => put?,
                }
            }
            link::set_alias(&self.handle, link.index, alias).await?;
        }
        let [receives, sends] = indexes;
        let pair = MergePair::new(sends, receives);
        // While it is down, so that not one packet goes by without it.
        switch_offloads(&pair).await?;
        link::set_up(&self.handle, pair.receives.ifindex).await?;
        link::set_up(&self.handle, pair.sends).await?;
        Ok(pair)
    }
}

/// Returns true if the device is an end of the overlay's merge pair.
pub(super) fn is_merge_end(link: &Link) -> bool {
    let alias = match link.name.as_str() {
        MERGE_OUT => MERGE_OUT_ALIAS,
        MERGE_IN => MERGE_IN_ALIAS,
        _ => return false,
    };
    link.owner(alias) != Owner::Foreign
}

/// The pair of these two ends, if they are as they were made, and up.
fn pair(sends: &Link, receives: &Link) -> Option<MergePair> {
    let is_end = |link: &Link, alias: &str, other: &Link| {
        link.owner(alias) == Owner::Ours
            && link.peer == Some(other.index)
            && link.peer_netns.is_none()
            && link.mtu == MTU
            && link.up
    };
    let is_pair = is_end(sends, MERGE_OUT_ALIAS, receives)
        && is_end(receives, MERGE_IN_ALIAS, sends)
        && receives.mac == MERGE_MAC;
    is_pair.then(|| MergePair::new(sends.index, receives.index))
}

/// What both ends have.
fn end<T>(message: LinkMessageBuilder<T>, queues: u32) -> LinkMessageBuilder<T> {
    message
        .mtu(MTU)
        .arp(false)
        .append_extra_attribute(LinkAttribute::Group(GROUP))
        .append_extra_attribute(LinkAttribute::NumTxQueues(queues))
        .append_extra_attribute(LinkAttribute::NumRxQueues(queues))
}

/// One for each CPU that this machine may have.
fn queues() -> u32 {
    let cpus = sysconf(SysconfVar::_NPROCESSORS_CONF).ok().flatten();
    cpus.and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or(1).clamp(1, QUEUES_MAX)
}

/// Switches the offloads of both ends, where somebody else has switched them, or nobody yet.
async fn switch_offloads(pair: &MergePair) -> Result<(), MergePairError> {
    let mut offloads = Offloads::open()?;
    let wrong = Wrong::look(&mut offloads).await?;
    if wrong.is_nothing() {
        return Ok(());
    }
    let Wrong { cuts, merges, lists } = wrong;
    let cuts: Vec<&str> = cuts.iter().map(String::as_str).collect();
    let (sends, receives) = (pair.sends, pair.receives.ifindex);
    for (ifindex, names, on) in
        [(sends, &cuts[..], false), (receives, &merges[..], true), (receives, &lists[..], false)]
    {
        if !names.is_empty() {
            offloads.switch(ifindex, names, on).await?;
        }
    }
    let left = Wrong::look(&mut offloads).await?;
    if left.is_nothing() { Ok(()) } else { Err(MergePairError::StaysOff) }
}

/// The offloads of both ends that are not as they should be.
struct Wrong {
    /// On at the sending end.
    cuts: Vec<String>,
    /// Off at the receiving end.
    merges: Vec<&'static str>,
    /// On there.
    lists: Vec<&'static str>,
}

impl Wrong {
    async fn look(offloads: &mut Offloads) -> Result<Self, OffloadsError> {
        let mut sends = offloads.in_force(MERGE_OUT).await?;
        let receives = offloads.in_force(MERGE_IN).await?;
        sends.retain(|name| name.starts_with(CUTTING));
        Ok(Self {
            cuts: sends.into_iter().collect(),
            merges: [MERGING].into_iter().filter(|name| !receives.contains(*name)).collect(),
            lists: [LISTS].into_iter().filter(|name| receives.contains(*name)).collect(),
        })
    }

    fn is_nothing(&self) -> bool {
        let Self { cuts, merges, lists } = self;
        cuts.is_empty() && merges.is_empty() && lists.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::kernel::NetnsId;

    impl LinkList {
        /// The devices of a host with nothing but a pair, whose ends have these indexes.
        pub(crate) fn of_merge_pair(sends: u32, receives: u32) -> Self {
            let end = |index, name: &str, alias: &str, peer| Link {
                index,
                name: name.to_owned(),
                alias: alias.to_owned(),
                mtu: MTU,
                up: true,
                peer: Some(peer),
                mac: MERGE_MAC.to_vec(),
                ..Link::default()
            };
            Self(vec![
                end(sends, MERGE_OUT, MERGE_OUT_ALIAS, receives),
                end(receives, MERGE_IN, MERGE_IN_ALIAS, sends),
            ])
        }

        /// Its second end is in another namespace.
        pub(crate) fn without_the_second(mut self) -> Self {
            self.0.truncate(1);
            self
        }
    }

    fn made() -> [Link; 2] {
        LinkList::of_merge_pair(7, 8).0.try_into().unwrap()
    }

    /// Something that somebody else does to one end.
    type Change = fn(&mut Link);

    #[test]
    fn a_pair_that_was_touched_is_made_anew() {
        let [sends, receives] = made();
        let stands = LinkList(vec![sends.clone(), receives.clone()]).merge_pair().unwrap();
        assert_eq!((stands.sends, stands.receives.ifindex), (7, 8));
        let changes: [(&str, Change); 5] = [
            ("down", |link| link.up = false),
            ("another MTU", |link| link.mtu = 1500),
            ("another peer", |link| link.peer = Some(9)),
            ("a peer elsewhere", |link| link.peer_netns = NetnsId::new(1)),
            ("a new name's purpose", |link| link.alias = "theirs".to_owned()),
        ];
        for (what, change) in changes {
            for touched in 0..2 {
                let mut ends = made();
                change(&mut ends[touched]);
                assert_eq!(LinkList(ends.into()).merge_pair(), None, "{what}");
            }
        }
        let other_mac = Link { mac: vec![2, 0, 0, 0, 0, 1], ..receives };
        assert_eq!(LinkList(vec![sends.clone(), other_mac]).merge_pair(), None);
        assert_eq!(LinkList(vec![sends]).merge_pair(), None, "one end is away");
    }

    #[test]
    fn an_end_is_ours_by_its_alias_or_while_it_is_being_made() {
        let [sends, receives] = made();
        assert!(is_merge_end(&sends) && is_merge_end(&receives));
        let of = |alias: &str, group| Link { alias: alias.to_owned(), group, ..sends.clone() };
        assert!(is_merge_end(&of("", GROUP)), "half made");
        for foreign in [of("", 0), of(MERGE_IN_ALIAS, GROUP), of("theirs", GROUP)] {
            assert!(!is_merge_end(&foreign), "{foreign:?}");
            assert!(!LinkList(vec![foreign]).has_merge_pair());
        }
        let other = Link { name: "veth1".to_owned(), ..sends };
        assert!(!is_merge_end(&other));
    }
}
