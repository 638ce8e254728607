//! The verb `overlay status`.

use super::{
    client::{Client, DEADLINE, cluster},
    error::Error,
    output::Output,
    view,
};
use crate::proto::v1::StatusRequest;

pub(super) async fn run(client: &Client, output: &mut Output<'_>) -> Result<(), Error> {
    let status = client
        .call(DEADLINE, StatusRequest {}, async |channel, request| {
            cluster(channel).status(request).await
        })
        .await?;
    output.print(&view::Status::from(status))
}
