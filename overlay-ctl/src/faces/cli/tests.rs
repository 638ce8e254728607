//! Tests of the command line against a fake node: the requests, the output, the exit.

use super::{
    fake_node::{FakeNode, Members, Mode},
    *,
};
use crate::{
    config::{ClusterRecoverArgs, ClusterRestoreArgs, Metrics, NodeResetArgs, Underlay},
    proto::v1::{
        CreateNetworkRequest, Endpoint, Event, EventsRequest, ListNetworksRequest, NetworkOptions,
        Node, StatusResponse,
    },
};
use clap::{CommandFactory as _, error::ErrorKind};
use std::{path::Path, sync::Mutex, time::Duration};

pub(super) struct Ran {
    pub(super) done: Done,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// A host on which nothing is done.
#[derive(Default)]
pub(super) struct FakeHost {
    ran: Mutex<Option<NodeRunArgs>>,
    reset: Mutex<Option<NodeResetArgs>>,
    /// What a reset did.
    done: Reset,
    pub(super) restored: Mutex<Option<ClusterRestoreArgs>>,
    pub(super) recovered: Mutex<Option<ClusterRecoverArgs>>,
    /// What a restore or a recovery made; `None` = it is refused.
    pub(super) begun: Option<Begun>,
    /// Why a node that is to leave does not end.
    stays: Option<&'static str>,
    /// State folders of the nodes that were waited for.
    waited: Mutex<Vec<PathBuf>>,
}

impl OnHost for FakeHost {
    async fn run(&self, args: NodeRunArgs) -> anyhow::Result<()> {
        *self.ran.lock().unwrap() = Some(args);
        Ok(())
    }

    async fn reset(&self, args: NodeResetArgs) -> anyhow::Result<Reset> {
        *self.reset.lock().unwrap() = Some(args);
        let Reset { removed, remarks, errors } = &self.done;
        Ok(Reset { removed: removed.clone(), remarks: remarks.clone(), errors: errors.clone() })
    }

    async fn restore(&self, args: ClusterRestoreArgs) -> anyhow::Result<Begun> {
        *self.restored.lock().unwrap() = Some(args);
        self.begun.clone().ok_or_else(|| anyhow::anyhow!("the folder is not empty"))
    }

    async fn recover(&self, args: ClusterRecoverArgs) -> anyhow::Result<Begun> {
        *self.recovered.lock().unwrap() = Some(args);
        self.begun.clone().ok_or_else(|| anyhow::anyhow!("a majority lives"))
    }

