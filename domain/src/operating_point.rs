//! Operating points: the settings of a board that decide speed and power, and grids of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Most points of a grid. Schedules are predicted for each of them.
pub const MOST_POINTS: usize = 4096;

/// A power mode of a board.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PointPowerMode")]
pub struct PowerMode {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
}

/// Settings of a board that decide speed and power. Two points of a run differ in at least one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatingPoint {
    /// Absent if the board has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_mode: Option<PowerMode>,
    /// Frequency governor of all CPUs. Absent if the points of the run do not differ in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
    /// Highest frequency of each processor in kHz, by name. A processor that this point has offline, or whose clock is not
    /// known, is absent.
    pub max_khz: BTreeMap<String, u64>,
    /// Frequency at which the memory clock is locked, in kHz. Absent if it is not locked, or the points of the run do not
    /// differ in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_khz: Option<u64>,
}

impl OperatingPoint {
    /// Whether times and power at one of the points predict those at the other: governor and memory clock are the same. The
    /// models describe the effect of processor frequencies, but not that of these two.
    pub fn shares_model_with(&self, other: &Self) -> bool {
        self.governor == other.governor && self.memory_khz == other.memory_khz
    }
}

impl fmt::Display for OperatingPoint {
    /// For example `MAXN performance a57 2035 denver 346 memory 1600 MHz`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = self.power_mode.iter().map(|mode| mode.name.clone());
        let clocks = self.max_khz.iter().map(|(name, khz)| (name.as_str(), *khz));
        let clocks: Vec<String> = clocks
            .chain(self.memory_khz.map(|khz| ("memory", khz)))
            .map(|(name, khz)| format!("{name} {}", (khz + 500) / 1000))
            .collect();
        let unit = (!clocks.is_empty()).then(|| "MHz".to_owned());
        let parts: Vec<String> = mode.chain(self.governor.clone()).chain(clocks).chain(unit).collect();
        out.write_str(&if parts.is_empty() { "default".to_owned() } else { parts.join(" ") })
    }
}

/// A model of all operating points, and one for each governor and memory clock by itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PerSetting<T> {
    all: T,
    /// Each with a point for which it is made; none if all points have the same governor and memory clock.
    own: Vec<(OperatingPoint, T)>,
}

impl<T> PerSetting<T> {
    /// Fits the models to samples at points.
    ///
    /// # Errors
    /// If the model of all points cannot be fitted. One of its own that cannot be fitted is left out.
    pub(crate) fn fit<S: Clone, E>(
        samples: &[S],
        point: impl Fn(&S) -> &OperatingPoint,
        fit: impl Fn(&[S]) -> Result<T, E>,
    ) -> Result<Self, E> {
        let all = fit(samples)?;
        let mut kinds: Vec<&OperatingPoint> = Vec::new();
        for sample in samples {
            if !kinds.iter().any(|known| known.shares_model_with(point(sample))) {
                kinds.push(point(sample));
            }
        }
        let mut own = Vec::new();
        for kind in kinds.iter().filter(|_| kinds.len() > 1) {
            let of_kind = samples.iter().filter(|sample| kind.shares_model_with(point(sample)));
            let model = fit(&of_kind.cloned().collect::<Vec<S>>());
            own.extend(model.ok().map(|model| ((*kind).clone(), model)));
        }
        Ok(Self { all, own })
    }

    /// The model for a point: that of its governor and memory clock, else that of all points.
    pub(crate) fn at(&self, point: &OperatingPoint) -> &T {
        self.own
            .iter()
            .find(|(known, _)| known.shares_model_with(point))
            .map_or(&self.all, |(_, model)| model)
    }

    /// The models that are used.
    pub(crate) fn used(&self) -> impl Iterator<Item = &T> {
        let all = self.own.is_empty().then_some(&self.all);
        all.into_iter().chain(self.own.iter().map(|(_, model)| model))
    }
}

/// Which of the offered frequencies of a processor are used.
#[derive(Debug, Clone, PartialEq)]
pub enum Steps {
    /// All of them.
    All,
    /// The highest one, every n-th below it, and the lowest one.
    Every(usize),
    /// These, in kHz.
    Listed(Vec<u64>),
}

/// A listed frequency that the board does not offer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the board does not offer {} MHz; the nearest are {}", mhz(*.khz), .nearest.iter().map(|khz| mhz(*khz)).collect::<Vec<_>>().join(" and "))]
pub struct UnknownFrequency {
    /// The frequency in kHz.
    pub khz: u64,
    /// The nearest offered ones in kHz, ascending.
    pub nearest: Vec<u64>,
}

