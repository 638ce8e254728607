//! The choice whether `guard_underlay` runs on the underlay device, and in which mode.
//!
//! The programs behind it drop the same packets, only later. So it may be missing, and by default it runs only where it
//! costs nothing: an XDP program in a driver can disable offloads of the device, and then every wanted packet gets more
//! expensive.

use super::SharedDatapath;
use crate::{
    config::Xdp,
    dataplane::{
        datapath::{DatapathError, Guard, GuardMode},
        netlink::{self, Netlink, XdpDevice},
    },
};
use std::collections::BTreeSet;

/// Receive offloads that drivers switch off, refuse, or silently stop while a native program is attached: virtio_net no
/// longer lets its host merge packets (but still shows the feature), mlx5 and bnxt refuse the program or switch off the
/// offload.
const MERGING: [&str; 2] = ["rx-gro-hw", "rx-lro"];

/// Keeps the program attached or detached, as `--xdp` says.
pub(super) struct GuardKeeper {
    asked: Xdp,
    ifindex: u32,
    /// The device after the last change; `None` before the first.
    seen: Option<XdpDevice>,
}

impl GuardKeeper {
    pub(crate) fn new(asked: Xdp, ifindex: u32) -> Self {
        Self { asked, ifindex, seen: None }
    }

    /// The guard belongs on the device with this index from now on.
    pub(super) fn follow(&mut self, ifindex: u32) {
        self.ifindex = ifindex;
        self.seen = None;
    }

    /// Attaches or detaches the program, the first time and whenever the programs on the device changed since: another
    /// program may have been detached, or this one.
    pub(crate) async fn keep(&mut self, datapath: &SharedDatapath, netlink: &Netlink) {
        // The guard of another version stays with the other programs of that version.
        if datapath.lock().is_swap_due() {
            return;
        }
        let device = netlink.xdp_device(self.ifindex).await.ok().flatten();
        // Without a device, or an answer, the rest of the pass has the better error.
        let Some(device) = device else { return };
        if self.seen.as_ref() == Some(&device) {
            return;
        }
        let guard = self.settle(datapath, &device).await;
        self.say(&guard, &device);
        datapath.lock().note_guard(guard);
        self.seen = netlink.xdp_device(self.ifindex).await.ok().flatten();
    }

    fn say(&self, guard: &Guard, device: &XdpDevice) {
        let (mode, why) = (guard.mode.map_or("off", GuardMode::name), &guard.why);
        if guard.is_fallback {
            tracing::warn!(device = %device.name, asked = ?self.asked, mode, why, "XDP guard");
        } else {
            tracing::info!(device = %device.name, asked = ?self.asked, mode, why, "XDP guard");
        }
    }

    async fn settle(&self, datapath: &SharedDatapath, device: &XdpDevice) -> Guard {
        let before = match self.asked {
            Xdp::Auto => Some(netlink::offloads(&device.name).await),
            Xdp::Native | Xdp::Generic | Xdp::Off => None,
        };
        let before = before.map(|read| read.map_err(|error| crate::error_chain(&error)));
        let mode = match choose(self.asked, device, before.as_ref()) {
            Ok(mode) => mode,
            Err(why) => return off(datapath, why, false),
        };
        if let Err(error) = self.attach(datapath, device, mode) {
            let why = match error {
                DatapathError::Guard { why, .. } => why,
                error => crate::error_chain(&error),
            };
            return off(datapath, why, true);
        }
        if let Some(Ok(before)) = before
            && let Some(why) = lost(&device.name, &before).await
        {
            return off(datapath, why, false);
        }
        let why = match mode {
            GuardMode::Native => String::new(),
            GuardMode::Generic => "--xdp generic".to_owned(),
        };
        Guard { mode: Some(mode), why, is_fallback: false }
    }

    fn attach(
        &self,
        datapath: &SharedDatapath,
        device: &XdpDevice,
        mode: GuardMode,
    ) -> Result<(), DatapathError> {
        datapath.lock().attach_guard(&device.name, mode)
    }
}