    async fn left(&self, state_dir: &Path) -> anyhow::Result<()> {
        self.waited.lock().unwrap().push(state_dir.to_owned());
        self.stays.map_or(Ok(()), |why| Err(anyhow::anyhow!(why)))
    }
}

fn parse(line: &str) -> Cli {
    Cli::try_parse_from(line.split(' ')).unwrap()
}

pub(super) async fn overlay(socket: &Path, line: &str) -> Ran {
    overlay_on(&FakeHost::default(), socket, line).await
}

pub(super) async fn overlay_on(host: &FakeHost, socket: &Path, line: &str) -> Ran {
    let cli = parse(&format!("overlay --socket {} {line}", socket.display()));
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let output = Output::new(cli.output, &mut stdout, &mut stderr);
    let done = carry_out(cli.command, cli.socket, host, output).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { done, stdout: text(stdout), stderr: text(stderr) }
}

#[test]
fn command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn global_options_go_before_or_after_the_verb() {
    for line in [
        "overlay -o json --socket /tmp/s network ls",
        "overlay network ls -o json --socket /tmp/s",
        "overlay network --socket=/tmp/s ls --output json",
    ] {
        let cli = parse(line);
        assert_eq!(cli.output, Format::Json, "{line}");
        assert_eq!(cli.socket, Path::new("/tmp/s"), "{line}");
    }
    assert_eq!(parse("overlay status").output, Format::Table);
}

#[tokio::test]
async fn node_run_gets_its_defaults_and_the_socket() {
    let host = FakeHost::default();
    let cli = parse(
        "overlay node run --socket /tmp/s --join 10.0.0.1:7400 --underlay 10.0.0.2 \
         --gateway-subnet 172.20.0.0/16",
    );
    let code = run(cli, &host).await;
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
    let args = host.ran.into_inner().unwrap().unwrap();
    assert_eq!(args.socket, Path::new("/tmp/s"));
    assert_eq!(args.state_dir, Path::new("/var/lib/overlay"));
    assert_eq!(args.bpffs, Path::new("/sys/fs/bpf/overlay"));
    assert_eq!(args.vxlan_port, 4789);
    assert_eq!(args.gateway_subnet, Some("172.20.0.0/16".parse().unwrap()));
    assert_eq!(args.resolv_conf, Path::new("/etc/resolv.conf"));
    assert_eq!(args.underlay, Some(Underlay::Address("10.0.0.2".parse().unwrap())));
    assert_eq!(args.join, Some("10.0.0.1:7400".parse().unwrap()));
    assert_eq!((args.listen, args.metrics, args.token.as_deref()), (None, None, None));
    assert!(!args.node_name().unwrap().is_empty(), "the host's name");
}

#[tokio::test]
async fn a_reset_says_what_is_gone_and_fails_if_something_is_not() {
    let sentences = |text: &[&str]| text.iter().map(ToString::to_string).collect::<Vec<_>>();
    let socket = Path::new("/tmp/s");
    let host = FakeHost::default();
    let ran = overlay_on(&host, socket, "node reset").await;
    assert_eq!((ran.done, ran.stderr.as_str()), (Done::All, ""));
    assert_eq!(ran.stdout, "there is nothing of a node here\n");
    let args = host.reset.lock().unwrap().take().unwrap();
    assert_eq!((args.socket.as_path(), args.vxlan_port, args.force), (socket, 4789, false));
    assert_eq!(args.state_dir, Path::new("/var/lib/overlay"));
    assert_eq!(args.bpffs, Path::new("/sys/fs/bpf/overlay"));

    let removed = sentences(&["removed the device ovp7", "removed the state folder /s"]);
    let done = Reset { removed, remarks: sentences(&["h1 is a node still"]), errors: Vec::new() };
    let host = FakeHost { done, ..FakeHost::default() };
    let ran = overlay_on(&host, socket, "node reset --state-dir /s").await;
    assert_eq!((ran.done, ran.stderr.as_str()), (Done::All, "warning: h1 is a node still\n"));
    assert_eq!(ran.stdout, "removed the device ovp7\nremoved the state folder /s\n");
    let ran = overlay_on(&host, socket, "node reset -o json").await;
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["removed"][1], "removed the state folder /s");
    assert_eq!(json["remarks"], serde_json::json!(["h1 is a node still"]));
    assert_eq!((json["errors"].to_string().as_str(), ran.stderr.as_str()), ("[]", ""));

    let done = Reset { errors: sentences(&["no nft"]), ..Reset::default() };
    let host = FakeHost { done, ..FakeHost::default() };
    let ran = overlay_on(&host, socket, "node reset").await;
    assert_eq!((ran.done, ran.stdout.as_str()), (Done::Failed, ""));
    assert_eq!(ran.stderr, "error: no nft\n");
}

/// A node h1 of a cluster of these nodes.
fn member(nodes: &[&str]) -> FakeNode {
    let node = FakeNode::new();
    let nodes = nodes.iter().zip(1..);
    let nodes = nodes.map(|(name, id)| Node { id, name: name.to_string(), ..Node::default() });
    node.set_members(Members { nodes: nodes.collect(), ..Members::default() });
    node.set_status(StatusResponse {
        node: "h1".to_owned(),
        node_id: 1,
        state_dir: "/var/lib/overlay".to_owned(),
        ..StatusResponse::default()
    });
    node
}

