//! The table `ip overlay` itself: when it is written, which part of it, and that nothing else is changed.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use overlay_common::Counter;
use overlay_ctl::{
    dataplane::gateway::{Changed, Rules, Table, changes},
    model::Transport,
};

use crate::{
    gateway::{HOST, Lab, WEB, published, rules},
    lab::{Netns, skip},
};

const BOUND: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_millis(400);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn some() -> Rules {
    let published = [
        published(Transport::Tcp, ANY, 8080, WEB, 80),
        published(Transport::Udp, Ipv4Addr::LOCALHOST, 5353, WEB, 53),
        published(Transport::Sctp, ANY, 9899, WEB, 99),
    ];
    Rules { published: published.into(), ..rules() }
}

/// A host with the devices of [`rules`].
fn host() -> Netns {
    let host = Netns::new("host");
    host.sh("for device in eth7 eth8; do ip link add $device type bridge; done");
    host
}

fn handles(host: &Netns) -> String {
    host.sh("nft -a list ruleset")
}

#[test]
fn what_is_as_wanted_is_not_written() {
    if skip() {
        return;
    }
    let host = host();
    host.block_on(|| async {
        let mut table = Table::default();
        assert_eq!(table.sync(&some()).await.unwrap(), Changed::Table);
        let written = handles(&host);
        assert_eq!(table.sync(&some()).await.unwrap(), Changed::Nothing);
        table.doubt();
        assert_eq!(table.sync(&some()).await.unwrap(), Changed::Nothing);
        // A new process, as after a restart of the node.
        assert_eq!(Table::default().sync(&some()).await.unwrap(), Changed::Nothing);
        assert_eq!(handles(&host), written, "not even a handle");
        // Only the differences are written, so that the rules keep their handles.
        let mut fewer = some();
        fewer.published.retain(|port, _| port.0 == Transport::Tcp);
        let changed = table.sync(&fewer).await.unwrap();
        assert_eq!(changed, Changed::Elements { added: 0, removed: 2 });
        let mut renamed = fewer.clone();
        renamed.published.values_mut().for_each(|target| target.comment = "web2 80/tcp".into());
        let changed = table.sync(&renamed).await.unwrap();
        assert_eq!(changed, Changed::Elements { added: 1, removed: 1 });
        assert_eq!(table.sync(&some()).await.unwrap(), Changed::Elements { added: 3, removed: 1 });
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(|line| line.trim().to_owned()).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&handles(&host)).len(), sorted(&written).len());
        let rules_of = |text: &str| {
            let rules =
                text.lines().filter(|line| line.contains("comment") && line.contains("# handle"));
            rules.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(rules_of(&handles(&host)), rules_of(&written));
        assert!(rules_of(&written).len() >= 10, "{written}");
        // A change of the bridge's subnet replaces the whole table.
        let other = Rules { subnet: "172.19.0.0/16".parse().unwrap(), ..some() };
        assert_eq!(table.sync(&other).await.unwrap(), Changed::Table);
        table.remove().await.unwrap();
        table.remove().await.unwrap();
    });
    assert_eq!(handles(&host), "");
}

/// NAT and connection states make the kernel track each connection of the host, whoever it belongs to.
#[test]
fn without_a_leg_the_host_s_connections_are_not_tracked() {
    if skip() {
        return;
    }
    let mut lab = Lab::new(&Rules { translates: false, ..rules() });
    let tracked = |lab: &Lab| -> u32 {
        lab.outside.sh(&format!("ping -c 1 -W 5 {HOST}"));
        let count = lab.host.sh("cat /proc/sys/net/netfilter/nf_conntrack_count");
        count.trim().parse().unwrap()
    };
    assert_eq!(tracked(&lab), 0);
    assert_eq!(lab.sync(&rules()), Changed::Table);
    assert_ne!(tracked(&lab), 0);
    lab.host.sh("nft list chain ip overlay postrouting");
    assert_eq!(lab.sync(&Rules { translates: false, ..rules() }), Changed::Table);
    lab.host.sh("! nft list chain ip overlay postrouting");
}

