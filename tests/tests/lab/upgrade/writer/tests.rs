//! With which errors a write may fail during an upgrade.

use super::is_foreseen;

#[test]
fn a_write_may_fail_for_want_of_a_leader_and_not_for_a_version() {
    let quorum = |why| format!("error: the cluster has no leader with a quorum ({why}); see");
    assert!(is_foreseen(&quorum("the leader changed"), &[]));
    assert!(!is_foreseen(&quorum("node h2 runs another version"), &[]));
    assert!(!is_foreseen("error: the node closed the connection; reset; see if it runs", &[]));
    assert!(!is_foreseen("error: this needs version 2 of the cluster, which is at version 1", &[]));
    let missed = "error: no endpoint with name end7; `overlay endpoint ls` lists them";
    assert!(!is_foreseen(missed, &[]));
    assert!(is_foreseen(missed, &["no endpoint with name end7;"]));
}
