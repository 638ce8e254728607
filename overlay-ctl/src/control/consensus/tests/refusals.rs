//! Which messages are refused before the engine sees them: those that no correct node sends, and that would end
//! this one or put something false into its log.

use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, Message,
    MessageType, Snapshot, SnapshotMetadata,
};

use crate::control::consensus::codec::{self, BadMessage};

const RECEIVER: u64 = 2;

fn is_accepted(message: &Message) -> bool {
    match codec::decode_message(&codec::encode(message), RECEIVER) {
        Ok(_) => true,
        Err(BadMessage::Inconsistent(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

/// A message of term 5.
fn message(kind: MessageType) -> Message {
    Message { msg_type: kind as i32, from: 1, to: RECEIVER, term: 5, ..Message::default() }
}

/// Entries of these terms behind the entry at `index`.
fn append(index: u64, log_term: u64, terms: &[u64]) -> Message {
    let entry = |(index, term): (u64, &u64)| Entry { index, term: *term, ..Entry::default() };
    let entries = (index + 1..).zip(terms).map(entry).collect();
    Message { index, log_term, entries, ..message(MessageType::MsgAppend) }
}

#[test]
fn an_append_begins_at_the_start_of_the_log_or_behind_an_entry_with_a_term() {
    assert!(is_accepted(&append(0, 0, &[1])));
    assert!(is_accepted(&append(7, 1, &[1])));
    assert!(!is_accepted(&append(7, 0, &[1])));
}

#[test]
fn the_terms_of_entries_never_fall_and_never_pass_the_senders() {
    assert!(is_accepted(&append(7, 2, &[2, 3, 3, 5])));
    assert!(!is_accepted(&append(7, 2, &[1])));
    assert!(!is_accepted(&append(7, 2, &[4, 3])));
    assert!(!is_accepted(&append(7, 2, &[2, 6])));
    assert!(!is_accepted(&append(0, 0, &[0])));
    let mut gap = append(7, 2, &[2, 2]);
    gap.entries[1].index += 1;
    assert!(!is_accepted(&gap));
}

#[test]
fn a_membership_change_names_nodes() {
    let change = |node_id| {
        let change_type = ConfChangeType::AddNode as i32;
        let changes = vec![ConfChangeSingle { change_type, node_id }];
        let mut message = append(7, 2, &[2]);
        message.entries[0].entry_type = EntryType::EntryConfChangeV2 as i32;
        message.entries[0].data = codec::encode(&ConfChangeV2 { changes, ..Default::default() });
        message
    };
    assert!(is_accepted(&change(1)));
    assert!(!is_accepted(&change(0)));
}

fn snapshot(index: u64, term: u64, members: ConfState) -> Message {
    let metadata = Some(SnapshotMetadata { conf_state: Some(members), index, term });
    let snapshot = Some(Snapshot { data: Vec::new(), metadata });
    Message { snapshot, ..message(MessageType::MsgSnapshot) }
}

#[test]
fn a_snapshot_is_of_an_entry_that_its_sender_can_hold() {
    let members = || ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    assert!(is_accepted(&snapshot(1, 1, members())));
    assert!(is_accepted(&snapshot(9, 5, members())));
    assert!(!is_accepted(&snapshot(0, 1, members())));
    assert!(!is_accepted(&snapshot(9, 0, members())));
    assert!(!is_accepted(&snapshot(9, 6, members())));
    assert!(!is_accepted(&message(MessageType::MsgSnapshot)));
}

#[test]
fn a_snapshots_members_are_a_configuration_that_changes_can_lead_to() {
    let members = |voters: &[u64], learners: &[u64], outgoing: &[u64], next: &[u64], auto_leave| {
        let [voters, learners, voters_outgoing, learners_next] =
            [voters, learners, outgoing, next].map(<[u64]>::to_vec);
        let members = ConfState { voters, learners, voters_outgoing, learners_next, auto_leave };
        is_accepted(&snapshot(9, 5, members))
    };
    assert!(members(&[1], &[2], &[], &[], false));
    assert!(members(&[1, 2, 3], &[4], &[1], &[], false));
    assert!(members(&[1], &[4], &[1, 2, 3], &[2, 3], true));
    // Nobody votes; a member twice; the node that is none.
    assert!(!members(&[], &[2], &[], &[], false));
    assert!(!members(&[1, 1], &[], &[], &[], false));
    assert!(!members(&[0, 1], &[], &[], &[], false));
    // Outside of a joint configuration there is none to leave.
    assert!(!members(&[1], &[2], &[], &[], true));
    // A member votes or learns, and not both.
    assert!(!members(&[1, 2], &[2], &[], &[], false));
    assert!(!members(&[1], &[2], &[1, 2, 3], &[], false));
    // Only who voted before can be a learner next, and only who does not vote after.
    assert!(!members(&[1], &[], &[1, 2, 3], &[4], false));
    assert!(!members(&[1, 2], &[], &[1, 2, 3], &[2], false));
}
