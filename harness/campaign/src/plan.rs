//! From what the experiment asks for to schedules.

use super::peers;
use crate::processors::Processor;
use config::{ManualStage, ScheduleSpec};
use domain::{Costs, Network, Prediction, ProcessorName, Schedule, ScheduleKind, Transfer, planner, predict};
use host::exit::{Ending as _, Exit, Failure, Outcome};

/// A schedule to measure.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What runs where.
    pub schedule: Schedule,
    /// What is expected of it; nothing of a peer, which is not profiled.
    pub prediction: Option<Prediction>,
}

/// The schedules of a network, each once, and remarks for the user.
#[derive(Debug, Clone, Default)]
pub struct Plans {
    /// In the order of the experiment.
    pub planned: Vec<Planned>,
    /// What the user should know, such as that no pipeline is faster than one processor.
    pub remarks: Vec<String>,
}

/// What units cost on a processor that works alone, and on one that has all others beside it.
#[derive(Debug, Clone)]
pub(super) struct CostsByCompany {
    /// For single schedules.
    pub(super) alone: Costs,
    /// For pipelines and replicates.
    pub(super) in_company: Costs,
}

/// Resolves `specs` for a network. `peer_version` is that of the peers' library.
///
/// # Errors
/// Where a cut does not exist or a schedule cannot be made of what is asked.
pub(super) fn resolve(
    specs: &[ScheduleSpec],
    network: &Network,
    costs: &CostsByCompany,
    processors: &[Processor],
    peer_version: &str,
) -> Outcome<Plans> {
    let mut plans = Plans::default();
    let all: Vec<ProcessorName> = processors.iter().map(|processor| processor.name.clone()).collect();
    for spec in specs {
        let schedules = match spec {
            ScheduleSpec::SingleEach => {
                all.iter().map(|name| Schedule::single(network, name.clone())).collect()
            }
            ScheduleSpec::Single(name) => vec![Schedule::single(network, ProcessorName::new(name))],
            ScheduleSpec::PipelineAuto { processors } => {
                let names: Option<Vec<_>> =
                    processors.as_ref().map(|names| names.iter().map(ProcessorName::new).collect());
                vec![automatic(network, &costs.in_company, names.as_deref(), &mut plans.remarks)?]
            }
            ScheduleSpec::PipelineManual(stages) => vec![manual(network, stages)?],
            ScheduleSpec::ReplicateAll => vec![replicate(network, all.clone())?],
            ScheduleSpec::Replicate(names) => {
                vec![replicate(network, names.iter().map(ProcessorName::new).collect())?]
            }
            ScheduleSpec::Peer(spec) => {
                let peer = peers::placed(spec, peer_version, processors)?;
                vec![Schedule::peer(network, peer).ending(Exit::Bug)?]
            }
        };
        for schedule in schedules {
            if plans.planned.iter().any(|planned| planned.schedule == schedule) {
                continue;
            }
            let costs = match schedule.kind() {
                ScheduleKind::Single => Some(&costs.alone),
                ScheduleKind::Pipeline | ScheduleKind::Replicate => Some(&costs.in_company),
                ScheduleKind::Peer => None,
            };
            let prediction =
                costs.map(|costs| predict(network, costs, &schedule)).transpose().ending(Exit::Bug)?;
            plans.planned.push(Planned { schedule, prediction });
        }
    }
    Ok(plans)
}

fn automatic(
    network: &Network,
    costs: &Costs,
    names: Option<&[ProcessorName]>,
    remarks: &mut Vec<String>,
) -> Outcome<Schedule> {
    let chosen = match names {
        Some(names) => &restricted(costs, names)?,
        None => costs,
    };
    let plan = planner::plan(network, chosen, &planner::Options::default()).ending(Exit::Bug)?;
    if let [only] = plan.schedule.stages() {
        remarks.push(format!(
            "{}: no pipeline is faster than {} alone, so none is measured",
            network.name(),
            only.processor
        ));
    }
    Ok(plan.schedule)
}

/// The costs of these processors alone.
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
            error: anyhow::Error::from(error)
                .context(format!("failed to cut the network {} by hand", network.name())),
        })?;
        cuts.push((ProcessorName::new(&stage.processor), cut));
    }
    Schedule::from_cuts(network, &cuts).map_err(|error| Failure {
        exit: Exit::Usage,
        error: anyhow::Error::from(error)
            .context(format!("failed to cut the network {} by hand", network.name())),
    })
}

fn replicate(network: &Network, names: Vec<ProcessorName>) -> Outcome<Schedule> {
    Schedule::replicate(network, names).ending(Exit::Usage)
}
