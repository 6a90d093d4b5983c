//! Times what the planner needs: every unit on every processor, hand-overs between processors, and frames on each
//! processor while all the others are busy.

use crate::compile::CompiledNetwork;
use crate::frame_times::{
    Group, ProfileError, Undisturbed, groups, measure_group, measure_group_undisturbed, measure_units,
    measure_units_undisturbed,
};
use crate::open::OpenedBoard;
use crate::processors::Processor;
use crate::recording::Recording;
use crate::runner_client::{LOADING, RunnerClient};
use boards::SessionError;
use config::Experiment;
use domain::{Costs, Nanoseconds, Network, Prediction, Profile, Schedule, ScheduleKind, Transfer, predict};
use host::exit::{Ending as _, Exit, Outcome};
use host::progress::Progress;
use protocol::{Event, Profiled, Request, Transferred};
use std::fs;
use store::{ProfileRecord, Store, StoreError, StoredRun, TransferRecord};

/// Sizes of the hand-overs that are timed, in bytes: around the boundaries of common networks.
const TRANSFER_SIZES: [u64; 3] = [64 << 10, 256 << 10, 1 << 20];
/// Hand-overs timed of each size.
const TRANSFER_ROUNDS: u32 = 60;

/// Costs of all networks on all processors of a board.
#[derive(Debug)]
pub(crate) struct Profiles {
    /// In the order of the networks.
    pub(crate) costs: Vec<NetworkCosts>,
    /// What the costs are computed from.
    pub(crate) records: ProfileRecords,
}

/// Costs of one network.
#[derive(Debug, Clone)]
pub(crate) struct NetworkCosts {
    /// On a processor that works alone: for single schedules.
    pub(crate) alone: Costs,
    /// On a processor while all the others compute the whole network too: for replicates.
    pub(crate) contended: Costs,
    /// Whether all weights stay in the third-level cache of each processor, see [`stay_cached`].
    pub(crate) cached: bool,
}

impl NetworkCosts {
    /// Predicts a schedule of a network; absent for a peer, which is not profiled.
    ///
    /// # Errors
    /// If the schedule is not of this network and these processors, which is a bug.
    pub(crate) fn predict(&self, network: &Network, schedule: &Schedule) -> Outcome<Option<Prediction>> {
        let predicted = match schedule.kind() {
            ScheduleKind::Single | ScheduleKind::Merged => predict(network, &self.alone, schedule),
            ScheduleKind::Pipeline => predict(network, self.pipelined(), schedule),
            ScheduleKind::Replicate => predict(network, &self.contended, schedule),
            ScheduleKind::Peer => return Ok(None),
        };
        predicted.map(Some).ending(Exit::Bug)
    }

    /// On a processor that has a stage of a pipeline. If the weights exceed the cache, each frame reads them from memory, which
    /// the processors share as they do in replicates. If not, a stage's part of the weights stays closer to its processor than
    /// those of the whole network would, which makes up for what the processors slow each other down.
    pub(crate) fn pipelined(&self) -> &Costs {
        if self.cached { &self.alone } else { &self.contended }
    }
}

/// The measurements that a plan is computed from. Boards that plan from the same ones measure the same schedules.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProfileRecords {
    pub(crate) profiles: Vec<ProfileRecord>,
    pub(crate) transfers: Vec<TransferRecord>,
}

impl ProfileRecords {
    pub(crate) fn read(store: &Store, run: &StoredRun) -> Result<Self, StoreError> {
        Ok(Self { profiles: store.profiles(run)?, transfers: store.transfers(run)? })
    }

    fn profile(
        &self,
        network: &str,
        processor: &Processor,
        contended: bool,
        point: u32,
    ) -> Option<&Profiled> {
        let mut known = self.profiles.iter();
        let is_wanted = |known: &&ProfileRecord| {
            known.network == network
                && known.point == point
                && known.processor == processor.name.as_str()
                && known.contended == contended
        };
        known.find(is_wanted).map(|known| &known.profiled)
    }