#[tokio::test]
async fn a_node_leaves_and_is_waited_for() {
    let node = member(&["h1", "h2"]);
    let _serving = node.serve(Mode::Answer);
    let host = FakeHost::default();
    let ran = overlay_on(&host, &node.socket, "node leave").await;
    assert_eq!((ran.done, ran.stderr.as_str()), (Done::All, ""));
    assert!(ran.stdout.starts_with("h1 has left its cluster"), "{}", ran.stdout);
    assert_eq!(node.asked_to_remove(), [("h1".to_owned(), 1, false)]);
    assert_eq!(*host.waited.lock().unwrap(), [Path::new("/var/lib/overlay")]);
    let json = overlay(&node.socket, "node leave -o json").await.stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json, serde_json::json!({"name": "h1", "revision": 12}));

    let host = FakeHost { stays: Some("it still runs"), ..FakeHost::default() };
    let ran = overlay_on(&host, &node.socket, "node leave").await;
    assert_eq!((ran.done, ran.stdout.as_str()), (Done::Failed, ""));
    assert_eq!(ran.stderr, "error: it still runs\n");
}

#[tokio::test]
async fn a_node_is_removed_with_its_endpoints_if_that_is_said() {
    let node = member(&["h1", "h2"]);
    let _serving = node.serve(Mode::Answer);
    for line in ["node rm h2", "node rm --force h2 h3", "node rm h2 -f"] {
        let ran = overlay(&node.socket, line).await;
        assert_eq!((ran.done, ran.stderr.as_str()), (Done::All, ""), "{line}");
    }
    let asked = [("h2", false), ("h2", true), ("h3", true), ("h2", true)];
    assert_eq!(node.asked_to_remove(), asked.map(|(name, force)| (name.to_owned(), 0, force)));
}

