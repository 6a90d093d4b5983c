//! Resizes a picture exactly as Pillow does by `Image.Resampling.BILINEAR`: a triangle over all pixels that a result covers,
//! rows first, in the same integers.

use crate::pixels::Pixels;

/// Bits behind the point of a weight: 32 less those of a byte, a sign and a carry.
const FRACTION: u32 = 22;

/// Pixels that make a result along one axis.
struct Covered {
    first: usize,
    weights: Vec<i32>,
}

/// The picture with other extents.
pub(crate) fn resize(picture: &Pixels, width: u32, height: u32) -> Pixels {
    let rows = if width == picture.width { picture.clone() } else { resize_rows(picture, width) };
    if height == picture.height { rows } else { resize_columns(&rows, height) }
}

fn resize_rows(picture: &Pixels, width: u32) -> Pixels {
    let covered = coverage(picture.width, width);
    let mut rgb = Vec::with_capacity(3 * width as usize * picture.height as usize);
    for row in picture.rgb.chunks_exact(3 * picture.width as usize) {
        for Covered { first, weights } in &covered {
            let mut sums = [half(); 3];
            let pixels = row[3 * first..3 * (first + weights.len())].as_chunks::<3>().0;
            for (pixel, weight) in pixels.iter().zip(weights) {
                for (sum, byte) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*byte) * weight;
                }
            }
            rgb.extend(sums.map(byte));
        }
    }
    Pixels { width, rgb, ..*picture }
}

fn resize_columns(picture: &Pixels, height: u32) -> Pixels {
    let length = 3 * picture.width as usize;
    let mut rgb = Vec::with_capacity(length * height as usize);
    let mut sums = vec![0; length];
    for Covered { first, weights } in coverage(picture.height, height) {
        sums.fill(half());
        let rows = picture.rgb[length * first..].chunks_exact(length);
        for (row, weight) in rows.zip(weights) {
            for (sum, byte) in sums.iter_mut().zip(row) {
                *sum += i32::from(*byte) * weight;
            }
        }
        rgb.extend(sums.iter().map(|sum| byte(*sum)));
    }
    Pixels { height, rgb, ..*picture }
}

/// One half, which rounds.
const fn half() -> i32 {
    1 << (FRACTION - 1)
}

fn byte(sum: i32) -> u8 {
    u8::try_from((sum >> FRACTION).clamp(0, 255)).unwrap_or(u8::MAX)
}

/// For each result along an axis: what it covers.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "places within a picture, and weights from 0 to 1"
)]
fn coverage(from: u32, to: u32) -> Vec<Covered> {
    let scale = f64::from(from) / f64::from(to);
    // Half the width of the triangle: enlarging, that of one pixel.
    let reach = scale.max(1.0);
    let covered = |result: u32| {
        let middle = (f64::from(result) + 0.5) * scale;
        let first = (middle - reach + 0.5).max(0.0) as usize;
        let end = ((middle + reach + 0.5) as usize).min(from as usize);
        let triangle = |place: usize| {
            let distance = ((place as f64 - middle + 0.5) / reach).abs();
            (1.0 - distance).max(0.0)
        };
        let shares: Vec<f64> = (first..end).map(triangle).collect();
        let sum: f64 = shares.iter().sum();
        let weight = |share: &f64| (0.5 + share / sum * f64::from(1 << FRACTION)) as i32;
        Covered { first, weights: shares.iter().map(weight).collect() }
    };
    (0..to).map(covered).collect()
}
