//! Reads the text of a PTX module.

use crate::lanes::Class;
use crate::ptx::module::{Kernel, Module, Operand, Parameter, Register, Space, Statement, Variable};
use crate::ptx::tokens::{Result, Tokens, error, integer};
use std::collections::HashMap;

/// Reads a module.
pub fn parse(text: &str) -> Result<Module<'_>> {
    let mut tokens = Tokens::of(text)?;
    let mut module = Module {
        version: (0, 0),
        version_line: 0,
        target: 0,
        target_line: 0,
        variables: Vec::new(),
        kernels: Vec::new(),
    };
    while let Some(token) = tokens.peek() {
        let line = token.line;
        match token.text {
            ".version" => {
                tokens.any()?;
                let word = tokens.word()?;
                let parts = word.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                let Some(version) = parts else { return error(line, format!("invalid .version \"{word}\"")) };
                (module.version, module.version_line) = (version, line);
            }
            ".target" => {
                tokens.any()?;
                let word = tokens.word()?;
                let Some(target) = word.strip_prefix("sm_").and_then(|number| number.parse().ok()) else {
                    return error(line, format!("unknown .target \"{word}\""));
                };
                (module.target, module.target_line) = (target, line);
                while tokens.take(",") {
                    tokens.word()?;
                }
            }
            ".address_size" => {
                tokens.any()?;
                if tokens.number()? != 64 {
                    return error(line, ".address_size must be 64");
                }
            }
            ".visible" | ".weak" | ".extern" => {
                tokens.any()?;
            }
            ".entry" => module.kernels.push(kernel(&mut tokens)?),
            ".func" => skip_function(&mut tokens)?,
            ".file" => {
                // `.file number "name"[, time, size]`
                for _ in 0..3 {
                    tokens.any()?;
                }
                while tokens.take(",") {
                    tokens.number()?;
                }
            }
            ".section" => {
                tokens.any()?;
                tokens.word()?;
                tokens.skip_braces()?;
            }
            ".global" | ".const" | ".shared" => module.variables.extend(variable(&mut tokens)?),
            other => return error(line, format!("unexpected \"{other}\" outside a kernel")),
        }
    }
    if module.version_line == 0 || module.target_line == 0 {
        return error(1, "missing .version or .target directive");
    }
    Ok(module)
}

/// Functions are skipped, because a `call` instruction is rejected itself.
fn skip_function(tokens: &mut Tokens<'_>) -> Result<()> {
    loop {
        match tokens.peek().map(|token| token.text) {
            Some("{") => return tokens.skip_braces(),
            Some(";") => return tokens.skip_statement(),
            _ => drop(tokens.any()?),
        }
    }
}

/// Bytes of a fundamental type such as `.b32`.
fn bytes_of_type(name: &str) -> Option<u64> {
    Some(match name {
        ".b8" | ".u8" | ".s8" => 1,
        ".b16" | ".u16" | ".s16" | ".f16" => 2,
        ".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" => 4,
        ".b64" | ".u64" | ".s64" | ".f64" => 8,
        _ => return None,
    })
}

/// `.space [.align N] .type name[size] [= {…}];`
fn variable<'a>(tokens: &mut Tokens<'a>) -> Result<Vec<Variable<'a>>> {
    let line = tokens.line();
    let space = match tokens.word()? {
        ".global" => Space::Global,
        ".const" => Space::Constant,
        ".shared" => Space::Shared,
        ".local" => Space::Local,
        other => return error(line, format!("unknown space \"{other}\"")),
    };
    let mut align = None;
    if tokens.take(".align") {
        align = Some(tokens.number()?);
    }
    let word = tokens.word()?;
    let Some(size) = bytes_of_type(word) else {
        return error(line, format!("unsupported type \"{word}\" of a variable"));
    };
    let align = align.unwrap_or(size);
    if !align.is_power_of_two() || align > 4096 {
        return error(line, format!("invalid alignment {align}"));
    }
    let mut variables = Vec::new();
    loop {
        let name = tokens.word()?;
        let mut count = 1u64;
        while tokens.take("[") {
            if tokens.take("]") {
                return error(line, format!("{name} has no size: dynamic shared memory is not supported"));
            }
            count = count.saturating_mul(tokens.number()?);
            tokens.expect("]")?;
        }
        let bytes = count.saturating_mul(size);
        if bytes > 1 << 32 {
            return error(line, format!("{name} has {bytes} bytes"));
        }
        let content = if tokens.take("=") { Some(content(tokens, size)?) } else { None };
        if content.as_ref().is_some_and(|content| content.len() as u64 > bytes) {
            return error(line, format!("{name} has more values than its size"));
        }
        variables.push(Variable { name, space, align, bytes, content });
        if !tokens.take(",") {
            break;
        }
    }
    tokens.expect(";")?;
    Ok(variables)
}

