//! Every network against other inference engines, one row a network: like with like, one processor against a peer with
//! as many CPUs, all processors against a peer with more.

use super::cells::{self, ABSENT, or_absent};
use super::rows::{Report, Row};

/// A table of text, header first; the last row has geometric means.
pub(super) type Table = Vec<Vec<String>>;

/// A kind of schedule held against a peer.
struct Column {
    kind: &'static str,
    peer: String,
}

/// The table, where a peer was measured.
pub(super) fn table(report: &Report) -> Option<Table> {
    let columns = columns(report);
    if columns.is_empty() {
        return None;
    }
    let mut header = vec!["network".to_owned()];
    header.extend(columns.iter().map(|column| format!("{} over {}", column.kind, column.peer)));
    let mut table = vec![header];
    let mut found: Vec<Vec<f64>> = vec![Vec::new(); columns.len()];
    for network in &report.networks {
        let mut cells = vec![network.name.clone()];
        for (column, found) in columns.iter().zip(&mut found) {
            let best = best(report, &network.name, column);
            found.extend(best.map(|gain| gain.point));
            cells.push(or_absent(best.map(|gain| cells::with_ends(&gain, "×"))));
        }
        table.push(cells);
    }
    let mut means = vec!["geometric mean (least)".to_owned()];
    means.extend(found.iter().map(|gains| mean(gains)));
    table.push(means);
    Some(table)
}

fn columns(report: &Report) -> Vec<Column> {
    let single = report.measured_on.processors.iter().map(|processor| processor.cpus.len()).max();
    let mut columns: Vec<Column> = Vec::new();
    for row in report.rows.iter().filter(|row| row.peer.is_some()) {
        if columns.iter().any(|column| column.peer == row.schedule) {
            continue;
        }
        let threads = row.peer_threads.map_or(1, |threads| threads as usize);
        let cpus = threads * row.peer_sessions.unwrap_or(1);
        let kinds: &[&str] = if Some(cpus) <= single { &["single"] } else { &["pipeline", "replicate"] };
        let present = |kind: &&&str| report.rows.iter().any(|row| row.kind == **kind);
        let made = kinds.iter().filter(present).map(|kind| Column { kind, peer: row.schedule.clone() });
        columns.extend(made.collect::<Vec<_>>());
    }
    columns
}

/// The best schedule of a kind against the peer.
fn best(report: &Report, network: &str, column: &Column) -> Option<super::rows::Interval> {
    let of_kind = |row: &&Row| row.network == network && row.kind == column.kind;
    let gains = report.rows.iter().filter(of_kind).filter_map(|row| row.gain_over_peer.get(&column.peer));
    gains.copied().max_by(|one, other| one.point.total_cmp(&other.point))
}

fn mean(gains: &[f64]) -> String {
    if gains.is_empty() {
        return ABSENT.to_owned();
    }
    let logarithms: f64 = gains.iter().map(|gain| gain.ln()).sum();
    let least = gains.iter().copied().fold(f64::INFINITY, f64::min);
    format!("{:.2}× ({least:.2}×)", (logarithms / gains.len() as f64).exp())
}
