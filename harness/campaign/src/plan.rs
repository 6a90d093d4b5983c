//! Chooses the schedules of each network and predicts their throughput.

use crate::compile::CompiledNetwork;
use crate::merged;
use crate::open::OpenedBoard;
use crate::peers;
use crate::prior::PriorResults;
use crate::processors::Processor;
use crate::profile::{NetworkCosts, Profiles};
use crate::queues;
use config::{Experiment, ManualStage, ScheduleSpec};
use domain::{
    Costs, Network, Objective, Prediction, ProcessorName, QueuePlan, Schedule, StreamLoad, Transfer,
    plan_for_rate, planner,
};
use host::exit::{Ending as _, Exit, Failure, Outcome};
use host::progress;

/// A schedule to measure.
#[derive(Debug, Clone)]
pub struct PlannedSchedule {
    /// Stages with their processors.
    pub schedule: Schedule,
    /// Place of its operating point; 0 is that of the board's file.
    pub point: usize,
    /// Absent for a peer, which is not profiled.
    pub prediction: Option<Prediction>,
    /// How many frames of a stream can wait, if the experiment leaves that to the planner.
    pub queues: Option<QueuePlan>,
}

/// A network with the schedules to measure.
#[derive(Debug)]
pub struct NetworkPlan {
    /// Number of the first schedule within the run.
    first: usize,
    pub(crate) compiled: CompiledNetwork,
    /// Costs of hand-overs between the board's processors.
    pub(crate) links: Transfer,
    /// Distinct schedules, in the order of the experiment.
    pub schedules: Vec<PlannedSchedule>,
}

impl NetworkPlan {
    /// The network's name.
    pub fn name(&self) -> &str {
        &self.compiled.name
    }

    /// Names of the units, in order.
    pub fn unit_names(&self) -> Vec<&str> {
        self.compiled.network.units().iter().map(|unit| unit.name.as_str()).collect()
    }

    /// Number of a schedule within the run.
    pub(crate) fn place(&self, position: usize) -> u32 {
        u32::try_from(self.first + position).unwrap_or(u32::MAX)
    }
}

/// Plans all networks. The costs are in the order of `networks`. Queues that `prior` has are kept.
///
/// # Errors
/// If a cut does not exist, or a schedule of the experiment is impossible on this board.
pub(crate) fn plan(
    board: &OpenedBoard,
    networks: Vec<CompiledNetwork>,
    profiles: &Profiles,
    prior: &PriorResults,
) -> Outcome<Vec<NetworkPlan>> {
    let experiment = &board.loaded.experiment;
    let peer_version = board.builder.peer.as_ref().map_or("", |peer| &peer.version);
    let (mut plans, mut first) = (Vec::new(), 0);
    for (compiled, costs) in networks.into_iter().zip(&profiles.costs) {
        config::check_cuts(experiment, &compiled.network).ending(Exit::Usage)?;
        let (specs, processors) = (&experiment.schedules, board.processors());
        let mut schedules =
            resolve(specs, &compiled.network, costs, processors, peer_version, rate(experiment))?;
        let of_network = || prior.schedules.iter().filter(|known| known.network == compiled.name);
        for planned in &mut schedules {
            let known = of_network().find(|known| known.schedule == planned.schedule);
            let what = (&planned.schedule, planned.prediction.as_ref());
            planned.queues = known
                .and_then(|known| known.queues)
                .or_else(|| queues::plan(experiment, &compiled.name, &profiles.records, processors, what));
        }
        let count = schedules.len();
        let links = costs.contended.transfer().clone();
        plans.push(NetworkPlan { first, compiled, links, schedules });
        first += count;
    }
    Ok(plans)
}

/// The rate of the stream if pipelines are planned for the least latency at it, in frames per second.
fn rate(experiment: &Experiment) -> Option<f64> {
    let stream = experiment.load.stream().filter(|_| experiment.objective == Objective::Latency);
    stream.map(StreamLoad::total_fps)
}

