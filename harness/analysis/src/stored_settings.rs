//! The settings of a run that reports need, from its stored configuration.
//!
//! They are read by key and not by `config::Loaded::from_yaml`, which refuses fields it does not know: a database keeps
//! runs of older and newer versions.

use domain::{Load, QueueLength};
use serde::de::DeserializeOwned;
use serde_yaml::{Mapping, Value};
use std::sync::LazyLock;

/// The defaults of all settings.
static DEFAULTS: LazyLock<Value> =
    LazyLock::new(|| serde_yaml::from_str(config::DEFAULTS).unwrap_or(Value::Null));

/// Settings; absent if the configuration does not have them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct StoredSettings {
    /// Fewest frames of a window.
    pub(super) min_frames: Option<usize>,
    /// Requested precision of intervals, as a share.
    pub(super) precision: Option<f64>,
    /// Processor that `inject` slows down, and by how many percent.
    pub(super) slow_down: Option<(String, f64)>,
    /// GPUs of the board, which no schedule uses.
    pub(super) gpus: Vec<String>,
    /// When frames arrived; saturating if the configuration does not say.
    pub(super) load: Load,
    /// Place of the board on a farm.
    pub(super) place: Option<String>,
    /// The frames that were fed if they were not random: of a file or of pictures, with the start of their digest.
    pub(super) fed: Option<String>,
    /// Seed and number of the random frames, unless they are the default.
    pub(super) random: Option<String>,
    /// How pictures became frames, as JSON by the name of the network. Only of runs that were fed pictures, and only of networks
    /// whose files say so.
    pub(super) pictures: Vec<(String, String)>,
    /// Frames that can wait between two stages.
    pub(super) queue_depth: Option<QueueLength>,
}

impl StoredSettings {
    /// Reads a stored configuration of any version.
    pub(super) fn of(configuration: &str) -> Self {
        let Ok(whole) = serde_yaml::from_str::<Value>(configuration) else { return Self::default() };
        let board = whole.get("board");
        let (gpus, place) = (gpus(board), board.and_then(place));
        let Some(experiment) = whole.get("experiment") else {
            return Self { gpus, place, ..Self::default() };
        };
        let frames = experiment.get("measure").and_then(|measure| measure.get("min_frames")?.as_u64());
        let percent = |text: &str| text.strip_suffix('%')?.trim_end().parse::<f64>().ok();
        let slow_down = || {
            let slow_down = experiment.get("inject")?.get("slow_down")?;
            Some((slow_down.get("processor")?.as_str()?.to_owned(), slow_down.get("percent")?.as_f64()?))
        };
        Self {
            min_frames: frames.and_then(|frames| usize::try_from(frames).ok()),
            precision: experiment.get("precision").and_then(|text| Some(percent(text.as_str()?)? / 100.0)),
            slow_down: slow_down(),
            gpus,
            load: experiment.get("load").and_then(read).unwrap_or_default(),
            place,
            fed: experiment.get("frames").and_then(fed),
            random: experiment.get("frames").and_then(random),
            pictures: pictures(&whole),
            queue_depth: experiment.get("queue_depth").and_then(read),
        }
    }
}

/// What was fed, by its content and not by its path.
fn fed(frames: &Value) -> Option<String> {
    let digest = |key: &str| Some(frames.get(key)?.as_str()?.chars().take(12).collect::<String>());
    let file = digest("npy_sha256").map(|digest| format!("file {digest}"));
    file.or_else(|| digest("folder_sha256").map(|digest| format!("pictures {digest}")))
}

/// Which random frames were fed, unless those of the defaults.
fn random(frames: &Value) -> Option<String> {
    let of = |frames: &Value| Some((frames.get("seed")?.as_u64()?, frames.get("distinct")?.as_u64()?));
    let is_default = DEFAULTS.get("frames").and_then(of) == of(frames);
    let (seed, distinct) = of(frames).filter(|_| fed(frames).is_none() && !is_default)?;
    Some(format!("{distinct} random ones of seed {seed}"))
}

/// How pictures become frames, of the networks whose files say so; empty without pictures.
pub(super) fn picture_rules(configuration: &Value) -> Mapping {
    let frames = configuration.get("experiment").and_then(|experiment| experiment.get("frames"));
    let networks = configuration.get("networks").and_then(Value::as_sequence);
    let networks = networks.filter(|_| frames.is_some_and(|frames| frames.get("folder").is_some()));
    let rule = |network: &Value| Some((network.get("network")?.clone(), network.get("pictures")?.clone()));
    networks.into_iter().flatten().filter_map(rule).collect()
}

