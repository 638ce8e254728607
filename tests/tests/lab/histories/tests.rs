//! What the checks refuse: answers that no cluster may give, each beside one that it may.

use std::slice::from_ref;

use overlay_lab::linear::Call;

use super::{
    book::{Answer, Ask, Kind, Made, Record, Removal},
    foreseen::others,
    name::Operation,
    report::Counts,
    verdict::{longest_gap, names, owners, revisions},
};

const CREATE: Ask = Ask::Create { host: Some(0) };

fn record(ask: Ask, sent: u64, answered: u64, answer: Answer) -> Record {
    let (kind, name) = (Kind::Endpoint, "e0-0".to_owned());
    let (client, asked, attempts, is_doubted) = (0, 0, 1, false);
    Record { kind, name, ask, client, asked, attempts, sent, answered, answer, is_doubted }
}

fn made(id: u64, address: &str) -> Answer {
    let owns = vec![("address", address.to_owned())];
    Answer::Made(Made { id, revision: id, host: Some(0), owns })
}

fn shown(id: u64) -> Answer {
    Answer::Shown { id, host: Some(0) }
}

fn unknown() -> Answer {
    Answer::Unknown("no answer in time".to_owned())
}

/// Whether a name's history is refused, where the last look at the end finds this.
fn is_refused(records: &[Record], removals: &[Removal], last: &Operation) -> bool {
    let look =
        |_: &Record| Call { sent: 1000, until: 1001, is_sure: true, operation: last.clone() };
    let (count, wrong) = names(records, removals, look);
    assert_eq!(count, 1);
    !wrong.is_empty()
}

fn is_there(id: u64) -> Operation {
    Operation::Shown { id, host: Some(0) }
}

#[test]
fn a_read_of_an_old_state_is_refused() {
    let create = record(CREATE, 10, 20, made(5, "a"));
    let stale = |sent| record(Ask::Show, sent, sent + 5, Answer::Absent);
    assert!(is_refused(&[create.clone(), stale(30)], &[], &is_there(5)));
    assert!(!is_refused(&[create, stale(12)], &[], &is_there(5)));
}

#[test]
fn an_acknowledged_write_that_is_lost_is_refused() {
    let create = record(CREATE, 10, 20, made(5, "a"));
    assert!(is_refused(from_ref(&create), &[], &Operation::Absent));
    assert!(!is_refused(from_ref(&create), &[], &is_there(5)));
    let remove = record(Ask::Remove, 30, 40, Answer::Removed { revision: 9 });
    assert!(!is_refused(&[create.clone(), remove.clone()], &[], &Operation::Absent));
    assert!(is_refused(&[create, remove], &[], &is_there(5)));
}

#[test]
fn a_name_that_is_given_twice_is_refused() {
    let [first, second] =
        [record(CREATE, 10, 20, made(5, "a")), record(CREATE, 12, 22, made(6, "b"))];
    assert!(is_refused(&[first.clone(), second.clone()], &[], &is_there(6)));
    let remove = record(Ask::Remove, 11, 21, Answer::Removed { revision: 6 });
    assert!(!is_refused(&[first, remove, second], &[], &is_there(6)));
}

#[test]
fn what_nobody_answered_may_come_late_and_be_taken_back_and_comes_once() {
    let create = record(CREATE, 10, 20, unknown());
    let at = |sent, answer| record(Ask::Show, sent, sent + 1, answer);
    let once = [create.clone(), at(30, Answer::Absent), at(40, shown(7)), at(50, Answer::Absent)];
    assert!(!is_refused(&once, &[], &Operation::Absent));
    assert!(is_refused(&once, &[], &is_there(7)));
    let others = [create.clone(), at(40, shown(7)), at(50, shown(8))];
    assert!(is_refused(&others, &[], &is_there(8)));
    assert!(is_refused(&[at(5, shown(7)), create], &[], &Operation::Absent));
    let refused = record(CREATE, 10, 20, Answer::Refused("its node could not make it".to_owned()));
    assert!(!is_refused(&[refused.clone(), at(12, shown(7))], &[], &Operation::Absent));
    assert!(is_refused(&[refused, at(30, shown(7))], &[], &Operation::Absent));
}

