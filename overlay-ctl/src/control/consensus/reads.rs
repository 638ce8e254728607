//! Linearizable reads that wait for a quorum.
//!
//! The engine silently drops a read request if there is no leader, if the leader has not yet committed an entry in
//! its term, or if a message is lost. Each request is therefore repeated until its deadline. The answer to any
//! repetition is good, because its index was taken after the request arrived.

use tokio::sync::oneshot;

use super::ProposeError;

pub(super) type ReadReply = oneshot::Sender<Result<u64, ProposeError>>;

/// Requests that arrived together and share one round of heartbeats.
#[derive(Debug)]
struct Group {
    number: u64,
    replies: Vec<ReadReply>,
    /// The index up to which entries must be applied. `None` until a quorum has confirmed it.
    index: Option<u64>,
    asked_at: u64,
    deadline: u64,
}

/// All reads that wait, oldest first.
#[derive(Debug)]
pub(super) struct Reads {
    /// The node and the start of its process. A context must be unique in the cluster, because a leader takes a
    /// repeated context for a read on which it works already.
    origin: [u8; 24],
    waiting: Vec<ReadReply>,
    groups: Vec<Group>,
    last_group: u64,
    last_attempt: u64,
    patience: u64,
    retry: u64,
}

impl Reads {
    /// The reads of node `id` in the process with this `start`. A read fails after `patience` ticks, and is
    /// repeated after `retry` ticks.
    pub(super) fn new(id: u64, start: [u8; 16], patience: u64, retry: u64) -> Self {
        let mut origin = [0; 24];
        origin[..8].copy_from_slice(&id.to_be_bytes());
        origin[8..].copy_from_slice(&start);
        Self {
            origin,
            waiting: Vec::new(),
            groups: Vec::new(),
            last_group: 0,
            last_attempt: 0,
            patience,
            retry,
        }
    }

    pub(super) fn add(&mut self, reply: ReadReply) {
        self.waiting.push(reply);
    }

    /// The contexts for which the engine must be asked now.
    pub(super) fn due(&mut self, now: u64) -> Vec<Vec<u8>> {
        let mut contexts = Vec::new();
        for group in &mut self.groups {
            if group.index.is_none() && now >= group.asked_at + self.retry {
                group.asked_at = now;
                self.last_attempt += 1;
                contexts.push(context(&self.origin, group.number, self.last_attempt));
            }
        }
        if !self.waiting.is_empty() {
            self.last_group += 1;
            self.last_attempt += 1;
            contexts.push(context(&self.origin, self.last_group, self.last_attempt));
            self.groups.push(Group {
                number: self.last_group,
                replies: std::mem::take(&mut self.waiting),
                index: None,
                asked_at: now,
                deadline: now + self.patience,
            });
        }
        contexts
    }

    /// A quorum confirmed that all writes before `context` are at or below `index`.
    pub(super) fn confirm(&mut self, context: &[u8], index: u64) {
        let Some((origin, rest)) = context.split_at_checked(24) else { return };
        if origin != self.origin || rest.len() != 16 {
            return;
        }
        let number = rest[..8].iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        if let Some(group) = self.groups.iter_mut().find(|group| group.number == number) {
            group.index.get_or_insert(index);
        }
    }

    /// Answers the reads that `applied` satisfies, and fails those that waited too long.
    pub(super) fn settle(&mut self, applied: u64, now: u64) {
        self.groups.retain_mut(|group| {
            let answer = match group.index {
                Some(index) if index <= applied => Ok(applied),
                _ if now >= group.deadline => Err(ProposeError::NoQuorum),
                _ => return true,
            };
            for reply in group.replies.drain(..) {
                // The caller may have gone.
                drop(reply.send(answer.clone()));
            }
            false
        });
    }
}

fn context(origin: &[u8; 24], group: u64, attempt: u64) -> Vec<u8> {
    [origin.as_slice(), &group.to_be_bytes(), &attempt.to_be_bytes()].concat()
}
