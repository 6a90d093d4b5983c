//! Figures as cells of tables.

use analysis::{Interval, MachineSection, PowerCycleSection, ProcessorSection, Report, Row, RunSection};
use domain::{FloatFormat, Load, QueueLength, QueuePlan, ScheduleKind, StreamLoad, Validity, statistics};

/// Shown if nothing was measured.
pub(super) const ABSENT: &str = "–";
/// Follows the name of a processor that is emulated on CPUs.
const EMULATED: &str = " (emulated)";
/// Shown for an interval that is wider than its figure.
const TOO_WIDE: &str = "?";

/// What follows the name of a processor in a row: whether it is emulated and computes in half precision.
fn marks(row: &Row, processor: &str) -> String {
    let has = |names: &[String], mark| names.iter().any(|name| name == processor).then_some(mark);
    let marks: Vec<&str> =
        [has(&row.emulated, "emulated"), has(&row.fp16, "fp16")].into_iter().flatten().collect();
    if marks.is_empty() { String::new() } else { format!(" ({})", marks.join(", ")) }
}

pub(super) fn or_dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| ABSENT.to_owned())
}

/// A number with three significant digits or all before the point.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A number and half its interval's width in percent: `94.1 ± 0.6 %`, or `94.1 ± ?`.
pub(super) fn with_precision(interval: &Interval) -> String {
    let point = number(interval.point);
    match interval.precision() {
        Some(_) if interval.is_too_wide() => format!("{point} ± {TOO_WIDE}"),
        Some(precision) => format!("{point} ± {} %", percent_digits(100.0 * precision)),
        None => point,
    }
}

/// A number and its interval over trials: `94.1 [93.5, 94.7]`, or `94.1 [?]`.
pub(super) fn with_interval(interval: &Interval, unit: &str) -> String {
    if interval.is_too_wide() {
        return format!("{}{unit} [{TOO_WIDE}]", number(interval.point));
    }
    with_ends(interval, unit)
}

/// A number and its interval, however wide: that of a quantile over frames lies between frames that were measured.
pub(super) fn with_ends(interval: &Interval, unit: &str) -> String {
    let point = format!("{}{unit}", number(interval.point));
    match interval.lo.zip(interval.hi) {
        Some((lo, hi)) => format!("{point} [{}, {}]", number(lo), number(hi)),
        None => interval.lo.map_or(point.clone(), |lo| format!("{point} [{}, –]", number(lo))),
    }
}

/// Percent without more digits than they are worth.
fn percent_digits(percent: f64) -> String {
    if percent >= 9.95 { format!("{percent:.0}") } else { format!("{percent:.1}") }
}

/// The gain over the best single processor: `1.93×`.
pub(super) fn gain(row: &Row) -> Option<String> {
    row.gain_over_best_single.map(|gain| format!("{gain:.2}×"))
}

/// Predicted frames per second with its error over the measurement: `97.1 (+3 %)`, or `97.1 (3.5×)` if it is at least
/// twice the measurement.
pub(super) fn predicted(row: &Row) -> Option<String> {
    let fps = number(row.predicted_fps?);
    Some(match row.prediction_error {
        Some(error) if error >= 0.995 => format!("{fps} ({:.1}×)", error + 1.0),
        Some(error) => format!("{fps} ({:+.0} %)", 100.0 * error),
        None => fps,
    })
}

/// Latency in ms: `20.9 / 21.3`.
pub(super) fn latency(row: &Row) -> Option<String> {
    row.latency_ms.map(|latency| format!("{} / {}", number(latency.p50), number(latency.p99)))
}

/// Efficiency as a share: `0.98`.
pub(super) fn efficiency(row: &Row) -> Option<String> {
    row.pipeline_efficiency.map(|share| format!("{share:.2}"))
}

/// Share of time each stage was busy, in percent.
pub(super) fn busy(row: &Row) -> Vec<String> {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    row.stages.iter().map(|stage| or_dash(stage.busy.map(percent))).collect()
}

/// The stages, one line for each processor: `cpu0[0..12]`, `> cpu1[12..21]`; with replicas `> (cpu1`, `| cpu2)[12..21]`.
pub(super) fn stage_lines(row: &Row) -> Vec<String> {
    if row.peer.is_some() {
        return peer_lines(row);
    }
    let mut processors = row.processors.iter();
    let mut marked = |part: &str| {
        let marks = processors.next().map_or(String::new(), |name| marks(row, name));
        match part.strip_suffix(')') {
            // The units follow.
            Some(last) => format!("{last}{marks})"),
            None => format!("{part}{marks}"),
        }
    };
    let mut lines = Vec::new();
    for (place, stage) in row.schedule.split(" > ").enumerate() {
        let mut before = if place == 0 { "" } else { "> " };
        let (replicas, units) = match stage.find(")[") {
            Some(at) => stage.split_at(at + 1),
            None => (stage, ""),
        };
        for part in replicas.split(" | ") {
            lines.push(format!("{before}{}", marked(part)));
            before = "| ";
        }
        if let Some(last) = lines.last_mut() {
            last.push_str(units);
        }
    }
    lines
}

