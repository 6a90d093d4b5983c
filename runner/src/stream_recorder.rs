//! Records arrivals and drops of a stream, and whether its latency and queue are steady.
//!
//! Each event is kept up to a limit, and counted in histograms beyond it, so that memory is bounded however long a window is.

use crate::arrivals::Arrival;
use crate::failure::Failure;
use hdrhistogram::Histogram;
use protocol::{ArrivalTimes, Arrived, Distribution, Dropped, StreamLoad, StreamTotals, Streamed};
use std::collections::VecDeque;

/// Largest counted time: a day.
const LONGEST_NS: u64 = 86_400_000_000_000;
/// Counted times have three significant digits.
const DIGITS: u8 = 3;
/// Differences of latency below this are not judged: waking a thread takes as long.
const GRAIN_NS: u64 = 200_000;

/// Observations of a stream. All memory is allocated and touched in advance.
#[derive(Debug)]
pub(crate) struct StreamRecorder {
    load: StreamLoad,
    limit: usize,
    arrived: Arrived,
    dropped: Dropped,
    since_arrival_ns: Vec<u64>,
    completed_stream: Vec<u32>,
    totals: Totals,
    recent: Recent,
    source_cpu_ns: u64,
    source_apart: bool,
}

/// Counts of the whole window.
#[derive(Debug)]
struct Totals {
    arrived: u64,
    dropped: u64,
    completed: u64,
    closed_ns: u64,
    since_arrival: Histogram<u64>,
    between: Histogram<u64>,
    late: Histogram<u64>,
    waiting: Vec<u64>,
}

/// The last observations of the warm-up.
#[derive(Debug)]
struct Recent {
    most: usize,
    since_arrival_ns: VecDeque<u64>,
    waiting: VecDeque<u64>,
}

impl StreamRecorder {
    /// Keeps at most `limit` entries of each kind. The warm-up is judged by two groups of at most `group` frames.
    pub(crate) fn new(load: &StreamLoad, limit: usize, group: usize) -> Result<Self, Failure> {
        let histogram = || {
            Histogram::new_with_bounds(1, LONGEST_NS, DIGITS)
                .map_err(|error| Failure::internal(format!("failed to prepare a histogram: {error}")))
        };
        let several = if load.streams > 1 { limit } else { 0 };
        let waiting = usize::try_from(load.queue.saturating_mul(load.streams)).unwrap_or(0) + 1;
        Ok(Self {
            load: *load,
            limit,
            arrived: Arrived {
                scheduled_ns: touched(limit),
                late_ns: touched(limit),
                waiting: touched(limit),
                stream: touched(several),
            },
            dropped: Dropped {
                dropped_ns: touched(limit),
                since_arrival_ns: touched(limit),
                stream: touched(several),
            },
            since_arrival_ns: touched(limit),
            completed_stream: touched(several),
            totals: Totals {
                arrived: 0,
                dropped: 0,
                completed: 0,
                closed_ns: 0,
                since_arrival: histogram()?,
                between: histogram()?,
                late: histogram()?,
                waiting: vec![0; waiting],
            },
            recent: Recent {
                most: 2 * group,
                since_arrival_ns: VecDeque::with_capacity(2 * group + 1),
                waiting: VecDeque::with_capacity(2 * group + 1),
            },
            source_cpu_ns: 0,
            source_apart: false,
        })
    }

    /// Records an arrival of the warm-up.
    pub(crate) fn warm_up_arrival(&mut self, waiting: usize) {
        self.recent.waiting.push_back(waiting as u64);
        if self.recent.waiting.len() > self.recent.most {
            self.recent.waiting.pop_front();
        }
    }

    /// Records a completion of the warm-up.
    pub(crate) fn warm_up_completion(&mut self, since_arrival_ns: u64) {
        self.recent.since_arrival_ns.push_back(since_arrival_ns);
        if self.recent.since_arrival_ns.len() > self.recent.most {
            self.recent.since_arrival_ns.pop_front();
        }
    }

    /// Records an arrival of a window that opened at `opened_ns`.
    pub(crate) fn arrived(&mut self, arrival: &Arrival, late_ns: u64, waiting: usize, opened_ns: u64) {
        let totals = &mut self.totals;
        totals.arrived += 1;
        totals.late.saturating_record(late_ns);
        let last = totals.waiting.len() - 1;
        totals.waiting[waiting.min(last)] += 1;
        let arrived = &mut self.arrived;
        if arrived.scheduled_ns.len() < self.limit {
            arrived.scheduled_ns.push(arrival.scheduled_ns.saturating_sub(opened_ns));
            arrived.late_ns.push(late_ns);
            arrived.waiting.push(u32::try_from(waiting).unwrap_or(u32::MAX));
            if self.load.streams > 1 {
                arrived.stream.push(arrival.stream);
            }
        }
    }

