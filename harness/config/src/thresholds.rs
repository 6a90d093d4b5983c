//! `ci/thresholds.yaml`: how much worse a metric can become before `cargo xtask check` fails.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use domain::{Metric, ScheduleKind};
use schemars::JsonSchema;
use serde::Deserialize;

use super::faults::{Faults, Spot};
use super::values::{Name, Percent, PercentOrNone, Text, percent};
use super::{check, files, schema, tree, typed};

/// How much worse a metric can become before `cargo xtask check` fails.
// In the file, shares are percentages; here, 0.01 is 1 %.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Probability that a whole check fails although nothing became worse.
    #[serde(deserialize_with = "percent::deserialize")]
    #[schemars(with = "Percent")]
    pub false_alarms: f64,
    /// Standard deviation between runs of the same code. A larger estimate from at least three runs of a
    /// baseline replaces this value. A smaller estimate replaces it only if intervals become narrower: an estimate from
    /// few runs is uncertain, which widens them.
    #[serde(deserialize_with = "percent::deserialize")]
    #[schemars(with = "Percent")]
    pub between_runs: f64,
    /// Frames per second.
    #[schemars(with = "PercentOrNone")]
    throughput: Limit,
    /// Median latency of a frame.
    #[schemars(with = "PercentOrNone")]
    latency_p50: Limit,
    /// 90th percentile of the latency of a frame. Default: `none`.
    #[serde(default)]
    #[schemars(with = "PercentOrNone")]
    latency_p90: Limit,
    /// 99th percentile of the latency of a frame.
    #[schemars(with = "PercentOrNone")]
    latency_p99: Limit,
    /// Highest rate of a stream that is sustained. Default: `none`.
    #[serde(default)]
    #[schemars(with = "PercentOrNone")]
    sustained: Limit,
    /// Share of the frames of a stream that are not dropped. Default: `none`.
    #[serde(default)]
    #[schemars(with = "PercentOrNone")]
    delivered: Limit,
    /// Share of the frames of a stream with a result before its deadline. Default: `none`.
    #[serde(default)]
    #[schemars(with = "PercentOrNone")]
    on_time: Limit,
    /// Mean age of the newest result of a stream. Default: `none`.
    #[serde(default)]
    #[schemars(with = "PercentOrNone")]
    age: Limit,
    /// Energy per frame, if it is measured.
    #[schemars(with = "PercentOrNone")]
    joules_per_frame: Limit,
    /// Other thresholds for some rows. If several match, the last one applies.
    #[serde(default)]
    overrides: Vec<Override>,
}

/// A threshold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(try_from = "PercentOrNone")]
enum Limit {
    /// The metric is not checked.
    #[default]
    Off,
    /// Worse by more than this share is a regression.
    Share(f64),
}

impl TryFrom<PercentOrNone> for Limit {
    type Error = serde::de::value::Error;

    fn try_from(written: PercentOrNone) -> Result<Self, Self::Error> {
        match written {
            PercentOrNone::None(_) => Ok(Self::Off),
            PercentOrNone::Percent(text) => percent::share(&text).map(Self::Share),
        }
    }
}

/// Thresholds of some rows.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Override {
    /// Applies to this network only. Default: all.
    #[serde(default)]
    #[schemars(with = "Option<Name>")]
    network: Option<String>,
    /// Applies to schedules of this kind (`pipeline`) or to this one (`cpu0 | cpu1`) only. Default: all.
    #[serde(default)]
    #[schemars(with = "Option<Text>")]
    schedule: Option<String>,
    /// Frames per second.
    #[serde(default)]
    #[schemars(with = "Option<PercentOrNone>")]
    throughput: Option<Limit>,
    /// Median latency of a frame.
    #[serde(default)]
    #[schemars(with = "Option<PercentOrNone>")]
    latency_p50: Option<Limit>,
    /// 90th percentile of the latency of a frame.
    #[serde(default)]
    #[schemars(with = "Option<PercentOrNone>")]
    latency_p90: Option<Limit>,
    /// 99th percentile of the latency of a frame.
    #[serde(default)]
    #[schemars(with = "Option<PercentOrNone>")]
    latency_p99: Option<Limit>,
    /// Highest rate of a stream that is sustained.
    #[serde(default)]
    #[schemars(with = "Option<PercentOrNone>")]
    sustained: Option<Limit>,
    /// Share of the frames of a stream that are not dropped.
    #[serde(default)]
    #[schemars(with = "Option<PercentOrNone>")]
    delivered: Option<Limit>,
    /// Share of the frames of a stream with a result before its deadline.
    #[serde(default)]
    #[schemars(with = "Option<PercentOrNone>")]
    on_time: Option<Limit>,
    /// Mean age of the newest result of a stream.
    #[serde(default)]
    #[schemars(with = "Option<PercentOrNone>")]
    age: Option<Limit>,
    /// Energy per frame, if it is measured.
    #[serde(default)]
    #[schemars(with = "Option<PercentOrNone>")]
    joules_per_frame: Option<Limit>,
}

/// The schema of the file.
pub(super) static SCHEMA: LazyLock<serde_json::Value> = LazyLock::new(schema::of::<Thresholds>);

