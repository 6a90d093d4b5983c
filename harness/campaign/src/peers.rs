//! Peers: other inference engines that are measured for comparison.

use crate::processors::Processor;
use config::PeerSpec;
use domain::Peer;
use host::exit::{Exit, Failure, Outcome};
use std::path::{Path, PathBuf};

/// ONNX Runtime's shared library from the pinned wheel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OnnxRuntime {
    pub(crate) library: PathBuf,
    pub(crate) version: String,
}

impl OnnxRuntime {
    /// Finds it in the private Python environment.
    ///
    /// # Errors
    /// If it is not installed.
    pub(crate) fn find(python: &Path) -> Outcome<Self> {
        const STEM: &str = "libonnxruntime.so.";
        let environment = python.parent().and_then(Path::parent).unwrap_or(python);
        let folders = |folder: &Path| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let found = folders(&environment.join("lib"))
            .into_iter()
            .flat_map(|python| folders(&python.join("site-packages/onnxruntime/capi")))
            .find_map(|library| {
                let version = library.file_name()?.to_str()?.strip_prefix(STEM)?.to_owned();
                Some(Self { library, version })
            });
        found.ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                format!(
                    "failed to find ONNX Runtime ({STEM}…) below {}; install it by `{} setup`, or remove the \
                     peers from the experiment",
                    environment.display(),
                    host::program()
                ),
            )
        })
    }
}

/// Assigns CPUs to the sessions of a peer.
///
/// # Errors
/// If the board has too few CPUs.
pub(crate) fn placed(spec: &PeerSpec, version: &str, processors: &[Processor]) -> Outcome<Peer> {
    let mut cpus: Vec<u32> = Vec::new();
    for processor in processors {
        let named = spec
            .processors
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| name == processor.name.as_str()));
        for cpu in processor.kind.compute_cpus().iter().filter(|_| named) {
            if !cpus.contains(cpu) {
                cpus.push(*cpu);
            }
        }
    }
    let room = u32::try_from(cpus.len()).unwrap_or(u32::MAX);
    let (threads, sessions) = match (spec.threads, spec.sessions) {
        (Some(threads), Some(sessions)) => (threads, sessions),
        (Some(threads), None) => (threads, (room / threads.max(1)).max(1)),
        (None, Some(sessions)) => ((room / sessions.max(1)).max(1), sessions),
        (None, None) => (room, 1),
    };
    if threads.saturating_mul(sessions) > room || threads == 0 || sessions == 0 {
        let count = |count: u32, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "failed to place the peer {}: {} of {} need {}, and its processors have {room}; reduce `threads` or \
                 `sessions`, or write `all`",
                spec.engine,
                count(sessions, "session"),
                count(threads, "thread"),
                count(threads.saturating_mul(sessions), "CPU"),
            ),
        ));
    }
    let sessions = cpus.chunks(threads as usize).take(sessions as usize).map(<[u32]>::to_vec).collect();
    Ok(Peer { engine: spec.engine.clone(), version: version.to_owned(), threads, sessions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::fixture;

    fn processors() -> Vec<Processor> {
        let make =
            |(name, cpus): (&str, &[u32])| Processor::cpus(&fixture::machine(), name, cpus.to_vec(), 1, None);
        [("a57", &[0, 3, 4, 5][..]), ("denver", &[1, 2])].into_iter().map(make).collect()
    }

    fn spec(threads: Option<u32>, sessions: Option<u32>, on: Option<&str>) -> PeerSpec {
        let processors = on.map(|name| vec![name.to_owned()]);
        PeerSpec { engine: "onnxruntime".to_owned(), threads, sessions, processors }
    }

    #[test]
    fn sessions_take_cpus_in_the_order_of_the_processors() {
        let of = |spec: &PeerSpec| placed(spec, "1.0", &processors()).unwrap().sessions;
        assert_eq!(of(&spec(Some(1), Some(1), None)), [[0]]);
        assert_eq!(of(&spec(None, Some(1), None)), [[0, 3, 4, 5, 1, 2]]);
        assert_eq!(of(&spec(Some(1), None, Some("denver"))), [[1], [2]]);
        assert_eq!(of(&spec(Some(2), None, None)), [[0, 3], [4, 5], [1, 2]]);
        assert_eq!(of(&spec(None, Some(2), None)), [[0, 3, 4], [5, 1, 2]]);
        assert_eq!(of(&spec(None, None, Some("denver"))), [[1, 2]]);
    }

    #[test]
    fn too_few_cpus_are_an_error() {
        for (spec, says) in [
            (
                spec(Some(4), Some(1), Some("denver")),
                "1 session of 4 threads need 4 CPUs, and its processors have 2",
            ),
            (spec(Some(2), Some(4), None), "4 sessions of 2 threads need 8 CPUs, and its processors have 6"),
        ] {
            let failure = placed(&spec, "1.0", &processors()).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.to_string().contains(says), "{failure}");
        }
    }
}
