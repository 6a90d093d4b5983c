//! Each operation against a reference that computes in wider numbers, over edge values and random ones.

#![allow(unsafe_code, missing_docs, clippy::expect_used, reason = "a test of operations on raw registers")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::float_cmp,
    clippy::needless_range_loop,
    reason = "the references are about the bits of numbers"
)]

use cuda::half::Half;
use cuda::lanes::{Class, LANES, Operation};
use cuda::operations::find;
use proptest::prelude::*;

/// Applies an operation to one value per lane and source.
fn apply(opcode: &str, sources: &[[u64; LANES]]) -> [u64; LANES] {
    let operation: Operation = find(opcode).unwrap_or_else(|| panic!("{opcode} is not known"));
    let classes: Vec<Class> = operation.sources.into_iter().flatten().collect();
    assert_eq!(classes.len(), sources.len(), "sources of {opcode}");
    // Places of 512 bytes: scratch, result, sources.
    let mut file = vec![0u64; 6 * LANES];
    let bytes = file.as_mut_ptr().cast::<u8>();
    let place =
        |number: usize, class: Class, lane: usize| bytes.wrapping_add(number * 512 + lane * class.bytes());
    for (number, (source, class)) in sources.iter().zip(&classes).enumerate() {
        for (lane, value) in source.iter().enumerate() {
            let value = value.to_le_bytes();
            // SAFETY: a lane of a place has this size.
            unsafe {
                std::ptr::copy_nonoverlapping(value.as_ptr(), place(number + 2, *class, lane), class.bytes());
            };
        }
    }
    // SAFETY: the places are those of the registers.
    unsafe { (operation.run)(bytes, &[512, 1024, 1536, 2048, 2560]) };
    std::array::from_fn(|lane| {
        let mut value = [0; 8];
        let class = operation.result;
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(place(1, class, lane), value.as_mut_ptr(), class.bytes()) };
        u64::from_le_bytes(value)
    })
}

/// A value of an integer type such as `s16` from its bits, and back.
fn wide(kind: &str, bits: u64) -> i128 {
    let width: u32 = kind[1..].parse().expect("a width");
    let unused = 128 - width;
    if kind.starts_with('s') {
        (i128::from(bits) << unused) >> unused
    } else {
        (((i128::from(bits) << unused) as u128) >> unused) as i128
    }
}

fn narrow(width: u32, value: i128) -> u64 {
    (value as u128 & ((1u128 << width) - 1)) as u64
}

const EDGES: [u64; 17] = [
    0,
    1,
    2,
    3,
    7,
    31,
    32,
    33,
    63,
    0x7f,
    0x80,
    0x7fff,
    0x8000,
    0x7fff_ffff,
    0x8000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
];

/// All triples of edge values and their complements, and random ones; 64 at a time.
fn triples(random: &[(u64, u64, u64)]) -> Vec<[[u64; LANES]; 3]> {
    let values: Vec<u64> = EDGES.iter().flat_map(|edge| [*edge, !*edge]).collect();
    let mut all: Vec<(u64, u64, u64)> = random.to_vec();
    for (number, a) in values.iter().enumerate() {
        for (other, b) in values.iter().enumerate() {
            all.push((*a, *b, values[(number * 5 + other * 3) % values.len()]));
        }
    }
    all.resize(all.len().next_multiple_of(LANES), (0, 0, 0));
    all.chunks(LANES)
        .map(|chunk| {
            [
                std::array::from_fn(|lane| chunk[lane].0),
                std::array::from_fn(|lane| chunk[lane].1),
                std::array::from_fn(|lane| chunk[lane].2),
            ]
        })
        .collect()
}

/// Compares an operation with a reference on bits.
fn compare(opcode: &str, count: usize, random: &[(u64, u64, u64)], reference: impl Fn(u64, u64, u64) -> u64) {
    for [a, b, c] in triples(random) {
        let found = apply(opcode, &[a, b, c][..count]);
        for lane in 0..LANES {
            let want = reference(a[lane], b[lane], c[lane]);
            assert_eq!(found[lane], want, "{opcode} of {:#x}, {:#x}, {:#x}", a[lane], b[lane], c[lane]);
        }
    }
}

