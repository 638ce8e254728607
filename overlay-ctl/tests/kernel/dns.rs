//! Endpoints' names, which clients inside namespaces ask for.

use std::{
    io::Read as _,
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::RecordType,
};

use overlay_lab::Requirement;

use super::{
    dns_fixture::*,
    lab::{Netns, lacks, skip},
};

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, 16, last)
}

/// The zone that an answer without records names in lower case.
fn zone(answer: &Message) -> String {
    let soa = &answer.authorities[0];
    assert_eq!((answer.authorities.len(), soa.record_type()), (1, RecordType::SOA));
    soa.name.to_lowercase().to_string()
}

#[test]
fn names_of_ours_are_answered_at_once() {
    if skip() {
        return;
    }
    let (node, web1) = (Node::new(), Netns::new("web1"));
    node.set_well(web2(&[&web1]));
    assert_eq!(node.count(), 1);
    let socket = udp(&web1);
    for name in ["web2", "WEB2.myoverlay.", "web2.MyOverlay"] {
        let message = question(name, RecordType::A);
        let (answer, _) = ask(&socket, &message);
        assert_eq!((code(&answer), addresses(&answer)), (ResponseCode::NoError, vec![WEB2]));
        assert!(answer.authoritative && answer.recursion_available && answer.recursion_desired);
        assert!(!answer.truncation && answer.edns.is_none());
        let name = &message.queries[0].name;
        assert!(answer.queries[0].name.eq_case(name), "the question is repeated as written");
        assert!(answer.answers[0].name.eq_case(name) && answer.answers[0].ttl <= 10);
    }
    for wanted in [RecordType::AAAA, RecordType::MX, RecordType::TXT] {
        let (answer, _) = ask(&socket, &question("web2", wanted));
        assert_eq!((code(&answer), answer.answers.len()), (ResponseCode::NoError, 0));
        assert_eq!(zone(&answer), "web2.");
    }
    for (name, wanted, denied_in) in [
        ("nosuch", RecordType::A, "."),
        ("nosuch", RecordType::AAAA, "."),
        ("nosuch.MyOverlay", RecordType::A, "myoverlay."),
        ("a.web2.myoverlay", RecordType::TXT, "myoverlay."),
        ("77.16.16.172.in-addr.arpa", RecordType::PTR, "16.16.172.in-addr.arpa."),
    ] {
        let (answer, _) = ask(&socket, &question(name, wanted));
        assert_eq!((code(&answer), answer.answers.len()), (ResponseCode::NXDomain, 0));
        assert_eq!(zone(&answer), denied_in);
    }
    let (answer, _) = ask(&socket, &question("myoverlay", RecordType::SOA));
    assert_eq!((code(&answer), answer.answers.len()), (ResponseCode::NoError, 1));
    let (answer, _) = ask(&socket, &question("4.16.16.172.in-addr.arpa", RecordType::PTR));
    assert_eq!(answer.answers[0].data.to_string(), "web2.myoverlay.");
    // The host has no resolv.conf that could name a server.
    let (answer, _) = ask(&socket, &question("example.com", RecordType::A));
    assert_eq!(code(&answer), ResponseCode::ServFail);
}

#[test]
fn dig_is_content() {
    if lacks(&[Requirement::Root, Requirement::Tool("dig")]) {
        return;
    }
    let (node, web1) = (Node::new(), Netns::new("web1"));
    node.set_well(names(&[("web2", &[WEB2]), ("app", &[WEB2, address(5)])], &[&web1]));
    let dig = |arguments: &str| web1.sh(&format!("dig +tries=1 +time=5 @127.0.0.11 {arguments}"));
    assert_eq!(dig("+short web2"), "172.16.16.4\n");
    assert_eq!(dig("+short +tcp web2.myoverlay"), "172.16.16.4\n");
    assert_eq!(dig("+short -x 172.16.16.4"), "web2.myoverlay.\n");
    assert_eq!(dig("+short app").lines().count(), 2);
    let full = dig("AAAA web2");
    assert!(full.contains("status: NOERROR") && full.contains("ANSWER: 0"), "{full}");
    assert!(full.contains("flags: qr aa rd ra;") && full.contains("EDNS: version: 0"), "{full}");
    assert!(!full.contains("WARNING"), "{full}");
    assert!(dig("nosuch").contains("status: NXDOMAIN"));
    assert!(dig("+edns=1 +noednsnegotiation web2").contains("status: BADVERS"));
    assert!(dig("version.bind CH TXT").contains("status: REFUSED"));
    assert!(dig("+opcode=notify web2").contains("status: NOTIMP"));
    assert!(dig("+noedns +dnssec web2").contains("172.16.16.4"));
    assert_eq!(dig("+short +keepopen +tcp web2 app web2").lines().count(), 4);
}

