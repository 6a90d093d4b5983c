//! The input frames of a network: random ones, those of a NumPy file, or those of a folder of pictures.

use crate::npy;
use anyhow::{Context as _, Result, bail};
use compiler::NetworkManifest;
use config::{Experiment, Frames};
use domain::PictureRule;
use host::exit::{Ending as _, Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use host::progress::{self, Progress};
use pictures::{Folder, FrameShape};
use std::path::{Path, PathBuf};

/// The frames that an experiment feeds to a network. Those of pictures are kept in `cache`.
///
/// # Errors
/// If a file or a picture does not fit the network's input.
pub(crate) fn of_network(
    experiment: &Experiment,
    network: &NetworkManifest,
    rule: &PictureRule,
    cache: &Path,
    interrupt: &Interrupt,
) -> Outcome<protocol::Frames> {
    let frames = &experiment.frames;
    let fed = match frames {
        Frames { npy: Some(npy), npy_sha256, .. } => {
            let context = || format!("failed to feed {npy} to the network {}", network.name);
            let fed = of_file(Path::new(npy), npy_sha256.as_deref(), network);
            Some(fed.with_context(context).ending(Exit::Usage)?)
        }
        Frames { folder: Some(folder), folder_sha256: Some(digest), .. } => {
            let context =
                || format!("failed to feed the pictures in {folder} to the network {}", network.name);
            let file = of_pictures(Path::new(folder), digest, network, rule, cache, interrupt);
            if interrupt.is_set() {
                return Err(Failure::new(
                    Exit::Trial,
                    "interrupted while reading pictures; nothing was measured",
                ));
            }
            let file = file.with_context(context).ending(Exit::Usage)?;
            Some(npy::frames(&file, network).with_context(context).ending(Exit::Bug)?)
        }
        Frames { .. } => None,
    };
    let (distinct, file) = fed.map_or((frames.distinct, None), |(distinct, file)| (distinct, Some(file)));
    let integers_below = network.reference.integers_below;
    Ok(protocol::Frames { seed: frames.seed, distinct, integers_below, file })
}

/// A run that is resumed has the digest of the file that it began with.
fn of_file(
    path: &Path,
    digest: Option<&str>,
    network: &NetworkManifest,
) -> Result<(u32, protocol::FrameFile)> {
    if let Some(digest) = digest
        && host::files::hash_file(path)? != digest
    {
        bail!("its content has changed since the run began; restore it, or start a new run");
    }
    npy::frames(path, network)
}

fn of_pictures(
    path: &Path,
    digest: &str,
    network: &NetworkManifest,
    rule: &PictureRule,
    cache: &Path,
    interrupt: &Interrupt,
) -> Result<PathBuf> {
    let inputs = network.boundaries.first().map(|boundary| boundary.tensors.as_slice()).unwrap_or_default();
    let [input] = inputs else {
        bail!("the network has {} inputs, and a picture is one", inputs.len());
    };
    let extents = input.shape.iter().map(|extent| extent.unsigned_abs()).collect();
    let shape = FrameShape::new(extents, &input.dtype)?;
    let folder = Folder::open(path)?;
    if !folder.others().is_empty() {
        let note = format!(
            "{}: skipping files that are not named .png, .jpg or .jpeg: {}",
            path.display(),
            progress::several(folder.others())
        );
        progress::say("warning", &note);
    }
    let count = folder.pictures().len();
    let progress = Progress::begin("pictures", count);
    let name = |picture: &Path| picture.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let step = |picture: &Path| {
        progress.doing(&name(picture));
        !interrupt.is_set()
    };
    let file = pictures::frames(&folder, digest, rule, &shape, cache, step)?;
    let plural = if count == 1 { "picture" } else { "pictures" };
    progress.end(&format!("{count} {plural} for {} in {}", network.name, file.display()));
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The manifest of a network with these inputs.
    fn network(inputs: &[(&[i64], &str)]) -> NetworkManifest {
        let tensor = |(shape, dtype): &(&[i64], &str)| serde_json::json!({ "value": "x", "shape": shape, "dtype": dtype, "bytes": 48 });
        serde_json::from_value(serde_json::json!({
            "schema": 1, "name": "tiny", "opset": 17, "notes": [], "parameters": 0, "macs": 0, "units": [],
            "reference": { "engine": "none", "integers_below": 8, "inputs": [], "outputs": [] },
            "boundaries": [{ "tensors": inputs.iter().map(tensor).collect::<Vec<_>>() }],
        }))
        .unwrap()
    }

    #[test]
    fn a_file_that_changed_since_the_run_began_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "frames").unwrap();
        let network = network(&[(&[1, 3, 2, 2], "float32")]);
        let error = |digest: &str| of_file(file.path(), Some(digest), &network).unwrap_err().to_string();
        assert!(error("of other frames").contains("has changed since the run began"));
        let digest = host::files::hash_file(file.path()).unwrap();
        assert!(error(&digest).contains("it is not a NumPy file"));
    }

    #[test]
    fn networks_without_one_picture_as_input_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.png"), "no picture").unwrap();
        let error = |inputs: &[(&[i64], &str)]| {
            let (rule, interrupt) = (PictureRule::default(), Interrupt::default());
            let made =
                of_pictures(folder.path(), "digest", &network(inputs), &rule, folder.path(), &interrupt);
            made.unwrap_err().to_string()
        };
        let picture: (&[i64], &str) = (&[1, 3, 2, 2], "float32");
        for (inputs, says) in [
            (&[picture, picture][..], "the network has 2 inputs, and a picture is one"),
            (&[(&[1, 16], "float32")], "the shape (1, 16), expected one picture"),
            (&[(&[1, 3, 2, 2], "int64")], "the type int64, expected float32 or uint8"),
            (&[picture], "a.png: its content is neither PNG nor JPEG"),
        ] {
            let error = error(inputs);
            assert!(error.contains(says), "{error}");
        }
    }
}