/// A frequency in MHz, exact, without trailing zeros.
pub fn mhz(khz: u64) -> String {
    (khz as f64 / 1000.0).to_string()
}

/// A listed frequency means the offered one within this distance, in kHz: files contain MHz with few digits.
const NEAR_KHZ: u64 = 500;

impl Steps {
    /// The frequencies among those that a processor offers, ascending, in kHz.
    ///
    /// # Errors
    /// If a listed one is not offered.
    pub fn of(&self, offered: &[u64]) -> Result<Vec<u64>, UnknownFrequency> {
        let sorted: BTreeSet<u64> = offered.iter().copied().collect();
        let sorted: Vec<u64> = sorted.into_iter().collect();
        let chosen: BTreeSet<u64> = match self {
            Self::All => sorted.into_iter().collect(),
            Self::Every(step) => {
                let lowest = sorted.first().copied();
                sorted.iter().rev().step_by((*step).max(1)).copied().chain(lowest).collect()
            }
            Self::Listed(listed) => {
                let find = |khz: &u64| {
                    let nearest = nearest_numbers(*khz, &sorted);
                    let found = nearest.iter().min_by_key(|offered| offered.abs_diff(*khz));
                    found
                        .filter(|offered| offered.abs_diff(*khz) <= NEAR_KHZ)
                        .copied()
                        .ok_or(UnknownFrequency { khz: *khz, nearest })
                };
                listed.iter().map(find).collect::<Result<_, _>>()?
            }
        };
        Ok(chosen.into_iter().collect())
    }
}

/// The number below or at `wanted` and the one above it. `sorted` is ascending.
fn nearest_numbers(wanted: u64, sorted: &[u64]) -> Vec<u64> {
    let above = sorted.partition_point(|number| *number <= wanted);
    sorted[above.saturating_sub(1)..sorted.len().min(above + 1)].to_vec()
}

/// What a power mode offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModeOffer {
    /// Absent if the board has none.
    pub power_mode: Option<PowerMode>,
    /// Frequencies of processors that are not varied, in kHz.
    pub fixed: BTreeMap<String, u64>,
    /// The frequencies of the others in kHz, ascending and not empty.
    pub varied: BTreeMap<String, Vec<u64>>,
    /// Governors; empty if they are not varied.
    pub governors: Vec<String>,
    /// Frequencies of the memory clock in kHz, ascending; empty if it is not varied.
    pub memory_khz: Vec<u64>,
}

impl ModeOffer {
    /// Number of points in this mode.
    pub fn len(&self) -> usize {
        let others = [self.governors.len().max(1), self.memory_khz.len().max(1)];
        self.varied.values().map(Vec::len).chain(others).fold(1, usize::saturating_mul)
    }

    /// Whether there is no point.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A point for each governor and memory clock, the fastest memory first, with the frequencies that are not varied.
    fn bases(&self) -> Vec<OperatingPoint> {
        let governors: Vec<Option<String>> = if self.governors.is_empty() {
            vec![None]
        } else {
            self.governors.iter().cloned().map(Some).collect()
        };
        let memory: Vec<Option<u64>> = if self.memory_khz.is_empty() {
            vec![None]
        } else {
            self.memory_khz.iter().rev().copied().map(Some).collect()
        };
        let base = |governor: &Option<String>, memory_khz: &Option<u64>| OperatingPoint {
            power_mode: self.power_mode.clone(),
            governor: governor.clone(),
            max_khz: self.fixed.clone(),
            memory_khz: *memory_khz,
        };
        governors.iter().flat_map(|governor| memory.iter().map(|khz| base(governor, khz))).collect()
    }

    /// Every combination of the varied settings.
    pub fn points(&self) -> Vec<OperatingPoint> {
        let mut points = self.bases();
        for (name, steps) in &self.varied {
            let with = |point: &OperatingPoint, khz: &u64| {
                let mut point = point.clone();
                point.max_khz.insert(name.clone(), *khz);
                point
            };
            points = points.iter().flat_map(|point| steps.iter().map(move |khz| with(point, khz))).collect();
        }
        points
    }

    /// For each governor and memory clock, the points with the highest and with the lowest frequencies.
    pub fn ends(&self) -> Vec<OperatingPoint> {
        self.bases().iter().flat_map(|base| self.ends_of(base)).collect()
    }

