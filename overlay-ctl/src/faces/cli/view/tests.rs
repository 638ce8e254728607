//! Tests of the exact printed form of each noun.

use super::*;
use crate::proto::v1;
use serde_json::json;

fn network() -> v1::Network {
    v1::Network {
        id: 1,
        name: "myoverlay".to_owned(),
        vni: 4097,
        subnet: "172.16.16.0/24".to_owned(),
        ip_range: "172.16.16.128/25".to_owned(),
        options: Some(v1::NetworkOptions { icc: Some(true), ..Default::default() }),
        endpoint_count: 2,
        created_revision: 5,
    }
}

fn web1() -> v1::Endpoint {
    let published = |port: &str, host_ip: &str, host_port| v1::PublishedPort {
        port: port.to_owned(),
        host_ip: host_ip.to_owned(),
        host_port,
    };
    v1::Endpoint {
        aliases: vec!["db".to_owned(), "www".to_owned()],
        exposed: vec!["53/udp".to_owned(), "80/tcp".to_owned(), "443/tcp".to_owned()],
        published: vec![
            published("53/udp", "127.0.0.1", 53),
            published("80/tcp", "0.0.0.0", 32768),
        ],
        gateway: Some(v1::GatewayLeg {
            interface: "eth1".to_owned(),
            host_interface: "ovgw00000001".to_owned(),
            host_ifindex: 19,
            mtu: 1500,
            address: "172.18.0.3/16".to_owned(),
            mac: "02:42:ac:12:00:03".to_owned(),
            gateway: "172.18.0.1".to_owned(),
        }),
        id: 3,
        name: "web1".to_owned(),
        network: "myoverlay".to_owned(),
        node: "host1".to_owned(),
        vtep: "10.10.10.101".to_owned(),
        address: "172.16.16.129/24".to_owned(),
        mac: "02:42:ac:10:10:81".to_owned(),
        netns: "/run/netns/web1".to_owned(),
        state: v1::EndpointState::Up.into(),
        state_reason: String::new(),
        interface: "eth0".to_owned(),
        host_interface: "ovp3".to_owned(),
        host_ifindex: 17,
        mtu: 1450,
        vni: 4097,
        created_revision: 6,
        permissions: vec![v1::Permission::Routing.into(), v1::Permission::Advertising.into()],
    }
}

fn switch() -> v1::Endpoint {
    v1::Endpoint {
        id: 4,
        name: "sw1".to_owned(),
        network: "myoverlay".to_owned(),
        vtep: "192.168.50.200".to_owned(),
        address: "172.16.16.200/24".to_owned(),
        mac: "02:aa:00:00:00:09".to_owned(),
        state: v1::EndpointState::External.into(),
        vni: 4097,
        created_revision: 8,
        ..Default::default()
    }
}

fn node() -> v1::Node {
    v1::Node {
        id: 1,
        name: "host1".to_owned(),
        role: v1::NodeRole::Leader.into(),
        state: v1::NodeState::Ready.into(),
        vtep: "10.10.10.101".to_owned(),
        listen: "10.10.10.101:7400".to_owned(),
        epoch: 2,
        programmed_revision: 8,
        endpoint_count: 1,
        gateway_subnet: "172.18.0.0/16".to_owned(),
        raft_id: 4,
        answered_ms_ago: Some(2_900),
    }
}

#[test]
fn network_table() {
    let odd = v1::Network {
        name: "lab".to_owned(),
        vni: 9,
        subnet: "10.128.0.0/24".to_owned(),
        ip_range: String::new(),
        options: Some(v1::NetworkOptions {
            icc: Some(false),
            internal: true,
            multicast: true,
            mtu: 1400,
        }),
        endpoint_count: 0,
        ..network()
    };
    let table = Vec::from([Network::from(network()), Network::from(odd)]).text();
    assert_eq!(
        table,
        "\
NAME        VNI    SUBNET           IP RANGE           OPTIONS                              ENDPOINTS
myoverlay   4097   172.16.16.0/24   172.16.16.128/25   -                                    2
lab         9      10.128.0.0/24    10.128.0.0/24      no-icc,internal,multicast,mtu=1400   0"
    );
}

