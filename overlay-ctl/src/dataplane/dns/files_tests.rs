//! Tests of the resolv.conf files of namespaces.

use tempfile::TempDir;

use super::*;

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn fixture() -> (TempDir, Files) {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path().join("netns"), "host1");
    (folder, files)
}

fn again(files: &Files, node: &str) -> Files {
    Files::new(files.folder.clone(), node)
}

const NONE: [String; 0] = [];

#[test]
fn a_file_is_written_and_everything_is_removed_again() {
    let (folder, mut files) = fixture();
    let path = files.path("web1");
    assert_eq!(files.sync(&set(&["web1", "web2"])), NONE);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# Written by overlay node host1,"), "{text}");
    assert!(text.ends_with("\nnameserver 127.0.0.11\noptions ndots:0\n"), "{text}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
    let before = fs::metadata(&path).unwrap();
    assert_eq!(files.sync(&set(&["web1"])), NONE);
    assert_eq!(Stamp::of(&before), Stamp::of(&fs::metadata(&path).unwrap()), "not written anew");
    assert!(!files.folder.join("web2").exists());
    assert_eq!(files.sync(&set(&[])), NONE);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the node created the folder too");
}

#[test]
fn a_file_that_was_changed_or_lost_is_written_again() {
    let (_folder, mut files) = fixture();
    let path = files.path("web1");
    files.sync(&set(&["web1"]));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}nameserver 8.8.8.8\n")).unwrap();
    assert_eq!(files.sync(&set(&["web1"])), NONE);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    fs::remove_file(&path).unwrap();
    assert_eq!(files.sync(&set(&["web1"])), NONE);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn what_is_not_ours_is_left_alone_and_said() {
    let (_folder, mut files) = fixture();
    let path = files.path("web1");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "nameserver 9.9.9.9\n").unwrap();
    for _ in 0..2 {
        let trouble = files.sync(&set(&["web1"]));
        assert_eq!(trouble.len(), 1);
        assert!(
            trouble[0].contains("web1/resolv.conf was not written by this node"),
            "{trouble:?}"
        );
    }
    assert_eq!(files.sync(&set(&[])), NONE);
    assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 9.9.9.9\n");
    fs::remove_file(&path).unwrap();
    assert_eq!(files.sync(&set(&["web1"])), NONE);
    fs::write(path.with_file_name("nsswitch.conf"), "").unwrap();
    assert_eq!(files.sync(&set(&[])), NONE);
    assert!(!path.exists() && path.with_file_name("nsswitch.conf").exists());
}

#[test]
fn leftovers_of_an_earlier_run_go_and_those_of_others_stay() {
    let (_folder, mut files) = fixture();
    files.sync(&set(&["ovk-gone", "ovk-kept"]));
    let foreign = files.path("ovk-foreign");
    fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    fs::write(&foreign, "").unwrap();
    let mut next = again(&files, "host1");
    assert_eq!(next.sync(&set(&["ovk-kept"])), NONE);
    assert!(!files.path("ovk-gone").exists() && !files.folder.join("ovk-gone").exists());
    assert!(files.path("ovk-kept").exists() && foreign.exists());

    // A second node on the machine removes the first one's file, because the namespace is gone.
    let mut other = again(&files, "host2");
    assert_eq!(other.sync(&set(&[])), NONE);
    assert!(!files.path("ovk-kept").exists() && foreign.exists());
}

#[test]
fn only_namespaces_of_ip_netns_have_such_a_file() {
    assert_eq!(netns_name(Path::new("/run/netns/web1")), Some("web1"));
    assert_eq!(netns_name(Path::new("/var/run/netns/web1")), Some("web1"));
    assert_eq!(netns_name(Path::new("/proc/17/ns/net")), None);
    assert_eq!(netns_name(Path::new("/run/netns/a/web1")), None);
    assert_eq!(netns_name(Path::new("web1")), None);
}
