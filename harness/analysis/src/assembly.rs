//! From records to rows.

use super::energy;
use super::measurements::{Measurements, add_energy, measurements};
use super::rows::{
    Interval, Latency, NetworkSection, Noise, PowerSection, ProcessorSection, Report, Row, SCHEMA,
    StageSection, Summary, is_comparable,
};
use super::stored_settings::StoredSettings;
use super::trial::Trial;
use super::{heading, pooled, reasons, stream};
use domain::{
    Absence, Confidence, Metric, Nanoseconds, Network, Observation, ProcessorName, Reason, ReasonCode,
    Samples, Schedule, ScheduleKind, Validity, comparison, disturbance, throughput, validity,
};
use domain::{FleetMode, Prediction};
use std::collections::BTreeMap;
use store::{NetworkRecord, ProfileRecord, RunId, ScheduleRecord, Store, StoreError, StoredRun};

/// A machine is called noisy if the median of the intervals' halves is above this share,
const NOISY_INTERVAL: f64 = 0.05;
/// or more than this share of the trials are void.
const NOISY_VOID: f64 = 0.10;

impl Report {
    /// The report of a run, from the database alone.
    pub fn build(store: &Store, run: &RunId) -> Result<Self, StoreError> {
        let run = store.run(run.as_str())?;
        let mut schedules = measurements(store, &run)?;
        let idle = store.idle_power(&run)?;
        let meter = add_energy(&mut schedules, idle.as_ref());
        let power = meter.section(idle.as_ref());
        Ok(Self::assemble(&run, &store.networks(&run)?, &store.profiles(&run)?, &schedules, power))
    }

    /// The report of equal boards that shared the rounds, as of one run.
    pub(super) fn of_several(store: &Store, runs: &[StoredRun]) -> Result<Option<Self>, StoreError> {
        let mut parts = Vec::new();
        let (mut profiles, mut power) = (Vec::new(), None);
        for run in runs {
            let mut schedules = measurements(store, run)?;
            let idle = store.idle_power(run)?;
            let meter = add_energy(&mut schedules, idle.as_ref());
            power = power.or_else(|| meter.section(idle.as_ref()));
            profiles.extend(store.profiles(run)?);
            parts.push(schedules);
        }
        let Some(whole) = pooled::run(runs) else { return Ok(None) };
        // A board may have been lost before it had any.
        let mut networks = Vec::new();
        for run in runs {
            let of_run = store.networks(run)?;
            if of_run.len() > networks.len() {
                networks = of_run;
            }
        }
        let schedules = pooled::measurements(parts);
        let mut report = Self::assemble(&whole, &networks, &profiles, &schedules, power);
        report.run.boards = runs.iter().map(|run| run.start.board.clone()).collect();
        report.run.place = None;
        for row in &mut report.rows {
            // A trial is of one board, and the row of all.
            row.typical_round = None;
        }
        Ok(Some(report))
    }

    fn assemble(
        run: &StoredRun,
        networks: &[NetworkRecord],
        profiles: &[ProfileRecord],
        schedules: &[Measurements],
        power: Option<PowerSection>,
    ) -> Self {
        let mut rows = Vec::new();
        for record in networks {
            let network = &record.network;
            let of_network: Vec<&Measurements> =
                schedules.iter().filter(|schedule| schedule.record.network == network.name()).collect();
            let mut of_network = rows_of(network, run, &of_network);
            if !record.precision().is_single() {
                for row in &mut of_network {
                    row.fp16 = gpus(run, row);
                }
            }
            rows.extend(of_network);
        }
        let section = |record: &NetworkRecord| NetworkSection {
            name: record.network.name().to_owned(),
            parameters: record.network.parameters(),
            macs: record.network.macs(),
            units: record.network.len(),
            precision: record.precision(),
            winograd: record.winograd(),
            reasons: reasons::fallback(record, profiles),
        };
        let mut section_of_run = heading::run(run);
        section_of_run.precision_reached = section_of_run.precision_asked.map(|_| {
            let counted = rows.iter().filter(|row| !row.is_wrong());
            counted.flat_map(|row| &row.reasons).all(|reason| reason.code != ReasonCode::Imprecise)
        });
        let measured_on = heading::machine(run);
        Self {
            schema: SCHEMA,
            analysis_version: domain::ANALYSIS_VERSION,
            confidence: Confidence::P95.probability(),
            run: section_of_run,
            power,
            networks: networks.iter().map(section).collect(),
            noise: noise(&rows),
            summary: summaries(&rows, &measured_on.processors),
            measured_on,
            rows,
            timelines: Vec::new(),
            streams: Vec::new(),
        }
    }

