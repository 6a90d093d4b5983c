//! Measures networks on one board or several. A run is a sequence of steps; each is a function in the file of its name,
//! and its result is what the next step takes:
//!
//! | step | result |
//! |---|---|
//! | [`open`]: take the board, start the runner, resolve the processors | [`OpenedBoard`] |
//! | `compile`: compile each network for each target | `Vec<CompiledNetwork>` |
//! | `verify`: compare each network's outputs with an independent engine's | – |
//! | `profile`: time units, hand-overs and contended frames | `Profiles` |
//! | `plan`: choose the schedules and predict them | `Vec<NetworkPlan>` |
//! | `link`: link the stages, describe the schedules to the runner | `Vec<LinkedNetwork>` |
//! | `compare`: compare each schedule's outputs with the baseline's | `Vec<ComparedNetwork>` |
//! | `measure`: run the trials, round by round | `Measured` |
//!
//! [`run()`] and [`resume`] do all of them and record the results, [`plan()`] stops before the comparison, and [`fleet`]
//! runs them on several boards at once.

mod canary;
mod compare;
mod compile;
mod cooling;
pub mod fleet;
mod frame_times;
mod gpus;
mod idle_power;
mod input_frames;
mod layers;
mod limits;
mod link;
mod measure;
mod merged;
mod npy;
pub mod open;
mod optimize;
mod paths;
mod peers;
mod plan;
mod point_change;
mod points;
mod prior;
pub mod processors;
mod profile;
pub mod provenance;
mod queues;
mod recording;
mod round_prediction;
mod round_queue;
mod rounds;
mod run;
mod runner_client;
mod schedule_message;
mod self_comparison;
mod start_barrier;
mod stop;
mod sustained;
mod tolerance;
mod trial;
mod trial_order;
mod verify;

pub use layers::layers;
pub use open::OpenedBoard;
pub use paths::Paths;
pub use plan::{NetworkPlan, PlannedSchedule};
pub use run::{RunEnd, plan, resume, run};
pub use runner_client::RunnerClient;
pub use self_comparison::{Pair, Pairing, compare_with_itself};