/// A number or a list of numbers, each of `size` bytes.
fn content(tokens: &mut Tokens<'_>, size: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let is_list = tokens.take("{");
    loop {
        let line = tokens.line();
        if is_list && tokens.peek().is_some_and(|token| token.text == "{") {
            bytes.extend(content(tokens, size)?);
        } else {
            let value = match number(tokens)? {
                Some(Operand::Integer(value) | Operand::Double(value)) => value,
                Some(Operand::Single(value)) => value.into(),
                _ => return error(line, "unsupported initial value of a variable"),
            };
            bytes.extend_from_slice(&value.to_le_bytes()[..size as usize]);
        }
        if !is_list || !tokens.take(",") {
            break;
        }
    }
    if is_list {
        tokens.expect("}")?;
    }
    Ok(bytes)
}

/// A number with an optional sign, or nothing if the next token is something else.
fn number<'a>(tokens: &mut Tokens<'a>) -> Result<Option<Operand<'a>>> {
    let is_negative = tokens.take("-");
    let Some(token) = tokens.peek() else { return Ok(None) };
    let word = token.text;
    if !word.starts_with(|first: char| first.is_ascii_digit()) {
        return if is_negative {
            error(token.line, format!("expected a number, found \"{word}\""))
        } else {
            Ok(None)
        };
    }
    tokens.any()?;
    let bits = |digits: usize| {
        word.get(2..).filter(|hex| hex.len() == digits).and_then(|hex| u64::from_str_radix(hex, 16).ok())
    };
    let value = match word.as_bytes().get(..2) {
        Some(b"0f" | b"0F") => bits(8).map(|bits| Operand::Single(bits as u32)),
        Some(b"0d" | b"0D") => bits(16).map(Operand::Double),
        _ => match integer(word) {
            Some(value) => Some(Operand::Integer(if is_negative { value.wrapping_neg() } else { value })),
            None => word.parse::<f64>().ok().map(|value| Operand::Double(value.to_bits())),
        },
    };
    match value {
        Some(Operand::Single(bits)) if is_negative => Ok(Some(Operand::Single(bits ^ 1 << 31))),
        Some(Operand::Double(bits)) if is_negative => Ok(Some(Operand::Double(bits ^ 1 << 63))),
        Some(value) => Ok(Some(value)),
        None => error(token.line, format!("invalid number \"{word}\"")),
    }
}

fn kernel<'a>(tokens: &mut Tokens<'a>) -> Result<Kernel<'a>> {
    let line = tokens.line();
    tokens.expect(".entry")?;
    let mut kernel = Kernel {
        name: tokens.word()?,
        line,
        parameters: Vec::new(),
        max_threads: None,
        required_block: None,
        variables: Vec::new(),
        registers: Vec::new(),
        statements: Vec::new(),
    };
    if tokens.take("(") {
        let mut end = 0;
        while !tokens.take(")") {
            let parameter = parameter(tokens, end)?;
            end = parameter.offset + parameter.bytes;
            kernel.parameters.push(parameter);
            tokens.take(",");
        }
    }
    while !tokens.take("{") {
        let line = tokens.line();
        match tokens.word()? {
            ".maxntid" => kernel.max_threads = Some(extents(tokens)?.iter().product()),
            ".reqntid" => kernel.required_block = Some(extents(tokens)?),
            ".minnctapersm" | ".maxnreg" => drop(tokens.number()?),
            ".pragma" => tokens.skip_statement()?,
            other => return error(line, format!("unknown directive \"{other}\" of a kernel")),
        }
    }
    Body { tokens, kernel: &mut kernel, scopes: vec![Scope::default()] }.read()?;
    Ok(kernel)
}

