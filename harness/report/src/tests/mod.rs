//! Rendered reports of databases that the real store wrote.

mod browser;
mod campaigns;
mod claims;
mod energy;
mod optimization;
mod pages;
mod papers;
mod streams;
mod texts;
mod traces;

use analysis::scenario::{Scenario, row, troubled};
use analysis::{Report, Row};

/// Whether the one who runs the tests asked to leave this out: `EDGEPIPE_SKIP=browser,latex`.
fn skipped(what: &str) -> bool {
    std::env::var("EDGEPIPE_SKIP").is_ok_and(|skip| skip.split(',').any(|part| part.trim() == what))
}
