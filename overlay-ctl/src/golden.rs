//! Files as released versions wrote them, which every later version reads for ever.
//!
//! They are in `tests/golden`, and never change, which the digests beside that folder hold them to: a version that writes
//! something else adds a file, with the next number, a line below, and one of its digest. `OVERLAY_WRITE_GOLDEN=1 cargo test -p overlay-ctl golden` writes
//! those that are missing and leaves the others alone.

mod descriptors;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use crate::{
    control::{
        consensus::golden as consensus,
        controller::golden as controller,
        state::{Outcome, Row, golden as state},
    },
    node::golden as node,
};

/// The folder of the files.
pub(crate) fn folder() -> PathBuf {
    // At the tests' run, as the path that the compiler saw may be that of another checkout with the same target folder.
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.join("tests/golden")
}

/// The content of a file that an earlier version wrote.
pub(crate) fn file(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

/// The content of a file; written now where it is missing and that is asked for.
fn content(file: &str, write: fn() -> Vec<u8>) -> Vec<u8> {
    let path = folder().join(file);
    if std::env::var_os("OVERLAY_WRITE_GOLDEN").is_some() && !path.exists() {
        fs::create_dir_all(folder()).unwrap();
        // One that has come in between is not overwritten either.
        File::create_new(&path).unwrap().write_all(&write()).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; OVERLAY_WRITE_GOLDEN=1 writes it", path.display())
    })
}

/// Each file: its test, its name, what wrote it, and what checks that it is read as what it was.
macro_rules! golden {
    ($($test:ident: $file:literal, $write:expr, $check:expr;)*) => {
        const FILES: &[&str] = &[$($file),*];
        $(
            #[test]
            fn $test() {
                let check: fn(&[u8]) = $check;
                check(&content($file, $write));
            }
        )*
    };
}

