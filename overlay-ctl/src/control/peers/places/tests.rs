//! Where nodes may be reached, from the first start of a renumbered cluster to the rows that say so.

use super::*;

/// An address of the node `id`: its first, its second and so on.
fn at(id: NodeId, number: u8) -> SocketAddr {
    ([10, 0, number, u8::try_from(id).unwrap()], 7400).into()
}

fn peer(id: NodeId, number: u8) -> Peer {
    Peer { id, listen: at(id, number), voter: id <= 3, raft_id: None }
}

/// Node 1, which listens at its second address. The rows of nodes 1 to 4 say the first ones, and the
/// first three vote.
fn renumbered() -> Places {
    let mut places = Places::new((1..=4).map(|id| peer(id, 1)));
    places.introduce(1, at(1, 2));
    places.replace((1..=4).map(|id| peer(id, 1)));
    places
}

#[test]
fn what_the_file_says_stands_beside_the_rows() {
    let mut places = Places::new([peer(1, 1), peer(2, 1), peer(2, 3)]);
    places.introduce(1, at(1, 1));
    assert_eq!(places.of(2), [at(2, 3), at(2, 1)], "the last one is the best");
    assert!(places.replace([peer(1, 1), peer(2, 2), peer(3, 2)]));
    assert!(!places.replace([peer(1, 1), peer(2, 2), peer(3, 2)]), "nothing new");
    assert!(!places.replace([]), "nobody");
    assert_eq!(places.of(2), [at(2, 2), at(2, 3), at(2, 1)]);
    assert_eq!(places.of(3), [at(3, 2)]);
    assert_eq!(places.of(9), [], "nobody has heard of it");
}

#[test]
fn what_a_node_says_of_itself_comes_before_its_row_and_what_others_say_of_it_behind() {
    let mut places = renumbered();
    assert!(places.teach(2, at(2, 5), Source::Another));
    assert!(!places.teach(2, at(2, 5), Source::Another), "nothing new");
    assert!(places.teach(2, at(2, 6), Source::Another));
    assert_eq!(places.of(2), [at(2, 5), at(2, 6), at(2, 1)]);
    assert!(places.teach(2, at(2, 6), Source::Itself));
    assert!(!places.teach(2, at(2, 6), Source::Itself), "nothing new");
    assert_eq!(places.of(2), [at(2, 6), at(2, 5), at(2, 1)]);
    // Two nodes that know different places do not change each other's order without end.
    assert!(!places.teach(2, at(2, 5), Source::Another));
    assert_eq!(places.peer(2), Some(peer(2, 6)));
    assert_eq!(places.peers(), [peer(1, 1), peer(2, 6), peer(3, 1), peer(4, 1)]);
}

#[test]
fn what_says_nothing_new_or_nothing_possible_is_not_kept() {
    let mut places = renumbered();
    for (what, id, listen) in [
        ("this node", 1, at(1, 3)),
        ("the place of its row", 2, at(2, 1)),
        ("every address", 2, ([0; 4], 7400).into()),
        ("a group", 2, ([224, 0, 0, 1], 7400).into()),
        ("no port", 2, ([10, 0, 2, 2], 0).into()),
    ] {
        assert!(!places.teach(id, listen, Source::Itself), "{what}");
    }
    assert_eq!(places.told(), [(1, at(1, 2))]);
}

#[test]
fn a_node_that_comes_back_to_its_row_s_place_is_nowhere_else() {
    let mut places = renumbered();
    places.teach(2, at(2, 5), Source::Itself);
    assert!(places.has_left(2, at(2, 1)));
    assert!(!places.teach(2, at(2, 1), Source::Another), "others may say what was so before");
    assert!(places.has_left(2, at(2, 1)));
    assert!(places.teach(2, at(2, 1), Source::Itself));
    assert!(!places.has_left(2, at(2, 1)));
    assert_eq!(places.of(2), [at(2, 1)]);
    assert!(!places.teach(2, at(2, 1), Source::Itself), "nothing new");
}

