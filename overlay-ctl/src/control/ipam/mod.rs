//! Chooses the next free address, subnet and VNI. The functions are pure and only called from apply,
//! so that their results are unique by construction.
//!
//! The search for an address begins after the last one given. A freed address is therefore the last to
//! be used again, when it has long left the neighbours' caches.

use crate::model::{Pool, Subnet, Vni};
use imbl::OrdMap;
use ipnet::Ipv4Net;
use overlay_common::VNI_RESERVED;
use std::{collections::BTreeSet, net::Ipv4Addr};

/// Range of the subnets that are given when none is asked for: 10.128.0.0/9 in /24s.
const SUBNET_POOL: (u32, u32) = (0x0a80_0000, 0x0aff_ff00);

/// The next free address of `pool` after `last`. After the pool's end the search goes on at its start;
/// `None` = the pool is exhausted.
///
/// `used` is keyed by address; its values do not matter.
pub fn next_address<V: Clone>(
    pool: &Pool,
    last: Option<Ipv4Addr>,
    used: &OrdMap<Ipv4Addr, V>,
) -> Option<Ipv4Addr> {
    let (first, end) = pool.bounds();
    let start = match last {
        Some(last) if last >= first && last < end => Ipv4Addr::from(u32::from(last) + 1),
        _ => first,
    };
    first_gap(start, end, used).or_else(|| first_gap(first, start.min(end), used))
}

/// The least address of `start..=end` that `used` does not hold.
fn first_gap<V: Clone>(
    start: Ipv4Addr,
    end: Ipv4Addr,
    used: &OrdMap<Ipv4Addr, V>,
) -> Option<Ipv4Addr> {
    if start > end {
        return None;
    }
    let mut candidate = start;
    for taken in used.range(start..=end).map(|(address, _)| *address) {
        if taken != candidate {
            break;
        }
        if candidate == end {
            return None;
        }
        candidate = Ipv4Addr::from(u32::from(candidate) + 1);
    }
    Some(candidate)
}

/// The first /24 of the pool that overlaps none of `used`.
pub fn next_subnet(used: impl Iterator<Item = Subnet>) -> Option<Subnet> {
    let used: Vec<Subnet> = used.collect();
    (SUBNET_POOL.0..=SUBNET_POOL.1)
        .step_by(256)
        .filter_map(|base| Subnet::try_from(Ipv4Net::new(Ipv4Addr::from(base), 24).ok()?).ok())
        .find(|candidate| !used.iter().any(|taken| taken.overlaps(*candidate)))
}

/// The first free VNI from `last` + 1 (from [`Vni::FIRST`] if `last` is none). After the last VNI the
/// search goes on at the first; `None` = all are used.
pub fn next_vni(last: Option<Vni>, used: &BTreeSet<Vni>) -> Option<Vni> {
    let first = Vni::FIRST.get();
    let start = last.map_or(first, |vni| vni.get() + 1).max(first);
    (start..VNI_RESERVED)
        .chain(first..start)
        .filter_map(|number| Vni::try_from(number).ok())
        .find(|vni| !used.contains(vni))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(subnet: &str, range: Option<&str>) -> Pool {
        Pool::new(subnet.parse().unwrap(), range).unwrap()
    }

    #[test]
    fn a_range_is_given_out_from_its_second_address() {
        let pool = pool("172.16.16.0/24", Some("172.16.16.128/25"));
        let mut used = OrdMap::new();
        let mut last = None;
        for expected in 129..=131 {
            let address = next_address(&pool, last, &used).unwrap();
            assert_eq!(address, Ipv4Addr::new(172, 16, 16, expected));
            used.insert(address, ());
            last = Some(address);
        }
    }

    #[test]
    fn a_freed_address_comes_last() {
        let pool = pool("10.0.0.0/29", None);
        let mut used: OrdMap<Ipv4Addr, ()> = OrdMap::new();
        let address = |n| Ipv4Addr::new(10, 0, 0, n);
        let mut last = None;
        for _ in 0..3 {
            last = next_address(&pool, last, &used);
            used.insert(last.unwrap(), ());
        }
        used.remove(&address(2));
        let mut given = Vec::new();
        while let Some(next) = next_address(&pool, last, &used) {
            used.insert(next, ());
            given.push(next);
            last = Some(next);
        }
        assert_eq!(given, [address(5), address(6), address(2)]);
        used.clear();
        assert_eq!(next_address(&pool, Some(address(2)), &used), Some(address(3)), "the first too");
    }

    #[test]
    fn subnets_and_vnis_skip_what_is_taken() {
        let taken: Subnet = "10.128.0.0/23".parse().unwrap();
        assert_eq!(next_subnet([taken].into_iter()).unwrap().to_string(), "10.128.2.0/24");
        assert_eq!(next_subnet(["10.0.0.0/8".parse().unwrap()].into_iter()), None);
        let used = BTreeSet::from([Vni::FIRST]);
        assert_eq!(next_vni(None, &used).unwrap().get(), 4098);
        let end = Vni::try_from(VNI_RESERVED - 1).unwrap();
        assert_eq!(next_vni(Some(end), &used).unwrap().get(), 4098);
    }

    proptest! {
        #[test]
        fn what_is_given_is_free_and_inside_until_exhausted(
            prefix in 24u8..=30, taken in proptest::collection::btree_set(0u32..256, 0..64),
            last in proptest::option::of(0u32..256),
        ) {
            let base = u32::from(Ipv4Addr::new(10, 1, 2, 0));
            let pool = pool(&format!("10.1.2.0/{prefix}"), None);
            let mut used: OrdMap<_, _> =
                taken.into_iter().map(|n| (Ipv4Addr::from(base + n), ())).collect();
            let mut last = last.map(|n| Ipv4Addr::from(base + n));
            let (first, end) = pool.bounds();
            while let Some(address) = next_address(&pool, last, &used) {
                prop_assert!(pool.subnet.check_endpoint(address).is_ok());
                prop_assert!(address >= first && address <= end);
                prop_assert!(used.insert(address, ()).is_none());
                last = Some(address);
            }
            for n in u32::from(first)..=u32::from(end) {
                prop_assert!(used.contains_key(&Ipv4Addr::from(n)), "gave up with one left");
            }
        }
    }
}
