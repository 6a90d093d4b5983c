//! The error rates of the gate, measured on this machine: false alarms and detections.

mod kept;

use crate::output::{after_closing, print};
use campaign::provenance::Provenance;
use campaign::{OpenedBoard, Pairing, Paths, compare_with_itself, open};
use clap::{Args, Subcommand};
use config::{self, Overrides, Thresholds};
use domain::Samples;
use domain::gate::{Case, Evidence, Ruled, Ruling, Spread, judge};
use domain::{Metric, ScheduleKind};
use host::date::{Date, unix_ns};
use host::exit::{Ending as _, Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use host::progress::Progress;
use kept::{Asked, Kept, Sitting};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Options of `selftest`.
#[derive(Debug, Subcommand)]
pub(crate) enum Arguments {
    /// Compare a schedule with itself: how often the gate fails, and how often the interval contains 1.
    Aa(Comparisons),
    /// Compare a schedule with a slowed-down one: how often the gate detects it, and how long that takes.
    Ab {
        /// Slow-down of the first stage, in percent.
        #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
        slow_down: f64,
        #[command(flatten)]
        common: Comparisons,
    },
}

/// How a self-test compares.
#[derive(Debug, Args)]
pub(crate) struct Comparisons {
    /// Number of comparisons.
    #[arg(long = "comparisons", value_name = "N", default_value_t = 100)]
    count: u32,
    /// Measure the two sides one after the other, each with its own runner, like two runs that `check` compares.
    /// Default: interleave the trials, like those of two schedules of a run.
    #[arg(long)]
    apart: bool,
    /// Append to the comparisons of earlier self-tests with the same settings, and print one table of all.
    #[arg(long)]
    append: bool,
    /// Board, a file in configs/boards/.
    #[arg(long, value_name = "NAME", default_value = "local")]
    board: String,
    /// Experiment; the first schedule of its first network is compared.
    #[arg(long, value_name = "NAME", default_value = "selftest")]
    experiment: String,
    /// Any setting of the experiment, such as `--set precision=1%`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// File to write the table to. Default: a file next to the recorded comparisons; the command prints its path.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// `cargo xtask selftest`.
///
/// # Errors
/// If nothing can be measured, or the table cannot be written.
pub(crate) fn run(paths: Paths, options: &Arguments) -> Outcome<Exit> {
    let thresholds = Thresholds::read(&paths.root.join("ci/thresholds.yaml")).ending(Exit::Usage)?;
    let (common, slow_down) = match options {
        Arguments::Aa(common) => (common, 0.0),
        Arguments::Ab { slow_down, common } => (common, *slow_down),
    };
    let is_asked = matches!(options, Arguments::Ab { .. });
    if !(0.0..=100.0).contains(&slow_down) || (is_asked && slow_down < 0.1) {
        let message =
            format!("failed to read --slow-down {slow_down}: expected a percentage from 0.1 to 100");
        return Err(Failure::new(Exit::Usage, message));
    }
    // The runner counts in thousandths.
    let slow_down = (10.0 * slow_down).round() / 10.0;
    let overrides = Overrides { set: common.set.clone(), ..Overrides::default() };
    let loaded =
        config::load(&paths.settings, &common.board, &common.experiment, &overrides).ending(Exit::Usage)?;
    let experiment = loaded.experiment.clone();
    let configuration = loaded.to_yaml().ending(Exit::Bug)?;
    let root = paths.root.clone();
    let interrupt = Interrupt::listen().ending(Exit::Bug)?;
    let folder = paths.state.join("selftest");
    std::fs::create_dir_all(&folder).ending(Exit::Usage)?;
    let name = if slow_down > 0.0 { format!("ab-{slow_down}") } else { "aa".to_owned() };
    let name = if common.apart { format!("{name}-apart") } else { name };
    let mut board = open::open(loaded, paths, interrupt)?;
    let measure = |board: &mut OpenedBoard| -> Outcome<Kept> {
        let asked = Asked { slow_down, apart: common.apart, machine: board.describe(), configuration };
        let revision = Provenance::collect(&root, "").revision();
        let revision = revision.map(|revision| revision.commit + if revision.dirty { "*" } else { "" });
        let begun = Date::from_unix_ns(unix_ns()).to_string();
        let sitting = Sitting { begun, revision, comparisons: 0 };
        let mut kept = Kept::begin(&folder.join(format!("{name}.json")), asked, common.append, sitting)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
        let slow_down_per_mille = (10.0 * slow_down).round() as u32;
        let pairing = Pairing {
            comparisons: common.count,
            earlier: kept.pairs.len(),
            slow_down_per_mille,
            apart: common.apart,
        };
        let progress = Progress::begin("compare", common.count as usize);
        compare_with_itself(board, pairing, |what, pair| {
            let said = format!("{} in {:.1} s", kept.pairs.len() + 1, pair.seconds);
            kept.add(what, pair)?;
            progress.step(&said);
            Ok(())
        })?;
        progress.end(&format!("{} comparisons", kept.pairs.len()));
        Ok(kept)
    };
    let measured = measure(&mut board);
    let (kept, closed) = board.close(measured)?;
    let threshold = thresholds
        .of(Metric::Throughput, experiment.networks[0].name(), ScheduleKind::Single, "")
        .unwrap_or(0.0);
    let spread = Spread { deviation: thresholds.between_runs, freedom: f64::INFINITY };
    let ruled: Vec<Option<Ruled>> = kept
        .pairs
        .iter()
        .map(|pair| {
            let [baseline, candidate] = pair.observed();
            let values = |side: &[(u32, f64)]| vec![side.iter().map(|(_, fps)| *fps).collect::<Vec<f64>>()];
            let evidence = if common.apart {
                let (candidate, baseline) = (values(&pair.candidate), values(&pair.baseline));
                let spread = spread.at_least_within(&[&candidate[0], &baseline[0]]);
                Evidence::Apart { candidate, baseline, spread }
            } else {
                Evidence::Paired { candidate, baseline }
            };
            let case = Case { direction: Metric::Throughput.direction(), threshold, evidence };
            judge(&[case], thresholds.false_alarms).pop().and_then(Result::ok)
        })
        .collect();
    let text = table(&kept, threshold, &experiment, &ruled);
    after_closing(closed, write(&kept, common, &text, &folder.join(format!("{name}.md"))))
}

/// Prints the table and writes it to a file.
fn write(kept: &Kept, common: &Comparisons, text: &str, otherwise: &Path) -> Outcome<Exit> {
    print(text)?;
    let table_path = common.write.as_deref().unwrap_or(otherwise);
    std::fs::write(table_path, text).map_err(|error| {
        Failure::new(Exit::Usage, format!("failed to write {}: {error}", table_path.display()))
    })?;
    eprintln!("table in {}, every trial in {}", table_path.display(), kept.path().display());
    Ok(Exit::Fine)
}

fn table(kept: &Kept, threshold: f64, experiment: &config::Experiment, ruled: &[Option<Ruled>]) -> String {
    let (pairs, slow_down) = (&kept.pairs, kept.asked.slow_down);
    let truth = 1.0 / (1.0 + slow_down / 100.0);
    let count =
        |wanted: &dyn Fn(&Ruled) -> bool| ruled.iter().flatten().filter(|ruled| wanted(ruled)).count();
    let of = |hits: usize| {
        format!("{hits} of {} ({:.1} %)", pairs.len(), 100.0 * hits as f64 / pairs.len().max(1) as f64)
    };
    let middle = |values: Vec<f64>, digits: usize| {
        Samples::new(&values)
            .map_or_else(|_| "–".to_owned(), |samples| format!("{:.digits$}", samples.median()))
    };
    let halves = ruled.iter().flatten().filter_map(|ruled| ruled.ratio.precision());
    let times: Vec<f64> = pairs.iter().map(|pair| pair.seconds).collect();
    let longest = times.iter().copied().fold(0.0, f64::max);
    let trials = pairs.iter().map(|pair| (pair.baseline.len() + pair.candidate.len()) as f64);
    let method = if kept.asked.apart { "one after the other" } else { "interleaved" };
    let precision =
        experiment.precision.map_or_else(String::new, |share| format!(", until ±{} %", 100.0 * share));
    let mut out = String::new();
    let title =
        if slow_down > 0.0 { format!("itself made {slow_down} % slower") } else { "itself".to_owned() };
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{} against {title}: windows of {:.2} s, {} trials of each, {method}{precision}; threshold {} %\n",
        kept.what,
        experiment.measure.min.as_secs_f64(),
        experiment.trials,
        100.0 * threshold
    );
    out += "| what | result |\n|---|--:|\n";
    let found = count(&|ruled| ruled.ruling == Ruling::Regression);
    let name = if slow_down > 0.0 { "slow-down detected" } else { "gate fails" };
    // What a busy loop does to the frames after it is not known to a tenth of a percent.
    let coverage = if slow_down > 0.0 {
        "95 % interval contains the requested ratio"
    } else {
        "95 % interval contains 1"
    };
    for (name, value) in [
        (name, of(found)),
        (coverage, of(count(&|ruled| ruled.ratio.holds(truth)))),
        ("reported as better", of(count(&|ruled| ruled.ruling == Ruling::Improvement))),
        ("half width of the interval, median, %", middle(halves.map(|half| 100.0 * half).collect(), 2)),
        ("ratio, median", middle(ruled.iter().flatten().map(|ruled| ruled.ratio.point).collect(), 4)),
        ("trials of a comparison, median", middle(trials.collect(), 0)),
        ("time of a comparison, median, s", middle(times, 1)),
        ("time of a comparison, longest, s", format!("{longest:.1}")),
        ("void trials", pairs.iter().map(|pair| pair.void).sum::<u32>().to_string()),
    ] {
        let _ = writeln!(out, "| {name} | {value} |");
    }
    let sittings: Vec<String> =
        kept.sittings.iter().filter(|sitting| sitting.comparisons > 0).map(told).collect();
    let _ = writeln!(out, "\non {}; measured {}", kept.asked.machine, sittings.join(", "));
    out
}

fn told(sitting: &Sitting) -> String {
    let revision = sitting.revision.as_ref().map_or_else(String::new, |revision| {
        let changed = if revision.ends_with('*') { "*" } else { "" };
        format!(" at {}{changed}", revision.chars().take(9).collect::<String>().trim_end_matches('*'))
    });
    format!("{} on {}{revision}", sitting.comparisons, sitting.begun)
}
