//! Errors of SSH, with their remedies.

use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why a host key is not trusted.
#[derive(Debug, Error)]
pub enum HostKeyError {
    /// Its key is in no file of known hosts.
    #[error(
        "failed to verify the host key of {host}: {fingerprint} ({kind}) is unknown. {before} it with the output of \
         `ssh-keygen -lf /etc/ssh/ssh_host_{short}_key.pub` on the board, then log in once with `{login}` and accept it"
    )]
    Unknown {
        /// Host and port.
        host: String,
        /// SHA-256 of the key.
        fingerprint: String,
        /// Its type.
        kind: String,
        /// Its type as file names have it.
        short: &'static str,
        /// The first words of the remedy; they say what to do first if a login would not save the key.
        before: &'static str,
        /// Command line of OpenSSH.
        login: String,
    },
    /// Another key is known.
    #[error(
        "failed to verify the host key of {host}: it is {fingerprint} ({kind}), but {} line {line} has another key. If the \
         board was reinstalled, remove the old key with `ssh-keygen -R {name:?}` and log in once with `{login}`; otherwise this \
         may be an attack",
        file.display()
    )]
    Changed {
        /// Host and port.
        host: String,
        /// How the file names the host.
        name: String,
        /// SHA-256 of the key.
        fingerprint: String,
        /// Its type.
        kind: String,
        /// File of the other key.
        file: PathBuf,
        /// Line of the key.
        line: usize,
        /// Command line of OpenSSH.
        login: String,
    },
    /// The file of revoked keys cannot be used.
    #[error(
        "failed to verify the host key of {host}: the RevokedHostKeys file {} cannot be used: {reason}. Correct OpenSSH's \
         configuration or that file",
        file.display()
    )]
    Revocations {
        /// Host and port.
        host: String,
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The key is marked as revoked.
    #[error(
        "failed to verify the host key of {host}: {fingerprint} is revoked in {} line {line}. Generate a new host key on \
         the board, or remove that line if it is wrong",
        file.display()
    )]
    Revoked {
        /// Host and port.
        host: String,
        /// SHA-256 of the key.
        fingerprint: String,
        /// File of the revocation.
        file: PathBuf,
        /// Line of the key.
        line: usize,
    },
}

/// Why an SSH operation failed.
#[derive(Debug, Error)]
pub enum SshError {
    /// OpenSSH's configuration cannot be used.
    #[error("failed to read OpenSSH's configuration {}: {reason}", file.display())]
    Config {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// OpenSSH's configuration cannot be followed.
    #[error("failed to read OpenSSH's configuration for {host}: {reason}")]
    Evaluation {
        /// Host as the board's file names it.
        host: String,
        /// Why.
        reason: String,
    },
    /// The host does not answer.
    #[error("failed to connect to {host}: {reason}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why, and what to do.
        reason: String,
    },
    /// It accepts the connection, but sends nothing.
    #[error(
        "failed to log in to {host}: it accepted the connection, but gave no answer within {} s; check whether its sshd is \
         stuck, or another service uses this port",
        after.as_secs()
    )]
    Silent {
        /// Host and port.
        host: String,
        /// Its timeout.
        after: Duration,
    },
    /// The handshake failed.
    #[error("failed to log in to {host}: {reason}")]
    Handshake {
        /// Host and port.
        host: String,
        /// Why.
        reason: String,
    },
    /// Its host key is not trusted.
    #[error(transparent)]
    HostKey(Box<HostKeyError>),
    /// It accepts none of our keys.
    #[error("failed to log in to {host} as {user}: {}. The board allows: {methods}. {remedy}", tried.join("; "))]
    Refused {
        /// Host and port.
        host: String,
        /// The user.
        user: String,
        /// Each key with its result.
        tried: Vec<String>,
        /// Methods that the server allows.
        methods: String,
        /// The remedy.
        remedy: String,
    },
    /// The connection is lost.
    #[error("lost the connection to {host}: {reason}")]
    Lost {
        /// Host and port.
        host: String,
        /// Why.
        reason: String,
    },
    /// A program does not start, or a host behind this one cannot be reached.
    #[error("failed to {what} on {host}: {reason}")]
    Open {
        /// Completes "failed to …".
        what: String,
        /// Host and port.
        host: String,
        /// Why.
        reason: String,
    },
    /// A program made no progress for too long.
    #[error("failed to {what} on {host}: no answer within {} s", after.as_secs())]
    Late {
        /// Completes "failed to …".
        what: String,
        /// Host and port.
        host: String,
        /// Its timeout.
        after: Duration,
    },
    /// The login shell does not start the script.
    #[error(
        "failed to {what} on {host}: its login shell did not start the script within {} s; check what its start files wait \
         for (~/.bashrc, ~/.profile, ~/.cshrc, ~/.config/fish)",
        after.as_secs()
    )]
    Shell {
        /// Completes "failed to …".
        what: String,
        /// Host and port.
        host: String,
        /// Its timeout.
        after: Duration,
    },
    /// A program failed.
    #[error("failed to {what} on {host}: {reason}")]
    Failed {
        /// Completes "failed to …".
        what: String,
        /// Host and port.
        host: String,
        /// Its message.
        reason: String,
    },
    /// The user pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl SshError {
    /// Whether OpenSSH's configuration is at fault, and not the board.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Config { .. } | Self::Evaluation { .. })
    }

    /// Whether trying again later may help: the board may be booting, or a cable may be unplugged.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::Silent { .. }
                | Self::Handshake { .. }
                | Self::Lost { .. }
                | Self::Open { .. }
                | Self::Late { .. }
                | Self::Shell { .. }
        )
    }

    /// The same for a board that accepted our login before: while it shuts down or boots, it refuses all logins.
    pub fn may_pass_again(&self) -> bool {
        self.may_pass() || matches!(self, Self::Refused { .. })
    }
}
