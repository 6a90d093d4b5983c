//! Every network against other inference engines, one row a network: like with like, one processor against a peer with
//! as many CPUs, all processors against a peer with more.

use super::cells::{self, ABSENT, or_dash};
use analysis::{Interval, Report, Row};
use domain::ScheduleKind;

/// A table of text, header first; the last row has geometric means.
pub(super) type Table = Vec<Vec<String>>;

/// A kind of schedule compared with a peer.
struct Column<'a> {
    kind: ScheduleKind,
    peer: &'a Row,
}

/// The table, if a peer was measured.
pub(super) fn table(report: &Report) -> Option<Table> {
    let columns = columns(report);
    if columns.is_empty() {
        return None;
    }
    let mut header = vec!["network".to_owned()];
    header.extend(columns.iter().map(|column| format!("{} over {}", column.kind, column.peer.schedule)));
    let mut table = vec![header];
    let mut found: Vec<Vec<f64>> = vec![Vec::new(); columns.len()];
    for network in &report.networks {
        let mut cells = vec![network.name.clone()];
        for (column, found) in columns.iter().zip(&mut found) {
            let best = best(report, &network.name, column);
            found.extend(best.map(|gain| gain.point));
            cells.push(or_dash(best.map(|gain| cells::with_interval(&gain, "×"))));
        }
        table.push(cells);
    }
    let mut means = vec!["geometric mean (minimum)".to_owned()];
    means.extend(found.iter().map(|gains| mean(gains)));
    table.push(means);
    Some(table)
}

fn columns(report: &Report) -> Vec<Column<'_>> {
    let mut columns: Vec<Column<'_>> = Vec::new();
    for peer in report.rows.iter().filter(|row| row.peer.is_some()) {
        if columns.iter().any(|column| column.peer.schedule == peer.schedule) {
            continue;
        }
        for kind in
            [ScheduleKind::Single, ScheduleKind::Merged, ScheduleKind::Pipeline, ScheduleKind::Replicate]
        {
            let mut of_kind = report.rows.iter().filter(|row| row.kind == kind);
            if of_kind.any(|row| analysis::is_comparable(row, peer, &report.measured_on.processors)) {
                columns.push(Column { kind, peer });
            }
        }
    }
    columns
}

/// The best schedule of a kind against the peer.
fn best(report: &Report, network: &str, column: &Column<'_>) -> Option<Interval> {
    let of_kind = |row: &&Row| {
        let alike = analysis::is_comparable(row, column.peer, &report.measured_on.processors);
        row.network == network && row.kind == column.kind && alike
    };
    let gains =
        report.rows.iter().filter(of_kind).filter_map(|row| row.gain_over_peer.get(&column.peer.schedule));
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

#[cfg(test)]
mod tests {
    use super::*;
    use analysis::scenario::Scenario;

    /// The sound run, with a peer of each network on these CPUs, twice as slow as everything.
    fn with_peer(cpus: &[u32]) -> Report {
        let mut report = Scenario::sound().report();
        let label = "onnxruntime, 1 thread";
        let mut peers = Vec::new();
        for row in &mut report.rows {
            let gain = Interval { point: 2.0, lo: Some(1.9), hi: Some(2.1) };
            row.gain_over_peer.insert(label.to_owned(), gain);
            if row.kind == ScheduleKind::Single && row.processors == ["cpu0"] {
                let mut peer = row.clone();
                (peer.kind, peer.schedule) = (ScheduleKind::Peer, label.to_owned());
                (peer.peer, peer.peer_cpus) = (Some("onnxruntime".to_owned()), cpus.to_vec());
                peer.gain_over_peer.clear();
                peers.push(peer);
            }
        }
        report.rows.extend(peers);
        report
    }

    #[test]
    fn a_peer_on_one_processor_is_held_against_that_one() {
        let report = with_peer(&[0]);
        let processors = &report.measured_on.processors;
        let peer = report.rows.last().unwrap();
        let alike: Vec<&str> = report
            .rows
            .iter()
            .filter(|row| row.network == peer.network && analysis::is_comparable(row, peer, processors))
            .map(|row| row.schedule.as_str())
            .collect();
        assert_eq!(alike, ["cpu0"]);
        let table = table(&report).unwrap();
        assert_eq!(table[0], ["network", "single over onnxruntime, 1 thread"]);
        assert_eq!(table[1][1], "2.00× [1.90, 2.10]");
        assert_eq!(table.last().unwrap()[1], "2.00× (2.00×)");
    }

    #[test]
    fn a_peer_on_all_cpus_is_held_against_schedules_that_use_them() {
        let report = with_peer(&[0, 1]);
        let table = table(&report).unwrap();
        assert_eq!(
            table[0],
            ["network", "pipeline over onnxruntime, 1 thread", "replicate over onnxruntime, 1 thread"]
        );
        assert_eq!(table.len(), report.networks.len() + 2);
    }

    #[test]
    fn a_peer_on_a_gpu_is_held_against_schedules_that_use_it() {
        let mut report = with_peer(&[0]);
        for row in report.rows.iter_mut().filter(|row| row.peer.is_some()) {
            row.peer_gpu = Some("cpu1".to_owned());
        }
        let processors = &report.measured_on.processors;
        let peer = report.rows.last().unwrap();
        for row in report.rows.iter().filter(|row| row.peer.is_none()) {
            let uses = row.processors.iter().any(|name| name == "cpu1");
            assert_eq!(analysis::is_comparable(row, peer, processors), uses, "{}", row.schedule);
        }
        assert_eq!(table(&report).unwrap()[0].len(), 4, "one column for each kind");
    }

    #[test]
    fn without_a_peer_there_is_no_table() {
        assert_eq!(table(&Scenario::sound().report()), None);
    }
}
