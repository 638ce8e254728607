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
pub(super) struct Listed<T> {
    /// The items. Where each of several attempts was interrupted, it has what any of them had, the last attempt last: an
    /// item that stood all the time occurs once for each attempt, and one that is gone may be among them.
    pub(super) items: Vec<T>,
    /// The number of attempts that `items` are of; 1 where nothing interrupted the last one.
    pub(super) attempts: usize,
}

/// Asks for a list, and reads each message of it as it comes: a message takes many times the memory of what is read.
pub(super) async fn dump<T>(
    handle: &Handle,
    request: RouteNetlinkMessage,
    action: &str,
    read: impl Fn(RouteNetlinkMessage) -> Option<T>,
) -> Result<Listed<T>, NetlinkError> {
    let mut attempts = Vec::new();
    for _ in 0..ATTEMPTS {
        let attempt = once(handle, request.clone(), action, &read).await?;
        let is_whole = attempt.is_whole;
        attempts.push(attempt);
        if is_whole {
            break;
        }
    }
    Ok(merged(attempts))
}

/// One list.
struct Attempt<T> {
    items: Vec<T>,
    /// The kernel did not mark it as interrupted.
    is_whole: bool,
}

async fn once<T>(
    handle: &Handle,
    request: RouteNetlinkMessage,
    action: &str,
    read: impl Fn(RouteNetlinkMessage) -> Option<T>,
) -> Result<Attempt<T>, NetlinkError> {
    let mut request = NetlinkMessage::from(request);
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut handle = handle.clone();
    let mut answers = handle.request(request).map_err(|error| NetlinkError::new(action, error))?;
    let mut attempt = Attempt { items: Vec::new(), is_whole: true };
    while let Some(answer) = answers.next().await {
        attempt.is_whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(item) => attempt.items.extend(read(item)),
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
fn merged<T>(mut attempts: Vec<Attempt<T>>) -> Listed<T> {
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

    fn attempt(is_whole: bool, indices: &[u32]) -> Attempt<u32> {
        Attempt { items: indices.to_vec(), is_whole }
    }

    fn indices(listed: Listed<u32>) -> (Vec<u32>, usize) {
        (listed.items, listed.attempts)
    }

    #[test]
    fn an_interrupted_list_is_dropped_for_a_whole_one_and_otherwise_added_to() {
        let whole = merged(vec![attempt(false, &[1, 9]), attempt(true, &[1, 2])]);
        assert_eq!(indices(whole), (vec![1, 2], 1), "9 is gone");
        let parts = merged(vec![attempt(false, &[1, 2]), attempt(false, &[1, 3])]);
        assert_eq!(indices(parts), (vec![1, 2, 1, 3], 2), "2 stands, most likely");
    }
}
