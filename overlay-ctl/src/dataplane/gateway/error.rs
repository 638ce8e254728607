//! The errors of nftables, in words for the person who operates the node.

use std::{io, time::Duration};

/// nftables could not be read, written or listened to.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// There is no `nft`.
    #[error(
        "there is no program `nft`, which masquerading and published ports are set up with: install the package nftables"
    )]
    NoProgram,
    /// The kernel lacks nf_tables, or a part of it that the table needs.
    #[error(
        "this kernel lacks nf_tables, or a part of it, which masquerading and published ports need ({answer}): load it (`modprobe nf_tables nft_nat nft_masq nft_fib_ipv4 nft_ct`), or run a kernel with CONFIG_NF_TABLES, NFT_NAT, NFT_MASQ, NFT_FIB_IPV4 and NFT_CT"
    )]
    NoSupport {
        /// The answer of `nft`.
        answer: String,
    },
    /// The kernel refused with EPERM.
    #[error(
        "the kernel does not allow the node to {action}: this needs CAP_NET_ADMIN; run the node as root"
    )]
    Denied {
        /// The action that was asked for, as "read the table `ip overlay`".
        action: &'static str,
    },
    /// `nft` refused.
    #[error("`nft` failed to {action}: {answer}")]
    Refused {
        /// The action that was asked for.
        action: &'static str,
        /// The answer of `nft`.
        answer: String,
    },
    /// `nft` gave an answer that cannot be parsed.
    #[error("`nft` was asked to {action}, and its answer is not JSON")]
    Answer {
        /// The action that was asked for.
        action: &'static str,
        /// The place and kind of the syntax error.
        #[source]
        source: serde_json::Error,
    },
    /// `nft` did not end in time.
    #[error("`nft` did not {action} within {} s and was stopped; try again", .bound.as_secs())]
    Slow {
        /// The action that was asked for.
        action: &'static str,
        /// The time that `nft` was given.
        bound: Duration,
    },
    /// `nft` could not be started, or its pipes failed.
    #[error("`nft` could not be run to {action}")]
    Run {
        /// The action that was asked for.
        action: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A netfilter socket failed.
    #[error("the netfilter socket failed to {action}")]
    Socket {
        /// The action that was asked for.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}
