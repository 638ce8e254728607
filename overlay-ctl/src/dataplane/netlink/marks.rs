//! Which devices are the overlay's: names and aliases made, and recognised again.

use super::{
    DeviceError,
    link::{Link, Owner},
    names::{
        ALIAS_PREFIX, BARRIER, BARRIER_ALIAS, GATEWAY_BRIDGE, GATEWAY_BRIDGE_ALIAS, GRO_ALIAS,
        GRO_PREFIX, NAME_MAX,
    },
};
use crate::dataplane::kernel::{DeviceId, DeviceKind};
use std::net::Ipv4Addr;

/// The name of the host's side of a device: `ovp2a` for port 42, `ovgw0000002b` for leg 43.
///
/// # Errors
/// [`DeviceError::IdTooLarge`] where the number does not fit a device name.
pub fn device_name(id: DeviceId) -> Result<String, DeviceError> {
    let row = id.kind.row();
    let name = format!("{}{:0digits$x}", row.prefix, id.number, digits = row.digits);
    if name.len() > NAME_MAX { Err(DeviceError::IdTooLarge(id.number)) } else { Ok(name) }
}

/// The alias of a device, which is set when the device was raised: `overlay:endpoint:42`.
pub(super) fn alias(id: DeviceId) -> String {
    format!("{ALIAS_PREFIX}{}:{}", id.kind.row().mark, id.number)
}

/// The device whose alias this is.
pub(super) fn id_by_alias(alias: &str) -> Option<DeviceId> {
    let (word, number) = alias.strip_prefix(ALIAS_PREFIX)?.split_once(':')?;
    let kind = DeviceKind::ALL.into_iter().find(|kind| kind.row().mark == word)?;
    Some(DeviceId { kind, number: number.parse().ok()? })
}

/// The alias that earlier versions set, where it was a different one.
fn former_alias(id: DeviceId) -> Option<String> {
    let word = id.kind.row().former_mark?;
    let address = Ipv4Addr::from(u32::try_from(id.number).ok()?);
    Some(format!("{ALIAS_PREFIX}{word}:{address}"))
}

/// Returns true if the device was raised: it has its alias.
pub(super) fn is_raised(link: &Link, id: DeviceId) -> bool {
    link.alias == alias(id) || former_alias(id).is_some_and(|former| link.alias == former)
}

/// The id of a device that belongs to the overlay. A half-made device counts: whoever finds it completes or removes
/// it.
pub(super) fn id_of(link: &Link) -> Option<DeviceId> {
    let id = DeviceKind::ALL.into_iter().find_map(|kind| {
        let number = link.name.strip_prefix(kind.row().prefix)?;
        let number = u64::from_str_radix(number, 16).ok()?;
        let id = DeviceId { kind, number };
        (device_name(id).ok()? == link.name).then_some(id)
    })?;
    let is_ours = is_raised(link, id) || link.owner(&alias(id)) != Owner::Foreign;
    is_ours.then_some(id)
}

/// Returns true if the device is the gateway bridge of the overlay.
pub(super) fn is_gateway_bridge(link: &Link) -> bool {
    link.name == GATEWAY_BRIDGE
        && link.bridge.is_some()
        && link.owner(GATEWAY_BRIDGE_ALIAS) != Owner::Foreign
}

/// Returns true if the device is the overlay's barrier bridge.
pub(super) fn is_barrier(link: &Link) -> bool {
    link.name == BARRIER && link.owner(BARRIER_ALIAS) != Owner::Foreign
}

/// Returns true if the device is a GRO device of the overlay.
pub(super) fn is_gro_device(link: &Link) -> bool {
    // The number distinguishes a half-made one from a gateway leg, whose prefix begins with this prefix.
    let port = link.name.strip_prefix(GRO_PREFIX).map(str::parse::<u16>);
    matches!(port, Some(Ok(_))) && link.owner(GRO_ALIAS) != Owner::Foreign
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dataplane::netlink::names::{GROUP, PREFIX},
        model::LegId,
    };

    fn link(name: &str, alias: &str, group: u32) -> Link {
        Link { name: name.to_owned(), alias: alias.to_owned(), group, ..Link::default() }
    }

    #[test]
    fn names_fit_and_lead_back_to_the_device() {
        let ports = [0, 1, 0xdead_beef, (1 << 48) - 1].map(DeviceId::port);
        let legs = [[172, 18, 0, 3], [0, 0, 0, 1], [255, 255, 255, 255]]
            .map(|octets| DeviceId::leg(LegId::of_addresses(octets.into())));
        for id in ports.into_iter().chain(legs) {
            let name = device_name(id).unwrap();
            assert!(name.len() <= NAME_MAX, "{name}");
            assert_eq!(id_of(&link(&name, &alias(id), 0)), Some(id));
            assert_eq!(id_of(&link(&name, "", GROUP)), Some(id), "half made");
        }
        assert!(matches!(device_name(DeviceId::port(1 << 48)), Err(DeviceError::IdTooLarge(_))));
    }

    #[test]
    fn every_name_begins_alike() {
        let kinds = DeviceKind::ALL.map(|kind| kind.row().prefix);
        for name in [BARRIER, GATEWAY_BRIDGE, GRO_PREFIX].into_iter().chain(kinds) {
            assert!(name.starts_with(PREFIX), "{name}");
        }
    }

    /// Devices stand under these names.
    #[test]
    fn names_and_aliases_stay() {
        for (id, name, mark) in [
            (DeviceId::port(42), "ovp2a", "overlay:endpoint:42"),
            (DeviceId::leg(LegId::default().next()), "ovgw00000001", "overlay:leg:1"),
        ] {
            assert_eq!((&*device_name(id).unwrap(), &*alias(id)), (name, mark));
        }
    }

    #[test]
    fn a_leg_of_an_earlier_version_is_known_by_its_address() {
        for (name, mark, address) in [
            ("ovgwac120003", "overlay:gateway:172.18.0.3", [172, 18, 0, 3]),
            ("ovgw0a000002", "overlay:gateway:10.0.0.2", [10, 0, 0, 2]),
        ] {
            let (link, id) = (link(name, mark, 0), LegId::of_addresses(address.into()));
            assert_eq!(id_of(&link), Some(DeviceId::leg(id)));
            assert!(is_raised(&link, DeviceId::leg(id)));
        }
        let port = link("ovp2a", "overlay:gateway:0.0.0.42", 0);
        assert!(!is_raised(&port, DeviceId::port(42)));
    }

    #[test]
    fn a_device_is_ours_only_with_its_own_alias() {
        let leg = "overlay:gateway:172.18.0.3";
        for (name, alias) in [
            ("ovp2a", "overlay:endpoint:43"),
            ("ovp2a", ""),
            ("ovp02a", "overlay:endpoint:42"),
            ("veth1", "overlay:endpoint:42"),
            ("ovgwac120004", leg),
            ("ovgwac120003", "overlay:gateway"),
            ("ovgwac120003", ""),
            ("ovgwAC120003", leg),
            ("ovgw+c120003", leg),
            ("ovg4789", "overlay:gro"),
        ] {
            assert_eq!(id_of(&link(name, alias, 0)), None, "{name} {alias}");
        }
    }
}
