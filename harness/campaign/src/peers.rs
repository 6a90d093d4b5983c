//! Peers: other inference engines that are measured for comparison.

use crate::processors::Processor;
use config::{PeerSpec, ScheduleSpec};
use domain::{GpuProvider, Peer, PeerGpu};
use host::exit::{Exit, Failure, Outcome};
use std::path::{Path, PathBuf};

/// The shared library of ONNX Runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OnnxRuntime {
    /// On the board if the board's file names it, else on this machine.
    pub(crate) library: PathBuf,
    pub(crate) version: String,
}

/// What the name of the library starts with; its version follows.
const STEM: &str = "libonnxruntime.so.";

impl OnnxRuntime {
    /// The library that the peers of an experiment need: the one that the board's file names, or the pinned wheel's. Absent
    /// without peers. `is_foreign`: the board does not run programs of this machine.
    ///
    /// # Errors
    /// If the board's file names none and the wheel's does not serve.
    pub(crate) fn for_peers(
        schedules: &[ScheduleSpec],
        board: &config::Board,
        is_foreign: bool,
        python: &Path,
    ) -> Outcome<Option<Self>> {
        let mut peers = schedules.iter().filter_map(|spec| match spec {
            ScheduleSpec::Peer(peer) => Some(peer),
            _ => None,
        });
        let Some(first) = peers.next() else { return Ok(None) };
        if let Some(named) = &board.onnxruntime {
            let library = PathBuf::from(named);
            let name = library.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
            let version = name.strip_prefix(STEM).unwrap_or_default().to_owned();
            return Ok(Some(Self { library, version }));
        }
        let remedy = "name a library on the board as `onnxruntime` in the board's file, or remove the peer";
        let fail = |reason: &str| {
            let board = &board.name;
            Err(Failure::new(
                Exit::Usage,
                format!("failed to run a peer on the board {board}: {reason}; {remedy}"),
            ))
        };
        if let Some(provider) = std::iter::once(first).chain(peers).find_map(|peer| peer.provider) {
            return fail(&format!(
                "edgepipe's own ONNX Runtime computes on CPUs only and has no provider {provider}"
            ));
        }
        if is_foreign {
            return fail("edgepipe's own ONNX Runtime is for this machine's architecture");
        }
        Self::find(python).map(Some)
    }

    /// Finds it in the private Python environment.
    ///
    /// # Errors
    /// If it is not installed.
    fn find(python: &Path) -> Outcome<Self> {
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
                    "failed to find ONNX Runtime ({STEM}…) below {}; install it with `{} setup`, or remove the \
                     peers from the experiment",
                    environment.display(),
                    host::program()
                ),
            )
        })
    }
}

/// Assigns CPUs to the sessions of a peer, or a GPU with the CPUs that feed it.
///
/// # Errors
/// If the board has too few CPUs, or no GPU.
pub(crate) fn placed(spec: &PeerSpec, version: &str, processors: &[Processor]) -> Outcome<Peer> {
    let may_use = |processor: &&Processor| {
        spec.processors.as_ref().is_none_or(|names| names.iter().any(|name| name == processor.name.as_str()))
    };
    let mut usable = processors.iter().filter(may_use);
    if let Some(provider) = spec.provider {
        let gpu = usable.find(|processor| processor.kind.is_gpu());
        return placed_on_gpu(spec, provider, version, gpu);
    }
    let mut cpus: Vec<u32> = Vec::new();
    for processor in usable {
        for cpu in processor.kind.compute_cpus() {
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
    Ok(Peer { engine: spec.engine.clone(), version: version.to_owned(), threads, sessions, gpu: None })
}

fn placed_on_gpu(
    spec: &PeerSpec,
    provider: GpuProvider,
    version: &str,
    gpu: Option<&Processor>,
) -> Outcome<Peer> {
    let fail = |reason: &str| {
        let engine = &spec.engine;
        Err(Failure::new(Exit::Usage, format!("failed to place the peer {engine} {provider}: {reason}")))
    };
    let Some(gpu) = gpu else {
        return fail("its processors have no GPU; name one in the board's file, or remove the peer");
    };
    if spec.threads != Some(1) {
        return fail("a session on a GPU has one thread, which feeds it; remove `threads`");
    }
    let Some(sessions) = spec.sessions else {
        return fail("`sessions: all` counts CPUs; write the number of sessions on the GPU");
    };
    Ok(Peer {
        engine: spec.engine.clone(),
        version: version.to_owned(),
        threads: 1,
        sessions: vec![gpu.kind.thread_cpus().to_vec(); sessions as usize],
        gpu: Some(PeerGpu { provider, processor: gpu.name.clone() }),
    })
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
        PeerSpec { engine: "onnxruntime".to_owned(), provider: None, threads, sessions, processors }
    }

    #[test]
    fn a_gpu_computes_for_sessions_on_the_cpus_that_feed_it() {
        let mut with_gpu = processors();
        with_gpu.push(Processor {
            name: "gpu".into(),
            kind: domain::ProcessorKind::Cuda {
                arch: "sm_62".parse().unwrap(),
                device: 1,
                host_cpus: vec![0, 3],
            },
            ..processors().remove(0)
        });
        let provider = Some(GpuProvider::Tensorrt);
        let asked = |threads, sessions| PeerSpec { provider, ..spec(threads, sessions, None) };
        let found = placed(&asked(Some(1), Some(2)), "1.0", &with_gpu).unwrap();
        assert_eq!((found.threads, &found.sessions[..]), (1, &[vec![0, 3], vec![0, 3]][..]));
        let gpu = found.gpu.unwrap();
        assert_eq!((gpu.provider, gpu.processor.as_str()), (GpuProvider::Tensorrt, "gpu"));
        let on_cpus = PeerSpec { processors: Some(vec!["denver".to_owned()]), ..asked(Some(1), Some(1)) };
        for (spec, processors, says) in [
            (asked(Some(1), Some(1)), processors(), "onnxruntime tensorrt: its processors have no GPU"),
            (on_cpus, with_gpu.clone(), "its processors have no GPU"),
            (asked(None, Some(1)), with_gpu.clone(), "remove `threads`"),
            (asked(Some(2), Some(1)), with_gpu.clone(), "remove `threads`"),
            (asked(Some(1), None), with_gpu, "write the number of sessions on the GPU"),
        ] {
            let failure = placed(&spec, "1.0", &processors).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.to_string().contains(says), "{failure}");
        }
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
