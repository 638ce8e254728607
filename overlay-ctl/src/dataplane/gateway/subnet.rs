//! Chooses the subnet of the gateway bridge. No I/O.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::model::Subnet;

/// Second octets of the default and of the last subnet that is tried: 172.18.0.0/16 to 172.31.0.0/16.
/// 172.17 is Docker's default bridge; Docker's networks use the rest of RFC 1918's 172.16.0.0/12.
const FIRST: u8 = 18;
const LAST: u8 = 31;
const PREFIX: u8 = 16;

/// The reason why the gateway bridge gets no subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// The subnet that was asked for is taken.
    #[error(
        "the gateway subnet {asked} collides with {taken} ({what}): choose another one with `--gateway-subnet`, or remove that route or address"
    )]
    Collides {
        /// The subnet that was asked for.
        asked: Subnet,
        /// The prefix that shares addresses with it.
        taken: Ipv4Net,
        /// The use of that prefix, as "route via eth0".
        what: String,
    },
    /// None was asked for, and all that are tried are taken.
    #[error(
        "no gateway subnet is free: each of 172.{FIRST}.0.0/{PREFIX} to 172.{LAST}.0.0/{PREFIX} collides with a route or an address of this host, the first with {taken} ({what}): choose one with `--gateway-subnet`"
    )]
    NoneFree {
        /// The prefix that shares addresses with the first one.
        taken: Ipv4Net,
        /// The use of that prefix.
        what: String,
    },
}

/// Chooses the gateway bridge's subnet, and returns a message for the log if the choice is unexpected.
///
/// `asked` is taken or refused. If it is `None`, an existing bridge keeps its subnet `standing`, because
/// endpoints have addresses of it. Without a bridge, as after a reboot, the result is `last`, the one that the node had
/// last, if it is still free: otherwise the order in which programs start would decide, and legs would get new addresses.
/// In the end it is the first free of 172.18.0.0/16 to 172.31.0.0/16. `taken` are the host's routes and addresses, without the bridge's own, with a
/// description of each: "route via eth0".
///
/// # Errors
/// [`SubnetError`].
pub fn choose_subnet(
    asked: Option<Subnet>,
    standing: Option<Ipv4Net>,
    last: Option<Subnet>,
    taken: &[(Ipv4Net, String)],
) -> Result<(Subnet, Option<String>), SubnetError> {
    let collision = |subnet: Subnet| {
        taken.iter().find(|(net, _)| net.contains(&subnet.net()) || subnet.net().contains(net))
    };
    if let Some(asked) = asked {
        return match collision(asked) {
            None => Ok((asked, None)),
            Some((net, what)) => {
                Err(SubnetError::Collides { asked, taken: *net, what: what.clone() })
            }
        };
    }
    if let Some(standing) = standing.and_then(|net| Subnet::try_from(net.trunc()).ok()) {
        let say = collision(standing).map(|(net, what)| {
            format!(
                "the gateway bridge keeps its subnet {standing} although it collides with {net} \
                 ({what}): endpoints may not reach all of that"
            )
        });
        return Ok((standing, say));
    }
    let mut first_collision = None;
    if let Some(last) = last {
        match collision(last) {
            None => return Ok((last, None)),
            Some((net, what)) => {
                first_collision = Some((last, net.to_owned(), what.clone()));
            }
        }
    }
    for second in FIRST..=LAST {
        let subnet = default_subnet(second);
        match collision(subnet) {
            None => {
                let say = first_collision.map(|(passed, net, what): (Subnet, Ipv4Net, String)| {
                    format!(
                        "the gateway bridge has {subnet}, since {passed} collides with {net} ({what})"
                    )
                });
                return Ok((subnet, say));
            }
            Some((net, what)) => {
                first_collision.get_or_insert_with(|| (subnet, net.to_owned(), what.clone()));
            }
        }
    }
    match first_collision {
        Some((_, taken, what)) => Err(SubnetError::NoneFree { taken, what }),
        None => unreachable!("the range is not empty, and each of it was free or collided"),
    }
}

