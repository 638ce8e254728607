//! What is made of the answers of the voters, in each state that a cluster can be in.

mod further;
mod known;
mod remedies;
mod spare;

use super::{
    ask::{Answer, Survey},
    faults,
    verdict::judge,
};
use crate::{
    model::NodeId,
    proto::v1::{
        Alarm, Condition, Fault, LeaderStatus, Member, MemberContact, MemberStatus,
        MembersResponse, Membership, NodeRole, NodesNamed, Seat, StateHash, VoterStatus,
    },
};

/// Nodes 1 to 3 are members 11 to 13 and vote, 11 leads, 4 is an agent.
const LEADER: u64 = 11;

fn seat(node: NodeId) -> Seat {
    Seat {
        node_id: node,
        node: format!("h{node}"),
        listen: format!("10.0.0.{node}:7400"),
        raft_id: node + 10,
    }
}

fn agent(node: NodeId) -> MemberStatus {
    MemberStatus {
        node: format!("h{node}"),
        node_id: node,
        version: "0.1.0".to_owned(),
        oldest_version: 1,
        newest_version: 2,
        cluster_version: 2,
        generation: 1,
        revision: 90,
        leader: "h1".to_owned(),
        seats: (1..=3).map(seat).collect(),
        nodes: 4,
        ..MemberStatus::default()
    }
}

fn contact(raft_id: u64, matched: u64) -> MemberContact {
    MemberContact { raft_id, heard_ms_ago: Some(100), matched, stuck_ms: 0 }
}

fn voter(node: NodeId) -> MemberStatus {
    let raft_id = node + 10;
    let leads = raft_id == LEADER;
    let role = if leads { NodeRole::Leader } else { NodeRole::Voter };
    let others = (11..=13).filter(|id| *id != raft_id && (leads || *id == LEADER));
    let log = VoterStatus {
        raft_id,
        role: role.into(),
        leader: LEADER,
        has_quorum: true,
        term: 7,
        applied: 90,
        commit: 90,
        last_term: 7,
        last_index: 90,
        voters: vec![11, 12, 13],
        contacts: others.map(|id| contact(id, 90)).collect(),
        leads: leads.then(LeaderStatus::default),
        ..VoterStatus::default()
    };
    MemberStatus { voters_wished: 3, voter: Some(log), ..agent(node) }
}

fn without_a_quorum(node: NodeId) -> MemberStatus {
    let mut status = voter(node);
    status.leader.clear();
    let log = status.voter.as_mut().unwrap();
    (log.has_quorum, log.leader, log.leads) = (false, 0, None);
    log.set_role(NodeRole::Voter);
    status
}

/// The survey of the node `asked`, to which `answers` came from the others.
fn survey<const N: usize>(asked: MemberStatus, answers: [(NodeId, Answer); N]) -> Survey {
    let own = Box::new(asked);
    let itself = (own.node_id, Answer::Told(own.clone()));
    Survey {
        cluster: "9f3c".to_owned(),
        own,
        answers: answers.into_iter().chain([itself]).collect(),
    }
}

fn told(status: MemberStatus) -> Answer {
    Answer::Told(Box::new(status))
}

fn silent() -> Answer {
    Answer::Silent("connection refused".to_owned())
}

fn member(answer: &MembersResponse, node: NodeId) -> &Member {
    answer.members.iter().find(|member| member.node_id == node).unwrap()
}

/// The only fault.
#[track_caller]
fn only(answer: &MembersResponse) -> &Fault {
    let [fault] = &answer.faults[..] else { panic!("{:#?}", answer.faults) };
    fault
}

/// The leader of a cluster of which the two others answered so.
fn led(leader: MemberStatus, second: Answer, third: Answer) -> MembersResponse {
    judge(&survey(leader, [(2, second), (3, third)]))
}

/// The leader, which has something to say of the member.
fn hearing(of: u64, contact: MemberContact) -> MemberStatus {
    let mut leader = voter(1);
    let contacts = &mut leader.voter.as_mut().unwrap().contacts;
    contacts.retain(|contact| contact.raft_id != of);
    contacts.push(contact);
    leader
}

#[test]
fn a_sound_cluster_is_healthy_whoever_is_asked() {
    let all = || [1, 2, 3].map(|node| (node, told(voter(node))));
    for asked in [voter(1), voter(2), agent(4)] {
        let name = asked.node.clone();
        let answer = judge(&survey(asked, all()));
        assert_eq!(answer.condition(), Condition::Healthy, "{:#?}", answer.faults);
        assert_eq!(answer.verdict, "healthy: h1 leads 3 voters, and 1 may be lost");
        assert_eq!((answer.leader.as_str(), answer.term, answer.revision), ("h1", 7, 90));
        assert_eq!((answer.asked, answer.nodes, answer.notes), (name, 4, Vec::<String>::new()));
        let leads: Vec<bool> = answer.members.iter().map(|member| member.leads).collect();
        assert_eq!(leads, [true, false, false]);
        let lags: Vec<_> = answer.members.iter().map(|member| member.lag).collect();
        assert_eq!(lags, [Some(0); 3]);
    }
}

