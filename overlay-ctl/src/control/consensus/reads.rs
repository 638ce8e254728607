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

    /// Answers the reads that `applied` satisfies, and fails those that waited too long with the error `late`.
    pub(super) fn settle(&mut self, applied: u64, now: u64, late: &ProposeError) {
        self.groups.retain_mut(|group| {
            let answer = match group.index {
                Some(index) if index <= applied => Ok(applied),
                _ if now >= group.deadline => Err(late.clone()),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    const START: [u8; 16] = [7; 16];
    const PATIENCE: u64 = 20;
    const RETRY: u64 = 3;

    type Pending = oneshot::Receiver<Result<u64, ProposeError>>;

    fn reads() -> Reads {
        Reads::new(1, START, PATIENCE, RETRY)
    }

    /// A read at tick `now`, and its context.
    fn asked(reads: &mut Reads, now: u64) -> (Pending, Vec<u8>) {
        let (reply, pending) = oneshot::channel();
        reads.add(reply);
        let context = reads.due(now).pop().expect("the read is due at once");
        (pending, context)
    }

    /// The leader takes a context that it knows for a read on which it works already, and would answer with the
    /// older index.
    #[test]
    fn no_context_comes_twice_in_a_cluster() {
        let mut seen = BTreeSet::new();
        for (id, start) in [(1, START), (2, START), (1, [8; 16])] {
            let mut reads = Reads::new(id, start, PATIENCE, RETRY);
            for now in 0..10 {
                let (reply, _) = oneshot::channel();
                reads.add(reply);
                for context in reads.due(now) {
                    assert!(seen.insert(context), "node {id}, tick {now}");
                }
            }
        }
        assert!(seen.len() > 30, "reads were repeated");
    }

    #[test]
    fn a_read_is_repeated_until_it_is_confirmed_or_its_time_is_over() {
        for repetition in 0..3 {
            let mut reads = reads();
            let (mut pending, first) = asked(&mut reads, 100);
            let mut contexts = vec![first];
            for now in 101..100 + PATIENCE {
                let again = reads.due(now);
                assert_eq!(
                    again.len(),
                    usize::from((now - 100).is_multiple_of(RETRY)),
                    "tick {now}"
                );
                contexts.extend(again);
                reads.settle(50, now, &ProposeError::NoQuorum);
                assert_eq!(pending.try_recv(), Err(TryRecvError::Empty), "tick {now}");
            }
            // The answer to any repetition is good.
            if let Some(context) = contexts.get(repetition) {
                reads.confirm(context, 50);
            }
            assert!(reads.due(200).is_empty(), "a read that is confirmed is not repeated");
            reads.settle(50, 99 + PATIENCE, &ProposeError::NoQuorum);
            assert_eq!(pending.try_recv(), Ok(Ok(50)), "repetition {repetition}");
        }
        let mut reads = reads();
        let (mut pending, _) = asked(&mut reads, 100);
        reads.settle(50, 100 + PATIENCE, &ProposeError::NoQuorum);
        assert_eq!(pending.try_recv(), Ok(Err(ProposeError::NoQuorum)));
        assert!(reads.due(200).is_empty(), "a read that failed is not repeated");
    }

    #[test]
    fn a_confirmed_read_waits_until_its_index_is_applied() {
        let mut reads = reads();
        let (mut pending, context) = asked(&mut reads, 0);
        reads.confirm(&context, 8);
        reads.settle(7, 1, &ProposeError::NoQuorum);
        assert_eq!(pending.try_recv(), Err(TryRecvError::Empty));
        reads.settle(8, 2, &ProposeError::NoQuorum);
        assert_eq!(pending.try_recv(), Ok(Ok(8)));
    }

    /// More reads than a byte counts.
    #[test]
    fn a_context_confirms_its_own_read() {
        let mut reads = reads();
        let asked: Vec<_> = (0..600).map(|_| asked(&mut reads, 0)).collect();
        for (index, (_, context)) in (1..).zip(&asked) {
            reads.confirm(context, index);
        }
        for (index, (mut pending, _)) in (1..).zip(asked) {
            reads.settle(index - 1, 0, &ProposeError::NoQuorum);
            assert_eq!(pending.try_recv(), Err(TryRecvError::Empty), "read {index}");
            reads.settle(index, 0, &ProposeError::NoQuorum);
            assert_eq!(pending.try_recv(), Ok(Ok(index)));
        }
    }

    #[test]
    fn a_context_of_another_node_or_start_confirms_nothing() {
        let mut reads = reads();
        let (mut pending, own) = asked(&mut reads, 0);
        for (id, start) in [(2, START), (1, [8; 16])] {
            let (_, foreign) = asked(&mut Reads::new(id, start, PATIENCE, RETRY), 0);
            reads.confirm(&foreign, 5);
        }
        let longer = [own.as_slice(), &[0]].concat();
        for malformed in [&[][..], &own[..24], &own[..39], &longer] {
            reads.confirm(malformed, 5);
        }
        reads.settle(5, 1, &ProposeError::NoQuorum);
        assert_eq!(pending.try_recv(), Err(TryRecvError::Empty));
        reads.confirm(&own, 5);
        reads.settle(5, 1, &ProposeError::NoQuorum);
        assert_eq!(pending.try_recv(), Ok(Ok(5)));
    }
}
