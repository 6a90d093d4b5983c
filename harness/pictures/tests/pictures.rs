//! Frames of pictures, compared with those of Pillow and NumPy (`data/make.py`), and pictures that cannot be fed.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use domain::{ChannelOrder, PictureFit, PictureLayout, PictureRule};
use pictures::{Folder, FrameShape, FramesError, frames};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn shape(extents: &[u64]) -> FrameShape {
    FrameShape::new(extents.to_vec(), "float32").unwrap()
}

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn feed(path: &Path, rule: &PictureRule, shape: &FrameShape) -> Result<Vec<u8>, FramesError> {
    let cache = tempfile::tempdir().unwrap();
    let folder = Folder::open(path)?;
    let digest = folder.digest()?;
    let file = frames(&folder, &digest, rule, shape, cache.path(), |_| true)?;
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1, "no other file is left");
    Ok(fs::read(file).unwrap())
}

fn floats(file: &[u8]) -> Vec<f32> {
    let elements = &file[128..];
    elements.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Differences from the frames of Pillow, in levels of 255: the largest and the mean.
fn differences(picture: &str, expected: &str, rule: &PictureRule, extents: &[u64], std: f64) -> (f64, f64) {
    let folder = folder(&[(picture, &fs::read(data(picture)).unwrap())]);
    let found = feed(folder.path(), rule, &shape(extents)).unwrap();
    let expected = fs::read(data(expected)).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&found[10..127]).trim_end(),
        String::from_utf8_lossy(&expected[10..127]).trim_end(),
        "type and shape"
    );
    let (found, expected) = (floats(&found), floats(&expected));
    assert_eq!(found.len(), expected.len());
    let levels: Vec<f64> =
        found.iter().zip(&expected).map(|(a, b)| f64::from(a - b).abs() * 255.0 * std).collect();
    (levels.iter().copied().fold(0.0, f64::max), levels.iter().sum::<f64>() / levels.len() as f64)
}

#[test]
fn frames_are_those_of_pillow() {
    let default = PictureRule::default();
    // Two passes round in another order, so some values are a level away.
    for picture in ["photo.png", "grey.png", "grey16.png", "alpha.png", "palette.png"] {
        let (most, mean) = differences(picture, &format!("{picture}.npy"), &default, &[1, 3, 32, 32], 0.23);
        println!("{picture}: at most {most:.2} levels, {mean:.4} on average");
        assert!(most < 1.1 && mean < 0.3, "{picture}: {most} {mean}");
    }
    // Decoders of JPEG may round differently and enlarge colours in other ways.
    for picture in ["photo.jpg", "turned.jpg", "cmyk.jpg"] {
        let (most, mean) = differences(picture, &format!("{picture}.npy"), &default, &[1, 3, 32, 32], 0.23);
        println!("{picture}: at most {most:.2} levels, {mean:.4} on average");
        assert!(most < 6.0 && mean < 0.6, "{picture}: {most} {mean}");
    }
}

#[test]
fn the_rule_of_the_network_is_applied() {
    let check = |expected: &str, rule: &PictureRule, extents: &[u64], std: f64| {
        let (most, mean) = differences("photo.png", expected, rule, extents, std);
        println!("{expected}: at most {most:.2} levels, {mean:.4} on average");
        assert!(most < 1.1 && mean < 0.3, "{expected}: {most} {mean}");
    };
    let values = |mean: &[f64], std: &[f64]| PictureRule {
        mean: Some(mean.to_vec()),
        std: Some(std.to_vec()),
        ..PictureRule::default()
    };
    let bgr = PictureRule {
        crop: Some(1.0),
        layout: PictureLayout::Nhwc,
        channels: ChannelOrder::Bgr,
        ..values(&[0.0], &[1.0])
    };
    check("nhwc-bgr.npy", &bgr, &[1, 20, 48, 3], 1.0);
    let stretched = PictureRule { fit: PictureFit::Stretch, ..PictureRule::default() };
    check("stretched.npy", &stretched, &[1, 3, 40, 24], 0.23);
    check("one-channel.npy", &values(&[0.1307], &[0.3081]), &[1, 1, 28, 28], 0.3081);
}

#[test]
fn bytes_are_fed_as_they_are() {
    let folder = folder(&[("photo.png", &fs::read(data("photo.png")).unwrap())]);
    let input = FrameShape::new(vec![1, 3, 112, 112], "uint8").unwrap();
    let found = feed(folder.path(), &PictureRule::default(), &input).unwrap();
    let expected = fs::read(data("enlarged.npy")).unwrap();
    assert_eq!((found.len(), &found[..128]), (expected.len(), &expected[..128]));
    let most = found.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(most <= Some(1), "{most:?}");
    let rule = PictureRule { mean: Some(vec![0.5]), ..PictureRule::default() };
    let error = feed(folder.path(), &rule, &input).unwrap_err().to_string();
    assert!(error.contains("this one is of uint8; remove them"), "{error}");
}