#[test]
fn it_is_bounded() {
    let mut places = renumbered();
    for number in 2..=20 {
        places.teach(2, at(2, number), Source::Itself);
        places.teach(3, at(3, number), Source::Another);
    }
    assert_eq!(places.of(2), [20, 19, 18, 17, 1].map(|number| at(2, number)));
    assert_eq!(places.of(3), [2, 3, 4, 5, 1].map(|number| at(3, number)));
    for id in 10..3000 {
        places.teach(id, at(5, 1), Source::Itself);
    }
    assert_eq!(places.taught.len(), TAUGHT_MAX);
    assert_eq!(places.told().len(), TOLD_MAX);
}

#[test]
fn the_rows_win_when_a_quorum_is_reached_at_their_addresses() {
    let mut places = Places::new([peer(1, 1), peer(2, 9), peer(3, 1)]);
    places.introduce(1, at(1, 2));
    assert!(places.reached(2, at(2, 9)), "at the file's address");
    places.replace((1..=3).map(|id| peer(id, 1)));
    places.teach(3, at(3, 2), Source::Itself);
    assert!(places.reached(3, at(3, 2)));
    assert!(!places.is_confirmed(), "all are reached, and none at its row's address");
    // They register, one after the other.
    places.replace([peer(1, 2), peer(2, 1), peer(3, 1)]);
    assert!(!places.is_confirmed(), "this node is one of three");
    assert_eq!(places.of(2), [at(2, 9), at(2, 1)]);
    assert_eq!(places.of(3), [at(3, 2), at(3, 1)]);
    assert!(places.teach(9, at(9, 1), Source::Another));
    places.replace([peer(1, 2), peer(2, 1), peer(3, 2)]);
    assert!(places.is_confirmed());
    assert_eq!(places.of(9), [], "it has no row");
    assert!(!places.teach(9, at(9, 1), Source::Itself), "nor gets a place now");
    assert_eq!(places.of(3), [at(3, 2)], "its row has caught up");
    assert_eq!(places.told(), [(1, at(1, 2))]);
    assert!(places.lost(2, at(2, 9)));
    assert_eq!(places.of(2), [at(2, 1)], "what the file said is let go of");
    assert!(places.lost(3, at(3, 2)));
    assert!(!places.is_confirmed() && places.reaches_nobody());
}

#[test]
fn while_a_quorum_is_reached_the_row_is_tried_before_what_was_said() {
    let mut places = renumbered();
    places.introduce(1, at(1, 1));
    places.teach(2, at(2, 5), Source::Itself);
    assert_eq!(places.of(2), [at(2, 5), at(2, 1)]);
    places.reached(3, at(3, 1));
    assert!(places.is_confirmed());
    assert_eq!(places.of(2), [at(2, 1), at(2, 5)]);
    places.reached(2, at(2, 1));
    assert_eq!(places.of(2), [at(2, 1)], "it is there after all");
    // Of another stream to it.
    assert!(!places.lost(2, at(2, 5)));
    assert!(!places.reaches_nobody());
}

#[test]
fn an_agent_is_told_of_a_quorum_by_the_voter_that_serves_it() {
    let mut places = Places::new((1..=3).map(|id| peer(id, 1)));
    places.introduce(4, at(4, 2));
    assert!(places.served_by(2, at(2, 1)));
    assert!(!places.is_confirmed(), "the rows are not read");
    places.replace((1..=4).map(|id| peer(id, if id == 2 { 3 } else { 1 })));
    assert!(!places.is_confirmed(), "its row says another address");
    places.replace((1..=4).map(|id| peer(id, 1)));
    assert!(places.is_confirmed());
    assert!(!places.served_by(2, at(2, 1)), "nothing new");
    places.lost(2, at(2, 1));
    assert!(!places.is_confirmed());
}

#[test]
fn what_the_file_is_to_say_is_read_as_it_was() {
    let mut places = renumbered();
    places.teach(2, at(2, 5), Source::Itself);
    places.teach(2, at(2, 6), Source::Itself);
    places.teach(9, at(9, 1), Source::Another);
    let kept = places.to_keep();
    let of_2: Vec<&Peer> = kept.iter().filter(|peer| peer.id == 2).collect();
    assert_eq!(of_2, [&peer(2, 1), &peer(2, 5), &peer(2, 6)], "the best comes last");
    let read = Places::new(kept);
    for id in [2, 3, 4, 9] {
        assert_eq!(read.of(id), places.of(id), "{id}");
    }
}