    /// The points to be profiled, from which all others are predicted. For the first governor and memory clock: all
    /// frequencies at their highest, middle and lowest, and each processor's but the last one's at its highest while the
    /// others are at their lowest. For the others, the ends. Each once.
    pub fn corners(&self) -> Vec<OperatingPoint> {
        let bases = self.bases();
        let more = bases.iter().skip(1).flat_map(|base| self.ends_of(base));
        bases.iter().take(1).flat_map(|base| self.corners_of(base)).chain(more).collect()
    }

    fn ends_of(&self, base: &OperatingPoint) -> Vec<OperatingPoint> {
        let corners = self.corners_of(base);
        corners
            .iter()
            .take(1)
            .chain(corners.iter().skip(1).min_by_key(|point| point.max_khz.values().sum::<u64>()))
            .cloned()
            .collect()
    }

    fn corners_of(&self, base: &OperatingPoint) -> Vec<OperatingPoint> {
        let point = |place: &dyn Fn(&str, usize) -> usize| {
            let mut point = base.clone();
            for (name, steps) in &self.varied {
                point.max_khz.insert(name.clone(), steps[place(name, steps.len())]);
            }
            point
        };
        let mut corners = vec![point(&|_, count| count - 1), point(&|_, count| count / 2), point(&|_, _| 0)];
        // The last one follows from the others and the points at which all are alike.
        for one in self.varied.keys().take(self.varied.len().saturating_sub(1)) {
            corners.push(point(&|name, count| if name == one { count - 1 } else { 0 }));
        }
        let mut distinct: Vec<OperatingPoint> = Vec::new();
        for corner in corners {
            if !distinct.contains(&corner) {
                distinct.push(corner);
            }
        }
        distinct
    }
}

