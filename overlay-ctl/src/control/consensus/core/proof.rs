//! What messages prove about logs that are no longer what they were.
//!
//! Raft counts on every voter remembering what it acknowledged. A disk that is put back from an older
//! copy breaks that, and nobody can mend it afterwards: the voter may already have helped to elect a
//! leader that lacks a committed entry. What can be done is to notice at the first message that shows
//! it, and to stop before anything more is lost, or silently filled in again.

use raft::{
    StateRole,
    eraftpb::{Message, MessageType},
};

use super::Core;
use crate::control::consensus::{FatalError, StateMachine, Transport, codec};

/// Begins the context of a heartbeat that says how much its receiver has acknowledged.
const ACKNOWLEDGED: &[u8] = b"acknowledged";

/// What a message proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// The leader has this node's word for more entries than this node has.
    Forgotten {
        /// The last index that this node acknowledged, or a later one.
        acknowledged: u64,
    },
    /// The leader's log differs from this one where it is committed here.
    Overwritten {
        /// Who leads.
        leader: u64,
        /// Where it differs.
        index: u64,
    },
}

impl<S: StateMachine> Core<S> {
    /// Looks at a message before the engine does, which would panic at some of this and believe the
    /// rest. False: the message is not for the engine.
    pub(super) fn examine(&mut self, message: &mut Message) -> bool {
        // Whoever is behind in term is told so by the engine, and believed in nothing.
        if message.term < self.node.raft.term {
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

    /// A heartbeat commits no more than what its receiver has acknowledged to this leader, and a log
    /// never gets shorter than that.
    fn forgotten(&self, message: &mut Message) -> Option<Proof> {
        let mut acknowledged = message.commit;
        if let Some(known) = message.context.strip_prefix(ACKNOWLEDGED) {
            if let Ok(known) = known.try_into() {
                acknowledged = acknowledged.max(u64::from_be_bytes(known));
            }
            message.context.clear();
        }
        let last = self.node.raft.raft_log.last_index();
        (acknowledged > last).then_some(Proof::Forgotten { acknowledged })
    }

    /// What is committed is in the log of every later leader.
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

    /// Whether the leader may go by a follower's answer. One that can't be true of a log that only grew
    /// is either late, and then worth nothing, or from a follower that forgot. The engine would fill in
    /// again what is missing, and nobody would know. So the follower is asked: see [`Self::ask_back`].
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

    /// Says to each follower that is in doubt how much it has acknowledged: one that forgot finds the
    /// proof in it. The message is a heartbeat, which is always welcome.
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
            if transport.send(to, codec::encode(&message), false).is_err() {
                self.report_unreachable(to);
            }
        }
    }

    /// Ends the node if something was proved against its log, or against the leader's.
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
