//! `ld`, `st`, `atom`, `red` and `cvta` as instructions of the interpreter.

use crate::lanes::{Class, one};
use crate::memory::{LOCAL_WINDOW, SHARED_WINDOW};
use crate::program::{Access, Action, Atomic};
use crate::ptx::atomics;
use crate::ptx::decode::{ABSENT, Decoder};
use crate::ptx::module::{Operand, Space};
use crate::ptx::tokens::Result;

impl<'k> Decoder<'k, '_> {
    pub(super) fn load(
        &mut self,
        opcode: &str,
        modifiers: &str,
        result: &Operand<'k>,
        address: &'k Operand<'k>,
    ) -> Result<()> {
        let Some(kind) = modifiers.strip_prefix("param.") else {
            let access = self.access(opcode, modifiers, address, result)?;
            self.emit(Action::Load(Box::new(access)));
            return Ok(());
        };
        let (count, kind) = vector(kind);
        let Some((bytes, is_signed)) = value(kind) else {
            return self.fault(format!("unknown instruction \"{opcode}\""));
        };
        let Operand::Address(base, offset) = address else {
            return self.fault(format!("{opcode} takes [parameter]"));
        };
        let parameter = match base.as_ref() {
            Operand::Name(name) => self.kernel.parameters.iter().find(|parameter| parameter.name == *name),
            _ => None,
        };
        let Some(parameter) = parameter else { return self.fault(format!("{opcode} takes [parameter]")) };
        if *offset < 0 || *offset as u64 + (bytes * count) as u64 > parameter.bytes {
            return self.fault(format!("{opcode} reads beyond the parameter {}", parameter.name));
        }
        let single = std::slice::from_ref(result);
        let results = if let Operand::Vector(parts) = result { parts.as_slice() } else { single };
        if results.len() != count {
            return self.fault(format!("{opcode} takes {count} registers, found {}", results.len()));
        }
        for (number, result) in results.iter().enumerate() {
            let class = self.class_for(result, bytes)?;
            let result = self.result(result, class)?;
            let offset = (parameter.offset + *offset as u64) as u32 + (number * bytes) as u32;
            self.emit(Action::Parameter { result, class, offset, bytes: bytes as u8, is_signed });
        }
        Ok(())
    }

    /// Class of a register that holds a value of this size or is larger.
    fn class_for(&self, operand: &Operand<'_>, bytes: usize) -> Result<Class> {
        match operand {
            Operand::Register(register) => {
                let class = self.classes[*register];
                if class == Class::Predicate || class.bytes() < bytes {
                    return self.fault(format!("a value of {bytes} bytes takes a larger register"));
                }
                Ok(class)
            }
            _ => Ok(match bytes {
                1 | 2 => Class::B16,
                4 => Class::B32,
                _ => Class::B64,
            }),
        }
    }

    /// `[.volatile][.space][.nc][.v2|.v4].type` with an address and a register, vector or, in a store, a number.
    pub(super) fn access(
        &mut self,
        opcode: &str,
        modifiers: &str,
        address: &'k Operand<'k>,
        values: &Operand<'k>,
    ) -> Result<Access> {
        let is_store = opcode.starts_with("st.");
        let modifiers = modifiers.strip_prefix("volatile.").unwrap_or(modifiers);
        let (space, rest) = space(modifiers);
        let rest = match (space, is_store) {
            (Space::Global, false) => rest.strip_prefix("nc.").unwrap_or(rest),
            _ => rest,
        };
        let (count, kind) = vector(rest);
        let Some((bytes, is_signed)) = value(kind).filter(|_| !(is_store && space == Space::Constant)) else {
            return self.fault(format!("unknown instruction \"{opcode}\""));
        };
        if bytes * count > 16 {
            return self.fault(format!("unknown instruction \"{opcode}\": more than 16 bytes"));
        }
        let single = std::slice::from_ref(values);
        let values = if let Operand::Vector(parts) = values { parts.as_slice() } else { single };
        if values.len() != count {
            return self.fault(format!("{opcode} takes {count} registers, found {}", values.len()));
        }
        let mut registers = [ABSENT; 4];
        let mut class = None;
        for (register, value) in registers.iter_mut().zip(values) {
            let found = self.class_for(value, bytes)?;
            if *class.get_or_insert(found) != found {
                return self.fault(format!("the registers of {opcode} have different classes"));
            }
            *register =
                if is_store { self.source(value, found, opcode)? } else { self.result(value, found)? };
        }
        let (address, offset) = self.address(opcode, address)?;
        let class = class.unwrap_or(Class::B32);
        Ok(Access { space, bytes, is_signed, class, count, registers, address, offset })
    }

    /// Register of an address and what is added to it.
    fn address(&mut self, opcode: &str, operand: &'k Operand<'k>) -> Result<(u32, i64)> {
        let Operand::Address(base, offset) = operand else {
            return self.fault(format!("{opcode} takes an [address]"));
        };
        let register = match base.as_ref() {
            Operand::Register(register) if self.classes[*register] == Class::B32 => {
                let wide = self.temporary(Class::B64);
                let extend = one(|a: u32| u64::from(a));
                self.compute_with(extend, [wide, *register as u32, ABSENT, ABSENT, ABSENT]);
                wide
            }
            other => self.source(other, Class::B64, opcode)?,
        };
        Ok((register, *offset))
    }

    pub(super) fn atomic(
        &mut self,
        opcode: &str,
        stem: &str,
        modifiers: &str,
        operands: &'k [Operand<'k>],
    ) -> Result<()> {
        let unknown = format!("unknown instruction \"{opcode}\"");
        let (space, rest) = space(modifiers);
        let Some((name, kind)) = rest.rsplit_once('.') else { return self.fault(unknown) };
        let Some(update) = atomics::find(name, kind) else { return self.fault(unknown) };
        let Some((bytes, is_signed)) = value(kind) else { return self.fault(unknown) };
        let class = if bytes == 8 { Class::B64 } else { Class::B32 };
        let is_swap = name == "cas";
        let (result, rest) = match (stem, operands) {
            ("atom", [result, rest @ ..]) => (self.result(result, class)?, rest),
            _ => (self.temporary(class), operands),
        };
        let (address, first, second) = match rest {
            [address, first] if !is_swap => (address, first, first),
            [address, first, second] if is_swap => (address, first, second),
            _ => return self.fault(format!("wrong number of operands of {opcode}")),
        };
        let (operand, second) = (self.source(first, class, opcode)?, self.source(second, class, opcode)?);
        let (address, offset) = self.address(opcode, address)?;
        let registers = [result, ABSENT, ABSENT, ABSENT];
        let access = Access { space, bytes, is_signed, class, count: 1, registers, address, offset };
        self.emit(Action::Atomic(Box::new(Atomic { update, access, operand, second })));
        Ok(())
    }

    /// `cvta[.to].space.u64`: between an address in a space and a generic one.
    pub(super) fn convert_address(
        &mut self,
        opcode: &str,
        modifiers: &str,
        result: &Operand<'k>,
        source: &Operand<'k>,
    ) -> Result<()> {
        let source = self.source(source, Class::B64, opcode)?;
        let operation = match modifiers {
            "global.u64" | "to.global.u64" | "const.u64" | "to.const.u64" | "param.u64" => one(|a: u64| a),
            "shared.u64" => one(|a: u64| a.wrapping_add(SHARED_WINDOW)),
            "to.shared.u64" => one(|a: u64| a.wrapping_sub(SHARED_WINDOW)),
            "local.u64" => one(|a: u64| a.wrapping_add(LOCAL_WINDOW)),
            "to.local.u64" => one(|a: u64| a.wrapping_sub(LOCAL_WINDOW)),
            _ => return self.fault(format!("unknown instruction \"{opcode}\"")),
        };
        let result = self.result(result, Class::B64)?;
        self.compute_with(operation, [result, source, ABSENT, ABSENT, ABSENT]);
        Ok(())
    }
}

