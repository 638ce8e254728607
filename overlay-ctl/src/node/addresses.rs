//! The addresses of a node: what follows from the one that its host has on the underlay, and from what it was started
//! with; and the task that follows the host's where that changes.

use super::error::StartError;
use crate::{
    control::peers::Directory,
    dataplane::netlink::Netlink,
    model::{Subnet, Vtep},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

/// The port of the API if none is given.
const DEFAULT_PORT: u16 = 7400;
/// Pause between two attempts to listen at a new address.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// The addresses of a node, as it registers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Its VTEP, as others reach it.
    pub(super) vtep: Vtep,
    /// Its API, as others reach it.
    pub(super) listen: SocketAddr,
    /// Its API on this host, where that is another address (1:1 NAT).
    pub(super) local_listen: Option<SocketAddr>,
    /// The subnet of its gateway bridge.
    pub(super) gateway: Subnet,
    /// Its metrics, if other hosts reach them.
    pub(super) metrics: Option<SocketAddr>,
}

impl Addresses {
    /// Where this process listens.
    pub(super) fn bound(&self) -> SocketAddr {
        self.local_listen.unwrap_or(self.listen)
    }
}

/// What the addresses of a node follow from, besides the one that its host has on the underlay.
#[derive(Clone, Copy, Debug)]
pub(super) struct AddressPlan {
    /// The address by which others reach the host, if a router translates it.
    pub(super) advertise: Option<Ipv4Addr>,
    /// Where the API listens, if that was asked for.
    pub(super) listen: Option<SocketAddr>,
    pub(super) gateway: Subnet,
    pub(super) metrics: Option<SocketAddr>,
}

impl AddressPlan {
    /// The addresses of a node whose host has this one on the underlay.
    pub(super) fn addresses(&self, own: Ipv4Addr) -> Addresses {
        let bound = self.listen.unwrap_or((own, DEFAULT_PORT).into());
        let ip = self.advertise.map_or(bound.ip(), IpAddr::V4);
        let listen = SocketAddr::new(ip, bound.port());
        Addresses {
            vtep: self.advertise.unwrap_or(own).into(),
            listen,
            local_listen: (bound != listen).then_some(bound),
            gateway: self.gateway,
            metrics: self.metrics,
        }
    }
}

/// Checks the address that is to be told to others in place of `own`, which the host has on the underlay.
///
/// # Errors
/// [`StartError::Advertise`], or the host's addresses can't be listed.
pub(super) async fn advertised(
    asked: Option<IpAddr>,
    netlink: &Netlink,
    own: Ipv4Addr,
) -> Result<Option<Ipv4Addr>, StartError> {
    let Some(address) = asked else { return Ok(None) };
    let no = |why| Err(StartError::Advertise { address, why });
    let IpAddr::V4(v4) = address else { return no("only IPv4 underlays are carried yet") };
    if !is_of_one_host(v4) {
        return no(
            "no other node reaches that: give the address that a router translates to this host's",
        );
    }
    if v4 != own && netlink.has_address(v4).await? {
        return no("this host has that address itself: name it with --underlay");
    }
    Ok(Some(v4))
}

fn is_of_one_host(address: Ipv4Addr) -> bool {
    !(address.octets()[0] == 0
        || address.is_loopback()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_link_local())
}

/// Follows the address that the host has on the underlay: listens at the new one, unless another was asked for, and has
/// the node registered with what follows from it. Runs for as long as the node.
pub(super) async fn follow_the_address(
    plan: AddressPlan,
    mut own: watch::Receiver<Ipv4Addr>,
    directory: Directory,
    listeners: mpsc::Sender<TcpListener>,
    addresses: watch::Sender<Addresses>,
) {
    let mut bound = addresses.borrow().bound();
    let mut last = *own.borrow();
    loop {
        let wanted = addresses.borrow().bound();
        tokio::select! {
            changed = own.changed() => {
                // The end of the node: its tasks end by themselves.
                let Ok(()) = changed else { return std::future::pending().await };
                let before = std::mem::replace(&mut last, *own.borrow_and_update());
                let now = plan.addresses(last);
                if plan.listen.is_some_and(|listen| listen.ip() == IpAddr::V4(before)) {
                    let listen = now.bound();
                    tracing::warn!(%listen, "the API stays at the address that --listen names, which is gone: without --listen it follows the node's own address");
                }
                // Before others are told of it.
                listen(now.bound(), &mut bound, &listeners, true).await;
                directory.moved(now.listen);
                addresses.send_replace(now);
            }
            () = sleep(LISTEN_AGAIN), if wanted != bound => {
                listen(wanted, &mut bound, &listeners, false).await;
            }
        }
    }
}