fn pictures(configuration: &Value) -> Vec<(String, String)> {
    let written = |(network, rule): (Value, Value)| {
        Some((network.as_str()?.to_owned(), serde_json::to_string(&rule).ok()?))
    };
    picture_rules(configuration).into_iter().filter_map(written).collect()
}

/// A value as YAML writes it, such as a load: a word, or a mapping with one key.
fn read<T: DeserializeOwned>(written: &Value) -> Option<T> {
    serde_json::from_value(serde_json::to_value(written).ok()?).ok()
}

/// Place and coordinator.
fn place(board: &Value) -> Option<String> {
    let farm = board.get("connect")?.get("labgrid")?;
    Some(format!("{} of {}", farm.get("place")?.as_str()?, farm.get("coordinator")?.as_str()?))
}

fn gpus(board: Option<&Value>) -> Vec<String> {
    let processors = board.and_then(|board| board.get("processors")?.as_mapping());
    let gpus = processors.into_iter().flatten().filter(|(_, processor)| processor.get("cuda").is_some());
    gpus.filter_map(|(name, _)| name.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_taken() {
        let settings = StoredSettings::of(
            "experiment:\n  precision: 2%\n  measure: { min_frames: 30 }\n  \
             inject: { slow_down: { processor: cpu0, percent: 5.0 } }\n",
        );
        assert_eq!((settings.min_frames, settings.precision), (Some(30), Some(0.02)));
        assert_eq!(settings.slow_down, Some(("cpu0".to_owned(), 5.0)));
        assert_eq!(
            StoredSettings::of("experiment: { precision: none, inject: none }"),
            StoredSettings::default()
        );
        let gpus = StoredSettings::of(
            "board: { processors: { gpu: { cuda: { arch: sm_62 } }, a57: { cpus: [0] } } }",
        )
        .gpus;
        assert_eq!(gpus, ["gpu"]);
        let load = |text| StoredSettings::of(text).load;
        let stream = load("experiment: { load: { stream: { fps: 30.0, queue: 4, policy: block } } }");
        assert_eq!(stream.to_string(), "a stream of 30 frames/s, queue of 4, block");
        assert_eq!(load("experiment: { load: saturating }"), Load::Saturating);
        assert_eq!(load("experiment: { load: { unknown: 3 } }"), Load::Saturating);
        let on_farm = "board: { connect: { labgrid: { coordinator: lab, place: tx2-1 } } }";
        assert_eq!(StoredSettings::of(on_farm).place.as_deref(), Some("tx2-1 of lab"));
        let fed = |frames: &str| StoredSettings::of(&format!("experiment: {{ frames: {{ {frames} }} }}")).fed;
        assert_eq!(fed("seed: 1, npy: a.npy, npy_sha256: 0123456789abcdef").unwrap(), "file 0123456789ab");
        assert_eq!(fed("folder: street, folder_sha256: 0123456789abcdef").unwrap(), "pictures 0123456789ab");
        assert_eq!(fed("seed: 1"), None);
        let random =
            |frames: &str| StoredSettings::of(&format!("experiment: {{ frames: {{ {frames} }} }}")).random;
        assert_eq!(random("seed: 1, distinct: 8"), None, "as by default");
        assert_eq!(random("seed: 2, distinct: 8").unwrap(), "8 random ones of seed 2");
        assert_eq!(random("seed: 2, distinct: 8, folder: street, folder_sha256: 01"), None);
        let rules = |experiment: &str| {
            let networks = "networks: [{ network: mine, pictures: { crop: 0.5 } }, { network: other }]";
            StoredSettings::of(&format!("{networks}\nexperiment: {experiment}")).pictures
        };
        let of_mine = ("mine".to_owned(), r#"{"crop":0.5}"#.to_owned());
        assert_eq!(rules("{ frames: { seed: 1, folder: street, folder_sha256: 01 } }"), [of_mine]);
        assert_eq!(rules("{ frames: { seed: 1 } }"), [], "nothing is made of pictures");
        let depth = |text: &str| StoredSettings::of(text).queue_depth;
        assert_eq!(depth("experiment: { queue_depth: 4 }"), Some(QueueLength::Places(4)));
        assert_eq!(depth("experiment: { queue_depth: auto }"), Some(QueueLength::Auto));
        for text in ["", "[", "experiment: quick", "experiment: { measure: 3 }"] {
            assert_eq!(StoredSettings::of(text), StoredSettings::default());
        }
    }
}
