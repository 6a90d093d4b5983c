//! Times at any operating point, from profiles at a few.
//!
//! # Model
//! A unit on a processor with the clock `f` takes `t = c / f + m`: a part that scales with the clock, and one that waits for
//! memory, which has a clock of its own. Neither is negative. This is the usual model of frequency scaling (Rountree et al.
//! 2011, "Practical performance prediction under dynamic voltage frequency scaling", the leading-load family). Two
//! frequencies determine it, more of them check it: [`FrequencyModel::error`]. A hand-over scales with the clock of the
//! processor that receives it.
//!
//! How much of `m` depends on the memory clock differs from unit to unit, and a governor may choose any clock below the limit.
//! So each governor and each memory clock has a model of its own, fitted to the profiles with the same ones.

use crate::costs::{Costs, CostsError, Link, Transfer};
use crate::operating_point::{OperatingPoint, PerSetting};
use crate::processor::ProcessorName;
use crate::samples::Samples;

/// A time as a function of a frequency.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scaling {
    /// In ns · kHz.
    scaled: f64,
    /// In ns.
    fixed: f64,
}

impl Scaling {
    /// Fits times at frequencies by least squares of relative errors. If the frequency is unknown or always the same,
    /// times do not depend on it.
    fn fit(samples: &[(Option<u64>, f64)]) -> Self {
        let known: Option<Vec<(f64, f64)>> =
            samples.iter().map(|(khz, ns)| Some((1.0 / (*khz)?.max(1) as f64, *ns))).collect();
        let mean = || samples.iter().map(|(_, ns)| ns).sum::<f64>() / samples.len().max(1) as f64;
        let constant = || Self { scaled: 0.0, fixed: mean() };
        let Some(known) = known else { return constant() };
        let varies = samples.iter().any(|(khz, _)| *khz != samples[0].0);
        if !varies || known.iter().any(|(_, ns)| *ns <= 0.0) {
            return constant();
        }
        // With weights 1/ns² the squares are those of relative errors; x = period/ns and y = 1/ns predict 1.
        let (mut xx, mut xy, mut yy, mut x1, mut y1) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (period, ns) in &known {
            let (x, y) = (period / ns, 1.0 / ns);
            (xx, xy, yy) = (xx + x * x, xy + x * y, yy + y * y);
            (x1, y1) = (x1 + x, y1 + y);
        }
        let determinant = xx * yy - xy * xy;
        if determinant <= 1e-12 * xx * yy {
            return constant();
        }
        let (scaled, fixed) = ((x1 * yy - y1 * xy) / determinant, (y1 * xx - x1 * xy) / determinant);
        if scaled < 0.0 {
            Self { scaled: 0.0, fixed: y1 / yy }
        } else if fixed < 0.0 {
            Self { scaled: x1 / xx, fixed: 0.0 }
        } else {
            Self { scaled, fixed }
        }
    }

    fn at(self, khz: Option<u64>) -> f64 {
        self.fixed + khz.map_or(0.0, |khz| self.scaled / khz.max(1) as f64)
    }
}

/// The times of one processor.
#[derive(Debug, Clone, PartialEq)]
struct ProcessorModel {
    name: ProcessorName,
    units: Vec<Scaling>,
}

/// The fixed part of a link and that for each byte.
type LinkModel = (Scaling, Scaling);

/// The times of a network at any operating point.
#[derive(Debug, Clone, PartialEq)]
pub struct FrequencyModel(PerSetting<ClockModel>);

impl FrequencyModel {
    /// Fits profiles at operating points. A point need not have all processors; all profiles are of one network.
    ///
    /// # Errors
    /// If profiles have different numbers of units, or there is none.
    pub fn fit(profiles: &[(OperatingPoint, Costs)]) -> Result<Self, CostsError> {
        PerSetting::fit(profiles, |(point, _)| point, ClockModel::fit).map(Self)
    }

    /// The costs at a point, for the processors that it has and that were profiled. A point whose governor or memory clock
    /// was not profiled is predicted from all profiles.
    ///
    /// # Errors
    /// If the point has none of them.
    pub fn at(
        &self,
        point: &OperatingPoint,
        has: impl Fn(&ProcessorName) -> bool,
    ) -> Result<Costs, CostsError> {
        self.0.at(point).at(point, has)
    }

