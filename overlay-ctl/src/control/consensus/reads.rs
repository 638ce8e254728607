//! Linearizable reads under way.
//!
//! The engine drops a read request silently while there is no leader, while the leader has
//! committed nothing in its term, and when a message gets lost. So each is asked again until its
//! deadline. Any attempt's answer will do: its index was taken after the request came in.

use tokio::sync::oneshot;

use super::ProposeError;

pub(super) type ReadReply = oneshot::Sender<Result<u64, ProposeError>>;

/// Requests that arrived together and share one round of heartbeats.
#[derive(Debug)]
struct Group {
    number: u64,
    replies: Vec<ReadReply>,
    /// The index to wait for, once a quorum confirmed it.
    index: Option<u64>,
    asked_at: u64,
    deadline: u64,
}

/// All reads under way, oldest first.
#[derive(Debug)]
pub(super) struct Reads {
    /// Node and start of this process: a context must be unique in the cluster, or the leader
    /// takes it for one that it already works on.
    origin: [u8; 24],
    waiting: Vec<ReadReply>,
    groups: Vec<Group>,
    last_group: u64,
    last_attempt: u64,
    patience: u64,
    retry: u64,
}

impl Reads {
    /// Reads of node `id`, in the process with this start, that fail after `patience` ticks and are asked
    /// again after `retry`.
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

    /// The contexts to ask the engine about now.
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

    /// A quorum confirmed that everything before `context` is at or below `index`.
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

    /// Answers what `applied` satisfies, and fails what waited too long.
    pub(super) fn settle(&mut self, applied: u64, now: u64) {
        self.groups.retain_mut(|group| {
            let answer = match group.index {
                Some(index) if index <= applied => Ok(applied),
                _ if now >= group.deadline => Err(ProposeError::NoQuorum),
                _ => return true,
            };
            for reply in group.replies.drain(..) {
                // Whoever asked may have gone.
                drop(reply.send(answer.clone()));
            }
            false
        });
    }
}

fn context(origin: &[u8; 24], group: u64, attempt: u64) -> Vec<u8> {
    [origin.as_slice(), &group.to_be_bytes(), &attempt.to_be_bytes()].concat()
}