#[test]
fn holders_of_an_alias_take_turns() {
    if skip() {
        return;
    }
    let (node, web1) = (Node::new(), Netns::new("web1"));
    let holders = [address(4), address(5), address(6)];
    node.set_well(names(&[("app", &holders), ("two", &holders[..2])], &[&web1]));
    let socket = udp(&web1);
    let mut first = Vec::new();
    for _ in 0..6 {
        let (answer, _) = ask(&socket, &question("app", RecordType::A));
        let found = addresses(&answer);
        assert_eq!(set_of(&found), set_of(&holders), "all of them");
        first.push(found[0]);
        // A question for a different name does not change the order of turns.
        ask(&socket, &question("two", RecordType::A));
    }
    assert_eq!(set_of(&first[..3]), set_of(&holders), "each is first once in three");
    assert_eq!(first[..3], first[3..]);
}

#[test]
fn a_namespace_knows_its_own_networks_alone() {
    if skip() {
        return;
    }
    let (node, web1, web2) = (Node::new(), Netns::new("web1"), Netns::new("web2"));
    let mut all = names(&[("web2", &[WEB2])], &[&web1, &web2]);
    let mut other = all.networks[&1].clone();
    other.name = "other".parse().unwrap();
    other.subnet = "10.128.0.0/24".parse().unwrap();
    other.records = [("db".to_owned(), vec![Ipv4Addr::new(10, 128, 0, 2)])].into_iter().collect();
    other.pointers.clear();
    all.networks.insert(2, other);
    all.namespaces.get_mut(&web2.path()).unwrap().networks = vec![2];
    node.set_well(all.clone());
    let (one, two) = (udp(&web1), udp(&web2));
    let known = |socket: &UdpSocket, name| {
        let (answer, _) = ask(socket, &question(name, RecordType::A));
        (code(&answer), addresses(&answer).len())
    };
    assert_eq!(known(&one, "web2"), (ResponseCode::NoError, 1));
    assert_eq!(known(&one, "db"), (ResponseCode::NXDomain, 0));
    assert_eq!(known(&one, "db.other"), (ResponseCode::ServFail, 0), "handed on, to nobody");
    assert_eq!(known(&two, "db.other"), (ResponseCode::NoError, 1));
    assert_eq!(known(&two, "web2"), (ResponseCode::NXDomain, 0));
    // web2's namespace joins the other network too.
    all.namespaces.get_mut(&web2.path()).unwrap().networks = vec![2, 1];
    node.set_well(all);
    assert_eq!(known(&two, "web2"), (ResponseCode::NoError, 1));
}

#[test]
fn answers_fit_what_the_client_takes() {
    if skip() {
        return;
    }
    let (node, web1) = (Node::new(), Netns::new("web1"));
    let holders: Vec<_> = (4..104).map(address).collect();
    node.set_well(names(&[("app", &holders)], &[&web1]));
    let socket = udp(&web1);
    let (answer, len) = ask(&socket, &question("app", RecordType::A));
    assert!(answer.truncation && len <= 512 && answer.edns.is_none(), "{len}");
    for (payload, limit, whole) in [(0, 512, false), (1232, 1232, false), (4096, 4096, true)] {
        let (answer, len) = ask(&socket, &with_edns(question("app", RecordType::A), payload));
        assert!(len <= limit, "{len} for {payload}");
        assert_eq!(answer.truncation, !whole);
        assert_eq!(addresses(&answer).len() == holders.len(), whole);
        assert!(answer.edns.is_some(), "never cut off");
    }
    let mut stream = tcp(&web1);
    write_frame(&mut stream, &question("app", RecordType::A));
    let answer = read_frame(&mut stream);
    assert_eq!(set_of(&addresses(&answer)), set_of(&holders));
    assert!(!answer.truncation);
}

