//! Figures of databases that the real store wrote.

mod claims;
mod figures;
mod optimization;
mod streams;
