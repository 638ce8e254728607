//! `overlay monitor`

use super::{
    client::{Client, DEADLINE, from_status, watch},
    error::Error,
    output::Output,
    view,
};
use crate::proto::v1::DropsRequest;

/// Prints drops until the stream breaks or the process is interrupted.
pub(super) async fn run(client: &Client, output: &mut Output<'_>) -> Result<(), Error> {
    let mut drops = client
        .call(DEADLINE, DropsRequest {}, async |channel, request| {
            watch(channel).drops(request).await
        })
        .await?;
    while let Some(event) = drops.message().await.map_err(from_status)? {
        output.print_line(&view::Drop::from(event))?;
    }
    Err(Error::StreamEnded)
}
