//! Tests of published ports in the state.

use super::*;

fn replica() -> Replica {
    let mut r = Replica::default();
    r.node_at(1, "172.18.0.0/16").unwrap();
    r.node_at(2, "172.18.0.0/16").unwrap();
    r.network("net", "10.0.0.0/24", None).unwrap();
    r
}

fn published(endpoint: &Endpoint) -> Vec<String> {
    endpoint.published.iter().map(ToString::to_string).collect()
}

fn exposed(endpoint: &Endpoint) -> Vec<String> {
    endpoint.exposed.iter().map(ToString::to_string).collect()
}

#[test]
fn a_port_is_published_where_it_is_asked_for() {
    let mut r = replica();
    let wish = Wish {
        exposed: &["443"],
        publish: &["8080:80", "127.0.0.1:53:53/udp", "8080:80"],
        ..Wish::new("web1")
    };
    let web1 = r.wish(&wish).unwrap();
    assert_eq!(published(&web1), ["80/tcp -> 0.0.0.0:8080", "53/udp -> 127.0.0.1:53"]);
    assert_eq!(exposed(&web1), ["53/udp", "80/tcp", "443/tcp"], "what is published is exposed");

    let clash = r.wish(&Wish { publish: &["127.0.0.1:8080:90"], ..Wish::new("web2") });
    assert_eq!(
        clash.unwrap_err().to_string(),
        "host port 8080/tcp of node h1 is already published by endpoint web1 of network net; \
         choose another, or leave it out to get a free one"
    );
    let clash = r.wish(&Wish { publish: &["53:53/udp"], ..Wish::new("web2") }).unwrap_err();
    assert!(matches!(clash, Refusal::HostPortInUse { .. }), "all addresses are one of them");
    for publish in [["8080:80/udp"], ["10.0.0.1:53:53/udp"], ["8080:80/sctp"]] {
        let publish = Vec::leak(publish.to_vec());
        r.wish(&Wish { publish, netns: publish[0], ..Wish::new("web2") }).unwrap();
        r.remove("web2").unwrap();
    }
    r.wish(&Wish { node: "h2", publish: &["8080:80"], ..Wish::new("web2") }).unwrap();
    r.remove("web1").unwrap();
    r.wish(&Wish { publish: &["8080:80", "53:53/udp"], ..Wish::new("web3") }).unwrap();
}

#[test]
fn free_ports_begin_at_32768_and_skip_what_is_taken() {
    let mut r = replica();
    let wish = Wish {
        publish: &["80", "32769:81", "82", "127.0.0.1::83", "84/udp"],
        busy: &[(Transport::Tcp, 32770)],
        ..Wish::new("web1")
    };
    assert_eq!(
        published(&r.wish(&wish).unwrap()),
        [
            "80/tcp -> 0.0.0.0:32768",
            "84/udp -> 0.0.0.0:32768",
            "81/tcp -> 0.0.0.0:32769",
            "82/tcp -> 0.0.0.0:32771",
            "83/tcp -> 127.0.0.1:32772",
        ]
    );
    // Of one address only: another address' port of that number is free.
    let wish = Wish { publish: &["127.0.0.2::80", "80"], ..Wish::new("web2") };
    assert_eq!(
        published(&r.wish(&wish).unwrap()),
        ["80/tcp -> 0.0.0.0:32773", "80/tcp -> 127.0.0.2:32770"]
    );
    r.remove("web1").unwrap();
    let web3 = r.wish(&Wish { publish: &["80"], ..Wish::new("web3") }).unwrap();
    assert_eq!(published(&web3), ["80/tcp -> 0.0.0.0:32768"], "the lowest that is free");
}

#[test]
fn all_exposed_ports_but_those_published_already() {
    let mut r = replica();
    let wish = Wish {
        exposed: &["80", "443", "53/udp"],
        publish: &["8080:80"],
        publish_all: true,
        ..Wish::new("web1")
    };
    assert_eq!(
        published(&r.wish(&wish).unwrap()),
        ["80/tcp -> 0.0.0.0:8080", "53/udp -> 0.0.0.0:32768", "443/tcp -> 0.0.0.0:32768"]
    );
    let nothing = r.wish(&Wish { publish_all: true, ..Wish::new("web2") }).unwrap();
    assert_eq!(published(&nothing), [""; 0]);
}

