use super::{Outcome, RequestId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// How many outcomes are remembered. A retry comes within seconds; this is minutes of writes at the
/// fastest rate that was measured for a whole cluster.
const REMEMBERED: usize = 4096;

/// Outcomes of the latest requests, so that a retry is answered and not carried out again. Part of the
/// snapshot: a node restored from it must answer the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "VecDeque<(RequestId, Outcome)>", into = "VecDeque<(RequestId, Outcome)>")]
pub(super) struct Dedup {
    order: VecDeque<RequestId>,
    outcomes: BTreeMap<RequestId, Outcome>,
}

impl Dedup {
    pub(super) fn get(&self, request: &RequestId) -> Option<&Outcome> {
        self.outcomes.get(request)
    }

    pub(super) fn insert(&mut self, request: RequestId, outcome: Outcome) {
        if self.outcomes.insert(request, outcome).is_none() {
            self.order.push_back(request);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.outcomes.remove(&oldest);
            }
        }
    }
}

impl From<VecDeque<(RequestId, Outcome)>> for Dedup {
    fn from(list: VecDeque<(RequestId, Outcome)>) -> Self {
        let mut dedup = Self::default();
        for (request, outcome) in list {
            dedup.insert(request, outcome);
        }
        dedup
    }
}

impl From<Dedup> for VecDeque<(RequestId, Outcome)> {
    fn from(mut dedup: Dedup) -> Self {
        dedup
            .order
            .iter()
            .filter_map(|request| Some((*request, dedup.outcomes.remove(request)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Applied, Refusal};
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut dedup = Dedup::default();
        let id = |n: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            id
        };
        for n in 0..=REMEMBERED {
            dedup.insert(id(n), Ok(Applied::Removed(n as u64)));
        }
        assert_eq!(dedup.get(&id(0)), None);
        assert_eq!(dedup.get(&id(1)), Some(&Ok(Applied::Removed(1))));
        dedup.insert(id(1), Err(Refusal::VnisExhausted));
        assert_eq!(dedup.order.len(), REMEMBERED);
        let list: VecDeque<_> = dedup.clone().into();
        assert_eq!(Dedup::from(list), dedup);
    }
}
