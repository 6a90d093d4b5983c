//! The pure core: networks, profiles and schedules, the planner, and the statistics of measured frames.
//!
//! Invariants: no input or output, no clock, no environment, no unseeded randomness. Everything here is a function
//! of its arguments; equal arguments give equal results, bit by bit. Constructors enforce the invariants of their types.
//! Raw observations are taken as they are: outlying values are labelled, never dropped. What was not measured is
//! absent with a reason, never zero.

pub mod comparison;
pub mod costs;
pub mod distributions;
pub mod disturbance;
pub mod energy;
pub mod fleet;
pub mod float_format;
pub mod frequency;
pub mod front;
pub mod gate;
pub mod history;
pub mod load;
pub mod metric;
mod nearest;
pub mod network;
pub mod objective;
pub mod operating_point;
pub mod packed;
pub mod peer;
pub mod picture_rule;
pub mod planner;
pub mod point_power;
pub mod power_model;
pub mod precision;
pub mod prediction;
pub mod processor;
mod processor_set;
pub mod profile;
pub mod queue_model;
pub mod queue_plan;
pub mod random;
pub mod rate_planner;
pub mod roofline;
pub mod samples;
pub mod schedule;
pub mod search;
pub mod statistics;
pub mod steady;
pub mod stream;
pub mod sustained;
pub mod throughput;
pub mod units;
pub mod validity;
mod winograd;

pub use comparison::{Comparison, ComparisonError, Finding, Observation};
pub use costs::{Costs, CostsError, Link, Transfer};
pub use energy::{Absence, Drawn, Energy};
pub use fleet::FleetMode;
pub use float_format::FloatFormat;
pub use frequency::FrequencyModel;
pub use front::{FrontCosts, FrontPoint, front};
pub use history::{History, Level, Step, history};
pub use load::{ArrivalTimes, Load, QueueLength, QueuePolicy, StreamLoad, SustainedLoad};
pub use metric::{Direction, Metric};
pub use network::{Boundary, Cut, Network, NetworkError, Tensor, Unit, UnknownCut};
pub use objective::{Choice, Limit, Objective};
pub use operating_point::{ModeOffer, OperatingPoint, PowerMode, Steps};
pub use peer::{GpuProvider, Peer, PeerGpu};
pub use picture_rule::{ChannelOrder, PictureFit, PictureLayout, PictureRule};
pub use planner::{Options, Plan, PlanError, best_single, plan};
pub use point_power::{PointPower, PointWindow};
pub use power_model::{PowerModel, PowerModelError, PowerWindow, Predicted};
pub use prediction::{Prediction, PredictionError, periods_ns, predict, predict_timed};
pub use processor::{CudaArch, ProcessorKind, ProcessorName, cuda_release};
pub use profile::{Profile, ProfileError, UnitCosts};
pub use queue_plan::{QueuePlan, QueueReason, plan_queues};
pub use random::SplitMix64;
pub use rate_planner::plan_for_rate;
pub use roofline::{BelowRoof, Roof};
pub use samples::{Samples, SamplesError, median_in_place};
pub use schedule::{Schedule, ScheduleError, ScheduleKind, Stage};
pub use statistics::{Confidence, Interval, Method, median_interval};
pub use steady::{Steadiness, Stretch, steadiness};
pub use throughput::{Latency, Window, WindowError};
pub use units::{Bytes, FramesPerSecond, Millijoules, Milliwatts, Nanoseconds};
pub use validity::{Limits, Reason, ReasonCode, Severity, Validity};
pub use winograd::Winograd;

/// Version of the analysis. Everything derived from raw observations carries it; it rises with every change that
/// makes the same observations give other figures.
pub const ANALYSIS_VERSION: u32 = 2;
