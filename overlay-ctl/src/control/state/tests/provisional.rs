//! An endpoint is provisional until somebody may rely on it.

use super::*;
use crate::model::SPEAKS;

fn replica(version: Version) -> Replica {
    let mut r = Replica::default();
    r.node(1).unwrap();
    r.network("net", "10.0.0.0/24", None).unwrap();
    if version == Version::V2 {
        let speaks = r.state.nodes().map(|node| (node.id, SPEAKS)).collect();
        r.apply(Command::RaiseVersion { to: version, speaks }).unwrap();
    }
    r
}

impl Replica {
    fn create(&mut self, name: &'static str, provisional: Option<u64>) -> Endpoint {
        self.index += 1;
        let command = Wish::new(name).command();
        let request = Mutation::new(request_id(self.index), &command);
        let entry =
            self.state.entry_noting(request, command, Noted { provisional, ..Noted::default() });
        match self.state.apply_entry(self.index, &entry.encode().unwrap()) {
            Ok(Applied::Endpoint(endpoint)) => endpoint,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_row_says_in_which_run_it_was_made_from_version_2_on() {
    for (version, noted, said) in
        [(Version::V1, Some(7), None), (Version::V2, Some(7), Some(7)), (Version::V2, None, None)]
    {
        let mut r = replica(version);
        let made = r.create("web1", noted);
        assert_eq!(made.provisional, said);
        assert_eq!(State::from_snapshot(&r.state.snapshot()).unwrap(), r.state);
    }
}

#[test]
fn one_that_is_kept_changes_in_nothing_else() {
    let mut r = replica(Version::V2);
    let made = r.create("web1", Some(7));
    let before = r.state.clone();
    let kept = Endpoint { provisional: None, ..made.clone() };
    let keep = || Command::KeepEndpoint { id: made.id };
    assert_eq!(r.apply(keep()), Ok(Applied::Endpoint(kept.clone())));
    let held = [RowKey::Endpoint(made.network, made.id)].into();
    assert_eq!(r.state.changes().since(before.revision), Some(held), "its node hears of it");
    assert_eq!(r.apply(keep()), Ok(Applied::Endpoint(kept)), "twice is as once");
    assert_eq!(r.state.changes().since(r.index - 1), Some(BTreeSet::new()));
    // The leader's own commands take nobody's place in the memory of requests.
    assert_eq!(r.state.dedup, before.dedup);
    r.remove("web1").unwrap();
    assert!(matches!(r.apply(keep()), Err(Refusal::Gone { .. })));
}

#[test]
fn what_the_leader_adds_is_not_asked_for() {
    let mut r = replica(Version::V2);
    let made = r.create("web1", Some(7));
    let command = Wish::new("web1").command();
    let request = Mutation::new(request_id(made.id), &command);
    r.index += 1;
    let noted = Noted { provisional: Some(8), ..Noted::default() };
    let again = r.state.entry_noting(request, command, noted).encode().unwrap();
    assert_eq!(r.state.apply_entry(r.index, &again), Ok(Applied::Endpoint(made)));
}
