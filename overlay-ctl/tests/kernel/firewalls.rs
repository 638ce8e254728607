//! The rules of foreign firewalls, as the programs themselves wrote them: what of them hinders endpoints and nodes is found,
//! and no longer once the commands that are advised have been run.

use overlay_ctl::dataplane::gateway::Passage;
use overlay_lab::Requirement;

use crate::lab::{Netns, lacks};

const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Tool("nft"),
    Requirement::Tool("iptables-nft-restore"),
    Requirement::Tool("iptables-legacy-restore"),
    Requirement::Tool("iptables-legacy-save"),
];
/// The folder of the rules; the head of each file names the program, its version and what was run.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/firewalls");
const OUT_AND_IN: &str =
    "drops what endpoints send to the outside, and what is for published ports";
const OUT: &str = "drops what endpoints send to the outside: ";
const API: &str = "drops what other nodes send to this one (TCP 7400)";

/// What of the rules in a namespace hinders a node.
fn hindrances(host: &Netns) -> Vec<String> {
    let subnet = "172.18.0.0/16".parse().unwrap();
    let passage = Passage { bridge: "ov_gwbridge", subnet, api: 7400 };
    host.block_on(|| async move { passage.hindrances().await.unwrap() })
}

/// Fails unless each sentence contains its two parts: a place, and what is dropped.
fn says(said: &[String], expected: &[[&str; 2]], what: &str) {
    assert_eq!(said.len(), expected.len(), "{what}: {said:#?}");
    for parts in expected {
        let is_said = said.iter().any(|said| parts.iter().all(|part| said.contains(part)));
        assert!(is_said, "{what}: {parts:?} in {said:#?}");
    }
}

/// The commands in the head of a file that were run before its rules were recorded.
fn commands(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("{FOLDER}/{file}")).unwrap();
    let head = text.lines().map_while(|line| line.strip_prefix("# "));
    head.skip(1).map(str::to_owned).collect()
}

#[test]
fn what_real_firewalls_drop_is_found_and_what_is_advised_lets_it_through() {
    if lacks(NEEDS) {
        return;
    }
    let filter = ["table ip filter, chain FORWARD (hook forward, priority 0)", OUT_AND_IN];
    for (before, after, load, expected) in [
        (
            "firewalld.nft",
            "firewalld-advised.nft",
            "nft -f",
            &[
                ["table inet firewalld, chain filter_FORWARD (hook forward, priority 10)", OUT],
                ["table inet firewalld, chain filter_INPUT (hook input, priority 10)", API],
            ][..],
        ),
        (
            "ufw.rules",
            "ufw-advised.rules",
            "iptables-nft-restore",
            &[filter, ["table ip filter, chain INPUT (hook input, priority 0)", API]],
        ),
        ("docker.rules", "docker-advised.rules", "iptables-nft-restore", &[filter]),
        (
            "ufw.rules",
            "ufw-advised.rules",
            "iptables-legacy-restore",
            &[
                ["table ip filter of iptables-legacy, chain FORWARD (hook forward", OUT_AND_IN],
                ["table ip filter of iptables-legacy, chain INPUT (hook input", API],
            ],
        ),
        (
            "docker.rules",
            "docker-advised.rules",
            "iptables-legacy-restore",
            &[["table ip filter of iptables-legacy, chain FORWARD", OUT_AND_IN]],
        ),
    ] {
        let host = Netns::new("host");
        assert_eq!(hindrances(&host), Vec::<String>::new());
        let what = format!("{load} {before}");
        host.sh(&format!("{load} {FOLDER}/{before}"));
        let said = hindrances(&host);
        says(&said, expected, &what);
        for command in commands(after) {
            let command = match load {
                "iptables-legacy-restore" => command.replace("iptables ", "iptables-legacy "),
                _ => command,
            };
            let is_said = said.iter().any(|said| said.contains(&format!("run `{command}`")));
            assert!(is_said, "{what}: {command} in {said:#?}");
        }
        if load.starts_with("nft") {
            host.sh("nft flush ruleset");
        }
        host.sh(&format!("{load} {FOLDER}/{after}"));
        says(&hindrances(&host), &[], &format!("{load} {after}"));
    }
}

#[test]
fn ports_that_are_opened_for_some_are_not_called_shut() {
    if lacks(NEEDS) {
        return;
    }
    let host = Netns::new("host");
    host.sh("nft \"add table inet fw; add chain inet fw in { type filter hook input priority 0; policy drop; }\"");
    let place = ["table inet fw, chain in (hook input, priority 0)", API];
    for (rule, is_shut) in [
        ("tcp dport 22 accept", true),
        ("ct state established,related accept", true),
        ("ip saddr 10.0.0.0/8 accept", false),
        ("iifname eth0 tcp dport 7000-7999 accept", false),
        ("tcp dport vmap { 22 : accept, 80 : accept }", true),
        ("tcp dport vmap { 22 : accept, 7400 : accept }", false),
        ("meta l4proto { icmp, udp } accept", true),
        ("meta mark 7 accept", false),
    ] {
        host.sh(&format!("nft \"flush chain inet fw in; add rule inet fw in {rule}\""));
        let expected = if is_shut { std::slice::from_ref(&place) } else { &[] };
        says(&hindrances(&host), expected, rule);
    }
}
