//! How long each unit of a network takes on one processor.

use crate::processor::ProcessorName;
use crate::samples::Samples;
use crate::units::Nanoseconds;
use serde::Serialize;

/// Time of each unit, in ns, in unit order. Finite and not negative, with at least one unit.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct UnitCosts(Vec<f64>);

impl UnitCosts {
    /// The times in ns.
    pub fn as_ns(&self) -> &[f64] {
        &self.0
    }

    /// All units together, in ns.
    pub fn sum_ns(&self) -> f64 {
        self.0.iter().sum()
    }
}

/// Profile of a network on one processor.
///
/// Timing every kernel call slows a frame down, so the medians of the units are scaled to add up to the median of whole
/// frames without instrumentation. A factor far from 1 means that the instrumentation, or something between the kernels,
/// costs as much as the units.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    processor: ProcessorName,
    unit_ns: UnitCosts,
    frame_ns: f64,
    scale: f64,
}

impl Profile {
    /// Profile from raw durations: `unit_samples[u]` of unit `u` in instrumented frames, `whole_frame` of frames
    /// without the instrument.
    pub fn from_samples(
        processor: ProcessorName,
        unit_samples: &[Vec<Nanoseconds>],
        whole_frame: &[Nanoseconds],
    ) -> Result<Self, ProfileError> {
        let medians = unit_samples.iter().map(|samples| median_ns(samples)).collect::<Vec<_>>();
        if let Some(unit) = medians.iter().position(Option::is_none) {
            return Err(ProfileError::UnitWithoutSamples { processor, unit });
        }
        Self::scaled(processor, medians.into_iter().flatten().collect(), whole_frame)
    }

    /// Profile from the durations of kernel calls, of which a unit may have several or none: `calls` are pairs of
    /// a unit and that call's duration in each frame. The calls of a unit are added up frame by frame; a unit
    /// without calls (a reshape that the compiler removed) does nothing, and costs 0.
    pub fn from_calls(
        processor: ProcessorName,
        units: usize,
        calls: &[(usize, Vec<Nanoseconds>)],
        whole_frame: &[Nanoseconds],
    ) -> Result<Self, ProfileError> {
        let frames = calls.first().map_or(0, |(_, samples)| samples.len());
        let mut per_unit: Vec<Option<Vec<Nanoseconds>>> = vec![None; units];
        for (call, (unit, samples)) in calls.iter().enumerate() {
            let Some(slot) = per_unit.get_mut(*unit) else {
                return Err(ProfileError::UnknownUnit { processor, unit: *unit, units });
            };
            if samples.len() != frames {
                return Err(ProfileError::UnevenCalls {
                    processor,
                    call,
                    found: samples.len(),
                    expected: frames,
                });
            }
            let sums = slot.get_or_insert_with(|| vec![Nanoseconds(0); frames]);
            for (sum, sample) in sums.iter_mut().zip(samples) {
                sum.0 = sum.0.saturating_add(sample.0);
            }
        }
        let mut medians = Vec::with_capacity(units);
        for (unit, samples) in per_unit.iter().enumerate() {
            match samples.as_ref().map(|samples| median_ns(samples)) {
                None => medians.push(0.0),
                Some(Some(median)) => medians.push(median),
                Some(None) => return Err(ProfileError::UnitWithoutSamples { processor, unit }),
            }
        }
        Self::scaled(processor, medians, whole_frame)
    }

    fn scaled(
        processor: ProcessorName,
        mut unit_ns: Vec<f64>,
        whole_frame: &[Nanoseconds],
    ) -> Result<Self, ProfileError> {
        let Some(frame_ns) = median_ns(whole_frame) else {
            return Err(ProfileError::NoWholeFrame { processor });
        };
        let sum: f64 = unit_ns.iter().sum();
        if sum <= 0.0 || frame_ns <= 0.0 {
            return Err(ProfileError::NoTime { processor });
        }
        let scale = frame_ns / sum;
        for ns in &mut unit_ns {
            *ns *= scale;
        }
        Ok(Self { processor, unit_ns: UnitCosts(unit_ns), frame_ns, scale })
    }

    /// The processor profiled.
    pub fn processor(&self) -> &ProcessorName {
        &self.processor
    }

    /// Scaled time of each unit.
    pub fn unit_costs(&self) -> &UnitCosts {
        &self.unit_ns
    }

