//! When a voter may go on alone, and with what.

use super::*;
use crate::{
    control::{
        consensus::golden,
        state::{Command, Mutation},
    },
    model::Voters,
    node::{
        Member, Record,
        addresses::Addresses,
        cluster::{self, Membership},
        fake_voter, machine,
        registration::Registration,
    },
};
use std::{path::Path, time::Duration};
use uuid::Uuid;

const CLUSTER: Uuid = Uuid::from_u128(0x6f76_6572_6c61_7900_0000_0000_0000_0001);

fn name(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn answers(nodes: &[(u64, &str, u64)]) -> Vec<(SocketAddr, StatusResponse)> {
    let answer = |(id, leader, generation): &(u64, &str, u64)| {
        let place = ([10, 0, 0, u8::try_from(*id).unwrap()], 7400).into();
        let status = StatusResponse {
            node: format!("h{id}"),
            node_id: *id,
            leader: (*leader).to_owned(),
            generation: *generation,
            ..StatusResponse::default()
        };
        (place, status)
    };
    nodes.iter().map(answer).collect()
}

/// Whether h1 may go on without the others, of so many voters.
fn checked(voters: u64, nodes: &[(u64, &str, u64)]) -> Result<(), String> {
    let voters = Voting::of((1..=voters).collect());
    let state = State::default();
    check_lost(&name("h1"), 1, Generation::FIRST, &voters, &state, &answers(nodes))
        .map_err(|error| error.to_string())
}

#[test]
fn a_voter_goes_on_alone_only_where_no_majority_lives() {
    assert_eq!(checked(3, &[]), Ok(()));
    assert_eq!(checked(5, &[(2, "", 1)]), Ok(()), "two of five");
    assert_eq!(checked(3, &[(9, "", 1)]), Ok(()), "an agent has no vote");
    let refused = |voters, nodes: &[_], words: &str| {
        let said = checked(voters, nodes).unwrap_err();
        assert!(said.contains(words), "{said}");
    };
    refused(3, &[(2, "", 1)], "with node h1, 2 of 3 do (node h2 at 10.0.0.2:7400)");
    refused(2, &[(2, "", 1)], "2 of 2");
    refused(5, &[(3, "", 1), (2, "", 1)], "3 of 5");
    // At two places it is one voter.
    assert_eq!(checked(5, &[(2, "", 1), (2, "", 1)]), Ok(()));
    refused(3, &[(9, "h2", 1)], "node h9 at 10.0.0.9:7400 answers and knows a leader, h2");
    refused(3, &[(2, "", 2)], "is of generation 2 of the cluster, newer than this node's, 1");
    refused(1, &[], "start it with `overlay node run`");
}

/// As far as the log of h1 goes h2 has a seat; it lost it later, and has no log any more.
#[test]
fn who_is_an_agent_by_now_has_no_vote_to_give() {
    let voters = Voting::of((1..=3).collect());
    let checked = |role: NodeRole| {
        let mut answers = answers(&[(2, "", 1)]);
        answers.iter_mut().for_each(|(_, status)| status.set_role(role));
        check_lost(&name("h1"), 1, Generation::FIRST, &voters, &State::default(), &answers).is_ok()
    };
    assert!(checked(NodeRole::Agent));
    assert!(
        ![NodeRole::Voter, NodeRole::Learner, NodeRole::Unspecified].map(checked).contains(&true)
    );
}

/// The node may have let go of its seat and its log: it was served with what the log lacks.
#[test]
fn a_log_that_ends_before_what_a_node_knows_is_refused_in_a_sentence() {
    let with = |nodes: &[(u64, u64, u64)]| {
        let answer = |(id, generation, revision): &(u64, u64, u64)| {
            let (place, status) = answers(&[(*id, "", *generation)]).remove(0);
            (place, StatusResponse { revision: *revision, ..status })
        };
        nodes.iter().map(answer).collect::<Vec<_>>()
    };
    let second = Generation::from_wire(2);
    let checked = |nodes: &[_]| check_latest(second, 40, &with(nodes));
    for fine in [&[][..], &[(3, 2, 40)], &[(3, 2, 0), (4, 2, 39)]] {
        assert!(checked(fine).is_ok(), "{fine:?}");
    }
    // Of another history.
    assert!(checked(&[(3, 1, 99), (4, 0, 98)]).is_ok());
    let said = checked(&[(2, 2, 41), (3, 2, 44), (4, 2, 7)]).unwrap_err().to_string();
    let words = "node h3 at 10.0.0.3:7400 knows revision 44, and this log ends at 40, so that";
    assert!(said.starts_with(words) && said.ends_with("--accept-loss"), "{said}");
}

/// A removal was under way when the others were lost: members 1 to 3 voted, and 1 alone is to.
#[test]
fn while_members_change_both_majorities_count() {
    let joint = Voting { voters: [1].into(), outgoing: [1, 2, 3].into() };
    let state = State::default();
    let checked = |nodes: &[(u64, &str, u64)]| {
        check_lost(&name("h1"), 1, Generation::FIRST, &joint, &state, &answers(nodes))
            .map_err(|error| error.to_string())
    };
    assert_eq!(checked(&[]), Ok(()), "it can't decide alone");
    let said = checked(&[(2, "", 1)]).unwrap_err();
    assert!(said.contains("2 of 3 do"), "{said}");
}

#[tokio::test]
async fn what_is_no_voter_s_folder_is_refused_and_left_as_it_was() {
    let refused = async |dir: &Path, words: &str| {
        let before = content(dir);
        let args = of(dir);
        let said = crate::error_chain(&recover(args).await.unwrap_err());
        assert!(said.contains(words), "{said}");
        assert_eq!(content(dir), before);
    };
    let dir = tempfile::tempdir().unwrap();
    refused(&dir.path().join("none"), "holds no member of a cluster").await;
    refused(dir.path(), "holds no member of a cluster").await;
    drop(Home::open(dir.path(), &name("h1")).unwrap());
    refused(dir.path(), "holds no member of a cluster").await;
    let mut home = Home::open(dir.path(), &name("h1")).unwrap();
    let member = Member { cluster: CLUSTER, id: 3, voter: false, epoch: 1, raft_id: None };
    home.set_member(member.clone()).unwrap();
    drop(home);
    refused(dir.path(), "is an agent").await;
    let mut home = Home::open(dir.path(), &name("h1")).unwrap();
    home.set_member(Member { voter: true, ..member }).unwrap();
    refused(dir.path(), "in use by another node").await;
    drop(home);
    refused(dir.path(), "the log is missing").await;
    let log = golden::database_of_one(dir.path());
    drop(log);
    refused(dir.path(), "was removed from the cluster").await;
    LogStore::note_unfit(dir.path(), "it forgot something").unwrap();
    refused(dir.path(), "it forgot something").await;
    let mut home = Home::open(dir.path(), &name("h1")).unwrap();
    home.set_removed().unwrap();
    drop(home);
    refused(dir.path(), "was removed from the cluster").await;
}

fn of(state_dir: &Path) -> ClusterRecoverArgs {
    ClusterRecoverArgs { state_dir: state_dir.to_owned(), accept_loss: false }
}

/// The files, without the lock. Of the database only its length: whoever opens it writes its header anew.
fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .map(|(name, bytes): (String, Vec<u8>)| match name.as_str() {
            "consensus.redb" => (name, bytes.len().to_be_bytes().to_vec()),
            _ => (name, bytes),
        })
        // A lock is a file of its own, and the mark is written with the same content again.
        .filter(|(name, _)| name != "lock" && name != "mark" && name != "identity.json")
        .collect();
    files.sort();
    files
}