/// From a number to another.
type Rounding = fn(f64) -> f64;
/// From two numbers to another.
type Integers = fn(i128, i128) -> i128;

fn integers(random: &[(u64, u64, u64)]) {
    let table: [(&str, Integers); 7] = [
        ("add", |a, b| a + b),
        ("sub", |a, b| a - b),
        ("mul.lo", i128::wrapping_mul),
        ("min", Ord::min),
        ("max", Ord::max),
        ("div", |a, b| if b == 0 { -1 } else { a / b }),
        ("rem", |a, b| if b == 0 { a } else { a % b }),
    ];
    for kind in ["u16", "s16", "u32", "s32", "u64", "s64"] {
        let width: u32 = kind[1..].parse().expect("a width");
        for (stem, reference) in table {
            compare(&format!("{stem}.{kind}"), 2, random, |a, b, _| {
                narrow(width, reference(wide(kind, a), wide(kind, b)))
            });
        }
        compare(&format!("mul.hi.{kind}"), 2, random, |a, b, _| {
            let (a, b) = (wide(kind, a), wide(kind, b));
            // Two unsigned 64-bit numbers take all 128 bits.
            if kind == "u64" {
                return ((a as u128).wrapping_mul(b as u128) >> 64) as u64;
            }
            narrow(width, (a * b) >> width)
        });
        compare(&format!("mad.lo.{kind}"), 3, random, |a, b, c| {
            narrow(width, wide(kind, a).wrapping_mul(wide(kind, b)).wrapping_add(wide(kind, c)))
        });
        if width < 64 {
            compare(&format!("mul.wide.{kind}"), 2, random, |a, b, _| {
                narrow(2 * width, wide(kind, a) * wide(kind, b))
            });
            let double = format!("u{}", 2 * width);
            compare(&format!("mad.wide.{kind}"), 3, random, |a, b, c| {
                narrow(2 * width, wide(kind, a) * wide(kind, b) + wide(&double, c))
            });
        }
        if width == 32 {
            compare(&format!("mad.hi.{kind}"), 3, random, |a, b, c| {
                narrow(32, ((wide(kind, a) * wide(kind, b)) >> 32) + wide(kind, c))
            });
        }
        if kind.starts_with('s') {
            compare(&format!("neg.{kind}"), 1, random, |a, _, _| narrow(width, -wide(kind, a)));
            compare(&format!("abs.{kind}"), 1, random, |a, _, _| narrow(width, wide(kind, a).abs()));
        }
        compare(&format!("shr.{kind}"), 2, random, |a, by, _| {
            narrow(width, wide(kind, a) >> wide("u32", by).min(127))
        });
        for (relation, holds) in [
            ("eq", (|a, b| a == b) as fn(i128, i128) -> bool),
            ("ne", |a, b| a != b),
            ("lt", |a, b| a < b),
            ("le", |a, b| a <= b),
            ("gt", |a, b| a > b),
            ("ge", |a, b| a >= b),
        ] {
            let reference = |a, b| holds(wide(kind, a), wide(kind, b));
            compare(&format!("setp.{relation}.{kind}"), 2, random, |a, b, _| u64::from(reference(a, b)));
        }
        integer_conversions(kind, random);
    }
    for kind in ["u8", "s8"] {
        integer_conversions(kind, random);
    }
    for (opcode, bits) in [("mul24.lo.u32", "u24"), ("mul24.lo.s32", "s24")] {
        compare(opcode, 2, random, |a, b, _| narrow(32, wide(bits, a) * wide(bits, b)));
    }
}

