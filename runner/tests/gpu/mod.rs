//! The stages of `make_stages.py` for a GPU, with kernels written by hand, and runners that use the stand-in for `libcuda`.

#![allow(dead_code, reason = "each test program uses only some of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics if its assumptions fail")]

use crate::support::{self, Runner, stages};
use protocol::launch_plan::{Argument, Launch, LaunchPlan, SCHEMA, Value, Weight};
use protocol::{CudaProcessor, CudaProgram, Processor, Program, Schedule};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The stand-in, which `cargo xtask test` builds and names.
pub(crate) fn library() -> PathBuf {
    let named = std::env::var_os("EDGEPIPE_TEST_LIBCUDA").expect(
        "EDGEPIPE_TEST_LIBCUDA names the stand-in for libcuda.so.1 (crate cuda-standin); `cargo xtask test` sets it",
    );
    PathBuf::from(named)
}

/// A runner on a board whose GPU the stand-in emulates; `settings` are environment variables of the stand-in.
pub(crate) fn runner(settings: &[(&str, &str)]) -> Runner {
    Runner::start_with(|command| {
        command.env("EDGEPIPE_LIBCUDA", library()).envs(settings.iter().copied());
    })
}

/// A GPU whose stages are compiled for `sm_62`.
pub(crate) fn gpu(cpu: u32) -> CudaProcessor {
    CudaProcessor { name: "gpu".to_owned(), device: 0, arch: "sm_62".to_owned(), host_cpus: vec![cpu] }
}

/// A folder with launch plans.
pub(crate) struct Plans {
    folder: tempfile::TempDir,
}

impl Plans {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, plan: &LaunchPlan) -> String {
        self.write_text(name, &serde_json::to_string(plan).unwrap())
    }

    pub(crate) fn write_text(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(format!("{name}.cuda.json"));
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Moves the stage at `place` of a schedule, which runs the stage library `name`, to the GPU.
    pub(crate) fn move_to_gpu(&self, schedule: &mut Schedule, place: usize, name: &str) {
        let cpu = schedule.stages[place].processor.cpus()[0];
        schedule.stages[place].processor = Processor::Cuda(gpu(cpu));
        let path = self.write(name, &plan(name));
        let weights = stages().folder.join("weights.bin").display().to_string();
        schedule.stages[place].program = Program::Cuda(CudaProgram { path, weights });
    }

    /// One stage on the GPU.
    pub(crate) fn single(&self, name: &str) -> Schedule {
        let cpu = [support::cpus()[0]];
        let mut schedule = stages().schedule(protocol::ExecutionMode::Single, &[(name, &cpu)]);
        self.move_to_gpu(&mut schedule, 0, name);
        schedule
    }
}

/// The plan of `net` or of one of its stages.
pub(crate) fn plan(name: &str) -> LaunchPlan {
    let mut plan = LaunchPlan {
        schema: SCHEMA,
        arch: "sm_62".to_owned(),
        ptx_version: "5.0".to_owned(),
        ptx: module(),
        arena_bytes: 0,
        values: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        weights: Vec::new(),
        launches: Vec::new(),
    };
    let made = &stages().made[name];
    for place in &made.weights {
        let bytes = u64::try_from(place.tensor.shape.iter().product::<i64>()).unwrap() * 4;
        plan.weights.push(Weight { offset: place.offset, bytes });
    }
    match name {
        "head" => head(&mut plan),
        "middle" => middle(&mut plan),
        "tail" => tail(&mut plan),
        "net" => {
            head(&mut plan);
            middle(&mut plan);
            tail(&mut plan);
        }
        other => panic!("there are no kernels for {other}"),
    }
    let places = |tensors: &[protocol::Tensor]| {
        let place =
            |tensor: &protocol::Tensor| plan.values.iter().position(|value| value.name == tensor.name);
        tensors.iter().map(|tensor| u32::try_from(place(tensor).unwrap()).unwrap()).collect::<Vec<_>>()
    };
    (plan.inputs, plan.outputs) = (places(&made.inputs), places(&made.outputs));
    plan
}

