//! How far outputs may differ.

use config::Experiment;
use domain::FloatFormat;

/// The largest difference between outputs, relative to the largest value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tolerance {
    /// The setting of the experiment.
    pub(crate) setting: &'static str,
    /// Its value.
    pub(crate) value: f64,
}

impl Tolerance {
    /// For outputs of a network that GPUs compute in `precision`. `on_gpu`: whether a GPU computed some of them.
    pub(crate) fn of(experiment: &Experiment, precision: FloatFormat, on_gpu: bool) -> Self {
        match precision {
            FloatFormat::Fp16 if on_gpu => {
                Self { setting: "fp16_tolerance", value: experiment.fp16_tolerance }
            }
            FloatFormat::Fp16 | FloatFormat::Fp32 => {
                Self { setting: "tolerance", value: experiment.tolerance }
            }
        }
    }
}