/// The mode to try, or the reason for none. Only `auto` uses `offloads`.
fn choose(
    asked: Xdp,
    device: &XdpDevice,
    offloads: Option<&Result<BTreeSet<String>, String>>,
) -> Result<GuardMode, String> {
    // A card takes the tag of a VLAN out of the frame before XDP sees it: what is for another network, where the same
    // addresses may be in use, would be dropped as a stranger's.
    if device.has_vlans && asked != Xdp::Off {
        return Err(format!(
            "VLANs are on {}, whose packets XDP cannot tell from its own",
            device.name
        ));
    }
    match asked {
        Xdp::Native => return Ok(GuardMode::Native),
        Xdp::Generic => return Ok(GuardMode::Generic),
        Xdp::Off => return Err("--xdp off".to_owned()),
        Xdp::Auto => {}
    }
    let name = &device.name;
    if !device.has_hardware {
        // Of a veth it is the other end that would stop sending super-packets; of a bond, the devices
        // below it would be changed. None of that shows at the device itself.
        return Err(format!(
            "{name} is no hardware: a native program would cost others their offloads"
        ));
    }
    let offloads = match offloads {
        Some(Ok(offloads)) => offloads,
        Some(Err(error)) => return Err(error.clone()),
        None => return Err(format!("the offloads of {name} are not known")),
    };
    let merging: Vec<&str> =
        MERGING.into_iter().filter(|feature| offloads.contains(*feature)).collect();
    if merging.is_empty() {
        Ok(GuardMode::Native)
    } else {
        Err(format!("a native program would cost {name} its {}", merging.join(" and ")))
    }
}

/// The offloads that the device lost when the program was attached, in words, if any.
async fn lost(ifname: &str, before: &BTreeSet<String>) -> Option<String> {
    match netlink::offloads(ifname).await {
        Ok(now) => {
            let lost: Vec<&str> = before.difference(&now).map(String::as_str).collect();
            let lost = (!lost.is_empty()).then(|| lost.join(", "))?;
            Some(format!("a native program costs {ifname} its {lost}: it was taken off again"))
        }
        Err(error) => Some(crate::error_chain(&error)),
    }
}

/// Detaches the program.
fn off(datapath: &SharedDatapath, why: String, is_fallback: bool) -> Guard {
    let detached = datapath.lock().detach_guard();
    let why = match detached {
        Ok(()) => why,
        Err(error) => format!("{why}; {}", crate::error_chain(&error)),
    };
    Guard { mode: None, why, is_fallback }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(has_hardware: bool) -> XdpDevice {
        let (has_vlans, programs) = (false, BTreeSet::new());
        XdpDevice { name: "eth0".to_owned(), has_hardware, has_vlans, programs }
    }

    fn auto(has_hardware: bool, offloads: &[&str]) -> Result<GuardMode, String> {
        let offloads = offloads.iter().map(|&name| name.to_owned()).collect();
        choose(Xdp::Auto, &device(has_hardware), Some(&Ok(offloads)))
    }

    #[test]
    fn auto_is_native_where_nothing_is_merged_by_the_device() {
        assert_eq!(auto(true, &["rx-gro", "tx-tcp-segmentation"]), Ok(GuardMode::Native));
    }

    #[test]
    fn auto_pays_with_no_offload() {
        for (offloads, named) in [
            (&["rx-gro", "rx-gro-hw"][..], "rx-gro-hw"),
            (&["rx-lro"], "rx-lro"),
            (&["rx-lro", "rx-gro-hw"], "rx-gro-hw and rx-lro"),
        ] {
            let why = auto(true, offloads).unwrap_err();
            assert!(why.ends_with(named), "{why}");
        }
        assert!(auto(false, &["rx-gro"]).unwrap_err().contains("no hardware"));
        let unknown = "the kernel told of no offload at all".to_owned();
        let offloads = Err(unknown.clone());
        assert_eq!(choose(Xdp::Auto, &device(true), Some(&offloads)), Err(unknown));
    }

    #[test]
    fn who_asks_gets_it() {
        assert_eq!(choose(Xdp::Native, &device(false), None), Ok(GuardMode::Native));
        assert_eq!(choose(Xdp::Generic, &device(false), None), Ok(GuardMode::Generic));
        assert_eq!(choose(Xdp::Off, &device(true), None), Err("--xdp off".to_owned()));
    }

    #[test]
    fn a_device_with_vlans_gets_none() {
        let device = XdpDevice { has_vlans: true, ..device(true) };
        for asked in [Xdp::Native, Xdp::Generic, Xdp::Auto] {
            let why = choose(asked, &device, None).unwrap_err();
            assert!(why.contains("VLANs are on eth0"), "{asked:?}: {why}");
        }
    }
}
