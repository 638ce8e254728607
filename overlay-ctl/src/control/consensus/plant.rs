//! Bugs that a test plants in this room, to show that the simulator finds them. Nothing of it is in a build that is not
//! for tests.

use std::cell::Cell;

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum Plant {
    /// Term, vote and commit are written in a transaction of their own, after that of the entries.
    HardStateApart,
    /// Entries that replace others leave those behind them in the log.
    SuffixKept,
    /// A snapshot from before a change of the members is sent to a member that it does not name.
    ConfWithoutSnapshot,
    /// A log that lacks what its node had acknowledged is used.
    VoteAfterAmnesia,
    /// A proposal is answered by whatever is applied at its index, whoever proposed that.
    WaiterKept,
    /// A follower's promises leave before they are on disk.
    SentBeforeWritten,
    /// A read is answered before a quorum confirms that nobody else leads.
    ReadUnconfirmed,
}

impl Plant {
    /// All of them, each with the name that a command line gives it.
    pub(in crate::control) const ALL: [(&str, Self); 7] = [
        ("hard-state-apart", Self::HardStateApart),
        ("suffix-kept", Self::SuffixKept),
        ("conf-without-snapshot", Self::ConfWithoutSnapshot),
        ("vote-after-amnesia", Self::VoteAfterAmnesia),
        ("waiter-kept", Self::WaiterKept),
        ("sent-before-written", Self::SentBeforeWritten),
        ("read-unconfirmed", Self::ReadUnconfirmed),
    ];
}

thread_local! {
    static PLANTED: Cell<Option<Plant>> = const { Cell::new(None) };
}

/// Plants a bug in all that runs on this thread; `None` = none.
pub(in crate::control) fn plant(bug: Option<Plant>) {
    PLANTED.set(bug);
}

/// Whether the bug is planted on this thread.
pub(super) fn is_planted(bug: Plant) -> bool {
    PLANTED.get() == Some(bug)
}
