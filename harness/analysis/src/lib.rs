//! Records to figures: what reports, the regression gate and the history show, computed from raw observations.
//!
//! [`Report::build`] takes the raw observations of a run to rows by the functions of `domain`. Nothing here renders text.
//! What was not measured is absent, never a zero. A void row has its figures and the reasons why they do not count, and
//! enters no gain.

mod assembly;
mod campaign;
mod claims;
mod energy;
mod figures;
pub mod gate;
mod heading;
pub mod history;
mod measurements;
mod meter;
mod optimization;
mod places;
mod pooled;
mod reasons;
mod rows;
#[cfg(any(test, feature = "scenario"))]
pub mod scenario;
mod stored_settings;
mod stream;
mod stream_section;
mod stream_trial;
#[cfg(test)]
mod tests;
mod timeline;
mod trial;

pub use campaign::{Against, BoardSection, CampaignReport, CampaignSection};
pub use claims::{Claim, ClaimComparison, ClaimKind, ClaimOnNetwork, ClaimRun, ClaimVerdict, Claims};
pub use figures::{ScheduleFigures, TrialFigures, schedule_figures};
pub use meter::energy_within;
pub use optimization::{Closest, FrontRow, Observed, Optimization, PointSection, PowerModelSection};
pub use places::{LatestRun, PlaceRuns};
pub use rows::{
    GpuSection, Interval, Latency, MachineSection, NetworkSection, PowerCycleSection, PowerSection,
    ProcessorSection, RailSection, Report, Row, RunSection, SCHEMA, StageSection, Summary, Timeline,
    is_comparable,
};
pub use stream_section::{
    LatencyBin, LatencyIntervals, LatencyQuantile, StreamSection, StreamShare, StreamTrace,
};
pub use timeline::speed;

/// Frames per second of a trial on these CPUs, if nothing voids it.
pub fn valid_throughput(measured: protocol::Measured, cpus: &[u32], uses_gpu: bool) -> Option<f64> {
    let limits = domain::validity::Limits::default();
    let bounds =
        trial::Bounds { cpus, uses_gpu, pipeline: None, min_frames: None, limits: &limits, state: None };
    let trial = trial::Trial::new(0, measured, bounds).ok()?;
    trial.is_valid().then_some(trial.throughput.0)
}

/// Whether a trial under a stream sustained its rate. `None`: it is void, or not of a stream.
pub fn sustains(
    measured: &protocol::Measured,
    cpus: &[u32],
    uses_gpu: bool,
    wanted: &domain::SustainedLoad,
) -> Option<bool> {
    let limits = domain::validity::Limits::default();
    let bounds =
        trial::Bounds { cpus, uses_gpu, pipeline: None, min_frames: None, limits: &limits, state: None };
    let trial = trial::Trial::new(0, measured.clone(), bounds).ok()?;
    trial.is_valid().then(|| trial.sustains(wanted)).flatten()
}

/// The load of a run.
pub fn load_of(run: &store::StoredRun) -> domain::Load {
    stored_settings::StoredSettings::of(&run.start.configuration).load
}

/// Whether a run slowed a stage down on purpose.
pub fn is_injected(run: &store::StoredRun) -> bool {
    stored_settings::StoredSettings::of(&run.start.configuration).slow_down.is_some()
}
