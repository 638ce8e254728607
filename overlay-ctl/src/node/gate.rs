use crate::{
    control::{consensus::Consensus, state::View, voter::Machine},
    dataplane::{kernel::Tables, reconcile::programmed_at_least},
    model::{EndpointId, Revision},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Between two attempts to hear from a quorum.
const RETRY: Duration = Duration::from_millis(200);

/// Keeps the reconciler from a view that is older than what the kernel holds.
///
/// A restarted controller's own log may end before the last revision that its predecessor programmed:
/// sweeping by it would cut off endpoints that everybody else still reaches. So a voter with a filled
/// kernel waits until its state is as new as a quorum's; one with an empty kernel (after a reboot)
/// has nothing to lose and begins with what it has. An agent, whose view a voter sends
/// whole, waits for one that is no older than what its kernel holds.
pub(super) struct Gate {
    kernel_holds: Option<Revision>,
}

impl Gate {
    /// For a kernel found like this at start.
    #[must_use]
    /// `ports` are the endpoints whose ports stand: an id is the revision that made it.
    pub(super) fn new(found: &Tables, ports: &[EndpointId]) -> Self {
        let is_empty = *found == Tables::default() && ports.is_empty();
        let newest = ports.iter().copied().max().unwrap_or(0).max(programmed_at_least(found));
        Self { kernel_holds: (!is_empty).then_some(newest) }
    }

    /// Waits until a view may be acted on, and gives it.
    pub(super) async fn open(
        self,
        consensus: Option<&Consensus<Machine>>,
        views: &mut watch::Receiver<Option<Arc<View>>>,
    ) -> Option<Arc<View>> {
        let mut at_least = 0;
        if let Some(held) = self.kernel_holds {
            at_least = held;
            if let Some(consensus) = consensus {
                tracing::info!(
                    revision = held,
                    "the kernel holds entries: waiting for a quorum before changing any"
                );
                loop {
                    match consensus.read_index().await {
                        Ok(revision) => {
                            at_least = at_least.max(revision);
                            break;
                        }
                        Err(crate::control::consensus::ProposeError::Stopped) => return None,
                        Err(_) => tokio::time::sleep(RETRY).await,
                    }
                }
            }
        }
        let fit =
            |view: &Option<Arc<View>>| view.as_ref().is_some_and(|view| view.revision >= at_least);
        let view = views.wait_for(fit).await.ok()?;
        view.clone()
    }
}
