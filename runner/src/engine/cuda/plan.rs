//! Reads a stage's launch plan and checks everything about it that needs no device.

use super::device::Arch;
use crate::failure::Failure;
use crate::schedule::TensorSpec;
use protocol::launch_plan::{Argument, LaunchPlan, SCHEMA, VALUE_ALIGNMENT, Value, WEIGHT_ALIGNMENT};
use std::collections::HashMap;
use std::path::Path;

/// Largest file that is read. The kernels of a large network take about a megabyte.
const MAX_BYTES: u64 = 256 << 20;
/// Limits of a launch on every architecture. Source: CUDA C programming guide, technical specifications.
const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];

/// A plan with these properties: all indices are valid, all values lie in the arena and are aligned, every launch has a
/// valid shape, and inputs and outputs have the sizes of the stage's.
pub(super) struct CheckedPlan {
    pub(super) plan: LaunchPlan,
    pub(super) arch: Arch,
    /// Major and minor version of the module's PTX.
    pub(super) ptx_version: (u32, u32),
}

impl CheckedPlan {
    /// Reads a file. `inputs` and `outputs` are the tensors of the stage, in its order.
    ///
    /// # Errors
    /// If the file is missing, malformed or inconsistent, or does not fit the stage.
    pub(super) fn read(
        path: &Path,
        inputs: &[&TensorSpec],
        outputs: &[&TensorSpec],
    ) -> Result<Self, Failure> {
        let fail = |reason: String| {
            let path = path.display();
            Failure::library(format!(
                "failed to load launch plan {path}: {reason}; compile and deploy it again"
            ))
        };
        let bytes = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
        if bytes > MAX_BYTES {
            return Err(fail(format!("it has {bytes} bytes, the limit is {MAX_BYTES}")));
        }
        let text = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
        let plan: LaunchPlan = serde_json::from_slice(&text).map_err(|error| fail(error.to_string()))?;
        Self::check(plan, inputs, outputs).map_err(fail)
    }

    fn check(plan: LaunchPlan, inputs: &[&TensorSpec], outputs: &[&TensorSpec]) -> Result<Self, String> {
        if plan.schema != SCHEMA {
            return Err(format!("it has schema {}, and this runner reads schema {SCHEMA}", plan.schema));
        }
        let arch =
            Arch::parse(&plan.arch).ok_or_else(|| format!("unknown architecture \"{}\"", plan.arch))?;
        let ptx_version = plan
            .ptx_version
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
            .ok_or_else(|| format!("invalid ptx_version \"{}\"", plan.ptx_version))?;
        plan.values.iter().try_for_each(|value| check_value(value, plan.arena_bytes))?;
        for (index, weight) in plan.weights.iter().enumerate() {
            if weight.bytes == 0 || weight.offset % WEIGHT_ALIGNMENT != 0 {
                return Err(format!(
                    "weight {index} has {} bytes at offset {}; it needs at least 1, and an offset that is a multiple of \
                     {WEIGHT_ALIGNMENT}",
                    weight.bytes, weight.offset
                ));
            }
        }
        check_ports("inputs", &plan.inputs, inputs, &plan.values)?;
        check_ports("outputs", &plan.outputs, outputs, &plan.values)?;
        if plan.launches.is_empty() {
            return Err("it has no launches".to_owned());
        }
        let entries = entries(&plan.ptx);
        for (number, launch) in plan.launches.iter().enumerate() {
            let fail = |reason: String| Err(format!("launch {number} of kernel {}: {reason}", launch.kernel));
            match entries.get(launch.kernel.as_str()) {
                None => return fail("the plan's PTX has no such kernel".to_owned()),
                Some(parameters) => {
                    if parameters.len() != launch.arguments.len() {
                        let (found, passed) = (parameters.len(), launch.arguments.len());
                        return fail(format!(
                            "the kernel has {found} parameters, and the plan passes {passed}"
                        ));
                    }
                    if let Some(other) = parameters.iter().find(|declared| !declared.contains(" .u64 ")) {
                        return fail(format!("its parameter \"{other}\" is not a pointer"));
                    }
                }
            }
            for (what, extents, limits) in
                [("grid", launch.grid, MAX_GRID), ("block", launch.block, MAX_BLOCK)]
            {
                if extents.iter().zip(limits).any(|(extent, limit)| *extent == 0 || *extent > limit) {
                    return fail(format!("invalid {what} {extents:?}; extents are from 1 to {limits:?}"));
                }
            }
            for argument in &launch.arguments {
                let (what, index, count) = match argument {
                    Argument::Value(index) => ("value", *index, plan.values.len()),
                    Argument::Weight(index) => ("weight", *index, plan.weights.len()),
                };
                if usize::try_from(index).is_ok_and(|index| index < count) {
                    continue;
                }
                return fail(format!("{what} {index} is out of range, there are {count}"));
            }
        }
        Ok(Self { plan, arch, ptx_version })
    }

