//! Super-packets above 64 KiB ("BIG TCP"), where the underlay device takes them: the choice of sizes, and the sizes
//! that the underlay had before, which it gets back when the node is removed.

use crate::{
    config::BigTcp,
    dataplane::{
        kernel::{LargePackets, SUPER_PACKET_MAX, SuperPacketHealth, SuperPackets},
        netlink::{BottomDevice, BottomKind, DeviceSizes, Netlink, NetlinkError},
    },
    durable::{FileError, read_json, write_json},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// Measured as the best of 64 to 512 KiB, hardly worse than larger sizes; a larger packet delays those behind it for
/// longer.
const WANTED: u32 = 262_144;
/// Drivers of cards that cut super-packets above 64 KiB themselves, so that what is on the wire is not larger than
/// without. Each of them announces it (`netif_set_tso_max_size`; read in Linux 6.12). Any other device may hand a
/// super-packet on whole, as veth, tun and virtio_net do: its receiver may have to cut it in software, and the host's
/// own TCP gets slower by that.
const CUTTING_DRIVERS: [&str; 3] = ["bnxt_en", "ice", "mlx5_core"];
/// The file in the state folder.
pub(super) const FILE: &str = "underlay.json";

/// The underlay device before the node changed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    ifindex: u32,
    device: String,
    /// The sizes that it had.
    had: SuperPackets,
    /// The sizes that it was given. A device that has other sizes now was changed by another program, or is another
    /// device.
    given: SuperPackets,
}

/// The reason why the sizes of the underlay could not be changed or restored.
#[derive(Debug, thiserror::Error)]
pub enum BigTcpError {
    /// The state folder failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// rtnetlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The chosen sizes.
#[derive(Debug, Clone)]
pub struct SuperPacketPlan {
    /// The sizes for the underlay; none where it is left alone.
    underlay: SuperPackets,
    /// The sizes for the devices of endpoints.
    devices: LargePackets,
    health: SuperPacketHealth,
}

impl SuperPacketPlan {
    /// Chooses for an underlay device with these sizes. `is_cut` tells whether the device cuts super-packets itself, or
    /// why that is not known; only [`BigTcp::Auto`] uses it.
    fn new(asked: BigTcp, sizes: &DeviceSizes, is_cut: Result<(), String>) -> Self {
        let size = sizes.takes.unwrap_or(SUPER_PACKET_MAX).min(WANTED);
        let reason = if asked == BigTcp::Off {
            "--big-tcp off".to_owned()
        } else if sizes.super_packets.gso_ipv4.is_none() {
            "the kernel has none for IPv4 (it came with 6.3)".to_owned()
        } else if size <= SUPER_PACKET_MAX {
            "the underlay device takes none".to_owned()
        } else if let (BigTcp::Auto, Err(why)) = (asked, is_cut) {
            why
        } else {
            let big = Some(size);
            let ipv4 = SuperPackets { gso_ipv4: big, gro_ipv4: big, ..SuperPackets::default() };
            let (wanted, ipv6) = match asked {
                BigTcp::On => (SuperPackets { gso: big, gro: big, ..ipv4 }, size),
                BigTcp::Auto | BigTcp::Ipv4 | BigTcp::Off => (ipv4, SUPER_PACKET_MAX),
            };
            let underlay = match asked {
                // What the host receives it may forward to any device, a container's or a virtual machine's: one
                // that takes 64 KiB would have each larger packet cut in software.
                BigTcp::Auto => SuperPackets { gro: None, gro_ipv4: None, ..wanted },
                BigTcp::On | BigTcp::Ipv4 | BigTcp::Off => wanted,
            };
            return Self {
                underlay,
                devices: LargePackets {
                    // The default where nothing is wanted: an earlier run of the node may have chosen otherwise.
                    endpoints: SuperPackets {
                        gso: wanted.gso.or(SuperPackets::DEFAULT.gso),
                        gro: wanted.gro.or(SuperPackets::DEFAULT.gro),
                        ..wanted
                    },
                    // What the underlay merged goes on as it is, to a published port.
                    gateway: SuperPackets { gro: None, gro_ipv4: None, ..wanted },
                },
                health: SuperPacketHealth { ipv4: size, ipv6, reason: String::new() },
            };
        };
        Self {
            underlay: SuperPackets::default(),
            devices: LargePackets {
                endpoints: SuperPackets::DEFAULT,
                gateway: SuperPackets::DEFAULT,
            },
            health: SuperPacketHealth { ipv4: SUPER_PACKET_MAX, ipv6: SUPER_PACKET_MAX, reason },
        }
    }