#[test]
fn pictures_are_fed_in_the_order_of_their_names_and_other_files_are_not() {
    let photo = fs::read(data("photo.png")).unwrap();
    let grey = fs::read(data("grey.png")).unwrap();
    let pictures =
        folder(&[("b.PNG", &photo), ("a.jpeg", &grey), (".hidden.png", b"x"), ("labels.txt", b"x")]);
    let open = Folder::open(pictures.path()).unwrap();
    let names: Vec<_> = open.pictures().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(
        (names, open.others()),
        (vec!["a.jpeg".into(), "b.PNG".into()], &["labels.txt".to_owned()][..])
    );
    let rule = PictureRule::default();
    let both = floats(&feed(pictures.path(), &rule, &shape(&[1, 3, 8, 8])).unwrap());
    let only = folder(&[("only.png", &grey)]);
    let first = floats(&feed(only.path(), &rule, &shape(&[1, 3, 8, 8])).unwrap());
    assert_eq!((both.len(), &both[..192]), (384, &first[..]), "the content decides about the format");
}

#[test]
fn the_digest_is_of_names_and_content_and_not_of_the_place() {
    let of = |files: &[(&str, &[u8])]| {
        let folder = folder(files);
        Folder::open(folder.path()).unwrap().digest().unwrap()
    };
    let one = of(&[("a.png", b"1"), ("b.png", b"2")]);
    assert_eq!(one, of(&[("b.png", b"2"), ("a.png", b"1"), ("notes.txt", b"")]));
    for other in [&[("a.png", &b"1"[..]), ("b.png", b"3")], &[("a.png", b"1"), ("c.png", b"2")]] {
        assert_ne!(one, of(other));
    }
}

#[test]
fn frames_are_made_once_and_pictures_that_change_meanwhile_are_told() {
    let pictures = folder(&[("a.png", &fs::read(data("photo.png")).unwrap())]);
    let cache = tempfile::tempdir().unwrap();
    let open = Folder::open(pictures.path()).unwrap();
    let digest = open.digest().unwrap();
    let (rule, input) = (PictureRule::default(), shape(&[1, 3, 8, 8]));
    let mut steps = 0;
    let mut make = |digest: &str, rule: &PictureRule| {
        frames(&open, digest, rule, &input, cache.path(), |_| {
            steps += 1;
            true
        })
    };
    let first = make(&digest, &rule).unwrap();
    assert_eq!(make(&digest, &rule).unwrap(), first);
    let bgr = PictureRule { channels: ChannelOrder::Bgr, ..rule.clone() };
    assert_ne!(make(&digest, &bgr).unwrap(), first, "another rule has other frames");
    let error = make("another digest", &rule).unwrap_err().to_string();
    assert!(error.contains("have changed since the run began"), "{error}");
    assert_eq!(steps, 3);
    let stretched = PictureRule { fit: PictureFit::Stretch, ..rule };
    let stopped = frames(&open, &digest, &stretched, &input, cache.path(), |_| false);
    assert!(matches!(stopped, Err(FramesError::Stopped)), "{stopped:?}");
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 2);
}

#[test]
fn threads_of_several_boards_make_the_same_file_at_once() {
    let photo = fs::read(data("photo.png")).unwrap();
    let names: Vec<String> = (0..40).map(|number| format!("{number:02}.png")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &photo[..])).collect();
    let (pictures, cache) = (folder(&files), tempfile::tempdir().unwrap());
    let open = Folder::open(pictures.path()).unwrap();
    let (digest, input) = (open.digest().unwrap(), shape(&[1, 3, 32, 32]));
    let make = || {
        let file = frames(&open, &digest, &PictureRule::default(), &input, cache.path(), |_| true).unwrap();
        fs::read(file).unwrap()
    };
    let contents = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let frame = 4 * 3 * 32 * 32;
    assert!(contents.iter().all(|file| file.len() == 128 + 40 * frame && *file == contents[0]));
    assert!(contents[0][128..].chunks(frame).all(|one| *one == contents[0][128..128 + frame]));
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1);
}

/// The start of a PNG file with so many pixels.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    file.extend(width.to_be_bytes());
    file.extend(height.to_be_bytes());
    file.extend([8, 2, 0, 0, 0]);
    let crc = file[12..].iter().fold(u32::MAX, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
        crc
    });
    file.extend((!crc).to_be_bytes());
    file.extend(b"\0\0\0\x02IDAT\x78\x9c");
    file
}

