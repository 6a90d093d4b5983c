//! `farm`: the places of labgrid coordinators.

use crate::output::print;
use ::boards::farm::{self, PlaceInfo};
use analysis::PlaceRuns;
use campaign::Paths;
use clap::Args;
use config::{Connect, Kind};
use host::date::{Date, unix_ns};
use host::exit::{Ending as _, Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use store::{Access, Status, Store};
use tabled::builder::Builder;
use tabled::settings::style::HorizontalLine;
use tabled::settings::{Padding, Style};

/// By how much a board may differ from its history or its equals.
const ALLOWED: f64 = 0.05;

/// Options of `farm`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Coordinators, as HOST or HOST:PORT. Default: those of the files in configs/boards/.
    #[arg(value_name = "COORDINATOR")]
    coordinators: Vec<String>,
}

/// # Errors
/// If no coordinator is known, or one does not answer.
pub(crate) fn run(paths: &Paths, arguments: &Arguments) -> Outcome<Exit> {
    let interrupt = Interrupt::listen().ending(Exit::Bug)?;
    let coordinators = coordinators(paths, arguments)?;
    paths.prepare_farm()?;
    let runs = if paths.database.exists() {
        PlaceRuns::of_all(&Store::open(&paths.database, Access::ReadOnly)?)?
    } else {
        BTreeMap::new()
    };
    for coordinator in &coordinators {
        let places = farm::places(&paths.python, coordinator, &interrupt)?;
        print(&describe(coordinator, &places, &runs, unix_ns()))?;
    }
    Ok(Exit::Fine)
}

fn coordinators(paths: &Paths, arguments: &Arguments) -> Outcome<BTreeSet<String>> {
    if !arguments.coordinators.is_empty() {
        let named = arguments.coordinators.iter().map(|written| {
            config::coordinator(written).ok_or_else(|| {
                let message =
                    format!("failed to read the coordinator {written:?}: expected a host or host:port, such as lab:20408");
                Failure::new(Exit::Usage, message)
            })
        });
        return named.collect();
    }
    let boards = config::names(&paths.settings, Kind::Board).into_iter();
    // A file that is wrong is reported by the commands that use it.
    let boards = boards.filter_map(|name| config::load_board(&paths.settings, &name).ok());
    let found: BTreeSet<String> = boards
        .filter_map(|board| match board.connect {
            Connect::Labgrid(farm) => Some(farm.coordinator()),
            Connect::Local | Connect::Ssh { .. } => None,
        })
        .collect();
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

fn describe(
    coordinator: &str,
    places: &[PlaceInfo],
    runs: &BTreeMap<String, PlaceRuns>,
    now_unix_ns: u64,
) -> String {
    let of_place = |place: &PlaceInfo| runs.get(&format!("{} of {coordinator}", place.name));
    let over_equals = over_equals(places, &of_place);
    let mut builder = Builder::default();
    builder.push_record(["place", "model and tags", "state", "last run", "health"]);
    for place in places {
        let runs = of_place(place);
        let model = runs.and_then(|runs| runs.latest.model.clone());
        let tags = place.tags.iter().map(|(key, value)| format!("{key}={value}"));
        let words: Vec<String> = model.into_iter().chain(tags).collect();
        let last = runs.map(|runs| {
            let day = Date::from_unix_ns(runs.latest.begun_unix_ns).to_minutes();
            format!("{} {}, {day}", runs.latest.id, runs.latest.experiment)
        });
        let health = runs.map_or_else(
            || "no run yet".to_owned(),
            |runs| health(runs, over_equals.get(place.name.as_str()).copied()),
        );
        builder.push_record([
            place.name.clone(),
            if words.is_empty() { "–".to_owned() } else { words.join(", ") },
            state(place, now_unix_ns),
            last.unwrap_or_else(|| "–".to_owned()),
            health,
        ]);
    }
    let plural = if places.len() == 1 { "" } else { "s" };
    let mut text = format!("{coordinator}: {} place{plural}\n", places.len());
    if !places.is_empty() {
        let mut table = builder.build();
        table
            .with(Style::empty().horizontals([(1, HorizontalLine::new('─'))]))
            .with(Padding::new(0, 2, 0, 0));
        text.extend(table.to_string().lines().flat_map(|line| [line.trim_end(), "\n"]));
    }
    text
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
        (None, None, None) => "no exporter".to_owned(),
        (None, None, Some(_)) => "free".to_owned(),
    }
}

/// Throughputs over those of places with the same tags, by place.
fn over_equals<'a>(
    places: &'a [PlaceInfo],
    of_place: &impl Fn(&PlaceInfo) -> Option<&'a PlaceRuns>,
) -> BTreeMap<&'a str, f64> {
    let mut groups: BTreeMap<&BTreeMap<String, String>, Vec<(&str, &PlaceRuns)>> = BTreeMap::new();
    for place in places {
        if let Some(runs) = of_place(place) {
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

/// What is wrong with a board, by its latest run.
fn health(runs: &PlaceRuns, over_equals: Option<f64>) -> String {
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
    for (ratio, than) in [(runs.over_history, "than before"), (over_equals, "than its equals")] {
        if let Some(change) = ratio.map(|ratio| ratio - 1.0).filter(|change| change.abs() > ALLOWED) {
            let word = if change < 0.0 { "slower" } else { "faster" };
            words.push(format!("{:.0} % {word} {than}", 100.0 * change.abs()));
        }
    }
    if words.is_empty() { "ok".to_owned() } else { words.join(", ") }
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
        let text = describe("lab:20408", &places, &BTreeMap::new(), 1_600_000_000_000);
        let expected = "\
lab:20408: 4 places
place  model and tags    state                       last run  health
───────────────────────────────────────────────────────────────────────
tx2-1  board=jetson-tx2  free                        –         no run yet
tx2-2  board=jetson-tx2  in use by lab/anna for 10 min  –       no run yet
tx2-3  board=jetson-tx2  reserved for lab/ben        –         no run yet
tx2-4  –                 no exporter                 –         no run yet
";
        let words = |text: &str| -> Vec<String> {
            text.split_whitespace().filter(|word| !word.starts_with('─')).map(str::to_owned).collect()
        };
        assert_eq!(words(&text), words(expected), "{text}");
    }
}
