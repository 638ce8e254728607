//! The errors between the command line and a node. Each text says what failed, why, and what to do.

use std::{io, path::PathBuf, time::Duration};
use tonic::{Code, Status};

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Nothing listens on the socket.
    #[error(
        "no node answers on {}; {reason}; start one with: overlay node run, or name another with --socket PATH",
        socket.display()
    )]
    NoNode { socket: PathBuf, reason: String },
    /// The user may not open the socket.
    #[error("cannot open {}; permission denied; run as root", socket.display())]
    NotAllowed { socket: PathBuf },
    /// The node closed the connection during the request, and again during its repetition.
    #[error(
        "the node closed the connection; {reason}; see if it runs and what was done: overlay status"
    )]
    Lost { reason: String },
    /// The node accepted the request and did not answer in time.
    #[error(
        "no answer within {} s; the node is busy or has no quorum, and may still carry the request out; see: overlay status",
        .0.as_secs()
    )]
    Deadline(Duration),
    /// The node answered with an error. The text is the node's, which follows the same pattern.
    #[error("{}", refusal(.0))]
    Refused(Status),
    /// The node ended a stream that only ends when the node stops.
    #[error("the node ended the stream; it is stopping; start it again and repeat")]
    StreamEnded,
    /// The node answered, and says of itself that it can't do all that it is for.
    #[error("the node is not ready; {0}")]
    NotReady(String),
    /// The node answered, and says of the cluster that something is to be seen to.
    #[error("the cluster is not healthy; {0}")]
    NotHealthy(String),
    /// The node that is to leave is the last one.
    #[error("{node} is the whole cluster: end the node and run `overlay node reset`")]
    WholeCluster { node: String },
    /// The node that is to leave has endpoints.
    #[error("node {node} has endpoints ({endpoints}); remove them first: overlay endpoint rm")]
    HasEndpoints { node: String, endpoints: String },
    /// What was to be done on this host failed.
    #[error("{0}")]
    OnHost(String),
    /// The answer could not be printed.
    #[error("cannot print the answer; {0}; see where the output goes")]
    Output(#[from] io::Error),
    /// A path could not be made absolute.
    #[error("cannot make {path} absolute; {source}; give an absolute path")]
    Path { path: String, source: io::Error },
    /// The answer lacks a part that the protocol promises.
    #[error(
        "the answer lacks {0}; the node runs another version; use the `overlay` of that version"
    )]
    Incomplete(&'static str),
}

impl Error {
    /// Returns true if any other request to the node would fail with the same error.
    pub(super) fn is_about_node(&self) -> bool {
        match self {
            Self::NoNode { .. } | Self::NotAllowed { .. } | Self::Lost { .. } => true,
            Self::Deadline(_) | Self::StreamEnded | Self::Output(_) | Self::Incomplete(_) => true,
            Self::Refused(status) => status.code() == Code::Unavailable,
            Self::Path { .. } | Self::NotReady(_) | Self::NotHealthy(_) | Self::OnHost(_) => false,
            Self::WholeCluster { .. } | Self::HasEndpoints { .. } => false,
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Output(error.into())
    }
}

fn refusal(status: &Status) -> String {
    match (status.code(), status.message()) {
        (Code::Unimplemented, _) => {
            "the node does not know this request; it runs another version; \
             use the `overlay` of that version"
                .to_owned()
        }
        (code, "") => format!("the node refused; {code}; see its log"),
        (_, message) => message.to_owned(),
    }
}
