//! `farm`: the places of labgrid coordinators.

use crate::commands::bench::open_database;
use crate::output::print;
use ::boards::farm::{self, PlaceInfo};
use analysis::PlaceRuns;
use campaign::{Paths, fleet};
use clap::Args;
use config::{Connect, Kind, Labgrid};
use host::date::{Date, unix_ns};
use host::exit::{Ending as _, Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use host::progress;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use store::{Access, Status, Store};
use tabled::builder::Builder;
use tabled::settings::style::HorizontalLine;
use tabled::settings::{Padding, Style};

/// Options of `farm`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Coordinators, as HOST or HOST:PORT. Default: those of the files in configs/boards/.
    #[arg(value_name = "COORDINATOR")]
    coordinators: Vec<String>,
    /// Run the experiment `canary` on each free place that the file of this board asks for, before the table is shown. May
    /// be given several times. Places in use are left alone. Exit code 1 if a board that was measured differs from its
    /// earlier runs, or from places with the same tags, by more than its file's `equal_within`.
    #[arg(long, value_name = "BOARD", conflicts_with = "coordinators")]
    canary: Vec<String>,
}

impl Arguments {
    /// Whether it measures.
    pub(crate) fn measures(&self) -> bool {
        !self.canary.is_empty()
    }
}

/// # Errors
/// If no coordinator is known, or one does not answer.
pub(crate) fn run(paths: &Paths, arguments: &Arguments) -> Outcome<Exit> {
    let interrupt = Interrupt::listen().ending(Exit::Bug)?;
    let farms = farms(paths);
    let (coordinators, canary) = if arguments.measures() {
        measure(paths, &arguments.canary, &interrupt)?
    } else {
        (coordinators(&farms, &arguments.coordinators)?, Canary::default())
    };
    paths.prepare_farm()?;
    let runs = if paths.database.exists() {
        PlaceRuns::of_all(&Store::open(&paths.database, Access::ReadOnly)?)?
    } else {
        BTreeMap::new()
    };
    let mut is_healthy = true;
    for coordinator in &coordinators {
        let places = farm::places(&paths.python, coordinator, &interrupt)?;
        let table = Table { coordinator, places: &places, runs: &runs, farms: &farms, canary: &canary };
        print(&table.text(unix_ns()))?;
        is_healthy &= !table.differs();
    }
    Ok(match canary.failed {
        None if is_healthy => Exit::Fine,
        None => Exit::Regression,
        Some(exit) => exit,
    })
}

/// What the canaries of this command did.
#[derive(Debug, Default)]
struct Canary {
    /// Places on which they were started, as `PLACE of HOST:PORT`.
    places: BTreeSet<String>,
    /// When, ns since 1970.
    begun_unix_ns: u64,
    /// The exit code if a trial or a board failed.
    failed: Option<Exit>,
}

/// Runs the canaries. Also returns the coordinators of their boards.
fn measure(paths: &Paths, boards: &[String], interrupt: &Interrupt) -> Outcome<(BTreeSet<String>, Canary)> {
    let store = open_database(paths)?;
    let begun_unix_ns = unix_ns();
    let canaries = fleet::canaries(paths, boards, interrupt)?;
    for place in &canaries.left_out {
        progress::say("farm", &format!("{} is not measured: {}", place.name, state(place, unix_ns())));
    }
    let Some(job) = canaries.job else {
        progress::say("farm", "no place is free, so none was measured");
        return Ok((canaries.coordinators, Canary::default()));
    };
    let exit = match fleet::bench(job, paths, interrupt, &store) {
        Ok(ended) => ended.exit,
        Err(failure) if interrupt.is_set() => return Err(failure),
        // The table is shown nevertheless.
        Err(failure) => {
            progress::say("farm", &failure.to_string());
            failure.exit
        }
    };
    let failed = (exit != Exit::Fine).then_some(exit);
    Ok((canaries.coordinators, Canary { places: canaries.measured, begun_unix_ns, failed }))
}

/// The farms of all files in configs/boards/.
fn farms(paths: &Paths) -> Vec<Labgrid> {
    let boards = config::names(&paths.settings, Kind::Board).into_iter();
    // A file that is wrong is reported by the commands that use it.
    let boards = boards.filter_map(|name| config::load_board(&paths.settings, &name).ok());
    boards
        .filter_map(|board| match board.connect {
            Connect::Labgrid(farm) => Some(farm),
            Connect::Local | Connect::Ssh { .. } => None,
        })
        .collect()
}

