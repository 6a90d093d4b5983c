//! The files that a board needs: the runner with its libraries, and what requests name.

use crate::deploy::Item;
use crate::error::RemoteError;
use config::Triple;
use protocol::{Program, Request};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The runner with its libraries, in a directory named by the digest of their contents.
pub(super) fn bundle(runner: &Path, triple: Triple) -> Result<Vec<Item>, RemoteError> {
    let failed = |path: &Path, reason: String| RemoteError::Runner {
        triple: triple.text(),
        path: path.to_path_buf(),
        reason: format!("{reason}; {}", host::new_runner()),
    };
    let folder = runner.with_file_name("lib");
    let entries = std::fs::read_dir(&folder).map_err(|error| failed(&folder, error.to_string()))?;
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files.insert(0, runner.to_path_buf());
    let mut items = Vec::new();
    let mut whole = Sha256::new();
    for file in files {
        let mut item = Item::of("runner", &file).map_err(|error| failed(&file, format!("{error:#}")))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        item.place = if items.is_empty() { "runner".to_owned() } else { format!("lib/{name}") };
        whole.update(format!("{} {}\n", item.place, item.sha256));
        items.push(item);
    }
    let mut name = String::new();
    for byte in whole.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    for item in &mut items {
        item.place = format!("runner/{name}/{}", item.place);
    }
    Ok(items)
}

/// The files that a request names, each once, with their kinds; without those that are on the board.
pub(super) fn missing_files(
    request: &mut Request,
    is_there: impl Fn(&Path) -> bool,
) -> Vec<(&'static str, PathBuf)> {
    let mut wanted: Vec<(&'static str, PathBuf)> = Vec::new();
    each_file(request, |kind, path| {
        let local = PathBuf::from(&*path);
        if !is_there(&local) && !wanted.iter().any(|(_, known)| *known == local) {
            wanted.push((kind, local));
        }
    });
    wanted
}

/// Every file a request names, with its kind.
pub(super) fn each_file(request: &mut Request, mut visit: impl FnMut(&'static str, &mut String)) {
    let frames = match request {
        Request::Profile(profile) => profile.frames.file.as_mut(),
        Request::Compare(compare) => compare.frames.file.as_mut(),
        Request::Capture(capture) => capture.frames.file.as_mut(),
        Request::Trial(trial) => trial.frames.file.as_mut(),
        _ => None,
    };
    if let Some(file) = frames {
        visit("weights", &mut file.path);
    }
    let mut stages: Vec<&mut protocol::Stage> = match request {
        Request::State { .. }
        | Request::Clocks { .. }
        | Request::Transfer(_)
        | Request::Idle(_)
        | Request::Peak(_) => Vec::new(),
        Request::Profile(profile) => vec![&mut profile.stage],
        Request::Compare(compare) => {
            compare.reference.stages.iter_mut().chain(&mut compare.candidate.stages).collect()
        }
        Request::Verify(verify) => {
            for path in verify.inputs.iter_mut().chain(&mut verify.outputs) {
                visit("weights", path);
            }
            verify.schedule.stages.iter_mut().collect()
        }
        Request::Capture(capture) => capture.schedule.stages.iter_mut().collect(),
        Request::Trial(trial) => trial.schedule.stages.iter_mut().collect(),
    };
    for stage in &mut stages {
        match &mut stage.program {
            Program::Library(library) => {
                visit("library", &mut library.path);
                visit("weights", &mut library.weights.path);
            }
            Program::OnnxRuntime(model) => {
                visit("library", &mut model.runtime);
                visit("weights", &mut model.model);
            }
            Program::Cuda(program) => {
                visit("library", &mut program.path);
                visit("weights", &mut program.weights);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{CpuProcessor, ExecutionMode, Frames, OnnxModel, Processor, Schedule, Stage};

    #[test]
    fn a_library_that_is_on_the_board_is_not_sent() {
        let processor =
            Processor::Cpu(CpuProcessor { name: "onnxruntime".into(), cpus: vec![0], threads: 1 });
        let library = "/usr/lib/libonnxruntime.so.1.20.1";
        let model = OnnxModel { runtime: library.into(), model: "/cache/model.onnx".into(), gpu: None };
        let stage = Stage {
            processor,
            program: Program::OnnxRuntime(model),
            inputs: vec![],
            outputs: vec![],
            replica: false,
        };
        let schedule = Schedule {
            kind: ExecutionMode::Replicate,
            values: vec![],
            inputs: vec![],
            outputs: vec![],
            stages: vec![stage.clone(), stage],
        };
        let frames = Frames { seed: 1, distinct: 1, integers_below: 8, file: None };
        let folder = "/tmp".to_owned();
        let mut request = Request::Capture(protocol::Capture { id: 1, schedule, frames, folder });
        let model = ("weights", PathBuf::from("/cache/model.onnx"));
        assert_eq!(missing_files(&mut request, |_| false), [("library", library.into()), model.clone()]);
        assert_eq!(missing_files(&mut request, |path| path == Path::new(library)), vec![model]);
    }
}