#[test]
fn what_was_refused_without_effect_and_stands_is_refused() {
    let refused = record(CREATE, 10, 20, Answer::Refused("its node could not make it".to_owned()));
    let at = |sent, answer| record(Ask::Show, sent, sent + 1, answer);
    assert!(is_refused(from_ref(&refused), &[], &is_there(7)));
    assert!(is_refused(&[refused.clone(), at(30, shown(7))], &[], &is_there(7)));
    assert!(!is_refused(from_ref(&refused), &[], &Operation::Absent));
    // Somebody else's may stand, and one of its own name may follow it.
    let others = record(CREATE, 25, 30, made(8, "a"));
    assert!(!is_refused(&[refused.clone(), at(12, shown(7)), others], &[], &is_there(8)));
    let doubted = Record { is_doubted: true, ..refused };
    assert!(!is_refused(&[doubted, at(30, shown(7))], &[], &is_there(7)));
}

#[test]
fn what_a_refused_call_made_may_have_been_removed_by_another_one() {
    let network = |record: Record| Record { kind: Kind::Network, ..record };
    let create = Ask::Create { host: None };
    let gone = Answer::Refused("n2-0, which this request made, is gone again".to_owned());
    let refused = network(record(create, 10, 20, gone));
    let remove = network(record(Ask::Remove, 12, 22, Answer::Removed { revision: 9 }));
    let all = [refused, remove.clone()];
    assert!(!is_refused(&all, &[], &Operation::Absent));
    assert!(is_refused(&[remove], &[], &Operation::Absent));
}

#[test]
fn a_repetition_of_an_unknown_call_may_be_refused_for_its_own_sake_only_with_doubt() {
    let doubted = Record { is_doubted: true, ..record(CREATE, 10, 20, Answer::Exists) };
    let remove = record(Ask::Remove, 30, 40, Answer::Removed { revision: 9 });
    let late = record(Ask::Show, 50, 60, shown(12));
    let first = record(CREATE, 1, 2, made(5, "a"));
    let all = [first.clone(), doubted.clone(), remove.clone(), late.clone()];
    assert!(!is_refused(&all, &[], &is_there(12)));
    let certain = Record { is_doubted: false, ..doubted };
    assert!(is_refused(&[first, certain, remove, late], &[], &is_there(12)));
}

#[test]
fn the_endpoints_of_a_removed_node_go_with_it_and_no_others() {
    let create = record(CREATE, 10, 20, made(5, "a"));
    let removal = |host| Removal { host, sent: 30, answered: 40 };
    assert!(!is_refused(from_ref(&create), &[removal(0)], &Operation::Absent));
    assert!(is_refused(from_ref(&create), &[removal(0)], &is_there(5)));
    assert!(is_refused(from_ref(&create), &[removal(1)], &Operation::Absent));
    assert!(!is_refused(&[create], &[removal(1)], &is_there(5)));
}

#[test]
fn revisions_rise_and_ids_are_given_once() {
    let write = |sent, answered, id| record(CREATE, sent, answered, made(id, "a"));
    assert!(revisions(&[write(1, 2, 5), write(3, 4, 6), write(1, 9, 3)]).is_empty());
    assert_eq!(revisions(&[write(1, 2, 5), write(3, 4, 4)]).len(), 1);
    let remove = record(Ask::Remove, 3, 4, Answer::Removed { revision: 5 });
    assert_eq!(revisions(&[write(1, 2, 5), remove]).len(), 1);
    assert_eq!(revisions(&[write(1, 4, 5), write(2, 4, 5)]).len(), 1);
}

