//! Pixels of red, green and blue.

use crate::exif::Orientation;

/// A decoded picture, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pixels {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Three bytes for each pixel.
    pub(crate) rgb: Vec<u8>,
}

impl Pixels {
    /// The same picture, upright.
    pub(crate) fn turned(self, orientation: Orientation) -> Self {
        let Orientation { is_transposed, mirrors_rows, mirrors_columns } = orientation;
        if !is_transposed && !mirrors_rows && !mirrors_columns {
            return self;
        }
        let (stored_width, stored_height) = (self.width as usize, self.height as usize);
        let (width, height) =
            if is_transposed { (self.height, self.width) } else { (self.width, self.height) };
        let mut rgb = Vec::with_capacity(self.rgb.len());
        for y in 0..height as usize {
            for x in 0..width as usize {
                let (column, row) = if is_transposed { (y, x) } else { (x, y) };
                let column = if mirrors_rows { stored_width - 1 - column } else { column };
                let row = if mirrors_columns { stored_height - 1 - row } else { row };
                let first = 3 * (row * stored_width + column);
                rgb.extend_from_slice(&self.rgb[first..first + 3]);
            }
        }
        Self { width, height, rgb }
    }
}
