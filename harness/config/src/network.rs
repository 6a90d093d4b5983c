//! Where networks come from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::faults::{Faults, Spot};
use super::files::{self, Kind};
use super::ordered::Ordered;
use super::raw;
use super::schema::SCHEMAS;
use super::{check, typed};

/// One name a line; the compiler's zoo is tested against the same file.
const ZOO: &str = include_str!("../../../configs/zoo.txt");

/// Where a network comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkSource {
    /// The compiler's zoo builds it.
    Zoo {
        /// Its name in the zoo.
        name: String,
    },
    /// An ONNX file.
    Onnx {
        /// What the experiment calls it.
        name: String,
        /// The file; absolute where the configuration's root is.
        path: PathBuf,
        /// Shapes of inputs that the file leaves open.
        shapes: BTreeMap<String, Vec<u64>>,
        /// Its sum, checked when the configuration was read.
        sha256: Option<String>,
        /// Where it can be had.
        url: Option<String>,
    },
}

impl NetworkSource {
    /// What the experiment calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Zoo { name } | Self::Onnx { name, .. } => name,
        }
    }
}

/// Names of the zoo's networks.
pub fn zoo() -> impl Iterator<Item = &'static str> + Clone {
    ZOO.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Finds the network `name`, which was asked for at `asked`.
pub(super) fn find(root: &Path, name: &str, asked: &Spot, faults: &mut Faults) -> Option<NetworkSource> {
    let file = format!("{}/{name}.yaml", Kind::Network.folder());
    let own = root.join(&file).exists();
    if zoo().any(|known| known == name) {
        if own {
            let message = format!("{name:?} is a network of the zoo; choose another name for your own");
            faults.add(&Spot::whole(file), message);
        }
        return Some(NetworkSource::Zoo { name: name.to_owned() });
    }
    if !own {
        files::unknown(root, Kind::Network, name, &zoo().collect::<Vec<_>>(), asked, faults);
        return None;
    }
    let before = faults.len();
    let tree = files::read(root, Kind::Network, name, asked, faults)?;
    let sound = check::check(&tree, &SCHEMAS.network, faults)?;
    let read = typed::read::<raw::Network>(&sound);
    if let (Err(error), true) = (&read, faults.len() == before) {
        faults.add(&tree.at, error.to_string());
    }
    let network = read.ok()?;
    let folder = root.join(Kind::Network.folder());
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    let path = folder.join(&network.onnx.0);
    check_file(&path, &network, &sound, faults);
    Some(resolve(network, path))
}

/// The network of a raw one whose file is `path`.
pub(super) fn resolve(network: raw::Network, path: PathBuf) -> NetworkSource {
    NetworkSource::Onnx {
        name: network.name.0,
        path,
        shapes: network
            .shapes
            .0
            .into_iter()
            .map(|(input, shape)| (input, shape.into_iter().map(|extent| extent.0).collect()))
            .collect(),
        sha256: network.sha256.map(|sum| sum.0),
        url: network.url.map(|url| url.0),
    }
}

fn check_file(path: &Path, network: &raw::Network, tree: &super::tree::Node, faults: &mut Faults) {
    let at = tree.spot("onnx");
    let found = match (path.is_dir(), &network.sha256) {
        (true, _) => Err(io::Error::other("it is a folder; expected an .onnx file")),
        (false, None) => File::open(path).map(|_| None),
        (false, Some(_)) => sum(path).map(Some),
    };
    match (found, &network.sha256) {
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => {
            let remedy = network.url.as_ref().map_or_else(
                || "the path is relative to this file's folder".to_owned(),
                |url| format!("fetch it from {} by hand, the program does not download yet", url.0),
            );
            faults.add(&at, format!("there is no file {}; {remedy}", path.display()));
        }
        (Err(error), _) => faults.add(&at, format!("{}: {error}", path.display())),
        (Ok(Some(found)), Some(expected)) if found != expected.0 => {
            let message = format!("expected {}, found {found} for {}", expected.0, path.display());
            faults.add(&tree.spot("sha256"), message);
        }
        (Ok(_), _) => {}
    }
}

fn sum(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut sum = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => sum.update(&piece[..read]),
        }
    }
    Ok(format!("{:x}", sum.finalize()))
}

impl NetworkSource {
    /// As the database keeps it; networks of the zoo need no more than their name.
    pub(super) fn to_raw(&self) -> Option<raw::Network> {
        match self {
            Self::Zoo { .. } => None,
            Self::Onnx { name, path, shapes, sha256, url } => Some(raw::Network {
                name: raw::Name(name.clone()),
                shapes: Ordered(
                    shapes
                        .iter()
                        .map(|(input, shape)| {
                            (input.clone(), shape.iter().copied().map(raw::Extent).collect())
                        })
                        .collect(),
                ),
                onnx: raw::Text(path.to_string_lossy().into_owned()),
                sha256: sha256.clone().map(raw::Sha256),
                url: url.clone().map(raw::Url),
            }),
        }
    }
}
