//! The metrics as Prometheus reads them.

use std::net::{SocketAddr, TcpListener};

use aya::sys::{Stats, enable_stats};
use overlay_ctl::{
    config::Metrics, dataplane::datapath::maps_folder, error_chain,
    proto::v1::RemoveEndpointRequest,
};
use tokio::net::TcpStream;

use crate::{
    fixture::{
        Host, METRICS, NETWORK, Node, PEER, VTEP, endpoint, eventually, external, http, with_node,
    },
    lab::{Netns, skip},
};

fn address() -> SocketAddr {
    format!("{VTEP}:7401").parse().unwrap()
}

/// The metrics at one moment.
struct Scrape(String);

impl Scrape {
    async fn take() -> Self {
        let (head, body) = http("GET", "/metrics").await;
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
        Self(body)
    }

    /// The value of the series with exactly this name and these labels.
    #[track_caller]
    fn value(&self, series: &str) -> u64 {
        let line = self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is not in {}", self.0)).parse().unwrap()
    }
}

fn dropped(what: &str, direction: &str, reason: &str) -> String {
    format!(
        "overlay_{what}_total{{direction=\"{direction}\",verdict=\"dropped\",reason=\"{reason}\"}}"
    )
}

fn of_endpoint(what: &str, endpoint: &str, direction: &str) -> String {
    format!(
        "overlay_endpoint_{what}_total{{endpoint=\"{endpoint}\",network=\"{NETWORK}\",direction=\"{direction}\"}}"
    )
}

fn of_network(what: &str, direction: &str) -> String {
    format!("overlay_network_{what}_total{{network=\"{NETWORK}\",direction=\"{direction}\"}}")
}

const FORWARDED: &str =
    "overlay_packets_total{direction=\"from_endpoint\",verdict=\"forwarded\",reason=\"\"}";

const ANSWERED: &str = "overlay_dns_queries_total{outcome=\"answered\"}";