fn coordinators(farms: &[Labgrid], named: &[String]) -> Outcome<BTreeSet<String>> {
    if !named.is_empty() {
        let named = named.iter().map(|written| {
            config::coordinator(written).ok_or_else(|| {
                let message =
                    format!("failed to read the coordinator {written:?}: expected a host or host:port, such as lab:20408");
                Failure::new(Exit::Usage, message)
            })
        });
        return named.collect();
    }
    let found: BTreeSet<String> = farms.iter().map(Labgrid::coordinator).collect();
    if found.is_empty() {
        let message = format!(
            "failed to find a farm: no file in configs/boards/ has connect: {{ labgrid: … }}; name a coordinator, such as `{} \
             farm lab:20408`",
            host::program()
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(found)
}

/// What is shown of a coordinator.
struct Table<'a> {
    coordinator: &'a str,
    places: &'a [PlaceInfo],
    /// The runs of all places, as `PLACE of HOST:PORT`.
    runs: &'a BTreeMap<String, PlaceRuns>,
    farms: &'a [Labgrid],
    canary: &'a Canary,
}

impl Table<'_> {
    fn text(&self, now_unix_ns: u64) -> String {
        let over_equals = self.over_equals();
        let mut builder = Builder::default();
        builder.push_record(["place", "model and tags", "state", "last run", "health"]);
        for place in self.places {
            let runs = self.runs(place);
            let model = runs.and_then(|runs| runs.latest.model.clone());
            let tags = place.tags.iter().map(|(key, value)| format!("{key}={value}"));
            let words: Vec<String> = model.into_iter().chain(tags).collect();
            let last = runs.map(|runs| {
                let day = Date::from_unix_ns(runs.latest.begun_unix_ns).to_minutes();
                format!("{} {}, {day}", runs.latest.id, runs.latest.experiment)
            });
            let health = match runs {
                _ if self.has_failed(place) => "canary failed".to_owned(),
                None => "no run yet".to_owned(),
                Some(runs) => {
                    health(runs, over_equals.get(place.name.as_str()).copied(), self.allowed(place))
                }
            };
            builder.push_record([
                place.name.clone(),
                if words.is_empty() { "–".to_owned() } else { words.join(", ") },
                state(place, now_unix_ns),
                last.unwrap_or_else(|| "–".to_owned()),
                health,
            ]);
        }
        let plural = if self.places.len() == 1 { "" } else { "s" };
        let mut text = format!("{}: {} place{plural}\n", self.coordinator, self.places.len());
        if !self.places.is_empty() {
            let mut table = builder.build();
            table
                .with(Style::empty().horizontals([(1, HorizontalLine::new('─'))]))
                .with(Padding::new(0, 2, 0, 0));
            text.extend(table.to_string().lines().flat_map(|line| [line.trim_end(), "\n"]));
        }
        text
    }

    /// The place as runs record it.
    fn full_name(&self, place: &PlaceInfo) -> String {
        format!("{} of {}", place.name, self.coordinator)
    }

    fn runs(&self, place: &PlaceInfo) -> Option<&PlaceRuns> {
        self.runs.get(&self.full_name(place))
    }

    /// By how much a board may differ from its history or its equals: as the first file says that asks for it.
    fn allowed(&self, place: &PlaceInfo) -> f64 {
        let mut farms = self.farms.iter().filter(|farm| farm.coordinator() == self.coordinator);
        farms.find(|farm| place.fits(farm)).map_or(config::EQUAL_WITHIN, Labgrid::equal_within)
    }

    /// Whether a canary was started on it that has no run.
    fn has_failed(&self, place: &PlaceInfo) -> bool {
        let is_older = |runs: &PlaceRuns| runs.latest.begun_unix_ns < self.canary.begun_unix_ns;
        self.canary.places.contains(&self.full_name(place)) && self.runs(place).is_none_or(is_older)
    }

    /// Whether a place on which a canary ran is slower or faster than it should be.
    fn differs(&self) -> bool {
        let over_equals = self.over_equals();
        let places = self.places.iter();
        let mut measured = places.filter(|place| self.canary.places.contains(&self.full_name(place)));
        measured.any(|place| {
            let over_equals = over_equals.get(place.name.as_str()).copied();
            self.runs(place)
                .is_some_and(|runs| !differences(runs, over_equals, self.allowed(place)).is_empty())
        })
    }

    /// Throughputs over those of places with the same tags, by place.
    fn over_equals(&self) -> BTreeMap<&str, f64> {
        let mut groups: BTreeMap<&BTreeMap<String, String>, Vec<(&str, &PlaceRuns)>> = BTreeMap::new();
        for place in self.places {
            if let Some(runs) = self.runs(place) {
                groups.entry(&place.tags).or_default().push((&place.name, runs));
            }
        }
        let mut found = BTreeMap::new();
        for equals in groups.into_values() {
            let ratios = PlaceRuns::over_equals(&equals.iter().map(|(_, runs)| *runs).collect::<Vec<_>>());
            found.extend(equals.iter().zip(ratios).filter_map(|((name, _), ratio)| Some((*name, ratio?))));
        }
        found
    }
}