/// The schedules that `specs` describe, each once. `peer_version` is the version of the peers' library. With a `rate` in frames
/// per second, pipelines are planned for the least latency at it, and otherwise for throughput.
fn resolve(
    specs: &[ScheduleSpec],
    network: &Network,
    costs: &NetworkCosts,
    processors: &[Processor],
    peer_version: &str,
    rate: Option<f64>,
) -> Outcome<Vec<PlannedSchedule>> {
    let mut planned: Vec<PlannedSchedule> = Vec::new();
    let names = processors.iter().map(|processor| processor.name.clone());
    let own: Vec<ProcessorName> = names.filter(|name| !name.is_merged()).collect();
    for spec in specs {
        let schedules = match spec {
            ScheduleSpec::SingleEach => {
                own.iter().map(|name| Schedule::single(network, name.clone())).collect()
            }
            ScheduleSpec::Single(name) => vec![Schedule::single(network, ProcessorName::new(name))],
            ScheduleSpec::MergedAll => {
                let merged = merged::all_cpus(processors);
                merged.into_iter().map(|name| Schedule::single(network, name)).collect()
            }
            ScheduleSpec::Merged(names) => {
                let parts: Vec<_> = names.iter().map(ProcessorName::new).collect();
                vec![Schedule::single(network, ProcessorName::merged(&parts))]
            }
            ScheduleSpec::PipelineAuto { processors: None } => {
                vec![automatic(network, costs.pipelined(), &own, rate)?]
            }
            ScheduleSpec::PipelineAuto { processors: Some(names) } => {
                let names: Vec<_> = names.iter().map(ProcessorName::new).collect();
                vec![automatic(network, costs.pipelined(), &names, rate)?]
            }
            ScheduleSpec::PipelineManual(stages) => vec![manual(network, stages)?],
            ScheduleSpec::ReplicateAll => vec![replicate(network, own.clone())?],
            ScheduleSpec::Replicate(names) => {
                vec![replicate(network, names.iter().map(ProcessorName::new).collect())?]
            }
            ScheduleSpec::Peer(spec) => {
                let peer = peers::placed(spec, peer_version, processors)?;
                vec![Schedule::peer(network, peer).ending(Exit::Bug)?]
            }
        };
        for schedule in schedules {
            if planned.iter().any(|known| known.schedule == schedule) {
                continue;
            }
            let prediction = costs.predict(network, &schedule)?;
            planned.push(PlannedSchedule { schedule, point: 0, prediction, queues: None });
        }
    }
    Ok(planned)
}

fn automatic(
    network: &Network,
    costs: &Costs,
    names: &[ProcessorName],
    rate: Option<f64>,
) -> Outcome<Schedule> {
    let chosen = restricted(costs, names)?;
    if let Some(fps) = rate
        && let Some(plan) = plan_for_rate(network, &chosen, 1e9 / fps).ending(Exit::Usage)?
    {
        if let [only] = plan.schedule.stages() {
            let note = format!(
                "{}: no pipeline has a lower latency at {fps} frames/s than {} alone, so none is measured",
                network.name(),
                only.processor
            );
            progress::say("warning", &note);
        }
        return Ok(plan.schedule);
    }
    let plan = planner::plan(network, &chosen, &planner::Options::default()).ending(Exit::Bug)?;
    if let Some(fps) = rate {
        let predicted = plan.prediction.throughput.0;
        let which = if predicted < fps {
            format!(
                "no pipeline is predicted to keep up with {fps} frames/s; the one with the highest throughput is measured"
            )
        } else {
            format!(
                "only a pipeline with replicas is predicted to keep up with {fps} frames/s, so it is measured"
            )
        };
        progress::say("warning", &format!("{}: {which}", network.name()));
    }
    if let [only] = plan.schedule.stages() {
        let note = format!(
            "{}: no pipeline is faster than {} alone, so none is measured",
            network.name(),
            only.processor
        );
        progress::say("warning", &note);
    }
    Ok(plan.schedule)
}

/// The costs of these processors only.
fn restricted(costs: &Costs, names: &[ProcessorName]) -> Outcome<Costs> {
    let kept: Vec<usize> =
        (0..costs.processors().len()).filter(|&place| names.contains(&costs.processors()[place])).collect();
    let transfer = match costs.transfer() {
        Transfer::Uniform(link) => Transfer::Uniform(*link),
        Transfer::Pairs(pairs) => Transfer::Pairs(
            kept.iter().map(|&from| kept.iter().map(|&to| pairs[from][to]).collect()).collect(),
        ),
    };
    let processors = kept.iter().map(|&place| costs.processors()[place].clone()).collect();
    let unit_ns = kept.iter().map(|&place| costs.unit_ns(place).to_vec()).collect();
    Costs::new(processors, unit_ns, transfer).ending(Exit::Bug)
}

fn manual(network: &Network, stages: &[ManualStage]) -> Outcome<Schedule> {
    let mut cuts = Vec::new();
    for stage in stages {
        let cut = stage.until.as_ref().map(|until| network.cut_after(until)).transpose();
        let cut = cut.map_err(|error| Failure {
            exit: Exit::Usage,
            error: anyhow::Error::from(error).context(format!(
                "failed to apply the cuts of the experiment to the network {}",
                network.name()
            )),
        })?;
        cuts.push((stage.processor.names().iter().map(ProcessorName::new).collect(), cut));
    }
    Schedule::from_cuts(network, &cuts).map_err(|error| Failure {
        exit: Exit::Usage,
        error: anyhow::Error::from(error)
            .context(format!("failed to apply the cuts of the experiment to the network {}", network.name())),
    })
}

fn replicate(network: &Network, names: Vec<ProcessorName>) -> Outcome<Schedule> {
    Schedule::replicate(network, names).ending(Exit::Usage)
}