golden! {
    commands_of_the_log: "commands.1.msgpack",
        by_an_older_version,
        |bytes| state::check_entries(&from_msgpack::<Vec<Vec<u8>>>(bytes));
    commands_with_a_digest: "commands.2.msgpack",
        by_an_older_version,
        |bytes| state::check_entries_without_rules(&from_msgpack::<Vec<Vec<u8>>>(bytes));
    commands_with_the_number_of_their_rules: "commands.3.msgpack",
        || msgpack(&state::later_entries()),
        |bytes| state::check_later_entries(&from_msgpack::<Vec<Vec<u8>>>(bytes));
    commands_of_a_node_behind_nat: "commands.4.msgpack",
        || msgpack(&state::entries_behind_nat()),
        |bytes| state::check_entries_behind_nat(&from_msgpack::<Vec<Vec<u8>>>(bytes));
    commands_of_version_2: "commands.5.msgpack",
        || msgpack(&state::entries_of_version_2()),
        |bytes| state::check_entries_of_version_2(&from_msgpack::<Vec<Vec<u8>>>(bytes));
    outcomes_in_the_dedup_table: "outcomes.1.msgpack",
        by_an_older_version,
        |bytes| assert_eq!(from_msgpack::<Vec<Outcome>>(bytes), state::former_outcomes());
    later_outcomes: "outcomes.2.msgpack",
        || msgpack(&state::later_outcomes()),
        |bytes| assert_eq!(from_msgpack::<Vec<Outcome>>(bytes), state::later_outcomes());
    outcomes_with_legs_with_ids: "outcomes.3.msgpack",
        || msgpack(&state::outcomes()),
        |bytes| assert_eq!(from_msgpack::<Vec<Outcome>>(bytes), state::outcomes());
    outcomes_of_version_2: "outcomes.4.msgpack",
        || msgpack(&state::outcomes_of_version_2()),
        |bytes| assert_eq!(from_msgpack::<Vec<Outcome>>(bytes), state::outcomes_of_version_2());
    rows_of_a_watch: "rows.1.msgpack",
        by_an_older_version,
        |bytes| assert_eq!(from_msgpack::<Vec<Row>>(bytes), state::former_rows());
    rows_with_legs_with_ids: "rows.2.msgpack",
        || msgpack(&state::rows()),
        |bytes| assert_eq!(from_msgpack::<Vec<Row>>(bytes), state::rows());
    row_of_a_node_behind_nat: "rows.3.msgpack",
        || msgpack(&state::rows_behind_nat()),
        |bytes| assert_eq!(from_msgpack::<Vec<Row>>(bytes), state::rows_behind_nat());
    row_of_a_node_that_says_what_it_speaks: "rows.4.msgpack",
        || msgpack(&state::rows_of_version_2()),
        |bytes| assert_eq!(from_msgpack::<Vec<Row>>(bytes), state::rows_of_version_2());
    row_of_an_endpoint_that_may_be_taken_back: "rows.5.msgpack",
        || msgpack(&state::provisional_rows()),
        |bytes| assert_eq!(from_msgpack::<Vec<Row>>(bytes), state::provisional_rows());
    rows_of_nodes_that_are_doubted_and_lost: "rows.6.msgpack",
        || msgpack(&state::rows_with_leases()),
        |bytes| assert_eq!(from_msgpack::<Vec<Row>>(bytes), state::rows_with_leases());
    snapshot_with_rows_as_outcomes: "snapshot.2.msgpack",
        by_an_older_version, state::check_former_snapshot;
    snapshot_of_the_state: "snapshot.3.msgpack",
        by_an_older_version, state::check_former_snapshot;
    snapshot_with_legs_with_ids: "snapshot.4.msgpack", state::snapshot, state::check_snapshot;
    snapshot_of_version_2: "snapshot.5.msgpack",
        by_an_older_version, state::check_snapshot_of_version_2;
    snapshot_of_a_generation: "snapshot-of-a-generation.1.msgpack",
        state::snapshot_of_a_generation, state::check_snapshot_of_a_generation;
    log_with_each_command_of_version_2: "log-of-version-2.1.msgpack",
        || msgpack(&state::log_of_version_2()),
        |bytes| state::check_log_of_version_2(&from_msgpack::<Vec<Vec<u8>>>(bytes));
    state_after_the_log_of_version_2: "state-of-version-2.1.msgpack",
        state::state_of_version_2, state::check_state_of_version_2;
    hash_of_the_state: "state-hash.1.txt", state::hashes, state::check_hashes;
    backup_of_a_cluster: "backup.1", state::backup, state::check_backup;
    database_of_a_generation: "consensus-of-a-generation.1.redb",
        consensus::begun, consensus::check_begun;
    generation_of_a_node: "generation.1.json", node::generation, node::check_generation;
    machine_of_a_folder: "machine.1.json", node::machine, node::check_machine;
    database: "consensus.1.redb", by_an_older_version, consensus::check_former_database;
    database_of_this_version: "consensus.2.redb", consensus::database, consensus::check_database;
    entry_of_the_log: "entry.1.pb", consensus::entry, consensus::check_entry;
    message_between_voters: "message.1.pb", consensus::message, consensus::check_message;
    unfit_log: "unfit.1.txt", consensus::unfit, consensus::check_unfit;
    identity: "identity.1.json", consensus::identity_file, consensus::check_identity;
    mark: "mark.1.bin", consensus::mark, consensus::check_mark;
    request_that_is_forwarded: "forward-request.1.msgpack",
        controller::request, controller::check_request;
    answer_of_a_forwarded_request: "forward-answer.1.msgpack",
        by_an_older_version, controller::check_former_answer;
    answer_with_legs_with_ids: "forward-answer.2.msgpack",
        controller::answer, controller::check_answer;
    node_that_is_no_member: "node-new.1.json", node::new_node, node::check_new_node;
    node_that_is_a_member: "node-member.1.json", node::member, node::check_member;
    node_that_was_removed: "node-removed.1.json", node::removed, node::check_removed;
    places_of_a_run: "run.1.json", node::run, node::check_run;
    peers_of_a_node: "peers.1.json", node::peers, node::check_peers;
    underlay_before_the_node: "underlay.1.json", node::underlay, node::check_underlay;
    offloads_before_the_node: "offloads.1.json", node::offloads, node::check_offloads;
    gateway_subnet_that_a_node_had: "gateway.1.json", node::gateway, node::check_gateway;
    address_that_a_node_had: "address.1.json", node::address, node::check_address;
    forwarding_by_the_node: "forwarding.1.json", node::forwarding, node::check_forwarding;
    public_api: "overlay.v1.1.pb", by_an_older_version, descriptors::check_public;
    public_api_of_version_2: "overlay.v1.2.pb", descriptors::public, descriptors::check_public;
    api_between_nodes: "overlay.internal.v1.1.pb",
        by_an_older_version, descriptors::check_internal;
    api_between_nodes_that_forward: "overlay.internal.v1.2.pb",
        by_an_older_version, descriptors::check_internal;
    api_between_nodes_of_version_2: "overlay.internal.v1.3.pb",
        descriptors::internal, descriptors::check_internal;
}

