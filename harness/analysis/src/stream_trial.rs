//! Figures of a trial under a stream.

use super::stream_section::StreamShare;
use domain::stream::{self, Completed, Share};
use domain::{
    ArrivalTimes, FramesPerSecond, Nanoseconds, QueueLength, QueuePolicy, Reason, Samples, StreamLoad, Window,
};
use protocol::{Distribution, Streamed};

/// Times that stand for those of a histogram.
const REPRESENTATIVES: usize = 100_000;

/// Figures of a trial under a stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StreamTrial {
    pub(super) load: StreamLoad,
    pub(super) arrived: u64,
    pub(super) dropped: u64,
    pub(super) completed: u64,
    /// Completed after the deadline; absent without a deadline.
    pub(super) misses: Option<u64>,
    pub(super) age_ns: Option<f64>,
    pub(super) jitter_ns: Option<f64>,
    pub(super) mean_waiting: Option<f64>,
    pub(super) source_late_p99_ns: Option<f64>,
    /// CPU time of the source as a share of the window.
    pub(super) source_cpu_share: f64,
    /// Counts of each stream of several.
    pub(super) streams: Vec<StreamShare>,
    window_ns: u64,
    dropped_ns: Vec<u64>,
    completed_ns: Vec<u64>,
    /// Whether the latencies come from a histogram, without their order.
    pub(super) is_cut: bool,
}

impl StreamTrial {
    /// Computes the figures. Also returns the latencies in the order of completion, and notes.
    pub(super) fn new(
        streamed: &Streamed,
        window: &Window,
        completed_ns: &[u64],
    ) -> (Self, Vec<Nanoseconds>, Vec<Reason>) {
        let load = load(&streamed.load);
        let interval_ns = 1e9 / load.fps;
        let latency_ns = match &streamed.rest {
            None => streamed.since_arrival_ns.clone(),
            Some(rest) => representatives(&rest.since_arrival),
        };
        let late_ns = match &streamed.rest {
            None => streamed.arrived.late_ns.clone(),
            Some(rest) => representatives(&rest.late),
        };
        let floats = |values: &[u64]| values.iter().map(|value| *value as f64).collect::<Vec<f64>>();
        let late = Samples::new(&floats(&late_ns)).ok();
        let mut notes = Vec::new();
        notes.extend(
            late.as_ref()
                .and_then(|late| stream::source_pace(late.quantile(0.99), late.greatest(), interval_ns)),
        );
        let offered = FramesPerSecond(load.total_fps());
        notes.extend(stream::growth(&floats(&streamed.since_arrival_ns), load.interval_ns(), offered));
        let (arrived, dropped, completed) = match &streamed.rest {
            Some(rest) => (rest.arrived, rest.dropped, rest.completed),
            None => (
                streamed.arrived.scheduled_ns.len() as u64,
                streamed.dropped.dropped_ns.len() as u64,
                streamed.since_arrival_ns.len() as u64,
            ),
        };
        if streamed.rest.is_some() {
            notes.push(stream::stamps_limited(streamed.since_arrival_ns.len(), completed));
        }
        let waiting: Vec<f64> = streamed.arrived.waiting.iter().map(|waiting| f64::from(*waiting)).collect();
        let trial = Self {
            load,
            arrived,
            dropped,
            completed,
            misses: streamed.load.deadline_ns.map(|deadline| misses(streamed, deadline)),
            age_ns: age(streamed, completed_ns),
            jitter_ns: stream::jitter(&window.inter_frame()),
            mean_waiting: Samples::new(&waiting).ok().map(|samples| samples.mean()),
            source_late_p99_ns: late.map(|late| late.quantile(0.99)),
            source_cpu_share: streamed.source_cpu_ns as f64 / window.duration().as_f64(),
            streams: shares(streamed),
            window_ns: window.duration().0,
            dropped_ns: streamed.dropped.dropped_ns.clone(),
            completed_ns: completed_ns.to_vec(),
            is_cut: streamed.rest.is_some(),
        };
        (trial, latency_ns.into_iter().map(Nanoseconds).collect(), notes)
    }

    /// Share of the frames that were not dropped, in percent. A metric is never zero, because it is compared as a ratio.
    pub(super) fn delivered_percent(&self) -> Option<f64> {
        percent(self.completed, self.completed.saturating_add(self.dropped))
    }

    /// Share of the frames with a result before its deadline, in percent. Absent without a deadline.
    pub(super) fn on_time_percent(&self) -> Option<f64> {
        percent(
            self.completed - self.misses?.min(self.completed),
            self.completed.saturating_add(self.dropped),
        )
    }

    /// Dropped frames and all frames whose fate was decided, in equal parts of the window.
    pub(super) fn sections(&self, sections: usize) -> Vec<Share> {
        if self.is_cut {
            return vec![Share { part: self.dropped, whole: self.dropped.saturating_add(self.completed) }];
        }
        let length = (self.window_ns / sections.max(1) as u64).max(1);
        let mut shares = vec![Share { part: 0, whole: 0 }; sections.max(1)];
        let last = shares.len() - 1;
        let place = |at_ns: u64| usize::try_from(at_ns / length).unwrap_or(last).min(last);
        for at_ns in &self.dropped_ns {
            let share = &mut shares[place(*at_ns)];
            share.part += 1;
            share.whole += 1;
        }
        for at_ns in &self.completed_ns {
            shares[place(*at_ns)].whole += 1;
        }
        shares
    }
}

fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (100.0 * part as f64 / whole as f64).max(1e-6))
}

fn misses(streamed: &Streamed, deadline_ns: u64) -> u64 {
    match &streamed.rest {
        None => streamed.since_arrival_ns.iter().filter(|since| **since > deadline_ns).count() as u64,
        Some(rest) => {
            let ranges = rest.since_arrival.up_to_ns.iter().zip(&rest.since_arrival.counts);
            ranges
                .filter(|(up_to, _)| **up_to > deadline_ns)
                .fold(0u64, |sum, (_, count)| sum.saturating_add(*count))
        }
    }
}

/// Mean age of the newest result, of several streams their mean.
fn age(streamed: &Streamed, completed_ns: &[u64]) -> Option<f64> {
    let completed = completed_ns
        .iter()
        .zip(&streamed.since_arrival_ns)
        .map(|(at_ns, since_arrival_ns)| Completed { at_ns: *at_ns, since_arrival_ns: *since_arrival_ns });
    if streamed.load.streams <= 1 {
        return stream::mean_age(&completed.collect::<Vec<_>>());
    }
    let all: Vec<(Completed, u32)> = completed.zip(streamed.completed_stream.iter().copied()).collect();
    let ages: Vec<f64> = (0..streamed.load.streams.min(64))
        .filter_map(|stream| {
            let own: Vec<Completed> =
                all.iter().filter(|(_, of)| *of == stream).map(|(completed, _)| *completed).collect();
            stream::mean_age(&own)
        })
        .collect();
    Samples::new(&ages).ok().map(|samples| samples.mean())
}

/// Counts of each of several streams, as far as their frames have stamps.
fn shares(streamed: &Streamed) -> Vec<StreamShare> {
    if streamed.load.streams <= 1 {
        return Vec::new();
    }
    let count = |streams: &[u32], of: u32| streams.iter().filter(|stream| **stream == of).count() as u64;
    let share = |of: u32| StreamShare {
        arrived: count(&streamed.arrived.stream, of),
        dropped: count(&streamed.dropped.stream, of),
        completed: count(&streamed.completed_stream, of),
    };
    (0..streamed.load.streams.min(64)).map(share).collect()
}

/// Times at equal distances in the order of a histogram, the longest included. They are dealt out to sections, so that each
/// section has all of them.
fn representatives(distribution: &Distribution) -> Vec<u64> {
    let total = distribution.counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
    let number = REPRESENTATIVES.min(usize::try_from(total).unwrap_or(REPRESENTATIVES));
    let mut ascending = Vec::with_capacity(number);
    let mut below = 0u64;
    for (up_to, count) in distribution.up_to_ns.iter().zip(&distribution.counts) {
        below = below.saturating_add(*count);
        let rank = |place: usize| (place as f64 + 0.5) / number as f64 * total as f64;
        while ascending.len() < number && rank(ascending.len()) <= below as f64 {
            ascending.push(*up_to);
        }
    }
    if let (Some(last), Some(longest)) = (ascending.last_mut(), distribution.up_to_ns.last()) {
        *last = *longest;
    }
    (0..stream::SECTIONS)
        .flat_map(|first| ascending.iter().skip(first).step_by(stream::SECTIONS))
        .copied()
        .collect()
}

/// The load that the runner was given.
fn load(load: &protocol::StreamLoad) -> StreamLoad {
    StreamLoad {
        fps: load.fps,
        streams: load.streams,
        queue: QueueLength::Places(load.queue),
        policy: match load.policy {
            protocol::QueuePolicy::DropOldest => QueuePolicy::DropOldest,
            protocol::QueuePolicy::DropNewest => QueuePolicy::DropNewest,
            protocol::QueuePolicy::Block => QueuePolicy::Block,
        },
        deadline_ms: load.deadline_ns.map(|ns| ns as f64 / 1e6),
        arrivals: match load.arrivals {
            protocol::ArrivalTimes::Constant => ArrivalTimes::Constant,
            protocol::ArrivalTimes::Poisson => ArrivalTimes::Poisson,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn representatives_have_the_quantiles_of_the_histogram() {
        let distribution = Distribution { up_to_ns: vec![10, 20, 30], counts: vec![900_000, 99_999, 1] };
        let found = representatives(&distribution);
        assert_eq!(found.len(), REPRESENTATIVES);
        let count = |value| found.iter().filter(|found| **found == value).count();
        assert_eq!((count(10), count(20), count(30)), (90_000, 9_999, 1));
        let section = &found[..REPRESENTATIVES / stream::SECTIONS];
        assert_eq!(
            section.iter().filter(|value| **value == 10).count(),
            9_000,
            "each section has all of them"
        );
        assert_eq!(representatives(&Distribution::default()), Vec::<u64>::new());
    }
}
