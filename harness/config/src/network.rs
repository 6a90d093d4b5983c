//! The networks of an experiment: from the zoo, or from ONNX files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::faults::{Faults, Spot};
use super::files::{self, Kind};
use super::ordered::Ordered;
use super::schema;
use super::values::{Extent, Name, Sha256, Text, Url};
use super::{check, tree, typed};

/// One name a line; the compiler's zoo is tested against the same file.
const ZOO: &str = include_str!("../../../configs/zoo.txt");

/// The source of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkSource {
    /// Built by the compiler's zoo.
    Zoo {
        /// Its name in the zoo.
        name: String,
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
    },
}

/// A network from an ONNX file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Network")]
pub(super) struct NetworkFile {
    /// Name of the network in experiments; must equal the file name and must not be in the zoo.
    #[serde(rename = "network")]
    #[schemars(with = "Name")]
    name: String,
    /// The .onnx file, relative to the directory of this file or absolute.
    #[schemars(with = "Text")]
    onnx: String,
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
            Self::Zoo { name } | Self::Onnx { name, .. } => name,
        }
    }

    /// The file of a network that is not in the zoo, with its absolute path.
    pub(super) fn to_file(&self) -> Option<NetworkFile> {
        let Self::Onnx { name, path, shapes, sha256, url } = self else { return None };
        Some(NetworkFile {
            name: name.clone(),
            onnx: path.to_string_lossy().into_owned(),
            shapes: shapes.clone(),
            sha256: sha256.clone(),
            url: url.clone(),
        })
    }
}

impl NetworkFile {
    /// The source, for an .onnx file relative to `folder`.
    pub(super) fn source(self, folder: &Path) -> NetworkSource {
        let Self { name, onnx, shapes, sha256, url } = self;
        NetworkSource::Onnx { name, path: folder.join(onnx), shapes, sha256, url }
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
        Ok(names.into_iter().map(|name| NetworkSource::Zoo { name }).collect())
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
        return Some(NetworkSource::Zoo { name: name.to_owned() });
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
    check_file(&folder.join(&network.onnx), &network, &valid, faults);
    Some(network.source(&folder))
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
