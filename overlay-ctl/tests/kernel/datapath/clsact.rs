//! Programs that are attached by clsact, where the kernel has no TCX, among filters of others.

use overlay_ctl::dataplane::{
    datapath::{Datapath, Hook},
    kernel::Program,
};

use super::{Host, seen_more};
use crate::lab::skip;

#[test]
fn clsact_serves_where_tcx_does_not() {
    if skip() {
        return;
    }
    let host = Host::new();
    let [port, leg, eth] = ["port0", "leg0", "eth7"].map(|device| host.ifindex(device));
    host.netns.sh("tc qdisc add dev eth7 clsact");
    host.netns.sh("tc filter add dev eth7 ingress prio 7 protocol ip u32 match u32 0 0");
    let open = || Datapath::open_on(host.config_for("eth7"), Hook::Clsact).unwrap();
    let packets = host.run(|| {
        let mut datapath = open();
        host.attach_endpoint(&mut datapath);
        host.attach_endpoint(&mut datapath);
        host.make_traffic();
        seen_more(&datapath, [0; 3])
    });
    let count = |device| host.filters(device).matches("direct-action").count();
    let counts = || ["eth7", "port0", "leg0"].map(count);
    assert_eq!(counts(), [1, 1, 1]);
    let before = host.filters("eth7");
    host.make_traffic();
    host.run(|| {
        let mut datapath = open();
        seen_more(&datapath, packets);
        assert!(host.is_attached(&datapath), "{datapath:?}");
        assert_eq!(counts(), [1, 1, 1], "replaced, not added");
        assert_ne!(host.filters("eth7"), before, "by another program");
        datapath.detach(Program::FromEndpoint, port).unwrap();
        assert_eq!(counts(), [1, 0, 1]);
        assert_eq!(host.entries(), [format!("gateway-{leg}"), format!("underlay-{eth}")].into());

        Datapath::remove_all(&host.bpffs).unwrap();
        assert!(!host.bpffs.exists());
        assert_eq!(counts(), [0, 0, 0]);
        assert!(host.filters("eth7").contains("u32"), "the foreign filter is left");
    });
}

/// A filter that comes before ours and ends the chain would hide every packet from it.
#[test]
fn clsact_filters_of_others_come_behind_ours() {
    if skip() {
        return;
    }
    let host = Host::new();
    host.netns.sh("tc qdisc add dev eth7 clsact");
    host.netns
        .sh("tc filter add dev eth7 ingress prio 10 protocol all u32 match u32 0 0 flowid 1:1");
    host.run(|| {
        let mut datapath = Datapath::open_on(host.config_for("eth7"), Hook::Clsact).unwrap();
        host.attach_endpoint(&mut datapath);
        host.make_traffic();
        seen_more(&datapath, [0; 3]);
    });
}

/// An earlier version attached with a later priority. Its filter is moved to the first place; where another kind of
/// filter has that, it stays, and in either case there is one.
#[test]
fn a_clsact_filter_of_an_earlier_version_is_moved_to_the_first_place() {
    if skip() {
        return;
    }
    let first = "tc filter add dev eth7 ingress prio 1 protocol ip u32 match u32 0 0";
    let host = Host::new();
    let priorities = |host: &Host| -> Vec<String> {
        let filters = host.filters("eth7");
        let ours = filters.lines().filter(|line| line.contains("direct-action"));
        ours.filter_map(|line| line.split(" pref ").nth(1)?.split(' ').next())
            .map(str::to_owned)
            .collect()
    };
    let open = || drop(Datapath::open_on(host.config_for("eth7"), Hook::Clsact).unwrap());
    host.run(|| {
        host.netns.sh("tc qdisc add dev eth7 clsact");
        host.netns.sh(first);
        open();
        assert_eq!(priorities(&host), ["28534"], "the first is taken");
        open();
        assert_eq!(priorities(&host), ["28534"]);
        host.netns.sh("tc filter del dev eth7 ingress prio 1");
        open();
        assert_eq!(priorities(&host), ["1"], "as a filter of an earlier version");
        open();
        assert_eq!(priorities(&host), ["1"]);
        Datapath::remove_all(&host.bpffs).unwrap();
        assert_eq!(priorities(&host), [] as [&str; 0]);
    });
}
