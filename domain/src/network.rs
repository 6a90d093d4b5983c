//! A network as the planner sees it: units in execution order, and the tensors alive between them.

use crate::nearest::nearest;
use crate::units::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// A dense tensor that lives at a boundary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensor {
    /// Name of the value, unique in the network.
    pub value: String,
    /// Extents, outermost first (an image is batch, channels, height, width).
    pub shape: Vec<u64>,
    /// Element type, such as `float32`.
    pub dtype: String,
    /// Size of all elements.
    pub bytes: Bytes,
}

/// The smallest piece a cut may separate: a convolution with its bias and activation is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Dotted name, unique in the network: `layer3.0.conv1`.
    pub name: String,
    /// Operators in it, in order.
    pub operators: Vec<String>,
    /// Multiply-adds of its convolutions and matrix products for one frame.
    pub macs: u64,
    /// Learnable parameters.
    pub parameters: u64,
}

/// All tensors alive at a cut: made before it (or an input of the network), needed after it (or an output). A tensor
/// that skips a stage is alive at both ends of that stage.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Boundary {
    /// The tensors, in an order that is fixed for the network.
    pub tensors: Vec<Tensor>,
}

impl Boundary {
    /// Size of all its tensors together.
    pub fn bytes(&self) -> Bytes {
        Bytes(self.tensors.iter().map(|tensor| tensor.bytes.0).fold(0, u64::saturating_add))
    }
}

/// A position in the unit order. Cut `k` lies before unit `k`: cut 0 before all units, cut N after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cut(pub usize);

impl fmt::Display for Cut {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// A network of N units, in an order in which they can be executed.
///
/// It has at least one unit and exactly N + 1 boundaries, of which the first holds the inputs and the last the
/// outputs. Unit names are unique and not empty. No boundary is empty or names a value twice, and a value is the
/// same tensor wherever it is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawNetwork")]
pub struct Network {
    name: String,
    units: Vec<Unit>,
    boundaries: Vec<Boundary>,
}

/// A network as deserialized, not validated yet.
#[derive(Deserialize)]
struct RawNetwork {
    name: String,
    units: Vec<Unit>,
    boundaries: Vec<Boundary>,
}

impl TryFrom<RawNetwork> for Network {
    type Error = NetworkError;