#[test]
fn an_address_with_two_owners_is_refused_until_one_may_be_gone() {
    let named = |name: &str, record: Record| Record { name: name.to_owned(), ..record };
    let first = named("x", record(CREATE, 1, 2, made(5, "a")));
    let second = named("y", record(CREATE, 30, 40, made(9, "a")));
    let other = named("y", record(CREATE, 30, 40, made(9, "b")));
    assert_eq!(owners(&[first.clone(), second.clone()], &[]).len(), 1);
    assert!(owners(&[first.clone(), other], &[]).is_empty());
    let remove = |sent, answer| named("x", record(Ask::Remove, sent, sent + 1, answer));
    for gone in [remove(20, Answer::Removed { revision: 7 }), remove(20, unknown())] {
        assert!(owners(&[first.clone(), gone, second.clone()], &[]).is_empty());
    }
    for not_gone in [remove(50, Answer::Removed { revision: 11 }), remove(20, Answer::Absent)] {
        assert_eq!(owners(&[first.clone(), not_gone, second.clone()], &[]).len(), 1);
    }
    let removal = Removal { host: 0, sent: 20, answered: 25 };
    assert!(owners(&[first, second], &[removal]).is_empty());
}

#[test]
fn the_longest_time_without_a_write_counts_from_the_begin_to_the_end() {
    let write = |at| record(CREATE, 0, at, made(at, "a"));
    let read = record(Ask::Show, 0, 50, shown(1));
    assert_eq!(longest_gap(&[write(10), read, write(100)], 120), 90);
    assert_eq!(longest_gap(&[write(10), write(100)], 300), 200);
    assert_eq!(longest_gap(&[], 300), 300);
}

#[test]
fn an_error_that_nobody_expects_is_refused() {
    let refused = |ask, text: &str| record(ask, 10, 20, Answer::Refused(text.to_owned()));
    let quorum = "Unavailable: the cluster has no leader with a quorum (the leader changed); see";
    for ask in [CREATE, Ask::Remove, Ask::Show] {
        assert!(others(&[refused(ask, quorum)], &[]).is_empty());
        assert_eq!(others(&[refused(ask, "Internal: a defect")], &[]).len(), 1);
    }
    let is_other = |it| !others(from_ref(&it), &[]).is_empty();
    let held_back =
        "FailedPrecondition: name e0-0 was withdrawn, and not every node has forgotten it";
    assert!(!is_other(refused(CREATE, held_back)));
    assert!(is_other(refused(Ask::Remove, held_back)));
    assert!(is_other(refused(CREATE, &held_back.replace("FailedPrecondition", "Internal"))));
    assert!(is_other(refused(CREATE, "AlreadyExists: the name e0-0 is taken")));
    let status = Answer::Unknown("Unimplemented: all nodes must run the same version".to_owned());
    assert!(is_other(record(CREATE, 10, 20, status)));
    assert!(!is_other(record(CREATE, 10, 20, unknown())));
}

#[test]
fn what_lasts_may_not_be_missed_and_a_node_only_when_it_was_removed() {
    let refused = |text: &str| record(CREATE, 10, 20, Answer::Refused(text.to_owned()));
    let network = refused("NotFound: no network with name churn; `overlay network ls` lists them");
    let node = refused("NotFound: no node with name h1; `overlay node ls` lists them");
    let removal = |host, sent| Removal { host, sent, answered: sent + 1 };
    for (record, removals, expected) in [
        (&network, vec![removal(0, 5)], 1),
        (&node, vec![], 1),
        (&node, vec![removal(0, 5)], 0),
        (&node, vec![removal(1, 5)], 1),
        (&node, vec![removal(0, 21)], 1),
    ] {
        assert_eq!(others(from_ref(record), &removals).len(), expected, "{record}");
    }
}

#[test]
fn a_run_of_reads_is_not_enough() {
    let write = |answer| record(CREATE, 10, 20, answer);
    let removed = record(Ask::Remove, 10, 20, Answer::Removed { revision: 9 });
    let of_each = [write(made(5, "a")), removed, write(Answer::Exists)];
    let reads = vec![record(Ask::Show, 10, 20, shown(1)); 100];
    let all = [vec![of_each.to_vec(); 10].concat(), reads].concat();
    assert!(Counts::of(&all).are_enough());
    for missing in &of_each {
        let left: Vec<Record> =
            all.iter().filter(|record| record.answer != missing.answer).cloned().collect();
        assert!(!Counts::of(&left).are_enough(), "without {missing}");
    }
}