/// A voter's folder, of a cluster of three. The others are not where it knows them.
fn voter(dir: &Path) {
    let instance = Uuid::from_u128(5);
    let register = |id: u8| Command::RegisterNode {
        instance: *Uuid::from_u128(u128::from(id) + 4).as_bytes(),
        name: name(&format!("h{id}")),
        vtep: std::net::Ipv4Addr::new(10, 0, 0, id).into(),
        // Nobody listens there.
        listen: ([127, 0, 0, 1], u16::from(id)).into(),
        returning: None,
        gateway: None,
        metrics: None,
        local_listen: None,
        speaks: None,
    };
    let network = Command::CreateNetwork {
        name: "acknowledged".parse().unwrap(),
        pool: None,
        vni: None,
        options: crate::model::NetworkOptions::default(),
    };
    let commands = vec![register(1), register(2), register(3), network];
    let entry = |(number, command): (u8, &Command)| {
        State::default().entry(Mutation::new([number; 16], command), command.clone()).encode()
    };
    let entries = (1..).zip(&commands).map(entry).collect::<Result<_, _>>().unwrap();
    golden::log_of_three(dir, &State::default().snapshot(), entries);
    let member = Member { cluster: CLUSTER, id: 1, voter: true, epoch: 2, raft_id: None };
    let record = Record { name: name("h1"), instance, member: Some(member), removed: false };
    drop(Home::make(dir, record).unwrap());
}

