//! The costs that the planner minimizes: the time of every unit on every processor, and of moving a boundary between two.

use crate::network::Cut;
use crate::processor::ProcessorName;
use crate::profile::Profile;
use crate::units::Bytes;
use serde::{Deserialize, Serialize};

/// Greatest cost accepted, in ns (or ns per byte): 31 years. It keeps every sum finite.
const GREATEST: f64 = 1e18;

/// Cost of moving tensors from one processor to another: `fixed_ns + bytes × ns_per_byte`, the linear model of
/// Hockney (1994), "The communication challenge for MPP".
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// For each hand-over, in ns.
    pub fixed_ns: f64,
    /// For each byte, in ns.
    pub ns_per_byte: f64,
}

impl Link {
    /// Nothing costs anything.
    pub const FREE: Self = Self { fixed_ns: 0.0, ns_per_byte: 0.0 };

    /// Time to move this many bytes, in ns.
    pub fn ns(self, bytes: Bytes) -> f64 {
        self.fixed_ns + bytes.0 as f64 * self.ns_per_byte
    }
}

/// Links between the processors of a [`Costs`]. The receiving stage pays; the first stage of a schedule pays nothing,
/// because its frames are in memory already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transfer {
    /// The same between any two processors.
    Uniform(Link),
    /// `pairs[from][to]`, by the processors' places in [`Costs::processors`]. The diagonal is not used.
    Pairs(Vec<Vec<Link>>),
}

impl Transfer {
    /// Moving costs nothing.
    pub const FREE: Self = Self::Uniform(Link::FREE);

    /// The same cost between any two processors.
    pub fn uniform(fixed_ns: f64, ns_per_byte: f64) -> Self {
        Self::Uniform(Link { fixed_ns, ns_per_byte })
    }

    /// The link from one processor to another.
    fn link(&self, from: usize, to: usize) -> Link {
        match self {
            Self::Uniform(link) => *link,
            Self::Pairs(pairs) => pairs[from][to],
        }
    }
}

/// Times of N units on P processors and of the links between them.
///
/// There is at least one processor and one unit, no processor is named twice, every processor has a cost for every
/// unit, and every cost is a number from 0 to 10^18 ns. A processor without a profile is not in here at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawCosts", into = "RawCosts")]
pub struct Costs {
    processors: Vec<ProcessorName>,
    unit_ns: Vec<Vec<f64>>,
    /// `before_ns[p][k]`: units before cut k on processor p.
    before_ns: Vec<Vec<f64>>,
    transfer: Transfer,
}

/// Costs as deserialized, not validated yet.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCosts {
    processors: Vec<ProcessorName>,
    unit_ns: Vec<Vec<f64>>,
    transfer: Transfer,
}

impl TryFrom<RawCosts> for Costs {
    type Error = CostsError;

    fn try_from(raw: RawCosts) -> Result<Self, CostsError> {
        Self::new(raw.processors, raw.unit_ns, raw.transfer)
    }
}

impl From<Costs> for RawCosts {
    fn from(costs: Costs) -> Self {
        Self { processors: costs.processors, unit_ns: costs.unit_ns, transfer: costs.transfer }
    }
}

impl Costs {
    /// Costs where `unit_ns[p][u]` is the time of unit `u` on processor `p`, in ns.
    pub fn new(
        processors: Vec<ProcessorName>,
        unit_ns: Vec<Vec<f64>>,
        transfer: Transfer,
    ) -> Result<Self, CostsError> {
        if processors.is_empty() {
            return Err(CostsError::NoProcessors);
        }
        if processors.len() != unit_ns.len() {
            return Err(CostsError::Rows { processors: processors.len(), rows: unit_ns.len() });
        }
        if let Some(twice) = processors.iter().enumerate().find(|(at, name)| processors[..*at].contains(name))
        {
            return Err(CostsError::ProcessorTwice { processor: twice.1.clone() });
        }
        let units = unit_ns[0].len();
        for (processor, row) in processors.iter().zip(&unit_ns) {
            if row.is_empty() || row.len() != units {
                return Err(CostsError::Units {
                    processor: processor.clone(),
                    units: row.len(),
                    expected: units.max(1),
                });
            }
            if let Some(unit) = row.iter().position(|cost| !is_cost(*cost)) {
                return Err(CostsError::UnitCost { processor: processor.clone(), unit, value: row[unit] });
            }
        }
        check_transfer(&transfer, &processors)?;
        let before_ns = unit_ns.iter().map(|row| prefix_sums(row)).collect();
        Ok(Self { processors, unit_ns, before_ns, transfer })
    }