    /// The value at an index of the plan, which was checked.
    pub(super) fn value(&self, index: u32) -> &Value {
        &self.plan.values[index as usize]
    }
}

/// The kernels of a module with the declarations of their parameters. In PTX, a kernel begins with
/// `.entry NAME(.param .u64 A, .param .u64 B)`, and each parameter has one `.param` (PTX ISA, kernel directives).
fn entries(ptx: &str) -> HashMap<&str, Vec<&str>> {
    let mut found = HashMap::new();
    for entry in ptx.split(".entry ").skip(1) {
        let name_end =
            entry.find(|letter: char| letter == '(' || letter.is_whitespace()).unwrap_or(entry.len());
        let (name, rest) = entry.split_at(name_end);
        // A kernel without parameters may have no parentheses; its body starts with a brace.
        let head = rest.split('{').next().unwrap_or_default();
        let list =
            head.split_once('(').and_then(|(_, list)| list.split_once(')')).map_or("", |(list, _)| list);
        let declared = list.split(',').map(str::trim).filter(|declared| declared.starts_with(".param"));
        found.insert(name, declared.collect());
    }
    found
}

fn check_value(value: &Value, arena_bytes: u64) -> Result<(), String> {
    let Value { name, offset, bytes } = value;
    if *bytes == 0 || offset % VALUE_ALIGNMENT != 0 {
        return Err(format!(
            "value {name} has {bytes} bytes at offset {offset}; it needs at least 1, and an offset that is a multiple of \
             {VALUE_ALIGNMENT}"
        ));
    }
    if offset.checked_add(*bytes).is_none_or(|end| end > arena_bytes) {
        return Err(format!(
            "value {name} has {bytes} bytes at offset {offset}, but the arena has {arena_bytes} bytes"
        ));
    }
    Ok(())
}