    fn transfer(&self, from: &Processor, to: &Processor, point: u32) -> Option<&Transferred> {
        let mut known = self.transfers.iter();
        let known = known.find(|known| {
            known.point == point && known.from == from.name.as_str() && known.to == to.name.as_str()
        });
        known.map(|known| &known.transferred)
    }
}

/// Profiles all networks on all processors. Takes from `known` what was measured already.
///
/// # Errors
/// If the runner fails, or a measurement cannot be recorded.
pub(crate) fn profile(
    board: &mut OpenedBoard,
    networks: &[CompiledNetwork],
    known: &ProfileRecords,
    recording: &mut Recording<'_, '_>,
) -> Outcome<Profiles> {
    let processors = board.found.processors.clone();
    profile_at(board, networks, &processors, 0, known, recording)
}

/// Profiles all networks on these processors at the operating point where the board is, which has the number `point`.
///
/// # Errors
/// As [`profile`].
pub(crate) fn profile_at(
    board: &mut OpenedBoard,
    networks: &[CompiledNetwork],
    processors: &[Processor],
    point: u32,
    known: &ProfileRecords,
    recording: &mut Recording<'_, '_>,
) -> Outcome<Profiles> {
    let mut profiler = Profiler {
        runner: &mut board.runner,
        experiment: &board.loaded.experiment,
        processors,
        point,
        known,
        recording,
        records: ProfileRecords::default(),
        disturbed: Vec::new(),
    };
    let links = Transfer::Pairs(profiler.transfers()?);
    let progress = Progress::begin("profile", networks.len() * processors.len());
    let mut costs = Vec::new();
    for network in networks {
        let alone = profiler.alone(network, &progress)?;
        let contended = profiler.contended(network, &alone)?;
        costs.push(NetworkCosts {
            alone: network_costs(network, processors, &alone, &links)?,
            contended: network_costs(network, processors, &contended, &links)?,
            cached: stay_cached(network, processors),
        });
    }
    if let Some(first) = profiler.disturbed.first() {
        progress.warn(&format!(
            "{} profiles were disturbed in every attempt, one of them because {first}; the plan may \
             not be the best one: stop other programs on this board and bench again",
            profiler.disturbed.len()
        ));
    }
    progress.end(&format!("{} networks on {} processors", networks.len(), processors.len()));
    Ok(Profiles { costs, records: profiler.records })
}

/// Costs of a network on these processors as they are now, with links of known cost. Frames are timed with all processors busy only
/// if `contended` is true. Nothing is recorded.
///
/// # Errors
/// If the runner fails.
pub(crate) fn costs_now(
    runner: &mut RunnerClient,
    experiment: &Experiment,
    network: &CompiledNetwork,
    processors: &[Processor],
    links: &Transfer,
    contended: bool,
) -> Result<NetworkCosts, ProfileError> {
    let units = |processor| measure_units(runner, experiment, network, processor);
    let alone = processors.iter().map(units).collect::<Result<Vec<_>, _>>()?;
    let mut busy = alone.clone();
    let together = groups(processors).into_iter().filter(|group| contended && group.members.len() > 1);
    for Group { members, kept } in together {
        let (frames, _) = measure_group(runner, experiment, network, processors, &members, &alone)?;
        for (place, frame_ns) in members.into_iter().zip(frames).take(kept) {
            busy[place].frame_ns = frame_ns;
        }
    }
    let costs = |samples: &[Profiled]| {
        let costs = network_costs(network, processors, samples, links);
        costs.map_err(|failure| ProfileError::Artifact(failure.error))
    };
    let cached = stay_cached(network, processors);
    Ok(NetworkCosts { alone: costs(&alone)?, contended: costs(&busy)?, cached })
}

struct Profiler<'a, 'r, 's> {
    runner: &'a mut RunnerClient,
    experiment: &'a Experiment,
    processors: &'a [Processor],
    point: u32,
    known: &'a ProfileRecords,
    recording: &'a mut Recording<'r, 's>,
    records: ProfileRecords,
    /// What disturbed profiles to the last attempt.
    disturbed: Vec<String>,
}

