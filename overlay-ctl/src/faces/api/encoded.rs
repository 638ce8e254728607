//! Answers of many rows: encoded row by row into the bytes that are sent, so that the answer exists once and not in
//! three forms.

use super::Api;
use crate::control::controller::ControllerError;
use futures::{FutureExt as _, future::BoxFuture};
use prost::bytes::{BufMut as _, Bytes};
use std::{
    convert::Infallible,
    marker::PhantomData,
    task::{Context, Poll},
};
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, EncodeBuf, Encoder},
    codegen::{Service, http},
    server::{self, NamedService},
};
use tonic_prost::ProstDecoder;

/// Longest answer, in bytes: the list of everything.
const ANSWER_MAX: usize = 256 << 20;

/// A message that is encoded part by part: the parts of a message, one behind the other, are the message.
#[derive(Default)]
pub(super) struct Encoding(Vec<u8>);

impl Encoding {
    /// Adds a part, for example one row.
    ///
    /// # Errors
    /// The answer is longer than a caller takes.
    pub(super) fn add(&mut self, part: &impl prost::Message) -> Result<(), ControllerError> {
        if self.0.len() + part.encoded_len() > ANSWER_MAX {
            return Err(ControllerError::ListTooLong { limit_mib: ANSWER_MAX >> 20 });
        }
        part.encode(&mut self.0)
            .unwrap_or_else(|error| unreachable!("a vector takes any message: {error}"));
        Ok(())
    }

    /// The bytes of the message.
    pub(super) fn finish(self) -> Bytes {
        self.0.into()
    }
}

/// The typed message of encoded bytes.
pub(super) fn decoded<M: prost::Message + Default>(
    answer: Response<Bytes>,
) -> Result<Response<M>, Status> {
    let (metadata, bytes, extensions) = answer.into_parts();
    let message = M::decode(bytes).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Response::from_parts(metadata, message, extensions))
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

/// Bytes that are encoded already.
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
