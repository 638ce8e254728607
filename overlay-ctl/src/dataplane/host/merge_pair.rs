//! The merge pair stands while an uplink is a veth, and then alone do the programs use it.

use super::datapath::SharedDatapath;
use crate::dataplane::{
    datapath::DatapathError,
    kernel::Uplink,
    netlink::{LinkList, MergePair, Netlink},
};

/// What a pass does about the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is as it should be.
    Nothing,
    /// It is made or put right, or looked at for the first time.
    Make,
    /// It, or what is left of it, is removed.
    Remove,
}

/// The step among these devices of the host. `known` is the pair that the node uses. What failed is tried again only
/// where `may_try`.
fn step(is_wanted: bool, may_try: bool, links: &LinkList, known: Option<&MergePair>) -> Step {
    match (is_wanted, links.merge_pair()) {
        (true, Some(stands)) if Some(&stands) == known => Step::Nothing,
        (true, _) if may_try => Step::Make,
        (true, _) => Step::Nothing,
        // A node that was killed may have left it, whole or in part.
        (false, _) if known.is_some() || links.has_merge_pair() => Step::Remove,
        (false, _) => Step::Nothing,
    }
}

/// Keeps the pair.
#[derive(Default)]
pub(super) struct MergePairKeeper {
    /// The pair whose offloads were seen to be right; `None` where there is none.
    pair: Option<MergePair>,
    /// Why there is none although there should be, in words.
    trouble: Option<String>,
    /// There was a look since the last attempt. An attempt that fails half-way makes events of the overlay's own devices,
    /// and each would lead to a pass with the next attempt.
    was_looked_at: bool,
}

impl MergePairKeeper {
    /// Makes sure of the pair where one of these uplinks is a veth, among these devices of the host, and removes it where
    /// none is. Returns the pair's receiving end, which is an uplink, too.
    pub(super) async fn follow(
        &mut self,
        (datapath, netlink): (&SharedDatapath, &Netlink),
        links: &LinkList,
        uplinks: &[Uplink],
    ) -> Option<Uplink> {
        let is_wanted = uplinks.iter().any(|uplink| uplink.is_veth);
        let may_try = self.trouble.is_none() || std::mem::take(&mut self.was_looked_at);
        match step(is_wanted, may_try, links, self.pair.as_ref()) {
            Step::Remove => self.remove(datapath, netlink).await,
            Step::Make => self.make(datapath, netlink, links).await,
            Step::Nothing => {}
        }
        self.pair.as_ref().map(|pair| pair.receives.clone())
    }

    /// Looks at the pair's offloads, and switches them where somebody else has switched them back.
    pub(super) async fn look(
        &mut self,
        datapath: &SharedDatapath,
        netlink: &Netlink,
        links: &LinkList,
    ) {
        self.was_looked_at = true;
        // One that was touched is made anew by the next pass, which attaches the program, too.
        if self.pair.is_some() && links.merge_pair() == self.pair {
            self.make(datapath, netlink, links).await;
        }
    }

    /// Has the programs send segments through the pair, or not, if its receiving end is among the uplinks that have no
    /// program.
    pub(super) fn use_it(&mut self, datapath: &SharedDatapath, deaf: &[(Uplink, DatapathError)]) {
        let is_deaf = |pair: &&MergePair| deaf.iter().any(|(uplink, _)| *uplink == pair.receives);
        let usable = self.pair.as_ref().filter(|pair| !is_deaf(pair));
        let used = datapath.lock().merge_by(usable.map_or(0, |pair| pair.sends));
        if let Err(error) = used {
            self.note(Some(crate::error_chain(&error)));
        }
    }

    /// Why segments that come in by a veth are not merged, in words.
    pub(super) fn trouble(&self) -> Option<String> {
        let why = self.trouble.as_ref()?;
        Some(format!("TCP segments that come in one by one are not merged: {why}"))
    }

    async fn make(&mut self, datapath: &SharedDatapath, netlink: &Netlink, links: &LinkList) {
        let before = self.pair.take();
        // What was touched is gone: nothing is sent there while another one is made, which is used when its receiving end
        // has its program.
        let is_gone = links.merge_pair() != before;
        let unused = if is_gone { datapath.lock().merge_by(0) } else { Ok(()) };
        let trouble = match netlink.ensure_merge_pair_among(links).await {
            Ok(pair) => {
                if is_gone {
                    let MergePair { sends, receives } = &pair;
                    tracing::info!(sends, receives = receives.ifindex, "the merge pair stands");
                }
                self.pair = Some(pair);
                None
            }
            Err(error) => Some(crate::error_chain(&error)),
        };
        self.note(trouble.or(unused.err().map(|error| crate::error_chain(&error))));
    }

    async fn remove(&mut self, datapath: &SharedDatapath, netlink: &Netlink) {
        let unused = datapath.lock().merge_by(0);
        if let Err(error) = unused {
            // While the programs send by it, it stays.
            self.note(Some(crate::error_chain(&error)));
            return;
        }
        self.pair = None;
        match netlink.remove_merge_pair().await {
            Ok(_) => {
                tracing::info!("the merge pair is removed: no uplink is a veth");
                self.note(None);
            }
            Err(error) => self.note(Some(crate::error_chain(&error))),
        }
    }

    fn note(&mut self, trouble: Option<String>) {
        if trouble != self.trouble {
            if let Some(why) = &trouble {
                tracing::warn!(why, "TCP segments that come in by a veth are not merged");
            }
            self.trouble = trouble;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pair_stands_while_an_uplink_is_a_veth() {
        let (none, whole) = (LinkList::default(), LinkList::of_merge_pair(7, 8));
        let half = whole.clone().without_the_second();
        let known = whole.merge_pair().unwrap();
        let other = LinkList::of_merge_pair(9, 10).merge_pair().unwrap();
        for (is_wanted, may_try, links, known, expected) in [
            (true, true, &none, None, Step::Make),
            (true, false, &none, None, Step::Nothing),
            (true, true, &whole, None, Step::Make),
            (true, true, &whole, Some(&known), Step::Nothing),
            (true, true, &whole, Some(&other), Step::Make),
            (true, true, &half, Some(&known), Step::Make),
            (true, true, &none, Some(&known), Step::Make),
            (false, true, &none, None, Step::Nothing),
            (false, true, &whole, None, Step::Remove),
            (false, true, &half, None, Step::Remove),
            (false, true, &whole, Some(&known), Step::Remove),
            (false, false, &none, Some(&known), Step::Remove),
        ] {
            let step = step(is_wanted, may_try, links, known);
            assert_eq!(step, expected, "{is_wanted} {may_try} {links:?} {known:?}");
        }
    }
}