fn extents(tokens: &mut Tokens<'_>) -> Result<[u64; 3]> {
    let mut extents = [tokens.number()?, 1, 1];
    for extent in &mut extents[1..] {
        if tokens.take(",") {
            *extent = tokens.number()?;
        }
    }
    Ok(extents)
}

/// `.param .type [.ptr [.space] [.align N]] name` or `.param .align N .b8 name[size]`.
fn parameter<'a>(tokens: &mut Tokens<'a>, end: u64) -> Result<Parameter<'a>> {
    let line = tokens.line();
    tokens.expect(".param")?;
    let mut align = None;
    if tokens.take(".align") {
        align = Some(tokens.number()?);
    }
    let word = tokens.word()?;
    let Some(mut bytes) = bytes_of_type(word) else {
        return error(line, format!("unsupported type \"{word}\" of a parameter"));
    };
    let align = align.unwrap_or(bytes).max(1);
    if tokens.take(".ptr") {
        let _space = [".global", ".shared", ".local", ".const"].iter().any(|space| tokens.take(space));
        if tokens.take(".align") {
            tokens.number()?;
        }
    }
    let name = tokens.word()?;
    if tokens.take("[") {
        bytes = bytes.saturating_mul(tokens.number()?);
        tokens.expect("]")?;
    }
    if bytes > 4096 {
        return error(line, format!("parameter {name} has {bytes} bytes, more than 4096"));
    }
    Ok(Parameter { name, offset: end.next_multiple_of(align), bytes })
}

/// Names of registers between two braces.
#[derive(Debug, Default)]
struct Scope<'a> {
    names: HashMap<&'a str, Register>,
    /// `%r<12>`: the first register, the class and the count by prefix.
    ranges: Vec<(&'a str, Register, u64)>,
}

impl Scope<'_> {
    fn find(&self, name: &str) -> Option<Register> {
        if let Some(register) = self.names.get(name) {
            return Some(*register);
        }
        self.ranges.iter().find_map(|(prefix, first, count)| {
            let digits = name.strip_prefix(prefix)?;
            let number: u64 = digits.parse().ok()?;
            let is_plain = digits == "0" || !digits.starts_with('0');
            (is_plain && number < *count).then(|| first + number as usize)
        })
    }
}

/// Reads the statements of a kernel.
struct Body<'t, 'k, 'a> {
    tokens: &'t mut Tokens<'a>,
    kernel: &'k mut Kernel<'a>,
    scopes: Vec<Scope<'a>>,
}

impl<'a> Body<'_, '_, 'a> {
    /// Reads to behind the `}` of the kernel.
    fn read(&mut self) -> Result<()> {
        while !self.scopes.is_empty() {
            let line = self.tokens.line();
            let guard = self.guard()?;
            let word = self.tokens.any()?.text;
            if guard.is_none() {
                match word {
                    "{" => {
                        self.scopes.push(Scope::default());
                        continue;
                    }
                    "}" => {
                        self.scopes.pop();
                        continue;
                    }
                    ".reg" => {
                        self.registers(line)?;
                        continue;
                    }
                    ".loc" => {
                        // `.loc file line column[, function_name …]` has no end of its own: drop its numbers.
                        for _ in 0..3 {
                            self.tokens.number()?;
                        }
                        continue;
                    }
                    ".pragma" => {
                        self.tokens.skip_statement()?;
                        continue;
                    }
                    ".branchtargets" => {
                        let mut targets = vec![self.tokens.word()?];
                        while self.tokens.take(",") {
                            targets.push(self.tokens.word()?);
                        }
                        self.tokens.expect(";")?;
                        self.kernel.statements.push(Statement::Targets(targets));
                        continue;
                    }
                    _ => {}
                }
                if self.tokens.take(":") {
                    self.kernel.statements.push(Statement::Label(word, line));
                    continue;
                }
            }
            if !word.starts_with(|first: char| first.is_ascii_alphabetic()) {
                return error(line, format!("unexpected \"{word}\" in a kernel"));
            }
            let operands = self.operands()?;
            self.kernel.statements.push(Statement::Instruction { guard, opcode: word, operands, line });
        }
        Ok(())
    }

