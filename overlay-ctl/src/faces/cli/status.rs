//! The verb `overlay status`.

use super::{
    client::{Client, DEADLINE, cluster},
    error::Error,
    output::Output,
    view,
};
use crate::proto::v1::StatusRequest;

/// Prints the status. Fails if the node is not ready, so that a script can tell without reading it.
pub(super) async fn run(client: &Client, output: &mut Output<'_>) -> Result<(), Error> {
    let status = client
        .call(DEADLINE, StatusRequest {}, async |channel, request| {
            cluster(channel).status(request).await
        })
        .await?;
    let status = view::Status::from(status);
    output.print(&status)?;
    match &status.troubles[..] {
        [] => Ok(()),
        troubles => Err(Error::NotReady(troubles.join("; "))),
    }
}
