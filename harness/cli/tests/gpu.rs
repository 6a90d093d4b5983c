//! A GPU as a processor of this machine. `EDGEPIPE_TEST_LIBCUDA` names the stand-in driver, which interprets the kernels on
//! CPUs: outputs are right, times mean nothing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rig;
mod words;

use rig::{Rig, variable};
use serde_json::Value;
use std::fs;
use words::says;

/// Every kind of schedule with the GPU: as the first, an inner and the last stage of a pipeline, and as a replica, of the network
/// and of a stage.
const SCHEDULES: &str = "schedules=[{single: each}, {replicate: all}, \
    {pipeline: [{processor: CPU0, until: FIRST}, {processor: gpu, until: SECOND}, {processor: CPU1}]}, \
    {pipeline: [{processor: gpu, until: FIRST}, {processor: CPU0}]}, \
    {pipeline: [{processor: gpu, until: FIRST}, {processor: [CPU0, CPU1]}]}, \
    {pipeline: [{processor: [CPU0, gpu], until: SECOND}, {processor: CPU1}]}, \
    {merged: all}, {replicate: [CPU0+CPU1, gpu]}, \
    {pipeline: [{processor: CPU0+CPU1, until: FIRST}, {processor: gpu}]}, \
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
    let (table, _) = rig.measure(&["bench", "--experiment", "tiny", "--set", &schedules]);
    assert!(table.starts_with("NO GPU: gpu is emulated on CPUs"), "{table}");

    let (json, _) = rig.run(&["report", "--format", "json"], 0);
    let report: Value = serde_json::from_str(&json).unwrap();
    let gpu = &report["measured_on"]["processors"][2];
    assert_eq!((gpu["name"].as_str(), gpu["gpu"]["emulated"].as_bool()), (Some("gpu"), Some(true)), "{gpu}");
    assert_eq!(gpu["gpu"]["code"], "sm_62", "{gpu}");
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 12, "three singles, merged CPUs, two replicates and six pipelines: {table}");
    for shared in [format!("> ({first} | {second})["), format!("({first} | gpu)[0..")] {
        let is_shared = |row: &&Value| row["schedule"].as_str().unwrap().contains(&shared);
        assert_eq!(rows.iter().filter(is_shared).count(), 1, "{shared}: {table}");
    }
    let both = format!("{first}+{second}");
    let cpus = report["measured_on"]["processors"][3]["cpus"].as_array().unwrap();
    assert_eq!((&report["measured_on"]["processors"][3]["name"], cpus.len()), (&both.as_str().into(), 2));
    assert_eq!(
        rows.iter().filter(|row| row["kind"] == "merged" && row["schedule"] == both.as_str()).count(),
        1
    );
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
        assert!(says(&text, expected), "{format}: {text}");
    }
    let (boards, _) = rig.run(&["boards", "local"], 0);
    assert!(boards.contains("gpu: GPU 0 (sm_62 GPU emulated on CPUs, sm_62"), "{boards}");
    let (layers, _) = rig.run(&["layers", "--experiment", "tiny", "--processor", "gpu"], 0);
    assert!(layers.contains("The GPU is emulated on CPUs") && layers.contains("| tiny |"), "{layers}");
    let (_, log) = rig.run(&["layers", "--experiment", "tiny", "--processor", "gpo"], 2);
    assert!(log.contains("failed to find the processor gpo") && log.contains("gpu"), "{log}");
}

/// Replaces the networks of a rig's checkout by one in half precision and without Winograd's algorithm.
fn with_half_precision(rig: &Rig) {
    let networks = rig.root.join("configs/networks");
    fs::remove_file(&networks).unwrap();
    fs::create_dir(&networks).unwrap();
    fs::write(networks.join("half.yaml"), "network: half\nzoo: tiny\nprecision: fp16\nwinograd: off\n")
        .unwrap();
}

