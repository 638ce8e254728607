//! Which of the host's name servers are asked, and which are not.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::mpsc,
    time::{Duration, Instant},
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use overlay_ctl::dataplane::dns::Fate;

use super::{
    dns_fixture::*,
    lab::{Netns, skip},
};

const QUICK: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

#[test]
fn a_silent_server_means_servfail_within_the_time_out() {
    if skip() {
        return;
    }
    let conf = "nameserver 10.0.0.2\noptions timeout:1 attempts:2\n";
    let (node, dns) = Node::with_upstream(conf);
    let asked = inside(&dns, || UdpSocket::bind((UPSTREAM, 53)).unwrap());
    let web1 = Netns::new("web1");
    node.set_well(web2(&[&web1]));
    let socket = udp(&web1);
    let begun = Instant::now();
    let (answer, _) = ask(&socket, &with_edns(question("www.example", RecordType::A), 1232));
    let took = begun.elapsed();
    assert_eq!(code(&answer), ResponseCode::ServFail);
    assert!(answer.edns.is_some() && answer.recursion_available && !answer.authoritative);
    assert!(took >= Duration::from_millis(1900) && took < Duration::from_secs(4), "{took:?}");
    asked.set_nonblocking(true).unwrap();
    let sent = std::iter::from_fn(|| asked.recv(&mut [0; 512]).ok()).count();
    assert_eq!(sent, 2, "once for each attempt");

    // When nobody listens, the failure is known at once.
    drop(asked);
    let begun = Instant::now();
    let (answer, _) = ask(&socket, &question("www.example", RecordType::A));
    assert_eq!(code(&answer), ResponseCode::ServFail);
    assert!(begun.elapsed() < Duration::from_secs(1));
    // A question by TCP fails in the same way.
    let mut stream = tcp(&web1);
    write_frame(&mut stream, &question("www.example", RecordType::A));
    assert_eq!(code(&read_frame(&mut stream)), ResponseCode::ServFail);
    // The host names no server that can be used.
    for conf in ["", "nameserver 127.0.0.11\n"] {
        node.conf(conf);
        let (answer, _) = ask(&socket, &question("www.example", RecordType::A));
        assert_eq!(code(&answer), ResponseCode::ServFail);
    }
}

#[test]
fn the_next_server_is_asked_where_one_fails() {
    if skip() {
        return;
    }
    let (node, dns) = Node::with_upstream("nameserver 10.0.0.2\nnameserver 10.0.0.3\n");
    let web1 = Netns::new("web1");
    node.set_well(web2(&[&web1]));
    let socket = udp(&web1);
    let second = Ipv4Addr::new(192, 0, 2, 2);
    let _good = Fake::start(&dns, "10.0.0.3", move |socket, question, client| {
        let silent = question.queries[0].name.to_string().starts_with("both");
        let bytes = if silent {
            refusal(question, ResponseCode::Refused).to_vec().unwrap()
        } else {
            reply(question, second).to_vec().unwrap()
        };
        socket.send_to(&bytes, client).unwrap();
    });
    let codes = [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp];
    for failure in codes {
        let _bad = Fake::start(&dns, "10.0.0.2", move |socket, question, client| {
            socket.send_to(&refusal(question, failure).to_vec().unwrap(), client).unwrap();
        });
        let begun = Instant::now();
        let (answer, _) = ask(&socket, &question("a.example", RecordType::A));
        assert_eq!(addresses(&answer), [second], "{failure}");
        assert!(begun.elapsed() < Duration::from_secs(2), "at once");
        let (answer, _) = ask(&socket, &question("both.example", RecordType::A));
        assert_eq!(code(&answer), failure, "what the first one said");
    }
    // The first server is slow, so the second one is asked, and the first answer is taken.
    let (told, slow) = mpsc::channel();
    let _slow = Fake::start(&dns, "10.0.0.2", move |_, _, client| told.send(client).unwrap());
    let (answer, _) = ask(&socket, &question("a.example", RecordType::A));
    assert_eq!(addresses(&answer), [second]);
    slow.recv_timeout(BOUND).unwrap();
    // From then on no client waits for it.
    for _ in 0..4 {
        let (answer, _) = ask(&socket, &question("a.example", RecordType::A));
        assert_eq!(addresses(&answer), [second]);
    }
    assert!(slow.try_recv().is_err(), "it is asked last");
    assert!(node.fallbacks()[0].contains("10.0.0.2 does not answer"), "{:?}", node.fallbacks());
    // After a while one question is sent to it beside the other server, which answers meanwhile.
    eventually("it is tried again", || {
        let (answer, _) = ask(&socket, &question("a.example", RecordType::A));
        assert_eq!(addresses(&answer), [second]);
        slow.try_recv().is_ok()
    });
}

