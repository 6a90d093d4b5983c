//! The header of an array of NumPy.

/// The header of a file with an array of this type and shape, in the order of C. `descr` is the type as NumPy writes it, such as
/// `<f4`.
pub fn header(descr: &str, shape: &[u64]) -> Vec<u8> {
    let extents: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let shape = extents.join(", ");
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}{comma}), }}");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    // The elements begin at a multiple of 64, and the header ends with a line feed.
    let padded = (10 + text.len() + 1).div_ceil(64) * 64 - 10;
    file.extend(u16::try_from(padded).unwrap_or(u16::MAX).to_le_bytes());
    file.extend(text.as_bytes());
    file.resize(10 + padded - 1, b' ');
    file.push(b'\n');
    file
}
