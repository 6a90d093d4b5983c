//! Frames from a NumPy file: an array of frames of a network's input.

use anyhow::{Context as _, Result, bail};
use compiler::NetworkManifest;
use protocol::FrameFile;
use std::io::Read as _;
use std::path::Path;

/// Most frames, as of generated ones.
const MOST_FRAMES: u64 = 4096;
/// Longest header; those of arrays of numbers have about a hundred bytes.
const MOST_HEADER: usize = 65_536;

/// What the header of a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    /// Where the elements begin, in bytes.
    offset: u64,
    /// The type of the elements as NumPy writes it, such as `<f4`.
    descr: String,
    /// Whether the first extent changes fastest.
    fortran_order: bool,
    shape: Vec<u64>,
}

/// The number of frames in a file and how the runner reads them.
///
/// # Errors
/// If the file is not an array of frames of the network's input.
pub(crate) fn frames(path: &Path, network: &NetworkManifest) -> Result<(u32, FrameFile)> {
    let (header, bytes) = read(path)?;
    let distinct = check(&header, bytes, network)?;
    let path = path.to_str().context("its path is not UTF-8; rename the file or its folder")?;
    Ok((distinct, FrameFile { path: path.to_owned(), offset: header.offset }))
}

/// The header of a file, and the size of the file.
fn read(path: &Path) -> Result<(Header, u64)> {
    let mut file = host::files::open(path)?;
    let bytes = file.metadata()?.len();
    let mut start = Vec::new();
    file.by_ref().take(MOST_HEADER as u64).read_to_end(&mut start)?;
    let header = parse(&start).context("it is not a NumPy file: save the frames with `numpy.save`")?;
    Ok((header, bytes))
}

/// Parses the format that `numpy.lib.format` documents: a magic number, the version, the length of a literal of Python, and
/// that literal.
fn parse(start: &[u8]) -> Option<Header> {
    let rest = start.strip_prefix(b"\x93NUMPY")?;
    let (begin, length) = match rest {
        [1, _, low, high, ..] => (10_usize, usize::from(u16::from_le_bytes([*low, *high]))),
        [2 | 3, _, a, b, c, d, ..] => (12, usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).ok()?),
        _ => return None,
    };
    let text = std::str::from_utf8(start.get(begin..begin.checked_add(length)?)?).ok()?;
    let after = |key: &str| Some(text.split_once(&format!("'{key}':"))?.1.trim_start());
    let descr = after("descr")?.strip_prefix('\'')?.split_once('\'')?.0.to_owned();
    let fortran_order = after("fortran_order")?.starts_with("True");
    let shape = after("shape")?.strip_prefix('(')?.split_once(')')?.0;
    let extents = shape.split(',').map(str::trim).filter(|extent| !extent.is_empty());
    let shape = extents.map(|extent| extent.parse().ok()).collect::<Option<Vec<u64>>>()?;
    Some(Header { offset: (begin + length) as u64, descr, fortran_order, shape })
}

/// Returns the number of frames.
fn check(header: &Header, bytes: u64, network: &NetworkManifest) -> Result<u32> {
    let inputs = network.boundaries.first().map(|boundary| boundary.tensors.as_slice()).unwrap_or_default();
    let [input] = inputs else {
        bail!("the network has {} inputs, and a file of frames has one", inputs.len());
    };
    let expected = match input.dtype.as_str() {
        "float32" => "<f4",
        "float64" => "<f8",
        "uint8" => "|u1",
        "int8" => "|i1",
        "int32" => "<i4",
        "int64" => "<i8",
        other => bail!("its input has the type {other}, which edgepipe does not read from NumPy files"),
    };
    let wanted = format!("an array of {} with the shape (frames, {})", input.dtype, list(&input.shape));
    if header.descr != expected {
        bail!("its elements have the type {:?}, expected {expected:?}; save {wanted}", header.descr);
    }
    if header.fortran_order {
        bail!("it is in Fortran order; save `numpy.ascontiguousarray(frames)`");
    }
    let shape: Vec<u64> = input.shape.iter().map(|extent| extent.unsigned_abs()).collect();
    let frames = match header.shape.split_first() {
        Some((frames, rest)) if rest == shape => *frames,
        // A batch of one may be left out.
        Some((frames, rest)) if shape.first() == Some(&1) && rest == &shape[1..] => *frames,
        _ => bail!("it has the shape ({}), expected {wanted}", list(&header.shape)),
    };
    if !(1..=MOST_FRAMES).contains(&frames) {
        bail!("it has {frames} frames, expected 1 to {MOST_FRAMES}");
    }
    let expected = header.offset.checked_add(frames.saturating_mul(input.bytes));
    if expected != Some(bytes) {
        bail!("it has {bytes} bytes, and its header says {}; save it again", expected.unwrap_or(u64::MAX));
    }
    Ok(u32::try_from(frames).unwrap_or(u32::MAX))
}