impl Profiler<'_, '_, '_> {
    /// What a hand-over costs, by sender and receiver.
    fn transfers(&mut self) -> Outcome<Vec<Vec<domain::Link>>> {
        let count = self.processors.len();
        let mut links = vec![vec![domain::Link::FREE; count]; count];
        for (from, sender) in self.processors.iter().enumerate() {
            for (to, receiver) in self.processors.iter().enumerate() {
                if sender.name.overlaps(&receiver.name) {
                    continue;
                }
                let known = self.known.transfer(sender, receiver, self.point).cloned();
                let is_known = known.is_some();
                let transferred = match known {
                    Some(known) => known,
                    None => measure_transfer(self.runner, sender, receiver)?,
                };
                links[from][to] = transfer_cost(&transferred, sender, receiver);
                let record = TransferRecord {
                    from: sender.name.to_string(),
                    to: receiver.name.to_string(),
                    point: self.point,
                    transferred,
                };
                if !is_known {
                    self.recording.write(|recorder| recorder.record_transfer(record.clone()))?;
                }
                self.records.transfers.push(record);
            }
        }
        Ok(links)
    }

    /// By processor: the units' times while the other processors are idle.
    fn alone(&mut self, network: &CompiledNetwork, progress: &Progress) -> Outcome<Vec<Profiled>> {
        let mut found = Vec::new();
        for processor in self.processors {
            progress.doing(&format!("{} on {}", network.name, processor.name));
            if let Some(known) = self.known.profile(&network.name, processor, false, self.point).cloned() {
                self.records.profiles.push(record(network, processor, self.point, false, &known));
                found.push(known);
                progress.known();
                continue;
            }
            let measured = measure_units_undisturbed(self.runner, self.experiment, network, processor)?;
            let profiled = self.noted(measured);
            self.record(record(network, processor, self.point, false, &profiled))?;
            let profile = unit_costs(&network.network, processor, &profiled)?;
            let frame = match profile.frame_ns() {
                ns if ns < 1e5 => format!("{:.2} µs", ns / 1e3),
                ns => format!("{:.2} ms", ns / 1e6),
            };
            progress.step(&format!("{} on {}: {frame} per frame", network.name, processor.name));
            found.push(profiled);
        }
        Ok(found)
    }

    /// By processor: the same units, scaled to the frames of a processor while all the others are busy. Shared caches,
    /// memory and clocks make these longer.
    fn contended(&mut self, network: &CompiledNetwork, alone: &[Profiled]) -> Outcome<Vec<Profiled>> {
        let mut found = alone.to_vec();
        for Group { members, kept } in groups(self.processors) {
            if members.len() < 2 {
                continue;
            }
            let known = |place: &usize| {
                let known = self.known.profile(&network.name, &self.processors[*place], true, self.point);
                known.map(|known| known.frame_ns.clone())
            };
            let known: Vec<Option<Vec<u64>>> = members[..kept].iter().map(known).collect();
            let is_known: Vec<bool> = known.iter().map(Option::is_some).collect();
            let frames = if let Some(frames) = known.into_iter().collect::<Option<Vec<_>>>() {
                frames
            } else {
                let (runner, all) = (&mut *self.runner, self.processors);
                let measured =
                    measure_group_undisturbed(runner, self.experiment, network, all, &members, alone)?;
                self.noted(measured)
            };
            for ((place, frame_ns), is_known) in members.into_iter().zip(frames).zip(is_known) {
                let alone = &alone[place];
                let profiled = Profiled {
                    id: alone.id,
                    calls: Vec::new(),
                    frame_ns: frame_ns.clone(),
                    instrumented_frame_ns: Vec::new(),
                    resident_bytes: alone.resident_bytes,
                    cuda: alone.cuda.clone(),
                    host: None,
                };
                let record = record(network, &self.processors[place], self.point, true, &profiled);
                if is_known {
                    self.records.profiles.push(record);
                } else {
                    self.record(record)?;
                }
                found[place].frame_ns = frame_ns;
            }
        }
        Ok(found)
    }

    /// What was measured; remembers what disturbed it.
    fn noted<T>(&mut self, measured: Undisturbed<T>) -> T {
        self.disturbed.extend(measured.disturbance.map(|reason| reason.text));
        measured.value
    }

    fn record(&mut self, record: ProfileRecord) -> Outcome<()> {
        self.records.profiles.push(record.clone());
        self.recording.write(|recorder| recorder.record_profile(record))
    }
}

