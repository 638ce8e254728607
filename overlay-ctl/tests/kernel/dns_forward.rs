//! Names outside the overlay, which the host's name servers answer.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, UdpSocket},
    sync::mpsc,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Query, ResponseCode},
    rr::{Name, RecordType},
};
use std::str::FromStr as _;

use overlay_ctl::dataplane::dns::Fate;
use overlay_lab::Requirement;

use super::{
    dns_fixture::*,
    lab::{Netns, lacks, skip},
};

const QUICK: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn dnsmasq(netns: &Netns) -> Server {
    let mut arguments: Vec<String> = [
        "--host-record=www.example,192.0.2.80",
        "--txt-record=www.example,hello world",
        "--mx-host=www.example,mail.example,10",
        "--srv-host=_http._tcp.example,www.example,80",
        "--dns-rr=odd.example,65280,c0ffee",
        "--edns-packet-max=4096",
    ]
    .map(str::to_owned)
    .into();
    let text = "x".repeat(200);
    arguments.extend((0..12).map(|n| format!("--txt-record=big.example,{n:02}{text}")));
    Server::dnsmasq(netns, &arguments)
}

#[test]
fn the_hosts_server_answers_with_its_own_words() {
    if lacks(&[Requirement::Root, Requirement::Tool("dig"), Requirement::Tool("dnsmasq")]) {
        return;
    }
    let (node, dns) = Node::with_upstream("nameserver 10.0.0.2\n");
    let _server = dnsmasq(&dns);
    let web1 = Netns::new("web1");
    node.set_well(web2(&[&web1]));
    let dig = |arguments: &str| {
        let inside = web1.sh(&format!("dig +tries=1 +time=5 @127.0.0.11 {arguments}"));
        let direct = dns.sh(&format!("dig +tries=1 +time=5 @10.0.0.2 {arguments}"));
        // The whole answer: header, flags and sections. Ids, times and the server's address may differ.
        let said = |text: &str| {
            let counted = |line: &&str| {
                !line.is_empty()
                    && !["; <<>>", ";; Query time", ";; SERVER", ";; WHEN", ";; ->>HEADER"]
                        .iter()
                        .any(|prefix| line.starts_with(prefix))
                    && !line.contains("COOKIE")
            };
            text.lines().filter(counted).map(str::to_owned).collect::<BTreeSet<_>>()
        };
        assert_eq!(said(&inside), said(&direct), "{arguments}");
        inside
    };
    assert!(dig("www.example").contains("192.0.2.80"));
    assert!(dig("WWW.example TXT").contains("hello world"));
    assert!(dig("www.example MX +noedns").contains("mail.example."));
    assert!(dig("_http._tcp.example SRV").contains("0 0 80 www.example."));
    assert!(dig("odd.example TYPE65280").contains("C0FFEE"));
    assert!(dig("www.example AAAA").contains("ANSWER: 0"));
    assert!(dig("nosuch.example").contains("status: NXDOMAIN"));
    assert!(dig("+tcp www.example").contains("192.0.2.80"));
    // The answer is too large for a datagram: it is marked as cut, and dig asks again by TCP.
    for arguments in ["+noedns", "+bufsize=512", ""] {
        let big = dig(&format!("big.example TXT {arguments}"));
        assert_eq!(big.matches("xxx\"").count(), 12, "{big}");
        assert!(!arguments.contains("no") || big.contains("retrying in TCP mode"), "{big}");
    }
    assert!(dig("+noedns +ignore big.example TXT").contains(" tc "));
    assert!(dig("+bufsize=4096 +ignore big.example TXT").contains("ANSWER: 12"));
    // Reverse names outside the overlay's subnets are sent to the server too.
    assert!(dig("-x 192.0.2.80").contains("www.example."));
}

