//! Finds in messages the proof that a log lacks entries that it had.
//!
//! Raft relies on every voter to remember what it acknowledged. A disk that is put back from an older copy breaks
//! that, and nobody can repair it afterwards: the voter may already have helped to elect a leader that lacks a
//! committed entry. What can be done is to notice it at the first message that shows it, and to stop before more is
//! lost or silently filled in again.

use raft::{
    StateRole,
    eraftpb::{Message, MessageType},
};

use super::Core;
use crate::control::consensus::{FatalError, StateMachine, Transport};

/// The start of a heartbeat's context that tells the receiver how much it has acknowledged.
const ACKNOWLEDGED: &[u8] = b"acknowledged";

/// What a message proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// According to the leader, this node acknowledged more entries than it has.
    Forgotten {
        /// The last index that this node acknowledged, or a later one.
        acknowledged: u64,
    },
    /// The leader's log differs from this one where it is committed here.
    Overwritten {
        /// The leader.
        leader: u64,
        /// The index at which the logs differ.
        index: u64,
    },
}

impl<S: StateMachine> Core<S> {
    /// Examines a message before the engine gets it, because the engine would panic at some of these messages and
    /// believe the rest. Returns false if the engine must not get the message.
    pub(super) fn examine(&mut self, message: &Message) -> bool {
        // A sender with an older term gets its answer from the engine, which does not believe it anything.
        if message.term < self.node.raft.term || planted!(VoteAfterAmnesia) {
            return true;
        }
        let kind = MessageType::from_i32(message.msg_type);
        let proof = match kind {
            Some(MessageType::MsgHeartbeat) => self.forgotten(message),
            Some(MessageType::MsgAppend) => self.overwritten(message),
            Some(MessageType::MsgAppendResponse) => return self.is_credible(message),
            _ => None,
        };
        self.proof = self.proof.or(proof);
        self.proof.is_none()
    }

    /// A heartbeat never commits more than its receiver has acknowledged to this leader, and a log never gets
    /// shorter than that.
    fn forgotten(&self, message: &Message) -> Option<Proof> {
        let mut acknowledged = message.commit;
        if let Some(known) = message.context.strip_prefix(ACKNOWLEDGED)
            && let Ok(known) = known.try_into()
        {
            acknowledged = acknowledged.max(u64::from_be_bytes(known));
        }
        let last = self.node.raft.raft_log.last_index();
        (acknowledged > last).then_some(Proof::Forgotten { acknowledged })
    }

    /// Every later leader has all committed entries in its log.
    fn overwritten(&self, message: &Message) -> Option<Proof> {
        let log = &self.node.raft.raft_log;
        let before = (message.index, message.log_term);
        let entries = message.entries.iter().map(|entry| (entry.index, entry.term));
        let committed =
            std::iter::once(before).chain(entries).filter(|(at, _)| *at <= log.committed);
        // The term of an entry that was compacted is not known any more.
        let differs =
            |at: &u64, term: u64| log.term(*at).is_ok_and(|here| here != 0 && here != term);
        let (index, _) = committed.into_iter().find(|(at, term)| differs(at, *term))?;
        Some(Proof::Overwritten { leader: message.from, index })
    }

    /// Returns true if the leader may rely on a follower's answer. An answer that cannot be true of a log that only
    /// grew is either late, and then worthless, or comes from a follower that forgot entries. The engine would send
    /// the missing entries again and nobody would notice. Therefore the follower is asked: see [`Self::ask_back`].
    fn is_credible(&mut self, message: &Message) -> bool {
        let raft = &self.node.raft;
        let Some(progress) = raft.prs().get(message.from) else { return true };
        let is_answer = raft.state == StateRole::Leader && message.term == raft.term;
        if !is_answer || message.request_snapshot != raft::INVALID_INDEX {
            return true;
        }
        let (member, matched, last) = (message.from, progress.matched, raft.raft_log.last_index());
        if message.reject {
            let forgot = message.reject_hint < matched;
            if forgot {
                tracing::warn!(
                    member,
                    acknowledged = matched,
                    holds = message.reject_hint,
                    "a member answers as if it had forgotten what it acknowledged: it is asked to check"
                );
                self.doubted.insert(member, matched);
            }
            return !forgot;
        }
        let unknown = message.index > last;
        if unknown {
            tracing::error!(
                member,
                holds = message.index,
                last,
                "a member holds committed entries that this leader's log lacks: a voter forgot what it \
                 had acknowledged, and writes are lost; look at that member's log before anything else"
            );
        }
        !unknown
    }

    /// Tells each follower that is in doubt how much it has acknowledged: a follower that forgot finds the proof in
    /// that. The message is a heartbeat, which a follower always accepts.
    pub(super) fn ask_back(&mut self, transport: &mut dyn Transport) {
        for (to, acknowledged) in std::mem::take(&mut self.doubted) {
            let raft = &self.node.raft;
            if raft.state != StateRole::Leader || raft.prs().get(to).is_none() {
                continue;
            }
            let message = Message {
                msg_type: MessageType::MsgHeartbeat as i32,
                from: raft.id,
                to,
                term: raft.term,
                commit: acknowledged.min(raft.raft_log.committed),
                context: [ACKNOWLEDGED, &acknowledged.to_be_bytes()].concat(),
                ..Message::default()
            };
            self.send(vec![message], transport);
        }
    }

    /// Ends the node if something was proved against its log or against the leader's.
    pub(super) fn stop_if_proved(&self) -> Result<(), FatalError> {
        let log = &self.node.raft.raft_log;
        match self.proof {
            None => Ok(()),
            Some(Proof::Forgotten { acknowledged }) => {
                let detail = format!(
                    "it ends at revision {}, and the leader has this node's word for revision \
                     {acknowledged}",
                    log.last_index()
                );
                Err(FatalError::Unfit(self.store().declare_unfit(detail)))
            }
            Some(Proof::Overwritten { leader, index }) => {
                Err(FatalError::Overwritten { leader, index, committed: log.committed })
            }
        }
    }
}
