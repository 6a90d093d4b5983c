//! Baselines: figures of trials in a file.

use super::identity::Identity;
use crate::{ScheduleFigures, TrialFigures};
use domain::{FloatFormat, Metric, ScheduleKind, Winograd};
use host::date::Date;
use host::exit::{Exit, Failure, Outcome};
use host::progress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use store::{Store, StoredRun};

/// Version of the file. It rises when a field changes its meaning or is removed.
const SCHEMA: u32 = 1;

/// Largest file. A baseline of a hundred schedules with a thousand trials each has 15 MB.
const LARGEST: u64 = 256 << 20;

/// Plausible figures, in frames per second, ms or J.
const FIGURES: std::ops::RangeInclusive<f64> = 1e-9..=1e9;

/// Figures to compare others with, from one or several runs of the same code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Version of this format.
    pub schema: u32,
    /// Its name, the same as the file's.
    pub name: String,
    /// Version of the analysis that made the figures.
    pub analysis_version: u32,
    /// What it was measured on and with.
    pub identity: Identity,
    /// The runs. With at least three, the spread between runs is estimated from them.
    pub runs: Vec<BaselineRun>,
    /// One per schedule.
    pub rows: Vec<BaselineRow>,
}

/// A run of a baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BaselineRun {
    /// Its name.
    pub id: String,
    /// When it began: UTC, ISO 8601.
    pub begun: String,
    /// The experiment.
    pub experiment: String,
    /// Name of the host of the harness.
    pub host: String,
    /// Revision of the checkout.
    pub revision: Option<String>,
    /// Whether files differed from that revision.
    pub dirty: Option<bool>,
}

/// A schedule with its valid trials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BaselineRow {
    /// The network.
    pub network: String,
    /// Its label, unique within the network.
    pub schedule: String,
    /// `single`, `merged`, `pipeline`, `replicate` or `peer`.
    #[schemars(with = "String")]
    pub kind: ScheduleKind,
    /// Its processors, in stage order.
    pub processors: Vec<String>,
    /// `fp16` if one of its processors is a GPU that computes in half precision. Default: `fp32`.
    #[serde(default, skip_serializing_if = "FloatFormat::is_single")]
    pub precision: FloatFormat,
    /// `off` if its network was computed without Winograd's algorithm. Default: `auto`.
    #[serde(default, skip_serializing_if = "Winograd::is_auto")]
    pub winograd: Winograd,
    /// How many frames could wait in the first run, if the planner chose this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<String>,
    /// Its trials.
    pub trials: Vec<BaselineTrial>,
}

/// A trial.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BaselineTrial {
    /// Index of its run in `runs`.
    pub run: usize,
    /// Its round; trials of one round ran one after the other.
    pub round: u32,
    /// Frames per second.
    pub throughput_fps: f64,
    /// Median latency, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_p50_ms: Option<f64>,
    /// 90th percentile of the latency, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_p90_ms: Option<f64>,
    /// 99th percentile of the latency, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_p99_ms: Option<f64>,
    /// Highest sustained rate of a stream, in frames per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sustained_fps: Option<f64>,
    /// Frames of a stream that were not dropped, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_percent: Option<f64>,
    /// Frames of a stream with a result before its deadline, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_time_percent: Option<f64>,
    /// Mean age of the newest result of a stream, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<f64>,
    /// Energy of a frame in joules; absent if it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules_per_frame: Option<f64>,
}

impl BaselineTrial {
    /// The trial of the run with the index `run`.
    pub(super) fn new(run: usize, trial: &TrialFigures) -> Self {
        Self {
            run,
            round: trial.round,
            throughput_fps: trial.throughput_fps,
            latency_p50_ms: trial.latency_p50_ms,
            latency_p90_ms: trial.latency_p90_ms,
            latency_p99_ms: trial.latency_p99_ms,
            sustained_fps: trial.sustained_fps,
            delivered_percent: trial.delivered_percent,
            on_time_percent: trial.on_time_percent,
            age_ms: trial.age_ms,
            joules_per_frame: trial.energy_mj_per_frame.map(|millijoules| millijoules / 1e3),
        }
    }

    /// The figure as it is stored: energy in J.
    pub(super) fn figure(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Throughput => Some(self.throughput_fps),
            Metric::LatencyP50 => self.latency_p50_ms,
            Metric::LatencyP90 => self.latency_p90_ms,
            Metric::LatencyP99 => self.latency_p99_ms,
            Metric::Sustained => self.sustained_fps,
            Metric::Delivered => self.delivered_percent,
            Metric::OnTime => self.on_time_percent,
            Metric::Age => self.age_ms,
            Metric::EnergyPerFrame => self.joules_per_frame,
            Metric::Power => None,
        }
    }
}