#[test]
fn a_voter_alone_is_healthy_and_must_not_be_lost() {
    let mut alone = voter(1);
    alone.seats.truncate(1);
    alone.nodes = 2;
    let log = alone.voter.as_mut().unwrap();
    (log.voters, log.contacts) = (vec![11], Vec::new());
    let answer = judge(&survey(alone, []));
    assert_eq!(answer.verdict, "healthy: h1 is the only voter, and must not be lost");
    assert_eq!(answer.condition(), Condition::Healthy);
    assert!(answer.notes[0].starts_with("3 nodes are to vote and 1 do"), "{:?}", answer.notes);
}

#[test]
fn a_voter_that_is_gone_is_named_with_when_it_was_heard_last() {
    let gone = MemberContact { heard_ms_ago: Some(42_300), ..contact(13, 70) };
    let answer = led(hearing(13, gone), told(voter(2)), silent());
    let verdict = "degraded: h1 leads, 2 of 3 voters keep up, and no further one may be lost";
    assert_eq!((answer.condition(), answer.verdict.as_str()), (Condition::Degraded, verdict));
    let fault = only(&answer);
    let what = "h3 votes and does not answer (connection refused); the leader heard it 42 s ago";
    assert_eq!((fault.what.as_str(), fault.section.as_str()), (what, faults::REPLACE));
    let third = member(&answer, 3);
    assert_eq!((third.lag, third.heard_ms_ago), (Some(20), Some(42_300)));
    assert_eq!((third.membership(), third.has_seat), (Membership::Voter, true));
    assert_eq!(third.unanswered, "connection refused");
}

#[test]
fn what_only_the_asked_node_does_not_reach_is_not_lost() {
    let answer = led(voter(1), told(voter(2)), silent());
    let fault = only(&answer);
    assert!(
        fault.what.contains("does not answer h1") && fault.what.contains("though other voters"),
        "{fault:?}"
    );
    assert!(answer.verdict.contains("3 of 3 voters keep up, and one thing"), "{}", answer.verdict);
    // The leader itself, from an agent: the others say that they have a quorum, and who leads.
    let from_agent =
        judge(&survey(agent(4), [(1, silent()), (2, told(voter(2))), (3, told(voter(3)))]));
    assert_eq!((from_agent.condition(), from_agent.leader.as_str()), (Condition::Degraded, "h1"));
    assert!(only(&from_agent).what.starts_with("h1 does not answer h4"), "{:?}", from_agent.faults);
}

#[test]
fn a_voter_that_runs_outside_of_the_quorum_is_cut_off() {
    let unheard = MemberContact { heard_ms_ago: Some(9_000), ..contact(13, 90) };
    let mut cut = without_a_quorum(3);
    cut.troubles.push("no leader".to_owned());
    let answer = led(hearing(13, unheard), told(voter(2)), told(cut));
    let fault = only(&answer);
    assert!(fault.what.contains("runs, and takes no part in the quorum"), "{fault:?}");
    assert!(fault.remedy.contains("h3 and h1 reach each other"), "{fault:?}");
    assert!(answer.verdict.contains("2 of 3"), "{}", answer.verdict);
}

#[test]
fn without_a_majority_it_is_said_who_is_missing_and_who_could_go_on() {
    let mut left = without_a_quorum(2);
    left.voter.as_mut().unwrap().last_index = 93;
    let unserved = MemberStatus { leader: String::new(), ..agent(4) };
    for asked in [left.clone(), unserved] {
        let name = asked.node.clone();
        let answer = judge(&survey(asked, [(1, silent()), (2, told(left.clone())), (3, silent())]));
        assert_eq!(answer.condition(), Condition::NoQuorum);
        let verdict = format!("no quorum: 1 of 3 voters answers {name}, and 2 are needed");
        assert!(answer.verdict.starts_with(&verdict), "{}", answer.verdict);
        let fault = only(&answer);
        let silent = "h1 (connection refused) and h3 (connection refused)";
        assert!(fault.what.contains(silent), "{fault:?}");
        assert!(fault.remedy.starts_with("ask on another host, too"), "{fault:?}");
        assert!(fault.remedy.contains("recover on h2"), "{fault:?}");
        assert!(fault.remedy.contains("ends at revision 93 of term 7"), "{fault:?}");
        assert_eq!(fault.section, faults::NO_QUORUM);
        assert_eq!((answer.leader.as_str(), member(&answer, 1).lag), ("", None));
    }
}

