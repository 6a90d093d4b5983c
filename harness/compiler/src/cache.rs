//! The artifact cache: one directory per network and target, named by the hash of all inputs.

use super::external;
use super::manifest::{NetworkManifest, SCHEMA, StageManifest};
use super::target::Target;
use anyhow::{Context, Result};
use host::files::hash_file;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The source of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The zoo builds it from its published architecture.
    Zoo(String),
    /// A file.
    Onnx {
        /// The file.
        path: PathBuf,
        /// Shapes of inputs that are dynamic in the file.
        shapes: BTreeMap<String, Vec<u64>>,
    },
}

impl Source {
    /// For the database.
    pub fn describe(&self) -> serde_json::Value {
        match self {
            Self::Zoo(name) => serde_json::json!({ "zoo": name }),
            Self::Onnx { path, shapes } if shapes.is_empty() => serde_json::json!({ "onnx": path }),
            Self::Onnx { path, shapes } => serde_json::json!({ "onnx": path, "shapes": shapes }),
        }
    }
}

/// The cache of compiled artifacts.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    /// Hash of the compiler's sources and of the pinned package versions.
    compiler: String,
}

/// The directory with the artifacts of a network for a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The directory.
    pub folder: PathBuf,
}

/// The layout of the tensors at a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundaryLayout {
    /// As in the ONNX graph; compatible with any other stage.
    Plain,
    /// As the kernels use them; compatible with stages that have the same vector instructions.
    Packed,
}

/// The layouts of a stage's inputs and outputs. The inputs and outputs of the network itself are always plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageLayout {
    /// At the cut before the stage.
    pub inputs: BoundaryLayout,
    /// At the cut after it.
    pub outputs: BoundaryLayout,
}

impl StageLayout {
    /// Compatible with any other stage.
    pub const PLAIN: Self = Self { inputs: BoundaryLayout::Plain, outputs: BoundaryLayout::Plain };

    /// Its name in job files and folders.
    pub fn word(self) -> &'static str {
        match (self.inputs, self.outputs) {
            (BoundaryLayout::Plain, BoundaryLayout::Plain) => "plain",
            (BoundaryLayout::Packed, BoundaryLayout::Packed) => "packed",
            (BoundaryLayout::Plain, BoundaryLayout::Packed) => "plain-packed",
            (BoundaryLayout::Packed, BoundaryLayout::Plain) => "packed-plain",
        }
    }
}

impl Cache {
    /// The cache below `folder`, for the compiler in `root`.
    ///
    /// # Errors
    /// If the sources of the compiler cannot be read.
    pub fn open(folder: PathBuf, root: &Path) -> Result<Self> {
        let mut sources = Vec::new();
        collect_sources(&root.join("compiler/edgepipe_compiler"), &mut sources)?;
        sources.push(root.join("ci/requirements.txt"));
        sources.sort();
        let mut hash = Sha256::new();
        for path in sources {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            let text = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        Ok(Self { folder, compiler: format!("{:x}", hash.finalize()) })
    }

    /// The file with the versions of this compiler.
    pub fn versions_file(&self) -> PathBuf {
        self.folder.join(format!("versions-{}.json", &self.compiler[..24]))
    }

    /// SHA-256 of the source of a network: its file, or its name in the zoo and the compiler that builds it.
    ///
    /// # Errors
    /// If an ONNX file cannot be read.
    pub fn identity(&self, source: &Source) -> Result<String> {
        match source {
            Source::Zoo(name) => {
                let hash = Sha256::new().chain_update(&self.compiler).chain_update(name);
                Ok(format!("{:x}", hash.finalize()))
            }
            Source::Onnx { path, shapes } => onnx_identity(path, shapes),
        }
    }

    /// The entry of a network for a target.
    ///
    /// # Errors
    /// If an ONNX file cannot be read.
    pub fn entry(&self, name: &str, source: &Source, target: &Target) -> Result<Entry> {
        let mut hash = Sha256::new();
        let source = match source {
            Source::Zoo(name) => format!("zoo:{name}"),
            Source::Onnx { path, shapes } => format!("onnx:{}", onnx_identity(path, shapes)?),
        };
        for part in [&self.compiler, name, &source, &serde_json::to_string(target)?] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let key = format!("{:x}", hash.finalize());
        Ok(Entry { folder: self.folder.join(format!("{name}-{}", &key[..24])) })
    }
}

impl Entry {
    /// The manifest of the network, if it exists and is valid.
    pub fn network(&self) -> Option<NetworkManifest> {
        read_manifest::<NetworkManifest>(&self.folder.join("network.json"))
            .filter(|manifest| manifest.schema == SCHEMA)
    }

