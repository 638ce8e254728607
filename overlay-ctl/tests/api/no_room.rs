//! A node whose state folder has no room.

use overlay_ctl::{error_chain, proto::v1::CreateNetworkRequest};
use overlay_lab::SmallDisk;
use tokio::time::timeout;
use tonic::Code;

use crate::{
    fixture::{BOUND, Host, NETWORK, Node, assert_refused, eventually},
    lab::skip,
};

#[test]
fn a_voter_alone_refuses_writes_until_there_is_room() {
    if skip() {
        return;
    }
    let host = Host::new();
    let disk = SmallDisk::mount(&host.state_dir(), 8).unwrap();
    Node::start_on(host, |_| {}).call(async move |_, mut api| {
        api.network(NETWORK, "172.16.16.0/24").await;
        // Less than a node keeps free.
        disk.fill(512 << 10).unwrap();
        let more = CreateNetworkRequest { name: "more".to_owned(), ..Default::default() };
        let refused = api.networks.create(more.clone()).await;
        assert_refused(refused, Code::ResourceExhausted, &["state folder", "is full", "make room"]);
        // The caller is answered before the alarm is shown.
        eventually("there is an alarm", async || {
            let alarms = api.status().await.alarms;
            matches!(&alarms[..], [alarm] if alarm.contains("is full")).then_some(())
        })
        .await;
        disk.free().unwrap();
        eventually("the alarm is over", async || {
            api.status().await.alarms.is_empty().then_some(())
        })
        .await;
        api.networks.create(more).await.unwrap();
    });
}

#[test]
fn a_new_node_is_refused() {
    if skip() {
        return;
    }
    let host = Host::new();
    let disk = SmallDisk::mount(&host.state_dir(), 8).unwrap();
    disk.fill(3 << 20).unwrap();
    let args = host.args();
    let error = host.netns.block_on(|| async move {
        let ended = timeout(BOUND, overlay_ctl::node::run(args)).await;
        error_chain(&ended.expect("it is refused").unwrap_err())
    });
    assert!(error.contains("MiB free, 4 are needed: make room"), "{error}");
    assert!(!host.bpffs.exists(), "pins are left");
}
