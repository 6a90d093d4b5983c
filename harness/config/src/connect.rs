//! How to reach a board, and what to do if it does not answer.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::faults::Faults;
use super::tree::Node;
use super::values::{HostPort, NAME, Percent, Text, is_host_port, percent};

/// The port of a labgrid coordinator, unless the file says otherwise.
const COORDINATOR_PORT: u16 = 20408;
/// Longest wait for a place, unless the file says otherwise.
const WAIT_MINUTES: u32 = 60;
/// By how much boards that share rounds may differ, unless the file says otherwise.
pub const EQUAL_WITHIN: f64 = 0.05;
/// Longest time to boot after the power was cut, unless the file says otherwise.
const BOOT_SECONDS: u32 = 300;

/// How to connect to a board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Connect {
    /// The board is this machine.
    Local,
    /// Over SSH. Settings that are left out come from the OpenSSH configuration.
    Ssh {
        /// Host name, address, or alias from the OpenSSH configuration.
        #[schemars(with = "Text")]
        host: String,
        /// User on the board.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<Text>")]
        user: Option<String>,
        /// Port.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 65_535))]
        port: Option<u16>,
        /// Private key file; `~/` is the home directory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<Text>")]
        identity: Option<String>,
        /// Jump host.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<Text>")]
        jump: Option<String>,
        /// If the connection is lost and cannot be restored within this many seconds, the run ends. Default: 60.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(max = 86_400))]
        reconnect_seconds: Option<u32>,
    },
    /// A place of a labgrid coordinator, over SSH. Address, user and port come from the place's NetworkService.
    Labgrid(Labgrid),
}

impl Connect {
    /// Whether the board is this machine.
    pub fn is_local(&self) -> bool {
        *self == Self::Local
    }
}

/// A place of a labgrid coordinator: one by its name, or any free one with the tags in `match`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Labgrid {
    /// The coordinator, as `host` or `host:port`. Default port: 20408.
    #[schemars(with = "HostPort")]
    coordinator: String,
    /// Name of the place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>")]
    place: Option<String>,
    /// Tags that the place must have, such as `{ board: jetson-tx2 }`.
    #[serde(default, rename = "match", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Text>", extend("propertyNames" = { "pattern": NAME }))]
    tags: BTreeMap<String, String>,
    /// Longest wait in the queue, in minutes. Default: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10_080))]
    wait_minutes: Option<u32>,
    /// Allowed difference in speed: in `bench --farm`, between a board and the first board that shares the rounds; in
    /// `farm`, between a board and its earlier runs, or places with the same tags. Default: 5%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Percent>")]
    equal_within: Option<String>,
    /// Private key file; `~/` is the home directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>")]
    pub identity: Option<String>,
    /// Jump host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>")]
    pub jump: Option<String>,
    /// If the connection is lost and cannot be restored within this many seconds, the run ends, or the board is
    /// power-cycled. Default: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 86_400))]
    pub reconnect_seconds: Option<u32>,
}

impl Labgrid {
    /// The coordinator as `host:port`.
    pub fn coordinator(&self) -> String {
        with_port(&self.coordinator)
    }

    /// Name of the place, if the file names one.
    pub fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// The tags that the place must have. labgrid gives each place its name as the tag `name`.
    pub fn tags(&self) -> BTreeMap<String, String> {
        match &self.place {
            Some(place) => BTreeMap::from([("name".to_owned(), place.clone())]),
            None => self.tags.clone(),
        }
    }

    /// What is asked for, for messages: `place tx2-1`, or `place with board=jetson-tx2`.
    pub fn describe(&self) -> String {
        if let Some(place) = &self.place {
            return format!("place {place}");
        }
        let tags: Vec<String> = self.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("place with {}", tags.join(", "))
    }

    /// Names the place that was found and the coordinator's port, so that a run that is resumed gets the same board.
    pub fn settle(&mut self, place: &str) {
        self.place = Some(place.to_owned());
        self.tags.clear();
        self.coordinator = self.coordinator();
    }

    /// Fails if the place is in use when it is asked for.
    pub fn never_wait(&mut self) {
        self.wait_minutes = Some(0);
    }

    /// By how much boards that share rounds may differ, as a share.
    pub fn equal_within(&self) -> f64 {
        let written = self.equal_within.as_deref().map(percent::share::<serde::de::value::Error>);
        written.and_then(Result::ok).unwrap_or(EQUAL_WITHIN)
    }

    /// Longest wait in the queue.
    pub fn wait(&self) -> Duration {
        Duration::from_secs(60 * u64::from(self.wait_minutes.unwrap_or(WAIT_MINUTES)))
    }
}

/// A coordinator as `host:port`; `None` if the text is neither a host nor a host and a port.
pub fn coordinator(text: &str) -> Option<String> {
    is_host_port(text).then(|| with_port(text))
}

fn with_port(text: &str) -> String {
    let has_port = text.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    if has_port { text.to_owned() } else { format!("{text}:{COORDINATOR_PORT}") }
}

/// What to do with a board that does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recover {
    /// Maximum number of power cycles in a run. The power driver of the board's place cuts and restores the power.
    #[schemars(range(max = 100))]
    pub power_cycle: u32,
    /// Maximum time in seconds until the board answers again after a power cycle. Default: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    boot_seconds: Option<u32>,
    /// labgrid's environment file on this host, for power drivers that are configured in one, such as `ExternalPowerDriver`;
    /// `~/` is the home directory. Without it, the place's power port determines the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>")]
    pub environment: Option<String>,
}

impl Recover {
    /// Longest time until the board answers again.
    pub fn boot(&self) -> Duration {
        Duration::from_secs(self.boot_seconds.unwrap_or(BOOT_SECONDS).into())
    }
}

/// Reports what the schema cannot express. `board` is the board's tree as written, so that an invalid setting is not also
/// reported as missing.
pub(super) fn check(board: &Node, faults: &mut Faults) {
    let labgrid = board.find("connect/labgrid");
    if let Some(labgrid) = labgrid {
        let has_tags = labgrid.get("match").is_some_and(|tags| !tags.entries().is_empty());
        match (labgrid.get("place"), has_tags) {
            (Some(_), true) => faults.add(
                &labgrid.spot("match"),
                "\"match\" cannot be combined with \"place\"; keep \"place\" for one board, or \"match\" for any free \
                 board with these tags",
            ),
            (None, false) => faults.add(
                &labgrid.at,
                "missing key \"place\" or \"match\"; name a place, or tags of places, such as match: { board: jetson-tx2 }",
            ),
            _ => {}
        }
    }
    if let (Some(recover), None) = (board.get("recover"), labgrid) {
        faults.add(
            &recover.at,
            "\"recover\" needs connect: { labgrid: … }, whose places have power drivers; remove it, or reach the board \
             through labgrid",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_has_a_default_port() {
        for (written, expected) in [
            ("lab", "lab:20408"),
            ("lab:9", "lab:9"),
            ("10.0.0.1:1234", "10.0.0.1:1234"),
            ("[::1]", "[::1]:20408"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(coordinator(written).as_deref(), Some(expected));
        }
        for wrong in ["", "lab:", "lab:0", "lab:99999", "http://lab", "a b", "[::1", "::1", "lab:2:3"] {
            assert_eq!(coordinator(wrong), None, "{wrong}");
        }
    }
}
