//! Options of sockets and pipes.

use rustix::net::sockopt;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A peer that acknowledges nothing for this time is gone.
const ACKNOWLEDGE: Duration = Duration::from_secs(20);

/// Lets the kernel notice a peer that is gone. libssh2's own keep-alive makes reads fail after a silence.
pub(super) fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(5))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    let milliseconds = u32::try_from(ACKNOWLEDGE.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, milliseconds)?;
    Ok(())
}

/// Acknowledges at once what comes next. sshd waits for that before it sends another small packet (Nagle's algorithm),
/// and the kernel, as long as we have nothing to send, for 40 ms. It does not last: the kernel falls back by itself.
pub(super) fn acknowledge_at_once(socket: &impl AsFd) {
    // A socket through a jump host is not TCP; without this option packets only take longer.
    let _ = sockopt::set_tcp_quickack(socket, true);
}

/// Shuts a socket down, which ends reads of other threads.
pub(super) fn shut(socket: &impl AsFd) {
    // The socket may be closed already.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}

/// Makes a descriptor non-blocking.
pub(super) fn unblock(fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::io::ioctl_fionbio(fd, true)
}

/// A pipe: (reading end, writing end).
pub(super) fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // If a larger buffer is refused, the default one works.
    let _ = rustix::pipe::fcntl_setpipe_size(&writing, 1 << 20);
    Ok((reading, writing))
}
