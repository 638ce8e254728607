//! What is tried until there is a data plane.

use super::*;
use crate::dataplane::{
    host::{SharedNamespaces, SharedPorts},
    kernel::LinkLayer,
    netlink::HeldNamespaces,
};
use clap::{Args as _, FromArgMatches as _};
use std::time::Duration;
use tokio::time::timeout;

/// Virtual time: what has not happened by then never will.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// The host has no BPF file system, or the test no right to use one: either is the first thing that is looked at.
#[tokio::test(start_paused = true)]
async fn a_host_that_refuses_the_data_plane_is_left_alone_and_the_node_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let bpffs = dir.path().join("not-bpffs");
    let words = ["run", "--bpffs", bpffs.to_str().unwrap()];
    let matches = NodeRunArgs::augment_args(clap::Command::new("run")).get_matches_from(words);
    let args = NodeRunArgs::from_arg_matches(&matches).unwrap();
    let held = SharedNamespaces::new(HeldNamespaces::new(dir.path().join("netns")));
    let mut plan = DataPlanePlan {
        args: &args,
        name: "h1".parse().unwrap(),
        choice: UnderlayChoice::Auto,
        gateway: "172.18.0.0/16".parse().unwrap(),
        advertised: None,
        api_port: 7400,
        check: EndpointCheck::new(SharedPorts::default(), held),
        pins: None,
        has_pins: Arc::default(),
    };
    let reports = Reports {
        id: 1,
        status: Sender::default(),
        own: Sender::new(Ipv4Addr::LOCALHOST),
        absence: Sender::default(),
    };
    assert!(timeout(FOR_EVER, plan.until_up(&reports)).await.is_err(), "nothing is up");
    let why = crate::error_chain(&Datapath::check(&bpffs).unwrap_err());
    let absence = reports.absence.borrow().clone().expect("a reason");
    assert_eq!(
        absence,
        format!("the data plane of node h1 is not up, and is tried again by itself: {why}")
    );
    let status =
        LocalStatus { error: Some(absence), lacks_data_plane: true, ..LocalStatus::default() };
    assert_eq!(*reports.status.borrow(), status);
    assert!(!bpffs.exists() && plan.pins.is_none(), "nothing was made");
}

#[test]
fn an_underlay_must_carry_what_endpoints_send() {
    let underlay = |mtu| Underlay {
        ifindex: 2,
        name: "eth0".to_owned(),
        address: Ipv4Addr::new(10, 0, 0, 1),
        mtu,
        is_silent: false,
        link_layer: LinkLayer::Ethernet,
        is_veth: false,
        vrf: None,
    };
    for (mtu, asked, refused) in [
        (UNDERLAY_MTU_MIN - 1, None, Some("at least")),
        (UNDERLAY_MTU_MIN, None, None),
        (1500, Some(1500), None),
        (1500, Some(1501), Some("--mtu 1501 is more")),
    ] {
        let said = check_mtu(&underlay(mtu), asked).err().map(|error| error.to_string());
        let is_as_said = match (&said, refused) {
            (Some(said), Some(words)) => said.contains(words),
            (said, refused) => said.is_none() && refused.is_none(),
        };
        assert!(is_as_said, "{mtu} {asked:?}: {said:?}");
    }
}