    /// Chooses the sizes, gives them to the underlay device, and stores the former sizes in the state folder. Where
    /// none are chosen, the device gets back what an earlier run changed.
    ///
    /// # Errors
    /// The state folder, or rtnetlink.
    pub(crate) async fn start(
        netlink: &Netlink,
        (ifindex, device): (u32, &str),
        asked: BigTcp,
        state_dir: &Path,
    ) -> Result<Self, BigTcpError> {
        let path = state_dir.join(FILE);
        let before: Option<Before> = read_json(&path)?;
        let sizes = netlink.device_sizes(ifindex).await?.unwrap_or(DeviceSizes::NONE);
        let is_cut = match asked {
            BigTcp::Auto => is_cut_by(device, &netlink.bottom_devices(ifindex).await?),
            BigTcp::On | BigTcp::Ipv4 | BigTcp::Off => Ok(()),
        };
        let plan = Self::new(asked, &sizes, is_cut);
        let given = sizes.super_packets.possible(&plan.underlay);
        let is_given = |before: &Before| before.ifindex == ifindex && before.given == given;
        if before.as_ref().is_some_and(is_given) && sizes.super_packets.satisfies(&given) {
            return Ok(plan);
        }
        if let Some(before) = before {
            before.give_back(netlink).await?;
        }
        let had = netlink.device_sizes(ifindex).await?.unwrap_or(DeviceSizes::NONE).super_packets;
        if had.satisfies(&given) {
            forget(path)?;
        } else {
            // The file first, so that the sizes can be restored also where the node is killed in between.
            let before = Before { ifindex, device: device.to_owned(), had, given };
            if let Err(error) = write_json(&path, &before) {
                // A full disk is no reason not to start.
                let mut plan = Self::new(BigTcp::Off, &sizes, Ok(()));
                plan.health.reason = crate::error_chain(&error);
                return Ok(plan);
            }
            netlink.set_super_packets(ifindex, &given).await?;
            tracing::info!(device, bytes = plan.health.ipv4, "super-packets above 64 KiB");
        }
        Ok(plan)
    }

    /// Gives the underlay its sizes again where another program changed them.
    pub(crate) async fn keep(&self, netlink: &Netlink, ifindex: u32) -> Result<(), NetlinkError> {
        netlink.set_super_packets(ifindex, &self.underlay).await
    }

    /// The sizes of super-packets of the endpoints' devices.
    #[must_use]
    pub fn devices(&self) -> &LargePackets {
        &self.devices
    }

