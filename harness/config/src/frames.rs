//! The frames of an experiment: random ones, or those of a file or a folder, with the digest of what is fed.

use super::faults::Faults;
use super::tree::Node;
use super::values::{Sha256, Text};
use pictures::Folder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Input frames: uniform in [-1, 1), reproducible from the seed; or those of a file or a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Frames {
    /// Seed of the first frame.
    pub seed: u64,
    /// Number of distinct frames. They are used in turn and all are kept in memory.
    #[schemars(range(min = 1, max = 4096))]
    pub distinct: u32,
    /// A NumPy file with frames, instead of random ones: an array of the input's type and shape, with the frames as
    /// first dimension. A batch dimension of 1 may be left out. Relative to the folder that has `configs/`, or
    /// absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>")]
    pub npy: Option<String>,
    /// SHA-256 digest of that file. If present, the file is checked against it; a stored configuration always has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Sha256>")]
    pub npy_sha256: Option<String>,
    /// A folder with pictures (PNG, JPEG), instead of random frames. Relative to the folder that has `configs/`, or absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>")]
    pub folder: Option<String>,
    /// SHA-256 digest of the names and contents of its pictures. If present, the folder is checked against it; a stored
    /// configuration always has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Sha256>")]
    pub folder_sha256: Option<String>,
}

impl Frames {
    /// Finds the file or folder and sets its digest.
    pub(super) fn find_files(&mut self, root: &Path, tree: &Node, faults: &mut Faults) {
        if self.npy.is_some() && self.folder.is_some() {
            faults.add(&tree.spot("frames/folder"), "`folder` cannot be combined with `npy`; remove one");
            return;
        }
        let file = |path: &Path| host::files::hash_file(path).map_err(|error| format!("{error:#}"));
        let folder = |path: &Path| {
            let digest = Folder::open(path).and_then(|folder| folder.digest());
            digest.map_err(|error| error.to_string())
        };
        find(root, tree, "npy", (&mut self.npy, &mut self.npy_sha256), file, faults);
        find(root, tree, "folder", (&mut self.folder, &mut self.folder_sha256), folder, faults);
    }
}

/// Makes the path of the setting `key` absolute and sets its digest, or compares it with the one that is there.
fn find(
    root: &Path,
    tree: &Node,
    key: &str,
    (path, digest): (&mut Option<String>, &mut Option<String>),
    compute: impl Fn(&Path) -> Result<String, String>,
    faults: &mut Faults,
) {
    let of_digest = tree.spot(&format!("frames/{key}_sha256"));
    let Some(given) = path else {
        if digest.is_some() {
            faults.add(
                &of_digest,
                format!("`{key}`, to which this digest belongs, is missing; add it, or remove the digest"),
            );
        }
        return;
    };
    let whole = root.join(&*given);
    let whole = std::path::absolute(&whole).unwrap_or(whole);
    match compute(&whole) {
        Err(message) => faults.add(&tree.spot(&format!("frames/{key}")), message),
        Ok(found) => {
            if digest.as_ref().is_some_and(|wanted| *wanted != found) {
                faults.add(&of_digest, format!("the digest of {} is {found}", whole.display()));
            }
            *path = Some(whole.display().to_string());
            *digest = Some(found);
        }
    }
}
