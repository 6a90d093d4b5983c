//! Statements of a kernel as instructions of the interpreter.

use crate::lanes::{Class, Operands, Operation, one, two};
use crate::operations;
use crate::program::{Action, Instruction, Preset, Program, Shuffle, ShuffleMode, Vote};
use crate::ptx::flow;
use crate::ptx::module::{Kernel, Operand, Space, Statement, Variable};
use crate::ptx::tokens::{Result, error};
use std::collections::HashMap;

/// Placeholder for a source that an operation does not have.
pub(super) const ABSENT: u32 = u32::MAX;

/// Translates a kernel. `globals` are the addresses of the module's variables in global and constant memory; `shared`
/// are its variables in shared memory, which each kernel has for itself.
#[expect(clippy::implicit_hasher, reason = "the addresses come from one place")]
pub fn kernel(kernel: &Kernel<'_>, globals: &HashMap<&str, u64>, shared: &[Variable<'_>]) -> Result<Program> {
    let mut places = HashMap::new();
    let mut sizes = [0u64; 2];
    for variable in shared.iter().chain(&kernel.variables) {
        let is_local = variable.space == Space::Local;
        let end = &mut sizes[usize::from(is_local)];
        let place = end.next_multiple_of(variable.align);
        *end = place + variable.bytes;
        places.insert(variable.name, (variable.space, place));
    }
    places.extend(globals.iter().map(|(name, address)| (*name, (Space::Global, *address))));
    let [shared_bytes, local_bytes] = sizes;
    if shared_bytes > SHARED_LIMIT {
        let message = format!(
            "kernel {} uses {shared_bytes} bytes of shared memory, more than {SHARED_LIMIT}",
            kernel.name
        );
        return error(kernel.line, message);
    }
    let decoder = Decoder {
        kernel,
        places,
        classes: kernel.registers.clone(),
        presets: HashMap::new(),
        operations: HashMap::new(),
        instructions: Vec::with_capacity(kernel.statements.len()),
        labels: HashMap::new(),
        branches: Vec::new(),
        guard: None,
        line: kernel.line,
    };
    let mut program = decoder.decode()?;
    program.shared_bytes = shared_bytes as usize;
    program.local_bytes = local_bytes as usize;
    Ok(program)
}

/// Static shared memory of a block, in bytes: the same on all devices.
const SHARED_LIMIT: u64 = 48 << 10;

pub(super) struct Decoder<'k, 'a> {
    pub(super) kernel: &'k Kernel<'a>,
    /// Space and address of each variable.
    places: HashMap<&'k str, (Space, u64)>,
    pub(super) classes: Vec<Class>,
    presets: HashMap<(Class, Preset), u32>,
    /// Operations by opcode, which come again and again.
    operations: HashMap<&'k str, Option<Operation>>,
    instructions: Vec<Instruction>,
    labels: HashMap<&'k str, usize>,
    /// Branches whose target is not known yet.
    branches: Vec<(usize, &'k str, u32)>,
    /// Of the statement at work.
    guard: Option<(u32, bool)>,
    line: u32,
}

impl<'k> Decoder<'k, '_> {
    fn decode(mut self) -> Result<Program> {
        for statement in &self.kernel.statements {
            match statement {
                Statement::Label(name, line) => {
                    if self.labels.insert(name, self.instructions.len()).is_some() {
                        return error(*line, format!("duplicate label {name}"));
                    }
                }
                // Found by `branch_by_index`.
                Statement::Targets(_) => {}
                Statement::Instruction { guard, opcode, operands, line } => {
                    self.guard = guard.map(|(register, is_negated)| (register as u32, is_negated));
                    self.line = *line;
                    self.instruction(opcode, operands)?;
                }
            }
        }
        self.guard = None;
        self.emit(Action::Return);
        for (number, label, line) in std::mem::take(&mut self.branches) {
            let Some(place) = self.labels.get(label) else {
                return error(line, format!("unknown label {label}"));
            };
            if let Action::Branch { target, .. } = &mut self.instructions[number].action {
                *target = *place as u32;
            }
        }
        flow::join_branches(&mut self.instructions);
        let mut presets: Vec<_> =
            self.presets.iter().map(|((class, preset), register)| (*register, *class, *preset)).collect();
        presets.sort_unstable_by_key(|(register, ..)| *register);
        let register_bytes = flow::place_registers(&mut self.instructions, &self.classes, &mut presets);
        let parameters = self.kernel.parameters.iter();
        Ok(Program {
            name: self.kernel.name.to_owned(),
            parameters: parameters
                .map(|parameter| (parameter.offset as usize, parameter.bytes as usize))
                .collect(),
            max_threads: self.kernel.max_threads,
            required_block: self.kernel.required_block,
            shared_bytes: 0,
            local_bytes: 0,
            register_bytes,
            presets,
            instructions: self.instructions,
        })
    }