/// Who has a place, and since when.
fn state(place: &PlaceInfo, now_unix_ns: u64) -> String {
    let now = Duration::from_nanos(now_unix_ns).as_secs_f64();
    let since = match (now - place.changed_unix_s).max(0.0) {
        seconds if seconds < 60.0 => "less than a minute".to_owned(),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.0} h", seconds / 3600.0),
    };
    match (&place.holder, &place.reserved_by, &place.service) {
        (Some(holder), _, _) => format!("in use by {holder} for {since}"),
        (None, Some(owner), _) => format!("reserved for {owner}"),
        (None, None, None) => "no usable NetworkService".to_owned(),
        (None, None, Some(_)) => "free".to_owned(),
    }
}

/// What is wrong with a board, by its latest run.
fn health(runs: &PlaceRuns, over_equals: Option<f64>, allowed: f64) -> String {
    let latest = &runs.latest;
    let mut words = Vec::new();
    if latest.status != Status::Complete {
        words.push(format!("last run {}", latest.status));
    }
    if latest.failed > 0 {
        words.push(format!("{} failed trials", latest.failed));
    }
    if latest.power_cycles > 0 {
        words.push(format!("power-cycled {}×", latest.power_cycles));
    }
    words.extend(differences(runs, over_equals, allowed));
    if words.is_empty() { "ok".to_owned() } else { words.join(", ") }
}

/// How a board differs from its earlier runs and from its equals.
fn differences(runs: &PlaceRuns, over_equals: Option<f64>, allowed: f64) -> Vec<String> {
    let ratios = [(runs.over_history, "than before"), (over_equals, "than places with the same tags")];
    let changes = ratios.into_iter().filter_map(|(ratio, than)| Some((ratio? - 1.0, than)));
    let words = changes.filter(|(change, _)| change.abs() > allowed).map(|(change, than)| {
        let word = if change < 0.0 { "slower" } else { "faster" };
        format!("{:.0} % {word} {than}", 100.0 * change.abs())
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::boards::farm::Service;

    #[test]
    fn every_state_of_a_place_is_told() {
        let service = Service { address: "10.0.0.2".to_owned(), username: "nvidia".to_owned(), port: 22 };
        let free = PlaceInfo {
            name: "tx2-1".to_owned(),
            tags: BTreeMap::from([("board".to_owned(), "jetson-tx2".to_owned())]),
            aliases: Vec::new(),
            comment: String::new(),
            holder: None,
            reserved_by: None,
            changed_unix_s: 1000.0,
            service: Some(service),
        };
        let named = |name: &str| PlaceInfo { name: name.to_owned(), ..free.clone() };
        let places = [
            free.clone(),
            PlaceInfo { holder: Some("lab/anna".to_owned()), ..named("tx2-2") },
            PlaceInfo { reserved_by: Some("lab/ben".to_owned()), ..named("tx2-3") },
            PlaceInfo { service: None, tags: BTreeMap::new(), ..named("tx2-4") },
        ];
        let table = Table {
            coordinator: "lab:20408",
            places: &places,
            runs: &BTreeMap::new(),
            farms: &[],
            canary: &Canary::default(),
        };
        let text = table.text(1_600_000_000_000);
        let expected = "\
lab:20408: 4 places
place  model and tags    state                       last run  health
───────────────────────────────────────────────────────────────────────
tx2-1  board=jetson-tx2  free                        –         no run yet
tx2-2  board=jetson-tx2  in use by lab/anna for 10 min  –       no run yet
tx2-3  board=jetson-tx2  reserved for lab/ben        –         no run yet
tx2-4  –                 no usable NetworkService             –         no run yet
";
        let words = |text: &str| -> Vec<String> {
            text.split_whitespace().filter(|word| !word.starts_with('─')).map(str::to_owned).collect()
        };
        assert_eq!(words(&text), words(expected), "{text}");
    }
}
