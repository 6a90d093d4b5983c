//! The text of PTX modules.

pub mod atomics;
pub mod decode;
mod decode_memory;
pub mod flow;
pub mod module;
pub mod syntax;
pub mod tokens;
