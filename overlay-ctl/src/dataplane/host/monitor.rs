//! The listeners to packets. The programs write events only while there are listeners, and of forwarded packets the
//! finest sample that a listener wants. A coarser sample is made here, by leaving out events.

use super::SharedDatapath;
use crate::dataplane::datapath::{DatapathError, Events, Listening};
use overlay_common::Event;
use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::broadcast::{self, error::RecvError};

/// Events in the queue of a listener.
const BACKLOG: usize = 1024;
/// The pause after a failed read.
const PAUSE: Duration = Duration::from_millis(250);

/// The source of packets' events.
#[derive(Clone)]
pub struct Monitor(Arc<Inner>);

struct Inner {
    datapath: SharedDatapath,
    events: broadcast::Sender<Event>,
    /// The sample of each listener; `None` = drops alone.
    samples: Mutex<Vec<Option<NonZeroU32>>>,
}

impl Monitor {
    /// The events of this data path. They flow only while [`Monitor::pump`] runs.
    pub(crate) fn new(datapath: SharedDatapath) -> Self {
        let (events, samples) = (broadcast::Sender::new(BACKLOG), Mutex::default());
        Self(Arc::new(Inner { datapath, events, samples }))
    }

    /// Listens to each drop from now on, and to one in `sample` forwarded packets.
    ///
    /// # Errors
    /// The programs cannot be told: [`DatapathError::Table`].
    pub fn listen(&self, sample: Option<NonZeroU32>) -> Result<Listener, DatapathError> {
        let events = self.0.events.subscribe();
        self.0.samples().push(sample);
        // Made first, so that its end takes the wish back whatever happens.
        let listener = Listener { monitor: self.clone(), events, sample, credit: 0, lost: 0 };
        self.0.tell()?;
        Ok(listener)
    }

    /// Hands the kernel's events to the listeners, for ever.
    pub(crate) async fn pump(self, mut events: Events) {
        loop {
            match events.next().await {
                // Nobody hears the last ones that were written before the programs were told to stop.
                Ok(event) => drop(self.0.events.send(event)),
                Err(error) => {
                    tracing::warn!(error = %crate::error_chain(&error), "packets' events can't be read");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Inner {
    fn samples(&self) -> MutexGuard<'_, Vec<Option<NonZeroU32>>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the programs what the listeners want now.
    fn tell(&self) -> Result<(), DatapathError> {
        // Held, so that what was wanted last is told last.
        let samples = self.samples();
        let wanted = match samples.iter().flatten().min() {
            Some(finest) => Listening::Flows(*finest),
            None if samples.is_empty() => Listening::None,
            None => Listening::Drops,
        };
        self.datapath.lock().listen(wanted)
    }
}

/// A listener, until it is dropped.
pub struct Listener {
    monitor: Monitor,
    events: broadcast::Receiver<Event>,
    sample: Option<NonZeroU32>,
    /// The number of forwarded packets for which events stood that this listener was not given.
    credit: u64,
    lost: u64,
}

impl Listener {
    /// The next event, with the number of events before it that came too fast for this listener. Cancel safe.
    pub async fn next(&mut self) -> (Event, u64) {
        loop {
            let event = match self.events.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(lost)) => {
                    self.lost += lost;
                    continue;
                }
                Err(RecvError::Closed) => {
                    unreachable!("the listener holds the monitor, and that the sender")
                }
            };
            if let Some(event) = thin_out(event, self.sample, &mut self.credit) {
                return (event, std::mem::take(&mut self.lost));
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut samples = self.monitor.0.samples();
        if let Some(own) = samples.iter().position(|sample| *sample == self.sample) {
            samples.swap_remove(own);
        }
        drop(samples);
        if let Err(error) = self.monitor.0.tell() {
            tracing::warn!(error = %crate::error_chain(&error), "the programs can't be told who listens");
        }
    }
}

/// The event as a listener gets it that wants one in `sample` forwarded packets; `None` where it does not get it.
fn thin_out(event: Event, sample: Option<NonZeroU32>, credit: &mut u64) -> Option<Event> {
    if event.reason != 0 {
        return Some(event);
    }
    let sample = sample?.get();
    if event.sample >= sample {
        // Also one that was written before the programs heard of a finer sample.
        return Some(event);
    }
    *credit += u64::from(event.sample);
    *credit = credit.checked_sub(u64::from(sample))?;
    Some(Event { sample, ..event })
}

#[cfg(test)]
mod tests {
    use super::*;
    use overlay_common::IP16_NONE;

    fn event(reason: u32, sample: u32) -> Event {
        Event {
            time_ns: 0,
            reason,
            direction: 0,
            vni: 0,
            ifindex: 0,
            len: 0,
            sample,
            src_ip: IP16_NONE,
            dst_ip: IP16_NONE,
            vtep: IP16_NONE,
            src_mac: [0; 6],
            dst_mac: [0; 6],
            ethertype: 0,
            src_port: 0,
            dst_port: 0,
            protocol: 0,
            vlan: 0,
            pad: [0; 3],
        }
    }

    #[test]
    fn a_listener_hears_every_drop_and_the_sample_that_it_asked_for() {
        let heard = |event: Event, sample| {
            let mut credit = 0;
            let events = (0..1000).filter_map(|_| thin_out(event, sample, &mut credit));
            events.map(|event| event.sample).collect::<Vec<_>>()
        };
        assert_eq!(heard(event(1, 1), None).len(), 1000, "drops alone");
        assert_eq!(heard(event(1, 1), NonZeroU32::new(100)).len(), 1000, "drops beside flows");
        assert_eq!(heard(event(0, 1), None), [0; 0], "no flow for who asked for none");
        assert_eq!(heard(event(0, 1), NonZeroU32::new(1)), [1; 1000]);
        assert_eq!(heard(event(0, 1), NonZeroU32::new(100)), [100; 10]);
        assert_eq!(heard(event(0, 40), NonZeroU32::new(100)), [100; 400], "40,000 packets");
        assert_eq!(heard(event(0, 300), NonZeroU32::new(100)), [300; 1000], "of a coarser time");
    }
}