#[test]
#[ignore = "needs the private toolchain and the stand-in driver; run by cargo xtask test"]
fn half_precision_on_a_gpu_is_compared_with_its_own_tolerance_and_reported() {
    let listed = "{ cpu: { cpus: [0] }, gpu: { cuda: { arch: sm_62 } } }";
    let rig = rig().with_boards(&[("workbench", listed)]);
    with_half_precision(&rig);
    let schedules =
        "schedules=[{single: each}, {pipeline: [{processor: cpu, until: residual.conv1}, {processor: gpu}]}]";
    let bench =
        ["bench", "--board", "workbench", "--experiment", "tiny", "--network", "half", "--set", schedules];
    let (table, _) = rig.measure(&bench);
    let settings = "fp16 on GPUs, fp32 on CPUs; without Winograd's algorithm";
    assert!(says(&table, "(emulated, fp16)") && says(&table, settings), "{table}");
    let rows = rig.rows();
    assert_eq!(rows.len(), 3, "{table}");
    for row in &rows {
        let uses = row["processors"].as_array().unwrap().iter().any(|name| name == "gpu");
        assert_eq!(row["fp16"].as_array().unwrap().len(), usize::from(uses), "{row}");
        let codes: Vec<&str> =
            row["reasons"].as_array().unwrap().iter().filter_map(|reason| reason["code"].as_str()).collect();
        let wrong = ["outputs_differ", "outputs_not_finite", "outputs_not_compared"];
        assert!(!codes.iter().any(|code| wrong.contains(code)), "{row}");
    }
    // Half precision is not within the tolerance of single precision, so the kernels did use it.
    let strict = [&bench[..], &["--set", "fp16_tolerance=0.000001"]].concat();
    let (_, log) = rig.run(&strict, 4);
    assert!(
        log.contains("failed to verify half on gpu") && log.contains("`fp16_tolerance: 0.000001`"),
        "{log}"
    );
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn half_precision_without_a_gpu_is_refused() {
    let rig = Rig::new().with_boards(&[("workbench", "{ cpu: { cpus: [0] } }")]);
    with_half_precision(&rig);
    let bench = ["bench", "--board", "workbench", "--experiment", "tiny", "--network", "half"];
    let (_, log) = rig.run(&[&bench[..], &["--set", "schedules=[{single: each}]"]].concat(), 2);
    let expected = "failed to use `precision: fp16` of the network half: none of the processors cpu is a GPU";
    assert!(log.contains(expected), "{log}");
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

/// A board with a CPU and a GPU that it feeds; `rest` are further lines of its file.
fn workbench(rest: &str) -> Rig {
    let processors = "{ cpu: { cpus: [0] }, gpu: { cuda: { arch: sm_62, host_cpus: [0] } } }";
    rig().with_boards(&[("workbench", &format!("{processors}\n{rest}"))])
}

/// Arguments of a bench of these schedules on the workbench.
fn bench(schedules: &str) -> [String; 8] {
    ["bench", "--board", "workbench", "--experiment", "tiny", "--trials", "3", "--set"]
        .map(str::to_owned)
        .map(|word| if word == "--set" { format!("--set=schedules=[{schedules}]") } else { word })
}

#[test]
#[ignore = "needs the private toolchain and the stand-in driver; run by cargo xtask test"]
fn a_gpu_is_checked_against_a_baseline_of_the_same_driver_and_with_itself() {
    let mut rig = workbench("");
    // Baselines are written there.
    fs::remove_file(rig.root.join("results")).unwrap();
    fs::create_dir(rig.root.join("results")).unwrap();
    let arguments = bench("{single: gpu}");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    rig.measure(&arguments);
    rig.run(&["baseline", "save", "gpu"], 0);
    // A driver of another version.
    rig.variables.push(("CUDA_STANDIN_DRIVER", "11040".to_owned()));
    rig.measure(&arguments);
    let (_, log) = rig.run(&["check", "--against", "gpu"], 2);
    assert!(log.contains("not comparable") && log.contains("driver for CUDA 11.4, emulated"), "{log}");
    let check = ["check", "--against", "gpu", "--allow-different", "gpu", "--format", "json"];
    let output = rig.command(&check).output().unwrap();
    // Any ruling: times of an emulated GPU mean nothing.
    assert!(matches!(output.status.code(), Some(0 | 1 | 4)), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["differences"][0]["aspect"], "gpu", "{report:#}");
    assert!(report["rows"].as_array().unwrap().iter().any(|row| row["schedule"] == "gpu"), "{report:#}");

    let schedules = "schedules=[{single: gpu}]";
    let selftest = ["selftest", "aa", "--comparisons", "2", "--board", "workbench", "--experiment", "tiny"];
    let (table, _) = rig.run(&[&selftest[..], &["--set", schedules, "--set", "trials=3"]].concat(), 0);
    assert!(says(&table, "tiny on gpu") && says(&table, "of 2 ("), "{table}");
}

#[test]
#[ignore = "needs the private toolchain and the stand-in driver; run by cargo xtask test"]
fn a_gpu_that_fails_ends_the_run_with_the_reason() {
    let arguments = bench("{single: gpu}");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    for (fault, says) in [
        ("cuDevicePrimaryCtxRetain=46", "another program holds the GPU in exclusive mode"),
        ("cuMemAlloc_v2=2", "bytes are free; choose a smaller network"),
        ("cuLaunchKernel=701", "the kernel needs more registers or shared memory than the GPU has"),
    ] {
        let mut rig = workbench("");
        rig.variables.push(("CUDA_STANDIN_FAULT", fault.to_owned()));
        let (_, log) = rig.run(&arguments, 4);
        assert!(log.contains(says) && log.contains("gpu"), "{fault}: {log}");
    }
}

#[test]
#[ignore = "needs the private toolchain and the stand-in driver; run by cargo xtask test"]
fn a_kernel_that_does_not_end_fails_its_trial_and_the_run_goes_on() {
    let mut rig = workbench("");
    // Verification, profile and comparison start fewer kernels than that, and the trial more.
    rig.variables.push(("CUDA_STANDIN_FAULT", "kernel:*@1000=hang".to_owned()));
    let settings = [
        "trials=1",
        "schedules=[{single: each}]",
        "profile={warm_up_frames: 1, min_frames: 1, min_seconds: 0, max_seconds: 0.01}",
        "isolate={enabled: false}",
        "measure={min_frames: 300, min_seconds: 0, max_seconds: 10}",
    ];
    let mut arguments = vec!["bench", "--board", "workbench", "--experiment", "tiny"];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let (table, log) = rig.run(&arguments, 4);
    let expected = "failed to measure tiny on gpu: the runner gave no answer within ";
    assert!(log.contains(expected) && log.contains(" has not ended for "), "{log}");
    let rows = rig.rows();
    let row = |name: &str| rows.iter().find(|row| row["schedule"] == name).unwrap();
    assert_eq!(
        (row("gpu")["trials_failed"].as_u64(), row("gpu")["throughput_fps"].is_null()),
        (Some(1), true)
    );
    assert_eq!(
        (row("cpu")["trials"].as_u64(), row("cpu")["trials_failed"].as_u64()),
        (Some(1), Some(0)),
        "{table}"
    );
}

#[test]
#[ignore = "needs the private toolchain and the stand-in driver; run by cargo xtask test"]
fn a_peer_on_a_gpu_needs_a_library_with_its_provider() {
    let python = std::path::PathBuf::from(variable("EDGEPIPE_PYTHON"));
    let environment = python.parent().unwrap().parent().unwrap();
    let folders = |folder: &std::path::Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let library = folders(&environment.join("lib"))
        .flat_map(|entry| folders(&entry.path().join("site-packages/onnxruntime/capi")))
        .find(|entry| entry.file_name().to_string_lossy().starts_with("libonnxruntime.so."))
        .unwrap();
    let named = format!("onnxruntime: {}", library.path().display());
    let peer = "{single: cpu}, {peer: onnxruntime, provider: tensorrt}";
    for (rest, schedules, code, says) in [
        ("", peer, 2, "edgepipe's own ONNX Runtime computes on CPUs only and has no provider tensorrt"),
        (&named, "{peer: onnxruntime, provider: cuda, processors: [cpu]}", 2, "its processors have no GPU"),
        (&named, peer, 4, "was built without TensorrtExecutionProvider; name a library that has it"),
    ] {
        let rig = workbench(rest);
        let arguments = bench(schedules);
        let (table, log) = rig.run(&arguments.each_ref().map(String::as_str), code);
        assert!(log.contains(says), "{says}: {log}");
        // The other schedule is measured nevertheless.
        if code == 4 {
            assert!(log.contains("tiny: 1 of 2 schedules agree"), "{log}");
            let rows = rig.rows();
            let row = rows.iter().find(|row| row["schedule"] == "onnxruntime tensorrt, gpu").unwrap();
            let of = |key: &str| row[key].as_str().unwrap().to_owned();
            assert_eq!((of("peer_provider"), of("peer_gpu")), ("tensorrt".to_owned(), "gpu".to_owned()));
            assert!(row["throughput_fps"].is_null(), "{row}");
            assert!(rows.iter().any(|row| row["schedule"] == "cpu" && row["trials"] != 0), "{table}");
        }
    }
}
