//! A cable between harness and board that can be pulled: it carries bytes from a port of its own to sshd's, until it is
//! told to stop, at once or at a certain byte.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToBoard,
    ToHarness,
}

/// How a link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Both ends are told.
    Closed,
    /// Nobody is told: nothing arrives any more.
    Silent,
}

#[derive(Default)]
struct Shared {
    /// Bytes carried so far, to the board and to the harness.
    carried: [AtomicU64; 2],
    /// Cut once so many bytes went this way.
    armed: Mutex<Option<(Way, u64, Cut)>>,
    links: Mutex<Vec<Arc<Link>>>,
    is_out: AtomicBool,
}

struct Link {
    ends: [TcpStream; 2],
    is_silent: AtomicBool,
}

/// A cable. Its threads end with the test program.
pub(crate) struct Cable {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

impl Cable {
    /// A cable to a port of this machine.
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for harness in listener.incoming().map_while(Result::ok) {
                // A board that is off answers nothing: what was accepted here is closed at once.
                if of_thread.is_out.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(board) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                for end in [&harness, &board] {
                    end.set_nodelay(true).unwrap();
                }
                let link = Arc::new(Link { ends: [harness, board], is_silent: AtomicBool::new(false) });
                of_thread.links.lock().unwrap().push(Arc::clone(&link));
                for way in [Way::ToBoard, Way::ToHarness] {
                    let (shared, link) = (Arc::clone(&of_thread), Arc::clone(&link));
                    std::thread::spawn(move || shared.carry(&link, way));
                }
            }
        });
        Self { port: own, shared }
    }

    /// Bytes carried this way so far.
    pub(crate) fn carried(&self, way: Way) -> u64 {
        self.shared.carried[way as usize].load(Ordering::SeqCst)
    }

    /// Cuts once so many more bytes went this way.
    pub(crate) fn cut_after(&self, way: Way, bytes: u64, cut: Cut) {
        *self.shared.armed.lock().unwrap() = Some((way, self.carried(way) + bytes, cut));
    }

    /// Whether an armed cut is still to come.
    pub(crate) fn is_armed(&self) -> bool {
        self.shared.armed.lock().unwrap().is_some()
    }

    /// Cuts all links now; new ones are carried.
    pub(crate) fn cut(&self, cut: Cut) {
        self.shared.cut(cut);
    }

    /// Pulls the cable, or puts it in again.
    pub(crate) fn set_out(&self, is_out: bool) {
        self.shared.is_out.store(is_out, Ordering::SeqCst);
        if is_out {
            self.cut(Cut::Closed);
        }
    }
}

impl Shared {
    fn cut(&self, cut: Cut) {
        for link in self.links.lock().unwrap().drain(..) {
            match cut {
                Cut::Silent => link.is_silent.store(true, Ordering::SeqCst),
                Cut::Closed => link.close(),
            }
        }
    }

    fn carry(&self, link: &Link, way: Way) {
        let [harness, board] = &link.ends;
        let (mut from, mut to) = match way {
            Way::ToBoard => (harness, board),
            Way::ToHarness => (board, harness),
        };
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count) = from.read(&mut buffer)
            && count > 0
        {
            while link.is_silent.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(50));
            }
            let carried = &self.carried[way as usize];
            let before = carried.load(Ordering::SeqCst);
            let armed = *self.armed.lock().unwrap();
            let left = match armed {
                Some((armed, at, _)) if armed == way => usize::try_from(at.saturating_sub(before)).unwrap(),
                _ => usize::MAX,
            };
            let through = count.min(left);
            if to.write_all(&buffer[..through]).is_err() {
                break;
            }
            carried.fetch_add(through as u64, Ordering::SeqCst);
            if let (true, Some((_, _, cut))) = (through < count, armed) {
                *self.armed.lock().unwrap() = None;
                self.cut(cut);
                while link.is_silent.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
        link.close();
    }
}

impl Link {
    fn close(&self) {
        for end in &self.ends {
            // An end that is closed already needs no closing.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}