impl Thresholds {
    /// Reads and checks the file.
    pub fn read(path: &Path) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let read = read(path, &mut faults);
        faults.into_result(read)
    }

    /// The threshold of a metric of a schedule with this kind and label; `None`: not checked.
    pub fn of(&self, metric: Metric, network: &str, kind: ScheduleKind, label: &str) -> Option<f64> {
        let matches = |rule: &&Override| {
            rule.network.as_deref().is_none_or(|name| name == network)
                && rule.schedule.as_deref().is_none_or(|name| name == kind.as_str() || name == label)
        };
        let limit = self.overrides.iter().rev().filter(matches).find_map(|rule| match metric {
            Metric::Throughput => rule.throughput,
            Metric::LatencyP50 => rule.latency_p50,
            Metric::LatencyP90 => rule.latency_p90,
            Metric::LatencyP99 => rule.latency_p99,
            Metric::Sustained => rule.sustained,
            Metric::Delivered => rule.delivered,
            Metric::OnTime => rule.on_time,
            Metric::Age => rule.age,
            Metric::EnergyPerFrame => rule.joules_per_frame,
            Metric::Power => None,
        });
        let general = match metric {
            Metric::Throughput => self.throughput,
            Metric::LatencyP50 => self.latency_p50,
            Metric::LatencyP90 => self.latency_p90,
            Metric::LatencyP99 => self.latency_p99,
            Metric::Sustained => self.sustained,
            Metric::Delivered => self.delivered,
            Metric::OnTime => self.on_time,
            Metric::Age => self.age,
            Metric::EnergyPerFrame => self.joules_per_frame,
            Metric::Power => Limit::Off,
        };
        match limit.unwrap_or(general) {
            Limit::Share(share) => Some(share),
            Limit::Off => None,
        }
    }
}

fn read(path: &Path, faults: &mut Faults) -> Option<Thresholds> {
    let source: Arc<str> = Arc::from(path.to_string_lossy());
    let text = match host::files::read_text(path, files::LARGEST) {
        Ok(text) => text,
        Err(error) => {
            faults.add(&Spot::whole(source), error.to_string());
            return None;
        }
    };
    let tree = tree::parse(&source, &text, faults)?;
    let valid = check::check(&tree, &SCHEMA, faults)?;
    let thresholds: Thresholds = typed::read_checked(&valid, faults)?;
    if !(thresholds.false_alarms > 0.0 && thresholds.false_alarms < 0.5) {
        faults.add(&valid.spot("false_alarms"), "expected more than 0% and less than 50%");
    }
    if thresholds.between_runs > 0.5 {
        let message = "expected at most 50%; with a larger spread no check can find a regression";
        faults.add(&valid.spot("between_runs"), message);
    }
    // These cannot drop by more than all.
    let of_rule = |rule: &Override| {
        [
            ("throughput", rule.throughput),
            ("sustained", rule.sustained),
            ("delivered", rule.delivered),
            ("on_time", rule.on_time),
        ]
    };
    let own = thresholds.overrides.iter().enumerate().flat_map(|(place, rule)| {
        of_rule(rule)
            .into_iter()
            .filter_map(move |(name, limit)| Some((format!("overrides/{place}/{name}"), name, limit?)))
    });
    let general = [
        ("throughput", thresholds.throughput),
        ("sustained", thresholds.sustained),
        ("delivered", thresholds.delivered),
        ("on_time", thresholds.on_time),
    ];
    for (path, name, limit) in own.chain(general.map(|(name, limit)| (name.to_owned(), name, limit))) {
        if matches!(limit, Limit::Share(share) if share >= 1.0) {
            faults.add(&valid.spot(&path), format!("expected less than 100%; {name} cannot drop by more"));
        }
    }
    Some(thresholds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Thresholds, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("thresholds.yaml");
        std::fs::write(&path, text).unwrap();
        Thresholds::read(&path).map_err(|faults| faults.to_string())
    }

    const SOUND: &str = "false_alarms: 2%\nbetween_runs: 1.5 %\nthroughput: 0.5%\nlatency_p50: 2%\n\
                         latency_p99: none\njoules_per_frame: 3%\n";

    #[test]
    fn the_last_override_that_fits_counts() {
        let text = format!(
            "{SOUND}overrides:\n  - network: tiny\n    throughput: 5%\n  - schedule: pipeline\n    throughput: none\n  \
             - network: tiny\n    schedule: cpu0 | cpu1\n    latency_p99: 9%\n"
        );
        let thresholds = read_text(&text).unwrap();
        let of = |measure, network, kind, label| thresholds.of(measure, network, kind, label);
        assert_eq!((thresholds.false_alarms, thresholds.between_runs), (0.02, 0.015));
        assert_eq!(of(Metric::Throughput, "resnet18", ScheduleKind::Single, "cpu0"), Some(0.005));
        assert_eq!(of(Metric::Throughput, "tiny", ScheduleKind::Single, "cpu0"), Some(0.05));
        assert_eq!(of(Metric::Throughput, "tiny", ScheduleKind::Pipeline, "cpu0[0..2] > cpu1[2..4]"), None);
        assert_eq!(of(Metric::LatencyP99, "tiny", ScheduleKind::Replicate, "cpu0 | cpu1"), Some(0.09));
        assert_eq!(of(Metric::LatencyP99, "tiny", ScheduleKind::Single, "cpu0"), None);
    }

    #[test]
    fn faults_have_their_lines() {
        let check = |text: &str, wanted: &str| {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        };
        check(&SOUND.replace("throughput: 0.5%", "throughput: 0.5"), ":3:13");
        check(&SOUND.replace("2%", "70%"), "less than 50%");
        check(&SOUND.replace("between_runs: 1.5 %", "between_runs: 51%"), ":2:15");
        check(&SOUND.replace("throughput: 0.5%", "throughput: 100%"), ":3:13");
        check(&format!("{SOUND}overrides:\n  - throughput: 200%\n"), ":8:17");
        check(&format!("{SOUND}delivered: 100%\n"), "delivered cannot drop by more");
        check(&format!("{SOUND}througput: 1%\n"), "did you mean");
        check(&SOUND.replace("between_runs: 1.5 %\n", ""), "between_runs");
    }
}
