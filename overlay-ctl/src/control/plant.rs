//! Bugs that a test plants in the product, to show that the simulator finds them. Nothing of it is in a build that is not for
//! tests.

use std::cell::Cell;

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
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
    /// An agent whose cursor is older than the change log gets what the log has, and not the whole view.
    DeltasAcrossCompaction,
    /// A kernel that was filled before the start is made that of the first view, however old that is.
    SweptEarly,
    /// The name and the address of a removed endpoint are given out at once.
    ReusedEarly,
}

impl Plant {
    /// All of them, each with the name that a command line gives it.
    pub(crate) const ALL: [(&str, Self); 10] = [
        ("hard-state-apart", Self::HardStateApart),
        ("suffix-kept", Self::SuffixKept),
        ("conf-without-snapshot", Self::ConfWithoutSnapshot),
        ("vote-after-amnesia", Self::VoteAfterAmnesia),
        ("waiter-kept", Self::WaiterKept),
        ("sent-before-written", Self::SentBeforeWritten),
        ("read-unconfirmed", Self::ReadUnconfirmed),
        ("deltas-across-compaction", Self::DeltasAcrossCompaction),
        ("swept-early", Self::SweptEarly),
        ("reused-early", Self::ReusedEarly),
    ];
}

thread_local! {
    static PLANTED: Cell<Option<Plant>> = const { Cell::new(None) };
}

/// Plants a bug in all that runs on this thread; `None` = none.
pub(crate) fn plant(bug: Option<Plant>) {
    PLANTED.set(bug);
}

/// Whether the bug is planted on this thread.
pub(crate) fn is_planted(bug: Plant) -> bool {
    PLANTED.get() == Some(bug)
}