fn integer_conversions(from: &str, random: &[(u64, u64, u64)]) {
    for to in ["u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64"] {
        // A byte lives in a register of 16 bits, extended by its sign.
        let width: u32 = to[1..].parse().expect("a width");
        let store = |value: i128| narrow(width.max(16), wide(to, narrow(width, value)));
        compare(&format!("cvt.{to}.{from}"), 1, random, |a, _, _| store(wide(from, a)));
        let (least, most) = if to.starts_with('s') {
            (-(1i128 << (width - 1)), (1i128 << (width - 1)) - 1)
        } else {
            (0, (1i128 << width) - 1)
        };
        if find(&format!("cvt.sat.{to}.{from}")).is_some() {
            compare(&format!("cvt.sat.{to}.{from}"), 1, random, |a, _, _| {
                store(wide(from, a).clamp(least, most))
            });
        }
        for (source, value) in [
            ("f32", (|bits| f64::from(f32::from_bits(bits as u32))) as fn(u64) -> f64),
            ("f64", f64::from_bits),
        ] {
            for (rounding, whole) in [
                ("rzi", f64::trunc as fn(f64) -> f64),
                ("rni", f64::round_ties_even),
                ("rmi", f64::floor),
                ("rpi", f64::ceil),
            ] {
                compare(&format!("cvt.{rounding}.{to}.{source}"), 1, random, |a, _, _| {
                    let value = value(a);
                    if value.is_nan() {
                        let is_wide = source == "f64" || width == 64;
                        return store(if is_wide { 1 << (width - 1) } else { 0 });
                    }
                    store((whole(value) as i128).clamp(least, most))
                });
            }
        }
        if to == from {
            for (target, bits) in [
                ("f32", (|value| u64::from((value as f32).to_bits())) as fn(i128) -> u64),
                ("f64", |value| (value as f64).to_bits()),
            ] {
                compare(&format!("cvt.rn.{target}.{from}"), 1, random, |a, _, _| bits(wide(from, a)));
            }
        }
    }
}

fn bits(random: &[(u64, u64, u64)]) {
    for width in [16u32, 32, 64] {
        let all = |value: u64| narrow(width, i128::from(value));
        compare(&format!("and.b{width}"), 2, random, |a, b, _| all(a & b));
        compare(&format!("or.b{width}"), 2, random, |a, b, _| all(a | b));
        compare(&format!("xor.b{width}"), 2, random, |a, b, _| all(a ^ b));
        compare(&format!("not.b{width}"), 1, random, |a, _, _| all(!a));
        compare(&format!("mov.b{width}"), 1, random, |a, _, _| all(a));
        compare(&format!("selp.b{width}"), 3, random, |a, b, p| all(if p as u8 == 0 { b } else { a }));
        compare(&format!("shl.b{width}"), 2, random, |a, by, _| {
            let by = by as u32;
            if by >= 64 { 0 } else { all(a << by) }
        });
    }
    for width in [32u32, 64] {
        let digits = |a: u64| (0..width).rev().map(move |bit| a >> bit & 1);
        compare(&format!("popc.b{width}"), 1, random, |a, _, _| digits(a).sum());
        compare(&format!("clz.b{width}"), 1, random, |a, _, _| {
            digits(a).take_while(|bit| *bit == 0).count() as u64
        });
        compare(&format!("brev.b{width}"), 1, random, |a, _, _| {
            digits(a).enumerate().map(|(place, bit)| bit << place).sum()
        });
        // Bit by bit, as the PTX ISA defines them.
        for kind in ['u', 's'] {
            compare(&format!("bfe.{kind}{width}"), 3, random, |a, at, length| {
                let (at, length) = (at as u32 & 255, length as u32 & 255);
                let last = width - 1;
                let sign = if kind == 'u' || length == 0 { 0 } else { a >> (at + length - 1).min(last) & 1 };
                let bit = |place: u32| {
                    if place < length && at + place <= last { a >> (at + place) & 1 } else { sign }
                };
                (0..width).map(|place| bit(place) << place).sum()
            });
        }
    }
    compare("prmt.b32", 3, random, |a, b, selector| {
        let bytes: Vec<u8> = [a as u32, b as u32].into_iter().flat_map(u32::to_le_bytes).collect();
        (0..4)
            .map(|place| {
                let choice = (selector >> (4 * place)) as usize & 15;
                let byte = bytes[choice & 7];
                let byte = if choice > 7 { if byte > 127 { 255 } else { 0 } } else { byte };
                u64::from(byte) << (8 * place)
            })
            .sum()
    });
    // Bit by bit, with a table that comes from the third source.
    for [a, b, c] in triples(random) {
        let table: [u64; LANES] = std::array::from_fn(|lane| c[lane] >> 32 & 255);
        let found = apply("lop3.b32", &[a, b, c, table]);
        for lane in 0..LANES {
            let bit = |place: u32| {
                let [a, b, c] = [a, b, c].map(|source| source[lane] >> place & 1);
                table[lane] >> (a << 2 | b << 1 | c) & 1
            };
            assert_eq!(found[lane], (0..32).map(|place| bit(place) << place).sum::<u64>(), "lop3.b32");
        }
    }
    let pair = |low: u64, high: u64| u128::from(high as u32) << 32 | u128::from(low as u32);
    for (opcode, limit) in [("shf.r.wrap.b32", 31), ("shf.r.clamp.b32", u64::MAX)] {
        compare(opcode, 3, random, |low, high, by| {
            let by = ((u64::from(by as u32)) & limit).min(32) as u32;
            u64::from((pair(low, high) >> by) as u32)
        });
        compare(&opcode.replace(".r.", ".l."), 3, random, |low, high, by| {
            let by = ((u64::from(by as u32)) & limit).min(32) as u32;
            u64::from((pair(low, high) << by >> 32) as u32)
        });
    }
}

