//! The error of a door to the kernel.

/// A failure that is not the problem of one endpoint alone.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct KernelError {
    /// The action that failed.
    pub what: &'static str,
    /// The reason.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl KernelError {
    /// Wraps the reason.
    pub fn new(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { what, source: source.into() }
    }
}
