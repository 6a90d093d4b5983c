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
    /// Highest frequency of each processor in kHz, by name. A processor that this point has offline, or whose clock is not
    /// known, is absent.
    pub max_khz: BTreeMap<String, u64>,
}

impl fmt::Display for OperatingPoint {
    /// For example `MAXN a57 2035 denver 346 MHz`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = self.power_mode.iter().map(|mode| mode.name.clone());
        let clocks = self.max_khz.iter().map(|(name, khz)| format!("{name} {}", (khz + 500) / 1000));
        let unit = (!self.max_khz.is_empty()).then(|| "MHz".to_owned());
        let parts: Vec<String> = mode.chain(clocks).chain(unit).collect();
        out.write_str(&if parts.is_empty() { "default".to_owned() } else { parts.join(" ") })
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

/// A frequency in MHz, as short as it is exact.
pub fn mhz(khz: u64) -> String {
    (khz as f64 / 1000.0).to_string()
}

/// A listed frequency is the offered one that is no further away than this, in kHz: files have MHz with few digits.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeOffer {
    /// Absent if the board has none.
    pub power_mode: Option<PowerMode>,
    /// Frequencies of processors that are not varied, in kHz.
    pub fixed: BTreeMap<String, u64>,
    /// The frequencies of the others in kHz, ascending and not empty.
    pub varied: BTreeMap<String, Vec<u64>>,
}

impl ModeOffer {
    /// Number of points in this mode.
    pub fn len(&self) -> usize {
        self.varied.values().map(Vec::len).fold(1, usize::saturating_mul)
    }

    /// Whether there is no point.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every combination of the varied frequencies.
    pub fn points(&self) -> Vec<OperatingPoint> {
        let mut points = vec![self.fixed.clone()];
        for (name, steps) in &self.varied {
            let with = |point: &BTreeMap<String, u64>, khz: &u64| {
                let mut point = point.clone();
                point.insert(name.clone(), *khz);
                point
            };
            points = points.iter().flat_map(|point| steps.iter().map(move |khz| with(point, khz))).collect();
        }
        let power_mode = &self.power_mode;
        points.into_iter().map(|max_khz| OperatingPoint { power_mode: power_mode.clone(), max_khz }).collect()
    }

    /// The points with the highest and with the lowest frequencies.
    pub fn ends(&self) -> Vec<OperatingPoint> {
        let corners = self.corners();
        corners
            .iter()
            .take(1)
            .chain(corners.iter().skip(1).min_by_key(|point| point.max_khz.values().sum::<u64>()))
            .cloned()
            .collect()
    }

    /// The points to be profiled, from which all others are predicted: all frequencies at their highest, middle and lowest,
    /// and each processor's at its highest while the others are at their lowest. Each once.
    pub fn corners(&self) -> Vec<OperatingPoint> {
        let point = |place: &dyn Fn(&str, usize) -> usize| {
            let mut max_khz = self.fixed.clone();
            for (name, steps) in &self.varied {
                max_khz.insert(name.clone(), steps[place(name, steps.len())]);
            }
            OperatingPoint { power_mode: self.power_mode.clone(), max_khz }
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

/// The points that differ from a point by the next frequency of one processor, by their places among `points`.
pub fn neighbours(points: &[OperatingPoint], at: usize) -> Vec<usize> {
    let own = &points[at];
    // By processor and direction: the nearest one.
    let mut nearest: BTreeMap<(&str, bool), (u64, usize)> = BTreeMap::new();
    for (place, other) in points.iter().enumerate() {
        if other.power_mode != own.power_mode || !other.max_khz.keys().eq(own.max_khz.keys()) {
            continue;
        }
        let mut different = own.max_khz.iter().filter(|(name, khz)| other.max_khz[*name] != **khz);
        if let (Some((name, khz)), None) = (different.next(), different.next()) {
            let theirs = other.max_khz[name];
            let entry = nearest.entry((name, theirs > *khz)).or_insert((u64::MAX, place));
            *entry = (*entry).min((theirs.abs_diff(*khz), place));
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
}
