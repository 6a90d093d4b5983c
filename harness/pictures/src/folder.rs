//! A folder of pictures: which files are fed, in which order, and the digest of their content.

use crate::picture::{self, PictureError};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Most pictures, as many as there are frames of other kinds.
pub const MOST_PICTURES: usize = 4096;

/// A folder cannot be fed.
#[derive(Debug, Error)]
pub enum FolderError {
    /// The folder.
    #[error("failed to open the folder {}: {error}", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Nothing to feed.
    #[error(
        "no pictures in {}: expected files named .png, .jpg or .jpeg{}; subfolders are not searched",
        path.display(),
        match *others { 0 => String::new(), 1 => ", found 1 other file or folder".to_owned(), _ => format!(", found {others} other files or folders") }
    )]
    Empty {
        /// The folder.
        path: PathBuf,
        /// Other files.
        others: usize,
    },
    /// Too many.
    #[error("{} has {found} pictures, expected at most {MOST_PICTURES}, because all frames are kept in memory on the board", path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// Pictures.
        found: usize,
    },
    /// Names are written to the results as text.
    #[error("the name {} is not UTF-8; rename the file", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// A picture.
    #[error("failed to read the picture {}: {error}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// Why.
        error: PictureError,
    },
}

/// The pictures of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
    pictures: Vec<PathBuf>,
    others: Vec<String>,
}

impl Folder {
    /// Lists the pictures of a folder: files named .png, .jpg or .jpeg, without those that are hidden, in the order of the
    /// bytes of their names.
    ///
    /// # Errors
    /// If the folder cannot be read, has no pictures or too many, or a name is not UTF-8.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let fail = |error| FolderError::Unreadable { path: path.to_path_buf(), error };
        let (mut pictures, mut others) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(path).map_err(fail)? {
            let entry = entry.map_err(fail)?.path();
            let name = entry.file_name().unwrap_or_default();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if !is_picture(&entry) {
                others.push(name.to_string_lossy().into_owned());
            } else if name.to_str().is_none() {
                return Err(FolderError::NotUtf8 { path: entry });
            } else {
                pictures.push(entry);
            }
        }
        pictures.sort();
        others.sort();
        match pictures.len() {
            0 => Err(FolderError::Empty { path: path.to_path_buf(), others: others.len() }),
            found if found > MOST_PICTURES => Err(FolderError::TooMany { path: path.to_path_buf(), found }),
            _ => Ok(Self { path: path.to_path_buf(), pictures, others }),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pictures in the order in which they are fed.
    pub fn pictures(&self) -> &[PathBuf] {
        &self.pictures
    }

    /// Names of the other files and folders, which are not fed.
    pub fn others(&self) -> &[String] {
        &self.others
    }

    /// SHA-256 of the names and contents of all pictures, in hexadecimal. It does not depend on where the folder is.
    ///
    /// # Errors
    /// If a picture cannot be read.
    pub fn digest(&self) -> Result<String, FolderError> {
        let mut whole = Digest::default();
        for path in &self.pictures {
            let content =
                picture::read(path).map_err(|error| FolderError::Picture { path: path.clone(), error })?;
            whole.add(path, &content);
        }
        Ok(whole.finish())
    }
}

/// The digest of a folder, picture by picture.
#[derive(Debug, Default)]
pub(crate) struct Digest {
    whole: Sha256,
}

impl Digest {
    pub(crate) fn add(&mut self, path: &Path, content: &[u8]) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // No name contains a slash, so the text can be read in one way only.
        self.whole.update(format!("{name}/{:x}\n", Sha256::digest(content)));
    }

    pub(crate) fn finish(self) -> String {
        format!("{:x}", self.whole.finalize())
    }
}

fn is_picture(path: &Path) -> bool {
    let Some(extension) = path.extension() else { return false };
    ["png", "jpg", "jpeg"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}