    /// Median of the whole frames without the instrument, in ns; the unit costs add up to it.
    pub fn frame_ns(&self) -> f64 {
        self.frame_ns
    }

    /// Factor by which the units' medians were multiplied.
    pub fn scale(&self) -> f64 {
        self.scale
    }
}

/// Median in ns; `None` without samples.
fn median_ns(samples: &[Nanoseconds]) -> Option<f64> {
    Samples::of_durations(samples).ok().map(|samples| samples.median())
}

/// Why samples are not a valid profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// A unit was never timed.
    #[error("failed to profile {processor}: unit {unit} has no samples")]
    UnitWithoutSamples {
        /// The processor.
        processor: ProcessorName,
        /// Place of the unit.
        unit: usize,
    },
    /// No frame was timed without the instrument.
    #[error("failed to profile {processor}: no whole frame was timed")]
    NoWholeFrame {
        /// The processor.
        processor: ProcessorName,
    },
    /// All times are zero, or there are no units.
    #[error("failed to profile {processor}: the frames took no time at all")]
    NoTime {
        /// The processor.
        processor: ProcessorName,
    },
    /// A call belongs to a unit that does not exist.
    #[error("failed to profile {processor}: a call belongs to unit {unit}, and there are {units} units")]
    UnknownUnit {
        /// The processor.
        processor: ProcessorName,
        /// The unit named.
        unit: usize,
        /// Units there are.
        units: usize,
    },
    /// A call was timed in fewer or more frames than the first.
    #[error("failed to profile {processor}: call {call} has {found} samples, the first has {expected}")]
    UnevenCalls {
        /// The processor.
        processor: ProcessorName,
        /// Place of the call.
        call: usize,
        /// Its samples.
        found: usize,
        /// Samples expected.
        expected: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(values: &[u64]) -> Vec<Nanoseconds> {
        values.iter().copied().map(Nanoseconds).collect()
    }

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9 * right.abs().max(1.0)
    }

    #[test]
    fn units_add_up_to_the_whole_frame() {
        let samples = [ns(&[100, 120, 900]), ns(&[300, 260, 280, 280])];
        let profile = Profile::from_samples("cpu0".into(), &samples, &ns(&[200, 190, 210])).unwrap();
        assert!(close(profile.frame_ns(), 200.0));
        assert!(close(profile.scale(), 0.5));
        assert!(close(profile.unit_costs().as_ns()[0], 60.0));
        assert!(close(profile.unit_costs().sum_ns(), 200.0));
    }

    #[test]
    fn calls_of_a_unit_are_added_up_frame_by_frame() {
        let calls = [(0, ns(&[10, 30, 20])), (2, ns(&[5, 5, 5])), (0, ns(&[40, 20, 30]))];
        let profile = Profile::from_calls("cpu0".into(), 3, &calls, &ns(&[110])).unwrap();
        let units = profile.unit_costs().as_ns();
        assert!(close(units[0], 100.0) && close(units[2], 10.0), "{units:?}");
        assert!(units[1].abs() < f64::EPSILON, "nothing is executed for unit 1");
    }

    #[test]
    fn what_is_no_profile() {
        let check = |samples: &[Vec<Nanoseconds>], whole: &[u64], wanted: &str| {
            let error = Profile::from_samples("cpu0".into(), samples, &ns(whole)).unwrap_err().to_string();
            assert_eq!(error, format!("failed to profile cpu0: {wanted}"));
        };
        check(&[ns(&[1]), vec![]], &[1], "unit 1 has no samples");
        check(&[ns(&[1])], &[], "no whole frame was timed");
        check(&[ns(&[0])], &[1], "the frames took no time at all");
        check(&[ns(&[1])], &[0], "the frames took no time at all");
        check(&[], &[1], "the frames took no time at all");
        let uneven = Profile::from_calls("c".into(), 1, &[(0, ns(&[1])), (0, ns(&[1, 2]))], &ns(&[1]));
        assert!(matches!(uneven, Err(ProfileError::UnevenCalls { call: 1, .. })));
        let unknown = Profile::from_calls("c".into(), 1, &[(1, ns(&[1]))], &ns(&[1]));
        assert!(matches!(unknown, Err(ProfileError::UnknownUnit { unit: 1, units: 1, .. })));
    }
}