    /// The sizes, as the node reports them.
    pub(crate) fn health(&self) -> &SuperPacketHealth {
        &self.health
    }
}

/// Finds out whether an underlay device cuts super-packets itself; if not, the error says why that is not known.
/// `bottom` are the devices that send its packets in the end.
fn is_cut_by(device: &str, bottom: &BTreeSet<BottomDevice>) -> Result<(), String> {
    let force = "`--big-tcp on` has them all the same";
    if bottom.is_empty() {
        return Err(format!("{device} has no device below it that could cut them; {force}"));
    }
    for BottomDevice { name, kind } in bottom {
        let what = match kind {
            BottomKind::Bus(driver) if CUTTING_DRIVERS.contains(&driver.as_str()) => continue,
            BottomKind::Bus(driver) if driver.is_empty() => "of an unknown driver".to_owned(),
            BottomKind::Bus(driver) => format!("of the driver {driver}"),
            BottomKind::Software(kind) if kind.is_empty() => "of no known kind".to_owned(),
            BottomKind::Software(kind) => format!("a {kind}"),
            BottomKind::Hidden => "on a device of another network namespace".to_owned(),
        };
        return Err(format!("{name} is {what}, which may not cut them itself; {force}"));
    }
    Ok(())
}

impl Before {
    /// Restores the former sizes, where the device still has those that the node gave it. Returns true if it had.
    async fn give_back(&self, netlink: &Netlink) -> Result<bool, NetlinkError> {
        let Self { ifindex, device, had, given } = self;
        let now = netlink.device_sizes(*ifindex).await?;
        let is_given = now.is_some_and(|now| now.super_packets.satisfies(given));
        if is_given {
            netlink.set_super_packets(*ifindex, &given.possible(had)).await?;
            tracing::info!(device, "super-packets as they were before");
        }
        Ok(is_given)
    }
}

/// Gives the underlay device back the sizes that it had before the node. Returns the device, where it did.
///
/// # Errors
/// The state folder, or rtnetlink.
pub(crate) async fn restore(
    netlink: &Netlink,
    state_dir: &Path,
) -> Result<Option<String>, BigTcpError> {
    let path = state_dir.join(FILE);
    let Some(before) = read_json::<Before>(&path)? else { return Ok(None) };
    let is_given_back = before.give_back(netlink).await?;
    forget(path)?;
    Ok(is_given_back.then_some(before.device))
}

fn forget(path: PathBuf) -> Result<(), BigTcpError> {
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(FileError::Io { path, source }.into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod golden {
    use super::*;

    fn value() -> Before {
        let size = |gso| SuperPackets { gso_ipv4: gso, ..SuperPackets::DEFAULT };
        Before { ifindex: 7, device: "eth0".to_owned(), had: size(None), given: size(Some(WANTED)) }
    }

    pub(crate) fn underlay() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        write_json(&dir.path().join(FILE), &value()).unwrap();
        fs::read(dir.path().join(FILE)).unwrap()
    }

    pub(crate) fn check_underlay(bytes: &[u8]) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), bytes).unwrap();
        assert_eq!(read_json(&dir.path().join(FILE)).unwrap(), Some(value()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(takes: u32) -> DeviceSizes {
        DeviceSizes { mtu: 1500, takes: Some(takes), super_packets: SuperPackets::DEFAULT }
    }

    fn not_known() -> Result<(), String> {
        Err("eth0 is a veth".to_owned())
    }

    #[test]
    fn the_device_the_kernel_and_the_word_decide() {
        let health = |asked, sizes| {
            let plan = SuperPacketPlan::new(asked, &sizes, Ok(()));
            let SuperPacketHealth { ipv4, ipv6, reason } = plan.health().clone();
            (ipv4, ipv6, reason.is_empty())
        };
        for asked in [BigTcp::Ipv4, BigTcp::Auto] {
            assert_eq!(health(asked, sizes(524_280)), (WANTED, SUPER_PACKET_MAX, true));
        }
        assert_eq!(health(BigTcp::On, sizes(100_000)), (100_000, 100_000, true));
        assert_eq!(health(BigTcp::On, sizes(65_536)), (SUPER_PACKET_MAX, SUPER_PACKET_MAX, false));
        assert_eq!(
            health(BigTcp::Off, sizes(524_280)),
            (SUPER_PACKET_MAX, SUPER_PACKET_MAX, false)
        );
        assert!(!health(BigTcp::On, DeviceSizes::NONE).2);
    }

    #[test]
    fn unless_told_otherwise_only_what_cuts_them_gets_them() {
        let plan = SuperPacketPlan::new(BigTcp::Auto, &sizes(524_280), not_known());
        assert_eq!(plan.underlay, SuperPackets::default(), "left alone");
        assert_eq!(plan.devices.endpoints, SuperPackets::DEFAULT);
        assert_eq!((plan.health.ipv4, &*plan.health.reason), (SUPER_PACKET_MAX, "eth0 is a veth"));
        let plan = SuperPacketPlan::new(BigTcp::Auto, &sizes(524_280), Ok(()));
        let sent = SuperPackets { gso_ipv4: Some(WANTED), ..SuperPackets::default() };
        assert_eq!(plan.underlay, sent, "what is received goes on to anybody");
        for asked in [BigTcp::On, BigTcp::Ipv4] {
            let plan = SuperPacketPlan::new(asked, &sizes(524_280), not_known());
            assert_eq!(plan.underlay.gso_ipv4, Some(WANTED), "forced");
        }
    }

    #[test]
    fn every_device_at_the_bottom_has_to_cut() {
        let device = |name: &str, kind| BottomDevice { name: name.to_owned(), kind };
        let bus = |name, driver: &str| device(name, BottomKind::Bus(driver.to_owned()));
        let software = |name, kind: &str| device(name, BottomKind::Software(kind.to_owned()));
        let why = |devices: &[BottomDevice]| {
            is_cut_by("bond0", &devices.iter().cloned().collect()).err().unwrap_or_default()
        };
        let cards = [bus("eth0", "mlx5_core"), bus("eth1", "ice")];
        assert_eq!(why(&cards), "");
        for (device, said) in [
            (software("eth2", "veth"), "eth2 is a veth,"),
            (software("eth2", "bridge"), "eth2 is a bridge,"),
            (software("eth2", "tun"), "eth2 is a tun,"),
            (software("eth2", ""), "eth2 is of no known kind,"),
            (bus("eth2", "virtio_net"), "eth2 is of the driver virtio_net,"),
            (bus("eth2", ""), "eth2 is of an unknown driver,"),
            (
                device("eth2", BottomKind::Hidden),
                "eth2 is on a device of another network namespace,",
            ),
        ] {
            let [first, second] = cards.clone();
            let why = why(&[first, second, device]);
            assert!(why.starts_with(said) && why.contains("--big-tcp on"), "{why}");
        }
        assert!(why(&[]).starts_with("bond0 has no device below it"));
    }

    #[test]
    fn devices_get_what_the_underlay_has_or_what_they_started_with() {
        let plan = SuperPacketPlan::new(BigTcp::On, &sizes(524_280), not_known());
        assert_eq!(plan.devices.gateway.gso_ipv4, Some(WANTED));
        assert_eq!(plan.devices.gateway.gro_ipv4, None, "what was merged goes on as it is");
        let off = SuperPacketPlan::new(BigTcp::Off, &sizes(524_280), Ok(()));
        assert_eq!(off.devices.endpoints, SuperPackets::DEFAULT);
        assert_eq!(off.underlay, SuperPackets::default(), "left alone");
    }
}