    /// Whether there is a row whose figures do not count.
    pub fn has_void_rows(&self) -> bool {
        self.rows.iter().any(|row| row.verdict == Validity::Void)
    }
}

fn rows_of(network: &Network, run: &StoredRun, schedules: &[&Measurements]) -> Vec<Row> {
    let valid = |kind: ScheduleKind| {
        schedules
            .iter()
            .filter(move |schedule| schedule.record.schedule.kind() == kind)
            .filter(|schedule| schedule.validity() == Validity::Valid)
            .map(|schedule| (schedule.label.clone(), schedule.throughputs()))
    };
    let singles: Vec<(String, Vec<Observation>)> = valid(ScheduleKind::Single).collect();
    let peers: Vec<(String, Vec<Observation>)> = valid(ScheduleKind::Peer).collect();
    let throughputs: Vec<&[Observation]> = singles.iter().map(|(_, trials)| trials.as_slice()).collect();
    let best_single = comparison::best(&throughputs).map(|place| singles[place].0.as_str());
    let settings = StoredSettings::of(&run.start.configuration);
    let by_energy: Vec<energy::Single<'_>> = schedules
        .iter()
        .filter(|schedule| schedule.record.schedule.kind() == ScheduleKind::Single)
        .filter(|schedule| schedule.validity() == Validity::Valid)
        .filter_map(|schedule| {
            let trials = schedule.counted();
            Some(energy::Single {
                processor: schedule.record.schedule.processors().next()?.as_str(),
                frames_per_joule: energy::frames_per_joule(&trials),
                uncertainty: energy::uncertainty(&trials),
            })
        })
        .collect();
    schedules
        .iter()
        .map(|schedule| {
            let mut row = row(network, run, schedule);
            if row.verdict == Validity::Valid {
                add_gains(&mut row, &schedule.throughputs(), &singles, best_single);
                if let Some(wanted) = settings.precision {
                    add_precision(&mut row, wanted);
                }
                energy::add_gain(&mut row, &schedule.counted(), &by_energy);
                if row.peer.is_none() {
                    row.gain_over_peer = gains(&schedule.throughputs(), &peers);
                }
            }
            let wide = row.too_wide();
            row.reasons.extend(reasons::too_few_trials(&wide, row.trials));
            row
        })
        .collect()
}

/// Those processors of a row that are GPUs.
fn gpus(run: &StoredRun, row: &Row) -> Vec<String> {
    let is_gpu =
        |name: &&String| run.start.processors.iter().any(|known| known.name == **name && known.kind.is_gpu());
    row.processors.iter().filter(is_gpu).cloned().collect()
}

fn emulated(run: &StoredRun, schedule: &Schedule) -> Vec<String> {
    let is_emulated = |name: &&ProcessorName| {
        let mut known = run.start.processors.iter();
        known.any(|known| known.name == name.as_str() && known.is_emulated())
    };
    schedule.processors().filter(is_emulated).map(ToString::to_string).collect()
}

