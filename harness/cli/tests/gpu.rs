//! A GPU as a processor of this machine. `EDGEPIPE_TEST_LIBCUDA` names the stand-in driver, which interprets the kernels on
//! CPUs: outputs are right, times mean nothing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rig;

use rig::{Rig, variable};
use serde_json::Value;
use std::fs;

/// Every kind of schedule with the GPU: as the first, an inner and the last stage of a pipeline, and as a replica.
const SCHEDULES: &str = "schedules=[{single: each}, {replicate: all}, \
    {pipeline: [{processor: CPU0, until: FIRST}, {processor: gpu, until: SECOND}, {processor: CPU1}]}, \
    {pipeline: [{processor: gpu, until: FIRST}, {processor: CPU0}]}, \
    {pipeline: [{processor: CPU0, until: FIRST}, {processor: CPU1, until: SECOND}, {processor: gpu}]}]";

/// A machine whose driver is the stand-in.
fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.variables.push(("EDGEPIPE_LIBCUDA", variable("EDGEPIPE_TEST_LIBCUDA")));
    rig
}

/// Names of the two CPU processors that are detected here, and of two units of the network to cut after.
fn names(rig: &Rig) -> [String; 4] {
    let (plan, notes) = rig.run(&["plan", "--experiment", "tiny", "--set", "schedules=[{single: each}]"], 0);
    assert!(notes.contains("gpu is emulated on CPUs") && notes.contains("feeds gpu"), "{notes}");
    let mut processors = plan.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    let (first, second) = (processors.next().unwrap(), processors.next().unwrap());
    assert_eq!(processors.next(), Some("gpu"), "{plan}");
    let cache = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("edgepipe/cache");
    let manifests = fs::read_dir(cache).unwrap().flatten().map(|entry| entry.path().join("network.json"));
    let manifest = manifests
        .filter_map(|path| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok())
        .find(|manifest| manifest["name"] == "tiny")
        .unwrap();
    let units = manifest["units"].as_array().unwrap();
    let unit = |place: usize| units[place]["name"].as_str().unwrap().to_owned();
    [first.to_owned(), second.to_owned(), unit(units.len() / 3), unit(2 * units.len() / 3)]
}

#[test]
#[ignore = "needs the private toolchain and the stand-in driver; run by cargo xtask test"]
fn a_gpu_runs_every_kind_of_schedule_and_every_report_says_that_it_is_emulated() {
    let rig = rig();
    let [first, second, one, two] = names(&rig);
    let schedules = SCHEDULES
        .replace("CPU0", &first)
        .replace("CPU1", &second)
        .replace("FIRST", &one)
        .replace("SECOND", &two);
    let arguments = ["bench", "--experiment", "tiny", "--set", &schedules];
    let output = rig.command(&arguments).output().unwrap();
    let (table, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    // Other load on this machine may void trials.
    let code = output.status.code();
    assert!(code == Some(0) || (code == Some(4) && table.contains("void")), "{code:?}\n{table}\n{log}");
    assert!(table.starts_with("NO GPU: gpu is emulated on CPUs"), "{table}");

    let (json, _) = rig.run(&["report", "--format", "json"], 0);
    let report: Value = serde_json::from_str(&json).unwrap();
    let gpu = &report["measured_on"]["processors"][2];
    assert_eq!((gpu["name"].as_str(), gpu["gpu"]["emulated"].as_bool()), (Some("gpu"), Some(true)), "{gpu}");
    assert_eq!(gpu["gpu"]["code"], "sm_62", "{gpu}");
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 7, "three singles, a replicate and three pipelines: {table}");
    for row in rows {
        let uses = row["processors"].as_array().unwrap().iter().any(|name| name == "gpu");
        let codes: Vec<&str> =
            row["reasons"].as_array().unwrap().iter().filter_map(|reason| reason["code"].as_str()).collect();
        assert_eq!(codes.contains(&"emulated"), uses, "{row}");
        assert_eq!(row["emulated"].as_array().unwrap().len(), usize::from(uses), "{row}");
        assert_eq!(row["trials_failed"], 0, "{row}");
        assert!(row["throughput_fps"]["point"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["predicted_fps"].as_f64().unwrap() > 0.0, "{row}");
        let wrong = ["outputs_differ", "outputs_not_finite", "outputs_not_compared"];
        assert!(!codes.iter().any(|code| wrong.contains(code)), "{row}");
    }
    for (format, expected) in [
        ("terminal", "gpu (emulated)"),
        ("markdown", "gpu (emulated)"),
        ("csv", ",gpu,"),
        ("latex", "(emulated)"),
        ("html", "gpu (emulated)"),
    ] {
        let (text, _) = rig.run(&["report", "--format", format], 0);
        assert!(text.contains(expected), "{format}: {text}");
    }
    let (boards, _) = rig.run(&["boards", "local"], 0);
    assert!(boards.contains("gpu: GPU 0 (sm_62 GPU emulated on CPUs, sm_62"), "{boards}");
    let (layers, _) = rig.run(&["layers", "--experiment", "tiny", "--processor", "gpu"], 0);
    assert!(layers.contains("The GPU is emulated on CPUs") && layers.contains("| tiny |"), "{layers}");
    let (_, log) = rig.run(&["layers", "--experiment", "tiny", "--processor", "gpo"], 2);
    assert!(log.contains("failed to find the processor gpo") && log.contains("gpu"), "{log}");
}

#[test]
#[ignore = "needs the private toolchain and the stand-in driver; run by cargo xtask test"]
fn a_gpu_that_cannot_be_used_ends_the_run_before_anything_is_compiled() {
    let listed = "{ cpu: { cpus: [0] }, gpu: { cuda: { arch: sm_62 } } }";
    for (variables, expected) in [
        (&[("EDGEPIPE_LIBCUDA", "/nowhere/libcuda.so.1")][..], "/nowhere/libcuda.so.1"),
        (&[("CUDA_STANDIN_ARCH", "sm_53")], "is sm_53 and does not run code for sm_62; write `arch: sm_53`"),
        (&[("CUDA_STANDIN_DRIVER", "7050")], "code for sm_62 is PTX 5.0, which drivers since CUDA 8.0 load"),
    ] {
        let mut rig = rig().with_boards(&[("workbench", listed)]);
        rig.variables.extend(variables.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let (_, log) = rig.run(&["bench", "--board", "workbench", "--experiment", "tiny"], 3);
        assert!(log.contains("failed to use the GPU gpu of the board workbench"), "{log}");
        assert!(log.contains(expected), "{expected}: {log}");
        assert!(!log.contains("compile"), "{log}");
    }
}