fn head(plan: &mut LaunchPlan) {
    launch(plan, "convolve_3", 0, &["x"], Some(0), "convolved");
    launch(plan, "relu", 0, &["convolved"], None, "a");
    launch(plan, "twice", 1, &["a"], None, "b");
}

fn middle(plan: &mut LaunchPlan) {
    let weight = u32::try_from(plan.weights.len() - 1).unwrap();
    launch(plan, "convolve_8", 2, &["b"], Some(weight), "c");
}

fn tail(plan: &mut LaunchPlan) {
    launch(plan, "add", 3, &["a", "c"], None, "y");
    launch(plan, "mean", 4, &["c"], None, "z");
}

fn launch(
    plan: &mut LaunchPlan,
    kernel: &str,
    unit: u32,
    inputs: &[&str],
    weight: Option<u32>,
    output: &str,
) {
    let mut value = |name: &str| {
        let known = plan.values.iter().position(|value| value.name == name);
        let place = known.unwrap_or_else(|| {
            let bytes = match name {
                "x" => 3072,
                "z" => 512,
                _ => 8192,
            };
            plan.values.push(Value { name: name.to_owned(), offset: plan.arena_bytes, bytes });
            plan.arena_bytes += bytes;
            plan.values.len() - 1
        });
        Argument::Value(u32::try_from(place).unwrap())
    };
    let mut arguments: Vec<_> = inputs.iter().map(|name| value(name)).collect();
    arguments.extend(weight.map(Argument::Weight));
    arguments.push(value(output));
    // A block computes one of the 8 channels; `mean` one of its rows with each thread.
    let block = if kernel == "mean" { [16, 1, 1] } else { [16, 16, 1] };
    plan.launches.push(Launch { kernel: kernel.to_owned(), unit, grid: [8, 1, 1], block, arguments });
}

/// All kernels, for images of 16 × 16.
fn module() -> String {
    let mut text = ".version 5.0\n.target sm_62\n.address_size 64\n\n".to_owned();
    for channels in [3, 8] {
        text += &convolution(channels);
    }
    let load = |register: u32, address: u32| {
        format!("\tadd.s64 %rd10, %rd{address}, %rd9;\n\tld.global.f32 %f{register}, [%rd10];\n")
    };
    text += &elementwise("relu", 1, &(load(1, 1) + "\tmax.f32 %f3, %f1, 0f00000000;\n"));
    text += &elementwise("twice", 1, &(load(1, 1) + "\tadd.f32 %f3, %f1, %f1;\n"));
    text += &elementwise("add", 2, &(load(1, 1) + &load(2, 2) + "\tadd.f32 %f3, %f1, %f2;\n"));
    text += &mean();
    text
}

fn entry(name: &str, parameters: usize, threads: &str, body: &str) -> String {
    let list: Vec<String> = (0..parameters).map(|index| format!("\t.param .u64 {name}_{index}")).collect();
    let mut text = format!(
        ".visible .entry {name}(\n{}\n)\n.maxntid {threads}\n{{\n\t.reg .pred %p<4>;\n\t.reg .f32 %f<8>;\n\
         \t.reg .b32 %r<16>;\n\t.reg .b64 %rd<16>;\n\n",
        list.join(",\n")
    );
    for index in 0..parameters {
        writeln!(text, "\tld.param.u64 %rd{}, [{name}_{index}];", index + 1).unwrap();
    }
    text + "\tmov.u32 %r1, %tid.x;\n\tmov.u32 %r2, %tid.y;\n\tmov.u32 %r3, %ctaid.x;\n"
        + body
        + "\tret;\n}\n\n"
}

