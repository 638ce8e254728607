//! What is to be done about what a node says of itself, in words that fit the node.

use super::*;

#[test]
fn a_node_of_another_generation_rejoins_by_itself() {
    let other = "10.0.0.3:7400: the node at 10.0.0.3:7400 is of generation 1 of the cluster, and this node of generation 2";
    let unheard = MemberContact { heard_ms_ago: None, ..contact(13, 0) };
    let answer = led(hearing(13, unheard), told(voter(2)), Answer::Silent(other.to_owned()));
    let fault = only(&answer);
    assert_eq!(fault.section, faults::WAYS_BACK);
    assert!(
        fault.what.starts_with("h3 ") && fault.what.contains("is of generation 1"),
        "{fault:?}"
    );
    assert!(fault.remedy.contains("rejoins by itself"), "{fault:?}");
    assert!(!fault.remedy.contains("node rm"), "{fault:?}");
    // Also where it is no member, and where nobody else answers.
    let mut recovered = voter(1);
    recovered.nodes = 1;
    let log = recovered.voter.as_mut().unwrap();
    (log.voters, log.contacts) = (vec![11], Vec::new());
    let answers = [(3, Answer::Silent(other.to_owned()))];
    assert_eq!(only(&judge(&survey(recovered, answers))).section, faults::WAYS_BACK);
    let answers = [(3, Answer::Silent(other.to_owned()))];
    let answer = judge(&survey(MemberStatus { leader: String::new(), ..agent(4) }, answers));
    assert_eq!(only(&answer).section, faults::WAYS_BACK);
}

fn slow(node: NodeId, last_write_age_ms: Option<u64>) -> MemberStatus {
    let mut slow = voter(node);
    let log = slow.voter.as_mut().unwrap();
    (log.average_write_us, log.last_write_age_ms) = (412_345, last_write_age_ms);
    slow
}

#[test]
fn a_disk_was_slow_lately_or_is_not() {
    for age in [None, Some(59_000)] {
        let answer = led(voter(1), told(voter(2)), told(slow(3, age)));
        let fault = only(&answer);
        assert_eq!(fault.what, "h3's disk takes 412 ms for a write of the log");
        assert!(!fault.remedy.contains("lead"), "{fault:?}");
    }
    let answer = led(voter(1), told(voter(2)), told(slow(3, Some(61_000))));
    assert_eq!(answer.condition(), Condition::Healthy, "{:#?}", answer.faults);
    let answer = led(slow(1, Some(100)), told(voter(2)), told(voter(3)));
    assert!(only(&answer).remedy.contains("hands its lead over by itself"), "{:?}", answer.faults);
}

#[test]
fn each_alarm_has_a_remedy_of_its_own() {
    for (kind, words) in [
        ("entries", "free space there; nothing needs to be started again"),
        ("snapshot", "free space there; nothing needs to be started again"),
        ("received_snapshot", "free space there; nothing needs to be started again"),
        ("stalled", "free space on the voters whose disks are full"),
        ("differs", "`overlay network ls --stale` on each voter"),
        ("half_silent", "the network between"),
        ("second_process", "for good"),
        ("of_a_newer_program", "see to it on h3"),
    ] {
        let mut alarmed = voter(3);
        alarmed.alarms.push(Alarm { kind: kind.to_owned(), text: "trouble".to_owned() });
        let answer = led(voter(1), told(voter(2)), told(alarmed));
        let fault = only(&answer);
        assert!(fault.remedy.contains(words), "{kind}: {fault:?}");
    }
}

#[test]
fn a_way_is_named_by_the_address_where_a_node_listens() {
    let seats = |mut status: MemberStatus| {
        for (seat, port) in status.seats.iter_mut().zip(7501..) {
            seat.listen = format!("10.0.0.{}:{port}", seat.node_id);
        }
        status
    };
    let unheard = MemberContact { heard_ms_ago: Some(9_000), ..contact(13, 90) };
    let cut_off =
        led(seats(hearing(13, unheard)), told(seats(voter(2))), told(seats(without_a_quorum(3))));
    let unreached = led(seats(voter(1)), told(seats(voter(2))), silent());
    let [second, third] = [2, 3].map(|node| told(seats(without_a_quorum(node))));
    let own = || MemberStatus { leader: String::new(), ..seats(agent(4)) };
    let unled = judge(&survey(own(), [(1, silent()), (2, second), (3, third)]));
    let nobody = judge(&survey(own(), [1, 2, 3].map(|node| (node, silent()))));
    for (answer, addresses) in [
        (cut_off, &["10.0.0.1:7501", "10.0.0.3:7503"][..]),
        (unreached, &["10.0.0.3:7503"]),
        (unled, &["10.0.0.2:7502", "10.0.0.3:7503"]),
        (nobody, &["10.0.0.1:7501", "10.0.0.2:7502", "10.0.0.3:7503"]),
    ] {
        let fault = only(&answer);
        for address in addresses {
            assert!(fault.remedy.contains(address), "{address}: {fault:?}");
        }
        assert!(!fault.remedy.contains("7400"), "{fault:?}");
    }
}
