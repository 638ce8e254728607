//! Requests and answers as they travel between nodes: MessagePack with named fields, the rows of a list one behind
//! the other.

use super::{
    Controller, CreateEndpoint, CreateNetwork, DemoteNode, EndpointCreated, EndpointInfo,
    EndpointRemoved, InspectEndpoint, InspectNetwork, InspectNode, Joined, ListEndpoints,
    ListNetworks, ListNodes, NetworkDetail, NetworkInfo, NodeInfo, PromoteNode, Register,
    RemoveEndpoint, RemoveNetwork, RemoveNode, Removed, SetVoters, VotersSet,
    error::ControllerError,
    lists::{Lists, Rows},
    stale::Read,
    verb::{Travels, decode, encode, error_bytes, unreadable},
};
use crate::{control::peers::MESSAGE_MAX, model::Revision};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{io::Cursor, time::Duration};

/// Adds `value` behind what is in `bytes`.
fn append(bytes: &mut Vec<u8>, value: &impl Serialize) -> Result<(), ControllerError> {
    let mut serializer = rmp_serde::Serializer::new(&mut *bytes).with_struct_map();
    value.serialize(&mut serializer).map_err(ControllerError::defect)?;
    // Less than what a connection between nodes carries, with room for what surrounds the rows.
    let limit = MESSAGE_MAX / 2;
    if bytes.len() > limit {
        return Err(ControllerError::ListTooLong { limit_mib: limit >> 20 });
    }
    Ok(())
}

/// Takes the next value out of `bytes`.
fn next<T: DeserializeOwned>(bytes: &mut Cursor<Vec<u8>>) -> Result<T, ControllerError> {
    let mut deserializer = rmp_serde::Deserializer::new(bytes);
    T::deserialize(&mut deserializer).map_err(|error| unreadable(&error))
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Rows<T> {
    /// Adds the rows behind what is in `bytes`: how many rows of the state were gone through, and then each row.
    async fn pack_behind(self, mut bytes: Vec<u8>) -> Result<Vec<u8>, ControllerError> {
        append(&mut bytes, &self.count())?;
        self.gather(bytes, |bytes, row| append(bytes, &row)).await
    }

    /// The rows that are the rest of `bytes`.
    fn unpack_rest(mut bytes: Cursor<Vec<u8>>, lists: &Lists) -> Result<Self, ControllerError> {
        let count = next(&mut bytes)?;
        Ok(Self::new(lists, count, move |take| {
            let end = bytes.get_ref().len() as u64;
            while bytes.position() < end {
                take(next(&mut bytes)?)?;
            }
            Ok(())
        }))
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Travels for Rows<T> {
    async fn pack(self) -> Result<Vec<u8>, ControllerError> {
        self.pack_behind(Vec::new()).await
    }

    fn unpack(bytes: Vec<u8>, lists: &Lists) -> Result<Self, ControllerError> {
        Self::unpack_rest(Cursor::new(bytes), lists)
    }
}

impl Travels for NetworkDetail {
    async fn pack(self) -> Result<Vec<u8>, ControllerError> {
        let Self { network, endpoints } = self;
        endpoints.pack_behind(encode(&network)?).await
    }

    fn unpack(bytes: Vec<u8>, lists: &Lists) -> Result<Self, ControllerError> {
        let mut bytes = Cursor::new(bytes);
        let network = next(&mut bytes)?;
        Ok(Self { network, endpoints: Rows::unpack_rest(bytes, lists)? })
    }
}

/// Answers of one value.
macro_rules! values {
    ($($answer:ty),*) => {
        $(
            impl Travels for $answer {
                async fn pack(self) -> Result<Vec<u8>, ControllerError> {
                    encode(&self)
                }

                fn unpack(bytes: Vec<u8>, _lists: &Lists) -> Result<Self, ControllerError> {
                    decode(&bytes)
                }
            }
        )*
    };
}

values!(
    NetworkInfo,
    EndpointInfo,
    EndpointCreated,
    EndpointRemoved,
    NodeInfo,
    Joined,
    Removed,
    VotersSet
);

/// All requests: each is a type, and a variant of what is sent.
macro_rules! requests {
    ($($verb:ident),*) => {
        /// A request as another node sent it.
        #[derive(Deserialize)]
        enum Request {
            $($verb($verb)),*
        }

        impl Controller {
            /// Answers a request that another node forwarded, which looks for a leader for as long as `patience`. The
            /// answer, and the error, are the bytes that the other node reads.
            ///
            /// # Errors
            /// As the request.
            pub async fn answer_forwarded(
                &self,
                request: &[u8],
                patience: Duration,
            ) -> Result<Vec<u8>, Vec<u8>> {
                let answer = async {
                    match decode(request)? {
                        $(Request::$verb(verb) => self.at_leader(verb, patience).await?.pack().await,)*
                    }
                };
                answer.await.map_err(|error| error_bytes(&error))
            }

            /// Answers a request that another node forwarded by this voter's own state, without a leader. With the
            /// answer comes the revision of that state.
            ///
            /// # Errors
            /// As the request; an agent answers none, and what changes something is refused.
            pub async fn answer_stale(
                &self,
                request: &[u8],
            ) -> Result<(Vec<u8>, Revision), Vec<u8>> {
                let answer = async {
                    match decode(request)? {
                        $(Request::$verb(verb) => {
                            let Read { answer, as_of } = self.read_here(verb).await?;
                            Ok((answer.pack().await?, as_of.unwrap_or_default()))
                        })*
                    }
                };
                answer.await.map_err(|error| error_bytes(&error))
            }
        }

        #[cfg(test)]
        mod tests {
            use crate::control::controller::verb::Verb;

            #[test]
            fn a_request_travels_by_the_name_of_its_type() {
                $(assert_eq!(<super::$verb as Verb>::NAME, stringify!($verb));)*
            }
        }
    };
}

requests!(
    CreateNetwork,
    ListNetworks,
    InspectNetwork,
    RemoveNetwork,
    CreateEndpoint,
    ListEndpoints,
    InspectEndpoint,
    RemoveEndpoint,
    ListNodes,
    InspectNode,
    RemoveNode,
    PromoteNode,
    DemoteNode,
    SetVoters,
    Register
);