#[test]
fn one_host_port_leads_to_one_place() {
    let mut r = replica();
    for publish in
        [["8080:80", "8080:81"], ["8080:80", "127.0.0.1:8080:80"], ["1.1.1.1:1:1", "1.1.1.1:1:2"]]
    {
        let publish = Vec::leak(publish.to_vec());
        let refusal = r.wish(&Wish { publish, ..Wish::new("web1") }).unwrap_err();
        assert!(matches!(refusal, Refusal::HostPortTwice { .. }), "{publish:?}: {refusal}");
    }
    let one_each =
        Wish { publish: &["127.0.0.1:1:1", "127.0.0.2:1:2", "1:1/udp"], ..Wish::new("a") };
    r.wish(&one_each).unwrap();
}

#[test]
fn what_has_no_way_out_publishes_nothing() {
    let mut r = replica();
    r.internal("inside", "10.0.9.0/24").unwrap();
    let wishes = [
        Wish { network: "inside", publish: &["80"], ..Wish::new("a") },
        Wish { network: "inside", publish_all: true, ..Wish::new("a") },
    ];
    for wish in wishes {
        let refusal = r.wish(&wish).unwrap_err();
        assert!(refusal.to_string().contains("network inside is internal"), "{refusal}");
    }
    let exposes = Wish { network: "inside", exposed: &["80"], ..Wish::new("a") };
    assert_eq!(exposed(&r.wish(&exposes).unwrap()), ["80/tcp"], "saying so is no harm");
    let refusal = r
        .apply(Command::CreateEndpoint {
            name: "sw1".parse().unwrap(),
            network: "net".parse().unwrap(),
            placement: Placement::External {
                vtep: "10.10.10.50".parse().unwrap(),
                mac: "02:00:00:00:00:01".parse().unwrap(),
                addresses: addresses("10.0.0.9"),
            },
            permissions: Permissions::NONE,
            aliases: BTreeSet::new(),
            ports: PortsWanted { publish: vec!["80".parse().unwrap()], ..Default::default() },
        })
        .unwrap_err();
    assert!(refusal.to_string().contains("VTEP 10.10.10.50"), "{refusal}");
}

#[test]
fn free_ports_end_at_65535() {
    let mut r = replica();
    let busy: Vec<(Transport, u16)> =
        (32_768..=65_534).map(|port| (Transport::Tcp, port)).collect();
    let busy = Vec::leak(busy);
    let last = r.wish(&Wish { publish: &["80"], busy, ..Wish::new("a") }).unwrap();
    assert_eq!(published(&last), ["80/tcp -> 0.0.0.0:65535"]);
    let refusal = r.wish(&Wish { publish: &["80"], busy, ..Wish::new("b") }).unwrap_err();
    assert!(matches!(refusal, Refusal::HostPortsExhausted { .. }), "{refusal}");
    let both = Wish { publish: &["1", "2"], busy, node: "h2", ..Wish::new("b") };
    assert!(r.wish(&both).is_err(), "also by what one request takes");
    r.wish(&Wish { publish: &["80/udp", "81:80"], busy, ..Wish::new("b") }).unwrap();
}

#[test]
fn the_index_agrees_with_what_conflicts() {
    let hosts = ["0.0.0.0", "127.0.0.1", "10.0.0.1"];
    for there in hosts {
        for comes in hosts {
            let mut r = replica();
            let wish = |name, host: &str| {
                let publish = Vec::leak(vec![&*String::leak(format!("{host}:80:80"))]);
                Wish { publish, ..Wish::new(name) }
            };
            let there_row = r.wish(&wish("a", there)).unwrap();
            let parsed = |host: &str| Published {
                host: host.parse().unwrap(),
                ..*there_row.published.first().unwrap()
            };
            let conflicts = parsed(there).conflicts(&parsed(comes));
            assert_eq!(r.wish(&wish("b", comes)).is_err(), conflicts, "{there} and {comes}");
        }
    }
}

/// The node offers the ports that are free on its host, of these protocols only.
#[test]
fn a_free_port_is_asked_for_where_no_number_is() {
    let wanted = |exposed: &[&str], publish: &[&str], publish_all| {
        let ports = PortsWanted {
            exposed: exposed.iter().map(|port| port.parse().unwrap()).collect(),
            publish: publish.iter().map(|wish| wish.parse().unwrap()).collect(),
            publish_all,
            ..PortsWanted::default()
        };
        ports.any_of()
    };
    assert_eq!(wanted(&["80"], &["8080:80"], false), [].into());
    assert_eq!(wanted(&["80"], &["53/udp"], false), [Transport::Udp].into());
    assert_eq!(wanted(&["80"], &["53/udp"], true), [Transport::Tcp, Transport::Udp].into());
}
