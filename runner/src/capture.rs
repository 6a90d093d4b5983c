//! What a schedule makes of its frames, written to files, for comparison with other programs on other machines.

use crate::crew::Crew;
use crate::engine::{Tensor, TensorSpec, WeightsCache};
use crate::failure::Failure;
use crate::frames::FrameSet;
use crate::wiring::Wiring;
use protocol::{Capture, Captured};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Runs every distinct frame through the schedule, stage after stage, and writes what goes in and what comes out.
/// Of replicas the last one's outputs are kept.
pub(crate) fn capture(request: &Capture, cache: &mut WeightsCache) -> Result<Captured, Failure> {
    let wiring = Arc::new(Wiring::new(&request.schedule)?);
    let weights = cache.map(wiring.weights())?;
    let frames = FrameSet::new(&request.frames, &wiring.input_specs())?;
    let crew = Crew::start(&wiring, &weights)?;
    let folder = Path::new(&request.folder);
    let distinct = frames.distinct() as u64;
    for number in 0..distinct {
        let done = crew.check(&frames, number)?;
        for (place, tensor) in frames.frame(number).iter().enumerate() {
            write(folder, number, "input", place, tensor)?;
        }
        let Some(last) = done.last() else { continue };
        for (place, index) in wiring.outputs.iter().enumerate() {
            let spec: &TensorSpec = &wiring.values[*index];
            let Some(tensor) = &last.values[*index] else {
                return Err(Failure::internal(format!("failed to capture: no stage gave {}", spec.name)));
            };
            write(folder, number, "output", place, tensor)?;
        }
    }
    Ok(Captured { id: request.id, frames: request.frames.distinct })
}

fn write(folder: &Path, frame: u64, side: &str, place: usize, tensor: &Tensor) -> Result<(), Failure> {
    let path = folder.join(format!("{frame}-{side}{place}.bin"));
    fs::write(&path, tensor.bytes()).map_err(|error| {
        Failure::request(format!("failed to write {}: {error}; name a folder with room", path.display()))
    })
}