fn row(network: &Network, run: &StoredRun, measurements: &Measurements) -> Row {
    let ScheduleRecord { schedule, .. } = &measurements.record;
    let counted = measurements.counted();
    let throughput = Metric::Throughput.over_trials(&measurements.throughputs());
    let fps = throughput.map(|interval| domain::FramesPerSecond(interval.point));
    let latencies: Vec<&[Nanoseconds]> = counted.iter().map(|trial| trial.latency.as_slice()).collect();
    let latency = throughput::Latency::of_several(&latencies).ok();
    let load = crate::load_of(run);
    let offered = load.stream().map_or(f64::INFINITY, domain::StreamLoad::total_fps);
    let (prediction, prediction_error) = measurements.predicted(&counted, fps, offered);
    let peer = schedule.as_peer();
    let mut notes = measurements.reasons.clone();
    notes.extend(reasons::trials(measurements.trials.values(), measurements.failed.values(), planned(run)));
    let rates: Vec<_> = counted.iter().map(|trial| (trial.round, trial.throughput)).collect();
    notes.extend(disturbance::outliers(&rates));
    if let Some(((prediction, error), fps)) = prediction.as_ref().zip(prediction_error).zip(fps) {
        notes.extend(validity::prediction(prediction.throughput, fps, error, &measurements.limits));
    }
    let mut row = Row {
        board: run.start.board.clone(),
        network: network.name().to_owned(),
        schedule: measurements.label.clone(),
        place: measurements.record.place,
        kind: schedule.kind(),
        processors: match peer {
            Some(_) => Vec::new(),
            None => schedule.processors().map(ToString::to_string).collect(),
        },
        emulated: emulated(run, schedule),
        fp16: Vec::new(),
        peer: peer.map(|peer| peer.engine.clone()),
        peer_version: peer.map(|peer| peer.version.clone()),
        peer_provider: peer
            .map(|peer| peer.gpu.as_ref().map_or("cpu", |gpu| gpu.provider.as_str()).to_owned()),
        peer_gpu: peer.and_then(|peer| peer.gpu.as_ref()).map(|gpu| gpu.processor.to_string()),
        peer_threads: peer.map(|peer| peer.threads),
        peer_sessions: peer.map(|peer| peer.sessions.len()),
        peer_cpus: peer.map(domain::Peer::cpus).unwrap_or_default(),
        trials: counted.len(),
        trials_void: measurements.trials.len() - measurements.valid().count(),
        trials_failed: measurements.failed.len(),
        // A damaged database may have counts without end.
        frames: counted.iter().fold(0, |sum, trial| sum.saturating_add(trial.frames)),
        typical_round: throughput.and_then(|median| typical(&counted, median.point)),
        throughput_fps: throughput.map(Interval::from),
        load,
        queues: measurements.record.queues,
        sustained_fps: None,
        sustained_share: None,
        latency_ms: latency.map(|latency| Latency {
            p50: latency.p50_ns / 1e6,
            p90: latency.p90_ns / 1e6,
            p99: latency.p99_ns / 1e6,
            max: latency.longest_ns / 1e6,
        }),
        latency_ms_intervals: None,
        drop_rate: None,
        deadline_misses: None,
        age_ms: None,
        age_ms_interval: None,
        stream: None,
        latency_distribution: Vec::new(),
        energy_mj_per_frame: None,
        energy_absent_reason: None,
        energy_trials: 0,
        mean_power_mw: None,
        energy_breakdown_mj_per_frame: BTreeMap::new(),
        energy_gain_over_best_single: None,
        energy_gain_over_best_single_interval: None,
        best_single_by_energy: None,
        gain_over_best_single: None,
        gain_over_best_single_interval: None,
        best_single: None,
        gain_over: BTreeMap::new(),
        gain_over_intervals: BTreeMap::new(),
        gain_over_peer: BTreeMap::new(),
        predicted_fps: prediction.as_ref().map(|prediction| prediction.throughput.0),
        prediction_error,
        pipeline_efficiency: median(counted.iter().map(|trial| trial.efficiency(schedule))),
        stages: stages(network, measurements, &counted, prediction.as_ref()),
        verdict: measurements.validity(),
        reasons: notes,
    };
    let reason = if measurements.metered { Absence::NotRead } else { Absence::NoMeter };
    energy::describe(&mut row, &counted, &reason);
    stream::describe(&mut row, &counted);
    row
}

/// Trials of a schedule that were to be in this run; none where others had a share of them.
fn planned(run: &StoredRun) -> usize {
    let is_shared = run.start.campaign.as_ref().is_some_and(|campaign| campaign.mode == FleetMode::Spread);
    if is_shared { 0 } else { run.start.rounds as usize }
}

/// Round of the trial nearest to the median; of two equally near the earlier.
fn typical(trials: &[&Trial], median: f64) -> Option<u32> {
    let off = |trial: &Trial| (trial.throughput.0 - median).abs();
    trials.iter().min_by(|a, b| off(a).total_cmp(&off(b))).map(|trial| trial.round)
}

fn stages(
    network: &Network,
    measurements: &Measurements,
    trials: &[&Trial],
    prediction: Option<&Prediction>,
) -> Vec<StageSection> {
    let name = |unit: usize| network.units().get(unit).map(|unit| unit.name.clone()).unwrap_or_default();
    let ScheduleRecord { schedule, .. } = &measurements.record;
    let section = |(place, stage): (usize, &domain::Stage)| {
        let shares = || trials.iter().map(|trial| trial.stages.get(place));
        let isolated = trials.iter().map(|trial| trial.isolated_ns.get(place).copied());
        let predicted = prediction.and_then(|prediction| prediction.stage_ns.get(place));
        StageSection {
            processor: stage.processor.to_string(),
            first_unit: stage.first,
            end_unit: stage.end,
            first: name(stage.first),
            last: name(stage.end - 1),
            busy: median(shares().map(|shares| Some(shares?.busy))),
            waiting_input: median(shares().map(|shares| Some(shares?.waiting_input))),
            waiting_output: median(shares().map(|shares| Some(shares?.waiting_output))),
            isolated_ms: median(isolated).map(|ns| ns / 1e6),
            predicted_ms: predicted.map(|ns| ns / 1e6),
        }
    };
    schedule.stages().iter().enumerate().map(section).collect()
}

