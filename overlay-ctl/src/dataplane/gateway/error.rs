//! What can go wrong with nftables, in words for the person who reads it.

use std::{io, time::Duration};

/// nftables could not be read, written or listened to.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// There is no `nft`.
    #[error(
        "there is no program `nft`, which masquerading and published ports are set up with: install the package nftables"
    )]
    NoProgram,
    /// The kernel knows no nf_tables, or not what we ask of it.
    #[error(
        "this kernel lacks nf_tables, or a part of it, which masquerading and published ports need ({answer}): load it (`modprobe nf_tables nft_nat nft_masq nft_fib_ipv4 nft_ct`), or run a kernel with CONFIG_NF_TABLES, NFT_NAT, NFT_MASQ, NFT_FIB_IPV4 and NFT_CT"
    )]
    NoSupport {
        /// What `nft` said.
        answer: String,
    },
    /// EPERM.
    #[error(
        "the kernel does not allow us to {action}: this needs CAP_NET_ADMIN; run the node as root"
    )]
    Denied {
        /// What was asked, as "read the table `ip overlay`".
        action: &'static str,
    },
    /// `nft` refused.
    #[error("`nft` failed to {action}: {answer}")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// What it said.
        answer: String,
    },
    /// It said what nobody understands.
    #[error("`nft` was asked to {action}, and its answer is no JSON")]
    Answer {
        /// What was asked.
        action: &'static str,
        /// Where it stops to be.
        #[source]
        source: serde_json::Error,
    },
    /// It does not come to an end.
    #[error("`nft` did not {action} within {} s and was stopped; try again", .bound.as_secs())]
    Slow {
        /// What was asked.
        action: &'static str,
        /// How long it was given.
        bound: Duration,
    },
    /// It could not be started, or could not be talked to.
    #[error("`nft` could not be run to {action}")]
    Run {
        /// What was asked.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A socket of netfilter's failed.
    #[error("the netfilter socket failed to {action}")]
    Socket {
        /// What was asked.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}