/// The file is not missing, unless somebody removed it.
fn by_an_older_version() -> Vec<u8> {
    panic!("this version writes something else; restore the file")
}

fn msgpack(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(value).unwrap()
}

fn from_msgpack<T: DeserializeOwned>(bytes: &[u8]) -> T {
    rmp_serde::from_slice(bytes).unwrap()
}

/// A cluster at version 1 may have nodes with programs that speak nothing later: to the byte they get what they know.
#[test]
fn at_version_1_log_rows_and_snapshot_are_those_of_the_version_before() {
    assert_eq!(msgpack(&state::later_entries()), file("commands.3.msgpack"));
    assert_eq!(msgpack(&state::entries_behind_nat()), file("commands.4.msgpack"));
    assert_eq!(msgpack(&state::rows()), file("rows.2.msgpack"));
    assert_eq!(msgpack(&state::rows_behind_nat()), file("rows.3.msgpack"));
    assert_eq!(state::snapshot(), file("snapshot.4.msgpack"));
}

/// The same of version 2, which is frozen, too: what is written otherwise is of a later version.
#[test]
fn at_version_2_log_rows_and_snapshot_are_written_as_they_were() {
    let is = |file_name: &str, bytes: Vec<u8>| {
        assert!(
            bytes == file(file_name),
            "{file_name} is written in another way: that is version 3 of the cluster, or a defect"
        );
    };
    is("commands.5.msgpack", msgpack(&state::entries_of_version_2()));
    is("outcomes.4.msgpack", msgpack(&state::outcomes_of_version_2()));
    is("rows.4.msgpack", msgpack(&state::rows_of_version_2()));
    is("rows.5.msgpack", msgpack(&state::provisional_rows()));
    is("rows.6.msgpack", msgpack(&state::rows_with_leases()));
    is("snapshot-of-a-generation.1.msgpack", state::snapshot_of_a_generation());
    is("generation.1.json", node::generation());
    is("machine.1.json", node::machine());
    is("run.1.json", node::run());
    is("unfit.1.txt", consensus::unfit());
    is("forward-request.1.msgpack", controller::request());
    is("forward-answer.2.msgpack", controller::answer());
}

/// What a released program wrote is nobody's to change: `sha256sum -c ../golden.sha256`, in the folder of the files, says the
/// same.
#[test]
fn no_file_changes() {
    let list = folder().with_extension("sha256");
    let list = fs::read_to_string(&list).unwrap();
    let written: BTreeSet<String> = list.lines().map(str::to_owned).collect();
    let digest = |name: &&str| {
        let digest = Sha256::digest(file(name));
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{digest}  {name}")
    };
    let found: BTreeSet<String> = FILES.iter().map(digest).collect();
    let added: Vec<&String> = found.difference(&written).collect();
    let gone: Vec<&String> = written.difference(&found).collect();
    assert!(
        added.is_empty() && gone.is_empty(),
        "a file that was written once stays as it is; a new one gets its line in tests/golden.sha256: {added:#?}; not so any more: {gone:#?}"
    );
}

#[test]
fn every_file_is_read() {
    let names = |path: fs::DirEntry| path.file_name().into_string().unwrap();
    let found: BTreeSet<String> =
        fs::read_dir(folder()).unwrap().map(|file| names(file.unwrap())).collect();
    let read: BTreeSet<String> = FILES.iter().map(|&file| file.to_owned()).collect();
    assert_eq!(found, read);
}