    /// Costs of the processors that have a profile, in the order given.
    pub fn from_profiles(profiles: &[Profile], transfer: Transfer) -> Result<Self, CostsError> {
        let processors = profiles.iter().map(|profile| profile.processor().clone()).collect();
        let unit_ns = profiles.iter().map(|profile| profile.unit_costs().as_ns().to_vec()).collect();
        Self::new(processors, unit_ns, transfer)
    }

    /// The same with the unit times of each processor multiplied by its factor. Links are not changed.
    ///
    /// # Errors
    /// If there are not as many factors as processors, or a scaled time is not a valid cost.
    pub fn scaled(&self, factors: &[f64]) -> Result<Self, CostsError> {
        if factors.len() != self.processors.len() {
            return Err(CostsError::Rows { processors: self.processors.len(), rows: factors.len() });
        }
        let scale = |(row, factor): (&Vec<f64>, &f64)| row.iter().map(|ns| ns * factor).collect();
        let unit_ns = self.unit_ns.iter().zip(factors).map(scale).collect();
        Self::new(self.processors.clone(), unit_ns, self.transfer.clone())
    }

    /// The processors; their places are the indices used elsewhere.
    pub fn processors(&self) -> &[ProcessorName] {
        &self.processors
    }

    /// Place of a processor.
    pub fn index_of(&self, processor: &ProcessorName) -> Option<usize> {
        self.processors.iter().position(|name| name == processor)
    }

    /// Number of units, N.
    pub fn units(&self) -> usize {
        self.unit_ns[0].len()
    }

    /// Time of each unit on a processor, in ns.
    pub fn unit_ns(&self, processor: usize) -> &[f64] {
        &self.unit_ns[processor]
    }

    /// What links cost.
    pub fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    /// Time of the units from `first` to before `end` on a processor, in ns, without any transfer.
    ///
    /// # Panics
    /// If there is no such processor or cut.
    pub fn compute_ns(&self, processor: usize, first: Cut, end: Cut) -> f64 {
        let before = &self.before_ns[processor];
        before[end.0] - before[first.0]
    }

    /// Time for `to` to receive these bytes from `from`, in ns.
    ///
    /// # Panics
    /// If there is no such processor.
    pub fn transfer_ns(&self, from: usize, to: usize, bytes: Bytes) -> f64 {
        self.transfer.link(from, to).ns(bytes)
    }

    /// Units before each cut on a processor, in ns: N + 1 ascending sums.
    pub(crate) fn before_ns(&self, processor: usize) -> &[f64] {
        &self.before_ns[processor]
    }
}

fn is_cost(value: f64) -> bool {
    (0.0..=GREATEST).contains(&value)
}

fn prefix_sums(row: &[f64]) -> Vec<f64> {
    let mut sums = Vec::with_capacity(row.len() + 1);
    let mut sum = 0.0;
    sums.push(sum);
    for cost in row {
        sum += cost;
        sums.push(sum);
    }
    sums
}

fn check_transfer(transfer: &Transfer, processors: &[ProcessorName]) -> Result<(), CostsError> {
    let count = processors.len();
    match transfer {
        Transfer::Uniform(link) => check_link(*link, "any two processors".to_owned()),
        Transfer::Pairs(pairs) => {
            if pairs.len() != count || pairs.iter().any(|row| row.len() != count) {
                return Err(CostsError::Pairs { processors: count });
            }
            for (from, row) in processors.iter().zip(pairs) {
                for (to, link) in processors.iter().zip(row).filter(|(to, _)| *to != from) {
                    check_link(*link, format!("{from} and {to}"))?;
                }
            }
            Ok(())
        }
    }
}

fn check_link(link: Link, between: String) -> Result<(), CostsError> {
    match [link.fixed_ns, link.ns_per_byte].into_iter().find(|value| !is_cost(*value)) {
        Some(value) => Err(CostsError::LinkCost { between, value }),
        None => Ok(()),
    }
}

