//! Pictures (PNG, JPEG) as input frames of a network: decoded, turned as their EXIF data asks, resized, cut and normalized by
//! the rule of the network. The frames are written as an array of NumPy, so a user can look at what was fed.
//!
//! - Nothing is fed that was not asked for: a file that cannot be decoded is an error, never a frame that is left out.
//! - Sizes are checked before pixels are decoded.

mod folder;
mod frame;
mod npy;
mod picture;

pub use folder::{Folder, FolderError, MOST_PICTURES};
pub use frame::{Element, FrameShape, ShapeError};
pub use npy::header as npy_header;
pub use picture::PictureError;

use domain::PictureRule;
use frame::Converter;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;

/// Why pictures could not be converted to frames.
#[derive(Debug, Error)]
pub enum FramesError {
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The input of the network or its rule.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A picture.
    #[error("failed to read the picture {}: {error}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// Why.
        error: PictureError,
    },
    /// Somebody changes the pictures.
    #[error(
        "the pictures in {} have changed since the run began; restore them, or start a new run", path.display()
    )]
    Changed {
        /// The folder.
        path: PathBuf,
    },
    /// `step` stopped the conversion.
    #[error("stopped before all pictures were read")]
    Stopped,
    /// The frames cannot be kept.
    #[error("failed to write {}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// Number of the next unfinished file.
static FRESH: AtomicU64 = AtomicU64::new(0);

/// Version of the conversion: it changes if the same pictures become other frames.
const CONVERSION: u32 = 1;

/// The file in `cache` with the frames of all pictures in a folder, in the order of their names: an array of NumPy with the
/// shape (pictures, input of the network without its batch). It is made unless it is there. `digest` is that of [`Folder::digest`]. `step` is
/// called before each picture and returns whether to go on.
///
/// # Errors
/// If a picture cannot be read, or the network's input is not a picture.
pub fn frames(
    folder: &Folder,
    digest: &str,
    rule: &PictureRule,
    shape: &FrameShape,
    cache: &Path,
    mut step: impl FnMut(&Path) -> bool,
) -> Result<PathBuf, FramesError> {
    let converter = Converter::new(rule, shape)?;
    let key = Sha256::digest(format!("{CONVERSION} {digest} {rule:?} {shape:?}"));
    let name: String = format!("{key:x}").chars().take(24).collect();
    let path = cache.join(format!("{name}.npy"));
    if path.is_file() {
        return Ok(path);
    }
    let fail = |error: std::io::Error| FramesError::Write { path: path.clone(), error };
    std::fs::create_dir_all(cache).map_err(fail)?;
    // Another process, or the thread of another board, may make the same file.
    let number = FRESH.fetch_add(1, Ordering::Relaxed);
    let fresh = cache.join(format!("{name}.{}-{number}.new", std::process::id()));
    let written = write(folder, digest, &converter, &fresh, &mut step);
    let kept = written.and_then(|()| std::fs::rename(&fresh, &path).map_err(fail));
    if kept.is_err() {
        // The reason is known already.
        drop(std::fs::remove_file(&fresh));
    }
    kept.map(|()| path)
}

fn write(
    folder: &Folder,
    digest: &str,
    converter: &Converter,
    path: &Path,
    step: &mut impl FnMut(&Path) -> bool,
) -> Result<(), FramesError> {
    let fail = |error: std::io::Error| FramesError::Write { path: path.to_path_buf(), error };
    let mut file = BufWriter::new(File::create(path).map_err(fail)?);
    let shape = converter.shape();
    let extents: Vec<u64> = std::iter::once(folder.pictures().len() as u64)
        .chain(shape.extents.iter().skip(1).copied())
        .collect();
    file.write_all(&npy_header(shape.element.descr(), &extents)).map_err(fail)?;
    let mut whole = folder::Digest::default();
    let mut frame = Vec::new();
    for picture in folder.pictures() {
        if !step(picture) {
            return Err(FramesError::Stopped);
        }
        let failed = |error: PictureError| FramesError::Picture { path: picture.clone(), error };
        let content = picture::read(picture).map_err(failed)?;
        whole.add(picture, &content);
        let pixels = picture::decode(&content).map_err(failed)?;
        converter.convert(&pixels, &mut frame).map_err(failed)?;
        file.write_all(&frame).map_err(fail)?;
    }
    if whole.finish() != digest {
        return Err(FramesError::Changed { path: folder.path().to_path_buf() });
    }
    file.into_inner().map_err(|error| fail(error.into_error()))?.sync_all().map_err(fail)
}
