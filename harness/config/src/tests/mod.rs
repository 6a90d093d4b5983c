mod committed;
mod faults;
mod mutated;
mod resolved;

use std::fs;
use std::path::{Path, PathBuf};

use super::{Faults, Loaded, Overrides, load};

/// The root of this workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A root of its own, with a sound board `bench` and a sound experiment `sound`.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        let scratch = Self(tempfile::tempdir().expect("a temporary folder can be made"));
        scratch.write("boards/bench.yaml", BOARD).write("experiments/sound.yaml", EXPERIMENT);
        fs::create_dir_all(scratch.path().join("configs/networks")).expect("folders can be made");
        scratch
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file below `configs/`.
    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.path().join("configs").join(path);
        fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("folders can be made");
        fs::write(path, text).expect("files can be written");
        self
    }

    fn load(&self, board: &str, experiment: &str, overrides: &Overrides) -> Result<Loaded, Faults> {
        load(self.path(), board, experiment, overrides)
    }

    /// The faults as printed, without the folder's name; "no faults" where there are none.
    fn faults(&self, board: &str, experiment: &str, overrides: &Overrides) -> String {
        let faults = self.load(board, experiment, overrides).err();
        let text = faults.map_or_else(|| "no faults".to_owned(), |faults| faults.to_string());
        text.replace(&*self.path().to_string_lossy(), "ROOT")
    }
}

const BOARD: &str = "board: bench
processors:
  big: { cpus: [0, 1], threads: 1, mcpu: cortex-a57 }
  little: { cpus: [2] }
";

const EXPERIMENT: &str = "experiment: sound
networks: [resnet18]
schedules:
  - single: each
  - pipeline: [{ processor: big, until: layer3 }, { processor: little }]
trials: 3
warm_up: { min_frames: 5, min_seconds: 0.1, max_seconds: 2 }
measure: { min_seconds: 1, min_frames: 30, max_seconds: 10 }
frames: { seed: 7, distinct: 4 }
";