#[tokio::test]
async fn a_node_that_can_not_leave_is_told_why_and_is_not_removed() {
    let last = member(&["h1"]);
    let _serving = last.serve(Mode::Answer);
    let ran = overlay(&last.socket, "node leave").await;
    assert_eq!(ran.done, Done::Failed);
    let said = "error: h1 is the whole cluster: end the node and run `overlay node reset`\n";
    assert_eq!(ran.stderr, said);
    assert_eq!(last.asked_to_remove(), []);

    let busy = member(&["h1", "h2"]);
    let _serving = busy.serve(Mode::Answer);
    let endpoint = |name: &str, node: &str| Endpoint {
        name: name.to_owned(),
        node: node.to_owned(),
        ..Endpoint::default()
    };
    let nodes = vec![Node { id: 1, ..Node::default() }, Node { id: 2, ..Node::default() }];
    let endpoints = vec![endpoint("web1", "h1"), endpoint("web2", "h2"), endpoint("db", "h1")];
    busy.set_members(Members { nodes: nodes.clone(), endpoints, ..Members::default() });
    let ran = overlay(&busy.socket, "node leave").await;
    assert_eq!(ran.done, Done::Failed);
    assert!(ran.stderr.contains("h1 has endpoints (web1, db); remove them"), "{}", ran.stderr);
    assert_eq!(busy.asked_to_remove(), []);

    // The cluster has the last word. A refusal is no reason to wait.
    let refusal = Some(tonic::Status::failed_precondition("node h1 has 1 endpoints"));
    busy.set_members(Members { nodes, refusal, ..Members::default() });
    let host = FakeHost::default();
    let ran = overlay_on(&host, &busy.socket, "node leave").await;
    assert_eq!((ran.done, ran.stdout.as_str()), (Done::Failed, ""));
    assert_eq!(ran.stderr, "error: node h1 has 1 endpoints\n");
    assert_eq!(*host.waited.lock().unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn metrics_are_at_an_address_or_off() {
    assert_eq!("off".parse(), Ok(Metrics::Off));
    assert_eq!("[::1]:7401".parse(), Ok(Metrics::At("[::1]:7401".parse().unwrap())));
    for wrong in ["", "on", "7401", "10.0.0.1", "localhost:7401"] {
        assert!(wrong.parse::<Metrics>().is_err(), "{wrong}");
    }
}

#[test]
fn underlay_is_a_device_where_it_is_no_address() {
    assert_eq!("eth0".parse(), Ok(Underlay::Device("eth0".to_owned())));
    assert_eq!("fd00::1".parse(), Ok(Underlay::Address("fd00::1".parse().unwrap())));
}

#[test]
fn usage_errors() {
    for (line, kind) in [
        ("overlay", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("overlay network", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("overlay network rm", ErrorKind::MissingRequiredArgument),
        ("overlay network create", ErrorKind::MissingRequiredArgument),
        ("overlay network create n --vni 0", ErrorKind::ValueValidation),
        ("overlay network create n --mtu 67", ErrorKind::ValueValidation),
        ("overlay network create n --ip-range 10.0.0.0/25", ErrorKind::MissingRequiredArgument),
        ("overlay endpoint create e", ErrorKind::MissingRequiredArgument),
        ("overlay node run --listen 7400", ErrorKind::ValueValidation),
        ("overlay node run --vxlan-port 0", ErrorKind::ValueValidation),
        ("overlay node run --token t", ErrorKind::MissingRequiredArgument),
        ("overlay node run --gateway-subnet 172.18.0.1/16", ErrorKind::ValueValidation),
        ("overlay node run --gateway-subnet 172.18.0.0/31", ErrorKind::ValueValidation),
        ("overlay node run --voters 2", ErrorKind::ValueValidation),
        ("overlay node run --voters 3 --join 10.0.0.1:7400", ErrorKind::ArgumentConflict),
        ("overlay node promote", ErrorKind::MissingRequiredArgument),
        ("overlay cluster voters 4", ErrorKind::ValueValidation),
        ("overlay port", ErrorKind::MissingRequiredArgument),
        // Only what changes nothing.
        ("overlay network create n --stale", ErrorKind::UnknownArgument),
        ("overlay network rm n --stale", ErrorKind::UnknownArgument),
        ("overlay endpoint create e --network n --stale", ErrorKind::UnknownArgument),
        ("overlay endpoint rm e --stale", ErrorKind::UnknownArgument),
        ("overlay node rm h1 --stale", ErrorKind::UnknownArgument),
        ("overlay network ls -o yaml", ErrorKind::InvalidValue),
        ("overlay token ls", ErrorKind::InvalidSubcommand),
    ] {
        assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap_err().kind(), kind, "{line}");
    }
}

#[tokio::test]
async fn create_asks_for_what_was_given_and_says_what_was_made() {
    let mut node = FakeNode::new();
    let _serving = node.serve(Mode::Answer);
    let line = "network create myoverlay --subnet 172.16.16.0/24 --ip-range 172.16.16.128/25 --no-icc --mtu 1400";
    let ran = overlay(&node.socket, line).await;
    assert_eq!(
        (ran.done, ran.stdout.as_str(), ran.stderr.as_str()),
        (
            Done::All,
            "myoverlay: subnet 172.16.16.0/24, addresses from 172.16.16.128/25, VNI 4097\n",
            ""
        )
    );
    let request = node.created().await;
    assert_eq!(request.subnet, "172.16.16.0/24");
    assert_eq!(request.vni, 0, "the cluster chooses");
    assert_eq!(request.request_id.len(), 16);
    let expected =
        NetworkOptions { icc: Some(false), internal: false, multicast: false, mtu: 1400 };
    assert_eq!(request.options, Some(expected));

    let ran = overlay(&node.socket, "network create other -o json").await;
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["name"], "other");
    assert_eq!(json["options"]["icc"], true, "on unless told otherwise");
    assert_eq!(json["ip_range"], serde_json::Value::Null);
}

#[tokio::test]
async fn lagging_nodes_are_a_warning_to_who_asked_to_wait() {
    let node = FakeNode::new();
    let _serving = node.serve(Mode::Answer);
    let ran = overlay(&node.socket, "endpoint create web1 --network myoverlay").await;
    assert_eq!(ran.done, Done::All);
    assert_eq!(ran.stdout, "web1: 172.16.16.129/24, 02:42:ac:10:10:81, myoverlay on host1\n");
    assert!(
        ran.stderr.starts_with("warning: web1 not programmed yet on host2; "),
        "{}",
        ran.stderr
    );

    let ran = overlay(&node.socket, "endpoint create web1 --network n --no-wait -o json").await;
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["lagging_nodes"], serde_json::json!(["host2"]));
    assert_eq!(ran.stderr, "");
}

#[tokio::test]
async fn nodes_that_have_not_forgotten_an_endpoint_are_a_warning() {
    let node = FakeNode::new();
    let _serving = node.serve(Mode::Answer);
    let ran = overlay(&node.socket, "endpoint rm web1 late").await;
    assert_eq!((ran.done, ran.stdout.as_str()), (Done::All, "web1\nlate\n"));
    assert!(
        ran.stderr.starts_with("warning: late: not forgotten yet by host2; "),
        "{}",
        ran.stderr
    );
    let json = overlay(&node.socket, "endpoint rm web1 late -o json").await.stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!([
        {"name": "web1", "revision": 9},
        {"name": "late", "revision": 9, "lagging_nodes": ["host2"]},
    ]);
    assert_eq!(json, expected);
}

#[tokio::test]
async fn ports_are_printed_as_docker_prints_them() {
    let node = FakeNode::new();
    let _serving = node.serve(Mode::Answer);
    let ran = overlay(&node.socket, "port web1 --network n").await;
    assert_eq!((ran.done, ran.stderr.as_str()), (Done::All, ""));
    assert_eq!(ran.stdout, "80/tcp -> 0.0.0.0:32768\n53/udp -> 0.0.0.0:53\n");
    let ran = overlay(&node.socket, "port web2").await;
    assert_eq!((ran.done, ran.stdout.as_str(), ran.stderr.as_str()), (Done::All, "", ""));

    let json = overlay(&node.socket, "port web1 -o json").await.stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let first = serde_json::json!({"port": "80/tcp", "host_ip": "0.0.0.0", "host_port": 32768});
    assert_eq!(json[0], first);
    assert_eq!(overlay(&node.socket, "port web2 -o json").await.stdout, "[]\n");

    let ran = overlay(&node.socket, "endpoint create web1 --network myoverlay -P").await;
    assert_eq!(
        ran.stdout,
        "web1: 172.16.16.129/24, 02:42:ac:10:10:81, myoverlay on host1, \
         80/tcp -> 0.0.0.0:32768, 53/udp -> 0.0.0.0:53\n"
    );
}

#[tokio::test]
async fn refusal_is_printed_in_the_nodes_words_on_one_line() {
    let node = FakeNode::new();
    let _serving = node.serve(Mode::Answer);
    let ran = overlay(&node.socket, "network create taken").await;
    assert_eq!(ran.done, Done::Failed);
    assert_eq!(ran.stdout, "");
    assert_eq!(ran.stderr, "error: network with name taken already exists choose another\n");
}

#[tokio::test]
async fn rm_goes_on_past_a_refusal_and_stops_where_the_node_cannot_serve() {
    let node = FakeNode::new();
    let _serving = node.serve(Mode::Answer);
    let ran = overlay(&node.socket, "network rm a busy b gone c").await;
    assert_eq!(ran.done, Done::Failed);
    assert_eq!(ran.stdout, "a\nb\n");
    assert_eq!(ran.stderr, "error: network busy has 2 endpoints\nerror: no quorum\n");

    let ran = overlay(&node.socket, "network rm a b -o json").await;
    assert_eq!(ran.done, Done::All);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        json,
        serde_json::json!([{"name": "a", "revision": 9}, {"name": "b", "revision": 9}])
    );
}

