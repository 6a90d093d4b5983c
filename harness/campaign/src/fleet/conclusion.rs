//! The end of a bench on several boards: its report and its exit code.

use crate::run::RunEnd;
use analysis::CampaignReport;
use host::exit::{Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use std::collections::BTreeMap;
use store::{CampaignRecord, Store};

/// A board with the result of its run.
pub(super) type BoardResult = (String, Outcome<RunEnd>);

/// How a bench on several boards ended.
#[derive(Debug)]
pub struct FleetEnd {
    /// The report of all boards.
    pub report: CampaignReport,
    /// The exit code of the command.
    pub exit: Exit,
    /// What the user can do about missing boards or trials.
    pub advice: Option<String>,
}

/// Builds the report and chooses the exit code.
pub(super) fn conclude(
    record: &CampaignRecord,
    results: &[BoardResult],
    interrupt: &Interrupt,
    store: &Store,
) -> Outcome<FleetEnd> {
    let lost: Vec<&Failure> = results.iter().filter_map(|(_, result)| result.as_ref().err()).collect();
    let reasons: BTreeMap<String, String> = results
        .iter()
        .filter_map(|(board, result)| Some((board.clone(), result.as_ref().err()?.to_string())))
        .collect();
    let has_runs = store.campaign(record.id.as_str())?.is_some();
    if !has_runs {
        let exit = if interrupt.is_set() { Exit::Trial } else { worst(&lost).unwrap_or(Exit::Board) };
        let why =
            if interrupt.is_set() { "interrupted" } else { "failed to start: every board was set aside" };
        return Err(Failure::new(exit, why));
    }
    let report = CampaignReport::build(store, record.id.as_str(), &reasons)?;
    if interrupt.is_set() {
        let advice = format!(
            "interrupted: the results so far are kept; `{} bench --resume {}` continues",
            host::program(),
            record.id
        );
        return Ok(FleetEnd { report, exit: Exit::Trial, advice: Some(advice) });
    }
    if let Some(exit) = worst(&lost) {
        let advice = format!(
            "{} of {} boards were set aside; once they are reachable, `{program} bench --resume {}` continues",
            lost.len(),
            record.boards.len(),
            record.id,
            program = host::program()
        );
        return Ok(FleetEnd { report, exit, advice: Some(advice) });
    }
    let failed = results.iter().any(|(_, result)| result.as_ref().is_ok_and(|ended| ended.failed_trials > 0));
    let exit = if failed || report.has_void_rows() { Exit::Trial } else { Exit::Fine };
    Ok(FleetEnd { report, exit, advice: None })
}

/// The exit code for several failures: bugs first, then what the user can correct, then the boards.
fn worst(failures: &[&Failure]) -> Option<Exit> {
    let rank = |exit: Exit| match exit {
        Exit::Bug => 3,
        Exit::Usage => 2,
        Exit::Fine | Exit::Regression | Exit::Board | Exit::Trial => 1,
    };
    let worst = failures.iter().map(|failure| failure.exit).max_by_key(|exit| rank(*exit))?;
    // Whatever the reason, the board is missing.
    Some(if rank(worst) == 1 { Exit::Board } else { worst })
}
