//! Figures of rows under a stream, and what is drawn of it.

use super::energy;
use super::rows::{Interval, Latency, Report, Row};
use super::stream_section::{
    LatencyBin, LatencyIntervals, LatencyQuantile, StreamSection, StreamShare, StreamTrace,
};
use super::stream_trial::StreamTrial;
use super::trial::{SustainedRate, Trial, observations};
use domain::stream::{self, Share};
use domain::sustained::RateSearch;
use domain::{Load, Metric, Reason, ReasonCode, Samples, Severity, SustainedLoad, sustained};
use protocol::Streamed;
use store::{Outcome, Store, StoreError};

/// Bins of a drawn distribution.
const BINS: usize = 48;
/// Points of a drawn queue.
const POINTS: usize = 240;
/// Streams that a report draws at most.
const MOST_TRACES: usize = 40;

/// The trial that represents a search: the one at the highest sustained rate. Void if no rate was sustained, or if the
/// search did not end. Nothing without a trial under a stream.
pub(super) fn highest_sustained(trials: Vec<Trial>, wanted: &SustainedLoad) -> Option<Trial> {
    let rate = |trial: &Trial| trial.stream.as_ref().map_or(0.0, |stream| stream.load.total_fps());
    let judged = |trial: &Trial| trial.is_valid().then(|| trial.sustains(wanted)).flatten();
    let mut search = RateSearch::new(1.0, f64::INFINITY);
    for (trial, verdict) in trials.iter().filter_map(|trial| Some((trial, judged(trial)?))) {
        search.record(rate(trial), verdict);
    }
    let is_narrow = |(highest, above): &(f64, f64)| above / highest <= 1.0 + 1.5 * sustained::PRECISION;
    let saturated = trials.iter().find(|trial| trial.stream.is_none() && trial.is_valid());
    let saturated_fps = saturated.map(|trial| trial.throughput.0);
    let mut of_streams = trials.into_iter().filter(|trial| trial.stream.is_some());
    if let Some((highest, above)) = search.bracket().filter(is_narrow) {
        let is_highest = |trial: &Trial| (rate(trial) / highest - 1.0).abs() < 1e-6;
        let mut trial = of_streams.find(|trial| judged(trial) == Some(true) && is_highest(trial))?;
        trial.sustained = Some(SustainedRate { highest, above, saturated_fps });
        return Some(trial);
    }
    let mut trial = of_streams.min_by(|a, b| rate(a).total_cmp(&rate(b)))?;
    let most_fps = sustained::MOST_FPS * f64::from(wanted.streams);
    let (text, remedy) = match (search.highest_sustained(), search.lowest_failed()) {
        (None, Some(failed)) => (
            format!("no rate was sustained; the lowest one tried was {failed:.1} frames/s"),
            "raise `deadline_ms` or `max_drops` if the schedule cannot meet them; otherwise measure again on a quieter machine",
        ),
        (Some(sustained), None) if sustained >= 0.99 * most_fps => (
            format!("{most_fps} frames/s were sustained, and the source offers no more"),
            "measure the throughput with `load: saturating`",
        ),
        _ => (
            "the search for the highest sustained rate did not end".to_owned(),
            "measure again on a quieter machine, and raise `measure.min_seconds` if the trials disagree",
        ),
    };
    trial.reasons.push(Reason::new(ReasonCode::NothingSustained, Severity::Void, text, remedy));
    Some(trial)
}