    /// The greatest error of a whole frame at a profiled point, as a share; absent without a third frequency.
    pub fn error(&self) -> Option<f64> {
        self.0.used().filter_map(|model| model.error).reduce(f64::max)
    }
}

/// The times of a network at operating points with the same governor and memory clock.
#[derive(Debug, Clone, PartialEq)]
struct ClockModel {
    processors: Vec<ProcessorModel>,
    /// `[from][to]`; absent if no profile has both.
    links: Vec<Vec<Option<LinkModel>>>,
    error: Option<f64>,
}

impl ClockModel {
    fn fit(profiles: &[(OperatingPoint, Costs)]) -> Result<Self, CostsError> {
        let mut names: Vec<ProcessorName> = Vec::new();
        for name in profiles.iter().flat_map(|(_, costs)| costs.processors()) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let Some((_, first)) = profiles.first() else { return Err(CostsError::NoProcessors) };
        let units = first.units();
        let (mut processors, mut errors) = (Vec::new(), Vec::new());
        for name in &names {
            let of_point = |(point, costs): &(OperatingPoint, Costs)| {
                let at = costs.index_of(name)?;
                Some((khz(point, name), costs.unit_ns(at).to_vec()))
            };
            let known: Vec<(Option<u64>, Vec<f64>)> = profiles.iter().filter_map(of_point).collect();
            if let Some((_, row)) = known.iter().find(|(_, row)| row.len() != units) {
                return Err(CostsError::Units { processor: name.clone(), units: row.len(), expected: units });
            }
            let of_unit = |unit: usize| {
                let samples: Vec<_> = known.iter().map(|(khz, row)| (*khz, row[unit])).collect();
                Scaling::fit(&samples)
            };
            let model: Vec<Scaling> = (0..units).map(of_unit).collect();
            for (khz, row) in &known {
                let (found, whole) =
                    (model.iter().map(|unit| unit.at(*khz)).sum::<f64>(), row.iter().sum::<f64>());
                if known.len() > 2 && whole > 0.0 {
                    errors.push((found / whole - 1.0).abs());
                }
            }
            processors.push(ProcessorModel { name: name.clone(), units: model });
        }
        let links = names.iter().map(|from| names.iter().map(|to| fit_link(profiles, from, to)).collect());
        let error = Samples::new(&errors).ok().map(|errors| errors.greatest());
        Ok(Self { links: links.collect(), processors, error })
    }

    fn at(&self, point: &OperatingPoint, has: impl Fn(&ProcessorName) -> bool) -> Result<Costs, CostsError> {
        let places: Vec<usize> =
            (0..self.processors.len()).filter(|at| has(&self.processors[*at].name)).collect();
        let clock = |at: usize| khz(point, &self.processors[at].name);
        let link = |from: usize, to: usize| {
            let Some((fixed, byte)) = self.links[from][to] else { return Link::FREE };
            Link { fixed_ns: fixed.at(clock(to)), ns_per_byte: byte.at(clock(to)) }
        };
        let pairs = places.iter().map(|from| places.iter().map(|to| link(*from, *to)).collect()).collect();
        let row = |at: &usize| self.processors[*at].units.iter().map(|unit| unit.at(clock(*at))).collect();
        let names = places.iter().map(|at| self.processors[*at].name.clone()).collect();
        Costs::new(names, places.iter().map(row).collect(), Transfer::Pairs(pairs))
    }
}

/// The clock of a processor, of a merged one the lowest of its parts: loops are shared out evenly among its threads, so that
/// the slowest part decides.
fn khz(point: &OperatingPoint, name: &ProcessorName) -> Option<u64> {
    name.parts().map(|part| point.max_khz.get(part).copied()).collect::<Option<Vec<u64>>>()?.into_iter().min()
}