fn default_subnet(second: u8) -> Subnet {
    let net = Ipv4Net::new(Ipv4Addr::new(172, second, 0, 0), PREFIX).map(Subnet::try_from);
    match net {
        Ok(Ok(subnet)) => subnet,
        _ => unreachable!("172.x.0.0/16 is a unicast prefix"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    fn docker(second: u8) -> (Ipv4Net, String) {
        (default_subnet(second).net(), format!("address of br{second}"))
    }

    #[test]
    fn the_default_and_what_follows_it() {
        assert_eq!(choose_subnet(None, None, None, &[]), Ok((subnet("172.18.0.0/16"), None)));
        // An adjacent subnet does not collide.
        let taken = [docker(17), (net("10.0.0.0/8"), "route via eth0".to_owned())];
        assert_eq!(choose_subnet(None, None, None, &taken).unwrap().0, subnet("172.18.0.0/16"));
        let (chosen, say) = choose_subnet(None, None, None, &[docker(18), docker(19)]).unwrap();
        assert_eq!(chosen, subnet("172.20.0.0/16"));
        let say = say.unwrap();
        for part in ["172.20.0.0/16", "172.18.0.0/16", "address of br18"] {
            assert!(say.contains(part), "{part} in {say}");
        }
    }

    #[test]
    fn all_taken_is_said_with_the_way_out() {
        let taken = [(net("172.16.0.0/12"), "route via tun0".to_owned())];
        let error = choose_subnet(None, None, None, &taken).unwrap_err().to_string();
        for part in ["172.18.0.0/16", "172.31.0.0/16", "route via tun0", "--gateway-subnet"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        let asked = subnet("192.168.0.0/24");
        assert_eq!(choose_subnet(Some(asked), None, None, &taken), Ok((asked, None)));
    }

    #[test]
    fn a_wish_that_collides_names_with_what() {
        let taken = [(net("172.18.5.1/32"), "address of eth1".to_owned())];
        let asked = Some(subnet("172.18.0.0/16"));
        let error =
            choose_subnet(asked, asked.map(Subnet::net), None, &taken).unwrap_err().to_string();
        for part in ["172.18.0.0/16", "172.18.5.1/32", "address of eth1", "--gateway-subnet"] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn a_bridge_that_stands_keeps_its_subnet() {
        let standing = Some(net("10.9.0.1/16"));
        assert_eq!(choose_subnet(None, standing, None, &[]), Ok((subnet("10.9.0.0/16"), None)));
        let taken = [(net("10.9.1.0/24"), "route via eth0".to_owned())];
        let (kept, say) = choose_subnet(None, standing, None, &taken).unwrap();
        assert_eq!(kept, subnet("10.9.0.0/16"));
        assert!(say.unwrap().contains("route via eth0"));
        // The bridge's address was changed to one whose prefix leaves no room.
        let (fresh, _) = choose_subnet(None, Some(net("10.9.0.1/32")), None, &[]).unwrap();
        assert_eq!(fresh, subnet("172.18.0.0/16"));
    }

    #[test]
    fn the_last_one_is_kept_while_it_is_free() {
        let kept = subnet("172.19.0.0/16");
        let last = Some(kept);
        assert_eq!(choose_subnet(None, None, last, &[]), Ok((subnet("172.19.0.0/16"), None)));
        assert_eq!(choose_subnet(None, None, last, &[docker(18)]).unwrap().0, kept);
        let (other, say) = choose_subnet(None, None, last, &[docker(18), docker(19)]).unwrap();
        assert_eq!(other, subnet("172.20.0.0/16"));
        assert!(say.as_ref().is_some_and(|say| say.contains("172.19.0.0/16")), "{say:?}");
        // The bridge that stands, or the wish, is newer.
        let standing = Some(net("10.9.0.1/16"));
        assert_eq!(choose_subnet(None, standing, last, &[]).unwrap().0, subnet("10.9.0.0/16"));
        let asked = Some(subnet("10.8.0.0/16"));
        assert_eq!(choose_subnet(asked, standing, last, &[]).unwrap().0, subnet("10.8.0.0/16"));
        let taken = [(net("172.16.0.0/12"), "route via tun0".to_owned())];
        assert!(choose_subnet(None, None, last, &taken).is_err());
    }

    fn any_net() -> impl Strategy<Value = Ipv4Net> {
        let anywhere = any::<u32>().prop_map(Ipv4Addr::from);
        let near = (16u8..33, any::<u8>()).prop_map(|(b, c)| Ipv4Addr::new(172, b, c, 0));
        (prop_oneof![anywhere, near], 1u8..=32)
            .prop_map(|(address, prefix)| Ipv4Net::new(address, prefix).unwrap())
    }

    proptest! {
        #[test]
        fn what_is_chosen_shares_no_address_with_the_host(
            nets in proptest::collection::vec(any_net(), 0..40),
            asked in proptest::option::of(any_net()),
        ) {
            let taken: Vec<_> = nets.iter().map(|net| (*net, "route".to_owned())).collect();
            let asked = asked.and_then(|net| Subnet::try_from(net.trunc()).ok());
            let shared = |subnet: Subnet, net: &Ipv4Net| {
                subnet.net().network() <= net.broadcast() && net.network() <= subnet.net().broadcast()
            };
            match choose_subnet(asked, None, None, &taken) {
                Ok((subnet, say)) => {
                    prop_assert!(!nets.iter().any(|net| shared(subnet, net)));
                    match asked {
                        Some(asked) => prop_assert_eq!(subnet, asked),
                        None => {
                            let second = subnet.net().network().octets()[1];
                            prop_assert!((FIRST..=LAST).contains(&second));
                            // It is the first free one, and there is a message if it is not the default.
                            for skipped in FIRST..second {
                                let skipped = default_subnet(skipped);
                                prop_assert!(nets.iter().any(|net| shared(skipped, net)));
                            }
                            prop_assert_eq!(say.is_some(), second != FIRST);
                        }
                    }
                }
                Err(SubnetError::Collides { taken, .. }) => {
                    prop_assert!(shared(asked.unwrap(), &taken));
                }
                Err(SubnetError::NoneFree { .. }) => {
                    for second in FIRST..=LAST {
                        let subnet = default_subnet(second);
                        prop_assert!(nets.iter().any(|net| shared(subnet, net)));
                    }
                }
            }
        }
    }
}