#[tokio::test]
async fn a_voter_goes_on_with_all_that_its_log_has() {
    let dir = tempfile::tempdir().unwrap();
    voter(dir.path());
    let args = of(dir.path());
    let begun = recover(args.clone()).await.unwrap();
    assert_eq!(
        (begun.known_revision, &*begun.others),
        (5, &["h2".to_owned(), "h3".to_owned()][..])
    );
    assert!(begun.generation > 2, "it is the time");
    let home = Home::open(dir.path(), &name("h1")).unwrap();
    assert_eq!(home.generation().unwrap().number(), begun.generation);
    let log = LogStore::open(dir.path(), Some(CLUSTER)).unwrap().expect("a log");
    let rest = log.rest().unwrap();
    assert_eq!((rest.committed, rest.commands.len()), (Voting::of([1].into()), 0));
    let state = State::from_snapshot(&log.snapshot_data().unwrap()).unwrap();
    assert_eq!(state.revision(), begun.revision);
    assert!(
        state.revision() > 1 << 40,
        "revisions that the lost voters may have given out are skipped"
    );
    assert_eq!(log.snapshot_metadata().index, state.revision());
    assert!(
        state.network_named(&"acknowledged".parse().unwrap()).is_ok(),
        "it was not known to be committed"
    );
    assert_eq!(state.nodes().count(), 3, "rows of lost nodes stay until they are removed");
    drop((home, log));
    // It is done.
    let again = recover(args).await.unwrap_err();
    assert!(matches!(again, RecoverError::Alone { .. }), "{again}");
}

#[tokio::test]
async fn what_an_agent_knows_and_the_log_lacks_is_lost_only_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    voter(dir.path());
    let mut agent = StatusResponse {
        node: "h4".to_owned(),
        node_id: 4,
        generation: 1,
        revision: 6,
        ..StatusResponse::default()
    };
    agent.set_role(NodeRole::Agent);
    let listen = fake_voter::listen(CLUSTER, agent).await;
    let home = Home::open(dir.path(), &name("h1")).unwrap();
    home.set_peers(&[Peer { id: 4, listen, voter: false, raft_id: None }]).unwrap();
    drop(home);
    // Whoever opens a database may make its file shorter.
    let but_the_database = || {
        let mut files = content(dir.path());
        files.retain(|(name, _)| name != LogStore::DATABASE);
        files
    };
    let before = but_the_database();
    let refused = recover(of(dir.path())).await.unwrap_err().to_string();
    let words = format!("node h4 at {listen} knows revision 6, and this log ends at 5, so that");
    assert!(refused.starts_with(&words), "{refused}");
    assert_eq!(but_the_database(), before);
    let accepted = ClusterRecoverArgs { accept_loss: true, ..of(dir.path()) };
    assert_eq!(recover(accepted).await.unwrap().known_revision, 5);
}

/// Starts the node of the folder for as long as nobody answers; `None` = it waits for a leader.
async fn started(dir: &Path, run: &Path) -> Option<Membership> {
    let mut home = Home::open(dir, &name("h1")).unwrap();
    let addresses = Addresses {
        vtep: [10, 0, 0, 1].into(),
        listen: ([10, 0, 0, 1], 7400).into(),
        local_listen: None,
        gateway: "172.18.0.0/16".parse().unwrap(),
        metrics: None,
    };
    let registration = Registration {
        name: name("h1"),
        instance: home.record().instance,
        addresses,
        vxlan_port: 4789,
        token: None,
        incarnation: Uuid::new_v4(),
    };
    let entered = cluster::enter(&mut home, &registration, None, Voters::default(), run);
    // Virtual time.
    tokio::time::timeout(Duration::from_secs(60), entered).await.ok().map(Result::unwrap)
}

/// A site that was put back from images of its disks: none of the voters trusts its log, and none of them has a leader to ask.
#[tokio::test(start_paused = true)]
async fn where_all_voters_have_moved_the_log_of_each_is_sound_and_one_goes_on_with_it() {
    let (was, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = tempfile::tempdir().unwrap();
    voter(was.path());
    let home = Home::open(was.path(), &name("h1")).unwrap();
    let others = [2, 3].map(|id| Peer {
        id,
        // Nobody listens there.
        listen: ([127, 0, 0, 1], u16::try_from(id).unwrap()).into(),
        voter: true,
        raft_id: None,
    });
    home.set_peers(&others).unwrap();
    drop(home);
    machine::bind(was.path());
    for file in std::fs::read_dir(was.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    assert!(machine::moved(dir.path()).is_some());
    for _ in 0..2 {
        assert!(started(dir.path(), run.path()).await.is_none(), "it votes with a copy");
    }
    let begun = recover(of(dir.path())).await.unwrap();
    assert_eq!(begun.known_revision, 5, "with all that its log has");
    let back = started(dir.path(), run.path()).await.expect("it is the only voter");
    assert!(back.member.voter && back.log.is_some());
    assert!(machine::moved(dir.path()).is_none(), "it belongs here from now on");
}