/// The sum of two numbers, with its last bit set if it is not exact: the next rounding is right then.
fn odd_sum(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let rest = sum - a;
    let error = (a - (sum - rest)) + (b - rest);
    if error == 0.0 || error.is_nan() || sum.to_bits() & 1 == 1 {
        return sum;
    }
    // Towards the exact value.
    let is_away = (error > 0.0) == (sum > 0.0);
    f64::from_bits(if is_away { sum.to_bits() + 1 } else { sum.to_bits() - 1 })
}

/// Compares an operation on floating-point numbers; any NaN is as good as another.
fn floats(
    (kind, opcode): (&str, &str),
    count: usize,
    random: &[(u64, u64, u64)],
    reference: impl Fn(f64, f64, f64) -> f64,
) {
    let value = |bits: u64| match kind {
        "f16" => f64::from(Half(bits as u16).to_f32()),
        "f32" => f64::from(f32::from_bits(bits as u32)),
        _ => f64::from_bits(bits),
    };
    for [a, b, c] in triples(random) {
        let found = apply(opcode, &[a, b, c][..count]);
        for lane in 0..LANES {
            let (a, b, c) = (value(a[lane]), value(b[lane]), value(c[lane]));
            let exact = reference(a, b, c);
            let want = match kind {
                "f16" => u64::from(nearest_half(exact)),
                "f32" => u64::from((exact as f32).to_bits()),
                _ => exact.to_bits(),
            };
            let are_nan = value(found[lane]).is_nan() && value(want).is_nan();
            assert!(
                are_nan || found[lane] == want,
                "{opcode} of {a:e}, {b:e}, {c:e}: {:#x}, not {want:#x}",
                found[lane]
            );
        }
    }
}

/// The nearest half by search among all of them.
fn nearest_half(value: f64) -> u16 {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let magnitude = value.abs();
    if magnitude.is_nan() {
        return 0x7fff;
    }
    // Halves are ordered like their bits; beyond the largest, the next one would be 65536.
    let of = |bits: u16| if bits == 0x7c00 { 65536.0 } else { f64::from(Half(bits).to_f32()) };
    let (mut low, mut high) = (0u16, 0x7c00);
    if magnitude >= 65536.0 {
        return sign | 0x7c00;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if of(middle) <= magnitude { low = middle } else { high = middle }
    }
    let (down, up) = (magnitude - of(low), of(high) - magnitude);
    sign | if down < up || down == up && low % 2 == 0 { low } else { high }
}

fn minimum(a: f64, b: f64) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => a.min(b),
    }
}