#[test]
fn a_server_that_answers_again_has_its_place_again() {
    if skip() {
        return;
    }
    let (node, dns) = Node::with_upstream("nameserver 10.0.0.2\nnameserver 10.0.0.3\n");
    let web1 = Netns::new("web1");
    node.set_well(web2(&[&web1]));
    let socket = udp(&web1);
    let second = Ipv4Addr::new(192, 0, 2, 2);
    let serve = |address: &'static str, says: Ipv4Addr| {
        Fake::start(&dns, address, move |socket, question, client| {
            socket.send_to(&reply(question, says).to_vec().unwrap(), client).unwrap();
        })
    };
    let _second = serve("10.0.0.3", second);
    let found = || addresses(&ask(&socket, &question("a.example", RecordType::A)).0)[0];
    // Nobody listens at the first server.
    assert_eq!(found(), second);
    assert!(node.fallbacks()[0].contains("asked last"), "{:?}", node.fallbacks());
    let _first = serve("10.0.0.2", QUICK);
    eventually("the first server answers", || found() == QUICK);
    eventually("nothing is wrong", || node.fallbacks().is_empty());
    assert_eq!(found(), QUICK);
}

#[test]
fn a_question_that_comes_back_is_not_sent_again() {
    if skip() {
        return;
    }
    let (node, dns) = Node::with_upstream("nameserver 10.0.0.2\n");
    let (web1, web3) = (Netns::new("web1"), Netns::new("web3"));
    node.set_well(web2(&[&web1, &web3]));
    // The host's server is in the hands of an endpoint, which asks its own resolver: with the same octets, or with other
    // upper and lower case each time.
    let backward: Vec<_> = (0..200).map(|_| udp(&web1)).collect();
    let (told, heard) = mpsc::channel();
    let mut turns = 0;
    let _server = Fake::start(&dns, "10.0.0.2", move |_, question, _| {
        let mut question = question.clone();
        if question.queries[0].name.to_string().to_lowercase().contains("odd") {
            question.queries[0].name.randomize_label_case();
        }
        backward[turns].send(&question.to_vec().unwrap()).unwrap();
        turns += 1;
        told.send(question.queries[0].name.to_string()).unwrap();
    });
    let socket = udp(&web3);
    let (answer, _) = ask(&socket, &question("same.example", RecordType::A));
    assert_eq!(code(&answer), ResponseCode::ServFail);
    assert_eq!(node.questions(Fate::Unanswered), 0, "not by time-out");
    assert!(node.questions(Fate::Loop) >= 1);
    assert!(node.fallbacks()[0].contains("loop"), "{:?}", node.fallbacks());
    // Without the questions by which the node looks whether the server is there again, which come when they come.
    let turns = || heard.try_iter().filter(|name| !name.contains("check")).count();
    let first = turns();
    assert!(first <= 2, "{first} turns: one of each namespace");
    // It is not asked any more, and names of the overlay are answered.
    let (answer, _) = ask(&socket, &question("odd.example", RecordType::A));
    assert_eq!((code(&answer), turns()), (ResponseCode::ServFail, 0));
    assert_eq!(addresses(&ask(&socket, &question("web2", RecordType::A)).0), [WEB2]);
}

#[test]
fn a_question_that_comes_back_changed_is_known_too() {
    if skip() {
        return;
    }
    let (node, dns) = Node::with_upstream("nameserver 10.0.0.2\nnameserver 10.0.0.3\n");
    let web1 = Netns::new("web1");
    node.set_well(web2(&[&web1]));
    let backward: Vec<_> = (0..200).map(|_| udp(&web1)).collect();
    let mut turns = 0;
    let _server = Fake::start(&dns, "10.0.0.2", move |_, question, _| {
        let mut question = question.clone();
        question.queries[0].name.randomize_label_case();
        backward[turns].send(&question.to_vec().unwrap()).unwrap();
        turns += 1;
    });
    let _good = Fake::start(&dns, "10.0.0.3", |socket, question, client| {
        socket.send_to(&reply(question, QUICK).to_vec().unwrap(), client).unwrap();
    });
    let socket = udp(&web1);
    for _ in 0..2 {
        let (answer, _) =
            ask(&socket, &question("a-long-name-to-be-changed.example", RecordType::A));
        assert_eq!(addresses(&answer), [QUICK], "the other server is asked at once");
    }
    assert!(node.fallbacks().iter().any(|line| line.contains("loop")), "{:?}", node.fallbacks());
}

#[test]
fn servers_take_turns_where_the_host_says_so() {
    if skip() {
        return;
    }
    let conf = "nameserver 10.0.0.2\nnameserver 10.0.0.3\n";
    let (node, dns) = Node::with_upstream(conf);
    let web1 = Netns::new("web1");
    node.set_well(web2(&[&web1]));
    let fake = |address: &'static str, says: Ipv4Addr| {
        Fake::start(&dns, address, move |socket, question, client| {
            socket.send_to(&reply(question, says).to_vec().unwrap(), client).unwrap();
        })
    };
    let second = Ipv4Addr::new(192, 0, 2, 2);
    let _servers = (fake("10.0.0.2", QUICK), fake("10.0.0.3", second));
    let socket = udp(&web1);
    let found = || {
        let ask = || addresses(&ask(&socket, &question("a.example", RecordType::A)).0)[0];
        [ask(), ask(), ask(), ask()]
    };
    assert_eq!(found(), [QUICK; 4]);
    node.conf(&format!("{conf}options rotate\n"));
    assert_eq!(set_of(&found()[..2]), set_of(&[QUICK, second]));
}
