//! How pictures become input frames of a network.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How pictures become input frames of a network. Default: as torchvision prepares pictures of ImageNet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PictureRule {
    /// Which part of a picture is fed. Default: `middle`.
    #[serde(skip_serializing_if = "PictureFit::is_middle")]
    pub fit: PictureFit,
    /// With `fit: middle`: the share of the resized picture's shorter side that is fed. Default: 0.875, which is 224 of 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.1, max = 1.0))]
    pub crop: Option<f64>,
    /// Subtracted from each value, which is from 0 to 1: one number for each channel in the network's order, or one for all.
    /// Default: 0.485, 0.456 and 0.406 for red, green and blue.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3))]
    pub mean: Option<Vec<f64>>,
    /// Divides each difference: one number for each channel, or one for all. Default: 0.229, 0.224 and 0.225 for red, green and blue.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3))]
    pub std: Option<Vec<f64>>,
    /// Order of the dimensions of the network's input: `nchw` or `nhwc`. Default: `nchw`.
    #[serde(skip_serializing_if = "PictureLayout::is_nchw")]
    pub layout: PictureLayout,
    /// Order of the channels: `rgb` or `bgr`. Default: `rgb`.
    #[serde(skip_serializing_if = "ChannelOrder::is_rgb")]
    pub channels: ChannelOrder,
}

/// The share of a picture's shorter side that is fed by default.
const CROP: f64 = 0.875;
/// Mean and standard deviation of the values of red, green and blue in ImageNet, from 0 to 1.
const IMAGENET: [(f64, f64); 3] = [(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)];

impl PictureRule {
    /// Whether all settings have their defaults.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The share of the resized picture's shorter side that is fed.
    pub fn crop(&self) -> f64 {
        self.crop.unwrap_or(CROP)
    }

    /// Mean and standard deviation of each of this many channels, in the network's order.
    ///
    /// # Errors
    /// If their number does not fit, or a deviation is not above 0; the message completes "failed to …: ".
    pub fn normalization(&self, channels: usize) -> Result<Vec<(f64, f64)>, String> {
        let of = |name: &str, given: &Option<Vec<f64>>, default: fn(&(f64, f64)) -> f64| match given
            .as_deref()
        {
            Some([one]) => Ok(vec![*one; channels]),
            Some(several) if several.len() == channels => Ok(several.to_vec()),
            Some(several) => Err(format!(
                "`{name}` has {} numbers, and the network's input has {channels} channels",
                several.len()
            )),
            None if channels == IMAGENET.len() => {
                let mut values: Vec<f64> = IMAGENET.iter().map(default).collect();
                if !self.channels.is_rgb() {
                    values.reverse();
                }
                Ok(values)
            }
            None => Err(format!(
                "the network's input has {channels} channel{}, for which there is no default; set `{name}`",
                if channels == 1 { "" } else { "s" }
            )),
        };
        let mean = of("mean", &self.mean, |known| known.0)?;
        let std = of("std", &self.std, |known| known.1)?;
        if let Some(wrong) = std.iter().find(|value| !(value.is_finite() && **value > 0.0)) {
            return Err(format!("`std` has {wrong}, expected numbers above 0"));
        }
        Ok(mean.into_iter().zip(std).collect())
    }
}

/// Which part of a picture is fed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PictureFit {
    /// The picture is resized with its proportions and cropped to its centre.
    #[default]
    Middle,
    /// The whole picture is resized to the size of the input, whatever its proportions.
    Stretch,
}

impl PictureFit {
    /// Whether it is the default.
    pub fn is_middle(&self) -> bool {
        *self == Self::Middle
    }
}

/// Order of the dimensions of an input: N for the batch, C for channels, H and W for height and width.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PictureLayout {
    /// All values of a channel, then those of the next.
    #[default]
    Nchw,
    /// All channels of a pixel, then those of the next.
    Nhwc,
}

impl PictureLayout {
    /// Whether it is the default.
    pub fn is_nchw(&self) -> bool {
        *self == Self::Nchw
    }
}

/// Order of the channels of an input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelOrder {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
}

impl ChannelOrder {
    /// Whether it is the default.
    pub fn is_rgb(&self) -> bool {
        *self == Self::Rgb
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_channels_in_the_networks_order() {
        let read = |text: &str| -> PictureRule { serde_json::from_str(text).unwrap() };
        let default = read("{}");
        assert!(default.is_default());
        assert_eq!(default.normalization(3).unwrap()[0], (0.485, 0.229));
        let bgr = read(r#"{"channels":"bgr"}"#);
        assert_eq!(bgr.normalization(3).unwrap()[0], (0.406, 0.225));
        let own = read(r#"{"mean":[0],"std":[0.1,0.2,0.3]}"#);
        assert_eq!(own.normalization(3).unwrap(), [(0.0, 0.1), (0.0, 0.2), (0.0, 0.3)]);
        assert_eq!(read(r#"{"mean":[0.5],"std":[0.5]}"#).normalization(1).unwrap(), [(0.5, 0.5)]);
        for (rule, channels, says) in [
            (own.clone(), 1, "`std` has 3 numbers, and the network's input has 1 channels"),
            (default, 1, "has 1 channel, for which there is no default; set `mean`"),
            (PictureRule { std: Some(vec![0.0]), ..own }, 3, "`std` has 0, expected numbers above 0"),
        ] {
            let error = rule.normalization(channels).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