fn arithmetic(random: &[(u64, u64, u64)]) {
    for kind in ["f16", "f32", "f64"] {
        let named = |stem: &str| format!("{stem}.{kind}");
        // An operation on doubles rounds once to single or half precision, except where the sum is kept odd.
        let sum = |a: f64, b: f64| if kind == "f64" { a + b } else { odd_sum(a, b) };
        floats((kind, &named("add.rn")), 2, random, |a, b, _| sum(a, b));
        floats((kind, &named("sub")), 2, random, |a, b, _| sum(a, -b));
        floats((kind, &named("mul")), 2, random, |a, b, _| a * b);
        floats((kind, &named("fma.rn")), 3, random, |a, b, c| {
            if kind == "f64" { a.mul_add(b, c) } else { odd_sum(a * b, c) }
        });
        floats((kind, &named("min")), 2, random, |a, b, _| minimum(a, b));
        floats((kind, &named("max")), 2, random, |a, b, _| -minimum(-a, -b));
        if kind != "f64" {
            let with_nan =
                |a: f64, b: f64, value: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { value };
            floats((kind, &named("min.NaN")), 2, random, |a, b, _| with_nan(a, b, minimum(a, b)));
            floats((kind, &named("max.NaN")), 2, random, |a, b, _| with_nan(a, b, -minimum(-a, -b)));
        }
        floats((kind, &named("neg")), 1, random, |a, _, _| -a);
        floats((kind, &named("abs")), 1, random, |a, _, _| a.abs());
        if kind != "f16" {
            floats((kind, &named("div.rn")), 2, random, |a, b, _| a / b);
            floats((kind, &named("rcp.rn")), 1, random, |a, _, _| 1.0 / a);
            floats((kind, &named("sqrt.rn")), 1, random, |a, _, _| a.sqrt());
            floats((kind, &named("copysign")), 2, random, |sign, value, _| value.copysign(sign));
            for (rounding, whole) in [
                ("rzi", f64::trunc as fn(f64) -> f64),
                ("rni", f64::round_ties_even),
                ("rmi", f64::floor),
                ("rpi", f64::ceil),
            ] {
                floats((kind, &format!("cvt.{rounding}.{kind}.{kind}")), 1, random, |a, _, _| whole(a));
            }
        }
        comparisons(kind, random);
    }
    let half = |bits: u64| f64::from(Half(bits as u16).to_f32());
    let single = |bits: u64| f64::from(f32::from_bits(bits as u32));
    for [a, ..] in triples(random) {
        for lane in 0..LANES {
            let bits = a[lane];
            let table = [
                ("cvt.rn.f16.f32", single(bits), u64::from(nearest_half(single(bits))), true),
                ("cvt.rn.f16.f64", f64::from_bits(bits), u64::from(nearest_half(f64::from_bits(bits))), true),
                ("cvt.f32.f16", half(bits), u64::from((half(bits) as f32).to_bits()), false),
                ("cvt.f64.f16", half(bits), half(bits).to_bits(), false),
                ("cvt.f64.f32", single(bits), single(bits).to_bits(), false),
                (
                    "cvt.rn.f32.f64",
                    f64::from_bits(bits),
                    u64::from((f64::from_bits(bits) as f32).to_bits()),
                    false,
                ),
            ];
            for (opcode, value, want, is_half) in table {
                let found = apply(opcode, &[[bits; LANES]])[lane];
                let is_nan = value.is_nan() && (!is_half || found & 0x7fff > 0x7c00);
                assert!(is_nan || found == want, "{opcode} of {value:e}: {found:#x}, not {want:#x}");
            }
        }
    }
}

fn comparisons(kind: &str, random: &[(u64, u64, u64)]) {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let value = |bits: u64| match kind {
        "f16" => f64::from(Half(bits as u16).to_f32()),
        "f32" => f64::from(f32::from_bits(bits as u32)),
        _ => f64::from_bits(bits),
    };
    let table: [(&str, &[std::cmp::Ordering], bool); 14] = [
        ("eq", &[Equal], false),
        ("ne", &[Less, Greater], false),
        ("lt", &[Less], false),
        ("le", &[Less, Equal], false),
        ("gt", &[Greater], false),
        ("ge", &[Greater, Equal], false),
        ("equ", &[Equal], true),
        ("neu", &[Less, Greater], true),
        ("ltu", &[Less], true),
        ("leu", &[Less, Equal], true),
        ("gtu", &[Greater], true),
        ("geu", &[Greater, Equal], true),
        ("num", &[Less, Equal, Greater], false),
        ("nan", &[], true),
    ];
    for (relation, orders, with_nan) in table {
        let holds = |a: u64, b: u64| {
            value(a).partial_cmp(&value(b)).map_or(with_nan, |order| orders.contains(&order))
        };
        compare(&format!("setp.{relation}.{kind}"), 2, random, |a, b, _| u64::from(holds(a, b)));
        let flag = |c: u64| c as u8 != 0;
        compare(&format!("setp.{relation}.and.{kind}"), 3, random, |a, b, c| {
            u64::from(holds(a, b) && flag(c))
        });
        compare(&format!("setp.{relation}.or.{kind}"), 3, random, |a, b, c| {
            u64::from(holds(a, b) || flag(c))
        });
        compare(&format!("setp.{relation}.xor.{kind}"), 3, random, |a, b, c| {
            u64::from(holds(a, b) != flag(c))
        });
    }
}