fn fit_link(
    profiles: &[(OperatingPoint, Costs)],
    from: &ProcessorName,
    to: &ProcessorName,
) -> Option<LinkModel> {
    let (mut fixed, mut byte) = (Vec::new(), Vec::new());
    for (point, costs) in profiles {
        let (Some(sender), Some(receiver)) = (costs.index_of(from), costs.index_of(to)) else { continue };
        let link = match costs.transfer() {
            Transfer::Uniform(link) => *link,
            Transfer::Pairs(pairs) => pairs[sender][receiver],
        };
        fixed.push((khz(point, to), link.fixed_ns));
        byte.push((khz(point, to), link.ns_per_byte));
    }
    (!fixed.is_empty()).then(|| (Scaling::fit(&fixed), Scaling::fit(&byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn point(cpu: u64) -> OperatingPoint {
        OperatingPoint { max_khz: BTreeMap::from([("cpu".to_owned(), cpu)]), ..OperatingPoint::default() }
    }

    /// Times of two units, one of which waits for memory only, and of a processor without a known clock.
    fn costs(khz: u64, noise: f64) -> Costs {
        let unit = 4e12 / khz as f64 + 1e6;
        let names = ["cpu", "other"].map(ProcessorName::new).to_vec();
        let rows = vec![vec![unit * noise, 3e6], vec![7e6, 8e6]];
        Costs::new(names, rows, Transfer::uniform(1e10 / khz as f64, 0.1)).unwrap()
    }

    #[test]
    fn a_known_truth_is_found_and_checked() {
        let at = |khz| (point(khz), costs(khz, 1.0));
        let two = FrequencyModel::fit(&[at(400_000), at(2_000_000)]).unwrap();
        let predicted = two.at(&point(800_000), |_| true).unwrap();
        for (found, truth) in predicted.unit_ns(0).iter().zip([6e6, 3e6]) {
            assert!((found / truth - 1.0).abs() < 1e-9, "{found} {truth}");
        }
        assert_eq!(predicted.unit_ns(1), [7e6, 8e6]);
        let Transfer::Pairs(links) = predicted.transfer() else { panic!("{predicted:?}") };
        assert!(
            (links[1][0].fixed_ns - 12_500.0).abs() < 1e-6 && (links[0][1].ns_per_byte - 0.1).abs() < 1e-9
        );
        let three = FrequencyModel::fit(&[at(400_000), (point(800_000), costs(800_000, 1.2)), at(2_000_000)]);
        let error = three.unwrap().error().unwrap();
        assert!((0.02..0.2).contains(&error), "{error}");
    }

    #[test]
    fn a_memory_clock_is_predicted_from_its_own_profiles() {
        let at = |khz, memory_khz, factor| {
            (OperatingPoint { memory_khz: Some(memory_khz), ..point(khz) }, costs(khz, factor))
        };
        let profiles = [(400_000, 1.0), (2_000_000, 1.0)].map(|(khz, factor)| at(khz, 1_866_000, factor));
        let slow = [(400_000, 1.5), (2_000_000, 1.5)].map(|(khz, factor)| at(khz, 408_000, factor));
        let model = FrequencyModel::fit(&[profiles, slow].concat()).unwrap();
        let predicted = |memory_khz| {
            let point = OperatingPoint { memory_khz, ..point(800_000) };
            model.at(&point, |_| true).unwrap().unit_ns(0)[0]
        };
        assert!((predicted(Some(1_866_000)) / 6e6 - 1.0).abs() < 1e-9);
        assert!((predicted(Some(408_000)) / 9e6 - 1.0).abs() < 1e-9);
        assert!(predicted(None) > 6e6 && predicted(None) < 9e6, "{}", predicted(None));
    }

    #[test]
    fn the_slowest_part_decides_how_fast_a_merged_processor_is() {
        let point = |a: u64, b: u64| OperatingPoint {
            max_khz: BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]),
            ..OperatingPoint::default()
        };
        let costs = |khz: u64| {
            let rows = vec![vec![4e12 / khz as f64]];
            Costs::new(vec!["a+b".into()], rows, Transfer::FREE).unwrap()
        };
        let profiles =
            [(point(2_000_000, 1_000_000), costs(1_000_000)), (point(400_000, 500_000), costs(400_000))];
        let model = FrequencyModel::fit(&profiles).unwrap();
        let at = |a, b| model.at(&point(a, b), |_| true).unwrap().unit_ns(0)[0];
        assert!((at(800_000, 2_000_000) / 5e6 - 1.0).abs() < 1e-9, "{}", at(800_000, 2_000_000));
        assert!((at(2_000_000, 800_000) / 5e6 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_point_without_a_processor_has_no_costs_for_it() {
        let model = FrequencyModel::fit(&[(point(400_000), costs(400_000, 1.0))]).unwrap();
        let costs = model.at(&point(400_000), |name| name.as_str() == "cpu").unwrap();
        assert_eq!(costs.processors(), [ProcessorName::new("cpu")]);
        assert!(model.at(&point(400_000), |_| false).is_err());
        assert!(FrequencyModel::fit(&[]).is_err());
    }
}
