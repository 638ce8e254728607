//! The service `Watch`: events of packets, as they happen.

use super::{Api, filter::Filter};
use crate::proto::v1::{DropsRequest, Event, EventsRequest, watch_server::Watch};
use futures::stream;
use std::{num::NonZeroU32, pin::Pin};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

type Events = Pin<Box<dyn Stream<Item = Result<Event, Status>> + Send>>;

#[tonic::async_trait]
impl Watch for Api {
    type DropsStream = Events;
    type EventsStream = Events;

    async fn drops(&self, _request: Request<DropsRequest>) -> Result<Response<Events>, Status> {
        self.events(Request::new(EventsRequest::default())).await
    }

    async fn events(&self, request: Request<EventsRequest>) -> Result<Response<Events>, Status> {
        let request = request.into_inner();
        let sample = NonZeroU32::new(request.sample);
        let filter = Filter::new(request, self)?;
        let plane = self.data_plane.get();
        let plane = plane.ok_or_else(|| Status::unavailable(self.absence()))?;
        let listener = plane
            .monitor
            .listen(sample)
            .map_err(|error| Status::internal(crate::error_chain(&error)))?;
        let state = (self.clone(), filter, listener, 0);
        let events = stream::unfold(state, async |(api, filter, mut listener, mut lost)| {
            loop {
                let (event, missed) = listener.next().await;
                lost += missed;
                if let Some(mut shown) = filter.show(&event, &api) {
                    shown.lost = std::mem::take(&mut lost);
                    return Some((Ok(shown), (api, filter, listener, lost)));
                }
            }
        });
        Ok(Response::new(Box::pin(events)))
    }
}
