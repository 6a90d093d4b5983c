//! Decodes a picture to pixels of red, green and blue.

use crate::exif::Orientation;
use crate::pixels::Pixels;
use std::io::Cursor;
use std::path::Path;
use thiserror::Error;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Largest file in bytes.
const MOST_BYTES: u64 = 256 << 20;
/// Most pixels of a picture; with 16 bits for each of four channels they take 800 MB.
pub(crate) const MOST_PIXELS: u64 = 100_000_000;
/// Most memory of a decoder in bytes.
const MOST_MEMORY: usize = 1 << 30;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG: &[u8] = b"\xff\xd8\xff";
/// Formats that are named in the message that refuses them: where their signature is, and what it is.
const OTHERS: [(usize, &[u8], &str); 8] = [
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"BM", "BMP"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (0, b"\0\0\x01\0", "ICO"),
];

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
        "it has {width} × {height} pixels, and resized for the network it would have more than {MOST_PIXELS}; cut it"
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
}

impl PictureError {
    fn damaged(reason: &(impl ToString + ?Sized)) -> Self {
        Self::Damaged { reason: reason.to_string() }
    }
}

/// Reads the file of a picture.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, PictureError> {
    Ok(host::files::read(path, MOST_BYTES)?)
}

/// Decodes a picture and turns it upright. Transparency is ignored, 16 bits become 8, and grey becomes three equal channels.
pub(crate) fn decode(content: &[u8]) -> Result<Pixels, PictureError> {
    // By the content: the name may be wrong.
    let (picture, exif) = if content.starts_with(PNG) {
        png(content)?
    } else if content.starts_with(JPEG) {
        jpeg(content)?
    } else {
        let is_at = |at: usize, signature: &[u8]| {
            content.get(at..).is_some_and(|content| content.starts_with(signature))
        };
        let found = OTHERS.iter().find(|(at, signature, _)| is_at(*at, signature));
        return Err(PictureError::Format { found: found.map(|(_, _, name)| *name) });
    };
    // Damaged EXIF data does not damage the pixels.
    Ok(match exif.and_then(|exif| Orientation::of_exif(&exif)) {
        Some(orientation) => picture.turned(orientation),
        None => picture,
    })
}

/// The picture of a PNG file, and its EXIF data.
fn png(content: &[u8]) -> Result<(Pixels, Option<Vec<u8>>), PictureError> {
    let limits = png::Limits { bytes: MOST_MEMORY };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(content), limits);
    decoder.set_transformations(png::Transformations::EXPAND);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let (width, height) = decoder.read_header_info().map_err(|error| PictureError::damaged(&error))?.size();
    check_size(width, height)?;
    let mut reader = decoder.read_info().map_err(|error| PictureError::damaged(&error))?;
    let exif = reader.info().exif_metadata.as_ref().map(|exif| exif.to_vec());
    let bytes = reader.output_buffer_size().ok_or(PictureError::TooLarge { width, height })?;
    let mut samples = vec![0; bytes];
    let frame = reader.next_frame(&mut samples).map_err(|error| PictureError::damaged(&error))?;
    if frame.bit_depth == png::BitDepth::Sixteen {
        let byte = |value: u16| (u32::from(value) + 128) / 257;
        let values = samples.as_chunks::<2>().0.iter().map(|value| byte(u16::from_be_bytes(*value)));
        samples = values.map(|value| u8::try_from(value).unwrap_or(u8::MAX)).collect();
    }
    let rgb = match frame.color_type {
        png::ColorType::Rgb => samples,
        png::ColorType::Grayscale => grey_to_rgb(&samples),
        png::ColorType::GrayscaleAlpha => {
            samples.as_chunks::<2>().0.iter().flat_map(|[grey, _]| [*grey; 3]).collect()
        }
        png::ColorType::Rgba => samples
            .as_chunks::<4>()
            .0
            .iter()
            .flat_map(|[red, green, blue, _]| [*red, *green, *blue])
            .collect(),
        png::ColorType::Indexed => return Err(PictureError::damaged("its palette is missing")),
    };
    Ok((Pixels { width, height, rgb }, exif))
}

/// The picture of a JPEG file, and its EXIF data.
fn jpeg(content: &[u8]) -> Result<(Pixels, Option<Vec<u8>>), PictureError> {
    if !jpeg_is_complete(content) {
        return Err(PictureError::damaged("it ends before its last marker"));
    }
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut headers = JpegDecoder::new_with_options(ZCursor::new(content), options);
    headers.decode_headers().map_err(jpeg_error)?;
    let info = headers.info().ok_or_else(|| PictureError::damaged("it has no header"))?;
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    check_size(width, height)?;
    let exif = headers.exif().cloned();
    let is_grey = headers.input_colorspace() == Some(ColorSpace::Luma);
    let space = if is_grey { ColorSpace::Luma } else { ColorSpace::RGB };
    let options = options.jpeg_set_out_colorspace(space);
    let decoded = JpegDecoder::new_with_options(ZCursor::new(content), options).decode();
    let decoded = decoded.map_err(jpeg_error)?;
    let rgb = if is_grey { grey_to_rgb(&decoded) } else { decoded };
    Ok((Pixels { width, height, rgb }, exif))
}

/// What the decoder says; its `Display` puts texts in quotes.
fn jpeg_error(error: DecodeErrors) -> PictureError {
    match error {
        DecodeErrors::FormatStatic(reason) => PictureError::damaged(reason),
        DecodeErrors::Format(reason) => PictureError::damaged(&reason),
        other => PictureError::damaged(&other),
    }
}

fn check_size(width: u32, height: u32) -> Result<(), PictureError> {
    if width == 0 || height == 0 {
        return Err(PictureError::damaged("it has no pixels"));
    }
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(PictureError::TooLarge { width, height });
    }
    Ok(())
}

fn grey_to_rgb(grey: &[u8]) -> Vec<u8> {
    grey.iter().flat_map(|grey| [*grey; 3]).collect()
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