#[test]
fn nothing_leaves_a_namespace_without_a_way_out() {
    if skip() {
        return;
    }
    let (node, dns) = Node::with_upstream("nameserver 10.0.0.2\n");
    let (secret, open) = (Netns::new("web1"), Netns::new("web3"));
    let mut names = web2(&[&secret, &open]);
    names.namespaces.get_mut(&secret.path()).unwrap().has_outside = false;
    node.set_well(names.clone());
    let (told, heard) = mpsc::channel();
    let _server = Fake::start(&dns, "10.0.0.2", move |socket, question, client| {
        told.send(question.queries[0].name.to_string()).unwrap();
        socket.send_to(&reply(question, QUICK).to_vec().unwrap(), client).unwrap();
    });
    let (inside, mut stream) = (udp(&secret), tcp(&secret));
    let refused = [
        ("secret.example", RecordType::A),
        ("secret.example", RecordType::TXT),
        ("com", RecordType::NS),
        (".", RecordType::NS),
        ("8.8.8.8.in-addr.arpa", RecordType::PTR),
    ];
    for (name, wanted) in refused {
        let message = question(name, wanted);
        write_frame(&mut stream, &message);
        for answer in [ask(&inside, &message).0, read_frame(&mut stream)] {
            assert_eq!(code(&answer), ResponseCode::Refused, "{name} {wanted}");
            assert!(!answer.metadata.recursion_available);
        }
    }
    assert_eq!(node.questions(Fate::Refused), 2 * refused.len() as u64);
    assert_eq!(addresses(&ask(&inside, &question("web2", RecordType::A)).0), [WEB2]);
    assert_eq!(code(&ask(&inside, &question("nosuch", RecordType::A)).0), ResponseCode::NXDomain);
    let other = udp(&open);
    assert_eq!(addresses(&ask(&other, &question("open.example", RecordType::A)).0), [QUICK]);
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), ["open.example."]);
    // The namespace gets a network that leads outside.
    names.namespaces.get_mut(&secret.path()).unwrap().has_outside = true;
    node.set_well(names);
    assert_eq!(addresses(&ask(&inside, &question("open.example", RecordType::A)).0), [QUICK]);
}

#[test]
fn a_slow_answer_holds_up_no_other_one_of_its_connection() {
    if skip() {
        return;
    }
    let conf = "nameserver 10.0.0.2\noptions timeout:1 attempts:1\n";
    let (node, dns) = Node::with_upstream(conf);
    let web1 = Netns::new("web1");
    node.set_well(web2(&[&web1]));
    // It accepts connections, and never answers.
    let _silent = inside(&dns, || std::net::TcpListener::bind((UPSTREAM, 53)).unwrap());
    let mut stream = tcp(&web1);
    let slow = question("slow.example", RecordType::A);
    write_frame(&mut stream, &slow);
    for _ in 0..3 {
        let quick = question("web2", RecordType::A);
        write_frame(&mut stream, &quick);
        let answer = read_frame(&mut stream);
        assert_eq!((answer.metadata.id, addresses(&answer)), (quick.metadata.id, vec![WEB2]));
    }
    // The client sends no more, and gets its answer all the same.
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let answer = read_frame(&mut stream);
    assert_eq!((answer.metadata.id, code(&answer)), (slow.metadata.id, ResponseCode::ServFail));
}

#[test]
fn an_answer_that_was_not_asked_for_is_not_taken() {
    if skip() {
        return;
    }
    let (node, dns) = Node::with_upstream("nameserver 10.0.0.2\n");
    let web1 = Netns::new("web1");
    node.set_well(web2(&[&web1]));
    let stranger = inside(&dns, || UdpSocket::bind("10.0.0.3:53").unwrap());
    let forged = Ipv4Addr::new(203, 0, 113, 6);
    let (told, seen) = mpsc::channel();
    let _server = Fake::start(&dns, "10.0.0.2", move |socket, question, client| {
        let mut lies =
            vec![reply(question, forged), reply(question, forged), reply(question, forged)];
        lies[0].metadata.id ^= 1;
        lies[1].queries = vec![Query::query(Name::from_str("b.example").unwrap(), RecordType::A)];
        lies[2].queries[0].query_type = RecordType::AAAA;
        for lie in lies {
            socket.send_to(&lie.to_vec().unwrap(), client).unwrap();
        }
        stranger.send_to(&reply(question, forged).to_vec().unwrap(), client).unwrap();
        socket.send_to(b"nonsense", client).unwrap();
        // A question is not taken as an answer, even if everything else in it is right.
        socket.send_to(&question.to_vec().unwrap(), client).unwrap();
        socket.send_to(&reply(question, QUICK).to_vec().unwrap(), client).unwrap();
        told.send((client.port(), question.metadata.id)).unwrap();
    });
    let socket = udp(&web1);
    let message = question("a.example", RecordType::A);
    let mut seen_before = BTreeSet::new();
    for _ in 0..8 {
        assert_eq!(addresses(&ask(&socket, &message).0), [QUICK]);
        seen_before.insert(seen.recv_timeout(BOUND).unwrap());
    }
    let ports: BTreeSet<_> = seen_before.iter().map(|(port, _)| port).collect();
    let ids: BTreeSet<_> = seen_before.iter().map(|(_, id)| id).collect();
    assert!(
        ports.len() > 4 && ids.len() > 4,
        "the client's id is one, ours are not: {seen_before:?}"
    );
}