#[test]
fn what_is_no_picture_is_told_with_its_name() {
    let check = |name: &str, content: &[u8], says: &str| {
        let folder = folder(&[("good.png", &fs::read(data("photo.png")).unwrap()), (name, content)]);
        let error = feed(folder.path(), &PictureRule::default(), &shape(&[1, 3, 32, 32])).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(name) && error.contains(says), "{error}");
    };
    let (png, jpeg) = (fs::read(data("photo.png")).unwrap(), fs::read(data("photo.jpg")).unwrap());
    check("text.png", b"not a picture", "neither PNG nor JPEG; convert it");
    check("empty.jpg", b"", "neither PNG nor JPEG");
    check("gif.png", b"GIF89a", "neither PNG nor JPEG, but gif");
    for length in [jpeg.len() - 2, jpeg.len() / 2, 30, 3] {
        check("cut.jpg", &jpeg[..length], "damaged or incomplete");
    }
    for length in [png.len() / 2, 40, 8] {
        check("cut.png", &png[..length], "damaged or incomplete");
    }
    check("huge.png", &png_header(100_000, 100_000), "100000 × 100000 pixels, expected at most 100000000");
    check("none.png", &png_header(0, 7), "");
    let turned = fs::read(data("turned.jpg")).unwrap();
    let trailing = [&turned[..], b"bytes of another program"].concat();
    let folder = folder(&[("a.jpg", &trailing)]);
    feed(folder.path(), &PictureRule::default(), &shape(&[1, 3, 8, 8])).unwrap();
}

#[test]
fn a_picture_that_is_too_narrow_is_not_resized() {
    let file = tempfile::tempdir().unwrap();
    let narrow = image::GrayImage::new(1, 400_000);
    narrow.save(file.path().join("narrow.png")).unwrap();
    let error =
        feed(file.path(), &PictureRule::default(), &shape(&[1, 3, 224, 224])).unwrap_err().to_string();
    assert!(error.contains("1 × 400000 pixels, and resized for the network"), "{error}");
    let stretched = PictureRule { fit: PictureFit::Stretch, ..PictureRule::default() };
    feed(file.path(), &stretched, &shape(&[1, 3, 8, 8])).unwrap();
}

#[test]
fn folders_without_pictures_and_strange_names_are_refused() {
    let error = |path: &Path| Folder::open(path).unwrap_err().to_string();
    let empty = folder(&[("labels.txt", b"x")]);
    assert!(
        error(empty.path())
            .contains("expected files named .png, .jpg or .jpeg, found 1 other file or folder")
    );
    assert!(error(&empty.path().join("gone")).contains("failed to open the folder"));
    assert!(error(&empty.path().join("labels.txt")).contains("failed to open the folder"));
    let latin: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(b"stra\xdfe.png".to_vec());
    fs::write(empty.path().join(latin), b"x").unwrap();
    assert!(error(empty.path()).contains("is not UTF-8; rename the file"));
    let many = tempfile::tempdir().unwrap();
    for number in 0..=pictures::MOST_PICTURES {
        fs::write(many.path().join(format!("{number}.png")), b"").unwrap();
    }
    assert!(error(many.path()).contains("has 4097 pictures, expected at most 4096"));
    // A folder that is called like a picture, and a pipe that nobody writes to.
    let strange = folder(&[]);
    fs::create_dir(strange.path().join("a.png")).unwrap();
    let open = Folder::open(strange.path()).unwrap();
    assert!(open.digest().unwrap_err().to_string().contains("a directory"));
    fs::remove_dir(strange.path().join("a.png")).unwrap();
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, strange.path().join("b.png"), kind, mode, 0).unwrap();
    assert!(Folder::open(strange.path()).unwrap().digest().unwrap_err().to_string().contains("FIFO"));
}

#[test]
fn inputs_that_are_no_pictures_are_refused() {
    let folder = folder(&[("photo.png", &fs::read(data("photo.png")).unwrap())]);
    let error = |extents: &[u64], rule: &PictureRule| {
        feed(folder.path(), rule, &shape(extents)).unwrap_err().to_string()
    };
    let (nchw, nhwc) =
        (PictureRule::default(), PictureRule { layout: PictureLayout::Nhwc, ..PictureRule::default() });
    for (extents, rule, says) in [
        (&[1, 16][..], &nchw, "the shape (1, 16), expected one picture as (1, channels, height, width)"),
        (&[2, 3, 8, 8], &nchw, "the shape (2, 3, 8, 8)"),
        (&[1, 8, 8, 3], &nchw, "set `pictures: { layout: nhwc }`"),
        (&[1, 3, 8, 8], &nhwc, "remove `layout: nhwc`"),
        (&[1, 4, 8, 8], &nchw, "use a NumPy file"),
        (&[1, 3, 0, 8], &nchw, "use a NumPy file"),
        (&[1, 1, 8, 8], &nchw, "1 channel, for which there is no default; set `mean`"),
    ] {
        let error = error(extents, rule);
        assert!(error.contains(says), "{error}");
    }
    let error = FrameShape::new(vec![1, 3, 8, 8], "int64").unwrap_err().to_string();
    assert!(error.contains("the type int64, expected float32 or uint8"), "{error}");
}