impl Baseline {
    /// The path of the baseline with this name below `root`.
    ///
    /// # Errors
    /// If the name is invalid.
    pub fn path(root: &Path, name: &str) -> Outcome<PathBuf> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) || name.starts_with(['.', '-']) {
            return Err(usage(format!(
                "failed to use {name:?} as the name of a baseline: use at most 64 letters, digits, \"_\", \".\" and \"-\", and \
                 do not begin with \".\" or \"-\""
            )));
        }
        Ok(root.join("results/baselines").join(format!("{name}.json")))
    }

    /// From runs of the same code.
    ///
    /// # Errors
    /// If the runs are not comparable, have only void schedules, or were slowed down on purpose.
    pub fn of(store: &Store, name: &str, runs: &[StoredRun]) -> Outcome<Self> {
        let Some(first) = runs.first() else {
            return Err(usage(format!("failed to create the baseline {name}: no run was given")));
        };
        let mut identity = Identity::of(first);
        let mut rows: Vec<BaselineRow> = Vec::new();
        let mut void = Vec::new();
        for (place, run) in runs.iter().enumerate() {
            let id = &run.start.id;
            if runs[..place].iter().any(|other| other.start.id == *id) {
                return Err(usage(format!("failed to create the baseline {name}: run {id} is given twice")));
            }
            if crate::is_injected(run) {
                return Err(usage(format!(
                    "failed to create the baseline {name}: run {id} was made slower on purpose (`inject`)"
                )));
            }
            let of_run = Identity::of(run);
            identity.add_place(&of_run);
            let differences = identity.differences(&of_run);
            if !differences.is_empty() {
                let differences: Vec<String> = differences.iter().map(ToString::to_string).collect();
                return Err(usage(format!(
                    "failed to create the baseline {name}: runs {} and {id} are not comparable: {}",
                    first.start.id,
                    differences.join("; ")
                )));
            }
            for figures in crate::schedule_figures(store, run)? {
                if figures.void.is_none() {
                    add(&mut rows, place, &figures);
                } else {
                    void.push(format!("{} on {} in the run {id}", figures.network, figures.label));
                }
            }
        }
        if !void.is_empty() {
            eprintln!(
                "warning: void schedules are not in the baseline: {}; see the report of the run",
                progress::several(&void)
            );
        }
        if rows.is_empty() {
            return Err(usage(format!("failed to create the baseline {name}: every schedule is void")));
        }
        let run = |run: &StoredRun| BaselineRun {
            id: run.start.id.to_string(),
            begun: Date::from_unix_ns(run.start.begun_unix_ns).to_string(),
            experiment: run.start.experiment.clone(),
            host: run.start.host.clone(),
            revision: run.start.revision.as_ref().map(|revision| revision.commit.clone()),
            dirty: run.start.revision.as_ref().map(|revision| revision.dirty),
        };
        Ok(Self {
            schema: SCHEMA,
            name: name.to_owned(),
            analysis_version: domain::ANALYSIS_VERSION,
            identity,
            runs: runs.iter().map(run).collect(),
            rows,
        })
    }

    /// Writes the file, replacing one of the same name.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, root: &Path) -> Outcome<PathBuf> {
        let path = Self::path(root, &self.name)?;
        let failed = |error: &dyn std::fmt::Display| {
            usage(format!("failed to write the baseline {}: {error}", path.display()))
        };
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(&error))? + "\n";
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        }
        let fresh = path.with_extension("json.new");
        fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &path)).map_err(|error| failed(&error))?;
        Ok(path)
    }

    /// Reads the baseline of this name.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn read(root: &Path, name: &str) -> Outcome<Self> {
        let path = Self::path(root, name)?;
        let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let text = host::files::read_text(&path, LARGEST).map_err(|error| {
            let known = names(root);
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            usage(format!(
                "failed to read the baseline {shown}: {error}; known baselines: {known}; `{program} baseline save \
                 {name}` makes it from the latest run", program = host::program()))
        })?;
        let mut baseline: Self = serde_json::from_str(&text)
            .map_err(|error| usage(format!("failed to read the baseline {shown}: {error}; save it again")))?;
        if let Some(fault) = baseline.fault() {
            return Err(usage(format!("failed to read the baseline {shown}: {fault}; save it again")));
        }
        // A file may be copied to another name.
        name.clone_into(&mut baseline.name);
        Ok(baseline)
    }

    /// Why it cannot be used, although it parses.
    fn fault(&self) -> Option<String> {
        if self.schema != SCHEMA {
            return Some(format!("it has version {}, this program reads version {SCHEMA}", self.schema));
        }
        if self.analysis_version > domain::ANALYSIS_VERSION {
            return Some(format!("its figures come from a newer analysis, {}", self.analysis_version));
        }
        if self.rows.iter().all(|row| row.trials.is_empty()) {
            return Some("it has no trials".to_owned());
        }
        let mut seen = BTreeSet::new();
        for row in &self.rows {
            let what = format!("{} on {}", row.network, row.schedule);
            if !seen.insert((&row.network, &row.schedule)) {
                return Some(format!("duplicate entry {what}"));
            }
            for trial in &row.trials {
                if trial.run >= self.runs.len() {
                    return Some(format!(
                        "a trial of {what} refers to run {}, which does not exist",
                        trial.run
                    ));
                }
                let mut figures = Metric::GATED.into_iter().filter_map(|metric| trial.figure(metric));
                if let Some(figure) = figures.find(|figure| !FIGURES.contains(figure)) {
                    return Some(format!("invalid figure {figure} of {what}"));
                }
            }
        }
        None
    }
}

fn names(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join("results/baselines")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .collect();
    names.sort();
    names
}

fn add(rows: &mut Vec<BaselineRow>, run: usize, figures: &ScheduleFigures) {
    let place = rows.iter().position(|row| row.network == figures.network && row.schedule == figures.label);
    let place = place.unwrap_or_else(|| {
        rows.push(BaselineRow {
            network: figures.network.clone(),
            schedule: figures.label.clone(),
            kind: figures.kind,
            processors: figures.processors.clone(),
            precision: figures.precision,
            winograd: figures.winograd,
            queues: figures.queue_lengths(),
            trials: Vec::new(),
        });
        rows.len() - 1
    });
    rows[place].trials.extend(figures.trials.iter().map(|trial| BaselineTrial::new(run, trial)));
}

pub(super) fn usage(message: String) -> Failure {
    Failure::new(Exit::Usage, message)
}