/// Checks inputs or outputs of the plan against those of the stage.
fn check_ports(what: &str, indices: &[u32], specs: &[&TensorSpec], values: &[Value]) -> Result<(), String> {
    if indices.len() != specs.len() {
        return Err(format!("it has {} {what}, and the stage has {}", indices.len(), specs.len()));
    }
    for (index, spec) in indices.iter().zip(specs) {
        let value = usize::try_from(*index).ok().and_then(|index| values.get(index));
        let value = value.ok_or_else(|| {
            format!("value {index} of its {what} is out of range, there are {}", values.len())
        })?;
        if value.bytes != spec.bytes as u64 {
            return Err(format!(
                "value {} of its {what} has {} bytes, and the stage's tensor {} has {}",
                value.name, value.bytes, spec.name, spec.bytes
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::launch_plan::{Launch, Weight};
    use protocol::{Dtype, Tensor};

    fn spec(name: &str) -> TensorSpec {
        TensorSpec::new(&Tensor { name: name.into(), shape: vec![4], dtype: Dtype::Float32 }).unwrap()
    }

    fn plan() -> LaunchPlan {
        let value = |name: &str, offset| Value { name: name.into(), offset, bytes: 16 };
        LaunchPlan {
            schema: SCHEMA,
            arch: "sm_62".into(),
            ptx_version: "5.0".into(),
            ptx: ".visible .entry add(\n\t.param .u64 .ptr .global .align 16 add_0,\n\t.param .u64 add_1,\n\t.param .u64 add_2\n)\n\
                  .maxntid 32, 1, 1\n{\n\tret;\n}\n.visible .entry none\n{ ret; }\n.visible .entry scalar(.param .u32 n) { ret; }\n"
                .into(),
            arena_bytes: 512,
            values: vec![value("x", 0), value("y", 256)],
            inputs: vec![0],
            outputs: vec![1],
            weights: vec![Weight { offset: 64, bytes: 16 }],
            launches: vec![Launch {
                kernel: "add".into(),
                unit: 0,
                grid: [1; 3],
                block: [32, 1, 1],
                arguments: vec![Argument::Value(0), Argument::Weight(0), Argument::Value(1)],
            }],
        }
    }

    /// Spoils a valid plan; the error must contain `says`.
    fn check(says: &str, spoil: impl FnOnce(&mut LaunchPlan)) {
        let mut spoiled = plan();
        spoil(&mut spoiled);
        let error = CheckedPlan::check(spoiled, &[&spec("x")], &[&spec("y")]).err().unwrap();
        assert!(error.contains(says), "{error} should say {says}");
    }

    #[test]
    fn a_valid_plan_is_accepted_and_every_inconsistency_is_named() {
        let valid = CheckedPlan::check(plan(), &[&spec("x")], &[&spec("y")]).ok().unwrap();
        assert_eq!(
            (valid.ptx_version, valid.arch.to_string(), valid.value(1).offset),
            ((5, 0), "sm_62".to_owned(), 256)
        );
        check("schema 2", |plan| plan.schema = 2);
        check("architecture \"62\"", |plan| plan.arch = "62".into());
        check("ptx_version \"5\"", |plan| plan.ptx_version = "5".into());
        check("value x has 0 bytes", |plan| plan.values[0].bytes = 0);
        check("value y has 16 bytes at offset 128; ", |plan| plan.values[1].offset = 128);
        check("the arena has 256 bytes", |plan| plan.arena_bytes = 256);
        check("the arena has 512 bytes", |plan| plan.values[0].offset = u64::MAX - 255);
        check("weight 0 has 16 bytes at offset 32", |plan| plan.weights[0].offset = 32);
        check("2 inputs, and the stage has 1", |plan| plan.inputs.push(0));
        check("value 2 of its outputs is out of range, there are 2", |plan| plan.outputs = vec![2]);
        check("value y of its inputs has 32 bytes", |plan| {
            plan.values[1].bytes = 32;
            plan.inputs = vec![1];
        });
        check("launch 0 of kernel sub: the plan's PTX has no such kernel", |plan| {
            plan.launches[0].kernel = "sub".into();
        });
        check("the kernel has 3 parameters, and the plan passes 2", |plan| {
            plan.launches[0].arguments.pop();
        });
        check("the kernel has 0 parameters, and the plan passes 3", |plan| {
            plan.launches[0].kernel = "none".into();
        });
        check("its parameter \".param .u32 n\" is not a pointer", |plan| {
            plan.launches[0].kernel = "scalar".into();
            plan.launches[0].arguments.truncate(1);
        });
        check("no launches", |plan| plan.launches.clear());
        check("invalid grid [1, 0, 1]", |plan| plan.launches[0].grid[1] = 0);
        check("invalid block [32, 1, 65]", |plan| plan.launches[0].block[2] = 65);
        check("launch 0 of kernel add: weight 1 is out of range, there are 1", |plan| {
            plan.launches[0].arguments[1] = Argument::Weight(1);
        });
        check("value 9 is out of range", |plan| plan.launches[0].arguments[0] = Argument::Value(9));
    }
}
