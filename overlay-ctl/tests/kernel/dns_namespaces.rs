//! Resolvers and files, which come and go with the namespaces of endpoints.

use std::{fs, net::UdpSocket, process::Command};

use hickory_proto::rr::RecordType;

use super::{
    dns_fixture::*,
    lab::{Netns, skip},
};

#[track_caller]
fn ip_netns(verb: &str, netns: &Netns) {
    let status = Command::new("ip").args(["netns", verb, &netns.name]).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_namespace_that_is_removed_is_let_go_and_one_made_anew_is_served() {
    if skip() {
        return;
    }
    let (node, web1) = (Node::new(), Netns::new("web1"));
    node.host.join("ovkp", &web1, "eth0");
    node.set_well(web2(&[&web1]));
    let mut stream = tcp(&web1);
    write_frame(&mut stream, &question("web2", RecordType::A));
    read_frame(&mut stream);
    drop(stream);
    let remake = || {
        ip_netns("del", &web1);
        ip_netns("add", &web1);
        web1.sh("ip link set lo up");
    };
    remake();
    eventually("the resolver's end", || node.count() == 0);
    eventually("the device's end", || !node.host.succeeds("ip link show ovkp"));
    node.set_well(web2(&[&web1]));
    assert_eq!(addresses(&ask(&udp(&web1), &question("web2", RecordType::A)).0), [WEB2]);
    // The resolver is told of the new namespace before it has noticed the change itself.
    remake();
    let mut names = web2(&[&web1]);
    names.namespaces.insert(web1.path(), namespace(2));
    node.set_well(names);
    assert_eq!(addresses(&ask(&udp(&web1), &question("web2", RecordType::A)).0), [WEB2]);
}

#[test]
fn a_removed_namespace_keeps_its_resolver_for_the_process_in_it() {
    if skip() {
        return;
    }
    let (node, web1, web3) = (Node::new(), Netns::new("web1"), Netns::new("web3"));
    node.set_well(web2(&[&web1, &web3]));
    let process = Server::sleep(&web1);
    let socket = udp(&web1);
    for netns in [&web1, &web3] {
        ip_netns("del", netns);
    }
    eventually("the other resolver's end", || node.count() == 1);
    assert_eq!(addresses(&ask(&socket, &question("web2", RecordType::A)).0), [WEB2]);
    drop(process);
    eventually("the resolver's end", || node.count() == 0);
}

#[test]
fn sockets_and_files_go_with_the_endpoints() {
    if skip() {
        return;
    }
    let (node, web1, web3) = (Node::new(), Netns::new("web1"), Netns::new("web3"));
    let all = web2(&[&web1, &web3]);
    node.set_well(all.clone());
    let text = || fs::read_to_string(node.file(&web1)).unwrap();
    assert!(text().ends_with("\nnameserver 127.0.0.11\noptions ndots:0\n"), "{}", text());
    // What the host's files say to its programs holds inside, too, also when they change.
    node.conf("search corp.test\noptions timeout:3 ndots:2\nnameserver 10.0.0.2\n");
    let services = node.file(&web1).with_file_name("nsswitch.conf");
    assert!(!services.exists());
    let host = node.folder.path().join("nsswitch.conf");
    fs::write(&host, "hosts: resolve [!UNAVAIL=return] files dns\n").unwrap();
    let mut inside_only = all.clone();
    inside_only.namespaces.get_mut(&web3.path()).unwrap().has_outside = false;
    node.set_well(inside_only);
    let expected = "nameserver 127.0.0.11\nsearch corp.test\noptions ndots:0 timeout:3\n";
    assert!(text().ends_with(expected), "{}", text());
    assert!(fs::read_to_string(&services).unwrap().ends_with("\nhosts: files dns\n"));
    let other = fs::read_to_string(node.file(&web3)).unwrap();
    assert!(!other.contains("search") && other.contains("timeout:3"), "{other}");
    let free = |netns: &Netns| inside(netns, || UdpSocket::bind(RESOLVER).is_ok());
    for _ in 0..20 {
        node.set_well(web2(&[&web3]));
        assert!(free(&web1) && !free(&web3), "closed when set has returned");
        assert!(!node.file(&web1).parent().unwrap().exists());
        node.set_well(all.clone());
    }
    assert_eq!(node.count(), 2);
    assert_eq!(node.remove_files(), NO_TROUBLE);
    assert!(!node.folder.path().join("netns").exists());
    node.drop_resolvers();
    eventually("the sockets' end", || free(&web1) && free(&web3));
}