#[test]
fn what_is_no_question_is_told_so_or_ignored() {
    if skip() {
        return;
    }
    let (node, web1) = (Node::new(), Netns::new("web1"));
    node.set_well(web2(&[&web1]));
    let socket = udp(&web1);
    let whole = question("web2", RecordType::A).to_vec().unwrap();
    for cut in [12, 13, whole.len() - 1] {
        socket.send(&whole[..cut]).unwrap();
        let (answer, _) = receive(&socket);
        assert_eq!(
            (code(&answer), &answer.metadata.id.to_be_bytes()[..]),
            (ResponseCode::FormErr, &whole[..2])
        );
    }
    let mut two = question("web2", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(code(&ask(&socket, &two).0), ResponseCode::FormErr);
    let mut update = question("web2", RecordType::SOA);
    update.metadata.op_code = OpCode::Update;
    socket.send(&update.to_vec().unwrap()).unwrap();
    assert_eq!(code(&receive(&socket).0), ResponseCode::NotImp);
    // An answer, and a message that is too short for an id, get no answer.
    let answer = ask(&socket, &question("web2", RecordType::A)).0;
    socket.send(&answer.to_vec().unwrap()).unwrap();
    socket.send(&whole[..11]).unwrap();
    socket.send(&[]).unwrap();
    let last = question("web2", RecordType::AAAA);
    ask(&socket, &last);
}

#[test]
fn a_connection_serves_many_questions_and_gives_way_when_idle() {
    if skip() {
        return;
    }
    let (node, web1) = (Node::new(), Netns::new("web1"));
    node.set_well(web2(&[&web1]));
    // All places are taken.
    let mut idle: Vec<_> = (0..32).map(|_| tcp(&web1)).collect();
    for stream in &mut idle {
        // Three questions are sent at once, and one more afterwards.
        let questions =
            [RecordType::A, RecordType::AAAA, RecordType::A].map(|t| question("web2", t));
        questions.iter().for_each(|question| write_frame(stream, question));
        for question in &questions {
            assert_eq!(read_frame(stream).metadata.id, question.metadata.id);
        }
        write_frame(stream, &questions[0]);
        assert_eq!(addresses(&read_frame(stream)), [WEB2]);
    }
    // The one that has been idle for the longest time makes room, and no other one.
    let mut late = tcp(&web1);
    write_frame(&mut late, &question("web2", RecordType::A));
    assert_eq!(addresses(&read_frame(&mut late)), [WEB2]);
    assert_eq!(idle[0].read(&mut [0]).unwrap(), 0, "closed");
    for stream in &mut idle[1..] {
        write_frame(stream, &question("web2", RecordType::A));
        assert_eq!(addresses(&read_frame(stream)), [WEB2]);
    }
    // In the end all are closed.
    for stream in &mut idle[1..] {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "closed");
    }
}

#[test]
fn names_change_as_one_under_load() {
    if skip() {
        return;
    }
    let (node, web1) = (Node::new(), Netns::new("web1"));
    let versions =
        [[address(11), address(12), address(13)], [address(21), address(22), address(23)]];
    let version = |number: usize| names(&[("app", &versions[number])], &[&web1]);
    node.set_well(version(0));
    let over = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let socket = udp(&web1);
                while !over.load(Ordering::Relaxed) {
                    let found =
                        set_of(&addresses(&ask(&socket, &question("app", RecordType::A)).0));
                    assert!(versions.iter().any(|version| set_of(version) == found), "{found:?}");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let socket = udp(&web1);
        for round in 0..200 {
            let number = (round + 1) % 2;
            node.set_well(version(number));
            let found = addresses(&ask(&socket, &question("app", RecordType::A)).0);
            let stale = set_of(&found) != set_of(&versions[number]);
            if stale {
                over.store(true, Ordering::Relaxed);
            }
            assert!(!stale, "an answer from names that were replaced");
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(asked.load(Ordering::Relaxed) > 100);
}

#[test]
fn a_taken_port_is_said_and_hinders_nobody() {
    if skip() {
        return;
    }
    let (node, web1, web3) = (Node::new(), Netns::new("web1"), Netns::new("web3"));
    let docker = inside(&web1, || UdpSocket::bind(RESOLVER).unwrap());
    let mut all = web2(&[&web1, &web3]);
    all.namespaces.insert("/run/netns/ovk-no-such".into(), namespace(1));
    let trouble = node.set(all.clone());
    assert_eq!(trouble.len(), 2, "{trouble:?}");
    assert!(trouble.iter().any(|line| line.contains(&web1.name) && line.contains("is taken")));
    assert!(trouble.iter().any(|line| line.contains("no network namespace")));
    assert_eq!(node.count(), 1);
    assert_eq!(addresses(&ask(&udp(&web3), &question("web2", RecordType::A)).0), [WEB2]);
    assert!(!node.file(&web1).exists() && node.file(&web3).exists());
    drop(docker);
    all.namespaces.remove(std::path::Path::new("/run/netns/ovk-no-such"));
    node.set_well(all);
    assert_eq!(addresses(&ask(&udp(&web1), &question("web2", RecordType::A)).0), [WEB2]);
    assert!(node.file(&web1).exists());
}

#[test]
fn a_loopback_that_is_down_is_said() {
    if skip() {
        return;
    }
    let (node, web1) = (Node::new(), Netns::new("web1"));
    web1.sh("ip link set lo down; ip addr flush dev lo");
    let trouble = node.set(web2(&[&web1]));
    assert!(trouble[0].contains("loopback device inside is down"), "{trouble:?}");
    web1.sh("ip link set lo up");
    node.set_well(web2(&[&web1]));
    assert_eq!(addresses(&ask(&udp(&web1), &question("web2", RecordType::A)).0), [WEB2]);
}