/// Fills in the figures of a row under a stream.
pub(super) fn describe(row: &mut Row, trials: &[&Trial]) {
    let streams: Vec<&StreamTrial> = trials.iter().filter_map(|trial| trial.stream.as_ref()).collect();
    let Some(first) = streams.first() else { return };
    if row.load.sustained().is_none() {
        row.load = Load::Stream(first.load);
    }
    let sustained = Metric::Sustained.over_trials(&observations(trials, Metric::Sustained));
    row.sustained_fps = sustained.map(|interval| energy::widened(interval, &[0.5 * sustained::PRECISION]));
    row.sustained_share = sustained_share(trials);
    let latencies: Vec<Vec<f64>> =
        trials.iter().map(|trial| trial.latency.iter().map(|ns| ns.as_f64() / 1e6).collect()).collect();
    let latencies: Vec<&[f64]> = latencies.iter().map(Vec::as_slice).collect();
    row.latency_distribution = distribution(&latencies);
    // Histograms do not tell which frames followed each other.
    let is_cut = streams.iter().any(|trial| trial.is_cut);
    let quantile = |p: f64| {
        let interval = stream::quantile(&latencies, p)?;
        let interval = if is_cut { domain::Interval { lo: None, hi: None, ..interval } } else { interval };
        Some(LatencyQuantile::new(interval, Some(stream::frames_needed(p))))
    };
    let longest = stream::longest(&latencies).map(|longest| LatencyQuantile::new(longest, None));
    if let (Some(p50), Some(p90), Some(p99), Some(max)) =
        (quantile(0.5), quantile(0.9), quantile(0.99), longest)
    {
        row.latency_ms = Some(Latency { p50: p50.point, p90: p90.point, p99: p99.point, max: max.point });
        row.latency_ms_intervals = Some(LatencyIntervals { p50, p90, p99, max });
    }
    let each = stream::sections_of_each(streams.len());
    let sections: Vec<Share> = streams.iter().flat_map(|trial| trial.sections(each)).collect();
    row.drop_rate = stream::share(&sections, streams.len()).map(Interval::from);
    // A damaged database may have counts without end.
    let total = |count: &dyn Fn(&StreamTrial) -> Option<u64>| {
        let add = |sum: u64, trial: &&StreamTrial| count(trial).map(|count| sum.saturating_add(count));
        streams.iter().try_fold(0, add)
    };
    row.deadline_misses = total(&|trial| trial.misses);
    let age = Metric::Age.over_trials(&observations(trials, Metric::Age));
    row.age_ms = age.map(|age| age.point);
    row.age_ms_interval = age.map(Interval::from);
    let median = |figure: &dyn Fn(&StreamTrial) -> Option<f64>| {
        let values: Vec<f64> = streams.iter().filter_map(|trial| figure(trial)).collect();
        Samples::new(&values).ok().map(|samples| samples.median())
    };
    let milliseconds = |ns: f64| ns / 1e6;
    let mut shares = vec![StreamShare::default(); first.streams.len()];
    for (sum, share) in streams.iter().flat_map(|trial| trial.streams.iter().enumerate()) {
        if let Some(sum) = shares.get_mut(sum) {
            sum.arrived += share.arrived;
            sum.dropped += share.dropped;
            sum.completed += share.completed;
        }
    }
    row.stream = Some(StreamSection {
        arrived: total(&|trial| Some(trial.arrived)).unwrap_or_default(),
        dropped_at_queue: total(&|trial| Some(trial.dropped)).unwrap_or_default(),
        completed: total(&|trial| Some(trial.completed)).unwrap_or_default(),
        jitter_ms: median(&|trial| trial.jitter_ns).map(milliseconds),
        mean_waiting: median(&|trial| trial.mean_waiting),
        source_late_p99_ms: median(&|trial| trial.source_late_p99_ns).map(milliseconds),
        source_cpu_share: median(&|trial| Some(trial.source_cpu_share)),
        streams: shares,
    });
}

/// Highest sustained rate as a share of the saturated throughput in the same rounds.
fn sustained_share(trials: &[&Trial]) -> Option<Interval> {
    let shares: Vec<f64> = trials
        .iter()
        .filter_map(|trial| {
            let sustained = trial.sustained?;
            Some(sustained.middle() / sustained.saturated_fps?)
        })
        .collect();
    let shares = Samples::new(&shares).ok()?;
    Some(domain::median_interval(&shares, domain::Confidence::P95).into())
}

/// Frames by their latency, in equal bins up to the longest one.
fn distribution(trials: &[&[f64]]) -> Vec<LatencyBin> {
    let all = || trials.iter().flat_map(|trial| trial.iter().copied());
    let longest = all().fold(0.0, f64::max);
    let count = all().count();
    if count == 0 || longest <= 0.0 {
        return Vec::new();
    }
    let width = longest / BINS as f64;
    let mut bins: Vec<LatencyBin> =
        (1..=BINS).map(|bin| LatencyBin { up_to_ms: width * bin as f64, share: 0.0 }).collect();
    for latency in all() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to the number of bins"
        )]
        let bin = ((latency / width) as usize).min(BINS - 1);
        bins[bin].share += 1.0 / count as f64;
    }
    bins
}

impl Report {
    /// Reads the queue over time of the typical trial of each row under a stream, for drawings.
    pub fn read_streams(&mut self, store: &Store) -> Result<(), StoreError> {
        let run = store.run(&self.run.id)?;
        let mut traces = Vec::new();
        for row in self.rows.iter().filter(|row| row.stream.is_some()).take(MOST_TRACES) {
            let Some(round) = row.typical_round else { continue };
            let trial = store.last_trial(&run, row.place, round)?;
            let Some(Outcome::Measured(measured)) = trial.map(|trial| trial.outcome) else { continue };
            let closed_ns = measured.window.completed_ns.last().copied().unwrap_or(0);
            traces.extend(measured.stream.and_then(|streamed| trace(row.place, round, &streamed, closed_ns)));
        }
        self.streams = traces;
        Ok(())
    }
}

/// The longest queue and the drops in equal parts of the window.
fn trace(place: u32, round: u32, streamed: &Streamed, closed_ns: u64) -> Option<StreamTrace> {
    let points = POINTS.min(streamed.arrived.scheduled_ns.len());
    let last = points.checked_sub(1)?;
    let length = (closed_ns / points as u64).max(1);
    let point = |at_ns: u64| usize::try_from(at_ns / length).unwrap_or(last).min(last);
    let (mut waiting, mut dropped) = (vec![0; points], vec![0; points]);
    for (at_ns, found) in streamed.arrived.scheduled_ns.iter().zip(&streamed.arrived.waiting) {
        let longest = &mut waiting[point(*at_ns)];
        *longest = (*longest).max(*found);
    }
    for at_ns in &streamed.dropped.dropped_ns {
        dropped[point(*at_ns)] += 1;
    }
    Some(StreamTrace { place, round, seconds: closed_ns as f64 / 1e9, waiting, dropped })
}