    /// Records that a frame was dropped at `now_ns`.
    pub(crate) fn dropped(&mut self, arrival: &Arrival, now_ns: u64, opened_ns: u64) {
        self.totals.dropped += 1;
        let dropped = &mut self.dropped;
        if dropped.dropped_ns.len() < self.limit {
            dropped.dropped_ns.push(now_ns.saturating_sub(opened_ns));
            dropped.since_arrival_ns.push(now_ns.saturating_sub(arrival.scheduled_ns));
            if self.load.streams > 1 {
                dropped.stream.push(arrival.stream);
            }
        }
    }

    /// Records a completion at `elapsed_ns` of the window. Returns whether there was space for it.
    pub(crate) fn completed(&mut self, arrival: &Arrival, since_arrival_ns: u64, elapsed_ns: u64) -> bool {
        let totals = &mut self.totals;
        totals.completed += 1;
        totals.since_arrival.saturating_record(since_arrival_ns);
        totals.between.saturating_record(elapsed_ns.saturating_sub(totals.closed_ns));
        totals.closed_ns = elapsed_ns;
        let has_space = self.since_arrival_ns.len() < self.limit;
        if has_space {
            self.since_arrival_ns.push(since_arrival_ns);
            if self.load.streams > 1 {
                self.completed_stream.push(arrival.stream);
            }
        }
        has_space
    }

    /// Frames completed in the window.
    pub(crate) fn completions(&self) -> u64 {
        self.totals.completed
    }

    /// Records where the source ran and the CPU time that it used in the window.
    pub(crate) fn source(&mut self, cpu_ns: u64, apart: bool) {
        self.source_cpu_ns = cpu_ns;
        self.source_apart = apart;
    }

    /// Whether neither latency nor queue changed between the last two groups of the warm-up: the medians of the latency
    /// differ by at most 10 %, of random arrivals by at most 50 %, and the mean queue by at most one frame. With constant
    /// arrivals, the difference is also less than 5 % of the time that a group takes to arrive: the latency of a schedule
    /// that is 5 % too slow grows by that.
    pub(crate) fn is_steady(&self) -> bool {
        let per_mille = match self.load.arrivals {
            ArrivalTimes::Constant => 100,
            ArrivalTimes::Poisson => 500,
        };
        let Recent { most, since_arrival_ns, waiting } = &self.recent;
        if since_arrival_ns.len() < *most || waiting.len() < *most {
            return false;
        }
        let group = most / 2;
        let median = |first: usize| {
            let mut times: Vec<u64> = since_arrival_ns.range(first..first + group).copied().collect();
            times.sort_unstable();
            u64::midpoint(times[(group - 1) / 2], times[group / 2])
        };
        let (earlier, later) = (median(0), median(group));
        let sum = |first: usize| waiting.range(first..first + group).sum::<u64>();
        let difference = earlier.abs_diff(later);
        let interval_ns = 1e9 / (self.load.fps * f64::from(self.load.streams));
        let grows = self.load.arrivals == ArrivalTimes::Constant
            && difference as f64 > 0.05 * group as f64 * interval_ns + GRAIN_NS as f64;
        let is_close = difference <= earlier.min(later) / 1000 * per_mille + GRAIN_NS;
        is_close && !grows && sum(0).abs_diff(sum(group)) <= group as u64
    }

    pub(crate) fn into_streamed(self) -> Streamed {
        let totals = self.totals;
        let counts = [totals.arrived, totals.dropped, totals.completed];
        let is_cut = counts.into_iter().max() > Some(self.limit as u64);
        let rest = is_cut.then(|| StreamTotals {
            arrived: totals.arrived,
            dropped: totals.dropped,
            completed: totals.completed,
            closed_ns: totals.closed_ns,
            since_arrival: distribution(&totals.since_arrival),
            between: distribution(&totals.between),
            late: distribution(&totals.late),
            waiting: totals.waiting,
        });
        Streamed {
            load: self.load,
            arrived: self.arrived,
            dropped: self.dropped,
            since_arrival_ns: self.since_arrival_ns,
            completed_stream: self.completed_stream,
            source_cpu_ns: self.source_cpu_ns,
            source_apart: self.source_apart,
            rest,
        }
    }
}

/// An empty list whose memory exists.
fn touched<T: Copy + Default>(capacity: usize) -> Vec<T> {
    let mut list = vec![T::default(); capacity];
    // Zeroed memory is mapped when it is first written.
    for entry in &mut list {
        *entry = std::hint::black_box(T::default());
    }
    list.clear();
    list
}