fn record(
    network: &CompiledNetwork,
    processor: &Processor,
    point: u32,
    contended: bool,
    profiled: &Profiled,
) -> ProfileRecord {
    ProfileRecord {
        network: network.name.clone(),
        processor: processor.name.to_string(),
        contended,
        point,
        profiled: profiled.clone(),
    }
}

/// Whether the third-level cache of each processor holds all weights of a network, in the form that its kernels read. Weights of
/// unknown size, and caches of unknown size, hold nothing.
fn stay_cached(network: &CompiledNetwork, processors: &[Processor]) -> bool {
    let weights = |processor: &Processor| {
        let file = fs::metadata(network.entry(&processor.target)?.weights());
        file.ok().map(|file| file.len())
    };
    processors.iter().all(|processor| holds(processor.l3_bytes, weights(processor)))
}

/// Whether a cache of so many bytes holds so many.
fn holds(cache: Option<u64>, weights: Option<u64>) -> bool {
    weights.zip(cache).is_some_and(|(weights, cache)| weights <= cache)
}

fn network_costs(
    network: &CompiledNetwork,
    processors: &[Processor],
    samples: &[Profiled],
    links: &Transfer,
) -> Outcome<Costs> {
    let profiles = processors.iter().zip(samples);
    let profiles = profiles.map(|(processor, samples)| unit_costs(&network.network, processor, samples));
    let profiles = profiles.collect::<Outcome<Vec<_>>>()?;
    Costs::from_profiles(&profiles, links.clone()).ending(Exit::Bug)
}

/// The profile that the planner uses, from raw samples.
///
/// # Errors
/// If the samples contradict the network, which is a bug.
pub(crate) fn unit_costs(network: &Network, processor: &Processor, raw: &Profiled) -> Outcome<Profile> {
    let samples = |values: &[u64]| values.iter().copied().map(Nanoseconds).collect::<Vec<_>>();
    let calls: Vec<(usize, Vec<Nanoseconds>)> =
        raw.calls.iter().map(|call| (call.unit as usize, samples(&call.samples_ns))).collect();
    Profile::from_calls(processor.name.clone(), network.len(), &calls, &samples(&raw.frame_ns))
        .ending(Exit::Bug)
}

/// Times what a hand-over between two processors costs the receiver.
///
/// # Errors
/// As [`RunnerClient::request`].
fn measure_transfer(
    runner: &mut RunnerClient,
    from: &Processor,
    to: &Processor,
) -> Result<Transferred, SessionError> {
    let task = format!("time the hand-over from {} to {}", from.name, to.name);
    let event = runner.request(&task, LOADING, |id| {
        Request::Transfer(protocol::Transfer {
            id,
            from: from.message(),
            to: to.message(),
            sizes: TRANSFER_SIZES.to_vec(),
            rounds: TRANSFER_ROUNDS,
        })
    })?;
    match event {
        Event::Transferred(transferred) => Ok(transferred),
        other => Err(runner.unexpected(&task, &other)),
    }
}