#[tokio::test]
async fn a_node_is_promoted_and_demoted_and_the_answer_is_what_it_is_now() {
    let node = FakeNode::new();
    let _serving = node.serve(Mode::Answer);
    let ran = overlay(&node.socket, "node promote h4 -o json").await;
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((json["name"].as_str(), json["role"].as_str()), (Some("h4"), Some("learner")));
    let ran = overlay(&node.socket, "node demote h4").await;
    assert!(ran.stdout.contains("agent"), "{}", ran.stdout);
    let refusal = Some(tonic::Status::failed_precondition("node h4 is the only voter"));
    node.set_members(Members { refusal, ..Members::default() });
    let ran = overlay(&node.socket, "node demote h4").await;
    assert_eq!((ran.done, ran.stdout.as_str()), (Done::Failed, ""));
    assert_eq!(ran.stderr, "error: node h4 is the only voter\n");
    let ran = overlay(&node.socket, "cluster voters 5 -o json").await;
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json, serde_json::json!({"voters": 5}));
}

#[tokio::test]
async fn empty_list_is_a_header_or_an_empty_array() {
    let node = FakeNode::new();
    let _serving = node.serve(Mode::Answer);
    let table = overlay(&node.socket, "network ls").await.stdout;
    assert_eq!(table, "NAME   VNI   SUBNET   IP RANGE   OPTIONS   ENDPOINTS\n");
    assert_eq!(overlay(&node.socket, "network ls -o json").await.stdout, "[]\n");
}