#[test]
fn only_of_voters_the_others_are_told() {
    let mut places = renumbered();
    places.teach(2, at(2, 5), Source::Itself);
    places.teach(4, at(4, 5), Source::Itself);
    assert_eq!(places.told(), [(1, at(1, 2)), (2, at(2, 5))]);
    let voters = [peer(1, 1), peer(2, 5), peer(2, 1), peer(3, 1)];
    assert_eq!(places.voters().collect::<Vec<_>>(), voters);
    assert_eq!(Places::new([peer(2, 1)]).told(), [], "it does not know itself yet");
}

#[test]
fn a_node_that_has_said_so_has_left_the_address_of_its_row() {
    let mut places = renumbered();
    assert!(!places.has_left(2, at(2, 1)));
    places.teach(2, at(2, 5), Source::Itself);
    assert!(places.has_left(2, at(2, 1)));
    assert!(!places.has_left(2, at(2, 5)));
}

#[test]
fn a_node_has_moved_if_it_says_itself_that_it_has_another_address() {
    let mut places = renumbered();
    let row = at(2, 1);
    let moved = |places: &Places| places.has_moved(2, row.ip());
    places.teach(2, at(2, 5), Source::Another);
    assert!(!moved(&places), "that is another one's word");
    places.teach(2, SocketAddr::new(row.ip(), 7401), Source::Itself);
    assert!(!moved(&places), "with another port it is where it was");
    places.teach(2, at(2, 5), Source::Itself);
    assert!(moved(&places));
    places.teach(2, row, Source::Itself);
    assert!(!moved(&places), "it has come back");
}

#[test]
fn a_raft_id_leads_to_its_node() {
    let life = |number| RaftId::new(number).unwrap();
    // Before the rows are read: where rows say no Raft id, it is the node's id.
    let mut places = Places::new([peer(2, 1), peer(4, 1)]);
    assert_eq!([2, 4].map(|id| places.node_of(life(id))), [Some(2), None], "4 is an agent");
    places.replace([peer(1, 1), Peer { raft_id: RaftId::new(9), ..peer(3, 1) }]);
    assert_eq!([1, 9, 3].map(|id| places.node_of(life(id))), [Some(1), Some(3), None]);
    assert_eq!(places.life_of(3), RaftId::new(9));
    // A peer tells of a life before the row does.
    places.note_life(3, life(11));
    places.note_life(2, life(9));
    assert_eq!([9, 11].map(|id| places.node_of(life(id))), [Some(3); 2], "it is no other's");
    assert_eq!(places.life_of(3), RaftId::new(11));
    for number in 0..5_000 {
        places.note_life(3, life(100 + number));
    }
    assert!(places.lives.len() <= TAUGHT_MAX + 2, "{}", places.lives.len());
}

#[test]
fn an_agent_whose_rows_name_no_voter_of_today_asks_those_that_a_registration_names() {
    let mut places = renumbered();
    let ids = |places: &Places| -> Vec<NodeId> {
        let ids: BTreeSet<NodeId> = places.voters().map(|peer| peer.id).collect();
        ids.into_iter().collect()
    };
    assert_eq!(ids(&places), [1, 2, 3]);
    // The seat of node 2 is node 4's by now, at the place that its row says.
    assert!(!places.teach(4, at(4, 1), Source::Another), "that is no news");
    places.note_life(4, RaftId::new(24).unwrap());
    assert!(places.name_voters([4]));
    assert!(!places.name_voters([4]), "nothing new");
    assert_eq!(ids(&places), [1, 2, 3, 4]);
    assert_eq!(places.peer(4).and_then(|peer| peer.life()), RaftId::new(24));
    // The rows that it is sent are newer than the answer.
    places.replace((1..=4).map(|id| peer(id, 2)));
    assert_eq!(ids(&places), [1, 2, 3]);
}
