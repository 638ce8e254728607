//! What a node may refuse in a run, and what may go wrong on the way to it: any other error fails the run, since an error that the
//! checks do not know says nothing to them.

use super::{
    book::{Answer, Ask, Record, Removal},
    verdict::Wrong,
};

/// Errors that nothing came of, each by its code and a part of its text: the API tells them apart by no more than that.
const REFUSALS: &[(When, &str, &str)] = &[
    (When::Always, "Unavailable", "the cluster has no leader with a quorum"),
    (When::Always, "Unavailable", "the node is stopping"),
    (When::Always, "Unavailable", "a majority of the voters answers and takes no entries"),
    (When::Always, "ResourceExhausted", "too many requests wait already"),
    (When::Writing, "ResourceExhausted", "leads and takes no writes: "),
    (When::Creating, "ResourceExhausted", "no free address in 10.7.0.16/28 of network churn"),
    (When::Creating, "FailedPrecondition", "not every node has forgotten it"),
    (When::Creating, "FailedPrecondition", "is on network churn already"),
    // Of an endpoint that is being taken away there.
    (When::Creating, "FailedPrecondition", " already has an interface eth"),
    (When::Creating, "FailedPrecondition", "which this request made, is gone again"),
    (When::Creating, "FailedPrecondition", "; the endpoint was removed again"),
    (When::Creating, "FailedPrecondition", " is down ("),
    (When::Creating, "FailedPrecondition", "the data plane of node "),
    (When::CreatingWithoutNode, "NotFound", "no node with name "),
];

/// Errors that leave open what came of a request: those of the way to the node, and those of the node.
const UNKNOWN: &[(When, &str, &str)] = &[
    (When::Always, "", "no answer in time"),
    (When::Always, "", "no node answers"),
    (When::Always, "the connection broke: ", ""),
    (When::Always, "Unavailable", "the cluster has no leader with a quorum"),
    (When::Always, "Unavailable", "the node is stopping"),
    (When::Always, "Unavailable", "a majority of the voters answers and takes no entries"),
];

/// When an error is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// Of a call that changes something.
    Writing,
    Creating,
    /// Of a creation on a host whose node was removed before the answer.
    CreatingWithoutNode,
}

impl When {
    fn is_now(self, record: &Record, removals: &[Removal]) -> bool {
        match (self, record.ask) {
            (Self::Always, _)
            | (Self::Writing, Ask::Create { .. } | Ask::Remove)
            | (Self::Creating, Ask::Create { .. }) => true,
            (Self::CreatingWithoutNode, Ask::Create { host }) => removals
                .iter()
                .any(|removal| Some(removal.host) == host && removal.sent <= record.answered),
            _ => false,
        }
    }
}

/// The errors that no node may give here.
pub(super) fn others(records: &[Record], removals: &[Removal]) -> Vec<Wrong> {
    let is_other = |record: &&Record| {
        let (text, list) = match &record.answer {
            Answer::Refused(text) => (text, REFUSALS),
            Answer::Unknown(text) => (text, UNKNOWN),
            _ => return false,
        };
        !list.iter().any(|(when, code, says)| {
            text.starts_with(code) && text.contains(says) && when.is_now(record, removals)
        })
    };
    let shown: Vec<String> = records.iter().filter(is_other).map(ToString::to_string).collect();
    let Some(first) = shown.first() else { return Vec::new() };
    vec![Wrong { what: format!("{} errors that nobody expects: {first}", shown.len()), shown }]
}
