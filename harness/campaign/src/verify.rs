//! Compares the outputs of each network on each processor with those that an independent engine computed from the same
//! frame, so that wrong code is never measured.

use crate::compile::CompiledNetwork;
use crate::frame_times::ProfileError;
use crate::open::OpenedBoard;
use crate::processors::Processor;
use crate::runner_client::{LOADING, RunnerClient};
use crate::schedule_message;
use crate::tolerance::Tolerance;
use anyhow::Context as _;
use compiler::ReferenceTensor;
use domain::Schedule;
use host::exit::{Exit, Failure, Outcome};
use host::progress::Progress;
use protocol::{Compared, Event, OutputDifference, Request};
use std::time::Duration;
use store::is_within;

/// Verifies all networks on all of `processors`.
///
/// # Errors
/// If an output differs by more than the experiment's tolerance, or the runner fails.
pub(crate) fn verify(
    board: &mut OpenedBoard,
    networks: &[CompiledNetwork],
    processors: &[Processor],
) -> Outcome<()> {
    let progress = Progress::begin("verify", networks.len() * processors.len());
    for network in networks {
        for note in &network.manifest.notes {
            progress.warn(&format!("{}: {note}", network.name));
        }
        for processor in processors {
            progress.doing(&format!("{} on {}", network.name, processor.name));
            let compared = request(&mut board.runner, network, processor)?;
            let tolerance =
                Tolerance::of(&board.loaded.experiment, network.precision, processor.kind.is_gpu());
            if let Some(output) = compared.outputs.iter().find(|output| !is_within(output, tolerance.value)) {
                return Err(refused(network, processor, output, tolerance));
            }
            progress.known();
        }
    }
    progress.end(&format!("{} networks on {} processors", networks.len(), processors.len()));
    Ok(())
}

fn refused(
    network: &CompiledNetwork,
    processor: &Processor,
    output: &OutputDifference,
    tolerance: Tolerance,
) -> Failure {
    let (name, engine) = (&network.name, &network.manifest.reference.engine);
    Failure::new(
        Exit::Trial,
        format!(
            "failed to verify {name} on {}: {}. Nothing was measured. Remove {name} from the experiment, and report this \
             with its ONNX file",
            processor.name,
            difference(output, engine, tolerance)
        ),
    )
}

fn difference(output: &OutputDifference, engine: &str, tolerance: Tolerance) -> String {
    let OutputDifference { name, elements, non_finite, max_abs, max_reference, .. } = output;
    if *non_finite > 0 {
        return format!(
            "{non_finite} of the {elements} elements of its output {name:?} are infinite or NaN where those of {engine} are \
             not, or vice versa"
        );
    }
    let Tolerance { setting, value } = tolerance;
    format!(
        "its output {name:?} differs from that of {engine} by up to {max_abs:.3e}; `{setting}: {value}` allows {:.3e} \
         for values up to {max_reference:.3e}",
        value * max_reference
    )
}

fn request(
    runner: &mut RunnerClient,
    network: &CompiledNetwork,
    processor: &Processor,
) -> Result<Compared, ProfileError> {
    let alone = std::slice::from_ref(processor);
    let artifact = ProfileError::Artifact;
    let whole = Schedule::single(&network.network, processor.name.clone());
    let stages = network.stages(&whole, alone).map_err(artifact)?;
    let schedule = schedule_message::schedule(&whole, &network.manifest, &stages, alone).map_err(artifact)?;
    let entry = network.entry(&processor.target).context("the network was not compiled").map_err(artifact)?;
    let reference = &network.manifest.reference;
    let files = |tensors: &[ReferenceTensor]| {
        let paths =
            tensors.iter().map(|tensor| schedule_message::path_text(&entry.reference().join(&tensor.file)));
        paths.collect::<anyhow::Result<Vec<_>>>().map_err(artifact)
    };
    let (inputs, outputs) = (files(&reference.inputs)?, files(&reference.outputs)?);
    let task =
        format!("compare the outputs of {} on {} with {}", network.name, processor.name, reference.engine);
    let event = runner.request(&task, LOADING + Duration::from_secs(60), |id| {
        Request::Verify(protocol::Verify {
            id,
            schedule: schedule.clone(),
            inputs: inputs.clone(),
            outputs: outputs.clone(),
        })
    })?;
    match event {
        Event::Compared(compared) => Ok(compared),
        other => Err(runner.unexpected(&task, &other).into()),
    }
}