fn distribution(histogram: &Histogram<u64>) -> Distribution {
    let (up_to_ns, counts) = histogram
        .iter_recorded()
        .map(|range| (range.value_iterated_to(), range.count_since_last_iteration()))
        .unzip();
    Distribution { up_to_ns, counts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::QueuePolicy;

    fn recorder(limit: usize, streams: u32, arrivals: ArrivalTimes) -> StreamRecorder {
        let policy = QueuePolicy::DropOldest;
        let load = StreamLoad { fps: 100.0, streams, queue: 2, policy, arrivals, deadline_ns: None, seed: 1 };
        StreamRecorder::new(&load, limit, 8).unwrap()
    }

    fn arrival(frame: u64, stream: u32) -> Arrival {
        Arrival { frame, stream, scheduled_ns: 1000 + frame * 10 }
    }

    #[test]
    fn every_event_is_kept_up_to_the_limit() {
        let mut recorder = recorder(10, 2, ArrivalTimes::Constant);
        for frame in 0..10 {
            recorder.arrived(&arrival(frame, 1), 3, 1, 1000);
        }
        recorder.dropped(&arrival(4, 1), 1055, 1000);
        assert!(recorder.completed(&arrival(5, 1), 25, 75));
        recorder.source(7, true);
        let streamed = recorder.into_streamed();
        assert_eq!(streamed.arrived.scheduled_ns, (0..10).map(|frame| frame * 10).collect::<Vec<u64>>());
        assert_eq!(
            (streamed.arrived.late_ns[9], streamed.arrived.waiting[9], streamed.arrived.stream[9]),
            (3, 1, 1)
        );
        let dropped = Dropped { dropped_ns: vec![55], since_arrival_ns: vec![15], stream: vec![1] };
        assert_eq!(streamed.dropped, dropped);
        assert_eq!((streamed.since_arrival_ns, streamed.completed_stream), (vec![25], vec![1]));
        assert_eq!((streamed.source_cpu_ns, streamed.source_apart, streamed.rest), (7, true, None));
    }

    #[test]
    fn a_day_at_240_frames_per_second_has_bounded_memory_and_a_known_error() {
        let mut recorder = recorder(1000, 1, ArrivalTimes::Constant);
        let frames = 24 * 3600 * 240_u64;
        for frame in 0..frames {
            // Uniform between 4 and 5 ms.
            let since = 4_000_000 + frame * 7919 % 1_000_000;
            recorder.arrived(&arrival(frame, 0), 10, 0, 1000);
            recorder.completed(&arrival(frame, 0), since, (frame + 1) * 4_166_667);
        }
        assert_eq!(recorder.completions(), frames);
        let streamed = recorder.into_streamed();
        assert_eq!((streamed.since_arrival_ns.len(), streamed.arrived.late_ns.len()), (1000, 1000));
        let rest = streamed.rest.unwrap();
        assert_eq!((rest.arrived, rest.dropped, rest.completed), (frames, 0, frames));
        assert_eq!(rest.closed_ns, frames * 4_166_667);
        assert_eq!(rest.waiting, [frames, 0, 0]);
        let Distribution { up_to_ns, counts } = rest.since_arrival;
        assert!(up_to_ns.len() == counts.len() && up_to_ns.len() < 2000, "{}", up_to_ns.len());
        assert_eq!(counts.iter().sum::<u64>(), frames);
        let mut below = 0;
        let p99 = up_to_ns.iter().zip(&counts).find(|(_, count)| {
            below += **count;
            below as f64 >= 0.99 * frames as f64
        });
        let p99 = *p99.unwrap().0 as f64;
        assert!((p99 / 4_990_000.0 - 1.0).abs() < 0.002, "{p99}");
    }

    #[test]
    fn a_growing_latency_or_queue_is_not_steady() {
        let check = |arrivals, latency: &dyn Fn(u64) -> u64, waiting: &dyn Fn(u64) -> usize| {
            let mut recorder = recorder(1, 1, arrivals);
            let mut steady = Vec::new();
            for frame in 0..40 {
                recorder.warm_up_arrival(waiting(frame));
                recorder.warm_up_completion(latency(frame));
                steady.push(recorder.is_steady());
            }
            assert!(!steady[14], "two groups of 8 are needed");
            steady[39]
        };
        let (constant, poisson) = (ArrivalTimes::Constant, ArrivalTimes::Poisson);
        assert!(check(constant, &|frame| 20_000_000 + frame % 3 * 400_000, &|_| 0));
        assert!(!check(constant, &|frame| 20_000_000 + frame * 1_000_000, &|_| 0));
        assert!(!check(constant, &|frame| 900_000_000 + frame * 1_000_000, &|_| 0), "by less than 10 %");
        assert!(!check(constant, &|_| 20_000_000, &|frame| usize::try_from(frame / 4).unwrap()));
        assert!(check(constant, &|frame| 100_000 + frame * 2_000, &|_| 0), "within the time of a wake-up");
        assert!(check(poisson, &|frame| 20_000_000 + frame * 500_000, &|_| 0));
        assert!(!check(poisson, &|frame| 20_000_000 + frame * frame * 1_000_000, &|_| 0));
    }
}
