//! Thread instructions per second of the interpreter, on one CPU: the inner loop of a tiled product of matrices, as the
//! compiler writes it for convolutions. `cargo bench -p cuda-standin` prints the rate in elements per second.

#![allow(missing_docs, clippy::expect_used, reason = "a benchmark")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use cuda::device::Device;
use cuda::execute::{Runner, Work};
use cuda::load;
use cuda::settings::Settings;
use std::fmt::Write as _;

/// A kernel whose threads load 2 x 8 numbers from shared memory and do 64 multiply-adds with them, 1000 times.
fn kernel() -> String {
    let mut text = "\
.version 5.0
.target sm_62
.address_size 64
.visible .entry product()
{
	.reg .pred %p<2>;
	.reg .b32 %r<200>;
	.reg .b64 %rd<4>;
	.shared .align 16 .b8 tile[16384];
	mov.u32 %r150, %tid.x;
	and.b32 %r151, %r150, 7;
	shr.u32 %r152, %r150, 3;
	mul.wide.u32 %rd1, %r151, 32;
	mul.wide.u32 %rd2, %r152, 32;
	mov.b64 %rd3, tile;
	add.s64 %rd1, %rd1, %rd3;
	add.s64 %rd2, %rd2, %rd3;
	mov.u32 %r153, 0;
"
    .to_owned();
    for number in 0..64 {
        let _ = writeln!(text, "\tmov.b32 %r{number}, 0f00000000;");
    }
    text.push_str("$loop:\n");
    for (first, base, offset) in [(64, 1, 0), (68, 1, 16), (72, 2, 2048), (76, 2, 2064)] {
        let [a, b, c, d] = [0, 1, 2, 3].map(|number| first + number);
        let _ = writeln!(text, "\tld.shared.v4.b32 {{%r{a}, %r{b}, %r{c}, %r{d}}}, [%rd{base}+{offset}];");
    }
    for number in 0..64 {
        let (row, column) = (64 + number / 8, 72 + number % 8);
        let _ = writeln!(text, "\tfma.rn.f32 %r{number}, %r{row}, %r{column}, %r{number};");
    }
    text.push_str(
        "\tadd.s32 %r153, %r153, 1;\n\tsetp.lt.u32 %p1, %r153, 1000;\n\t@%p1 bra $loop;\n\tret;\n}\n",
    );
    text
}

fn rate(criterion: &mut Criterion) {
    let device = Device::new(Settings::read(|_| None).expect("the defaults"));
    let module = load::module(&device, &kernel()).expect("a kernel");
    let memory = device.memory.snapshot();
    let mut group = criterion.benchmark_group("interpreter");
    for threads in [64, 256] {
        let work = Work {
            program: &module.programs[0],
            grid: [1, 1, 1],
            block: [threads, 1, 1],
            parameters: &[],
            memory: &memory,
        };
        let mut runner = Runner::new(work, None).expect("memory of the host");
        runner.run(0).expect("no fault");
        group.throughput(Throughput::Elements(runner.counts.thread_instructions));
        group.bench_function(format!("product, {threads} threads"), |bencher| {
            bencher.iter(|| runner.run(0));
        });
    }
    group.finish();
}

criterion_group!(benches, rate);
criterion_main!(benches);