#[test]
fn what_reaches_the_vxlan_port_is_counted_and_no_count_is_lost() {
    if skip() {
        return;
    }
    let host = host();
    host.sh("ip link set lo up");
    let send = || {
        host.sh(r#"bash -c "for port in 4789 4790; do echo x > /dev/udp/127.0.0.1/\$port; done""#)
    };
    host.block_on(|| async {
        let mut table = Table::default();
        table.sync(&some()).await.unwrap();
        assert_eq!(table.unseen(), Counter::default());
        for (before, sent) in [(0, 1), (1, 3)] {
            for _ in before..sent {
                send();
            }
            table.doubt();
            table.sync(&some()).await.unwrap();
            assert_eq!((table.unseen().packets, table.unseen().bytes), (sent, sent * 30));
        }
        host.sh("nft flush ruleset");
        table.doubt();
        assert_eq!(table.sync(&some()).await.unwrap(), Changed::Table);
        send();
        table.doubt();
        assert_eq!(table.sync(&some()).await.unwrap(), Changed::Nothing);
        assert_eq!(table.unseen().packets, 4, "with those of the rule that is gone");
    });
}

#[test]
fn whatever_somebody_does_to_it_is_undone() {
    if skip() {
        return;
    }
    let host = host();
    host.block_on(|| async {
        let mut table = Table::default();
        table.sync(&some()).await.unwrap();
        let wanted = host.sh("nft list ruleset");
        for (edit, expected) in [
            ("delete table ip overlay", Changed::Table),
            ("flush ruleset", Changed::Table),
            ("flush chain ip overlay forward", Changed::Table),
            ("insert rule ip overlay forward accept", Changed::Table),
            ("add chain ip overlay mine", Changed::Table),
            ("add chain ip overlay forward { policy drop \\; }", Changed::Table),
            ("add table ip overlay { flags dormant \\; }", Changed::Table),
            ("add set ip overlay mine { type mark \\; }", Changed::Table),
            ("flush map ip overlay published_on_all_to_port", Changed::Table),
            ("add element ip overlay published_on_all_to_port { icmp . 22 : 22 }", Changed::Table),
            ("add element ip overlay published_on_all_to_port { tcp . 22 : 22 }", Changed::Table),
            (
                "add element ip overlay published_on_all_to_port { tcp . 22 : 22 } \\; \
                 add element ip overlay published_on_all_to_address { tcp . 22 : 172.18.0.9 }",
                Changed::Elements { added: 0, removed: 1 },
            ),
            (
                "delete element ip overlay published_on_one_to_port { 127.0.0.1 . udp . 5353 } \\; \
                 delete element ip overlay published_on_one_to_address { 127.0.0.1 . udp . 5353 }",
                Changed::Elements { added: 1, removed: 0 },
            ),
            ("flush set ip overlay opened", Changed::Elements { added: 2, removed: 0 }),
            ("add element ip overlay opened { lo }", Changed::Elements { added: 0, removed: 1 }),
            // A device that is gone has a number.
            ("add element ip overlay opened { 999 }", Changed::Elements { added: 0, removed: 1 }),
            (
                "add element ip overlay bridged { lo . eth7 }",
                Changed::Elements { added: 0, removed: 1 },
            ),
        ] {
            host.sh(&format!("nft {edit}"));
            assert_ne!(host.sh("nft list ruleset"), wanted, "{edit}");
            assert_eq!(table.sync(&some()).await.unwrap(), Changed::Nothing, "nobody told it");
            table.doubt();
            assert_eq!(table.sync(&some()).await.unwrap(), expected, "{edit}");
            assert_eq!(host.sh("nft list ruleset"), wanted, "{edit}");
        }
        // The flush happens before the table is told of it.
        host.sh("nft flush ruleset");
        let mut more = some();
        more.published.extend([published(Transport::Tcp, ANY, 81, WEB, 81)]);
        assert_eq!(table.sync(&more).await.unwrap(), Changed::Table);
    });
}

#[test]
fn tables_of_others_are_left_alone() {
    if skip() {
        return;
    }
    let host = host();
    host.sh("nft add table inet firewall");
    host.sh("nft add chain inet firewall in { type filter hook input priority 0 \\; }");
    host.sh("nft add rule inet firewall in tcp dport 22 accept");
    host.sh("nft add table ip6 overlay");
    host.sh("nft add table ip overlay2");
    let foreign = || {
        let all = handles(&host);
        all.split("\n}\n").filter(|table| !table.contains("table ip overlay {")).collect::<String>()
    };
    let before = foreign();
    assert!(before.contains("dport 22") && before.contains("ip6 overlay"), "{before}");
    host.block_on(|| async {
        let mut table = Table::default();
        table.sync(&some()).await.unwrap();
        assert_eq!(foreign(), before);
        table.sync(&rules()).await.unwrap();
        host.sh("nft flush chain ip overlay publish");
        table.doubt();
        table.sync(&some()).await.unwrap();
        assert_eq!(foreign(), before);
        table.remove().await.unwrap();
    });
    assert_eq!(foreign(), before);
}

#[test]
fn a_flush_is_heard_and_our_own_change_once() {
    if skip() {
        return;
    }
    let host = host();
    host.sh("nft add table inet firewall");
    host.block_on(|| async {
        let mut heard = changes().unwrap();
        let mut table = Table::default();
        let mut syncs = Vec::new();
        table.sync(&some()).await.unwrap();
        // The table is checked after each event, as a node does.
        let mut settle = async |table: &mut Table| {
            syncs.clear();
            while tokio::time::timeout(SILENCE, heard.recv()).await.is_ok() {
                table.doubt();
                syncs.push(table.sync(&some()).await.unwrap());
                assert!(syncs.len() < 10, "no end: {syncs:?}");
            }
            syncs.clone()
        };
        let after_writing = settle(&mut table).await;
        assert!(!after_writing.is_empty());
        assert!(
            after_writing.iter().all(|changed| *changed == Changed::Nothing),
            "{after_writing:?}"
        );

        host.sh("nft flush ruleset");
        let started = Instant::now();
        let after_flush = settle(&mut table).await;
        assert!(started.elapsed() < BOUND);
        assert_eq!(after_flush[0], Changed::Table);
        assert!(
            after_flush.contains(&Changed::Nothing),
            "its own change made it look: {after_flush:?}"
        );
        assert!(host.succeeds("nft list table ip overlay"));

        host.sh("nft add table inet firewall");
        assert_eq!(settle(&mut table).await, [], "others' changes are none of ours");
    });
}

#[test]
fn one_more_of_a_thousand_is_one_element() {
    if skip() {
        return;
    }
    let host = host();
    host.block_on(|| async {
        let mut table = Table::default();
        for present in [10u16, 1000] {
            let ports = |count: u16| Rules {
                published: (0..count)
                    .map(|i| published(Transport::Tcp, ANY, 32768 + i, WEB, 80))
                    .collect(),
                ..rules()
            };
            let started = Instant::now();
            table.sync(&ports(present)).await.unwrap();
            let filled = started.elapsed();
            let mut times = Vec::new();
            for _ in 0..7 {
                let started = Instant::now();
                let changed = table.sync(&ports(present + 1)).await.unwrap();
                times.push(started.elapsed());
                assert_eq!(changed, Changed::Elements { added: 1, removed: 0 });
                let changed = table.sync(&ports(present)).await.unwrap();
                assert_eq!(changed, Changed::Elements { added: 0, removed: 1 });
            }
            times.sort();
            let started = Instant::now();
            table.doubt();
            assert_eq!(table.sync(&ports(present)).await.unwrap(), Changed::Nothing);
            println!(
                "{present}: filled in {filled:?}, one more in {:?}, read back in {:?}",
                times[3],
                started.elapsed()
            );
        }
        let listed = host.sh("nft list table ip overlay");
        assert_eq!(listed.matches(" : 172.18.0.2").count(), 1000);
    });
}

#[test]
fn the_listing_explains_itself() {
    if skip() {
        return;
    }
    let host = host();
    host.block_on(|| async { Table::default().sync(&some()).await.unwrap() });
    let listed = host.sh("nft list table ip overlay");
    println!("{listed}");
    for line in listed.lines().map(str::trim) {
        let is_rule = ["dnat ", "accept", "drop", "masquerade", "jump "]
            .iter()
            .any(|verdict| line.contains(verdict) && !line.starts_with("type "));
        assert!(!is_rule || line.contains("comment \""), "{line}");
    }
    for part in ["tcp . 8080 comment \"web1 80/tcp\" : 172.18.0.2", "127.0.0.1 . udp . 5353"] {
        assert!(listed.contains(part), "{part} in {listed}");
    }
    // Programs that save and restore rulesets can read the list again.
    host.sh("nft list ruleset > /tmp/ovk-$$.nft; nft flush ruleset; nft -f /tmp/ovk-$$.nft; rm /tmp/ovk-$$.nft");
    host.block_on(|| async {
        assert_eq!(Table::default().sync(&some()).await.unwrap(), Changed::Nothing);
    });
}