#[test]
fn network_detail() {
    let detail = v1::NetworkDetail {
        network: Some(network()),
        endpoints: vec![web1(), switch()],
        peers: vec![
            v1::NetworkPeer {
                node: "host1".to_owned(),
                vtep: "10.10.10.101".to_owned(),
                endpoint_count: 1,
            },
            v1::NetworkPeer {
                node: String::new(),
                vtep: "192.168.50.200".to_owned(),
                endpoint_count: 1,
            },
        ],
    };
    let detail = NetworkDetail::try_from(detail).unwrap();
    assert_eq!(
        detail.text(),
        "\
name        myoverlay
id          1
VNI         4097
subnet      172.16.16.0/24
IP range    172.16.16.128/25
ICC         on
internal    off
multicast   off
MTU         the underlay's less the encapsulation
endpoints   2
revision    5

ENDPOINT   ID   ADDRESS            MAC                 NODE    GATEWAY ADDRESS   STATE      PORTS
web1       3    172.16.16.129/24   02:42:ac:10:10:81   host1   172.18.0.3/16     up         127.0.0.1:53->53/udp, 0.0.0.0:32768->80/tcp, 443/tcp
sw1        4    172.16.16.200/24   02:aa:00:00:00:09   -       -                 external   -

PEER    VTEP             ENDPOINTS
host1   10.10.10.101     1
-       192.168.50.200   1"
    );
    assert_eq!(
        serde_json::to_value(&detail).unwrap(),
        json!({
            "id": 1,
            "name": "myoverlay",
            "vni": 4097,
            "subnet": "172.16.16.0/24",
            "ip_range": "172.16.16.128/25",
            "options": {"icc": true, "internal": false, "multicast": false, "mtu": null},
            "endpoint_count": 2,
            "created_revision": 5,
            "endpoints": [
                serde_json::to_value(Endpoint::from(web1())).unwrap(),
                serde_json::to_value(Endpoint::from(switch())).unwrap(),
            ],
            "peers": [
                {"node": "host1", "vtep": "10.10.10.101", "endpoint_count": 1},
                {"node": "", "vtep": "192.168.50.200", "endpoint_count": 1},
            ],
        })
    );
}

#[test]
fn endpoint_table() {
    let down = v1::Endpoint {
        name: "web2".to_owned(),
        state: v1::EndpointState::Down.into(),
        state_reason: "namespace /run/netns/web2 is gone".to_owned(),
        exposed: Vec::new(),
        published: Vec::new(),
        ..web1()
    };
    let pending = v1::Endpoint {
        name: "web3".to_owned(),
        state: v1::EndpointState::Pending.into(),
        exposed: vec!["80/tcp".to_owned()],
        published: Vec::new(),
        ..web1()
    };
    let rows: Vec<Endpoint> =
        [web1(), down, pending, switch()].into_iter().map(Into::into).collect();
    assert_eq!(
        rows.text(),
        "\
NAME   NETWORK     ADDRESS            MAC                 NODE    VTEP             STATE                                      PORTS
web1   myoverlay   172.16.16.129/24   02:42:ac:10:10:81   host1   10.10.10.101     up                                         127.0.0.1:53->53/udp, 0.0.0.0:32768->80/tcp, 443/tcp
web2   myoverlay   172.16.16.129/24   02:42:ac:10:10:81   host1   10.10.10.101     down (namespace /run/netns/web2 is gone)   -
web3   myoverlay   172.16.16.129/24   02:42:ac:10:10:81   host1   10.10.10.101     pending                                    80/tcp
sw1    myoverlay   172.16.16.200/24   02:aa:00:00:00:09   -       192.168.50.200   external                                   -"
    );
}