    /// The directory of the files that [`super::Reference`] names.
    pub fn reference(&self) -> PathBuf {
        self.folder.join("reference")
    }

    /// The network as an ONNX file; exists if a job requested it.
    pub fn model(&self) -> PathBuf {
        self.folder.join("model.onnx")
    }

    /// The manifest of a stage, if the stage is complete and valid.
    pub fn stage(&self, first: usize, end: usize, layout: StageLayout) -> Option<StageManifest> {
        let folder = self.stage_folder(first, end, layout);
        let manifest: StageManifest = read_manifest(&folder.join("stage.json"))?;
        let library = hash_file(&folder.join(&manifest.library)).ok()?;
        let weights = manifest.weights.iter().map(|weight| weight.offset + weight.bytes).max().unwrap_or(0);
        let present = weights == 0 || fs::metadata(self.weights()).is_ok_and(|file| file.len() >= weights);
        (manifest.schema == SCHEMA && library == manifest.library_sha256 && present).then_some(manifest)
    }

    /// The directory of a stage.
    pub fn stage_folder(&self, first: usize, end: usize, layout: StageLayout) -> PathBuf {
        self.folder.join("stages").join(format!("{first}-{end}-{}", layout.word()))
    }

    /// The file with the weights of all stages.
    pub fn weights(&self) -> PathBuf {
        self.folder.join("weights.bin")
    }
}

fn read_manifest<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = fs::read(path).ok()?;
    match serde_json::from_slice(&text) {
        Ok(manifest) => Some(manifest),
        Err(error) => {
            tracing::warn!("{} is damaged ({error}); compiling again", path.display());
            None
        }
    }
}

fn collect_sources(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect_sources(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "py") {
            into.push(path);
        }
    }
    Ok(())
}

