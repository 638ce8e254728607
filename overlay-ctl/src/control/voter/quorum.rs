//! Whether this voter takes part in a quorum, as agents must know before they rely on it.

use crate::control::consensus::{Consensus, ProposeError, StateMachine};
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

/// How often a voter asks for a proof.
const EVERY: Duration = Duration::from_secs(1);
/// A voter whose last proof is older than this counts as cut off. An election takes less, so that agents stay with
/// their voter while a leader is elected.
pub const LAPSE: Duration = Duration::from_secs(3);

/// When this voter last proved that it takes part in a quorum. Clones share it.
///
/// The proof is a linearizable read. It fails at a voter that hears nobody, at one that nobody hears, and at
/// one that does not catch up, even if that voter still believes that it knows the leader.
#[derive(Clone, Debug, Default)]
pub struct Quorum {
    proved: watch::Sender<Option<Instant>>,
}

impl Quorum {
    /// Asks for a proof again and again, until consensus stops.
    pub async fn prove<S: StateMachine>(&self, consensus: Consensus<S>) {
        // A start is not a loss before an election had its time.
        let mut said = Said { loses_at: Instant::now() + LAPSE, is_lost: false };
        loop {
            let asked = Instant::now();
            match consensus.read_index().await {
                Ok(_) => {
                    self.proved_at(asked);
                    if said.holds(asked) {
                        tracing::info!("this voter takes part in a quorum again");
                    }
                    sleep(EVERY).await;
                }
                Err(ProposeError::Stopped) => return,
                Err(error) => {
                    if said.lapses(Instant::now()) {
                        tracing::warn!(%error, "this voter takes part in no quorum: nothing can be changed through it; see `overlay cluster status`");
                    } else {
                        tracing::debug!(%error, "no proof of a quorum");
                    }
                    sleep(EVERY / 10).await;
                }
            }
        }
    }

    pub(crate) fn proved_at(&self, at: Instant) {
        self.proved.send_replace(Some(at));
    }

    /// Whether the last proof is younger than [`LAPSE`].
    #[must_use]
    pub fn holds(&self) -> bool {
        let proved = *self.proved.borrow();
        proved.is_some_and(|last| last.elapsed() < LAPSE)
    }

    /// Returns when the last proof is older than [`LAPSE`], but not before `earliest`.
    pub async fn lapsed(&self, earliest: Instant) {
        let mut proved = self.proved.subscribe();
        loop {
            let last = *proved.borrow_and_update();
            let until = last.map_or(earliest, |last| earliest.max(last + LAPSE));
            // The sender lives as long as `self`: the only other way out of the wait is a new proof.
            if timeout_at(until, proved.changed()).await.is_err() {
                return;
            }
        }
    }
}

/// What was said of the quorum, so that each change is logged once.
#[derive(Debug)]
struct Said {
    /// Without a proof until then the quorum counts as lost.
    loses_at: Instant,
    /// That was said.
    is_lost: bool,
}

impl Said {
    /// The quorum was proved. Returns true if it was said that it is lost.
    fn holds(&mut self, now: Instant) -> bool {
        self.loses_at = now + LAPSE;
        std::mem::take(&mut self.is_lost)
    }

    /// No proof was got. Returns true if it is now to be said that the quorum is lost.
    fn lapses(&mut self, now: Instant) -> bool {
        now >= self.loses_at && !std::mem::replace(&mut self.is_lost, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::voter::tests::alone;

    #[tokio::test(start_paused = true)]
    async fn it_lapses_after_the_last_proof_but_not_at_once() {
        let quorum = Quorum::default();
        let begun = Instant::now();
        let earliest = begun + Duration::from_secs(1);
        quorum.lapsed(earliest).await;
        assert_eq!(Instant::now(), earliest, "nothing was ever proved");
        assert!(!quorum.holds());

        quorum.proved_at(begun);
        assert!(quorum.holds());
        let waiting = quorum.clone();
        let lapsed = tokio::spawn(async move { waiting.lapsed(earliest).await });
        // One more proof while somebody waits.
        sleep(Duration::from_secs(1)).await;
        let last = Instant::now();
        quorum.proved_at(last);
        lapsed.await.unwrap();
        assert_eq!(Instant::now(), last + LAPSE);
        assert!(!quorum.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn its_loss_and_its_return_are_said_once_each() {
        let begun = Instant::now();
        let after = |secs| begun + Duration::from_secs(secs);
        let mut said = Said { loses_at: after(3), is_lost: false };
        assert!(!said.lapses(after(2)), "an election may take as long");
        assert!(said.lapses(after(3)));
        assert!(!said.lapses(after(4)), "it was said");
        assert!(said.holds(after(5)));
        assert!(!said.holds(after(6)), "it was said");
        assert!(!said.lapses(after(8)), "the proof is young");
        assert!(said.lapses(after(9)));
    }

    /// Time is virtual, and nothing else waits for a time: it passes only in the pauses between the proofs.
    #[tokio::test(start_paused = true)]
    async fn it_is_proved_once_in_a_while_until_consensus_ends() {
        let (_dir, voter) = alone();
        let mut proved = voter.quorum.proved.subscribe();
        let (quorum, consensus) = (voter.quorum.clone(), voter.consensus.clone());
        let proves = tokio::spawn(async move { quorum.prove(consensus).await });
        let mut last = None;
        for _ in 0..3 {
            proved.changed().await.unwrap();
            let at = *proved.borrow_and_update();
            assert!(at > last, "{at:?} is no later than {last:?}");
            last = at;
        }
        voter.consensus.shutdown().await;
        proves.await.unwrap();
    }
}
