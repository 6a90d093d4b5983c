//! Loads a module: what the driver's compiler for PTX rejects, and the addresses of variables.

use crate::device::{Device, Module};
use crate::fault::{Code, Fault};
use crate::memory::Kind;
use crate::ptx::decode;
use crate::ptx::module::{self, Space};
use crate::ptx::syntax;
use crate::ptx::tokens::SyntaxError;
use std::collections::HashMap;
use std::sync::Arc;

/// Lowest `.version` for each `.target`, by the PTX ISA's notes on `.target`.
const TARGETS: [(u32, (u32, u32)); 19] = [
    (20, (2, 0)),
    (30, (3, 0)),
    (32, (4, 0)),
    (35, (3, 1)),
    (37, (4, 1)),
    (50, (4, 0)),
    (52, (4, 1)),
    (53, (4, 2)),
    (60, (5, 0)),
    (61, (5, 0)),
    (62, (5, 0)),
    (70, (6, 0)),
    (72, (6, 1)),
    (75, (6, 3)),
    (80, (7, 0)),
    (86, (7, 1)),
    (87, (7, 4)),
    (89, (7, 8)),
    (90, (7, 8)),
];

/// Loads the text of a module. The message of a fault is what the compiler's log says.
pub fn module(device: &Device, text: &str) -> Result<Module, Fault> {
    let refused = |error: SyntaxError| {
        let message =
            format!("ptxas application ptx input, line {}; error   : {}", error.line, error.message);
        Fault::new(Code::INVALID_PTX, message)
    };
    check_version(device, text)?;
    let module = syntax::parse(text).map_err(refused)?;
    check_target(device, &module)?;
    let mut addresses = HashMap::new();
    let result = place_variables(device, &module, &mut addresses).and_then(|()| {
        let is_shared = |variable: &module::Variable<'_>| variable.space == Space::Shared;
        let (shared, _): (Vec<_>, Vec<_>) = module.variables.into_iter().partition(is_shared);
        let kernels = module.kernels.iter();
        kernels
            .map(|kernel| decode::kernel(kernel, &addresses, &shared).map(Arc::new).map_err(refused))
            .collect()
    });
    let variables: Vec<u64> = addresses.values().copied().collect();
    match result {
        Ok(programs) => {
            let ptx_version = (module.version.0 * 10 + module.version.1) as i32;
            Ok(Module { programs, ptx_version, variables })
        }
        Err(fault) => {
            for address in variables {
                device.memory.free(address, false)?;
            }
            Err(fault)
        }
    }
}

/// Refuses a `.version` that the driver does not know, before anything else in the text is read: it may be new.
fn check_version(device: &Device, text: &str) -> Result<(), Fault> {
    let mut lines = (1..).zip(text.lines());
    let found = lines.find_map(|(line, text)| Some((line, text.trim().strip_prefix(".version")?)));
    let Some((line, rest)) = found else { return Ok(()) };
    let version = rest.split_whitespace().next().and_then(|word| word.split_once('.'));
    let version = version.and_then(|(a, b)| Some((a.parse::<u32>().ok()?, b.parse::<u32>().ok()?)));
    let (Some((major, minor)), (most, most_minor)) = (version, device.settings.highest_ptx_version()) else {
        return Ok(());
    };
    if (major, minor) <= (most, most_minor) {
        return Ok(());
    }
    // The code is younger than CUDA 11.0.
    let is_new = device.settings.driver_version > 11000;
    let code = if is_new { Code::UNSUPPORTED_PTX_VERSION } else { Code::INVALID_PTX };
    let message = format!(
        "ptxas application ptx input, line {line}; fatal   : Unsupported .version {major}.{minor}; current version is \
         '{most}.{most_minor}'"
    );
    Err(Fault::new(code, message))
}

fn check_target(device: &Device, module: &module::Module<'_>) -> Result<(), Fault> {
    let (line, target, (major, minor)) = (module.target_line, module.target, module.version);
    let refused = |message: String| {
        let message = format!("ptxas application ptx input, line {line}; fatal   : {message}");
        Err(Fault::new(Code::INVALID_PTX, message))
    };
    match TARGETS.iter().find(|(number, _)| *number == target) {
        None => return refused(format!("unknown .target sm_{target}")),
        Some((_, lowest)) if module.version < *lowest => {
            return refused(format!("PTX .version {major}.{minor} does not support .target sm_{target}"));
        }
        Some(_) => {}
    }
    if target > device.settings.architecture.number {
        return refused(format!(
            "SM version specified by .target is higher than default SM version assumed (sm_{target} > sm_{})",
            device.settings.architecture.number
        ));
    }
    Ok(())
}

fn place_variables<'a>(
    device: &Device,
    module: &module::Module<'a>,
    addresses: &mut HashMap<&'a str, u64>,
) -> Result<(), Fault> {
    for variable in module.variables.iter().filter(|variable| variable.space != Space::Shared) {
        let address = device.memory.allocate(variable.bytes.max(1), Kind::Device)?;
        addresses.insert(variable.name, address);
        let content = variable.content.as_deref().unwrap_or_default();
        let allocations = device.memory.snapshot();
        if let Some(allocation) = allocations.iter().find(|allocation| allocation.start == address) {
            // Variables begin as zeros.
            // SAFETY: the allocation has this size, and the content is not longer.
            unsafe {
                allocation.host(address).write_bytes(0, variable.bytes as usize);
                std::ptr::copy_nonoverlapping(content.as_ptr(), allocation.host(address), content.len());
            }
        }
    }
    Ok(())
}