/// A kernel whose `body` computes `%f3` from elements at the offset `%rd9`.
fn elementwise(name: &str, inputs: usize, body: &str) -> String {
    let output = inputs + 1;
    let body = format!(
        "\tshl.b32 %r4, %r3, 8;\n\tshl.b32 %r5, %r2, 4;\n\tadd.s32 %r4, %r4, %r5;\n\tadd.s32 %r4, %r4, %r1;\n\
         \tmul.wide.s32 %rd9, %r4, 4;\n{body}\tadd.s64 %rd10, %rd{output}, %rd9;\n\tst.global.f32 [%rd10], %f3;\n"
    );
    entry(name, inputs + 1, "16, 16, 1", &body)
}

/// A 3 × 3 convolution with padding 1.
fn convolution(channels: u32) -> String {
    let name = format!("convolve_{channels}");
    let mut body = format!("\tmov.f32 %f1, 0f00000000;\n\tmov.u32 %r4, 0;\n${name}_channel:\n");
    for tap in 0..9 {
        let (row, column) = (tap / 3 - 1, tap % 3 - 1);
        write!(
            body,
            "\tadd.s32 %r5, %r2, {row};\n\tadd.s32 %r6, %r1, {column};\n\
             \tsetp.gt.u32 %p1, %r5, 15;\n\tsetp.gt.u32 %p2, %r6, 15;\n\tor.pred %p3, %p1, %p2;\n\
             \t@%p3 bra ${name}_{tap};\n\
             \tshl.b32 %r7, %r4, 8;\n\tshl.b32 %r8, %r5, 4;\n\tadd.s32 %r7, %r7, %r8;\n\tadd.s32 %r7, %r7, %r6;\n\
             \tmul.wide.s32 %rd4, %r7, 4;\n\tadd.s64 %rd4, %rd1, %rd4;\n\tld.global.f32 %f2, [%rd4];\n\
             \tmul.lo.s32 %r9, %r3, {channels};\n\tadd.s32 %r9, %r9, %r4;\n\tmul.lo.s32 %r9, %r9, 9;\n\
             \tmul.wide.s32 %rd5, %r9, 4;\n\tadd.s64 %rd5, %rd2, %rd5;\n\tld.global.f32 %f3, [%rd5+{}];\n\
             \tfma.rn.f32 %f1, %f2, %f3, %f1;\n${name}_{tap}:\n",
            4 * tap
        )
        .unwrap();
    }
    write!(
        body,
        "\tadd.s32 %r4, %r4, 1;\n\tsetp.lt.u32 %p1, %r4, {channels};\n\t@%p1 bra ${name}_channel;\n\
         \tshl.b32 %r7, %r3, 8;\n\tshl.b32 %r8, %r2, 4;\n\tadd.s32 %r7, %r7, %r8;\n\tadd.s32 %r7, %r7, %r1;\n\
         \tmul.wide.s32 %rd6, %r7, 4;\n\tadd.s64 %rd6, %rd3, %rd6;\n\tst.global.f32 [%rd6], %f1;\n"
    )
    .unwrap();
    entry(&name, 3, "16, 16, 1", &body)
}

/// The mean of each row.
fn mean() -> String {
    let mut body = "\tshl.b32 %r4, %r3, 4;\n\tadd.s32 %r4, %r4, %r1;\n\tmul.wide.s32 %rd3, %r4, 64;\n\
                    \tadd.s64 %rd3, %rd1, %rd3;\n\tmov.f32 %f1, 0f00000000;\n"
        .to_owned();
    for column in 0..16 {
        write!(body, "\tld.global.f32 %f2, [%rd3+{}];\n\tadd.f32 %f1, %f1, %f2;\n", 4 * column).unwrap();
    }
    // 0f3D800000 is 1/16.
    body += "\tmul.f32 %f1, %f1, 0f3D800000;\n\tmul.wide.s32 %rd4, %r4, 4;\n\tadd.s64 %rd4, %rd2, %rd4;\n\
             \tst.global.f32 [%rd4], %f1;\n";
    entry("mean", 2, "16, 1, 1", &body)
}