/// How much the machine disturbed the run.
fn noise(rows: &[Row]) -> Option<Noise> {
    let measured = |row: &&Row| row.trials + row.trials_void > 0;
    let halves: Vec<f64> = rows
        .iter()
        .filter(measured)
        .filter_map(|row| match row.latency_ms_intervals {
            // Throughput is the rate of the stream, however noisy the machine is.
            Some(latency) if row.sustained_fps.is_none() => Interval::from(latency.p50).precision(),
            _ => row.throughput_fps.as_ref().and_then(Interval::precision),
        })
        .collect();
    let typical = Samples::new(&halves).ok()?;
    let trials_void: usize = rows.iter().map(|row| row.trials_void).sum();
    // The figures of a row without a valid trial are of its void ones.
    let valid = rows.iter().filter(|row| row.verdict == Validity::Valid).map(|row| row.trials);
    let trials = trials_void + valid.sum::<usize>();
    let wide = typical.median() > NOISY_INTERVAL;
    Some(Noise {
        noisy: wide || trials_void as f64 > NOISY_VOID * trials as f64,
        wide,
        typical_interval: typical.median(),
        widest_interval: typical.greatest(),
        trials_void,
        trials,
    })
}

/// Median of the values; absent if there are none.
fn median(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.flatten().collect();
    Samples::new(&values).ok().map(|samples| samples.median())
}

fn add_gains(
    row: &mut Row,
    candidate: &[Observation],
    singles: &[(String, Vec<Observation>)],
    best_single: Option<&str>,
) {
    row.gain_over_intervals = gains(candidate, singles);
    row.gain_over = row.gain_over_intervals.iter().map(|(name, gain)| (name.clone(), gain.point)).collect();
    if let Some((best, gain)) = best_single.and_then(|best| row.gain_over_intervals.get_key_value(best)) {
        row.best_single = Some(best.clone());
        row.gain_over_best_single = Some(gain.point);
        row.gain_over_best_single_interval = Some(*gain);
    }
}

/// Adds a note for each interval that is wider than requested.
fn add_precision(row: &mut Row, wanted: f64) {
    let wide: Vec<Reason> =
        row.precisions().filter_map(|(of, half)| reasons::precision(half, of, wanted)).collect();
    row.reasons.extend(wide);
}

/// Throughput over that of each of the others. Without a common round there is no ratio.
fn gains(candidate: &[Observation], others: &[(String, Vec<Observation>)]) -> BTreeMap<String, Interval> {
    let ratio = |(name, other): &(String, Vec<Observation>)| {
        let compared = comparison::compare(candidate, other, Confidence::P95).ok()?;
        Some((name.clone(), Interval::from(compared.ratio)))
    };
    others.iter().filter_map(ratio).collect()
}

/// Gains by kind: of each network the schedule of this kind that gains most; first over the best single processor, then
/// over each peer, like with like.
fn summaries(rows: &[Row], processors: &[ProcessorSection]) -> Vec<Summary> {
    let of_kind = |kind: ScheduleKind, over: Option<&Row>| {
        let mut best: BTreeMap<&str, f64> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.kind == kind) {
            let gain = match over {
                None => row.gain_over_best_single,
                Some(peer) if !is_comparable(row, peer, processors) => None,
                Some(peer) => row.gain_over_peer.get(&peer.schedule).map(|gain| gain.point),
            };
            if let Some(gain) = gain {
                let most = best.entry(&row.network).or_insert(gain);
                *most = most.max(gain);
            }
        }
        let gains: Vec<f64> = best.into_values().collect();
        let samples = Samples::new(&gains).ok()?;
        let logarithms: f64 = gains.iter().map(|gain| gain.ln()).sum();
        Some(Summary {
            kind,
            over_peer: over.map(|peer| peer.schedule.clone()),
            networks: gains.len(),
            gain_geometric_mean: (logarithms / gains.len() as f64).exp(),
            gain_least: samples.least(),
            gain_greatest: samples.greatest(),
        })
    };
    let mut peers: Vec<&Row> = Vec::new();
    for row in rows.iter().filter(|row| row.peer.is_some()) {
        if !peers.iter().any(|known| known.schedule == row.schedule) {
            peers.push(row);
        }
    }
    let over_single = [ScheduleKind::Pipeline, ScheduleKind::Replicate, ScheduleKind::Merged]
        .into_iter()
        .filter_map(|kind| of_kind(kind, None));
    let over_peers = peers.iter().flat_map(|peer| {
        [ScheduleKind::Single, ScheduleKind::Merged, ScheduleKind::Pipeline, ScheduleKind::Replicate]
            .map(|kind| of_kind(kind, Some(peer)))
    });
    over_single.chain(over_peers.flatten()).collect()
}