#[tokio::test]
async fn answer_without_its_object_is_an_error() {
    let node = FakeNode::new();
    let _serving = node.serve(Mode::Answer);
    let ran = overlay(&node.socket, "network inspect a").await;
    assert_eq!(ran.done, Done::Failed);
    assert!(ran.stderr.starts_with("error: the answer lacks the network;"), "{}", ran.stderr);
}

#[tokio::test]
async fn node_of_another_version_is_named_as_such() {
    let node = FakeNode::new();
    let _serving = node.serve(Mode::Answer);
    let ran = overlay(&node.socket, "node ls").await;
    assert_eq!(ran.done, Done::Failed);
    assert!(
        ran.stderr.starts_with("error: the node does not know this request;"),
        "{}",
        ran.stderr
    );
}

#[tokio::test]
async fn monitor_prints_a_line_a_packet_and_fails_when_the_node_stops() {
    let node = FakeNode::new();
    let _serving = node.serve(Mode::Answer);
    let event = |reason: &str| Event { reason: reason.to_owned(), ..Event::default() };
    node.tell(vec![event("spoofed_ip"), event("unknown_vtep")]);
    let ran = overlay(&node.socket, "monitor -o json").await;
    let reasons: Vec<_> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["reason"].clone())
        .collect();
    assert_eq!(reasons, ["spoofed_ip", "unknown_vtep"]);
    assert_eq!(ran.done, Done::Failed);
    assert!(ran.stderr.starts_with("error: the node ended the stream;"), "{}", ran.stderr);
}

#[tokio::test]
async fn monitor_asks_for_what_its_flags_say() {
    let node = FakeNode::new();
    let _serving = node.serve(Mode::Answer);
    for line in [
        "monitor",
        "monitor --flows",
        "monitor --flows --sample 1 --network net1 --endpoint web1.net1",
        "monitor --reason spoofed_ip --reason unknown_vtep",
    ] {
        overlay(&node.socket, line).await;
    }
    let asked = EventsRequest::default;
    assert_eq!(
        node.watched(),
        [
            asked(),
            EventsRequest { sample: 100, ..asked() },
            EventsRequest {
                sample: 1,
                endpoint: "web1.net1".to_owned(),
                network: "net1".to_owned(),
                ..asked()
            },
            EventsRequest {
                reasons: vec!["spoofed_ip".to_owned(), "unknown_vtep".to_owned()],
                ..asked()
            },
        ]
    );
    for line in ["monitor --sample 10", "monitor --flows --sample 0"] {
        assert!(Cli::try_parse_from(format!("overlay {line}").split(' ')).is_err(), "{line}");
    }
}

#[tokio::test]
async fn no_node_on_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("overlay.sock");
    let ran = overlay(&socket, "status").await;
    assert_eq!(ran.done, Done::Failed);
    let start =
        format!("error: no node answers on {}; there is no such socket; ", socket.display());
    assert!(ran.stderr.starts_with(&start), "{}", ran.stderr);
    assert!(ran.stderr.contains("overlay node run"), "{}", ran.stderr);

    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let ran = overlay(&socket, "status").await;
    assert!(ran.stderr.contains("; nothing listens on it; "), "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1);
}