#[test]
fn one_namespace_cannot_starve_another() {
    if skip() {
        return;
    }
    // Memory for 127 questions, of which one namespace alone gets 64.
    let small = Node::with(|settings| settings.memory = 1 << 20);
    let (node, dns) = small.and_upstream("nameserver 10.0.0.2\noptions timeout:5 attempts:1\n");
    let (greedy, modest) = (Netns::new("web1"), Netns::new("web3"));
    node.set_well(web2(&[&greedy, &modest]));
    let _server = Fake::start(&dns, "10.0.0.2", |socket, question, client| {
        if question.queries[0].name.to_string().starts_with("quick") {
            socket.send_to(&reply(question, QUICK).to_vec().unwrap(), client).unwrap();
        }
    });
    let (many, one) = (udp(&greedy), udp(&modest));
    let begun = Instant::now();
    for number in 0..100 {
        many.send(&question(&format!("slow{number:02}.example"), RecordType::A).to_vec().unwrap())
            .unwrap();
    }
    // 64 questions are pending, and the other ones are refused at once.
    for _ in 64..100 {
        assert_eq!(code(&receive(&many).0), ResponseCode::ServFail);
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "not by time-out");
    assert_eq!(node.questions(Fate::OverLimit), 36);
    assert!(node.fallbacks()[0].contains(&greedy.name), "{:?}", node.fallbacks());
    // Meanwhile the overlay's names are answered, and another namespace's questions are forwarded.
    assert_eq!(addresses(&ask(&many, &question("web2", RecordType::A)).0), [WEB2]);
    for _ in 0..64 {
        let (answer, _) = ask(&one, &question("quick.example", RecordType::A));
        assert_eq!(addresses(&answer), [QUICK]);
    }
    for _ in 0..64 {
        assert_eq!(code(&receive(&many).0), ResponseCode::ServFail);
    }
    // All places for pending questions are free again.
    let (answer, _) = ask(&many, &question("quick.example", RecordType::A));
    assert_eq!(addresses(&answer), [QUICK]);
}

#[test]
fn many_questions_are_under_way_at_once() {
    if skip() {
        return;
    }
    let (node, dns) = Node::with_upstream("nameserver 10.0.0.2\n");
    let web1 = Netns::new("web1");
    node.set_well(web2(&[&web1]));
    // The server waits until it has all questions, and answers the last one first.
    let mut heard = Vec::new();
    let _server = Fake::start(&dns, "10.0.0.2", move |socket, question, client| {
        heard.push((question.clone(), client));
        if heard.len() == 200 {
            for (question, client) in heard.drain(..).rev() {
                let label = question.queries[0].name.iter().next().unwrap().to_vec();
                let number: u8 = String::from_utf8(label).unwrap()[1..].parse().unwrap();
                let answer = reply(&question, Ipv4Addr::new(192, 0, 2, number));
                socket.send_to(&answer.to_vec().unwrap(), client).unwrap();
            }
        }
    });
    let socket = udp(&web1);
    let mut waiting: Vec<_> = (0..200_u8)
        .map(|number| {
            let message = question(&format!("n{number}.example"), RecordType::A);
            socket.send(&message.to_vec().unwrap()).unwrap();
            Some((message.queries[0].name.clone(), message.metadata.id))
        })
        .collect();
    for _ in 0..200 {
        let (answer, _) = receive(&socket);
        let number = addresses(&answer)[0].octets()[3];
        let expected = waiting[usize::from(number)].take().expect("one answer each");
        assert_eq!((answer.queries[0].name.clone(), answer.metadata.id), expected);
    }
}
