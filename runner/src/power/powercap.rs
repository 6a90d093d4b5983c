//! Energy counters of x86 processors (RAPL), through the kernel's powercap interface.
//!
//! `class/powercap/intel-rapl:N` is a package and `intel-rapl:N:M` a part of it, each with `name`, `energy_uj` and
//! `max_energy_range_uj` (Documentation/power/powercap/powercap.rst). AMD's counters have the same names. Since Linux
//! 5.10 only root may read `energy_uj`, because power reveals what a processor computes.

use super::rail::{Files, FoundRails, Rail};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Finds all zones: packages have their own name (`package-0`), parts have their package's in front (`package-0/core`).
pub(super) fn find(root: &Path) -> Result<FoundRails, String> {
    let class = root.join("class/powercap");
    let entries = fs::read_dir(&class).map_err(|error| {
        format!(
            "failed to find energy counters below {}: {error}; set `power: none` in the board's file",
            class.display()
        )
    })?;
    let mut zones: Vec<(String, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.strip_prefix("intel-rapl:")?.to_owned(), entry.path()))
        })
        .collect();
    zones.sort();
    let name =
        |folder: &Path| fs::read_to_string(folder.join("name")).ok().map(|text| text.trim().to_owned());
    let mut rails = Vec::new();
    for (number, folder) in &zones {
        let Some(own) = name(folder) else { continue };
        let parent = number.rsplit_once(':').map(|(parent, _)| parent);
        let parent = parent.and_then(|parent| zones.iter().find(|(number, _)| number == parent));
        let full = match parent.and_then(|(_, folder)| name(folder)) {
            Some(parent) => format!("{parent}/{own}"),
            None => own,
        };
        let counter = folder.join("energy_uj");
        match fs::read(&counter) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(format!(
                    "failed to read {}: {error}; allow the runner's user to read it (`sudo chmod a+r` on every energy_uj), \
                     or set `power: none` in the board's file",
                    counter.display()
                ));
            }
            _ => {}
        }
        let range = fs::read_to_string(folder.join("max_energy_range_uj")).ok();
        let range = range.and_then(|text| text.trim().parse().ok());
        rails.push(
            Rail::new(&full, &counter, Files::Energy { microjoules: counter.clone() }).with_range(range),
        );
    }
    if rails.is_empty() {
        return Err(format!(
            "failed to find energy counters below {}: it contains no zone intel-rapl:N; set `power: none` in the \
             board's file",
            class.display()
        ));
    }
    Ok(FoundRails { driver: "powercap".to_owned(), rails })
}
