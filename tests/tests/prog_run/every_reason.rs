//! Every drop reason has a case that shows it.

use std::collections::BTreeSet;

use overlay_common::DropReason;

use super::{bridging, cases::Expected, from_endpoint, from_gateway, from_underlay};

/// Reasons that no packet causes under test_run, each with an explanation.
const OUT_OF_REACH: &[(DropReason, &str)] = &[
    (
        DropReason::UnfinishedChecksum,
        "test_run leaves no checksum to others; the tables of `unfinished` come in by devices",
    ),
    (
        DropReason::EncapFailed,
        "test_run keeps no tag beside a frame; `against_model` cuts tagged frames that come in by devices",
    ),
];

#[test]
fn every_reason_has_a_case() {
    let mut shown = BTreeSet::new();
    let mut names = BTreeSet::new();
    for (table, cases) in [
        ("from_endpoint", from_endpoint::cases()),
        ("from_underlay", from_underlay::cases()),
        ("from_gateway", from_gateway::cases()),
        ("bridging, from_endpoint", bridging::sent()),
        ("bridging, from_underlay", bridging::received()),
    ] {
        for case in cases {
            assert!(names.insert((table, case.name)), "two cases are called {:?}", case.name);
            match case.expected {
                Expected::Drop(reason) => shown.extend([reason]),
                Expected::Replicated(lost) => shown.extend(lost),
                Expected::Told => shown.extend([DropReason::TooBig]),
                Expected::Pass | Expected::Allow | Expected::Redirect => {}
            }
        }
    }
    let excused: BTreeSet<_> = OUT_OF_REACH.iter().map(|(reason, _)| *reason).collect();
    for reason in DropReason::ALL {
        let (shown, excused) = (shown.contains(reason), excused.contains(reason));
        assert!(shown || excused, "{}: no case shows it", reason.name());
        assert!(!(shown && excused), "{}: a case shows it, so strike the excuse", reason.name());
    }
}
