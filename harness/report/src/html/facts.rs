//! What a reader must know, how to read the page, and where its figures come from.

use super::super::cells::{self, or_dash};
use super::super::notes;
use super::fragments::confidence;
use analysis::{ProcessorSection, Report};
use domain::Severity;
use maud::{Markup, html};

/// Notes of all rows, each once, with what to do.
pub(super) fn notes(report: &Report) -> Markup {
    let notes = notes::notes(report);
    html! {
        section aria-labelledby="notes" {
            h2 #notes { "What limits these figures" }
            @if notes.is_empty() {
                p { "Nothing: every trial passed every check." }
            } @else {
                ul.notes {
                    @for note in &notes {
                        li class=(note.label) {
                            p { span.chip { (note.label) } " " b { (note.place) } }
                            p { (note.text) }
                            @if !note.remedy.is_empty() { p.remedy { "What to do: " (note.remedy) } }
                        }
                    }
                }
            }
        }
    }
}

/// Notes of a network as such; those of its rows are among the notes.
pub(super) fn of_network(report: &Report, name: &str) -> Markup {
    let rows = report.rows.iter().filter(|row| row.network == name);
    let voids = rows.clone().filter(|row| row.reasons.iter().any(|r| r.severity == Severity::Void)).count();
    let warned = rows.filter(|row| !row.reasons.is_empty()).count();
    html! {
        @if warned > 0 {
            p.muted {
                (warned) @if warned == 1 { " schedule has" } @else { " schedules have" }
                " notes" @if voids > 0 { ", " (voids) " of them about void figures" } "; see "
                a href="#notes" { "what limits these figures" } "."
            }
        }
    }
}

/// Words of the page.
pub(super) fn reading(report: &Report) -> Markup {
    html! {
        section aria-labelledby="reading" {
            h2 #reading { "How to read this" }
            dl.words {
                dt { code { "cpu0[0..23] > cpu1[23..39]" } }
                dd { "A pipeline: units 0 to 22 run on cpu0 and the others on cpu1, at the same time on different frames." }
                dt { code { "cpu0+cpu1" } }
                dd { "A merged processor: it runs the whole network with the threads of both, each on its own CPU." }
                dt { code { "cpu0 | cpu1" } }
                dd { "A replicate: each processor runs the whole network, and frames are distributed among them." }
                dt { "Frames/s" }
                dd {
                    "The median over the trials with its " (confidence(report)) " interval. A trial is a warm-up followed by a \
                     measured window."
                }
                dt { "Gain" }
                dd { "Throughput relative to a single processor, from trials of the same round. These ran shortly after each other, so slow drift of the machine cancels out." }
                dt { "Predicted" }
                dd {
                    "What the cost model predicts from a profile of the same round. Its error is the median over the rounds. \
                     Without such profiles: what the planner predicted before the trials."
                }
                dt { "Efficiency" }
                dd { "Measured throughput × time of the slowest stage running alone: 1 is a pipeline without overhead." }
                dt { "Void" }
                dd { "The outputs differ from the baseline, or the trials were disturbed. Void schedules are drawn hollow and excluded from gains." }
            }
        }
    }
}

fn processor(processor: &ProcessorSection) -> String {
    let cpus: Vec<String> = processor.cpus.iter().map(ToString::to_string).collect();
    let (name, cpus) = (&processor.name, cpus.join(" "));
    let Some(gpu) = &processor.gpu else {
        let threads = if processor.threads == 1 { "thread" } else { "threads" };
        return format!("{name}: CPU {cpus}, {} {threads}", processor.threads);
    };
    let shared = match gpu.shares_cpus_with.as_slice() {
        [] => String::new(),
        others => format!(", where {} computes too", others.join(" and ")),
    };
    format!(
        "{name}: {}GPU {} ({}, {}, {} multiprocessors), code for {}, driver {} for CUDA {}, fed by CPU {cpus}{shared}",
        if gpu.emulated { "emulated " } else { "" },
        gpu.device,
        gpu.model,
        gpu.compute_capability,
        gpu.multiprocessors,
        gpu.code,
        gpu.driver,
        gpu.driver_cuda
    )
}

/// Which run this is, of what, on what.
pub(super) fn provenance(report: &Report) -> Markup {
    let (run, machine) = (&report.run, &report.measured_on);
    let revision = run.revision.as_ref().map(|commit| {
        let changed = if run.dirty == Some(true) { ", with uncommitted changes" } else { "" };
        format!("{commit}{changed}")
    });
    let processors: Vec<String> = machine.processors.iter().map(processor).collect();
    let processors = match machine.left_out.as_slice() {
        [] => processors.join("; "),
        gpus => format!("{}; not used, without an engine: {}", processors.join("; "), gpus.join(", ")),
    };
    let state = machine.state.as_ref().map(|state| {
        format!("requested: {}; set: {}; found before: {}", state.asked, state.set, state.found)
    });
    let state =
        state.or_else(|| machine.power_mode.as_ref().map(|mode| format!("power mode {mode} (not changed)")));
    let facts: [(&str, String); 19] = [
        ("Run", run.id.clone()),
        ("Experiment", run.experiment.clone()),
        ("Status", run.status.clone()),
        ("Started, UTC", run.begun.clone()),
        ("Ended, UTC", or_dash(run.ended.clone())),
        ("Board", cells::board(run)),
        ("Model", or_dash(machine.model.clone())),
        ("Processor", or_dash(machine.cpu.clone())),
        ("Processors used", processors),
        ("Memory", format!("{:.1} GiB", machine.memory_bytes as f64 / f64::from(1 << 30))),
        ("System", format!("{} on {}", machine.os.as_deref().unwrap_or("unknown"), machine.arch)),
        ("Kernel", machine.kernel.clone()),
        ("Frequency governor", or_dash(machine.governor.clone())),
        ("State of the board", or_dash(state)),
        ("Host of the harness", machine.host.clone()),
        (
            "Versions",
            format!(
                "TVM {}, harness {}, runner {}, analysis {}",
                run.tvm.as_deref().unwrap_or("unknown"),
                run.harness,
                run.runner.as_deref().unwrap_or("unknown"),
                report.analysis_version
            ),
        ),
        (
            "Revision",
            revision
                .or_else(|| run.revision_absent.as_ref().map(|why| format!("none: {why}")))
                .unwrap_or_else(|| "none recorded".to_owned()),
        ),
        (
            "Trials planned",
            format!("{} of each schedule, in an order seeded by {}", run.trials_planned, run.seed),
        ),
        ("Command", run.command.join(" ")),
    ];
    let cycles = run.power_cycles.iter().map(|cycle| ("Power cycle", cells::power_cycle(cycle)));
    let facts: Vec<(&str, String)> = facts.into_iter().chain(cycles).collect();
    html! {
        section aria-labelledby="provenance" {
            h2 #provenance { "Where these figures come from" }
            dl.facts {
                @for (name, fact) in &facts {
                    div { dt { (name) } dd { (fact) } }
                }
            }
        }
    }
}
