//! Encoding of Raft's messages, and the checks of messages that come from the network.

use std::collections::BTreeSet;

use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry,
    EntryType, Message, MessageType, Snapshot,
};

/// The limit of terms and indexes in messages. No cluster reaches it. The engine adds to these numbers and must not
/// overflow, and a node that accepted such a term could never be led again.
const BEYOND: u64 = 1 << 62;

/// Encodes one of Raft's messages.
pub(super) fn encode(message: &impl raft_prost::Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// Decodes one of Raft's messages.
pub(super) fn decode<M: raft_prost::Message + Default>(
    bytes: &[u8],
) -> Result<M, raft_prost::DecodeError> {
    M::decode(bytes)
}

/// The reason why a message from the network was dropped.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// The bytes are not a Raft message.
    #[error("malformed")]
    Malformed(#[from] raft_prost::DecodeError),
    /// The message is for another node: a connection leads to the wrong node, or an address is used again.
    #[error("for node {0}")]
    Misdelivered(u64),
    /// No node sends messages of this kind to another.
    #[error("of an unexpected kind ({0})")]
    Unexpected(i32),
    /// A field has a value on which the engine would panic.
    #[error("inconsistent: {0}")]
    Inconsistent(&'static str),
    /// A snapshot that is damaged, or a newer one that is not from the leader of this term or a later one.
    #[error("the snapshot at index {index} can't be read ({detail})")]
    Snapshot {
        /// The snapshot's index.
        index: u64,
        /// The state machine's error.
        detail: String,
    },
}

/// Decodes a message from the network. Refuses a message that would make the engine panic, and one with term zero,
/// which the engine would take for a local message and not check.
pub(super) fn decode_message(bytes: &[u8], id: u64) -> Result<Message, BadMessage> {
    let message: Message = decode(bytes)?;
    if message.to != id {
        return Err(BadMessage::Misdelivered(message.to));
    }
    // A read request returns to its sender if the node that was asked knows that the sender leads now.
    let echo = message.from == id && message.msg_type != MessageType::MsgReadIndex as i32;
    if message.from == 0 || echo {
        return Err(BadMessage::Inconsistent("sender"));
    }
    let unexpected = BadMessage::Unexpected(message.msg_type);
    let Some(kind) = MessageType::from_i32(message.msg_type) else { return Err(unexpected) };
    match kind {
        MessageType::MsgAppend
        | MessageType::MsgAppendResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgSnapshot
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgTimeoutNow
        | MessageType::MsgReadIndexResp
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => {
            if message.term == 0 {
                return Err(BadMessage::Inconsistent("term"));
            }
        }
        MessageType::MsgReadIndex => {
            // A read request has no term: a node that forwards one with a term to the leader would panic.
            if message.entries.len() != 1 || message.term != 0 {
                return Err(BadMessage::Inconsistent("read request"));
            }
        }
        // These messages are local to a node, or (proposals, leadership transfers) are never forwarded by this
        // program, because a forwarded proposal could not be answered.
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader => return Err(unexpected),
    }
    if numbers(&message).any(|number| number >= BEYOND) {
        return Err(BadMessage::Inconsistent("a term or an index that no log reaches"));
    }
    let checked = message.entries.iter().try_for_each(check_entry).and_then(|()| match kind {
        MessageType::MsgAppend => check_append(&message),
        MessageType::MsgSnapshot => check_snapshot(message.term, message.snapshot.as_ref()),
        _ => Ok(()),
    });
    checked.map_err(BadMessage::Inconsistent)?;
    Ok(message)
}

fn numbers(message: &Message) -> impl Iterator<Item = u64> {
    let Message { term, log_term, index, commit, commit_term, reject_hint, .. } = *message;
    let own = [term, log_term, index, commit, commit_term, reject_hint, message.request_snapshot];
    let entries = message.entries.iter().flat_map(|entry| [entry.index, entry.term]);
    let snapshot = message.snapshot.iter().flat_map(|snapshot| &snapshot.metadata);
    own.into_iter().chain(entries).chain(snapshot.flat_map(|meta| [meta.index, meta.term]))
}

fn check_entry(entry: &Entry) -> Result<(), &'static str> {
    match EntryType::from_i32(entry.entry_type) {
        None => Err("entry type"),
        Some(EntryType::EntryConfChangeV2) => check_change(&entry.data),
        Some(EntryType::EntryNormal | EntryType::EntryConfChange) => Ok(()),
    }
}

/// Checks a membership change: a malformed one ends every member that applies it, once it is committed.
fn check_change(bytes: &[u8]) -> Result<(), &'static str> {
    let malformed = "membership change";
    let change: ConfChangeV2 = decode(bytes).map_err(|_| malformed)?;
    let known = |single: &ConfChangeSingle| {
        single.node_id > 0 && ConfChangeType::from_i32(single.change_type).is_some()
    };
    let known = change.changes.iter().all(known)
        && ConfChangeTransition::from_i32(change.transition).is_some();
    if known { Ok(()) } else { Err(malformed) }
}

fn check_append(message: &Message) -> Result<(), &'static str> {
    // The engine uses term zero for an entry that it does not have, and would confuse the two.
    if message.log_term == 0 && message.index > 0 {
        return Err("term of the entry before");
    }
    let (mut index, mut term) = (message.index, message.log_term);
    for entry in &message.entries {
        index += 1;
        if entry.index != index {
            return Err("entry indices");
        }
        if entry.term < term.max(1) || entry.term > message.term {
            return Err("entry terms");
        }
        term = entry.term;
    }
    Ok(())
}

fn check_snapshot(now: u64, snapshot: Option<&Snapshot>) -> Result<(), &'static str> {
    let meta = snapshot.and_then(|snapshot| snapshot.metadata.as_ref());
    let Some(meta) = meta.filter(|meta| meta.index > 0) else { return Err("no snapshot") };
    if meta.term == 0 || meta.term > now {
        return Err("snapshot's term");
    }
    if are_members(&meta.conf_state.clone().unwrap_or_default()) {
        Ok(())
    } else {
        Err("snapshot's members")
    }
}

/// Returns true if membership changes can lead to this configuration. The engine panics on any other.
fn are_members(members: &ConfState) -> bool {
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = members;
    let set = |ids: &[u64]| {
        let set: BTreeSet<u64> = ids.iter().copied().collect();
        (set.len() == ids.len() && !set.contains(&0)).then_some(set)
    };
    let (Some(voters), Some(learners)) = (set(voters), set(learners)) else { return false };
    let (Some(outgoing), Some(next)) = (set(voters_outgoing), set(learners_next)) else {
        return false;
    };
    let joint = !outgoing.is_empty();
    !voters.is_empty()
        && (joint || !auto_leave)
        && learners.is_disjoint(&voters)
        && learners.is_disjoint(&outgoing)
        && next.is_subset(&outgoing)
        && next.is_disjoint(&voters)
}