fn list<T: ToString>(extents: &[T]) -> String {
    extents.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `numpy.save` writes for an array of this type and shape.
    fn saved(descr: &str, order: &str, shape: &str) -> Vec<u8> {
        let text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        let padded = (10 + text.len() + 1).div_ceil(64) * 64 - 10;
        file.extend(u16::try_from(padded).unwrap().to_le_bytes());
        file.extend(text.as_bytes());
        file.resize(10 + padded - 1, b' ');
        file.push(b'\n');
        file
    }

    #[test]
    fn headers_are_read() {
        let file = saved("<f4", "False", "(8, 3, 224, 224)");
        let header = parse(&file).unwrap();
        let expected = Header {
            offset: 128,
            descr: "<f4".to_owned(),
            fortran_order: false,
            shape: vec![8, 3, 224, 224],
        };
        assert_eq!((file.len(), header), (128, expected));
        assert_eq!(parse(&saved("|u1", "True", "(5,)")).map(|header| header.shape), Some(vec![5]));
        for wrong in [
            &b""[..],
            b"\x93NUMPY",
            b"PK\x03\x04",
            b"\x93NUMPY\x01\x00\xff\xff{",
            b"\x93NUMPY\x09\x00\x00\x00",
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
        for part in ["'descr'", "'shape'", "'fortran_order'"] {
            let text = String::from_utf8(file[8..].to_vec()).unwrap().replace(part, "'other'");
            assert_eq!(parse(&[&file[..8], text.as_bytes()].concat()), None, "{part}");
        }
    }

    #[test]
    fn arrays_that_are_no_frames_of_the_network_are_refused() {
        let network: NetworkManifest = serde_json::from_value(serde_json::json!({
            "schema": 1, "name": "tiny", "opset": 17, "notes": [], "parameters": 0, "macs": 0, "units": [],
            "reference": { "engine": "none", "integers_below": 8, "inputs": [], "outputs": [] },
            "boundaries": [{ "tensors": [{ "value": "x", "shape": [1, 3, 2, 2], "dtype": "float32", "bytes": 48 }] }],
        }))
        .unwrap();
        let check = |descr: &str, order: &str, shape: &str, elements: u64| {
            let header = parse(&saved(descr, order, shape)).unwrap();
            let bytes = header.offset + elements * 4;
            check(&header, bytes, &network).map_err(|error| error.to_string())
        };
        assert_eq!(check("<f4", "False", "(5, 3, 2, 2)", 60), Ok(5));
        assert_eq!(check("<f4", "False", "(5, 1, 3, 2, 2)", 60), Ok(5));
        for (descr, order, shape, elements, says) in [
            ("<f8", "False", "(5, 3, 2, 2)", 60, "expected \"<f4\"; save an array of float32"),
            ("<f4", "True", "(5, 3, 2, 2)", 60, "ascontiguousarray"),
            (
                "<f4",
                "False",
                "(5, 2, 2, 3)",
                60,
                "shape (5, 2, 2, 3), expected an array of float32 with the shape (frames, 1, 3, 2, 2)",
            ),
            ("<f4", "False", "()", 1, "it has the shape ()"),
            ("<f4", "False", "(0, 3, 2, 2)", 0, "it has 0 frames"),
            ("<f4", "False", "(5, 3, 2, 2)", 59, "save it again"),
        ] {
            let error = check(descr, order, shape, elements).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
