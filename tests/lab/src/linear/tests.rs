//! Histories of a register and of a lock that are known to be linearizable, or not.

use super::{Call, Object, Verdict, check, shortest};

const MOST: usize = 100_000;

/// A register that is 0 at first.
struct Register;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read(u32),
    Write(u32),
    /// Compare and swap, and whether it succeeded.
    Swap(u32, u32, bool),
}

use Access::{Read, Swap, Write};

impl Object for Register {
    type State = u32;
    type Operation = Access;

    fn apply(&self, state: &u32, operation: &Access) -> Option<u32> {
        match *operation {
            Read(value) => (value == *state).then_some(*state),
            Write(value) => Some(value),
            Swap(old, new, true) => (old == *state).then_some(new),
            Swap(old, _, false) => (old != *state).then_some(*state),
        }
    }

    fn only_reads(&self, operation: &Access) -> bool {
        matches!(operation, Read(_) | Swap(_, _, false))
    }
}

fn call(sent: u64, until: u64, operation: Access) -> Call<Access> {
    Call { sent, until, is_sure: true, operation }
}

/// A call without an answer.
fn pending(sent: u64, operation: Access) -> Call<Access> {
    Call { sent, until: u64::MAX, is_sure: false, operation }
}

fn verdict(calls: &[Call<Access>]) -> Verdict {
    check(&Register, &0, calls, MOST)
}

#[test]
fn an_old_value_is_refused_after_the_write_and_allowed_beside_it() {
    let write = call(1, 3, Write(7));
    assert_eq!(verdict(&[write.clone(), call(4, 5, Read(0))]), Verdict::NotLinearizable);
    assert_eq!(verdict(&[write.clone(), call(2, 5, Read(0))]), Verdict::Linearizable);
    assert_eq!(verdict(&[write, call(4, 5, Read(7))]), Verdict::Linearizable);
}

#[test]
fn two_readers_must_not_see_a_value_come_and_go() {
    let write = call(0, 10, Write(7));
    let seen = [call(1, 2, Read(7)), call(3, 4, Read(0))];
    assert_eq!(
        verdict(&[std::slice::from_ref(&write), &seen[..]].concat()),
        Verdict::NotLinearizable
    );
    let beside = [call(1, 4, Read(7)), call(3, 4, Read(0))];
    assert_eq!(verdict(&[&[write], &beside[..]].concat()), Verdict::Linearizable);
}

#[test]
fn what_nobody_wrote_is_refused() {
    assert_eq!(verdict(&[call(0, 1, Read(5))]), Verdict::NotLinearizable);
    assert_eq!(verdict(&[]), Verdict::Linearizable);
}

#[test]
fn a_call_without_an_answer_may_take_effect_late_or_never_and_not_twice_or_before_it_was_sent() {
    let write = pending(10, Write(7));
    let read = |at, value| call(at, at, Read(value));
    for (reads, expected) in [
        (vec![read(20, 0), read(30, 0)], Verdict::Linearizable),
        (vec![read(20, 0), read(1000, 7)], Verdict::Linearizable),
        (vec![read(20, 7), read(30, 0)], Verdict::NotLinearizable),
        (vec![read(5, 7)], Verdict::NotLinearizable),
    ] {
        assert_eq!(
            verdict(&[std::slice::from_ref(&write), &reads[..]].concat()),
            expected,
            "{reads:?}"
        );
    }
    let again = call(40, 41, Write(0));
    let reads = [read(20, 7), read(50, 7)];
    let twice = [&[write, again], &reads[..]].concat();
    assert_eq!(verdict(&twice), Verdict::NotLinearizable);
}

#[test]
fn what_may_have_taken_effect_until_its_answer_does_not_take_effect_later() {
    let tried = Call { sent: 1, until: 5, is_sure: false, operation: Write(7) };
    let read = |at, value| call(at, at, Read(value));
    for (reads, expected) in [
        (vec![read(9, 0)], Verdict::Linearizable),
        (vec![read(9, 7)], Verdict::Linearizable),
        (vec![read(6, 0), read(9, 7)], Verdict::NotLinearizable),
    ] {
        assert_eq!(
            verdict(&[std::slice::from_ref(&tried), &reads[..]].concat()),
            expected,
            "{reads:?}"
        );
    }
}

#[test]
fn a_read_that_fits_at_once_may_have_to_wait_for_what_was_over_before_it() {
    // The value 1 came before the read and went again, for another call tells that it replaced it.
    let calls = [
        Call { sent: 1, until: 5, is_sure: false, operation: Write(1) },
        call(2, 20, Swap(1, 0, true)),
        call(6, 7, Read(0)),
    ];
    assert_eq!(verdict(&calls), Verdict::Linearizable);
    assert_eq!(verdict(&calls[1..]), Verdict::NotLinearizable);
}

#[test]
fn of_two_who_take_a_lock_only_one_gets_it() {
    let [first, second] = [call(0, 9, Swap(0, 1, true)), call(1, 8, Swap(0, 2, true))];
    assert_eq!(verdict(&[first.clone(), second.clone()]), Verdict::NotLinearizable);
    let freed = call(2, 7, Swap(1, 0, true));
    assert_eq!(verdict(&[first.clone(), second, freed]), Verdict::Linearizable);
    let refused = call(1, 8, Swap(0, 2, false));
    assert_eq!(verdict(&[first, refused]), Verdict::Linearizable);
}

#[test]
fn a_long_history_of_many_at_once_is_decided() {
    // Four writers at a time; of each four another one must be taken last.
    let mut calls = Vec::new();
    for round in 0..40_u32 {
        let at = u64::from(round) * 100;
        calls.extend((0..4).map(|number| call(at + 1, at + 50, Write(round * 4 + number))));
        calls.push(call(at + 60, at + 70, Read(round * 4 + round % 4)));
    }
    calls.extend((0..3).map(|number| pending(number * 1000, Write(5000))));
    assert_eq!(verdict(&calls), Verdict::Linearizable);
    // A value that was overwritten long ago.
    calls.push(call(4001, 4001, Read(7)));
    assert_eq!(verdict(&calls), Verdict::NotLinearizable);
    assert_eq!(check(&Register, &0, &calls, 10), Verdict::Undecided);
}

#[test]
fn what_shows_a_fault_ends_with_it_and_has_no_other_reads() {
    let calls = [
        call(0, 1, Write(3)),
        call(2, 3, Read(3)),
        call(4, 5, Write(4)),
        call(6, 7, Read(4)),
        call(8, 9, Read(3)),
        call(10, 11, Write(9)),
        call(12, 13, Read(9)),
    ];
    assert_eq!(verdict(&calls), Verdict::NotLinearizable);
    let expected = [&calls[0], &calls[2], &calls[4]].map(Clone::clone);
    assert_eq!(shortest(&Register, &0, &calls, MOST), expected);
    assert_eq!(shortest(&Register, &0, &calls[..4], MOST), calls[..4]);
}
