//! What is said of a node whose state is another one than that of other voters.

/// The state of this node is another one than that of other voters, though all applied the same commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The revision before whose entry the states were found to differ.
    pub revision: u64,
    /// A majority of the voters has one and the same state. Otherwise nobody can say whose is right.
    pub has_majority: bool,
}
