//! By which facts a folder counts as moved.

use super::*;

fn fact(fact: &str) -> Option<String> {
    Some(fact.to_owned())
}

/// A voter's folder on a machine that tells everything.
fn bound() -> Binding {
    Binding {
        machine: fact("installation"),
        product: fact("hardware"),
        boot: fact("boot"),
        inode: Some(7),
        made: Some(1_000),
    }
}

pub(crate) fn machine() -> Vec<u8> {
    serde_json::to_vec_pretty(&bound()).unwrap()
}

pub(crate) fn check_machine(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), bytes).unwrap();
    assert_eq!(read_json::<Binding>(&dir.path().join(FILE)).unwrap(), Some(bound()));
}

#[test]
fn a_folder_belongs_where_a_node_runs_with_it() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(moved(dir.path()), None, "no facts were kept");
    fs::write(dir.path().join(FILE), machine()).unwrap();
    let is_known = Binding::now(dir.path()).machine.is_some();
    assert_eq!(moved(dir.path()), is_known.then_some(Moved::Machine));
    bind(dir.path());
    assert_eq!(moved(dir.path()), None, "it is bound here");
    fs::write(dir.path().join(FILE), b"{\"machine\"").unwrap();
    assert_eq!(moved(dir.path()), None, "a damaged file tells nothing");
    bind(dir.path());
    fs::write(dir.path().join(LogStore::DATABASE), b"log").unwrap();
    bind(dir.path());
    let written = fs::read(dir.path().join(FILE)).unwrap();
    // The time at which a file is made is that of the kernel's last tick.
    let made = |name: &str| fs::metadata(dir.path().join(name)).unwrap().created().ok();
    loop {
        fs::copy(dir.path().join(LogStore::DATABASE), dir.path().join("copy")).unwrap();
        let copy = made("copy");
        if copy.is_none() || copy != made(LogStore::DATABASE) {
            break;
        }
        fs::remove_file(dir.path().join("copy")).unwrap();
    }
    fs::rename(dir.path().join("copy"), dir.path().join(LogStore::DATABASE)).unwrap();
    assert_eq!(moved(dir.path()), Some(Moved::Copied));
    assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), written, "it is bound when it is used");
}

#[test]
fn hardware_counts_more_than_the_installation_and_a_fact_that_is_missing_tells_nothing() {
    let rebooted = || Binding { boot: fact("another"), ..bound() };
    let another = || fact("another");
    for (what, now, moved) in [
        ("nothing changed", bound(), None),
        ("a reboot", rebooted(), None),
        ("a new installation", Binding { machine: another(), ..rebooted() }, None),
        ("no machine-id any more", Binding { machine: None, ..rebooted() }, None),
        (
            "a clone of a virtual machine",
            Binding { product: another(), ..rebooted() },
            Some(Moved::Machine),
        ),
        (
            "the disk in other hardware",
            Binding { product: another(), machine: another(), ..rebooted() },
            Some(Moved::Machine),
        ),
        (
            "another machine, which does not tell its hardware",
            Binding { product: None, machine: another(), ..rebooted() },
            Some(Moved::Machine),
        ),
        ("no fact", Binding { product: None, machine: None, ..rebooted() }, None),
        ("a machine-id that is set while it runs", Binding { machine: another(), ..bound() }, None),
        ("a copy of the log", Binding { made: Some(2_000), ..bound() }, Some(Moved::Copied)),
        (
            "a copy, and a reboot",
            Binding { made: Some(2_000), inode: Some(9), ..rebooted() },
            Some(Moved::Copied),
        ),
        ("numbers of files that changed", Binding { inode: Some(9), ..bound() }, None),
        (
            "a copy where files have no time of birth",
            Binding { made: None, inode: Some(9), ..bound() },
            Some(Moved::Copied),
        ),
        (
            "a file system without times of birth that was mounted again",
            Binding { made: None, inode: Some(9), ..rebooted() },
            None,
        ),
        ("a folder of an agent", Binding { made: None, inode: None, ..bound() }, None),
    ] {
        assert_eq!(now.moved_since(&bound()), moved, "{what}");
    }
    assert_eq!(bound().moved_since(&Binding::default()), None, "nothing was known");
}

#[test]
fn only_an_id_that_identifies_counts() {
    let id = "3d1219c7c4c5404aaa1f6d2a48adfda4";
    for (text, counts) in [
        (format!("{id}\n"), true),
        ("3D1219C7-C4C5-404A-AA1F-6D2A48ADFDA4\n".to_owned(), true),
        (String::new(), false),
        ("\n".to_owned(), false),
        ("uninitialized\n".to_owned(), false),
        ("00000000-0000-0000-0000-000000000000".to_owned(), false),
        ("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF".to_owned(), false),
        ("Not Settable".to_owned(), false),
    ] {
        assert_eq!(identifying(&text).as_deref(), counts.then_some(id), "{text:?}");
    }
    let kept = digest(id);
    assert_eq!(kept.len(), 2 * DIGEST);
    assert!(!kept.contains(&id[..8]), "the id itself is not kept: {kept}");
}

#[test]
fn a_copy_of_a_file_is_told_from_it_and_what_is_written_into_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let [log, copy] = ["log", "copy"].map(|name| dir.path().join(name));
    fs::write(&log, "1").unwrap();
    let bound = Binding::now(&log);
    fs::write(&log, "2").unwrap();
    assert_eq!(Binding::now(&log).moved_since(&bound), None);
    fs::copy(&log, &copy).unwrap();
    assert_eq!(Binding::now(&copy).moved_since(&bound), Some(Moved::Copied));
    assert_eq!(Binding::now(&dir.path().join("none")).moved_since(&bound), None);
}