/// The label of a row with its processors marked: `cpu0[0..12] > gpu[12..21] (emulated, fp16)`.
pub(super) fn label(row: &Row) -> String {
    let is_marked = !row.emulated.is_empty() || !row.fp16.is_empty();
    if is_marked { stage_lines(row).join(" ") } else { row.schedule.clone() }
}

/// The name of a processor, marked if it is emulated.
pub(super) fn processor(name: &str, emulated: &[String]) -> String {
    let is_emulated = emulated.iter().any(|known| known == name);
    format!("{name}{}", if is_emulated { EMULATED } else { "" })
}

/// What each processor of the run is, by name.
pub(super) fn processors(machine: &MachineSection) -> Vec<String> {
    let describe = |processor: &ProcessorSection| {
        let cpus: Vec<String> = processor.cpus.iter().map(ToString::to_string).collect();
        let cpus = format!("CPU {}", cpus.join(","));
        let Some(gpu) = &processor.gpu else { return format!("{} = {cpus}", processor.name) };
        let shared = match gpu.shares_cpus_with.as_slice() {
            [] => String::new(),
            others => format!(" (shared with {})", others.join(" and ")),
        };
        format!(
            "{}{} = {}, {}, driver for CUDA {}, fed by {cpus}{shared}",
            processor.name,
            if gpu.emulated { EMULATED } else { "" },
            gpu.model,
            gpu.compute_capability,
            gpu.driver_cuda
        )
    };
    machine.processors.iter().map(describe).collect()
}

/// A warning about GPUs that are emulated on CPUs; absent without one.
pub(super) fn emulated(machine: &MachineSection) -> Option<String> {
    let emulated: Vec<&str> = machine
        .processors
        .iter()
        .filter(|processor| processor.is_emulated())
        .map(|processor| processor.name.as_str())
        .collect();
    let verb = if emulated.len() == 1 { "is" } else { "are" };
    (!emulated.is_empty()).then(|| {
        format!(
            "NO GPU: {} {verb} emulated on CPUs; outputs are right, but no time or gain with it is that of a GPU",
            emulated.join(" and ")
        )
    })
}

/// The label of a peer in two lines, `onnxruntime,` and `2 threads`; a line more for each session after the second.
fn peer_lines(row: &Row) -> Vec<String> {
    let sessions = row.peer_sessions.unwrap_or(1);
    let (engine, threads) = row.schedule.split_once(", ").unwrap_or((&row.schedule, ""));
    let others = (2..sessions).map(|session| format!("#{}", session + 1));
    [format!("{engine},"), threads.to_owned()].into_iter().chain(others).collect()
}

/// Validity as a word.
pub(super) fn verdict(row: &Row) -> String {
    let word = match row.verdict {
        Validity::Valid => "valid",
        Validity::Void => "void",
    };
    word.to_owned()
}

/// Parameters or multiply-adds: `11.7 M`.
pub(super) fn quantity(count: u64) -> String {
    match count as f64 {
        count if count >= 1e9 => format!("{} G", number(count / 1e9)),
        count if count >= 1e6 => format!("{} M", number(count / 1e6)),
        count if count >= 1e3 => format!("{} k", number(count / 1e3)),
        count => format!("{count:.0}"),
    }
}

/// The board, and its place if it is on a farm.
pub(super) fn board(run: &RunSection) -> String {
    match &run.place {
        None => run.board.clone(),
        Some(place) => format!("{} (place {place})", run.board),
    }
}

/// When a board was power-cycled, and why.
pub(super) fn power_cycle(cycle: &PowerCycleSection) -> String {
    format!(
        "the place {} was power-cycled at {}, because the board did not answer: {}",
        cycle.place, cycle.at, cycle.reason
    )
}

