//! A figure of a network over runs and revisions.
//!
//! [`History::build`] turns the runs of the database into series of points and decides which runs are comparable;
//! [`domain::history`] finds where the level changed.

mod conditions;
mod rows;
mod series;

pub use rows::{Condition, Figure, History, LeftOut, Point, SCHEMA, Segment, Series, Step};
pub use series::{HistoryError, HistoryQuery};
