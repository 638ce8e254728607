//! Answers of many rows: made a few at a time, on threads of their own, row by row into the bytes that are
//! sent, and forwarded as these bytes. A long list costs the leader one CPU at most and no worker of the
//! runtime that answers everybody else.

use super::{Api, route::ANSWER_MAX};
use crate::control::{controller::Attempt, peers::PeerChannel};
use futures::{FutureExt as _, future::BoxFuture};
use prost::bytes::{Buf as _, BufMut as _, Bytes};
use std::{
    convert::Infallible,
    marker::PhantomData,
    num::NonZeroUsize,
    sync::Arc,
    task::{Context, Poll},
    thread::available_parallelism,
    time::Duration,
};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};
use tonic::{
    Request, Response, Status,
    body::Body,
    client,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{Service, http, http::uri::PathAndQuery},
    server::{self, NamedService},
};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Up to so many rows an answer is made at once: that takes less than a millisecond.
const FEW: usize = 1_000;
/// How long a long answer waits for its turn.
pub(super) const TURN: Duration = Duration::from_secs(5);
/// How many may wait. Fewer than the calls that a connection between nodes carries at once (200), so that
/// forwarded ones leave room for the others.
const WAITING: usize = 64;

/// Who makes long answers. Clones share the turns.
#[derive(Clone)]
pub struct Lists {
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Default for Lists {
    /// At once as many as half of the machine can do: the rest is for everybody else.
    fn default() -> Self {
        let cpus = available_parallelism().map_or(1, NonZeroUsize::get);
        Self::new((cpus / 2).max(1))
    }
}

impl Lists {
    fn new(turns: usize) -> Self {
        let places = Arc::new(Semaphore::new(WAITING));
        Self { turns: Arc::new(Semaphore::new(turns)), places }
    }

    /// What `make` gives, which looks at `rows` rows.
    pub(super) async fn make<T: Send + 'static>(
        &self,
        rows: usize,
        make: impl FnOnce() -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Attempt> {
        if rows <= FEW {
            return Ok(make()?);
        }
        let busy = || {
            Status::resource_exhausted(
                "too many long lists are asked for at once; try again later, or list one network or node",
            )
        };
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| busy())?;
        let turn = timeout(TURN, Arc::clone(&self.turns).acquire_owned());
        let turn = turn.await.map_err(|_| busy())?.map_err(|_| busy())?;
        drop(place);
        let made = spawn_blocking(move || {
            // Also where the caller has gone by now: until then the CPU is taken.
            let _turn = turn;
            make()
        });
        Ok(made.await.map_err(|panic| Status::internal(panic.to_string()))??)
    }
}

/// A message that is encoded part by part: the parts of a message, one behind the other, are the message.
#[derive(Default)]
pub(super) struct Encoding(Vec<u8>);

impl Encoding {
    /// Adds a part, with one row, say.
    ///
    /// # Errors
    /// The answer gets longer than anybody takes.
    pub(super) fn add(&mut self, part: &impl prost::Message) -> Result<(), Status> {
        if self.0.len() + part.encoded_len() > ANSWER_MAX {
            return Err(Status::resource_exhausted(format!(
                "the list is longer than {} MiB; list one network or node at a time",
                ANSWER_MAX >> 20
            )));
        }
        part.encode(&mut self.0)
            .unwrap_or_else(|error| unreachable!("a vector takes any message: {error}"));
        Ok(())
    }

    pub(super) fn finish(self) -> Bytes {
        self.0.into()
    }
}

/// The typed message of encoded bytes.
pub(super) fn decoded<M: prost::Message + Default>(
    answer: Response<Bytes>,
) -> Result<Response<M>, Status> {
    let message = M::decode(answer.into_inner());
    message.map(Response::new).map_err(|error| Status::internal(error.to_string()))
}

/// Asks the node behind `channel` for an answer and takes its bytes as they are.
pub(super) async fn forward<Q: prost::Message + 'static>(
    channel: PeerChannel,
    path: &'static str,
    request: Request<Q>,
) -> Result<Response<Bytes>, Status> {
    let mut client = client::Grpc::new(channel).max_decoding_message_size(ANSWER_MAX);
    client.ready().await.map_err(Status::from_error)?;
    client.unary(request, PathAndQuery::from_static(path), ClientCodec::<Q>(PhantomData)).await
}

/// Requests out, bytes in.
struct ClientCodec<Q>(PhantomData<fn() -> Q>);

impl<Q: prost::Message + 'static> Codec for ClientCodec<Q> {
    type Encode = Q;
    type Decode = Bytes;
    type Encoder = ProstEncoder<Q>;
    type Decoder = Raw;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

/// Requests in, bytes out.
struct ServerCodec<Q>(PhantomData<fn() -> Q>);

impl<Q: prost::Message + Default + 'static> Codec for ServerCodec<Q> {
    type Encode = Bytes;
    type Decode = Q;
    type Encoder = Raw;
    type Decoder = ProstDecoder<Q>;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

struct Raw;

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(item.len());
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A call whose answer comes encoded.
type Encoded<Q> = fn(Api, Request<Q>) -> BoxFuture<'static, Result<Response<Bytes>, Status>>;

