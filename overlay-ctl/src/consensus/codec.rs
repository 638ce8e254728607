//! Bytes of raft's own messages.

use raft::eraftpb::{EntryType, Message, MessageType};

/// Encodes any of raft's messages.
pub(super) fn encode(message: &impl raft_prost::Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// Decodes any of raft's messages.
pub(super) fn decode<M: raft_prost::Message + Default>(
    bytes: &[u8],
) -> Result<M, raft_prost::DecodeError> {
    M::decode(bytes)
}

/// Why a message from the network was thrown away.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Not a raft message at all.
    #[error("malformed")]
    Malformed(#[from] raft_prost::DecodeError),
    /// A message for somebody else: a wire connected wrongly, or an address used again.
    #[error("for node {0}")]
    Misdelivered(u64),
    /// A kind that no peer of ours sends.
    #[error("of an unexpected kind ({0})")]
    Unexpected(i32),
    /// A field that the engine would panic on.
    #[error("inconsistent: {0}")]
    Inconsistent(&'static str),
    /// A snapshot that this version can't read.
    #[error(
        "the snapshot at index {index} can't be read ({detail}); run the version that the sender runs"
    )]
    Snapshot {
        /// What it is a snapshot at.
        index: u64,
        /// What the state machine said.
        detail: String,
    },
}

/// Decodes a message from the network and refuses what would make the engine panic or, with term
/// zero, pass as a local message that skips its term checks.
pub(super) fn decode_message(bytes: &[u8], id: u64) -> Result<Message, BadMessage> {
    let message: Message = decode(bytes)?;
    if message.to != id {
        return Err(BadMessage::Misdelivered(message.to));
    }
    // A read comes back to its sender when whom it asked knows that the sender leads now.
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
            if message.entries.len() != 1 {
                return Err(BadMessage::Inconsistent("read request"));
            }
        }
        // Local to a node, or (proposals, leadership transfers) never forwarded by us: a forwarded
        // proposal could not be answered.
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader => return Err(unexpected),
    }
    if message.entries.iter().any(|entry| EntryType::from_i32(entry.entry_type).is_none()) {
        return Err(BadMessage::Inconsistent("entry type"));
    }
    if kind == MessageType::MsgAppend {
        let follows = |(at, entry): (u64, &raft::eraftpb::Entry)| entry.index == at;
        let indices = message.index.saturating_add(1)..;
        if !indices.zip(&message.entries).all(follows) {
            return Err(BadMessage::Inconsistent("entry indices"));
        }
    }
    Ok(message)
}
