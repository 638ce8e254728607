//! The gate in front of the reconciler: it opens when the node's view is no older than what the kernel already holds, so
//! that a restarted node removes nothing that is only newer than its view.

use crate::{
    control::{consensus::ProposeError, state::View, voter::Seat, watch::is_new_enough},
    dataplane::{kernel::Tables, reconcile::programmed_at_least},
    model::{EndpointId, Revision},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Pause between two attempts to reach a quorum.
const RETRY: Duration = Duration::from_millis(200);

/// Keeps the reconciler from a view that is older than what the kernel holds.
///
/// After a restart the node's own log may end before the last revision that its kernel holds. Reconciling by such a log
/// would cut off endpoints that all other nodes still reach. So a voter with a filled kernel waits until its state is as
/// new as a quorum's. A voter with an empty kernel (after a reboot) has nothing to lose and begins with the state that it
/// has. An agent, to which a voter sends the whole view, waits for one that is no older than what its kernel holds.
pub(super) struct Gate {
    kernel_holds: Option<Revision>,
}

impl Gate {
    /// A gate for the kernel that was found at the start. `ports` are the endpoints that have a port: an endpoint's id is
    /// the revision that made it. `other` is the newest endpoint in maps of another layout, by which the attached programs
    /// still forward.
    #[must_use]
    pub(super) fn new(found: &Tables, ports: &[EndpointId], other: Option<EndpointId>) -> Self {
        let is_empty = *found == Tables::default() && ports.is_empty() && other.is_none();
        let newest = ports.iter().copied().chain(other).max().unwrap_or(0);
        let newest = newest.max(programmed_at_least(found));
        Self { kernel_holds: (!is_empty).then_some(newest) }
    }

    /// Waits until a view is new enough to reconcile by, and returns it; `None` if the node ends before.
    pub(super) async fn open(
        self,
        seat: &Seat,
        views: &mut watch::Receiver<Option<Arc<View>>>,
    ) -> Option<Arc<View>> {
        let read = || {
            let voter = seat.get();
            async move {
                match voter {
                    Some(voter) => match voter.consensus.read_index().await {
                        // The node has just lost its seat, and is an agent in a moment.
                        Err(ProposeError::Stopped) => Err(ProposeError::NoQuorum),
                        read => read.map(Some),
                    },
                    None => Ok(None),
                }
            }
        };
        self.open_by(read, views).await
    }

    /// As [`Gate::open`], with any linearizable read, which answers `None` while the node is an agent.
    async fn open_by<R: Future<Output = Result<Option<Revision>, ProposeError>>>(
        self,
        read_index: impl Fn() -> R,
        views: &mut watch::Receiver<Option<Arc<View>>>,
    ) -> Option<Arc<View>> {
        let mut at_least = 0;
        if let Some(held) = self.kernel_holds {
            at_least = held;
            let mut said = false;
            loop {
                match read_index().await {
                    Ok(None) => break,
                    Ok(Some(revision)) => {
                        at_least = at_least.max(revision);
                        break;
                    }
                    Err(ProposeError::Stopped) => return None,
                    Err(_) => {
                        if !std::mem::replace(&mut said, true) {
                            tracing::info!(
                                revision = held,
                                "the kernel holds entries: waiting for a quorum before changing any"
                            );
                        }
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
        let fit = |view: &Option<Arc<View>>| {
            view.as_ref().is_some_and(|view| is_new_enough(view.revision, at_least))
        };
        let view = views.wait_for(fit).await.ok()?;
        view.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overlay_common::{FdbEntry, FdbKey};
    use std::cell::Cell;
    use tokio::time::timeout;

    /// Virtual time: what has not happened by then never will.
    const FOR_EVER: Duration = Duration::from_secs(3600);
    type Views = watch::Sender<Option<Arc<View>>>;

    /// A kernel whose newest entry was made by `revision`.
    fn filled(revision: Revision) -> Tables {
        let key = FdbKey { vni: 4097, mac: [2, 0x42, 0, 0, 0, 1], pad: [0; 2] };
        let entry = FdbEntry::here(revision, [0; 16], 0, 7, 0);
        Tables { fdb: [(key, entry)].into(), ..Tables::default() }
    }

    fn show(views: &Views, revision: Revision) {
        views.send_replace(Some(Arc::new(View { revision, ..View::default() })));
    }

    fn revision(view: Option<Arc<View>>) -> Option<Revision> {
        view.map(|view| view.revision)
    }

    #[tokio::test(start_paused = true)]
    async fn a_voter_that_finds_entries_waits_for_a_quorum_and_for_what_that_knows() {
        let (views, mut seen) = watch::channel(None);
        // What its own log holds, which ends before what its predecessor programmed.
        show(&views, 8);
        let quorum = Cell::new(None);
        let read = || std::future::ready(quorum.get().map(Some).ok_or(ProposeError::NoQuorum));
        let opened = Gate::new(&filled(9), &[], None).open_by(read, &mut seen);
        tokio::pin!(opened);
        assert!(timeout(FOR_EVER, &mut opened).await.is_err(), "no quorum answered");
        // Newer than what the kernel holds, and still only this voter's word.
        show(&views, 10);
        assert!(timeout(FOR_EVER, &mut opened).await.is_err(), "no quorum answered");
        quorum.set(Some(12));
        assert!(timeout(FOR_EVER, &mut opened).await.is_err(), "the quorum is at 12");
        show(&views, 12);
        assert_eq!(revision(opened.await), Some(12));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quorum_that_is_behind_the_kernel_opens_nothing() {
        let (views, mut seen) = watch::channel(None);
        show(&views, 8);
        let read = || std::future::ready(Ok(Some(8)));
        let opened = Gate::new(&filled(9), &[], None).open_by(read, &mut seen);
        tokio::pin!(opened);
        assert!(timeout(FOR_EVER, &mut opened).await.is_err(), "the kernel holds 9");
        show(&views, 9);
        assert_eq!(revision(opened.await), Some(9));
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_waits_for_a_view_that_is_no_older_than_its_kernel() {
        // By its entries, by its ports, and by the maps of another layout: each may be the newest.
        let kernels = [
            (filled(9), vec![4], None),
            (filled(4), vec![9], None),
            (filled(0), vec![9, 3], Some(2)),
            (Tables::default(), vec![3], Some(9)),
            (Tables::default(), vec![], Some(9)),
        ];
        for (tables, ports, other) in kernels {
            let (views, mut seen) = watch::channel(None);
            let agent = Seat::default();
            let opened = Gate::new(&tables, &ports, other).open(&agent, &mut seen);
            tokio::pin!(opened);
            assert!(timeout(FOR_EVER, &mut opened).await.is_err(), "no voter answered");
            show(&views, 8);
            assert!(timeout(FOR_EVER, &mut opened).await.is_err(), "the voter is behind");
            show(&views, 9);
            assert_eq!(revision(opened.await), Some(9));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_kernel_has_nothing_to_lose() {
        let (views, mut seen) = watch::channel(None);
        show(&views, 1);
        let asked = Cell::new(0);
        let read = || {
            asked.set(asked.get() + 1);
            std::future::ready(Err(ProposeError::NoQuorum))
        };
        let opened = Gate::new(&Tables::default(), &[], None).open_by(read, &mut seen);
        assert_eq!(revision(timeout(FOR_EVER, opened).await.expect("at once")), Some(1));
        assert_eq!(asked.get(), 0, "after a reboot it begins without a quorum");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_ends_opens_nothing() {
        let (views, mut seen) = watch::channel(None);
        show(&views, 9);
        let read = || std::future::ready(Err(ProposeError::Stopped));
        assert!(Gate::new(&filled(9), &[], None).open_by(read, &mut seen).await.is_none());
        drop(views);
        let agent = Seat::default();
        assert!(Gate::new(&filled(10), &[], None).open(&agent, &mut seen).await.is_none());
    }
}
