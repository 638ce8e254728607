//! Lists of the kernel that a concurrent change may interrupt.
//!
//! The kernel makes a list in parts, and a change between two parts can make it leave out something that stands the whole
//! time: before kernel 6.9 a list of devices goes on at a position, not at an index. The kernel marks such a list
//! (NLM_F_DUMP_INTR). It is then asked for again; after some attempts all of them are taken together, because what stands
//! is missing in each of them hardly ever. What is acted on because it is absent is still asked for by its name before.

use futures::StreamExt as _;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{
    Handle,
    packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
};

use super::NetlinkError;

/// Attempts to get a list that nothing interrupted.
const ATTEMPTS: usize = 3;

/// What was listed.
pub(super) struct Listed {
    /// The items. Where each of several attempts was interrupted, it has what any of them had, the last attempt last: an
    /// item that stood all the time occurs once for each attempt, and one that is gone may be among them.
    pub(super) items: Vec<RouteNetlinkMessage>,
    /// The number of attempts that `items` are of; 1 where nothing interrupted the last one.
    pub(super) attempts: usize,
}

/// Asks for a list.
pub(super) async fn dump(
    handle: &Handle,
    request: RouteNetlinkMessage,
    action: &str,
) -> Result<Listed, NetlinkError> {
    let mut attempts = Vec::new();
    for _ in 0..ATTEMPTS {
        let attempt = once(handle, request.clone(), action).await?;
        let is_whole = attempt.is_whole;
        attempts.push(attempt);
        if is_whole {
            break;
        }
    }
    Ok(merged(attempts))
}

/// One list.
struct Attempt {
    items: Vec<RouteNetlinkMessage>,
    /// The kernel did not mark it as interrupted.
    is_whole: bool,
}

async fn once(
    handle: &Handle,
    request: RouteNetlinkMessage,
    action: &str,
) -> Result<Attempt, NetlinkError> {
    let mut request = NetlinkMessage::from(request);
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut handle = handle.clone();
    let mut answers = handle.request(request).map_err(|error| NetlinkError::new(action, error))?;
    let mut attempt = Attempt { items: Vec::new(), is_whole: true };
    while let Some(answer) = answers.next().await {
        attempt.is_whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(item) => attempt.items.push(item),
            NetlinkPayload::Error(error) => {
                return Err(NetlinkError::new(action, rtnetlink::Error::NetlinkError(error)));
            }
            // The socket had no room for the rest.
            NetlinkPayload::Overrun(_) => attempt.is_whole = false,
            _ => {}
        }
    }
    Ok(attempt)
}

/// The last attempt if it is whole, otherwise all of them.
fn merged(mut attempts: Vec<Attempt>) -> Listed {
    if let Some(whole) = attempts.pop_if(|last| last.is_whole) {
        return Listed { items: whole.items, attempts: 1 };
    }
    let number = attempts.len();
    Listed {
        items: attempts.into_iter().flat_map(|attempt| attempt.items).collect(),
        attempts: number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::link::LinkMessage;

    fn attempt(is_whole: bool, indices: &[u32]) -> Attempt {
        let item = |index: &u32| {
            let mut message = LinkMessage::default();
            message.header.index = *index;
            RouteNetlinkMessage::NewLink(message)
        };
        Attempt { items: indices.iter().map(item).collect(), is_whole }
    }

    fn indices(listed: Listed) -> (Vec<u32>, usize) {
        let index = |item| match item {
            RouteNetlinkMessage::NewLink(message) => Some(message.header.index),
            _ => None,
        };
        (listed.items.into_iter().filter_map(index).collect(), listed.attempts)
    }

    #[test]
    fn an_interrupted_list_is_dropped_for_a_whole_one_and_otherwise_added_to() {
        let whole = merged(vec![attempt(false, &[1, 9]), attempt(true, &[1, 2])]);
        assert_eq!(indices(whole), (vec![1, 2], 1), "9 is gone");
        let parts = merged(vec![attempt(false, &[1, 2]), attempt(false, &[1, 3])]);
        assert_eq!(indices(parts), (vec![1, 2, 1, 3], 2), "2 stands, most likely");
    }
}