/// SHA-256 of an ONNX file. If it has external data or dynamic shapes, SHA-256 of all digests and shapes.
fn onnx_identity(path: &Path, shapes: &BTreeMap<String, Vec<u64>>) -> Result<String> {
    let (file, external) = (hash_file(path)?, external::files(path)?);
    if external.is_empty() && shapes.is_empty() {
        return Ok(file);
    }
    let mut hash = Sha256::new().chain_update(&file);
    for location in external {
        let data = path.with_file_name(&location);
        hash.update(format!("\n{location:?} {}", hash_file(&data)?));
    }
    hash.update(format!("\n{shapes:?}"));
    Ok(format!("{:x}", hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::super::target::{CpuTarget, CudaTarget};
    use super::*;
    use domain::{FloatFormat, Winograd};

    fn target() -> CpuTarget {
        CpuTarget {
            arch: "x86_64".to_owned(),
            mcpu: "x86-64-v3".to_owned(),
            isa: "avx2".to_owned(),
            triple: "x86_64-unknown-linux-gnu".to_owned(),
            threads: 1,
            l1d_bytes: 32 << 10,
            l2_bytes: 512 << 10,
            winograd: true,
        }
    }

    /// A workspace with a compiler of one file.
    fn workspace(source: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("compiler/edgepipe_compiler")).unwrap();
        fs::create_dir_all(folder.path().join("ci")).unwrap();
        fs::write(folder.path().join("compiler/edgepipe_compiler/job.py"), source).unwrap();
        fs::write(folder.path().join("ci/requirements.txt"), "a==1\n").unwrap();
        folder
    }

    fn key(root: &Path, name: &str, source: &Source, target: &Target) -> PathBuf {
        let cache = Cache::open(PathBuf::from("/cache"), root).unwrap();
        cache.entry(name, source, target).unwrap().folder
    }

    #[test]
    fn whatever_goes_in_changes_the_key_and_nothing_else_does() {
        let cuda = |arch: &str| Target::Cuda(CudaTarget::new(arch.parse().unwrap()));
        let (one, same, other) = (workspace("x = 1"), workspace("x = 1"), workspace("x = 2"));
        let zoo = Source::Zoo("net".to_owned());
        let first = key(one.path(), "net", &zoo, &Target::Cpu(target()));
        assert_eq!(
            first,
            key(same.path(), "net", &zoo, &Target::Cpu(target())),
            "the place of the workspace does not matter"
        );
        let without = Target::Cpu(target()).with_settings(FloatFormat::Fp32, Winograd::Off);
        let onnx = one.path().join("net.onnx");
        fs::write(&onnx, "a").unwrap();
        let from_file = key(
            one.path(),
            "net",
            &Source::Onnx { path: onnx.clone(), shapes: BTreeMap::new() },
            &Target::Cpu(target()),
        );
        fs::write(&onnx, "b").unwrap();
        let keys = [
            first,
            key(other.path(), "net", &zoo, &Target::Cpu(target())),
            key(one.path(), "net", &zoo, &Target::Cpu(CpuTarget { threads: 2, ..target() })),
            key(one.path(), "net", &zoo, &cuda("sm_62")),
            key(one.path(), "net", &zoo, &cuda("sm_62").with_settings(FloatFormat::Fp16, Winograd::Auto)),
            key(one.path(), "net", &zoo, &cuda("sm_62").with_settings(FloatFormat::Fp32, Winograd::Off)),
            key(one.path(), "net", &zoo, &without),
            key(one.path(), "net", &zoo, &cuda("sm_72")),
            key(one.path(), "other", &Source::Zoo("other".to_owned()), &Target::Cpu(target())),
            from_file,
            key(
                one.path(),
                "net",
                &Source::Onnx { path: onnx, shapes: BTreeMap::new() },
                &Target::Cpu(target()),
            ),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len(), "{keys:?}");
    }

    #[test]
    fn a_damaged_or_changed_stage_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let entry = Entry { folder: folder.path().to_path_buf() };
        let stage = entry.stage_folder(0, 2, StageLayout::PLAIN);
        fs::create_dir_all(&stage).unwrap();
        fs::write(stage.join("stage.so"), "library").unwrap();
        let sum = hash_file(&stage.join("stage.so")).unwrap();
        let manifest = serde_json::json!({
            "schema": SCHEMA, "first_unit": 0, "end_unit": 2, "library": "stage.so", "library_sha256": sum,
            "entry": "main", "inputs": [], "outputs": [], "calls": [], "rules": [], "multiply_adds": [],
            "weights": [{ "offset": 0, "bytes": 8, "shape": [2], "dtype": "float32" }],
        });
        fs::write(stage.join("stage.json"), manifest.to_string()).unwrap();
        let found = || entry.stage(0, 2, StageLayout::PLAIN).is_some();
        assert!(!found(), "its weights are missing");
        fs::write(entry.weights(), [0; 8]).unwrap();
        assert!(found());
        fs::write(stage.join("stage.so"), "librarx").unwrap();
        assert!(!found(), "its library was changed");
        fs::write(stage.join("stage.so"), "library").unwrap();
        fs::write(stage.join("stage.json"), "{").unwrap();
        assert!(!found(), "its manifest is damaged");
    }
}
