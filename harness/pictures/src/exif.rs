//! How a camera was held, by the EXIF data of its picture (CIPA DC-008, "Exchangeable image file format").

/// Tag of the orientation.
const ORIENTATION: u16 = 0x0112;
/// Type of its value.
const SHORT: u16 = 3;
/// Bytes of an entry: tag, type, count and value.
const ENTRY: usize = 12;

/// Where the first row and the first column of the stored pixels belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Orientation {
    /// Rows are columns.
    pub(crate) is_transposed: bool,
    /// Pixels of a stored row go from right to left.
    pub(crate) mirrors_rows: bool,
    /// Stored rows go from bottom to top.
    pub(crate) mirrors_columns: bool,
}

impl Orientation {
    /// As EXIF data says; absent if it does not, or is damaged.
    pub(crate) fn of_exif(exif: &[u8]) -> Option<Self> {
        let is_little = match exif.first_chunk::<4>()? {
            b"II*\0" => true,
            b"MM\0*" => false,
            _ => return None,
        };
        let short = |at: usize| {
            let bytes = *exif.get(at..)?.first_chunk::<2>()?;
            Some(if is_little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
        };
        let long = |at: usize| {
            let bytes = *exif.get(at..)?.first_chunk::<4>()?;
            Some(if is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
        };
        let directory = usize::try_from(long(4)?).ok()?;
        let entries = usize::from(short(directory)?);
        let mut places = (0..entries).map(|entry| directory + 2 + ENTRY * entry);
        let place = places.find(|place| short(*place) == Some(ORIENTATION))?;
        if short(place + 2)? != SHORT || long(place + 4)? != 1 {
            return None;
        }
        Self::of_number(short(place + 8)?)
    }

    fn of_number(number: u16) -> Option<Self> {
        (1..=8).contains(&number).then(|| Self {
            is_transposed: number >= 5,
            mirrors_rows: [2, 3, 7, 8].contains(&number),
            mirrors_columns: [3, 4, 6, 7].contains(&number),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::Pixels;

    /// EXIF data with one other entry before the orientation.
    fn exif(is_little: bool, orientation: u16) -> Vec<u8> {
        let short = |value: u16| if is_little { value.to_le_bytes() } else { value.to_be_bytes() };
        let long = |value: u32| if is_little { value.to_le_bytes() } else { value.to_be_bytes() };
        let mut exif = if is_little { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
        exif.extend(long(8));
        exif.extend(short(2));
        for (tag, value) in [(0x0100, 7), (ORIENTATION, orientation)] {
            exif.extend([short(tag), short(SHORT)].concat());
            exif.extend(long(1));
            exif.extend([short(value), short(0)].concat());
        }
        exif
    }

    #[test]
    fn pictures_are_turned_upright() {
        // Three wide, two high: abc over def, each pixel three equal bytes.
        let stored = |rows: &[&str]| Pixels {
            width: u32::try_from(rows[0].len()).unwrap(),
            height: u32::try_from(rows.len()).unwrap(),
            rgb: rows.concat().bytes().flat_map(|byte| [byte; 3]).collect(),
        };
        let table: [(u16, &[&str]); 8] = [
            (1, &["abc", "def"]),
            (2, &["cba", "fed"]),
            (3, &["fed", "cba"]),
            (4, &["def", "abc"]),
            (5, &["ad", "be", "cf"]),
            (6, &["da", "eb", "fc"]),
            (7, &["fc", "eb", "da"]),
            (8, &["cf", "be", "ad"]),
        ];
        for (number, expected) in table {
            for is_little in [true, false] {
                let orientation = Orientation::of_exif(&exif(is_little, number)).unwrap();
                assert_eq!(stored(&["abc", "def"]).turned(orientation), stored(expected), "{number}");
            }
        }
    }

    #[test]
    fn damaged_data_has_no_orientation() {
        let whole = exif(true, 6);
        for length in 0..whole.len() - 2 {
            assert_eq!(Orientation::of_exif(&whole[..length]), None, "{length}");
        }
        for number in [0, 9, 0xffff] {
            assert_eq!(Orientation::of_exif(&exif(false, number)), None);
        }
        assert_eq!(Orientation::of_exif(b"II*\0\xff\xff\xff\xff"), None);
    }
}