#[test]
fn endpoint() {
    let endpoint = Endpoint::from(web1());
    assert_eq!(
        endpoint.text(),
        "\
name        web1
id          3
network     myoverlay
VNI         4097
node        host1
VTEP        10.10.10.101
netns       /run/netns/web1
state       up
aliases     db, www
exposed     53/udp, 80/tcp, 443/tcp
published   53/udp -> 127.0.0.1:53, 80/tcp -> 0.0.0.0:32768
allowed     routing, advertising
revision    6

LEG       INTERFACE   HOST INTERFACE     ADDRESS            MAC                 GATEWAY      MTU
overlay   eth0@if17   17: ovp3           172.16.16.129/24   02:42:ac:10:10:81   -            1450
gateway   eth1@if19   19: ovgw00000001   172.18.0.3/16      02:42:ac:12:00:03   172.18.0.1   1500"
    );
    assert_eq!(
        endpoint.summary(),
        "web1: 172.16.16.129/24, 02:42:ac:10:10:81, myoverlay on host1, \
         53/udp -> 127.0.0.1:53, 80/tcp -> 0.0.0.0:32768"
    );
    assert_eq!(
        serde_json::to_value(&endpoint).unwrap(),
        json!({
            "id": 3,
            "name": "web1",
            "network": "myoverlay",
            "node": "host1",
            "vtep": "10.10.10.101",
            "address": "172.16.16.129/24",
            "mac": "02:42:ac:10:10:81",
            "netns": "/run/netns/web1",
            "state": "up",
            "state_reason": null,
            "interface": "eth0",
            "host_interface": "ovp3",
            "host_ifindex": 17,
            "mtu": 1450,
            "vni": 4097,
            "created_revision": 6,
            "aliases": ["db", "www"],
            "exposed": ["53/udp", "80/tcp", "443/tcp"],
            "published": [
                {"port": "53/udp", "host_ip": "127.0.0.1", "host_port": 53},
                {"port": "80/tcp", "host_ip": "0.0.0.0", "host_port": 32768},
            ],
            "allowed": ["routing", "advertising"],
            "gateway": {
                "interface": "eth1",
                "host_interface": "ovgw00000001",
                "host_ifindex": 19,
                "mtu": 1500,
                "address": "172.18.0.3/16",
                "mac": "02:42:ac:12:00:03",
                "gateway": "172.18.0.1",
            },
        })
    );
}

#[test]
fn endpoint_behind_a_foreign_vtep() {
    let endpoint = Endpoint::from(switch());
    assert_eq!(
        endpoint.summary(),
        "sw1: 172.16.16.200/24, 02:aa:00:00:00:09, myoverlay behind VTEP 192.168.50.200"
    );
    let text = endpoint.text();
    assert!(text.ends_with("02:aa:00:00:00:09   -         -"), "one leg: {text}");
    let json = serde_json::to_value(&endpoint).unwrap();
    for absent in ["node", "netns", "interface", "host_interface", "host_ifindex", "mtu", "gateway"]
    {
        assert!(json[absent].is_null(), "{absent}");
    }
    assert_eq!(json["state"], "external");
}

#[test]
fn created_endpoint_is_the_endpoint_and_who_lags() {
    let created = v1::CreateEndpointResponse {
        endpoint: Some(web1()),
        lagging_nodes: vec!["host2".to_owned()],
    };
    let created = CreatedEndpoint::try_from(created).unwrap();
    let mut json = serde_json::to_value(&created).unwrap();
    let lagging = json.as_object_mut().unwrap().remove("lagging_nodes").unwrap();
    assert_eq!(lagging, json!(["host2"]));
    assert_eq!(json, serde_json::to_value(Endpoint::from(web1())).unwrap());
    assert!(CreatedEndpoint::try_from(v1::CreateEndpointResponse::default()).is_err());
}

#[test]
fn nodes() {
    let agent = v1::Node {
        id: 4,
        name: "host4".to_owned(),
        role: v1::NodeRole::Agent.into(),
        state: v1::NodeState::Lost.into(),
        answered_ms_ago: None,
        ..node()
    };
    let nodes: Vec<Node> = vec![node().into(), agent.into()];
    assert_eq!(
        nodes.text(),
        "\
NAME    ROLE     STATE   VTEP           ANSWERED   LISTEN              PROGRAMMED   ENDPOINTS
host1   leader   ready   10.10.10.101   2 s ago    10.10.10.101:7400   8            1
host4   agent    lost    10.10.10.101   -          10.10.10.101:7400   8            1"
    );
    assert_eq!(
        nodes[0].text(),
        "\
name                  host1
id                    1
Raft id               4
role                  leader
state                 ready
VTEP                  10.10.10.101
VTEP answered         2 s ago
listen                10.10.10.101:7400
gateway subnet        172.18.0.0/16
epoch                 2
programmed revision   8
endpoints             1"
    );
    assert_eq!(
        serde_json::to_value(&nodes[0]).unwrap(),
        json!({
            "id": 1,
            "name": "host1",
            "role": "leader",
            "state": "ready",
            "vtep": "10.10.10.101",
            "listen": "10.10.10.101:7400",
            "epoch": 2,
            "programmed_revision": 8,
            "endpoint_count": 1,
            "gateway_subnet": "172.18.0.0/16",
            "raft_id": 4,
            "answered_ms_ago": 2900,
        })
    );
}