/// Run, machine, date, versions and settings, one line each.
pub(super) fn heading(report: &Report) -> Vec<String> {
    let (run, machine) = (&report.run, &report.measured_on);
    let models: Vec<&str> = [&machine.model, &machine.cpu].into_iter().filter_map(Option::as_deref).collect();
    let models = if models.is_empty() { String::new() } else { format!(" ({})", models.join(", ")) };
    let day = run.begun.replacen('T', " ", 1);
    let day = day.get(..16).unwrap_or(&day);
    let governor = machine
        .governor
        .as_deref()
        .map_or_else(|| "governor unknown".to_owned(), |governor| format!("governor {governor}"));
    let revision = run.revision.as_deref().map_or_else(
        || {
            run.revision_absent
                .as_deref()
                .map_or_else(|| "no git revision".to_owned(), |why| format!("no git revision ({why})"))
        },
        |commit| {
            let changed = if run.dirty == Some(true) { " with changes" } else { "" };
            format!("revision {}{changed}", commit.get(..12).unwrap_or(commit))
        },
    );
    let processors = processors(machine);
    let (whole, board_name) = match run.boards.as_slice() {
        [] => ("run", board(run)),
        boards => ("campaign", format!("{} equal boards", boards.len())),
    };
    let mut lines = vec![
        format!("{whole} {}: {}, {}, {day} UTC", run.id, run.experiment, run.status),
        format!("on {board_name}{models}: kernel {}, {governor}; {}", machine.kernel, processors.join(", ")),
        format!(
            "TVM {}, harness {}, {revision}, analysis {}; {:.0} % intervals",
            run.tvm.as_deref().unwrap_or("unknown"),
            run.harness,
            report.analysis_version,
            100.0 * report.confidence
        ),
    ];
    lines.extend(load(report));
    if let Some(reason) = &run.ended_because {
        lines.push(format!("this run is {}: {reason}", run.status));
    }
    if let Some(state) = &machine.state {
        lines.push(format!(
            "requested state: {}; set: {}; found before: {}",
            state.asked, state.set, state.found
        ));
        if let Some(by) = &state.leftover_of {
            lines.push(format!("the board was first restored from a state that another session left: {by}"));
        }
    } else if let Some(mode) = &machine.power_mode {
        lines.push(format!("power mode {mode} (not changed)"));
    }
    lines.extend(run.power_cycles.iter().map(power_cycle));
    if !machine.left_out.is_empty() {
        lines.push(format!(
            "not used by any schedule: {} (the version of edgepipe that measured could not use GPUs)",
            machine.left_out.join(", ")
        ));
    }
    lines.splice(0..0, emulated(machine));
    if let Some(injected) = &run.injected {
        lines.insert(0, format!("DO NOT PUBLISH: {injected} on purpose (`inject`)"));
    }
    if let Some((asked, reached)) = run.precision_asked.zip(run.precision_reached) {
        let asked = percent_digits(100.0 * asked);
        let reached = if reached { "reached" } else { "not reached; see the notes" };
        lines.push(format!("requested precision ±{asked} %: {reached}"));
    }
    lines
}

/// The load in words, with the queues between the stages of pipelines, and what was fed; absent if both are the default.
pub(super) fn load(report: &Report) -> Option<String> {
    let under_load = report.rows.iter().find(|row| !row.load.is_saturating());
    let load = under_load.map(|row| match (row.load, &row.queues) {
        // It differs from row to row.
        (Load::Stream(stream), Some(QueuePlan { before_chosen: true, .. })) => {
            Load::Stream(StreamLoad { queue: QueueLength::Auto, ..stream })
        }
        (load, _) => load,
    });
    let fed = report.run.fed.as_ref().map(|fed| format!("frames: {fed}"));
    let has_queues = report.rows.iter().any(|row| row.kind == ScheduleKind::Pipeline);
    let between = report.run.queue_depth.filter(|_| has_queues).map_or(String::new(), |depth| {
        format!("; {depth} {} between stages", if depth == 1 { "frame" } else { "frames" })
    });
    let load = load.map(|load| format!("load: {load}{between}"));
    let parts: Vec<String> = load.into_iter().chain(fed).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// What a network is, in one line.
pub(super) fn network(report: &Report, name: &str) -> String {
    match report.networks.iter().find(|network| network.name == name) {
        Some(network) => format!(
            "{} parameters, {} multiply-adds, {} units{}{}",
            quantity(network.parameters),
            quantity(network.macs),
            network.units,
            if network.precision.is_single() {
                String::new()
            } else {
                format!("; {} on GPUs, {} on CPUs", network.precision, FloatFormat::Fp32)
            },
            if network.winograd.is_auto() { "" } else { "; without Winograd's algorithm" }
        ),
        None => String::new(),
    }
}

/// A warning if the machine is noisy.
fn noise(report: &Report) -> Option<String> {
    let noise = report.noise.as_ref().filter(|noise| noise.noisy)?;
    let half = |share: f64| {
        let most = statistics::WIDEST_SHOWN;
        format!(
            "{}±{} %",
            if share > most { "more than " } else { "" },
            percent_digits(100.0 * share.min(most))
        )
    };
    let verb = if noise.trials_void == 1 { "is" } else { "are" };
    let void = format!("{} of {} trials {verb} void", noise.trials_void, noise.trials);
    if !noise.wide {
        return Some(format!("noisy machine: {void}"));
    }
    Some(format!(
        "noisy machine: half of the intervals are wider than {} (the widest: {}), and {void}; this run cannot show smaller \
         differences",
        half(noise.typical_interval.min(statistics::WIDEST_SHOWN)),
        half(noise.widest_interval),
    ))
}

/// One sentence per kind of schedule with its gain, and a warning if the machine is noisy.
pub(super) fn summary(report: &Report) -> Vec<String> {
    let sentence = |summary: &analysis::Summary| {
        let gain = summary.gain_geometric_mean;
        let over = summary.over_peer.as_deref().unwrap_or("the best single processor");
        let over = format!("{} over {over}: {gain:.2}×", summary.kind);
        if summary.networks == 1 {
            return over;
        }
        format!(
            "{over}, geometric mean of {} networks ({:.2}× … {:.2}×)",
            summary.networks, summary.gain_least, summary.gain_greatest
        )
    };
    report.summary.iter().map(sentence).chain(noise(report)).collect()
}
