//! From pixels to the input of a network: resized, cut and normalized.

use crate::picture::{MOST_PIXELS, PictureError};
use domain::{PictureFit, PictureLayout, PictureRule};
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use thiserror::Error;

/// The input of a network cannot take pictures, or its rule does not fit it.
#[derive(Debug, Error)]
pub enum ShapeError {
    /// Another number of dimensions or channels.
    #[error(
        "the network's input has the shape ({}), expected one picture as {expected} with 1 or 3 channels; {remedy}",
        list(extents)
    )]
    NoPicture {
        /// Extents of the input.
        extents: Vec<u64>,
        /// The layout of the rule.
        expected: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// Another type.
    #[error(
        "the network's input has the type {dtype}, expected float32 or uint8; use a NumPy file (`frames.npy`)"
    )]
    Type {
        /// Type of the elements.
        dtype: String,
    },
    /// The rule.
    #[error("failed to apply `pictures` of the network's file: {0}")]
    Rule(String),
}

fn list(extents: &[u64]) -> String {
    extents.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Type of an input's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Normalized values.
    Float32,
    /// Values from 0 to 255 as they are.
    Uint8,
}

impl Element {
    /// As NumPy writes it.
    pub fn descr(self) -> &'static str {
        match self {
            Self::Float32 => "<f4",
            Self::Uint8 => "|u1",
        }
    }
}

/// The input of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameShape {
    /// Extents, with a batch of one.
    pub extents: Vec<u64>,
    /// Type of the elements.
    pub element: Element,
}

impl FrameShape {
    /// An input with elements of this type.
    ///
    /// # Errors
    /// If pictures cannot be fed as this type.
    pub fn new(extents: Vec<u64>, dtype: &str) -> Result<Self, ShapeError> {
        let element = match dtype {
            "float32" => Element::Float32,
            "uint8" => Element::Uint8,
            other => return Err(ShapeError::Type { dtype: other.to_owned() }),
        };
        Ok(Self { extents, element })
    }
}

/// Converts pictures for an input.
#[derive(Debug)]
pub(crate) struct Converter {
    rule: PictureRule,
    shape: FrameShape,
    width: u32,
    height: u32,
    /// For each channel of the input in its order: the channel of a pixel, or none for its brightness, and the values.
    channels: Vec<(Option<usize>, Vec<f32>)>,
}

impl Converter {
    pub(crate) fn new(rule: &PictureRule, shape: &FrameShape) -> Result<Self, ShapeError> {
        let (channels, height, width) = picture_shape(rule, shape)?;
        let normalization = match shape.element {
            Element::Float32 => rule.normalization(channels).map_err(ShapeError::Rule)?,
            Element::Uint8 if rule.mean.is_some() || rule.std.is_some() => {
                let text =
                    "`mean` and `std` are for inputs of float32, and this one is of uint8; remove them";
                return Err(ShapeError::Rule(text.to_owned()));
            }
            Element::Uint8 => Vec::new(),
        };
        let values = |channel: usize| -> Vec<f32> {
            let Some((mean, std)) = normalization.get(channel) else { return Vec::new() };
            #[expect(clippy::cast_possible_truncation, reason = "rounded to single precision")]
            let value = |byte: u8| ((f64::from(byte) / 255.0 - mean) / std) as f32;
            (0..=u8::MAX).map(value).collect()
        };
        let of_pixel = |channel: usize| match channels {
            1 => None,
            _ if rule.channels.is_rgb() => Some(channel),
            _ => Some(2 - channel),
        };
        let channels = (0..channels).map(|channel| (of_pixel(channel), values(channel))).collect();
        Ok(Self { rule: rule.clone(), shape: shape.clone(), width, height, channels })
    }

    pub(crate) fn shape(&self) -> &FrameShape {
        &self.shape
    }

    /// Writes the frame of a picture, in the order of the input's elements.
    pub(crate) fn convert(&self, picture: &RgbImage, frame: &mut Vec<u8>) -> Result<(), PictureError> {
        let pixels = self.fit(picture)?;
        frame.clear();
        match self.rule.layout {
            PictureLayout::Nchw => {
                for channel in &self.channels {
                    pixels.as_chunks::<3>().0.iter().for_each(|pixel| self.put(*pixel, channel, frame));
                }
            }
            PictureLayout::Nhwc => {
                for pixel in pixels.as_chunks::<3>().0 {
                    self.channels.iter().for_each(|channel| self.put(*pixel, channel, frame));
                }
            }
        }
        Ok(())
    }

    fn put(&self, pixel: [u8; 3], (channel, values): &(Option<usize>, Vec<f32>), frame: &mut Vec<u8>) {
        let byte = channel.map_or_else(|| brightness(pixel), |channel| pixel[channel]);
        match self.shape.element {
            Element::Float32 => frame.extend(values[usize::from(byte)].to_le_bytes()),
            Element::Uint8 => frame.push(byte),
        }
    }

