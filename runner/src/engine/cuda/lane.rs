//! What a frame on the device has for itself, so that the next frame can be copied meanwhile.

use super::api::CallError;
use super::device::{Device, Memory};
use super::graph::Graph;
use super::module::{Module, PreparedLaunch};
use super::plan::CheckedPlan;
use super::stream::{Event, Stream};
use super::weights::DeviceWeights;
use crate::failure::Failure;
use std::sync::Arc;

/// Memory for all tensors of a stage, a stream, and the launches that use both. Fields are dropped in order: what uses memory
/// before the memory.
pub(super) struct Lane {
    /// Absent if the driver has no graphs or refused this one.
    pub(super) graph: Option<Graph>,
    /// Why the driver refused the graph.
    pub(super) graph_refused: Option<CallError>,
    pub(super) launches: Vec<PreparedLaunch>,
    /// Reached when the kernels of the lane's latest frame have ended.
    pub(super) kernels_done: Event,
    pub(super) stream: Stream,
    pub(super) arena: Memory,
}

impl Lane {
    pub(super) fn new(
        device: &Arc<Device>,
        module: &Module,
        plan: &CheckedPlan,
        weights: &DeviceWeights,
        path: &str,
    ) -> Result<Self, Failure> {
        let unprepared = |error: CallError| {
            let index = device.index;
            Failure::device(format!("failed to prepare GPU {index} for {path}: {}", device.describe(error)))
        };
        let stream = Stream::new(device).map_err(unprepared)?;
        let kernels_done = Event::without_time(device).map_err(unprepared)?;
        let arena = device.allocate(plan.plan.arena_bytes, &format!("the tensors of {path}"))?;
        let mut launches = PreparedLaunch::all(module, plan, arena.address, &weights.addresses, path)?;
        let graph =
            Graph::capture(device, |stream| launches.iter_mut().try_for_each(|launch| launch.start(stream)));
        let (graph, graph_refused) = match graph {
            Ok(graph) => (graph, None),
            Err(error) => (None, Some(error)),
        };
        Ok(Self { graph, graph_refused, launches, kernels_done, stream, arena })
    }
}