/// What the voter knows to be committed says nothing of what it holds: a follower hears of a commit late, and after a start it
/// knows of none.
#[test]
fn to_recover_the_log_counts_and_not_what_is_known_to_be_committed() {
    let with = |node, [last_term, last_index, commit, applied]: [u64; 4]| {
        let mut status = without_a_quorum(node);
        let log = status.voter.as_mut().unwrap();
        (log.voters, log.commit, log.applied) = ((11..=15).collect(), commit, applied);
        (log.last_term, log.last_index) = (last_term, last_index);
        status
    };
    let best = |second, third| {
        let absent = [1, 4, 5].map(|node| (node, silent()));
        let mut survey = survey(with(2, second), absent);
        survey.answers.insert(3, told(with(3, third)));
        only(&judge(&survey)).remedy.clone()
    };
    // The other two have it, and one of them may have acknowledged it.
    let longer = best([7, 90, 90, 90], [7, 95, 80, 80]);
    assert!(
        longer.contains("recover on h3,") && longer.contains("revision 95 of term 7"),
        "{longer}"
    );
    // A longer log of an earlier term was never acknowledged as far as it differs.
    let later = best([6, 99, 90, 90], [7, 95, 85, 85]);
    assert!(later.contains("recover on h3,") && later.contains("revision 95 of term 7"), "{later}");
    let later = best([8, 91, 70, 70], [7, 95, 85, 95]);
    assert!(later.contains("recover on h2,") && later.contains("revision 91 of term 8"), "{later}");
}

/// A learner's log is no voter's: nobody recovers on it.
#[test]
fn without_any_voter_a_backup_is_restored() {
    let mut learner = without_a_quorum(2);
    let log = learner.voter.as_mut().unwrap();
    (log.voters, log.learners) = (vec![11], vec![12]);
    log.set_role(NodeRole::Learner);
    let answer = judge(&survey(learner, [(1, silent())]));
    let verdict = "no quorum: 0 of 1 voters answer h2, and 1 is needed";
    assert!(answer.verdict.starts_with(verdict), "{}", answer.verdict);
    assert!(only(&answer).remedy.ends_with("restore a backup"), "{:?}", answer.faults);
}

#[test]
fn a_majority_without_a_leader_is_another_thing() {
    let [second, third] = [2, 3].map(without_a_quorum);
    let answer = judge(&survey(second, [(1, silent()), (3, told(third))]));
    let verdict = "no leader: 2 of 3 voters answer h2, which is enough, and none leads";
    assert!(answer.verdict.starts_with(verdict), "{}", answer.verdict);
    assert_eq!(only(&answer).what, "h2 and h3 run and elect no leader");
}

#[test]
fn a_node_that_nobody_answers_says_what_it_tried() {
    let cut = MemberStatus { leader: String::new(), ..agent(4) };
    let answer = judge(&survey(cut, [1, 2, 3].map(|node| (node, silent()))));
    assert_eq!(answer.condition(), Condition::Unknown);
    assert!(answer.verdict.starts_with("unknown: no voter answers h4"), "{}", answer.verdict);
    assert!(only(&answer).what.contains("h1 (connection refused), h2"), "{:?}", answer.faults);
    let members = answer.members.iter().map(|member| (member.membership(), member.has_seat));
    assert_eq!(members.collect::<Vec<_>>(), [(Membership::Unspecified, true); 3]);
}

#[test]
fn a_voter_that_takes_nothing_counts_as_none_and_its_alarm_says_why() {
    let stuck = MemberContact { stuck_ms: 12_400, ..contact(13, 78) };
    let mut full = without_a_quorum(3);
    let text = "the disk of the state folder /state is full".to_owned();
    full.alarms.push(Alarm { kind: "entries".to_owned(), text });
    let answer = led(hearing(13, stuck), told(voter(2)), told(full));
    assert!(answer.verdict.ends_with("no further one may be lost"), "{}", answer.verdict);
    let [lags, disk] = &answer.faults[..] else { panic!("{:#?}", answer.faults) };
    assert_eq!(lags.what, "h3 lacks 12 entries of the log, and has taken none for 12 s");
    assert_eq!(lags.section, faults::LAGS);
    assert_eq!(disk.what, "h3: the disk of the state folder /state is full");
    assert_eq!(disk.section, faults::DISK);
    // A few entries that are under way are nothing.
    let busy = MemberContact { stuck_ms: 300, ..contact(13, 60) };
    assert!(led(hearing(13, busy), told(voter(2)), told(voter(3))).faults.is_empty());
    let mut far = hearing(13, contact(13, 90));
    far.voter.as_mut().unwrap().commit = 1_091;
    let answer = led(far, told(voter(2)), told(voter(3)));
    let what = "h3 lacks 1001 entries of the log, and takes some";
    assert!(answer.faults.iter().any(|fault| fault.what == what), "{:#?}", answer.faults);
}

#[test]
fn each_section_is_in_the_handbook() {
    let handbook = include_str!("../../../../../docs/operations.md");
    for section in [
        faults::NO_QUORUM,
        faults::REPLACE,
        faults::LAGS,
        faults::DISK,
        faults::DIFFERS,
        faults::DOWN,
        faults::NOT_READY,
        faults::COPIES,
        faults::WAYS_BACK,
        faults::UPGRADE,
        faults::VOTERS,
    ] {
        let heading = format!("## {section}");
        assert!(handbook.lines().any(|line| line == heading), "{heading} is in no line");
    }
}