    fn guard(&mut self) -> Result<Option<(Register, bool)>> {
        let line = self.tokens.line();
        // Variables begin with a space of their own.
        while let Some(".shared" | ".local") = self.tokens.peek().map(|token| token.text) {
            self.kernel.variables.extend(variable(self.tokens)?);
        }
        if !self.tokens.take("@") {
            return Ok(None);
        }
        let is_negated = self.tokens.take("!");
        let name = self.tokens.word()?;
        match self.find(name).filter(|register| self.kernel.registers[*register] == Class::Predicate) {
            Some(register) => Ok(Some((register, is_negated))),
            None => error(line, format!("{name} is not a predicate")),
        }
    }

    fn find(&self, name: &str) -> Option<Register> {
        self.scopes.iter().rev().find_map(|scope| scope.find(name))
    }

    /// `.type name<count>, name, …;`
    fn registers(&mut self, line: u32) -> Result<()> {
        let word = self.tokens.word()?;
        let class = match word {
            ".pred" => Class::Predicate,
            ".b128" => return error(line, "unsupported type .b128 of registers"),
            other => match bytes_of_type(other) {
                Some(1 | 2) => Class::B16,
                Some(4) => Class::B32,
                Some(8) => Class::B64,
                _ => return error(line, format!("unknown type \"{other}\" of registers")),
            },
        };
        let Some(scope) = self.scopes.last_mut() else { return Ok(()) };
        loop {
            let name = self.tokens.word()?;
            let first = self.kernel.registers.len();
            let mut count = 1;
            if self.tokens.take("<") {
                count = self.tokens.number()?;
                if count > 1 << 20 {
                    return error(line, format!("{count} registers"));
                }
                self.tokens.expect(">")?;
                scope.ranges.push((name, first, count));
            } else {
                scope.names.insert(name, first);
            }
            self.kernel.registers.extend(std::iter::repeat_n(class, count as usize));
            if !self.tokens.take(",") {
                break;
            }
        }
        self.tokens.expect(";")
    }

    fn operands(&mut self) -> Result<Vec<Operand<'a>>> {
        let mut operands = Vec::new();
        while !self.tokens.take(";") {
            if !operands.is_empty() {
                self.tokens.expect(",")?;
            }
            operands.push(self.operand()?);
        }
        Ok(operands)
    }

    fn operand(&mut self) -> Result<Operand<'a>> {
        if self.tokens.take("{") {
            let mut elements = Vec::new();
            loop {
                elements.push(self.operand()?);
                if !self.tokens.take(",") {
                    break;
                }
            }
            self.tokens.expect("}")?;
            return Ok(Operand::Vector(elements));
        }
        if self.tokens.take("[") {
            let base = self.operand()?;
            let mut offset = 0i64;
            if self.tokens.take("+") {
                let line = self.tokens.line();
                match number(self.tokens)? {
                    Some(Operand::Integer(value)) => offset = value as i64,
                    _ => return error(line, "the offset of an address must be a whole number"),
                }
            } else if self.tokens.take("-") {
                offset = (self.tokens.number()? as i64).wrapping_neg();
            }
            self.tokens.expect("]")?;
            return Ok(Operand::Address(Box::new(base), offset));
        }
        if let Some(number) = number(self.tokens)? {
            return Ok(number);
        }
        let line = self.tokens.line();
        let name = self.tokens.word()?;
        let Some(first) = self.find(name) else { return Ok(Operand::Name(name)) };
        if !self.tokens.take("|") {
            return Ok(Operand::Register(first));
        }
        let second = self.tokens.word()?;
        match self.find(second) {
            Some(second) => Ok(Operand::Pair(first, second)),
            None => error(line, format!("unknown register {second}")),
        }
    }
}
