//! The merge pair.

use overlay_ctl::dataplane::netlink::{MergePair, MergePairError, Netlink};

use crate::lab::{Netns, skip};

async fn ensure(netlink: &Netlink) -> Result<MergePair, MergePairError> {
    netlink.ensure_merge_pair_among(&netlink.link_list().await.unwrap()).await
}

/// The offload of a device is on.
fn is_on(host: &Netns, device: &str, offload: &str) -> bool {
    host.sh(&format!("ethtool -k {device}")).contains(&format!("{offload}: on"))
}

#[test]
fn the_merge_pair_is_made_once_and_put_right() {
    if skip() {
        return;
    }
    let host = Netns::new("host");
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        assert_eq!(netlink.ensure_barrier().await.unwrap(), None);
        let pair = ensure(&netlink).await.unwrap();
        assert_eq!(ensure(&netlink).await.unwrap(), pair, "kept");
        assert_eq!(netlink.link_list().await.unwrap().merge_pair().as_ref(), Some(&pair));
        for device in ["ovm-out", "ovm-in"] {
            let text = host.sh(&format!("ip -d addr show dev {device}"));
            for part in ["NOARP", ",UP", "mtu 65535", "master ovbarrier", "group 1870031993"] {
                assert!(text.contains(part), "{device}: {part} in {text}");
            }
            assert!(!text.contains("inet"), "{text}");
            let cpus = host.sh("getconf _NPROCESSORS_CONF");
            assert!(text.contains(&format!("numrxqueues {}", cpus.trim())), "{text}");
        }
        let mac = host.sh("ip link show ovm-in");
        assert!(mac.contains("link/ether 02:6f:76:6d:00:00"), "{mac}");
        let right = || {
            assert!(is_on(&host, "ovm-in", "generic-receive-offload"));
            assert!(!is_on(&host, "ovm-out", "tcp-segmentation-offload"));
        };
        right();

        host.sh("ethtool -K ovm-in gro off; ethtool -K ovm-out tso on");
        assert_eq!(ensure(&netlink).await.unwrap(), pair, "kept");
        right();
        let mut last = pair;
        for touched in [
            "ip link set ovm-out down",
            "ip link set ovm-in mtu 1400",
            "ip link set ovm-in address 02:00:00:00:00:01",
            "ip link del ovm-out",
        ] {
            host.sh(touched);
            assert_eq!(netlink.link_list().await.unwrap().merge_pair(), None, "{touched}");
            let again = ensure(&netlink).await.unwrap();
            assert_ne!(again, last, "{touched}: made anew");
            right();
            last = again;
        }
        // One that is taken out of the barrier is put back with all that are in it.
        host.sh("ip link set ovm-in nomaster");
        netlink.ensure_barrier().await.unwrap();
        assert!(host.sh("ip -o link show master ovbarrier").contains("ovm-in"));

        netlink.remove_merge_pair().await.unwrap();
        netlink.remove_merge_pair().await.unwrap();
        assert!(!host.succeeds("ip link show ovm-in") && !host.succeeds("ip link show ovm-out"));
    });
}

#[test]
fn a_device_of_another_program_is_no_merge_pair() {
    if skip() {
        return;
    }
    let host = Netns::new("host");
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        host.sh("ip link add ovm-in type veth peer name theirs");
        let error = ensure(&netlink).await.unwrap_err();
        assert!(matches!(&error, MergePairError::NameTaken(name) if name == "ovm-in"), "{error}");
        assert!(!host.succeeds("ip link show ovm-out"), "nothing is left");
        netlink.remove_merge_pair().await.unwrap();
        assert!(host.succeeds("ip link show ovm-in"), "another's is left alone");
        assert!(!netlink.link_list().await.unwrap().has_merge_pair());
        host.sh("ip link del theirs");
        // A node that was killed left half of its work.
        host.sh("ip link add ovm-out group 1870031993 type veth peer name ovm-in group 1870031993");
        assert!(netlink.link_list().await.unwrap().has_merge_pair());
        ensure(&netlink).await.unwrap();
        assert!(netlink.link_list().await.unwrap().merge_pair().is_some());
    });
}
