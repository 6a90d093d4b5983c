//! Series of samples as bytes. A frame's time stamp takes three to four bytes instead of ten or more digits.
//!
//! Whole numbers are LEB128: seven bits a byte, the lowest first, the high bit set on all but the last. Signed ones
//! are zigzag-coded before (0, -1, 1, -2 … become 0, 1, 2, 3 …). A series is its length, then the wrapping difference
//! of each value to the one before, signed; so every series of 64-bit numbers comes back as it was.
//!
//! It is in this crate because `domain` is optimized even in debug builds: reading a million frames spends its time here.

use std::fmt;

/// Packs values one after another.
#[derive(Debug, Default)]
pub struct Packer(Vec<u8>);

impl Packer {
    /// A whole number.
    pub fn number(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(low_byte(value) | 0x80);
            value >>= 7;
        }
        self.0.push(low_byte(value));
        self
    }

    /// How many entries follow, or another size.
    pub fn count(&mut self, count: usize) -> &mut Self {
        self.number(count as u64)
    }

    /// A series of any length.
    pub fn series<I: IntoIterator<Item = u64, IntoIter: ExactSizeIterator>>(
        &mut self,
        values: I,
    ) -> &mut Self {
        let values = values.into_iter();
        self.count(values.len());
        let mut before = 0u64;
        for value in values {
            self.number(zigzag(value.wrapping_sub(before).cast_signed()));
            before = value;
        }
        self
    }

    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// One series as bytes.
pub fn pack(values: &[u64]) -> Vec<u8> {
    let mut packer = Packer(Vec::with_capacity(4 * values.len() + 4));
    packer.series(values.iter().copied());
    packer.into_bytes()
}

/// The series that [`pack`] made bytes of.
pub fn unpack(bytes: &[u8]) -> Result<Vec<u64>, PackedError> {
    let mut unpacker = Unpacker::new(bytes);
    let values = unpacker.series()?;
    unpacker.finish()?;
    Ok(values)
}

/// Takes values out in the order in which they were packed.
#[derive(Debug)]
pub struct Unpacker<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Unpacker<'a> {
    /// Begins at the first of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// A whole number.
    ///
    /// # Errors
    /// If the bytes end, or it has more than 64 bits.
    pub fn number(&mut self) -> Result<u64, PackedError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(PackedError { at: self.at, what: "the end" })?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            self.at += 1;
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(PackedError { at: self.at, what: "a number of more than 64 bits" })
    }

    /// A whole number below 2^32.
    pub fn small_number(&mut self) -> Result<u32, PackedError> {
        let number = self.number()?;
        u32::try_from(number).map_err(|_| self.error("a number of more than 32 bits"))
    }

    /// Something is wrong before this place.
    pub fn error(&self, what: &'static str) -> PackedError {
        PackedError { at: self.at, what }
    }

    /// How many entries follow. Each takes a byte or more, so no count can ask for more memory than the blob has.
    pub fn count(&mut self) -> Result<usize, PackedError> {
        let at = self.at;
        let count = self.number()?;
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= self.bytes.len() - self.at)
            .ok_or(PackedError { at, what: "a count of more entries than there are bytes" })
    }

    /// A series.
    pub fn series(&mut self) -> Result<Vec<u64>, PackedError> {
        let count = self.count()?;
        let mut values = Vec::with_capacity(count);
        let mut before = 0u64;
        for _ in 0..count {
            before = before.wrapping_add(unzigzag(self.number()?).cast_unsigned());
            values.push(before);
        }
        Ok(values)
    }

    /// Checks that no bytes are left.
    pub fn finish(self) -> Result<(), PackedError> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(PackedError { at: self.at, what: "bytes after the last value" })
        }
    }
}

/// 0, -1, 1, -2, 2 … as 0, 1, 2, 3, 4 …
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Undoes [`zigzag`].
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

/// Why bytes are not packed values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedError {
    at: usize,
    what: &'static str,
}

impl fmt::Display for PackedError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "failed to unpack samples: {} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for PackedError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_series_comes_back(values in prop::collection::vec(any::<u64>(), 0..200)) {
            prop_assert_eq!(unpack(&pack(&values)).unwrap(), values);
        }

        #[test]
        fn any_signed_number_comes_back(value in any::<i64>()) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }

        #[test]
        fn any_bytes_are_a_series_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(values) = unpack(&bytes) {
                // There is one way to write a series but for needless zeros at the end of a number.
                prop_assert!(pack(&values).len() <= bytes.len());
            }
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let check = |values: &[u64], bytes: &[u8]| {
            assert_eq!(pack(values), bytes, "{values:?}");
            assert_eq!(unpack(bytes).unwrap(), values, "{bytes:?}");
        };
        check(&[], &[0]);
        check(&[0], &[1, 0]);
        check(&[5, 4, 4, 70], &[4, 10, 1, 0, 0x84, 0x01]);
        check(&[u64::MAX], &[1, 1]);
        check(&[1 << 63], &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    }

    #[test]
    fn time_stamps_ten_milliseconds_apart_take_four_bytes() {
        let stamps: Vec<u64> = (1..=1000).map(|frame| frame * 10_000_000 + frame * frame % 100_000).collect();
        assert_eq!(pack(&stamps).len(), 2 + 4 * 1000);
    }

    #[test]
    fn what_is_no_series() {
        let check = |bytes: &[u8], wanted: &str| {
            assert_eq!(
                unpack(bytes).unwrap_err().to_string(),
                format!("failed to unpack samples: {wanted}"),
                "{bytes:?}"
            );
        };
        check(&[], "the end at byte 0");
        check(&[1, 0x80], "the end at byte 2");
        check(&[2, 0], "a count of more entries than there are bytes at byte 0");
        check(&[0xff, 0xff, 0xff, 0xff, 0x0f], "a count of more entries than there are bytes at byte 0");
        check(&[1, 0, 0], "bytes after the last value at byte 2");
        let eleven = [&[1][..], &[0xff; 10], &[0]].concat();
        check(&eleven, "a number of more than 64 bits at byte 10");
    }
}
