//! The networks of an experiment: from the zoo, or from ONNX files, in single or half precision, with or without Winograd's algorithm.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use domain::{FloatFormat, PictureRule, Winograd};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::faults::{Faults, Spot, did_you_mean};
use super::files::{self, Kind};
use super::ordered::Ordered;
use super::schema;
use super::values::{Extent, Name, Sha256, Text, Url};
use super::{check, tree, typed};

/// One name a line; the compiler's zoo is tested against the same file.
const ZOO: &str = include_str!("../../../configs/zoo.txt");

/// The source of a network.
#[derive(Debug, Clone, PartialEq)]
pub enum NetworkSource {
    /// Built by the compiler's zoo.
    Zoo {
        /// Its name in experiments; that in the zoo unless a file gives it another.
        name: String,
        /// Its name in the zoo.
        zoo: String,
        /// What a GPU computes it in.
        precision: FloatFormat,
        /// Whether kernels may use Winograd's algorithm.
        winograd: Winograd,
        /// How pictures become input frames.
        pictures: PictureRule,
    },
    /// An ONNX file.
    Onnx {
        /// Its name in experiments.
        name: String,
        /// The file; absolute if the configuration's root is.
        path: PathBuf,
        /// Shapes of inputs that are dynamic in the file.
        shapes: BTreeMap<String, Vec<u64>>,
        /// Its digest, checked when the configuration is read.
        sha256: Option<String>,
        /// Download address.
        url: Option<String>,
        /// What a GPU computes it in.
        precision: FloatFormat,
        /// Whether kernels may use Winograd's algorithm.
        winograd: Winograd,
        /// How pictures become input frames.
        pictures: PictureRule,
    },
}

/// A network from an ONNX file, or one of the zoo with other settings: `onnx` or `zoo` is required.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Network")]
pub(super) struct NetworkFile {
    /// Name of the network in experiments; must equal the file name and must not be in the zoo.
    #[serde(rename = "network")]
    #[schemars(with = "Name")]
    name: String,
    /// The .onnx file, relative to the directory of this file or absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>")]
    onnx: Option<String>,
    /// A network of the zoo (configs/zoo.txt).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Name>")]
    zoo: Option<String>,
    /// What a GPU computes the network in: `fp32`, or half precision, `fp16`. CPUs always use fp32. Default: `fp32`.
    #[serde(default, skip_serializing_if = "FloatFormat::is_single")]
    precision: FloatFormat,
    /// Whether convolutions may use Winograd's algorithm: `auto`, if a model predicts that it is faster, or `off`.
    /// Default: `auto`.
    #[serde(default, skip_serializing_if = "Winograd::is_auto")]
    winograd: Winograd,
    /// How pictures become input frames, if `frames: { folder: … }` feeds them. Default: as torchvision prepares pictures of
    /// ImageNet.
    #[serde(default, skip_serializing_if = "PictureRule::is_default")]
    pictures: PictureRule,
    /// Shapes of inputs that are dynamic in the file, by input name. Default: a batch (first dimension) of 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "Ordered<Vec<Extent>>")]
    shapes: BTreeMap<String, Vec<u64>>,
    /// SHA-256 digest of the .onnx file. If present, the file is checked against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Sha256>")]
    sha256: Option<String>,
    /// Download address. The file is not downloaded automatically; the address appears in the message if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Url>")]
    url: Option<String>,
}

/// The schema of a network's file.
pub(super) static SCHEMA: LazyLock<serde_json::Value> = LazyLock::new(schema::of::<NetworkFile>);

impl NetworkSource {
    /// Its name in experiments.
    pub fn name(&self) -> &str {
        match self {
            Self::Zoo { name, .. } | Self::Onnx { name, .. } => name,
        }
    }

    /// What a GPU computes it in.
    pub fn precision(&self) -> FloatFormat {
        match self {
            Self::Zoo { precision, .. } | Self::Onnx { precision, .. } => *precision,
        }
    }

    /// Whether its kernels may use Winograd's algorithm.
    pub fn winograd(&self) -> Winograd {
        match self {
            Self::Zoo { winograd, .. } | Self::Onnx { winograd, .. } => *winograd,
        }
    }

    /// How pictures become input frames.
    pub fn pictures(&self) -> &PictureRule {
        match self {
            Self::Zoo { pictures, .. } | Self::Onnx { pictures, .. } => pictures,
        }
    }

    /// A network of the zoo as it is.
    pub(super) fn of_zoo(name: &str) -> Self {
        Self::Zoo {
            name: name.to_owned(),
            zoo: name.to_owned(),
            precision: FloatFormat::Fp32,
            winograd: Winograd::Auto,
            pictures: PictureRule::default(),
        }
    }