/// Listens at `wanted`, unless that is where the node listens already.
async fn listen(
    wanted: SocketAddr,
    bound: &mut SocketAddr,
    listeners: &mpsc::Sender<TcpListener>,
    is_first: bool,
) {
    if wanted == *bound {
        return;
    }
    let made = async { tokio::net::TcpListener::bind(wanted).await?.into_std() };
    let made: io::Result<TcpListener> = made.await;
    match made {
        Ok(listener) => {
            tracing::info!(from = %bound, to = %wanted, "the API listens at another address");
            *bound = wanted;
            // Nobody accepts any more where the node ends.
            drop(listeners.send(listener).await);
        }
        Err(error) if is_first => {
            tracing::warn!(address = %wanted, %error, "the API can't listen at the node's new address: it is tried again and again");
        }
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::peers::Peer;
    use uuid::Uuid;

    const BOUND: Duration = Duration::from_secs(20);

    fn plan() -> AddressPlan {
        let gateway = "172.18.0.0/16".parse().unwrap();
        AddressPlan { advertise: None, listen: None, gateway, metrics: None }
    }

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_others_are_told_follows_from_the_hosts_address_and_from_what_was_asked() {
        let told = |plan: AddressPlan| {
            let Addresses { vtep, listen, local_listen, .. } =
                plan.addresses(Ipv4Addr::new(10, 0, 0, 5));
            (vtep.to_string(), listen, local_listen)
        };
        let (own, public) = ("10.0.0.5".to_owned(), "203.0.113.5".to_owned());
        assert_eq!(told(plan()), (own.clone(), socket("10.0.0.5:7400"), None));
        let listen = Some(socket("10.1.1.1:7500"));
        let asked = AddressPlan { listen, ..plan() };
        assert_eq!(told(asked), (own.clone(), socket("10.1.1.1:7500"), None));
        let advertise = Some(Ipv4Addr::new(203, 0, 113, 5));
        let behind = AddressPlan { advertise, ..plan() };
        let local = Some(socket("10.0.0.5:7400"));
        assert_eq!(told(behind), (public.clone(), socket("203.0.113.5:7400"), local));
        let both = AddressPlan { advertise, listen, ..plan() };
        assert_eq!(told(both), (public, socket("203.0.113.5:7500"), listen), "the port asked for");
        let same = AddressPlan { advertise: Some(Ipv4Addr::new(10, 0, 0, 5)), ..plan() };
        assert_eq!(told(same), (own, socket("10.0.0.5:7400"), None), "nothing is translated");
    }

    #[test]
    fn no_address_of_many_hosts_or_of_none_is_told() {
        for wrong in
            ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255", "169.254.1.1"]
        {
            assert!(!is_of_one_host(wrong.parse().unwrap()), "{wrong}");
        }
        for right in ["10.0.0.5", "203.0.113.5", "100.64.0.1"] {
            assert!(is_of_one_host(right.parse().unwrap()), "{right}");
        }
    }

    #[tokio::test]
    async fn the_api_listens_at_the_hosts_new_address_before_others_are_told() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let place = |last: u8| Ipv4Addr::new(127, 0, 0, last);
        let peer = Peer { id: 2, listen: socket("192.0.2.9:7400"), voter: true, raft_id: None };
        let directory = Directory::new(Uuid::new_v4(), [peer]);
        let (own, heard) = watch::channel(place(1));
        let (listeners, mut taken) = mpsc::channel(1);
        // The port is one that nobody else has: as if the default were this one.
        let at = |last| SocketAddr::from((place(last), port));
        let start = Addresses { listen: at(1), ..plan().addresses(place(1)) };
        let (addresses, mut told) = watch::channel(start);
        let asked = AddressPlan { listen: Some(at(2)), ..plan() };
        let task = tokio::spawn(follow_the_address(asked, heard, directory, listeners, addresses));
        own.send_replace(place(2));
        let listener = tokio::time::timeout(BOUND, taken.recv()).await.unwrap().unwrap();
        assert_eq!(listener.local_addr().unwrap(), at(2));
        tokio::time::timeout(BOUND, told.changed()).await.unwrap().unwrap();
        let now = *told.borrow_and_update();
        assert_eq!((now.vtep, now.listen), (Vtep::from(place(2)), at(2)));
        // It listens there already: nothing but the VTEP is another one.
        own.send_replace(place(3));
        tokio::time::timeout(BOUND, told.changed()).await.unwrap().unwrap();
        let now = *told.borrow_and_update();
        assert_eq!((now.vtep, now.listen), (Vtep::from(place(3)), at(2)));
        assert!(taken.try_recv().is_err());
        drop(own);
        assert!(!task.is_finished());
        task.abort();
    }

    #[tokio::test]
    async fn a_node_that_cannot_listen_at_its_new_address_is_registered_all_the_same() {
        let taken_by_another = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = taken_by_another.local_addr().unwrap();
        let directory = Directory::new(Uuid::new_v4(), []);
        let (own, heard) = watch::channel(Ipv4Addr::new(127, 0, 0, 9));
        let (listeners, mut taken) = mpsc::channel(1);
        let (addresses, mut told) = watch::channel(plan().addresses(Ipv4Addr::new(127, 0, 0, 9)));
        let asked = AddressPlan { listen: Some(at), ..plan() };
        let task = tokio::spawn(follow_the_address(asked, heard, directory, listeners, addresses));
        own.send_replace(Ipv4Addr::LOCALHOST);
        tokio::time::timeout(BOUND, told.changed()).await.unwrap().unwrap();
        assert!(taken.try_recv().is_err());
        drop(taken_by_another);
        let listener = tokio::time::timeout(BOUND, taken.recv()).await.unwrap().unwrap();
        assert_eq!(listener.local_addr().unwrap(), at, "tried again");
        task.abort();
    }
}