    pub(super) fn emit(&mut self, action: Action) {
        self.instructions.push(Instruction { action, guard: self.guard, line: self.line });
    }

    pub(super) fn compute_with(&mut self, operation: Operation, operands: Operands) {
        self.emit(Action::Compute(operation.run, operation.result, operands));
    }

    pub(super) fn fault<T>(&self, message: impl Into<String>) -> Result<T> {
        error(self.line, message)
    }

    fn instruction(&mut self, opcode: &'k str, operands: &'k [Operand<'k>]) -> Result<()> {
        if let Some(action) = control(opcode, operands) {
            self.emit(action);
            return Ok(());
        }
        match (opcode, operands) {
            ("bra" | "bra.uni", [Operand::Name(label)]) => {
                self.branch(label);
                return Ok(());
            }
            ("brx.idx" | "brx.idx.uni", [index, Operand::Name(list)]) => {
                return self.branch_by_index(index, list);
            }
            ("mov.b32" | "mov.b64", [Operand::Vector(_), _] | [_, Operand::Vector(_)]) => {
                return self.split_or_join(opcode, operands);
            }
            _ => {}
        }
        let (stem, modifiers) = opcode.split_once('.').unwrap_or((opcode, ""));
        match (stem, operands) {
            ("ld", [result, address]) => self.load(opcode, modifiers, result, address),
            ("st", [address, value]) => {
                let access = self.access(opcode, modifiers, address, value)?;
                self.emit(Action::Store(Box::new(access)));
                Ok(())
            }
            ("atom" | "red", _) => self.atomic(opcode, stem, modifiers, operands),
            ("cvta", [result, source]) => self.convert_address(opcode, modifiers, result, source),
            ("shfl", [result, source, by, clamp] | [result, source, by, clamp, _]) => {
                self.shuffle(opcode, [result, source, by, clamp])
            }
            ("vote", [result, source] | [result, source, _]) => self.vote(opcode, result, source),
            ("activemask", [result]) if opcode == "activemask.b32" => {
                let result = self.result(result, Class::B32)?;
                let source = self.preset(Class::Predicate, Preset::Constant(1));
                self.emit(Action::Vote { vote: Vote::Ballot, result, source });
                Ok(())
            }
            _ => self.compute(opcode, operands),
        }
    }

    fn branch(&mut self, label: &'k str) {
        self.branches.push((self.instructions.len(), label, self.line));
        self.emit(Action::Branch { target: 0, join: 0 });
    }

    /// `brx.idx`: one comparison and branch for each target.
    fn branch_by_index(&mut self, index: &Operand<'k>, list: &str) -> Result<()> {
        let after_label =
            |pair: &&[Statement<'_>]| matches!(pair[0], Statement::Label(name, _) if name == list);
        let statements = &self.kernel.statements;
        let Some([_, Statement::Targets(targets)]) = statements.windows(2).find(after_label) else {
            return self.fault(format!("{list} is not a list of branch targets"));
        };
        let index = self.source(index, Class::B32, "brx.idx")?;
        let guard = self.guard;
        if guard.is_some() {
            return self.fault("a brx.idx with a guard is not supported");
        }
        let Some((end, others)) = targets.split_last() else { return Ok(()) };
        for (number, target) in others.iter().enumerate() {
            let number = self.preset(Class::B32, Preset::Constant(number as u64));
            let is_it = self.temporary(Class::Predicate);
            self.compute_with(two(|a: u32, b: u32| a == b), [is_it, index, number, ABSENT, ABSENT]);
            self.guard = Some((is_it, false));
            self.branch(target);
            self.guard = None;
        }
        self.branch(end);
        Ok(())
    }

    /// An operation on registers.
    fn compute(&mut self, opcode: &'k str, operands: &'k [Operand<'k>]) -> Result<()> {
        let found = self.operations.entry(opcode).or_insert_with(|| operations::find(opcode));
        let Some(operation) = *found else {
            return self.fault(format!("unknown instruction \"{opcode}\""));
        };
        let Some((result, sources)) = operands.split_first() else {
            return self.fault(format!("{opcode} has no operands"));
        };
        let classes: Vec<Class> = operation.sources.into_iter().flatten().collect();
        if classes.len() != sources.len() {
            let message =
                format!("{opcode} takes {} source operands, found {}", classes.len(), sources.len());
            return self.fault(message);
        }
        let mut offsets: Operands = [ABSENT; 5];
        for (offset, (source, class)) in offsets[1..].iter_mut().zip(sources.iter().zip(classes)) {
            *offset = if opcode.starts_with("cvt.") {
                self.source_of_conversion(source, class)?
            } else {
                self.source(source, class, opcode)?
            };
        }
        // `setp` may have a second result: the opposite of the first.
        if let (Operand::Pair(first, second), "setp") = (result, &opcode[..opcode.find('.').unwrap_or(0)]) {
            if sources.len() == 3 {
                return self.fault(format!("{opcode} with two results is not supported"));
            }
            offsets[0] = self.result(&Operand::Register(*first), Class::Predicate)?;
            self.result(&Operand::Register(*second), Class::Predicate)?;
            self.compute_with(operation, offsets);
            let opposite = one(|a: bool| !a);
            self.compute_with(opposite, [*second as u32, *first as u32, ABSENT, ABSENT, ABSENT]);
            return Ok(());
        }
        if opcode.starts_with("cvt.") {
            return self.finish_conversion(operation, offsets, result);
        }
        offsets[0] = self.result(result, operation.result)?;
        self.compute_with(operation, offsets);
        Ok(())
    }

    /// The result of a conversion may go to a larger register, by sign or with zeros.
    fn finish_conversion(
        &mut self,
        operation: Operation,
        mut offsets: Operands,
        result: &Operand<'_>,
    ) -> Result<()> {
        let Operand::Register(register) = result else { return self.fault("the result is not a register") };
        let class = self.classes[*register];
        if class == operation.result {
            offsets[0] = *register as u32;
            self.compute_with(operation, offsets);
            return Ok(());
        }
        let narrow = self.temporary(operation.result);
        offsets[0] = narrow;
        self.compute_with(operation, offsets);
        let widen = match (operation.result, class) {
            (Class::B16, Class::B32) => one(|a: u16| u32::from(a)),
            (Class::B16, Class::B64) => one(|a: u16| u64::from(a)),
            (Class::B32, Class::B64) => one(|a: u32| u64::from(a)),
            _ => return self.fault("the register of the result is too small"),
        };
        self.compute_with(widen, [*register as u32, narrow, ABSENT, ABSENT, ABSENT]);
        Ok(())
    }

    /// The source of a conversion may be the low part of a larger register.
    fn source_of_conversion(&mut self, source: &Operand<'k>, class: Class) -> Result<u32> {
        let Operand::Register(register) = source else { return self.source(source, class, "cvt") };
        let found = self.classes[*register];
        let narrow = match (found, class) {
            _ if found == class => return Ok(*register as u32),
            (Class::B32, Class::B16) => one(|a: u32| a as u16),
            (Class::B64, Class::B16) => one(|a: u64| a as u16),
            (Class::B64, Class::B32) => one(|a: u64| a as u32),
            _ => return self.fault("the register of the source is too small"),
        };
        let temporary = self.temporary(class);
        self.compute_with(narrow, [temporary, *register as u32, ABSENT, ABSENT, ABSENT]);
        Ok(temporary)
    }

    pub(super) fn temporary(&mut self, class: Class) -> u32 {
        self.classes.push(class);
        (self.classes.len() - 1) as u32
    }

    pub(super) fn preset(&mut self, class: Class, preset: Preset) -> u32 {
        let classes = &mut self.classes;
        *self.presets.entry((class, preset)).or_insert_with(|| {
            classes.push(class);
            (classes.len() - 1) as u32
        })
    }

    pub(super) fn result(&mut self, operand: &Operand<'_>, class: Class) -> Result<u32> {
        match operand {
            Operand::Register(register) if self.classes[*register] == class => Ok(*register as u32),
            Operand::Register(_) => self.fault(format!("the result must be a register of class {class:?}")),
            Operand::Name("_") => Ok(self.temporary(class)),
            _ => self.fault("the result is not a register"),
        }
    }

    pub(super) fn source(&mut self, operand: &Operand<'k>, class: Class, opcode: &str) -> Result<u32> {
        let bits = match operand {
            Operand::Register(register) if self.classes[*register] == class => return Ok(*register as u32),
            Operand::Register(_) => {
                return self.fault(format!("a source of {opcode} must be a register of class {class:?}"));
            }
            Operand::Integer(value) => {
                let is_float = [".f16", ".f32", ".f64"].iter().any(|kind| opcode.ends_with(kind));
                if is_float
                    && class != Class::B16
                    && !opcode.starts_with("mov.")
                    && !opcode.starts_with("selp.")
                {
                    // `testp` and others take numbers; a whole number would be meant as its bits or as its value.
                    return self.fault(format!("{opcode} takes numbers such as 0f3F800000, found {value}"));
                }
                *value
            }
            Operand::Single(bits) if class == Class::B32 => u64::from(*bits),
            Operand::Double(bits) if class == Class::B64 => *bits,
            Operand::Double(bits) if class == Class::B32 => {
                u64::from((f64::from_bits(*bits) as f32).to_bits())
            }
            Operand::Name(name) => return self.named(name, class),
            _ => return self.fault(format!("invalid operand of {opcode}")),
        };
        let bits = match class {
            Class::Predicate => u64::from(bits != 0),
            Class::B16 => bits & 0xffff,
            Class::B32 => bits & 0xffff_ffff,
            Class::B64 => bits,
        };
        Ok(self.preset(class, Preset::Constant(bits)))
    }

    /// A special register, or the address of a variable.
    fn named(&mut self, name: &str, class: Class) -> Result<u32> {
        if let Some((_, place)) = self.places.get(name) {
            let place = *place;
            if class < Class::B32 || class == Class::B32 && place > u64::from(u32::MAX) {
                return self.fault(format!("the address of {name} takes a larger register"));
            }
            return Ok(self.preset(class, Preset::Constant(place)));
        }
        let axis = |suffix: &str| ["x", "y", "z"].iter().position(|axis| *axis == suffix);
        let (stem, suffix) = name.split_once('.').unwrap_or((name, ""));
        let preset = match (stem, axis(suffix)) {
            ("%tid", Some(axis)) => Preset::Thread(axis),
            ("%ctaid", Some(axis)) => Preset::Block(axis),
            ("%ntid", Some(axis)) => Preset::BlockExtent(axis),
            ("%nctaid", Some(axis)) => Preset::GridExtent(axis),
            ("%laneid", None) => Preset::LaneInWarp,
            ("%warpid", None) => Preset::Warp,
            ("WARP_SZ", None) => Preset::Constant(32),
            _ => return self.fault(format!("unknown operand \"{name}\"")),
        };
        match class {
            Class::B32 => Ok(self.preset(class, preset)),
            _ => self.fault(format!("{name} has 32 bits")),
        }
    }

    /// `mov.b64 {a, b}, c` and `mov.b64 c, {a, b}`, also of halves.
    fn split_or_join(&mut self, opcode: &str, operands: &'k [Operand<'k>]) -> Result<()> {
        let wide = if opcode == "mov.b32" { Class::B32 } else { Class::B64 };
        match operands {
            [Operand::Vector(parts), whole] => {
                let whole = self.source(whole, wide, opcode)?;
                let operations: &[Operation] = match (wide, parts.len()) {
                    (Class::B32, 2) => &[one(|a: u32| a as u16), one(|a: u32| (a >> 16) as u16)],
                    (Class::B64, 2) => &[one(|a: u64| a as u32), one(|a: u64| (a >> 32) as u32)],
                    (Class::B64, 4) => &[
                        one(|a: u64| a as u16),
                        one(|a: u64| (a >> 16) as u16),
                        one(|a: u64| (a >> 32) as u16),
                        one(|a: u64| (a >> 48) as u16),
                    ],
                    _ => return self.fault(format!("{opcode} with {} parts", parts.len())),
                };
                for (part, operation) in parts.iter().zip(operations) {
                    let part = self.result(part, operation.result)?;
                    self.compute_with(*operation, [part, whole, ABSENT, ABSENT, ABSENT]);
                }
                Ok(())
            }
            [whole, Operand::Vector(parts)] => {
                let operation = match (wide, parts.len()) {
                    (Class::B32, 2) => two(|a: u16, b: u16| u32::from(a) | u32::from(b) << 16),
                    (Class::B64, 2) => two(|a: u32, b: u32| u64::from(a) | u64::from(b) << 32),
                    (Class::B64, 4) => crate::lanes::four(|a: u16, b: u16, c: u16, d: u16| {
                        u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(d) << 48
                    }),
                    _ => return self.fault(format!("{opcode} with {} parts", parts.len())),
                };
                let mut offsets: Operands = [ABSENT; 5];
                for ((offset, part), class) in offsets[1..].iter_mut().zip(parts).zip(operation.sources) {
                    *offset = self.source(part, class.unwrap_or(wide), opcode)?;
                }
                offsets[0] = self.result(whole, wide)?;
                self.compute_with(operation, offsets);
                Ok(())
            }
            _ => self.fault(format!("invalid operands of {opcode}")),
        }
    }

    fn shuffle(&mut self, opcode: &str, [result, source, by, clamp]: [&Operand<'k>; 4]) -> Result<()> {
        let mode = match opcode {
            "shfl.sync.up.b32" | "shfl.up.b32" => ShuffleMode::Up,
            "shfl.sync.down.b32" | "shfl.down.b32" => ShuffleMode::Down,
            "shfl.sync.bfly.b32" | "shfl.bfly.b32" => ShuffleMode::Butterfly,
            "shfl.sync.idx.b32" | "shfl.idx.b32" => ShuffleMode::Index,
            _ => return self.fault(format!("unknown instruction \"{opcode}\"")),
        };
        let (result, in_range) = match result {
            Operand::Pair(first, second) => {
                let first = self.result(&Operand::Register(*first), Class::B32)?;
                (first, self.result(&Operand::Register(*second), Class::Predicate)?)
            }
            other => (self.result(other, Class::B32)?, self.temporary(Class::Predicate)),
        };
        let source = self.source(source, Class::B32, opcode)?;
        let by = self.source(by, Class::B32, opcode)?;
        let clamp = self.source(clamp, Class::B32, opcode)?;
        self.emit(Action::Shuffle(Box::new(Shuffle { mode, result, in_range, source, by, clamp })));
        Ok(())
    }

    fn vote(&mut self, opcode: &str, result: &Operand<'k>, source: &Operand<'k>) -> Result<()> {
        let (vote, class) = match opcode {
            "vote.sync.all.pred" | "vote.all.pred" => (Vote::All, Class::Predicate),
            "vote.sync.any.pred" | "vote.any.pred" => (Vote::Any, Class::Predicate),
            "vote.sync.ballot.b32" | "vote.ballot.b32" => (Vote::Ballot, Class::B32),
            _ => return self.fault(format!("unknown instruction \"{opcode}\"")),
        };
        let source = self.source(source, Class::Predicate, opcode)?;
        let result = self.result(result, class)?;
        self.emit(Action::Vote { vote, result, source });
        Ok(())
    }
}

/// Instructions without registers.
fn control(opcode: &str, operands: &[Operand<'_>]) -> Option<Action> {
    Some(match (opcode, operands) {
        ("ret" | "exit" | "ret.uni", []) => Action::Return,
        ("trap", []) => Action::Trap,
        // Barrier 0 with all threads; others have no meaning for whole blocks.
        (
            "bar.sync"
            | "barrier.sync"
            | "barrier.sync.aligned"
            | "bar.cta.sync"
            | "barrier.cta.sync"
            | "barrier.cta.sync.aligned",
            [Operand::Integer(0)],
        ) => Action::Barrier,
        ("bar.warp.sync", [_])
        | ("membar.cta" | "membar.gl" | "fence.acq_rel.cta" | "fence.acq_rel.gpu", []) => Action::Fence,
        _ => return None,
    })
}
