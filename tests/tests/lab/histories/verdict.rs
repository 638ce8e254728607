//! What the answers of a run say together: whether each name's history is linearizable, whether revisions rise, and whether
//! something had two owners.

use std::collections::{BTreeMap, BTreeSet};

use overlay_lab::linear::{Call, Verdict, check, shortest};

use super::{
    book::{Answer, Ask, Kind, Record, Removal},
    name::{Name, Operation},
};

/// Steps of one search, some hundred bytes each.
const MOST: usize = 1_000_000;

/// What is wrong, in a line, and all that shows it.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) shown: Vec<String>,
}

/// Checks each name; returns how many there are, and what is wrong. `last_look` is the last call of a name's history.
pub(super) fn names(
    records: &[Record],
    removals: &[Removal],
    last_look: impl Fn(&Record) -> Call<Operation>,
) -> (usize, Vec<Wrong>) {
    let mut by_name: BTreeMap<(Kind, &str), Vec<usize>> = BTreeMap::new();
    for (number, record) in records.iter().enumerate() {
        by_name.entry((record.kind, &record.name)).or_default().push(number);
    }
    let mut wrong = Vec::new();
    for ((kind, name), numbers) in &by_name {
        let mut calls: Vec<Call<Operation>> =
            numbers.iter().flat_map(|&number| records[number].calls(number)).collect();
        if *kind == Kind::Endpoint {
            calls.extend(removals.iter().map(|removal| removal.call()));
        }
        calls.extend(numbers.first().map(|&number| last_look(&records[number])));
        let found = match check(&Name, &None, &calls, MOST) {
            Verdict::Linearizable => continue,
            Verdict::NotLinearizable => "is not linearizable",
            Verdict::Undecided => "could not be checked: too many steps",
        };
        let mut shown =
            vec!["The shortest part, in microseconds from sent to answered:".to_owned()];
        shown.extend(shortest(&Name, &None, &calls, MOST).iter().map(|call| format!("{call:?}")));
        shown.push("All calls of the name:".to_owned());
        shown.extend(numbers.iter().map(|&number| format!("{number:>6} {}", records[number])));
        let what = format!("the history of {name}, {} calls, {found}", numbers.len());
        wrong.push(Wrong { what, shown });
    }
    (by_name.len(), wrong)
}

/// A write that is answered before another one is sent has the lower revision, and no two creations have the same.
pub(super) fn revisions(records: &[Record]) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let writes: Vec<(u64, &Record)> =
        records.iter().filter_map(|record| Some((record.revision()?, record))).collect();
    let mut by_answer = writes.clone();
    by_answer.sort_by_key(|(_, record)| record.answered);
    let mut by_sending = writes;
    by_sending.sort_by_key(|(_, record)| record.sent);
    let mut before = by_answer.into_iter().peekable();
    let mut greatest: Option<(u64, &Record)> = None;
    for (revision, record) in by_sending {
        while let Some(write) = before.next_if(|(_, earlier)| earlier.answered < record.sent) {
            if greatest.is_none_or(|(greatest, _)| write.0 > greatest) {
                greatest = Some(write);
            }
        }
        if let Some((earlier, other)) = greatest
            && earlier >= revision
        {
            let what = format!("revision {revision} was answered after {earlier}");
            wrong.push(Wrong { what, shown: vec![other.to_string(), record.to_string()] });
        }
    }
    let mut made: BTreeMap<u64, &Record> = BTreeMap::new();
    for record in records {
        if let Answer::Made(it) = &record.answer
            && let Some(other) = made.insert(it.id, record)
        {
            let what = format!("id {} was given twice", it.id);
            wrong.push(Wrong { what, shown: vec![other.to_string(), record.to_string()] });
        }
    }
    wrong
}

/// For how long a call's object had what nobody else may have: from its answer until it may have been removed.
struct Owned<'a> {
    from: u64,
    until: u64,
    record: &'a Record,
}

/// Nothing has two owners at one time.
pub(super) fn owners(records: &[Record], removals: &[Removal]) -> Vec<Wrong> {
    let mut owned: BTreeMap<(Kind, &str, &str), Vec<Owned<'_>>> = BTreeMap::new();
    for record in records {
        let Answer::Made(made) = &record.answer else { continue };
        let removed = records.iter().filter(|other| {
            other.ask == Ask::Remove
                && (other.kind, &other.name) == (record.kind, &record.name)
                && (other.answered >= record.sent || other.is_pending())
                && (other.revision().is_some() || other.is_pending())
        });
        let gone = removals
            .iter()
            .filter(|removal| Some(removal.host) == made.host && removal.answered >= record.sent);
        let until = removed.map(|other| other.sent).chain(gone.map(|removal| removal.sent)).min();
        let until = until.unwrap_or(u64::MAX);
        if until <= record.answered {
            continue;
        }
        for (of, value) in &made.owns {
            let owned = owned.entry((record.kind, of, value)).or_default();
            owned.push(Owned { from: record.answered, until, record });
        }
    }
    let mut wrong = Vec::new();
    for ((_, of, value), mut all) in owned {
        all.sort_by_key(|owned| owned.from);
        let mut last: Option<&Owned<'_>> = None;
        for owned in &all {
            if let Some(last) = last
                && last.until > owned.from
            {
                let what = format!("{of} {value} had two owners");
                let shown = vec![last.record.to_string(), owned.record.to_string()];
                wrong.push(Wrong { what, shown });
            }
            if last.is_none_or(|last| owned.until > last.until) {
                last = Some(owned);
            }
        }
    }
    wrong
}

/// The longest time, in microseconds, in which no write succeeded.
pub(super) fn longest_gap(records: &[Record], end: u64) -> u64 {
    let writes = records.iter().filter(|record| record.revision().is_some());
    let moments: BTreeSet<u64> =
        writes.map(|record| record.answered).filter(|&at| at < end).chain([0, end]).collect();
    let moments: Vec<u64> = moments.into_iter().collect();
    moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(end)
}
