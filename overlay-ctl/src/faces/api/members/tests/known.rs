//! What is said where it is not known how a voter is: nobody asked it, its answer says little, or others know a leader.

use super::*;

fn not_asked() -> [(NodeId, Answer); 2] {
    [(1, Answer::NotAsked), (3, Answer::NotAsked)]
}

/// The leader's word counts more than the answer, of which it may not even be known whose it is.
#[test]
fn a_voter_that_the_leader_does_not_hear_counts_as_lost_whatever_was_answered() {
    let unheard = || hearing(13, MemberContact { heard_ms_ago: Some(600_000), ..contact(13, 90) });
    for answered in [Answer::Earlier, Answer::NotAsked, silent(), told(voter(3))] {
        let shown = format!("{answered:?}");
        let answer = led(unheard(), told(voter(2)), answered);
        let verdict = "degraded: h1 leads, 2 of 3 voters keep up, and no further one may be lost";
        assert_eq!(answer.verdict, verdict, "{shown}");
        assert_eq!(answer.condition(), Condition::Degraded, "{shown}");
        let fault = only(&answer);
        assert!(fault.what.contains("h3") && fault.what.contains("600 s ago"), "{fault:?}");
        assert_ne!(fault.remedy, "");
    }
    for heard in [Answer::Earlier, Answer::NotAsked] {
        let answer = led(voter(1), told(voter(2)), heard);
        assert_eq!(answer.condition(), Condition::Healthy, "{:#?}", answer.faults);
    }
}

#[test]
fn who_asks_nobody_says_what_it_knows_itself() {
    // A follower hears the leader and nobody else.
    let answer = judge(&survey(voter(2), not_asked()));
    let verdict = "unknown: h1 leads, and h2 does not know how h3 is, which was not asked";
    assert_eq!((answer.condition(), answer.leader.as_str()), (Condition::Unknown, "h1"));
    assert_eq!((answer.verdict.as_str(), answer.faults.len()), (verdict, 0));
    assert_eq!(member(&answer, 1).unanswered, "it was not asked");
    // The leader hears them all.
    let others = || [(2, Answer::NotAsked), (3, Answer::NotAsked)];
    let answer = judge(&survey(voter(1), others()));
    assert_eq!(answer.condition(), Condition::Healthy, "{:#?}", answer.faults);
    let hours = hearing(13, MemberContact { heard_ms_ago: Some(7_200_000), ..contact(13, 90) });
    let answer = judge(&survey(hours, others()));
    assert_eq!(answer.condition(), Condition::Degraded);
    assert!(answer.verdict.contains("2 of 3"), "{}", answer.verdict);
}

#[test]
fn who_asked_nobody_never_says_that_a_quorum_is_lost() {
    let answer = judge(&survey(without_a_quorum(2), not_asked()));
    assert_eq!(answer.condition(), Condition::Unknown);
    let verdict = "unknown: no voter leads, as far as h2 knows, and it does not know how h1 and h3 are, which were not asked";
    assert_eq!(answer.verdict, verdict);
    let fault = only(&answer);
    assert!(fault.what.contains("h1 (not asked)"), "{fault:?}");
    assert!(fault.remedy.contains("without --stale"), "{fault:?}");
    assert!(!fault.remedy.contains("recover"), "{fault:?}");
}

#[test]
fn where_anybody_knows_a_leader_no_recovery_is_spoken_of() {
    let cut = || (2, told(without_a_quorum(2)));
    // The asked node, an agent, is served.
    let served = judge(&survey(agent(4), [(1, silent()), cut(), (3, silent())]));
    // Another one is, which was asked.
    let own = MemberStatus { leader: String::new(), ..agent(4) };
    let other = judge(&survey(own, [(1, silent()), cut(), (3, told(agent(3)))]));
    for (answer, by) in [(served, "h4"), (other, "h3")] {
        assert_eq!(answer.condition(), Condition::Unknown, "{}", answer.verdict);
        let verdict = format!("h1 leads, as {by} says");
        assert!(answer.verdict.contains(&verdict), "{}", answer.verdict);
        let fault = only(&answer);
        assert!(fault.what.contains("h2"), "{fault:?}");
        assert!(fault.remedy.contains("h1's host"), "{fault:?}");
        assert!(!fault.remedy.contains("recover"), "{fault:?}");
    }
}
