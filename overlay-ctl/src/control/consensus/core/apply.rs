//! Applies what is committed: commands, membership changes and snapshots.

use super::{Core, Waiter, WaiterKind, sorted};
use crate::control::consensus::{
    FatalError, ProposeError, RestoreError, StateMachine, Stop,
    codec::{self, BadMessage},
    error,
};
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, Message, MessageType, Snapshot};

pub(super) fn is_members(entry: &Entry) -> bool {
    entry.entry_type != EntryType::EntryNormal as i32
}

/// An answer that waits until its batch is published.
enum Answer<O> {
    Command(super::Reply<(u64, O)>, u64, O),
    Members(super::Reply<u64>, Result<u64, ProposeError>),
}

impl<S: StateMachine> Core<S> {
    /// Applies committed entries, then publishes, then answers the callers that proposed them.
    ///
    /// # Errors
    /// An entry can't be applied, and ends the node. Those before it are published and answered all the same: they took
    /// effect.
    pub(super) fn apply(&mut self, entries: Vec<Entry>) -> Result<(), FatalError> {
        let before = self.applied;
        let mut answers = Vec::new();
        let mut ended = Ok(());
        for entry in entries {
            let index = entry.index;
            #[cfg(test)]
            self.note_applied(&entry);
            match self.apply_entry(entry) {
                Ok(answer) => answers.extend(answer),
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
            self.applied = index;
        }
        if self.applied > before {
            self.machine.batch_applied(self.applied);
        }
        for answer in answers {
            // The caller may have gone.
            match answer {
                Answer::Command(reply, index, outcome) => drop(reply.send(Ok((index, outcome)))),
                Answer::Members(reply, result) => drop(reply.send(result)),
            }
        }
        ended
    }

    /// Applies one entry. Its caller gets no answer if that fails: whether the entry takes effect is decided elsewhere.
    fn apply_entry(&mut self, entry: Entry) -> Result<Option<Answer<S::Outcome>>, FatalError> {
        let index = entry.index;
        let waiter = match self.waiters.remove(&index) {
            Some(waiter) if waiter.term != entry.term && !planted!(WaiterKept) => {
                waiter.fail(ProposeError::Dropped);
                None
            }
            waiter => waiter.map(|Waiter { kind, .. }| kind),
        };
        Ok(match waiter {
            _ if is_members(&entry) => {
                let result = self.apply_members(&entry)?;
                match waiter {
                    Some(WaiterKind::Members(reply)) => {
                        Some(Answer::Members(reply, result.map(|()| index)))
                    }
                    _ => None,
                }
            }
            // The engine puts an empty entry in place of a change that it refuses because another one is still
            // under way.
            Some(WaiterKind::Members(reply)) => {
                let refused = ProposeError::Refused("another change is under way".into());
                Some(Answer::Members(reply, Err(refused)))
            }
            // The first entry of a new leader.
            _ if entry.data.is_empty() => None,
            waiter => {
                let outcome =
                    self.machine.apply(index, &entry.data).map_err(|stop| match stop {
                        Stop::Unreadable(why) => FatalError::Unreadable { index, why },
                    })?;
                self.unsnapshotted += entry.data.len() as u64;
                match waiter {
                    Some(WaiterKind::Command(reply)) => {
                        Some(Answer::Command(reply, index, outcome))
                    }
                    _ => None,
                }
            }
        })
    }

    /// Applies a membership change. The inner result is the same on every node.
    fn apply_members(&mut self, entry: &Entry) -> Result<Result<(), ProposeError>, FatalError> {
        let index = entry.index;
        let malformed = |source| FatalError::Entry { index, source };
        if entry.entry_type != EntryType::EntryConfChangeV2 as i32 {
            return Ok(Err(ProposeError::Refused(
                "a kind of change that is never proposed".into(),
            )));
        }
        let change: ConfChangeV2 = codec::decode(&entry.data).map_err(malformed)?;
        // A restart rebuilds the members from the snapshot and from the entries that are known to be committed. It
        // must not arrive at an older configuration: as the only voter of an old configuration, for example, it
        // would commit alone entries of which the others know nothing.
        self.write(|store| store.persist_commit(index))?;
        let members = match self.node.apply_conf_change(&change) {
            Ok(members) => members,
            Err(error) => return Ok(Err(ProposeError::Refused(error.to_string()))),
        };
        let (voters, learners) = (sorted(&members.voters), sorted(&members.learners));
        let outgoing = sorted(&members.voters_outgoing);
        self.machine.membership(index, &voters, &outgoing, &learners);
        Ok(Ok(()))
    }

    /// Decodes the snapshot of a message before the engine accepts it. A snapshot that is damaged must not end this node, nor
    /// leave it with a log that nobody can restore. A newer one ends it at the next [`Self::pump`]: the leader can't bring
    /// this node up to date, and without a word to the operator it would stay behind for ever. Returns false if the engine
    /// must not get the message.
    pub(super) fn receive(
        &mut self,
        message: &Message,
        snapshot: &Snapshot,
    ) -> Result<bool, BadMessage> {
        let meta = snapshot.metadata.clone().unwrap_or_default();
        let index = meta.index;
        if index < self.node.raft.raft_log.committed {
            // The engine ignores this snapshot.
            return Ok(true);
        }
        match S::read_snapshot(&snapshot.data) {
            Ok(read) => self.received = Some((index, meta.term, read)),
            // Only the leader of this term, or of a later one, is believed that the cluster needs a newer version.
            Err(RestoreError::Newer(why))
                if message.get_msg_type() == MessageType::MsgSnapshot
                    && message.term >= self.node.raft.term =>
            {
                self.newer = Some((index, why));
                return Ok(false);
            }
            Err(error) => return Err(BadMessage::Snapshot { index, detail: error::chain(&error) }),
        }
        Ok(true)
    }

    /// Ends the node if a snapshot came that this version can't read.
    pub(super) fn stop_if_newer(&self) -> Result<(), FatalError> {
        match self.newer.clone() {
            Some((index, why)) => Err(FatalError::Newer { index, why }),
            None => Ok(()),
        }
    }

    /// Takes over the state of a snapshot from the leader.
    pub(super) fn install(&mut self, snapshot: &Snapshot) -> Result<(), FatalError> {
        let meta = snapshot.metadata.clone().unwrap_or_default();
        let index = meta.index;
        tracing::info!(index, bytes = snapshot.data.len(), "installing a snapshot");
        let read = match self.received.take() {
            Some((at, term, read)) if (at, term) == (index, meta.term) => read,
            // A later one came after it; the engine ignored that one.
            _ => S::read_snapshot(&snapshot.data)
                .map_err(|error| FatalError::of_snapshot(index, error))?,
        };
        self.machine.restore(read);
        let members = meta.conf_state.unwrap_or_default();
        let (voters, learners) = (sorted(&members.voters), sorted(&members.learners));
        self.machine.membership(index, &voters, &sorted(&members.voters_outgoing), &learners);
        self.applied = index;
        self.measures.note_snapshot_bytes(snapshot.data.len());
        self.snapshot_is_stored();
        self.machine.batch_applied(index);
        Ok(())
    }

    /// Stores a snapshot of the applied state and compacts the log behind it. Returns false if that has to wait for
    /// room.
    pub(super) fn make_snapshot(&mut self) -> Result<bool, FatalError> {
        // An empty one first: encoding takes memory and time.
        if self.snapshot_waits() || !self.has_room_for_snapshot(0) {
            return Ok(false);
        }
        let began = (self.config.clock)();
        let data = self.machine.snapshot();
        if !self.has_room_for_snapshot(data.len()) {
            return Ok(false);
        }
        let (index, members) = (self.applied, self.members());
        tracing::info!(index, bytes = data.len(), "snapshot");
        let keep = self.config.keep_entries;
        self.node.mut_store().save_snapshot(index, members, &data, keep)?;
        self.measures.note_snapshot_took((self.config.clock)().saturating_sub(began));
        self.measures.note_snapshot_bytes(data.len());
        self.snapshot_is_stored();
        Ok(true)
    }

    /// Makes a snapshot for the peers that cannot use the stored one, and sends it.
    pub(super) fn make_wanted_snapshots(&mut self) -> Result<(), FatalError> {
        let wanted = self.node.mut_store().take_wanted();
        if wanted.is_empty() || self.node.raft.state != raft::StateRole::Leader {
            return Ok(());
        }
        if !self.make_snapshot()? {
            return Ok(());
        }
        for peer in wanted {
            // The peer asked and was removed since: the engine panics on a peer that is not a member.
            if self.node.raft.prs().get(peer).is_some() {
                self.node.raft.send_append(peer);
            }
        }
        Ok(())
    }
}
