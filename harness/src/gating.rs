//! The verbs of the regression gate.

use crate::campaign::{Paths, store_failure};
use crate::cli;
use crate::config::Thresholds;
use crate::exit::{Ending as _, Exit, Failure, Outcome};
use crate::gate::{self, Baseline, CheckReport, Format, Identity, Verdict};
use crate::progress;
use crate::report;
use crate::store::{Access, RunFilter, RunId, Status, Store, StoredRun};
use std::path::PathBuf;

/// `cargo xtask baseline save`.
///
/// # Errors
/// Where there is no such run, runs are unlike, or the file cannot be written.
pub(crate) fn save(paths: &Paths, options: &cli::Save) -> Outcome<Exit> {
    let store = Store::open(&paths.database, Access::ReadOnly).map_err(store_failure)?;
    let mut runs = Vec::new();
    for asked in &options.run {
        runs.push(store.run(asked).map_err(store_failure)?);
    }
    if runs.is_empty() {
        runs.push(latest(&store, None)?);
    }
    let baseline = Baseline::of(&store, &options.name, &runs)?;
    for run in &runs {
        warn_of_a_part(run);
    }
    if let Some(warning) = few_trials(&baseline) {
        eprintln!("warning: {warning}");
    }
    let path = baseline.write(&paths.root)?;
    let trials: usize = baseline.rows.iter().map(|row| row.trials.len()).sum();
    eprintln!(
        "saved {}: {} schedules, {trials} trials of {} run{}",
        path.strip_prefix(&paths.root).unwrap_or(&path).display(),
        baseline.rows.len(),
        runs.len(),
        if runs.len() == 1 { "" } else { "s" }
    );
    match baseline.spread() {
        Some(spread) => eprintln!("these runs lie {:.2} % apart (standard deviation)", 100.0 * spread),
        None => eprintln!(
            "how far runs lie apart is not told by fewer than three; checks take `between_runs` of ci/thresholds.yaml"
        ),
    }
    Ok(Exit::Fine)
}

/// Valid trials of a schedule below which a baseline is told to be poor.
const FEW: usize = 4;

/// What to say of schedules with few trials; one sentence for all of them.
pub(crate) fn few_trials(baseline: &Baseline) -> Option<String> {
    let rows = &baseline.rows;
    let few: Vec<String> = rows
        .iter()
        .filter(|row| row.trials.len() < FEW)
        .map(|row| format!("{} on {} ({})", row.network, row.schedule, row.trials.len()))
        .collect();
    (!few.is_empty()).then(|| {
        format!(
            "{} of {} schedules have fewer than {FEW} valid trials: {}; a check finds little with so few, measure again \
             with more trials",
            few.len(),
            rows.len(),
            progress::several(&few)
        )
    })
}

fn warn_of_a_part(run: &StoredRun) {
    if run.status != Status::Complete {
        eprintln!(
            "warning: the run {} is {}, not complete; `cargo xtask bench --resume {}` goes on with it",
            run.start.id, run.status, run.start.id
        );
    }
}

/// What a check needs besides the run.
pub(crate) struct Needed {
    baseline: Baseline,
    thresholds: Thresholds,
}

/// Looks at all that can be wrong before an hour of measuring.
///
/// # Errors
/// Where the baseline or the thresholds cannot be read, a file could not be written, or an option makes no sense.
pub(crate) fn needed(paths: &Paths, options: &cli::Check) -> Outcome<Needed> {
    let baseline = Baseline::read(&paths.root, &options.against)?;
    let thresholds = paths.root.join("ci/thresholds.yaml");
    let thresholds =
        Thresholds::read(options.thresholds.as_ref().unwrap_or(&thresholds)).ending(Exit::Usage)?;
    if let Some(unknown) =
        options.allow_different.iter().find(|name| !Identity::known().contains(&name.as_str()))
    {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "failed to read --allow-different {unknown}: expected one of {}",
                Identity::known().join(", ")
            ),
        ));
    }
    for (_, path) in &options.write {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if path.is_dir() || folder.is_some_and(|folder| !folder.is_dir()) {
            return Err(Failure::new(
                Exit::Usage,
                format!("failed to write {}: name a file in a folder that is there", path.display()),
            ));
        }
    }
    Ok(Needed { baseline, thresholds })
}

/// Judges a run that is in the database.
///
/// # Errors
/// Where it is of something unlike the baseline, or the result cannot be written.
pub(crate) fn judge(needed: &Needed, store: &Store, run: &RunId, options: &cli::Check) -> Outcome<Exit> {
    let Needed { baseline, thresholds } = needed;
    let run = store.run(run.as_str()).map_err(store_failure)?;
    if baseline.runs.iter().any(|own| own.id == run.start.id.as_str()) {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "failed to check the run {} against {}: the baseline was made from it, and nothing differs from itself; \
                 measure another one by --experiment NAME",
                run.start.id, baseline.name
            ),
        ));
    }
    warn_of_a_part(&run);
    let differences = baseline.identity.differences(&Identity::of(&run));
    let refused: Vec<String> = differences
        .iter()
        .filter(|difference| !options.allow_different.contains(&difference.aspect))
        .map(|difference| format!("\n  {difference}"))
        .collect();
    if !refused.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "failed to check the run {} against {}: they are of unlike things, and a difference would say nothing; \
                 save another baseline, or give --allow-different ASPECT for each of{}",
                run.start.id,
                baseline.name,
                refused.concat()
            ),
        ));
    }
    let figures = report::trial_figures(store, &run).map_err(store_failure)?;
    let report = gate::check(baseline, run.start.id.as_str(), &figures, differences, thresholds);
    for (format, path) in &options.write {
        std::fs::write(path, report.render(*format)).map_err(|error| {
            Failure::new(Exit::Usage, format!("failed to write {}: {error}", path.display()))
        })?;
    }
    crate::verbs::print(&report.render(options.format))?;
    Ok(exit(&report))
}

fn exit(report: &CheckReport) -> Exit {
    match report.verdict {
        Verdict::Pass => Exit::Fine,
        Verdict::Fail => Exit::Regression,
        Verdict::Incomplete => Exit::Trial,
    }
}

/// The run to judge where it is to be measured no more.
///
/// # Errors
/// Where there is none.
pub(crate) fn stored(store: &Store, asked: Option<&str>) -> Outcome<RunId> {
    match asked {
        None | Some("latest") => Ok(latest(store, None)?.start.id),
        Some(asked) => Ok(store.run(asked).map_err(store_failure)?.start.id),
    }
}

fn latest(store: &Store, experiment: Option<&str>) -> Outcome<StoredRun> {
    let filter =
        RunFilter { measured: true, experiment: experiment.map(str::to_owned), ..RunFilter::default() };
    store.latest_run(&filter).map_err(store_failure)?.ok_or_else(|| {
        Failure::new(Exit::Usage, "failed to find any run with trials; `cargo xtask bench` makes one")
    })
}

/// `FORMAT=FILE` of `--write`.
pub(crate) fn written(text: &str) -> Result<(Format, PathBuf), String> {
    use clap::ValueEnum as _;
    let (format, path) = text.split_once('=').ok_or("expected FORMAT=FILE, such as junit=check.xml")?;
    let format = Format::from_str(format, false)?;
    if path.is_empty() {
        return Err("expected a file after \"=\"".to_owned());
    }
    Ok((format, path.into()))
}
