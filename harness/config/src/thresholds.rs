//! By how much a measure may become worse, as the program uses it.

use std::path::Path;
use std::sync::Arc;

use super::faults::{Faults, Spot};
use super::schema::SCHEMAS;
use super::{check, files, raw, tree, typed};

/// What the gate looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measured {
    /// Frames per second.
    Throughput,
    /// Latency that half of the frames do not exceed.
    LatencyP50,
    /// Latency that 99 of 100 frames do not exceed.
    LatencyP99,
    /// Energy of a frame.
    JoulesPerFrame,
}

impl Measured {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Throughput, Self::LatencyP50, Self::LatencyP99, Self::JoulesPerFrame];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::LatencyP50 => "latency_p50",
            Self::LatencyP99 => "latency_p99",
            Self::JoulesPerFrame => "joules_per_frame",
        }
    }
}

/// The file, resolved. Shares are of one: 0.01 is 1 %.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds {
    /// Probability with which a whole check may fail although nothing became worse; above 0 and below 1/2.
    pub false_alarms: f64,
    /// Standard deviation between runs of the same thing.
    pub between_runs: f64,
    general: [Option<f64>; 4],
    overrides: Vec<Override>,
}

/// What an override says of a measure.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    Off,
    By(f64),
}

#[derive(Debug, Clone, PartialEq)]
struct Override {
    network: Option<String>,
    schedule: Option<String>,
    own: [Option<Limit>; 4],
}

impl Thresholds {
    /// Reads and checks the file.
    pub fn read(path: &Path) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let read = read(path, &mut faults);
        faults.into_result(read)
    }

    /// The threshold of a measure of a schedule, which is named by its kind or its label; `None`: not looked at.
    pub fn of(&self, measure: Measured, network: &str, kind: &str, label: &str) -> Option<f64> {
        let place = measure as usize;
        let fits = |rule: &&Override| {
            rule.network.as_deref().is_none_or(|name| name == network)
                && rule.schedule.as_deref().is_none_or(|name| name == kind || name == label)
        };
        let own = self.overrides.iter().rev().filter(fits).find_map(|rule| rule.own[place]);
        match own {
            Some(Limit::By(share)) => Some(share),
            Some(Limit::Off) => None,
            None => self.general[place],
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
    let sound = check::check(&tree, &SCHEMAS.thresholds, faults)?;
    let read = typed::read::<raw::Thresholds>(&sound);
    if let (Err(error), true) = (&read, faults.is_empty()) {
        faults.add(&tree.at, error.to_string());
    }
    let raw = read.ok()?;
    let false_alarms = raw.false_alarms.share();
    if !(false_alarms > 0.0 && false_alarms < 0.5) {
        faults.add(&sound.spot("false_alarms"), "expected more than 0% and less than 50%");
    }
    if raw.between_runs.share() > 0.5 {
        faults.add(
            &sound.spot("between_runs"),
            "expected at most 50%: beyond that no check could tell anything",
        );
    }
    let own_throughput = raw.overrides.iter().enumerate().filter_map(|(place, rule)| {
        Some((format!("overrides/{place}/throughput"), rule.throughput.as_ref()?))
    });
    for (path, threshold) in own_throughput.chain([("throughput".to_owned(), &raw.throughput)]) {
        if share(threshold).is_some_and(|share| share >= 1.0) {
            faults.add(&sound.spot(&path), "expected less than 100%: throughput cannot fall by more");
        }
    }
    let own = |threshold: Option<raw::Threshold>| {
        threshold.map(|threshold| share(&threshold).map_or(Limit::Off, Limit::By))
    };
    Some(Thresholds {
        false_alarms,
        between_runs: raw.between_runs.share(),
        general: [
            share(&raw.throughput),
            share(&raw.latency_p50),
            share(&raw.latency_p99),
            share(&raw.joules_per_frame),
        ],
        overrides: raw
            .overrides
            .into_iter()
            .map(|rule| Override {
                network: rule.network.map(|name| name.0),
                schedule: rule.schedule.map(|name| name.0),
                own: [
                    own(rule.throughput),
                    own(rule.latency_p50),
                    own(rule.latency_p99),
                    own(rule.joules_per_frame),
                ],
            })
            .collect(),
    })
}

fn share(threshold: &raw::Threshold) -> Option<f64> {
    match threshold {
        raw::Threshold::Any(_) => None,
        raw::Threshold::By(percent) => Some(percent.share()),
    }
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
        assert_eq!(of(Measured::Throughput, "resnet18", "single", "cpu0"), Some(0.005));
        assert_eq!(of(Measured::Throughput, "tiny", "single", "cpu0"), Some(0.05));
        assert_eq!(of(Measured::Throughput, "tiny", "pipeline", "cpu0[0..2] > cpu1[2..4]"), None);
        assert_eq!(of(Measured::LatencyP99, "tiny", "replicate", "cpu0 | cpu1"), Some(0.09));
        assert_eq!(of(Measured::LatencyP99, "tiny", "single", "cpu0"), None);
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
        check(&format!("{SOUND}througput: 1%\n"), "did you mean");
        check(&SOUND.replace("between_runs: 1.5 %\n", ""), "between_runs");
    }
}