    /// The file of a network that has one, with the absolute path of its ONNX file.
    pub(super) fn to_file(&self) -> Option<NetworkFile> {
        match self {
            Self::Zoo { name, zoo, .. } if name == zoo => None,
            Self::Zoo { name, zoo, precision, winograd, pictures } => Some(NetworkFile {
                name: name.clone(),
                onnx: None,
                zoo: Some(zoo.clone()),
                precision: *precision,
                winograd: *winograd,
                pictures: pictures.clone(),
                shapes: BTreeMap::new(),
                sha256: None,
                url: None,
            }),
            Self::Onnx { name, path, shapes, sha256, url, precision, winograd, pictures } => {
                Some(NetworkFile {
                    name: name.clone(),
                    onnx: Some(path.to_string_lossy().into_owned()),
                    zoo: None,
                    precision: *precision,
                    winograd: *winograd,
                    pictures: pictures.clone(),
                    shapes: shapes.clone(),
                    sha256: sha256.clone(),
                    url: url.clone(),
                })
            }
        }
    }
}

impl NetworkFile {
    /// The source, for an .onnx file relative to `folder`; none without `onnx` and `zoo`.
    pub(super) fn source(self, folder: &Path) -> Option<NetworkSource> {
        let Self { name, onnx, zoo, precision, winograd, pictures, shapes, sha256, url } = self;
        match (onnx, zoo) {
            (Some(onnx), _) => {
                let path = folder.join(onnx);
                Some(NetworkSource::Onnx { name, path, shapes, sha256, url, precision, winograd, pictures })
            }
            (None, Some(zoo)) => Some(NetworkSource::Zoo { name, zoo, precision, winograd, pictures }),
            (None, None) => None,
        }
    }
}

/// Networks written as names. All that are read are of the zoo until [`find`] has looked for them.
pub(super) mod by_name {
    use super::NetworkSource;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        networks: &[NetworkSource],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(networks.iter().map(NetworkSource::name))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<NetworkSource>, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        Ok(names.iter().map(|name| NetworkSource::of_zoo(name)).collect())
    }
}

/// Names of the zoo's networks.
pub fn zoo() -> impl Iterator<Item = &'static str> + Clone {
    ZOO.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Finds the network `name`, which was requested at `requested`.
pub(super) fn find(root: &Path, name: &str, requested: &Spot, faults: &mut Faults) -> Option<NetworkSource> {
    let file = format!("{}/{name}.yaml", Kind::Network.folder());
    let own = root.join(&file).exists();
    if zoo().any(|known| known == name) {
        if own {
            let message = format!("the zoo already has a network {name:?}; choose another name");
            faults.add(&Spot::whole(file), message);
        }
        return Some(NetworkSource::of_zoo(name));
    }
    if !own {
        files::unknown(root, Kind::Network, name, &zoo().collect::<Vec<_>>(), requested, faults);
        return None;
    }
    let tree = files::read(root, Kind::Network, name, requested, faults)?;
    let valid = check::check(&tree, &SCHEMA, faults)?;
    let network: NetworkFile = typed::read_checked(&valid, faults)?;
    let folder = root.join(Kind::Network.folder());
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    match (&network.onnx, &network.zoo) {
        (Some(onnx), None) => check_file(&folder.join(onnx), &network, &valid, faults),
        (None, Some(zoo)) => check_zoo(zoo, &valid, faults),
        (Some(_), Some(_)) => {
            faults.add(&valid.spot("zoo"), "`zoo` cannot be combined with `onnx`; remove one");
        }
        (None, None) => {
            faults
                .add(&valid.at, "`onnx` or `zoo` is missing: an .onnx file, or a name from configs/zoo.txt");
        }
    }
    network.source(&folder)
}

fn check_zoo(name: &str, tree: &tree::Node, faults: &mut Faults) {
    if !zoo().any(|known| known == name) {
        let nearest = did_you_mean(name, zoo());
        faults.add(&tree.spot("zoo"), format!("configs/zoo.txt has no network {name:?}{nearest}"));
    }
    for key in ["shapes", "sha256", "url"] {
        if tree.get(key).is_some() {
            faults.add(
                &tree.spot(key),
                format!("`{key}` applies only to ONNX files, not to networks of the zoo; remove it"),
            );
        }
    }
}

fn check_file(path: &Path, network: &NetworkFile, tree: &tree::Node, faults: &mut Faults) {
    let at = tree.spot("onnx");
    let fault = if path.is_dir() {
        format!("{} is a directory; expected an .onnx file", path.display())
    } else {
        match File::open(path) {
            Ok(_) => return check_digest(path, network, tree, faults),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let remedy = network.url.as_ref().map_or_else(
                    || "the path is relative to the directory of this file".to_owned(),
                    |url| format!("download it from {url}"),
                );
                format!("file not found: {}; {remedy}", path.display())
            }
            Err(error) => format!("{}: {error}", path.display()),
        }
    };
    faults.add(&at, fault);
}

fn check_digest(path: &Path, network: &NetworkFile, tree: &tree::Node, faults: &mut Faults) {
    let Some(expected) = &network.sha256 else { return };
    match host::files::hash_file(path) {
        Err(error) => faults.add(&tree.spot("onnx"), format!("{error:#}")),
        Ok(found) if found != *expected => {
            let message = format!("{} has the SHA-256 digest {found}, expected {expected}", path.display());
            faults.add(&tree.spot("sha256"), message);
        }
        Ok(_) => {}
    }
}