    /// The pixels of the input's size.
    fn fit(&self, picture: &RgbImage) -> Result<Vec<u8>, PictureError> {
        let (width, height) = match self.rule.fit {
            PictureFit::Stretch => (self.width, self.height),
            PictureFit::Middle => self.resized(picture.dimensions()),
        };
        if u64::from(width) * u64::from(height) > MOST_PIXELS {
            let (width, height) = picture.dimensions();
            return Err(PictureError::TooNarrow { width, height });
        }
        let resized = resize(picture, width, height).map_err(|reason| PictureError::Resize { reason })?;
        let (left, top) = (half_even(width - self.width), half_even(height - self.height));
        let row = |y: u32| {
            let first = 3 * (y as usize * width as usize + left as usize);
            &resized[first..first + 3 * self.width as usize]
        };
        Ok((top..top + self.height).flat_map(|y| row(y).iter().copied()).collect())
    }

    /// The size of the resized picture: the smallest with its proportions that covers the input, enlarged by the border that
    /// is cut off. For a square input, the shorter side gets the length of the input's side / crop.
    fn resized(&self, (width, height): (u32, u32)) -> (u32, u32) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be from 0.1 to 1"
        )]
        let with_border =
            |side: u32| (f64::from(side) / self.rule.crop()).round().max(f64::from(side)) as u64;
        let (least_width, least_height) = (with_border(self.width), with_border(self.height));
        let (w, h) = (u64::from(width), u64::from(height));
        let (wide, high) = if w * least_height <= h * least_width {
            (least_width, least_width * h / w)
        } else {
            (least_height * w / h, least_height)
        };
        (u32::try_from(wide).unwrap_or(u32::MAX), u32::try_from(high).unwrap_or(u32::MAX))
    }
}

/// Channels, height and width of an input.
fn picture_shape(rule: &PictureRule, shape: &FrameShape) -> Result<(usize, u32, u32), ShapeError> {
    let fail = |remedy: &'static str| {
        let expected = if rule.layout.is_nchw() {
            "(1, channels, height, width)"
        } else {
            "(1, height, width, channels)"
        };
        ShapeError::NoPicture { extents: shape.extents.clone(), expected, remedy }
    };
    let npy = "use a NumPy file (`frames.npy`)";
    let [1, a, b, c] = shape.extents[..] else { return Err(fail(npy)) };
    let is_channels = |extent: u64| extent == 1 || extent == 3;
    let (channels, height, width, other) = match rule.layout {
        PictureLayout::Nchw => (a, b, c, is_channels(c)),
        PictureLayout::Nhwc => (c, a, b, is_channels(a)),
    };
    if !is_channels(channels) {
        return Err(fail(match (other, rule.layout) {
            (true, PictureLayout::Nchw) => "set `pictures: { layout: nhwc }` in the network's file",
            (true, PictureLayout::Nhwc) => "remove `layout: nhwc` from the network's file",
            (false, _) => npy,
        }));
    }
    match (u32::try_from(height), u32::try_from(width)) {
        (Ok(height @ 1..=65_535), Ok(width @ 1..=65_535)) => {
            Ok((usize::from(channels == 3) * 2 + 1, height, width))
        }
        _ => Err(fail(npy)),
    }
}

/// Bilinear, over all pixels that a result covers, as Pillow does it. For this one type of pixel: [`Resizer::resize`] is
/// compiled for all of them, which takes half a minute.
fn resize(picture: &RgbImage, width: u32, height: u32) -> Result<Vec<u8>, String> {
    let mut resized = vec![0; 3 * width as usize * height as usize];
    let source = TypedImageRef::<U8x3>::from_buffer(picture.width(), picture.height(), picture.as_raw());
    let source = source.map_err(|error| error.to_string())?;
    let mut target = TypedImage::<U8x3>::from_buffer(width, height, &mut resized);
    let target = target.as_mut().map_err(|error| error.to_string())?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize_typed(&source, target, &options).map_err(|error| error.to_string())?;
    Ok(resized)
}

/// Half of the number; of a half, the even neighbour.
fn half_even(number: u32) -> u32 {
    let half = number / 2;
    half + u32::from(number % 2 == 1 && half % 2 == 1)
}

/// The brightness of a pixel by ITU-R 601, in the integers of Pillow.
fn brightness([red, green, blue]: [u8; 3]) -> u8 {
    let sum = 19_595 * u32::from(red) + 38_470 * u32::from(green) + 7_471 * u32::from(blue) + 0x8000;
    u8::try_from(sum >> 16).unwrap_or(u8::MAX)
}
