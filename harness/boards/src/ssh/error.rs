//! What goes wrong with SSH, and what to do about it.

use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why a host key is not to be trusted.
#[derive(Debug, Error)]
pub enum HostKeyError {
    /// Its key is in no file of known hosts.
    #[error(
        "failed to trust {host}: its key {fingerprint} ({kind}) is not known. {before} it with what \
         `ssh-keygen -lf /etc/ssh/ssh_host_{short}_key.pub` prints on the board, then log in once by `{login}` and \
         accept it"
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
        /// How the advice begins: with what must be done first, if a login would not make the key known.
        before: &'static str,
        /// Command line of OpenSSH.
        login: String,
    },
    /// Another key is known.
    #[error(
        "failed to trust {host}: its key is {fingerprint} ({kind}), and {} line {line} has another one. If the board \
         was set up anew, remove the old key by `ssh-keygen -R {name:?}` and log in once by `{login}`; otherwise somebody \
         may be in between",
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
        /// Where the other key stands.
        file: PathBuf,
        /// In which line.
        line: usize,
        /// Command line of OpenSSH.
        login: String,
    },
    /// The file of revoked keys cannot be used.
    #[error(
        "failed to trust {host}: the file {} of RevokedHostKeys cannot be used: {reason}. Correct OpenSSH's \
         configuration, or that file",
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
        "failed to trust {host}: its key {fingerprint} is revoked by {} line {line}. Give the board a new key, or \
         remove the line if it is wrong",
        file.display()
    )]
    Revoked {
        /// Host and port.
        host: String,
        /// SHA-256 of the key.
        fingerprint: String,
        /// Where that stands.
        file: PathBuf,
        /// In which line.
        line: usize,
    },
}

/// What goes wrong with SSH.
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
    /// Nobody answers there.
    #[error("failed to connect to {host}: {reason}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why, and what to do.
        reason: String,
    },
    /// It accepts, and then says nothing.
    #[error(
        "failed to log in on {host}: it took the connection and gave no answer within {} s; is its sshd stuck, or is \
         another service on this port?",
        after.as_secs()
    )]
    Silent {
        /// Host and port.
        host: String,
        /// How long it was given.
        after: Duration,
    },
    /// The two do not agree on a protocol.
    #[error("failed to log in on {host}: {reason}")]
    Handshake {
        /// Host and port.
        host: String,
        /// Why.
        reason: String,
    },
    /// Its host key is not to be trusted.
    #[error(transparent)]
    HostKey(Box<HostKeyError>),
    /// No key opens the door.
    #[error("failed to log in on {host} as {user}: {}. Offered by the board: {methods}. {remedy}", tried.join("; "))]
    Refused {
        /// Host and port.
        host: String,
        /// The user.
        user: String,
        /// Each key and what became of it.
        tried: Vec<String>,
        /// Methods that the server names.
        methods: String,
        /// What to do.
        remedy: String,
    },
    /// The link is gone.
    #[error("failed to go on: the link to {host} is lost ({reason})")]
    Lost {
        /// Host and port.
        host: String,
        /// Why.
        reason: String,
    },
    /// A program does not start, or a host behind it is out of reach.
    #[error("failed to {what} on {host}: {reason}")]
    Open {
        /// What was to be done.
        what: String,
        /// Host and port.
        host: String,
        /// Why.
        reason: String,
    },
    /// A program said nothing for too long.
    #[error("failed to {what} on {host}: no answer within {} s", after.as_secs())]
    Late {
        /// What was to be done.
        what: String,
        /// Host and port.
        host: String,
        /// How long it was given.
        after: Duration,
    },
    /// The login shell does not come to the script.
    #[error(
        "failed to {what} on {host}: its login shell began nothing within {} s; what do its start files wait for \
         (~/.bashrc, ~/.profile, ~/.cshrc, ~/.config/fish)?",
        after.as_secs()
    )]
    Shell {
        /// What was to be done.
        what: String,
        /// Host and port.
        host: String,
        /// How long it was given.
        after: Duration,
    },
    /// A program failed.
    #[error("failed to {what} on {host}: {reason}")]
    Failed {
        /// What was to be done.
        what: String,
        /// Host and port.
        host: String,
        /// Its words.
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

    /// Whether trying again later may help: the board may be booting, or a cable may be out.
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

    /// The same of a board that let us in before: one that shuts down or has just started refuses everybody.
    pub fn may_pass_again(&self) -> bool {
        self.may_pass() || matches!(self, Self::Refused { .. })
    }
}
