//! What the text of a PTX module says: kernels with their statements, and variables.

use crate::lanes::Class;

/// A module.
#[derive(Debug)]
pub struct Module<'a> {
    /// `.version`: major and minor.
    pub version: (u32, u32),
    /// Line of `.version`.
    pub version_line: u32,
    /// `.target`, such as 62 for `sm_62`.
    pub target: u32,
    /// Line of `.target`.
    pub target_line: u32,
    /// Variables outside kernels.
    pub variables: Vec<Variable<'a>>,
    /// Kernels, in the order of the text.
    pub kernels: Vec<Kernel<'a>>,
}

/// The state space of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// `.global`, and what host memory shares with it.
    Global,
    /// `.shared`: one per block.
    Shared,
    /// `.local`: one per thread.
    Local,
    /// `.const`.
    Constant,
    /// `.param` of the kernel.
    Parameter,
    /// No space named: any of the above, by address.
    Generic,
}

/// A variable with a fixed size.
#[derive(Debug)]
pub struct Variable<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its space.
    pub space: Space,
    /// Alignment in bytes.
    pub align: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// What it holds at first; shorter than `bytes` if the rest is zero, absent if nothing is said.
    pub content: Option<Vec<u8>>,
}

/// A parameter of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Its name.
    pub name: &'a str,
    /// Offset in the parameters of the kernel, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// A kernel.
#[derive(Debug)]
pub struct Kernel<'a> {
    /// Its name.
    pub name: &'a str,
    /// Line of its `.entry`.
    pub line: u32,
    /// Parameters in order.
    pub parameters: Vec<Parameter<'a>>,
    /// `.maxntid`: most threads of a block.
    pub max_threads: Option<u64>,
    /// `.reqntid`: the shape of each block.
    pub required_block: Option<[u64; 3]>,
    /// Variables in `.shared` and `.local`.
    pub variables: Vec<Variable<'a>>,
    /// Class of each register.
    pub registers: Vec<Class>,
    /// Labels and instructions.
    pub statements: Vec<Statement<'a>>,
}

/// A register of a kernel, by number.
pub type Register = usize;

/// A label or an instruction.
#[derive(Debug, PartialEq, Eq)]
pub enum Statement<'a> {
    /// `name:`
    Label(&'a str, u32),
    /// `.branchtargets label, …;` after its own label.
    Targets(Vec<&'a str>),
    /// `@guard opcode operands;`
    Instruction {
        /// Register, and whether it must be unset.
        guard: Option<(Register, bool)>,
        /// With all modifiers.
        opcode: &'a str,
        /// In order.
        operands: Vec<Operand<'a>>,
        /// Line, from 1.
        line: u32,
    },
}

/// An operand of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand<'a> {
    /// A register.
    Register(Register),
    /// An integer, negative ones as two's complement.
    Integer(u64),
    /// `0f…`: bits of a number in single precision.
    Single(u32),
    /// `0d…`, or a decimal fraction: bits of a number in double precision.
    Double(u64),
    /// A label, variable, parameter or special register.
    Name(&'a str),
    /// `[base + offset]`
    Address(Box<Operand<'a>>, i64),
    /// `{a, b, …}`
    Vector(Vec<Operand<'a>>),
    /// `a|b`: two results.
    Pair(Register, Register),
}