/// Space at the start of modifiers, and the rest.
fn space(modifiers: &str) -> (Space, &str) {
    let spaces = [
        ("global.", Space::Global),
        ("shared.", Space::Shared),
        ("shared::cta.", Space::Shared),
        ("local.", Space::Local),
        ("const.", Space::Constant),
    ];
    let found = spaces.iter().find_map(|(name, space)| Some((*space, modifiers.strip_prefix(name)?)));
    found.unwrap_or((Space::Generic, modifiers))
}

/// Values per thread, and the rest.
fn vector(modifiers: &str) -> (usize, &str) {
    match modifiers.split_once('.') {
        Some(("v2", rest)) => (2, rest),
        Some(("v4", rest)) => (4, rest),
        _ => (1, modifiers),
    }
}

/// Size of a type in memory, in bytes, and whether it is signed.
fn value(kind: &str) -> Option<(usize, bool)> {
    Some(match kind {
        "b8" | "u8" => (1, false),
        "s8" => (1, true),
        "b16" | "u16" | "f16" => (2, false),
        "s16" => (2, true),
        "b32" | "u32" | "f32" | "f16x2" => (4, false),
        "s32" => (4, true),
        "b64" | "u64" | "s64" | "f64" => (8, false),
        _ => return None,
    })
}