#[test]
fn state_of_a_later_version_is_unknown_and_no_failure() {
    let endpoint = Endpoint::from(v1::Endpoint { state: 99, ..web1() });
    assert_eq!(serde_json::to_value(&endpoint).unwrap()["state"], "unknown");
}

fn counter(reason: &str, packets: u64) -> v1::Counter {
    v1::Counter {
        reason: reason.to_owned(),
        direction: "from_endpoint".to_owned(),
        packets,
        bytes: 98 * packets,
    }
}

#[test]
fn status() {
    let status = Status::from(v1::StatusResponse {
        cluster: "9f3c".to_owned(),
        node: "host1".to_owned(),
        node_id: 1,
        role: v1::NodeRole::Voter.into(),
        leader: String::new(),
        term: 3,
        revision: 8,
        programmed_revision: 7,
        version: "0.1.0".to_owned(),
        cluster_version: 2,
        oldest_version: 1,
        newest_version: 3,
        version_waits_for: vec!["host2 (speaks version 2)".to_owned(), "host3 (down)".to_owned()],
        metrics: "127.0.0.1:7401".to_owned(),
        alarms: Vec::new(),
        troubles: vec!["no leader".to_owned()],
        state_dir: "/var/lib/overlay".to_owned(),
        generation: 2,
        incarnation: vec![7; 16],
        datapath: Some(v1::DatapathStatus {
            gateway: Some(v1::GatewayStatus {
                bridge: "ov_gwbridge".to_owned(),
                subnet: "172.18.0.0/16".to_owned(),
                published_ports: 3,
                forwarding_devices: vec!["eth0".to_owned(), "eth7".to_owned()],
                resolvers: 2,
            }),
            hook: "tcx".to_owned(),
            underlay: "eth0".to_owned(),
            underlay_mtu: 1500,
            underlay_mtu_source: "the device's".to_owned(),
            super_packets: Some(v1::SuperPacketStatus {
                ipv4: 262_144,
                ipv6: 65_536,
                reason: String::new(),
            }),
            vtep: "10.10.10.101".to_owned(),
            advertised_vtep: "203.0.113.101".to_owned(),
            vxlan_port: 4789,
            gro_device: "ovg4789".to_owned(),
            xdp: "off".to_owned(),
            xdp_reason: "eth0 is no hardware".to_owned(),
            bpffs: "/sys/fs/bpf/overlay".to_owned(),
            maps: vec![v1::MapUsage { name: "FDB".to_owned(), entries: 2, capacity: 1_048_576 }],
            counters: vec![counter("spoofed_ip", 4), counter("unknown_vtep", 0)],
            error: String::new(),
            endpoint_mtu: 1450,
            unresolved_next_hops: vec!["host3".to_owned(), "host4".to_owned()],
            fallbacks: vec!["ovb1 is no port of the barrier".to_owned()],
            programs: vec![
                v1::ProgramStatus {
                    name: "from_endpoint".to_owned(),
                    id: 71,
                    tag: "0a0b0c0d0e0f1011".to_owned(),
                    loaded_at: 1_790_000_000,
                    verified_instructions: 2345,
                    jited: true,
                    devices: ["ovp1", "ovp2", "ovp3", "ovp4", "ovp5"].map(str::to_owned).into(),
                    run_time_ns: 3000,
                    run_count: 12,
                    ..Default::default()
                },
                v1::ProgramStatus {
                    name: "from_underlay".to_owned(),
                    id: 72,
                    tag: "1a1b1c1d1e1f1011".to_owned(),
                    devices: vec!["eth0".to_owned()],
                    other_devices: vec!["eth1".to_owned()],
                    ..Default::default()
                },
            ],
            kernel: "6.12.9".to_owned(),
            run_time_counted: false,
        }),
    });
    assert_eq!(
        status.text(),
        "\
node         host1 (id 1)
cluster      9f3c, generation 2
role         voter
leader       -
term         3
revision     8
programmed   7
version      0.1.0, cluster version 2 (speaks 1 to 3), waits for host2 (speaks version 2), host3 (down)
metrics      127.0.0.1:7401
data plane   in sync

kernel             6.12.9
hook               tcx
underlay           eth0 (MTU 1500, the device's)
VTEP               10.10.10.101 (others send to 203.0.113.101), UDP port 4789
endpoint MTU       1450
super-packets      IPv4 262144 bytes, IPv6 65536
GRO device         ovg4789
XDP guard          off (eth0 is no hardware)
bpffs              /sys/fs/bpf/overlay
on the slow path   host3, host4, ovb1 is no port of the barrier, from_underlay is interpreted \
         (net.core.bpf_jit_enable), another program runs on eth1 than this from_underlay

gateway bridge         ov_gwbridge, 172.18.0.0/16
published ports        3
forwarding opened on   eth0, eth7
resolvers              2

PROGRAM         ID   TAG                VERIFIED   RUNS          NS A RUN   DEVICES
from_endpoint   71   0a0b0c0d0e0f1011   2345       12            250        5
from_underlay   72   1a1b1c1d1e1f1011   -          not counted   -          eth0

MAP   ENTRIES   CAPACITY
FDB   2         1048576

COUNTER      DIRECTION       PACKETS   BYTES
spoofed_ip   from_endpoint   4         392"
    );
    // A separate value, because the macro has a limit of nesting.
    let gateway = json!({
        "bridge": "ov_gwbridge",
        "subnet": "172.18.0.0/16",
        "published_ports": 3,
        "forwarding_devices": ["eth0", "eth7"],
        "resolvers": 2,
    });
    assert_eq!(
        serde_json::to_value(&status).unwrap(),
        json!({
            "cluster": "9f3c",
            "node": "host1",
            "node_id": 1,
            "generation": 2,
            "role": "voter",
            "leader": null,
            "term": 3,
            "revision": 8,
            "programmed_revision": 7,
            "version": "0.1.0",
            "cluster_version": 2,
            "oldest_version": 1,
            "newest_version": 3,
            "version_waits_for": ["host2 (speaks version 2)", "host3 (down)"],
            "metrics": "127.0.0.1:7401",
            "state_dir": "/var/lib/overlay",
            "alarms": [],
            "troubles": ["no leader"],
            "datapath": {
                "hook": "tcx",
                "underlay": "eth0",
                "underlay_mtu": 1500,
                "underlay_mtu_source": "the device's",
                "vtep": "10.10.10.101",
                "advertised_vtep": "203.0.113.101",
                "vxlan_port": 4789,
                "gro_device": "ovg4789",
                "xdp": "off",
                "xdp_reason": "eth0 is no hardware",
                "bpffs": "/sys/fs/bpf/overlay",
                "maps": [{"name": "FDB", "entries": 2, "capacity": 1_048_576}],
                "counters": [
                    {"reason": "spoofed_ip", "direction": "from_endpoint", "packets": 4, "bytes": 392},
                    {"reason": "unknown_vtep", "direction": "from_endpoint", "packets": 0, "bytes": 0},
                ],
                "error": null,
                "endpoint_mtu": 1450,
                "super_packets": {"ipv4": 262_144, "ipv6": 65_536, "reason": null},
                "unresolved_next_hops": ["host3", "host4"],
                "fallbacks": ["ovb1 is no port of the barrier"],
                "programs": [
                    {
                        "name": "from_endpoint",
                        "id": 71,
                        "tag": "0a0b0c0d0e0f1011",
                        "loaded_at": 1_790_000_000,
                        "verified_instructions": 2345,
                        "jited": true,
                        "devices": ["ovp1", "ovp2", "ovp3", "ovp4", "ovp5"],
                        "other_devices": [],
                        "run_time_ns": 3000,
                        "run_count": 12,
                    },
                    {
                        "name": "from_underlay",
                        "id": 72,
                        "tag": "1a1b1c1d1e1f1011",
                        "loaded_at": null,
                        "verified_instructions": null,
                        "jited": false,
                        "devices": ["eth0"],
                        "other_devices": ["eth1"],
                        "run_time_ns": 0,
                        "run_count": 0,
                    },
                ],
                "kernel": "6.12.9",
                "run_time_counted": false,
                "gateway": gateway,
            },
        })
    );
}

#[test]
fn status_shows_a_broken_data_plane_first() {
    let datapath = v1::DatapathStatus { error: "no bpffs".to_owned(), ..Default::default() };
    let status =
        Status::from(v1::StatusResponse { datapath: Some(datapath), ..Default::default() });
    assert!(status.text().contains("data plane   no bpffs\n"), "{}", status.text());
    let status = Status::from(v1::StatusResponse::default());
    assert!(status.text().ends_with("data plane   not started"), "{}", status.text());
    assert!(!status.text().contains("cluster version"), "a node of an earlier version says none");
    let alarms = vec!["the disk is full".to_owned()];
    let status = Status::from(v1::StatusResponse { alarms, ..Default::default() });
    assert!(status.text().ends_with("\nalarm        the disk is full"), "{}", status.text());
}

fn dropped() -> v1::Event {
    v1::Event {
        time_ns: 12_034_567_890_123,
        reason: "spoofed_ip".to_owned(),
        direction: "from_endpoint".to_owned(),
        network: "myoverlay".to_owned(),
        interface: "ovp3".to_owned(),
        length: 98,
        ethertype: 0x0800,
        src_mac: "02:42:ac:10:10:81".to_owned(),
        dst_mac: "02:42:ac:10:10:82".to_owned(),
        src_ip: "1.2.3.4".to_owned(),
        dst_ip: "172.16.16.130".to_owned(),
        endpoint: "web1".to_owned(),
        source: "web1.myoverlay".to_owned(),
        destination: "172.16.16.130".to_owned(),
        protocol: 1,
        sample: 1,
        ..v1::Event::default()
    }
}

#[test]
fn dropped_packet() {
    let event = Event::from(dropped());
    assert_eq!(
        event.text(),
        "12034.567890 spoofed_ip from_endpoint web1.myoverlay > 172.16.16.130 network myoverlay \
         node - dev ovp3 icmp 1.2.3.4 > 172.16.16.130 length 98"
    );
    assert_eq!(
        serde_json::to_value(&event).unwrap(),
        json!({
            "time_ns": 12_034_567_890_123_u64,
            "reason": "spoofed_ip",
            "direction": "from_endpoint",
            "network": "myoverlay",
            "endpoint": "web1",
            "source": "web1.myoverlay",
            "destination": "172.16.16.130",
            "node": null,
            "vtep": null,
            "interface": "ovp3",
            "length": 98,
            "ethertype": 2048,
            "vlan": null,
            "src_mac": "02:42:ac:10:10:81",
            "dst_mac": "02:42:ac:10:10:82",
            "src_ip": "1.2.3.4",
            "dst_ip": "172.16.16.130",
            "protocol": "icmp",
            "src_port": null,
            "dst_port": null,
            "sample": 1,
            "lost": 0,
        })
    );
    let not_ip = v1::Event {
        ethertype: 0x88b5,
        src_ip: String::new(),
        dst_ip: String::new(),
        protocol: 0,
        ..dropped()
    };
    let text = Event::from(not_ip).text();
    assert!(text.ends_with("0x88b5 02:42:ac:10:10:81 > 02:42:ac:10:10:82 length 98"), "{text}");
}

#[test]
fn forwarded_packet() {
    let event = v1::Event {
        reason: "forwarded".to_owned(),
        destination: "web2.myoverlay".to_owned(),
        src_ip: "172.16.16.129".to_owned(),
        protocol: 6,
        src_port: 40000,
        dst_port: 80,
        vtep: "192.168.50.101".to_owned(),
        node: "h3".to_owned(),
        sample: 100,
        lost: 7,
        ..dropped()
    };
    let text = Event::from(event.clone()).text();
    assert_eq!(
        text,
        "12034.567890 forwarded from_endpoint web1.myoverlay > web2.myoverlay network myoverlay \
         node h3 dev ovp3 tcp 172.16.16.129:40000 > 172.16.16.130:80 length 98 sample 1/100 \
         (7 events before it were lost)"
    );
    let ipv6 = v1::Event {
        src_ip: "fe80::1".to_owned(),
        protocol: 99,
        node: String::new(),
        vlan: 7,
        ..event
    };
    let text = Event::from(ipv6).text();
    assert!(text.contains(" length 98 VLAN 7 sample 1/100"), "{text}");
    assert!(text.contains(" node 192.168.50.101 dev ovp3 99 [fe80::1]:40000 > "), "{text}");
}