/// Why these are not valid costs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CostsError {
    /// There is nothing to run on.
    #[error("failed to use the costs: no processor has a profile")]
    NoProcessors,
    /// As many rows as processors are needed.
    #[error("failed to use the costs: {rows} rows for {processors} processors")]
    Rows {
        /// Processors given.
        processors: usize,
        /// Rows given.
        rows: usize,
    },
    /// A processor is named twice.
    #[error("failed to use the costs: processor {processor} is named twice")]
    ProcessorTwice {
        /// The processor.
        processor: ProcessorName,
    },
    /// A processor has costs for too few or too many units.
    #[error("failed to use the costs of processor {processor}: {units} units, expected {expected}")]
    Units {
        /// The processor.
        processor: ProcessorName,
        /// Its units.
        units: usize,
        /// Units expected.
        expected: usize,
    },
    /// A cost is negative, infinite, above 10^18 ns or not a number.
    #[error("failed to use the costs of processor {processor}: unit {unit} costs {value} ns")]
    UnitCost {
        /// The processor.
        processor: ProcessorName,
        /// Place of the unit.
        unit: usize,
        /// The cost in ns.
        value: f64,
    },
    /// The matrix of links is not as wide and high as there are processors.
    #[error("failed to use the costs of transfer: expected {processors} × {processors} links")]
    Pairs {
        /// Processors given.
        processors: usize,
    },
    /// A link has a cost that is negative, infinite, above 10^18 or not a number.
    #[error("failed to use the costs of transfer between {between}: invalid cost {value}")]
    LinkCost {
        /// The processors.
        between: String,
        /// The cost in ns, or ns per byte.
        value: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(rows: &[&[f64]], transfer: Transfer) -> Result<Costs, CostsError> {
        let names = (0..rows.len()).map(|index| ProcessorName::new(format!("p{index}"))).collect();
        Costs::new(names, rows.iter().map(|row| row.to_vec()).collect(), transfer)
    }

    #[test]
    fn sums_and_links() {
        let link = |fixed_ns| Link { fixed_ns, ns_per_byte: 0.5 };
        let unused = Link { fixed_ns: f64::NAN, ns_per_byte: 0.0 };
        let pairs = Transfer::Pairs(vec![vec![unused, link(1.0)], vec![link(7.0), unused]]);
        let costs = costs(&[&[1.0, 2.0, 4.0], &[3.0, 0.0, 5.0]], pairs).unwrap();
        assert_eq!(costs.units(), 3);
        assert!((costs.compute_ns(0, Cut(1), Cut(3)) - 6.0).abs() < 1e-12);
        assert!((costs.compute_ns(1, Cut(0), Cut(2)) - 3.0).abs() < 1e-12);
        assert!((costs.transfer_ns(0, 1, Bytes(8)) - 5.0).abs() < 1e-12);
        assert!((costs.transfer_ns(1, 0, Bytes(8)) - 11.0).abs() < 1e-12);
        assert_eq!(costs.index_of(&"p1".into()), Some(1));
    }

    #[test]
    fn what_are_no_costs() {
        let free = || Transfer::FREE;
        let check = |rows: &[&[f64]], transfer, wanted: &str| {
            assert_eq!(
                costs(rows, transfer).unwrap_err().to_string(),
                format!("failed to use the costs{wanted}")
            );
        };
        check(&[], free(), ": no processor has a profile");
        check(&[&[]], free(), " of processor p0: 0 units, expected 1");
        check(&[&[1.0], &[1.0, 2.0]], free(), " of processor p1: 2 units, expected 1");
        check(&[&[1.0, f64::NAN]], free(), " of processor p0: unit 1 costs NaN ns");
        check(&[&[-1.0]], free(), " of processor p0: unit 0 costs -1 ns");
        check(&[&[f64::INFINITY]], free(), " of processor p0: unit 0 costs inf ns");
        let bad = " of transfer between any two processors: invalid cost NaN";
        check(&[&[1.0]], Transfer::uniform(0.0, f64::NAN), bad);
        check(&[&[1.0]], Transfer::Pairs(vec![]), " of transfer: expected 1 × 1 links");
        let twice = Costs::new(vec!["a".into(), "a".into()], vec![vec![1.0], vec![1.0]], free());
        assert_eq!(twice.unwrap_err(), CostsError::ProcessorTwice { processor: "a".into() });
    }

    #[test]
    fn reading_costs_proves_them_too() {
        let costs = costs(&[&[1.0, 2.0]], Transfer::uniform(3.0, 0.25)).unwrap();
        let text = serde_json::to_string(&costs).unwrap();
        assert_eq!(serde_json::from_str::<Costs>(&text).unwrap(), costs);
        assert!(serde_json::from_str::<Costs>(&text.replace("2.0", "-2.0")).is_err());
    }
}
