//! Figures of databases that the real store wrote.

mod figures;
mod optimization;