/// The points that differ from a point by the next frequency of one clock, by their places among `points`.
pub fn neighbours(points: &[OperatingPoint], at: usize) -> Vec<usize> {
    let own = &points[at];
    // By clock and direction: the nearest one. The clock of the memory has no name.
    let mut nearest: BTreeMap<(Option<&str>, bool), (u64, usize)> = BTreeMap::new();
    for (place, other) in points.iter().enumerate() {
        let is_like = other.power_mode == own.power_mode
            && other.governor == own.governor
            && other.max_khz.keys().eq(own.max_khz.keys());
        if !is_like {
            continue;
        }
        let clocks = own.max_khz.iter().map(|(name, khz)| (Some(name.as_str()), *khz, other.max_khz[name]));
        let memory = own.memory_khz.zip(other.memory_khz).map(|(khz, theirs)| (None, khz, theirs));
        if memory.is_none() && own.memory_khz != other.memory_khz {
            continue;
        }
        let mut different = clocks.chain(memory).filter(|(_, khz, theirs)| khz != theirs);
        if let (Some((name, khz, theirs)), None) = (different.next(), different.next()) {
            let entry = nearest.entry((name, theirs > khz)).or_insert((u64::MAX, place));
            *entry = (*entry).min((theirs.abs_diff(khz), place));
        }
    }
    nearest.into_values().map(|(_, place)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERED: [u64; 5] = [345_600, 499_200, 652_800, 806_400, 960_000];

    #[test]
    fn steps_are_those_that_the_board_offers() {
        let check = |steps: Steps, wanted: &[u64]| assert_eq!(steps.of(&OFFERED).unwrap(), wanted);
        check(Steps::All, &OFFERED);
        check(Steps::Every(2), &[345_600, 652_800, 960_000]);
        check(Steps::Every(3), &[345_600, 499_200, 960_000]);
        check(Steps::Every(100), &[345_600, 960_000]);
        check(Steps::Listed(vec![806_000, 345_600]), &[345_600, 806_400]);
        let error = Steps::Listed(vec![700_000]).of(&OFFERED).unwrap_err().to_string();
        assert_eq!(error, "the board does not offer 700 MHz; the nearest are 652.8 and 806.4");
        let error = Steps::Listed(vec![2_000_000]).of(&OFFERED).unwrap_err().to_string();
        assert_eq!(error, "the board does not offer 2000 MHz; the nearest are 960");
    }

    fn offer() -> ModeOffer {
        ModeOffer {
            power_mode: Some(PowerMode { id: 0, name: "MAXN".to_owned() }),
            fixed: BTreeMap::from([("gpu".to_owned(), 1_300_500)]),
            varied: BTreeMap::from([
                ("a57".to_owned(), OFFERED.to_vec()),
                ("denver".to_owned(), vec![345_600, 960_000]),
            ]),
            ..ModeOffer::default()
        }
    }

    #[test]
    fn a_grid_has_all_combinations_and_its_corners_are_in_it() {
        let offer = offer();
        let points = offer.points();
        assert_eq!((points.len(), offer.len()), (10, 10));
        assert_eq!(points[0].to_string(), "MAXN a57 346 denver 346 gpu 1301 MHz");
        let corners: Vec<String> = offer.corners().iter().map(ToString::to_string).collect();
        assert_eq!(
            corners,
            [
                "MAXN a57 960 denver 960 gpu 1301 MHz",
                "MAXN a57 653 denver 960 gpu 1301 MHz",
                "MAXN a57 346 denver 346 gpu 1301 MHz",
                "MAXN a57 960 denver 346 gpu 1301 MHz"
            ]
        );
        assert!(offer.corners().iter().all(|corner| points.contains(corner)));
        assert_eq!(offer.ends(), [offer.corners()[0].clone(), offer.corners()[2].clone()]);
        let alone = ModeOffer { varied: BTreeMap::new(), ..offer };
        assert_eq!((alone.points().len(), alone.corners().len(), alone.ends().len()), (1, 1, 1));
        assert_eq!(OperatingPoint::default().to_string(), "default");
    }

    #[test]
    fn neighbours_are_one_step_away() {
        let points = offer().points();
        let at = points.iter().position(|point| point.max_khz["a57"] == 652_800).unwrap();
        let found: Vec<String> =
            neighbours(&points, at).into_iter().map(|at| points[at].to_string()).collect();
        assert_eq!(
            found,
            [
                "MAXN a57 499 denver 346 gpu 1301 MHz",
                "MAXN a57 806 denver 346 gpu 1301 MHz",
                "MAXN a57 653 denver 960 gpu 1301 MHz"
            ]
        );
    }

    #[test]
    fn each_governor_and_memory_clock_is_profiled() {
        let governors = ["performance", "powersave"].map(str::to_owned).to_vec();
        let offer = ModeOffer { governors, memory_khz: vec![408_000, 1_866_000], ..offer() };
        let points = offer.points();
        assert_eq!((points.len(), offer.len()), (40, 40));
        assert_eq!(points[0].to_string(), "MAXN performance a57 346 denver 346 gpu 1301 memory 1866 MHz");
        let corners = offer.corners();
        assert!(corners.iter().all(|corner| points.contains(corner)));
        let of =
            |point: &OperatingPoint| corners.iter().filter(|corner| corner.shares_model_with(point)).count();
        assert_eq!((of(&points[0]), of(&points[10]), of(&points[39]), corners.len()), (4, 2, 2, 10));
        assert_eq!(offer.ends().len(), 8);
        let at = points.iter().position(|point| point.memory_khz == Some(408_000)).unwrap();
        let found: Vec<String> =
            neighbours(&points, at).into_iter().map(|at| points[at].to_string()).collect();
        let name = |a57, denver, memory| {
            format!("MAXN performance a57 {a57} denver {denver} gpu 1301 memory {memory} MHz")
        };
        assert_eq!(found, [name(346, 346, 1866), name(499, 346, 408), name(346, 960, 408)]);
        // A memory clock that is not locked is not a step away from one that is.
        let unlocked = OperatingPoint { memory_khz: None, ..points[at].clone() };
        assert!(neighbours(&[points[at].clone(), unlocked], 0).is_empty());
    }

    #[test]
    fn a_setting_has_a_model_of_its_own_if_it_can_be_fitted() {
        let at = |memory_khz| OperatingPoint { memory_khz, ..OperatingPoint::default() };
        let samples = [(at(Some(1)), 2), (at(Some(1)), 4), (at(Some(2)), 9), (at(None), 0)];
        let fit = |samples: &[(OperatingPoint, i32)]| {
            let sum: i32 = samples.iter().map(|(_, value)| value).sum();
            if sum > 0 { Ok(sum) } else { Err(()) }
        };
        let models = PerSetting::fit(&samples, |(point, _)| point, fit).unwrap();
        let found = [Some(1), Some(2), None, Some(3)].map(|khz| *models.at(&at(khz)));
        assert_eq!(found, [6, 9, 15, 15]);
        assert_eq!(models.used().copied().collect::<Vec<i32>>(), [6, 9]);
        let one = PerSetting::fit(&samples[..2], |(point, _)| point, fit).unwrap();
        assert_eq!(one.used().copied().collect::<Vec<i32>>(), [6]);
        assert!(PerSetting::fit(&samples[3..], |(point, _)| point, fit).is_err());
    }
}