#[test]
fn vxlan_that_no_program_took_is_scraped() {
    with_node(async |node, mut api| {
        let unseen =
            async |what| Scrape::take().await.value(&format!("overlay_unseen_vxlan_{what}_total"));
        assert_eq!((unseen("packets").await, unseen("bytes").await), (0, 0));
        node.host.netns.sh(r#"bash -c "echo x > /dev/udp/127.0.0.1/4789""#);
        eventually("it is counted", async || (unseen("packets").await == 1).then_some(())).await;
        assert_eq!(unseen("bytes").await, 30);
        let counters = api.status().await.datapath.unwrap().counters;
        let shown = counters.iter().find(|counter| counter.reason == "unseen_vxlan").unwrap();
        assert_eq!((shown.direction.as_str(), shown.packets, shown.bytes), ("host", 1, 30));
    });
}

#[test]
fn what_the_node_and_its_kernel_do_is_scraped() {
    with_node(async |_, mut api| {
        assert_eq!(api.status().await.metrics, METRICS);
        let first = Scrape::take().await;
        assert_eq!(first.value("overlay_is_leader"), 1);
        assert_eq!(first.value("overlay_raft_has_leader"), 1);
        assert_eq!(first.value("overlay_raft_term"), api.status().await.term);
        assert_eq!(first.value("overlay_watchers"), 0, "there is no agent");
        let written = first.value("overlay_raft_write_seconds_count");
        assert!(written > 0, "its log");
        assert_eq!(first.value("overlay_endpoints{state=\"up\"}"), 0);
        assert_eq!(first.value(FORWARDED), 0);
        assert_eq!(first.value(ANSWERED), 0);
        assert_eq!(first.value(&dropped("packets", "from_endpoint", "arp_unknown_target")), 0);
        for name in ["packets", "bytes"] {
            let kind = format!("# TYPE overlay_{name}_total counter");
            assert!(first.0.lines().any(|line| line == kind), "{kind} in {}", first.0);
        }

        api.network(NETWORK, "172.16.16.0/24").await;
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        for (name, netns) in [("web1", &a), ("web2", &b)] {
            api.endpoints.create(endpoint(name, netns)).await.unwrap();
        }
        let request = external("sw1", PEER, "02:42:0a:00:00:63", "172.16.16.9");
        api.endpoints.create(request).await.unwrap();
        a.sh("ping -c 1 -W 5 172.16.16.3");
        assert!(!a.succeeds("ping -c 1 -W 1 172.16.16.77"), "nobody is there");

        // A question for the address of web2.
        let question = r"\0\1\1\0\0\1\0\0\0\0\0\0\4web2\0\0\1\0\1";
        a.sh(&format!(r#"bash -c "printf \"{question}\" >/dev/udp/127.0.0.11/53""#));
        eventually("the question is counted", async || {
            (Scrape::take().await.value(ANSWERED) == 1).then_some(())
        })
        .await;

        let status = api.status().await;
        // If counting the entries took long, they are not counted at each scrape.
        let scrape = eventually("the entries are counted", async || {
            let scrape = Scrape::take().await;
            (scrape.value("overlay_map_entries{map=\"FDB\"}") == 3).then_some(scrape)
        })
        .await;
        assert_eq!(scrape.value("overlay_endpoints{state=\"up\"}"), 2, "sw1 is on no node");
        assert_eq!(scrape.value("overlay_endpoints{state=\"down\"}"), 0);
        assert!(scrape.value("overlay_map_capacity{map=\"FDB\"}") > 1000);
        assert_eq!(scrape.value("overlay_revision"), status.revision);
        assert!(scrape.value("overlay_raft_applied_revision") >= status.revision);
        assert!(scrape.value("overlay_raft_write_seconds_count") > written);
        assert_eq!(scrape.value("overlay_programmed_revision"), status.programmed_revision);
        assert!(scrape.value(FORWARDED) >= 2, "the echo and its answer");
        let packets = scrape.value(&dropped("packets", "from_endpoint", "arp_unknown_target"));
        let bytes = scrape.value(&dropped("bytes", "from_endpoint", "arp_unknown_target"));
        assert!(packets > 0 && bytes >= 42 * packets, "{packets} of {bytes} bytes");

        assert_eq!(scrape.value("overlay_endpoints_uncounted"), 0);
        for (endpoint, direction) in
            [("web1", "sent"), ("web1", "received"), ("web2", "sent"), ("web2", "received")]
        {
            let packets = scrape.value(&of_endpoint("packets", endpoint, direction));
            let bytes = scrape.value(&of_endpoint("bytes", endpoint, direction));
            assert!(packets >= 1 && bytes >= 98 * packets.min(1), "{endpoint} {direction}");
        }
        for direction in ["sent", "received"] {
            let both = ["web1", "web2"].map(|e| scrape.value(&of_endpoint("bytes", e, direction)));
            let network = scrape.value(&of_network("bytes", direction));
            assert_eq!(network, both.iter().sum::<u64>(), "{direction}");
        }
        let own = format!("endpoint=\"web1\",network=\"{NETWORK}\"");
        let own = scrape.value(&format!("overlay_endpoint_dropped_packets_total{{{own}}}"));
        let all = format!("overlay_network_dropped_packets_total{{network=\"{NETWORK}\"}}");
        assert!(own >= packets && scrape.value(&all) >= own, "web1 asked for who is not there");
        let sent = scrape.value(&of_network("packets", "sent"));

        // When a namespace is removed, its port disappears with it. Nobody removed the endpoint, so it shows
        // as down.
        drop(b);
        eventually("web2 is down", async || {
            let scrape = Scrape::take().await;
            (scrape.value("overlay_endpoints{state=\"down\"}") == 1).then_some(())
        })
        .await;
        let remove = RemoveEndpointRequest { name: "web2".to_owned(), ..Default::default() };
        api.endpoints.remove(remove).await.unwrap();
        let scrape = Scrape::take().await;
        assert_eq!(scrape.value("overlay_endpoints{state=\"down\"}"), 0);
        assert_eq!(scrape.value("overlay_endpoints{state=\"up\"}"), 1);
        assert!(!scrape.0.contains("endpoint=\"web2\""), "{}", scrape.0);
        assert!(scrape.value(&of_network("packets", "sent")) >= sent, "web2's were forgotten");

        let (head, body) = http("GET", "/").await;
        assert!(head.starts_with("HTTP/1.1 404 ") && body.contains("/metrics"), "{head}{body}");
        for path in ["/metrics", "/readyz", "/livez"] {
            assert!(body.contains(path), "{path} in {body}");
            let (head, _) = http("POST", path).await;
            assert!(head.starts_with("HTTP/1.1 405 "), "{path}: {head}");
            assert!(head.to_lowercase().contains("allow: get,head"), "{path}: {head}");
        }
        let (head, body) = http("HEAD", "/metrics").await;
        assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty(), "{head}{body}");
    });
}

async fn is_refused(address: impl tokio::net::ToSocketAddrs) -> bool {
    let connected = TcpStream::connect(address).await;
    connected.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

#[test]
fn metrics_are_served_to_nobody_but_the_host_unless_asked_for() {
    with_node(async |_, _| assert!(is_refused(address()).await));
    if skip() {
        return;
    }
    Node::start(|args| args.metrics = Some(Metrics::Off)).call(async |_, mut api| {
        assert_eq!(api.status().await.metrics, "");
        assert!(is_refused(METRICS).await && is_refused(address()).await);
    });
    Node::start(|args| args.metrics = Some(Metrics::At(address()))).call(async |node, mut api| {
        assert_eq!(api.status().await.metrics, address().to_string());
        assert!(is_refused(METRICS).await);
        drop(TcpStream::connect(address()).await.unwrap());
        // Endpoints are kept from the metrics as they are kept from the API.
        let apis = maps_folder(&node.host.bpffs).join("APIS");
        let dump = node.host.netns.sh(&format!("bpftool map dump pinned {}", apis.display()));
        for port in [7400, 7401] {
            assert!(dump.contains(&format!("\"port\": {port}")), "{port} in {dump}");
        }
    });
}

#[test]
fn the_default_port_that_is_taken_stops_no_node() {
    if skip() {
        return;
    }
    let host = Host::new();
    let _holder = host.netns.block_on(|| async { TcpListener::bind(METRICS).unwrap() });
    Node::start_on(host, |_| {})
        .call(async |_, mut api| assert_eq!(api.status().await.metrics, ""));
}

#[test]
fn metrics_at_every_address_are_refused() {
    if skip() {
        return;
    }
    let host = Host::new();
    let mut args = host.args();
    args.metrics = Some(Metrics::At("0.0.0.0:7401".parse().unwrap()));
    let error = host
        .netns
        .block_on(|| async move { error_chain(&overlay_ctl::node::run(args).await.unwrap_err()) });
    assert!(error.contains("--metrics 0.0.0.0:7401") && error.contains("one address"), "{error}");
    assert!(!host.state_dir().exists(), "a state folder is left");
}

#[test]
fn status_and_metrics_tell_what_the_kernel_says_of_the_programs() {
    with_node(async |_, mut api| {
        api.network(NETWORK, "172.16.16.0/24").await;
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        for (name, netns) in [("web1", &a), ("web2", &b)] {
            api.endpoints.create(endpoint(name, netns)).await.unwrap();
        }
        let datapath = api.status().await.datapath.unwrap();
        let names: Vec<&str> = datapath.programs.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["from_endpoint", "from_gateway", "from_underlay", "from_veth"]);
        for program in &datapath.programs {
            // The underlay is a veth, and the merge pair is an uplink beside it.
            let is_uplinks = ["from_underlay", "from_veth"].contains(&program.name.as_str());
            let devices = if is_uplinks { 1 } else { 2 };
            assert_eq!(program.devices.len(), devices, "{program:?}");
            assert_eq!(program.other_devices, [""; 0], "{program:?}");
            assert!(program.id > 0 && program.loaded_at > 1_700_000_000, "{program:?}");
            assert!(program.tag.len() == 16 && program.tag != "0".repeat(16), "{program:?}");
        }
        let uname = a.sh("uname -r");
        assert_eq!(datapath.kernel, uname.trim());

        // This switches on the same counting as the sysctl, but ends with the test's process, even if the
        // test fails.
        let counting = enable_stats(Stats::RunTime).unwrap();
        a.sh("ping -c 1 -W 5 172.16.16.3");
        let scrape = Scrape::take().await;
        assert!(scrape.value("overlay_program_runs_total{program=\"from_endpoint\"}") >= 2);
        let seconds = "overlay_program_run_seconds_total{program=\"from_endpoint\"}";
        let line = scrape.0.lines().find_map(|line| line.strip_prefix(seconds));
        let seconds: f64 = line.unwrap().trim().parse().unwrap();
        assert!(seconds > 0.0 && seconds < 1.0, "{seconds}");
        let datapath = api.status().await.datapath.unwrap();
        let program = &datapath.programs[0];
        assert!(program.run_count >= 2 && program.run_time_ns > 0, "{program:?}");
        drop(counting);
    });
}

#[test]
fn a_port_that_is_taken_is_said_and_leaves_nothing() {
    if skip() {
        return;
    }
    for flag in ["--listen", "--metrics"] {
        let host = Host::new();
        let mut args = host.args();
        args.metrics = Some(Metrics::At(address()));
        args.listen = Some(format!("{VTEP}:7400").parse().unwrap());
        let taken = if flag == "--listen" { args.listen.unwrap() } else { address() };
        let error = host.netns.block_on(|| async move {
            let _holder = TcpListener::bind(taken).unwrap();
            error_chain(&overlay_ctl::node::run(args).await.unwrap_err())
        });
        for words in [taken.to_string().as_str(), "is in use", flag] {
            assert!(error.contains(words), "{words} in {error}");
        }
        assert!(!host.state_dir().exists(), "a state folder is left");
        assert!(!host.socket().exists(), "a socket is left");
        assert!(!host.bpffs.exists(), "pins are left");
        assert!(!host.netns.succeeds("ip link show type vxlan | grep -q ."), "a device is left");
    }
}

#[test]
fn a_node_that_does_not_start_leaves_no_socket() {
    if skip() {
        return;
    }
    let host = Host::new();
    // A foreign VXLAN device has the port, which the node finds out only after it has bound its sockets.
    host.netns.sh("ip link add vx0 type vxlan external dstport 4789");
    host.netns.sh("ip link set vx0 up");
    let args = host.args();
    let error = host
        .netns
        .block_on(|| async move { error_chain(&overlay_ctl::node::run(args).await.unwrap_err()) });
    assert!(error.contains("4789") && error.contains("vx0"), "{error}");
    assert!(!host.socket().exists(), "a socket is left");
    assert!(!host.bpffs.exists(), "pins are left");
}
