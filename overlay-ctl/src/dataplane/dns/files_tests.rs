//! Tests of the resolv.conf files of namespaces.

use tempfile::TempDir;

use super::*;

const CONTENT: &str = "nameserver 127.0.0.11\noptions ndots:0\n";

fn set(names: &[&str]) -> BTreeMap<String, Contents> {
    let contents = Contents::from([(Kind::ResolvConf, CONTENT.to_owned())]);
    names.iter().map(|name| ((*name).to_owned(), contents.clone())).collect()
}

/// The same with a file of the other kind.
fn set_both(names: &[&str], nsswitch: &str) -> BTreeMap<String, Contents> {
    let mut wanted = set(names);
    for contents in wanted.values_mut() {
        contents.insert(Kind::Nsswitch, nsswitch.to_owned());
    }
    wanted
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
    let path = files.path("web1", Kind::ResolvConf);
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
    let path = files.path("web1", Kind::ResolvConf);
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
    let path = files.path("web1", Kind::ResolvConf);
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
fn a_folder_that_was_there_stays_and_the_node_remembers_it() {
    let (_folder, mut files) = fixture();
    let theirs = files.folder.join("web1");
    fs::create_dir_all(&theirs).unwrap();
    files.sync(&set(&["web1", "web2"]));
    assert_eq!(files.sync(&set(&[])), NONE);
    assert!(theirs.exists() && !files.folder.join("web2").exists());
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 0);

    // Another process of the node removes what this one wrote.
    files.sync(&set_both(&["web1", "web2"], "hosts: dns\n"));
    let mut next = again(&files, "host1");
    next.sync(&set_both(&["web1", "web2"], "hosts: files dns\n"));
    let mut last = again(&files, "host1");
    assert_eq!(last.sync(&set(&[])), NONE);
    assert!(theirs.exists() && !files.folder.join("web2").exists());
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 0);
}

#[test]
fn each_namespace_has_the_files_that_it_is_to_have() {
    let (_folder, mut files) = fixture();
    let path = files.path("web1", Kind::Nsswitch);
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    assert_eq!(files.sync(&set_both(&["web1"], "hosts: dns\n")), NONE);
    assert!(read(&path).ends_with(".\nhosts: dns\n"), "{}", read(&path));
    // The host's file changed.
    assert_eq!(files.sync(&set_both(&["web1"], "hosts: files dns\n")), NONE);
    assert!(read(&path).ends_with(".\nhosts: files dns\n"), "{}", read(&path));
    // The host's file serves inside too.
    assert_eq!(files.sync(&set(&["web1"])), NONE);
    assert!(!path.exists() && files.path("web1", Kind::ResolvConf).exists());
    // Somebody else's is left alone, and is no trouble.
    fs::write(&path, "hosts: ldap\n").unwrap();
    assert_eq!(files.sync(&set_both(&["web1"], "hosts: dns\n")), NONE);
    assert_eq!(files.sync(&set(&[])), NONE);
    assert_eq!(read(&path), "hosts: ldap\n");
}

#[test]
fn leftovers_of_an_earlier_run_go_and_those_of_others_stay() {
    let (_folder, mut files) = fixture();
    files.sync(&set(&["ovk-gone", "ovk-kept"]));
    let foreign = files.path("ovk-foreign", Kind::ResolvConf);
    fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    fs::write(&foreign, "").unwrap();
    let mut next = again(&files, "host1");
    assert_eq!(next.sync(&set(&["ovk-kept"])), NONE);
    assert!(
        !files.path("ovk-gone", Kind::ResolvConf).exists()
            && !files.folder.join("ovk-gone").exists()
    );
    assert!(files.path("ovk-kept", Kind::ResolvConf).exists() && foreign.exists());

    // A second node on the machine removes the first one's file, because the namespace is gone.
    let mut other = again(&files, "host2");
    assert_eq!(other.sync(&set(&[])), NONE);
    assert!(!files.path("ovk-kept", Kind::ResolvConf).exists() && foreign.exists());
}

#[test]
fn only_namespaces_of_ip_netns_have_such_a_file() {
    assert_eq!(netns_name(Path::new("/run/netns/web1")), Some("web1"));
    assert_eq!(netns_name(Path::new("/var/run/netns/web1")), Some("web1"));
    assert_eq!(netns_name(Path::new("/proc/17/ns/net")), None);
    assert_eq!(netns_name(Path::new("/run/netns/a/web1")), None);
    assert_eq!(netns_name(Path::new("web1")), None);
}