/// The cost of a hand-over. The receiving stage pays it all, also the copy that a sending GPU makes.
///
/// Between CPUs, the cost per byte is how much longer the first reading takes than the second; passing the reference itself
/// takes less than a microsecond, which is within the noise, so the fixed part is 0. A GPU copies the tensors, which costs a
/// fixed time and a time per byte: the line through the smallest and the largest size. The first reading by a GPU is its
/// copy; from the first reading by CPUs, the second is subtracted, because it is a part of the stage's own time.
fn transfer_cost(raw: &Transferred, from: &Processor, to: &Processor) -> domain::Link {
    let mut sizes: Vec<(f64, f64)> = raw
        .sizes
        .iter()
        .filter(|size| size.bytes > 0)
        .filter_map(|size| {
            let own_ns = if to.kind.is_gpu() { 0.0 } else { median(&size.again_ns)? };
            Some((size.bytes as f64, (median(&size.first_ns)? - own_ns).max(0.0)))
        })
        .collect();
    if !from.kind.is_gpu() && !to.kind.is_gpu() {
        let mut slopes: Vec<f64> = sizes.iter().map(|(bytes, ns)| ns / bytes).collect();
        slopes.sort_by(f64::total_cmp);
        let ns_per_byte = slopes.get(slopes.len() / 2).copied().unwrap_or(0.0);
        return domain::Link { fixed_ns: 0.0, ns_per_byte };
    }
    sizes.sort_by(|one, other| one.0.total_cmp(&other.0));
    match (sizes.first(), sizes.last()) {
        (Some((least, least_ns)), Some((most, most_ns))) if most > least => {
            let ns_per_byte = ((most_ns - least_ns) / (most - least)).max(0.0);
            domain::Link { fixed_ns: (least_ns - ns_per_byte * least).max(0.0), ns_per_byte }
        }
        _ => domain::Link::FREE,
    }
}

fn median(values: &[u64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).map(|value| *value as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use compiler::{CudaTarget, Target};
    use domain::{Bytes, ProcessorKind};
    use protocol::HandOver;
    use store::fixture;

    #[test]
    fn pipelines_are_as_fast_as_alone_only_if_the_cache_holds_the_weights() {
        let costs = |ns: f64| Costs::new(vec!["cpu".into()], vec![vec![ns]], Transfer::FREE).unwrap();
        let pipelined = |cache, weights| {
            let cached = holds(cache, weights);
            NetworkCosts { alone: costs(2.0), contended: costs(3.0), cached }.pipelined().unit_ns(0).to_vec()
        };
        assert_eq!(pipelined(Some(100), Some(100)), [2.0]);
        for (cache, weights) in [(Some(100), Some(101)), (None, Some(1)), (Some(100), None)] {
            assert_eq!(pipelined(cache, weights), [3.0], "{cache:?} {weights:?}");
        }
    }

    #[test]
    fn a_gpu_pays_for_its_copy_and_cpus_for_what_the_first_reading_takes_longer() {
        let cpu = Processor::cpus(&fixture::machine(), "cpu", vec![0], 1, None);
        let arch = "sm_62".parse().unwrap();
        let kind = ProcessorKind::Cuda { arch, device: 0, host_cpus: vec![0] };
        let target = Target::Cuda(CudaTarget::new(arch));
        let gpu = Processor { name: "gpu".into(), kind, target, l3_bytes: None, gpu: None };
        let size = |bytes: u64| HandOver { bytes, first_ns: vec![1000 + 3 * bytes], again_ns: vec![bytes] };
        let raw = Transferred { id: 1, sizes: vec![size(1000), size(3000), size(9000)] };
        let cost = |from: &Processor, to: &Processor| transfer_cost(&raw, from, to).ns(Bytes(2000)).round();
        assert!((cost(&cpu, &gpu) - 7000.0).abs() < 1.0, "{}", cost(&cpu, &gpu));
        assert!((cost(&gpu, &cpu) - 5000.0).abs() < 1.0, "{}", cost(&gpu, &cpu));
        // The median of (1000 + 2 · bytes) / bytes.
        assert!((cost(&cpu, &cpu) - 4667.0).abs() < 1.0, "{}", cost(&cpu, &cpu));
    }
}
