//! Decodes a picture to pixels of red, green and blue.

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, Limits, RgbImage};
use std::io::Cursor;
use std::path::Path;
use thiserror::Error;

/// Largest file in bytes.
const MOST_BYTES: u64 = 256 << 20;
/// Most pixels of a picture; with 16 bits for each of four channels they take 800 MB.
pub(crate) const MOST_PIXELS: u64 = 100_000_000;
/// Most memory of a decoder in bytes.
const MOST_MEMORY: u64 = 1 << 30;

/// A picture cannot be fed.
#[derive(Debug, Error)]
pub enum PictureError {
    /// The file.
    #[error(transparent)]
    Unreadable(#[from] std::io::Error),
    /// Another format.
    #[error("its content is neither PNG nor JPEG{}; convert it, or remove it from the folder", found.map_or(String::new(), |found| format!(", but {found}")))]
    Format {
        /// What it is, if that is known.
        found: Option<&'static str>,
    },
    /// Too large to decode.
    #[error("it has {width} × {height} pixels, expected at most {MOST_PIXELS}; resize it")]
    TooLarge {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// Very long or very high.
    #[error(
        "it has {width} × {height} pixels, and resized for the network it would have more than {MOST_PIXELS}; crop it"
    )]
    TooNarrow {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// Damaged, or of a kind that the decoder does not know.
    #[error("{reason}; it may be damaged or incomplete: save it again, or remove it from the folder")]
    Damaged {
        /// What the decoder says.
        reason: String,
    },
    /// A bug.
    #[error("failed to resize it: {reason}")]
    Resize {
        /// What the resizer says.
        reason: String,
    },
}

/// Reads the file of a picture.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, PictureError> {
    Ok(host::files::read(path, MOST_BYTES)?)
}

/// Decodes a picture and turns it upright. Transparency is ignored, 16 bits become 8, and grey becomes three equal channels.
pub(crate) fn decode(content: &[u8]) -> Result<RgbImage, PictureError> {
    // By the content: the name may be wrong.
    let format = match image::guess_format(content) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        Ok(other) => {
            return Err(PictureError::Format { found: other.extensions_str().first().copied() });
        }
        Err(_) => return Err(PictureError::Format { found: None }),
    };
    if format == ImageFormat::Jpeg && !jpeg_is_complete(content) {
        let reason = "it ends before its last marker".to_owned();
        return Err(PictureError::Damaged { reason });
    }
    let damaged = |error: image::ImageError| PictureError::Damaged { reason: error.to_string() };
    let mut reader = ImageReader::with_format(Cursor::new(content), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(PictureError::TooLarge { width, height });
    }
    // Damaged EXIF data does not damage the pixels.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    picture.apply_orientation(orientation);
    Ok(picture.into_rgb8())
}

/// Whether a JPEG file has its end. The decoder fills what is missing with grey, which would be fed as part of the picture.
fn jpeg_is_complete(content: &[u8]) -> bool {
    /// Markers without a length: those of restarts, and one that some writers use as padding.
    const ALONE: [u8; 9] = [0x01, 0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7];
    const END: u8 = 0xd9;
    // After the marker that begins the file. In data that is no segment, 255 is followed by 0.
    let mut at = 2;
    while let (Some(first), Some(second)) = (content.get(at), content.get(at + 1)) {
        match (*first, *second) {
            (0xff, END) => return true,
            (0xff, 0x00) => at += 2,
            (0xff, alone) if ALONE.contains(&alone) => at += 2,
            (0xff, 0xff) | (0..=0xfe, _) => at += 1,
            (0xff, _) => {
                let Some(length) = content.get(at + 2..at + 4) else { return false };
                at += 2 + (usize::from(length[0]) << 8 | usize::from(length[1]));
            }
        }
    }
    false
}