fn pairs(random: &[(u64, u64, u64)]) {
    for stem in ["add.rn", "sub", "mul", "min", "max", "min.NaN", "max.NaN", "fma.rn", "neg", "abs"] {
        let count = match stem {
            "fma.rn" => 3,
            "neg" | "abs" => 1,
            _ => 2,
        };
        for [a, b, c] in triples(random) {
            let sources = [a, b, c];
            let found = apply(&format!("{stem}.f16x2"), &sources[..count]);
            let parts = [0, 16].map(|shift| {
                let part = sources.map(|source| source.map(|value| value >> shift & 0xffff));
                apply(&format!("{stem}.f16"), &part[..count])
            });
            for lane in 0..LANES {
                assert_eq!(found[lane], parts[0][lane] | parts[1][lane] << 16, "{stem}.f16x2");
            }
        }
    }
}

/// Approximations, which the stand-in computes to full precision.
fn approximations(random: &[(u64, u64, u64)]) {
    let table: [(&str, Rounding); 8] = [
        ("ex2.approx.f32", f64::exp2),
        ("lg2.approx.f32", f64::log2),
        ("sin.approx.f32", f64::sin),
        ("cos.approx.f32", f64::cos),
        ("tanh.approx.f32", f64::tanh),
        ("rcp.approx.f32", |a| 1.0 / a),
        ("rsqrt.approx.f32", |a| 1.0 / a.sqrt()),
        ("sqrt.approx.f32", f64::sqrt),
    ];
    for (opcode, reference) in table {
        for [a, ..] in triples(random) {
            let found = apply(opcode, &[a]);
            for lane in 0..LANES {
                let source = f64::from(f32::from_bits(a[lane] as u32));
                let (want, found) = (reference(source), f64::from(f32::from_bits(found[lane] as u32)));
                let is_near = (found - want).abs() <= 3e-7 * want.abs() + 1e-44;
                let is_same =
                    found == want || found.is_nan() && want.is_nan() || found == f64::from(want as f32);
                assert!(is_near || is_same, "{opcode} of {source:e}: {found:e}, not {want:e}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn integers_and_their_conversions(random in proptest::collection::vec(any::<(u64, u64, u64)>(), 64)) {
        integers(&random);
    }

    #[test]
    fn operations_on_bits(random in proptest::collection::vec(any::<(u64, u64, u64)>(), 64)) {
        bits(&random);
    }

    #[test]
    fn floating_point(random in proptest::collection::vec(any::<(u64, u64, u64)>(), 64)) {
        arithmetic(&random);
        pairs(&random);
        approximations(&random);
    }
}

#[test]
fn opcodes_match_as_a_whole() {
    for opcode in [
        "add",
        "add.f33",
        "add.rz.f32",
        "add.ftz.f32",
        "add.sat.s32",
        "setp.lt",
        "setp.ltu.s32",
        "setp.lt.nand.f32",
        "setp.lt.and.or.f32",
        "setp.lt.b32",
        "cvt.f32.s32",
        "cvt.rn.s32.f32",
        "cvt.rz.f32.f64",
        "cvt.rn.f32",
        "mul.wide.u64",
        "shr.f32",
        "fma.rn.ftz.f32",
        "fma.f32",
        "",
    ] {
        assert!(find(opcode).is_none(), "{opcode}");
    }
}