    fn try_from(raw: RawNetwork) -> Result<Self, NetworkError> {
        Self::new(raw.name, raw.units, raw.boundaries)
    }
}

impl Network {
    /// A network of these units, where `boundaries[k]` is what is alive at cut `k`.
    pub fn new(
        name: impl Into<String>,
        units: Vec<Unit>,
        boundaries: Vec<Boundary>,
    ) -> Result<Self, NetworkError> {
        let name = name.into();
        if units.is_empty() {
            return Err(NetworkError::NoUnits { network: name });
        }
        if boundaries.len() != units.len() + 1 {
            return Err(NetworkError::Boundaries {
                network: name,
                units: units.len(),
                found: boundaries.len(),
            });
        }
        let mut names = HashSet::new();
        for (index, unit) in units.iter().enumerate() {
            if unit.name.is_empty() {
                return Err(NetworkError::NamelessUnit { network: name, index });
            }
            if !names.insert(unit.name.as_str()) {
                return Err(NetworkError::UnitTwice { network: name, unit: unit.name.clone() });
            }
        }
        check_boundaries(&name, &boundaries)?;
        Ok(Self { name, units, boundaries })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its units in execution order.
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// Number of units, N.
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// Never: a network has at least one unit.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// The N + 1 boundaries; index `k` is cut `k`.
    pub fn boundaries(&self) -> &[Boundary] {
        &self.boundaries
    }

    /// What is alive at a cut; absent if the network has no such cut.
    pub fn boundary(&self, cut: Cut) -> Option<&Boundary> {
        self.boundaries.get(cut.0)
    }

    /// The inputs of the network.
    pub fn inputs(&self) -> &Boundary {
        &self.boundaries[0]
    }

    /// The outputs of the network.
    pub fn outputs(&self) -> &Boundary {
        &self.boundaries[self.units.len()]
    }

    /// Multiply-adds of one frame.
    pub fn macs(&self) -> u64 {
        self.units.iter().map(|unit| unit.macs).sum()
    }

    /// Learnable parameters.
    pub fn parameters(&self) -> u64 {
        self.units.iter().map(|unit| unit.parameters).sum()
    }

    /// The cut after the last unit that has this name or lies below it in the dotted order: `layer3` is after
    /// `layer3.1.relu`, `layer3.0` after `layer3.0.relu`.
    pub fn cut_after(&self, asked: &str) -> Result<Cut, UnknownCut> {
        let below = format!("{asked}.");
        let last =
            self.units.iter().rposition(|unit| unit.name == asked || unit.name.starts_with(below.as_str()));
        last.map(|index| Cut(index + 1)).ok_or_else(|| UnknownCut {
            network: self.name.clone(),
            asked: asked.to_owned(),
            nearest: nearest(asked, self.cut_names()),
        })
    }

    /// Every text [`Network::cut_after`] understands, outer names before the inner ones.
    fn cut_names(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        let mut names = Vec::new();
        for unit in &self.units {
            let ends = unit.name.match_indices('.').map(|(end, _)| end).chain([unit.name.len()]);
            for name in ends.map(|end| &unit.name[..end]) {
                if seen.insert(name) {
                    names.push(name);
                }
            }
        }
        names
    }
}

fn check_boundaries(name: &str, boundaries: &[Boundary]) -> Result<(), NetworkError> {
    let mut known: HashMap<&str, &Tensor> = HashMap::new();
    for (index, boundary) in boundaries.iter().enumerate() {
        let cut = Cut(index);
        if boundary.tensors.is_empty() {
            return Err(NetworkError::EmptyBoundary { network: name.to_owned(), cut });
        }
        let mut here = HashSet::new();
        for tensor in &boundary.tensors {
            let value = tensor.value.as_str();
            if !here.insert(value) {
                return Err(NetworkError::ValueTwice {
                    network: name.to_owned(),
                    cut,
                    value: value.to_owned(),
                });
            }
            if *known.entry(value).or_insert(tensor) != tensor {
                return Err(NetworkError::ValueChanges {
                    network: name.to_owned(),
                    cut,
                    value: value.to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// Why units and boundaries are not a valid network. Every message finishes "failed to …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// There is nothing to execute.
    #[error("failed to create network {network}: it has no units")]
    NoUnits {
        /// The network.
        network: String,
    },
    /// N units need N + 1 boundaries.
    #[error("failed to create network {network}: {units} units need {} boundaries, found {found}", units + 1)]
    Boundaries {
        /// The network.
        network: String,
        /// Its units.
        units: usize,
        /// The boundaries given.
        found: usize,
    },
    /// A unit has an empty name.
    #[error("failed to create network {network}: unit {index} has no name")]
    NamelessUnit {
        /// The network.
        network: String,
        /// Place of the unit.
        index: usize,
    },
    /// Two units share a name.
    #[error("failed to create network {network}: two units are named {unit:?}")]
    UnitTwice {
        /// The network.
        network: String,
        /// The name.
        unit: String,
    },
    /// Nothing is alive at a cut.
    #[error("failed to create network {network}: no tensor is alive at cut {cut}")]
    EmptyBoundary {
        /// The network.
        network: String,
        /// The cut.
        cut: Cut,
    },
    /// A boundary names a value twice.
    #[error("failed to create network {network}: cut {cut} names the value {value:?} twice")]
    ValueTwice {
        /// The network.
        network: String,
        /// The cut.
        cut: Cut,
        /// The value.
        value: String,
    },
    /// A value has another shape, type or size than at an earlier cut.
    #[error(
        "failed to create network {network}: the value {value:?} is a different tensor at cut {cut} than at an earlier cut"
    )]
    ValueChanges {
        /// The network.
        network: String,
        /// The later cut.
        cut: Cut,
        /// The value.
        value: String,
    },
}

/// No unit has the name asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to find a unit called {asked:?} in network {network}{}", or_nearest(nearest))]
pub struct UnknownCut {
    /// The network.
    pub network: String,
    /// What was asked for.
    pub asked: String,
    /// Names like it, nearest first; may be empty.
    pub nearest: Vec<String>,
}

fn or_nearest(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str) -> Unit {
        Unit { name: name.to_owned(), operators: vec!["conv2d".to_owned()], macs: 10, parameters: 3 }
    }

    fn tensor(value: &str, bytes: u64) -> Tensor {
        Tensor {
            value: value.to_owned(),
            shape: vec![1, bytes / 4],
            dtype: "float32".to_owned(),
            bytes: Bytes(bytes),
        }
    }

    fn boundary(tensors: &[(&str, u64)]) -> Boundary {
        Boundary { tensors: tensors.iter().map(|&(value, bytes)| tensor(value, bytes)).collect() }
    }

    fn residual() -> Network {
        let names = ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer10.0.conv1", "fc"];
        let boundaries = vec![
            boundary(&[("x", 400)]),
            boundary(&[("a", 80)]),
            boundary(&[("a", 80), ("b", 40)]),
            boundary(&[("c", 80)]),
            boundary(&[("d", 20)]),
            boundary(&[("y", 4)]),
        ];
        Network::new("tiny", names.map(unit).to_vec(), boundaries).unwrap()
    }

    #[test]
    fn a_boundary_counts_all_that_is_alive() {
        let network = residual();
        assert_eq!(network.boundary(Cut(2)).unwrap().bytes(), Bytes(120));
        assert_eq!(network.inputs().bytes(), Bytes(400));
        assert_eq!(network.outputs().bytes(), Bytes(4));
        assert_eq!(network.boundary(Cut(6)), None);
        assert_eq!((network.macs(), network.parameters()), (50, 15));
    }

    #[test]
    fn cuts_by_name() {
        let network = residual();
        let check = |asked: &str, wanted| assert_eq!(network.cut_after(asked), Ok(Cut(wanted)), "{asked}");
        check("conv1", 1);
        check("layer1.0.conv1", 2);
        check("layer1.0", 3);
        check("layer1", 3);
        check("layer10", 4);
        check("fc", 5);
    }

    #[test]
    fn an_unknown_cut_names_the_nearest() {
        let unknown = residual().cut_after("layer2").unwrap_err();
        assert_eq!(unknown.nearest, ["layer1", "layer10", "layer1.0"]);
        assert_eq!(
            unknown.to_string(),
            "failed to find a unit called \"layer2\" in network tiny; did you mean layer1, layer10, layer1.0?"
        );
        assert!(residual().cut_after("").is_err());
        assert!(residual().cut_after("layer").is_err());
    }

    #[test]
    fn what_is_no_network() {
        let check = |units: &[&str], boundaries: Vec<Boundary>, wanted: &str| {
            let units = units.iter().map(|name| unit(name)).collect();
            let error = Network::new("n", units, boundaries).unwrap_err().to_string();
            assert_eq!(error, format!("failed to create network n: {wanted}"));
        };
        let x = || boundary(&[("x", 4)]);
        check(&[], vec![x()], "it has no units");
        check(&["a"], vec![x()], "1 units need 2 boundaries, found 1");
        check(&["a", ""], vec![x(), x(), x()], "unit 1 has no name");
        check(&["a", "a"], vec![x(), x(), x()], "two units are named \"a\"");
        check(&["a"], vec![x(), Boundary::default()], "no tensor is alive at cut 1");
        check(&["a"], vec![x(), boundary(&[("y", 4), ("y", 4)])], "cut 1 names the value \"y\" twice");
        check(
            &["a"],
            vec![x(), boundary(&[("x", 8)])],
            "the value \"x\" is a different tensor at cut 1 than at an earlier cut",
        );
    }

    #[test]
    fn reading_a_network_proves_it_too() {
        let network = residual();
        let text = serde_json::to_string(&network).unwrap();
        assert_eq!(serde_json::from_str::<Network>(&text).unwrap(), network);
        let cut_off = text.replacen("\"layer1.0.conv1\"", "\"conv1\"", 1);
        let error = serde_json::from_str::<Network>(&cut_off).unwrap_err().to_string();
        assert!(error.contains("two units are named \"conv1\""), "{error}");
    }
}
