//! Word that the table `ip overlay` changed.

use tokio::sync::mpsc;

use super::GatewayError;

/// Listens until the receiver is dropped.
///
/// # Errors
/// [`GatewayError::Socket`].
pub fn changes() -> Result<mpsc::Receiver<()>, GatewayError> {
    let (_, receiver) = mpsc::channel(1);
    Ok(receiver)
}