/// A service of which one method's answers come encoded. The others are the inner service's.
pub(super) struct WithEncoded<S, Q> {
    inner: S,
    api: Api,
    path: &'static str,
    call: Encoded<Q>,
}

impl<S, Q> WithEncoded<S, Q> {
    /// `inner`, but what comes for `path` is answered by `call`.
    pub(super) fn new(inner: S, api: Api, path: &'static str, call: Encoded<Q>) -> Self {
        Self { inner, api, path, call }
    }
}

impl<S: Clone, Q> Clone for WithEncoded<S, Q> {
    fn clone(&self) -> Self {
        let Self { inner, api, path, call } = self;
        Self { inner: inner.clone(), api: api.clone(), path, call: *call }
    }
}

impl<S: NamedService, Q> NamedService for WithEncoded<S, Q> {
    const NAME: &'static str = S::NAME;
}

impl<S, Q> Service<http::Request<Body>> for WithEncoded<S, Q>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
    Q: prost::Message + Default + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != self.path {
            return self.inner.call(request).boxed();
        }
        let (api, call) = (self.api.clone(), self.call);
        async move {
            let service = tower::service_fn(move |request| call(api.clone(), request));
            Ok(server::Grpc::new(ServerCodec::<Q>(PhantomData)).unary(service, request).await)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{self, ListEndpointsResponse};
    use std::sync::mpsc;
    use tonic::Code;

    const BOUND: Duration = Duration::from_secs(20);
    const MANY: usize = FEW + 1;

    fn code<T>(made: Result<T, Attempt>) -> Option<Code> {
        match made {
            Err(Attempt::Failed(status)) => Some(status.code()),
            _ => None,
        }
    }

    async fn within<T>(made: impl Future<Output = T>) -> T {
        timeout(BOUND, made).await.expect("made within the bound")
    }

    #[tokio::test]
    async fn a_short_answer_waits_for_no_turn() {
        let lists = Lists::new(1);
        let _turn = Arc::clone(&lists.turns).try_acquire_owned().unwrap();
        let made = within(lists.make(FEW, || Ok(7))).await;
        assert!(matches!(made, Ok(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_answer_whose_turn_does_not_come_is_refused() {
        let lists = Lists::new(1);
        let _turn = Arc::clone(&lists.turns).try_acquire_owned().unwrap();
        assert_eq!(code(lists.make(MANY, || Ok(())).await), Some(Code::ResourceExhausted));
    }

    #[tokio::test]
    async fn no_more_wait_than_there_are_places() {
        let lists = Lists::new(1);
        let turn = Arc::clone(&lists.turns).try_acquire_owned().unwrap();
        let mut waiting: Vec<_> =
            (0..WAITING).map(|n| Box::pin(lists.make(MANY, move || Ok(n)))).collect();
        for waiting in &mut waiting {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        // One more is told so at once.
        let refused = lists.make(MANY, || Ok(0)).now_or_never().expect("an answer at once");
        assert_eq!(code(refused), Some(Code::ResourceExhausted));
        drop(turn);
        for (n, waiting) in waiting.into_iter().enumerate() {
            assert!(matches!(within(waiting).await, Ok(made) if made == n));
        }
        assert_eq!(lists.places.available_permits(), WAITING);
    }

    #[tokio::test]
    async fn the_turn_of_a_caller_that_went_away_ends_with_the_work() {
        let lists = Lists::new(1);
        let ((begin, begun), (end, ended)) = (mpsc::channel(), mpsc::channel::<()>());
        let made = tokio::spawn({
            let lists = lists.clone();
            async move {
                lists
                    .make(MANY, move || {
                        begin.send(()).unwrap();
                        assert!(ended.recv().is_err(), "nothing is sent");
                        Ok(())
                    })
                    .await
            }
        });
        spawn_blocking(move || begun.recv_timeout(BOUND)).await.unwrap().unwrap();
        made.abort();
        assert!(made.await.is_err());
        assert_eq!(lists.turns.available_permits(), 0, "the CPU is taken still");
        drop(end);
        assert!(matches!(within(lists.make(MANY, || Ok(7))).await, Ok(7)));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_gives_the_turn_back() {
        let lists = Lists::new(1);
        let made =
            within(lists.make(MANY, || -> Result<(), Status> { panic!("on purpose") })).await;
        assert_eq!(code(made), Some(Code::Internal));
        assert!(matches!(within(lists.make(MANY, || Ok(7))).await, Ok(7)));
    }

    #[test]
    fn parts_one_behind_the_other_are_the_message() {
        let endpoint = |n: u64| v1::Endpoint { id: n, name: format!("e{n}"), ..Default::default() };
        let whole = ListEndpointsResponse { endpoints: (0..9).map(endpoint).collect() };
        let mut encoding = Encoding::default();
        for n in 0..9 {
            encoding.add(&ListEndpointsResponse { endpoints: vec![endpoint(n)] }).unwrap();
        }
        let bytes = encoding.finish();
        assert_eq!(bytes, prost::Message::encode_to_vec(&whole));
        let decoded = decoded::<ListEndpointsResponse>(Response::new(bytes)).unwrap();
        assert_eq!(decoded.into_inner(), whole);
    }
}