#[tokio::test]
async fn status_is_printed_and_fails_unless_the_node_is_ready() {
    let node = FakeNode::new();
    let _serving = node.serve(Mode::Answer);
    let status = |troubles: &[&str]| StatusResponse {
        node: "host1".to_owned(),
        troubles: troubles.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    for (status, words) in [
        (status(&[]), None),
        (status(&["no leader"]), Some("no leader")),
        (status(&["no leader", "no bpffs"]), Some("no leader; no bpffs")),
    ] {
        node.set_status(status);
        let ran = overlay(&node.socket, "status -o json").await;
        assert!(ran.stdout.contains("\"node\": \"host1\""), "{}", ran.stdout);
        let Some(words) = words else {
            assert_eq!((ran.done, ran.stderr.as_str()), (Done::All, ""));
            continue;
        };
        assert_eq!(ran.done, Done::Failed, "{words}");
        let error = ran.stderr.strip_prefix("error: the node is not ready; ");
        assert!(error.is_some_and(|why| why.contains(words)), "{words}: {}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    }
}

#[tokio::test]
async fn lost_connection_is_retried_once_with_the_same_request_id() {
    let mut node = FakeNode::new();
    let socket = node.socket.clone();
    let serving = async {
        let first = node.serve(Mode::Hang);
        let before = node.created().await;
        drop(first);
        let second = node.serve(Mode::Answer);
        (before, node.created().await, second)
    };
    let (ran, (before, again, _serving)) =
        tokio::join!(overlay(&socket, "network create a"), serving);
    assert_eq!(ran.done, Done::All, "{}", ran.stderr);
    assert_eq!(before.request_id, again.request_id);
    assert_eq!(before, again);
}

#[tokio::test]
async fn connection_lost_twice_is_an_error() {
    let mut node = FakeNode::new();
    let socket = node.socket.clone();
    let serving = async {
        for _ in 0..2 {
            let serving = node.serve(Mode::Hang);
            node.created().await;
            drop(serving);
        }
    };
    let (ran, ()) = tokio::join!(overlay(&socket, "network create a"), serving);
    assert_eq!(ran.done, Done::Failed);
    assert!(ran.stderr.starts_with("error: the node closed the connection; "), "{}", ran.stderr);
}

#[tokio::test]
async fn silent_node_ends_in_a_deadline() {
    let node = FakeNode::new();
    let _serving = node.serve(Mode::Hang);
    let client = Client::new(node.socket.clone());
    let request = CreateNetworkRequest::default();
    let deadline = Duration::from_millis(50);
    let answer = client
        .call(deadline, request, async |channel, request| {
            client::networks(channel).create(request).await
        })
        .await;
    assert!(matches!(answer, Err(Error::Deadline(d)) if d == deadline), "{answer:?}");
}

#[tokio::test]
async fn node_that_accepts_and_says_nothing_ends_in_a_deadline() {
    let node = FakeNode::new();
    let client = Client::new(node.socket.clone());
    let answer = client
        .call(
            Duration::from_millis(50),
            ListNetworksRequest::default(),
            async |channel, request| client::networks(channel).list(request).await,
        )
        .await;
    assert!(matches!(answer, Err(Error::Deadline(_))), "{answer:?}");
}

#[tokio::test]
async fn what_may_be_stale_says_so() {
    let node = FakeNode::new();
    let _serving = node.serve(Mode::Answer);
    let text = overlay(&node.socket, "network ls --stale").await;
    assert_eq!((text.done, text.stderr.as_str()), (Done::All, ""));
    let (first, rest) = text.stdout.split_once('\n').unwrap();
    assert_eq!(first, "STALE: as of revision 812; later changes may be missing");
    assert_eq!(rest, overlay(&node.socket, "network ls").await.stdout);
    let json = overlay(&node.socket, "network ls --stale -o json").await.stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json, serde_json::json!({"stale": true, "revision": 812, "answer": []}));
    for line in ["network inspect n", "endpoint inspect web1"] {
        let marked = overlay(&node.socket, &format!("{line} --stale")).await.stdout;
        let plain = overlay(&node.socket, line).await.stdout;
        assert_eq!(marked.split_once('\n').unwrap(), (first, plain.as_str()), "{line}");
    }
}

/// A pipe whose reader has closed it.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn reader_that_has_read_enough_is_no_failure() {
    let node = FakeNode::new();
    let _serving = node.serve(Mode::Answer);
    for line in ["overlay network ls", "overlay network ls -o json"] {
        let cli = parse(line);
        let (mut stdout, mut stderr) = (Closed, Vec::new());
        let output = Output::new(cli.output, &mut stdout, &mut stderr);
        let host = FakeHost::default();
        let done = carry_out(cli.command, node.socket.clone(), &host, output).await;
        assert_eq!((done, stderr.as_slice()), (Done::All, [].as_slice()), "{line}");
    }
}
