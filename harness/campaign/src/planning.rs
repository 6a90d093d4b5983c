//! The part of a campaign before its trials: compile, profile, plan, record.

use super::before::Before;
use super::plan;
use super::prepare::{self, Prepared};
use super::{Campaign, PlannedNetwork};
use crate::processors::Processor;
use compiler::BoundaryLayout;
use host::exit::{Exit, Failure, Outcome};
use host::progress::Progress;
use protocol::{OutputDifference, Profiled};
use store::{
    NetworkRecord, ProfileRecord, RunRecorder, ScheduleRecord, StoreError, TransferRecord, is_within,
};

impl Campaign {
    /// Compiles, profiles and plans, and records it where there is a recorder. What `before` has is not done again.
    ///
    /// # Errors
    /// Where a network cannot be compiled, profiled or cut as asked.
    pub fn plan(
        &mut self,
        mut recorder: Option<&mut RunRecorder<'_>>,
        before: &Before,
    ) -> Outcome<Vec<PlannedNetwork>> {
        let prepared = self.workshop.whole_networks(&self.loaded.experiment, &self.processors)?;
        for network in &prepared {
            if before.networks.contains(&network.name) {
                continue;
            }
            record(&mut recorder, |recorder| recorder.record_network(network_record(network)))?;
        }
        let links = self.transfers(&mut recorder, before)?;
        let progress = Progress::begin("profile", prepared.len() * self.processors.len());
        let mut networks = Vec::new();
        let mut place = 0;
        for network in prepared {
            let processors = self.processors.clone();
            self.verify(&network, &processors, &progress)?;
            let raw = self.profiles(&mut recorder, before, &network, &progress)?;
            let company = self.company(&mut recorder, before, &network, &raw)?;
            let costs = plan::CostsByCompany {
                alone: self.costs(&network, &raw, &links)?,
                in_company: self.costs(&network, &company, &links)?,
            };
            let plans = prepare::schedules(
                &self.loaded.experiment,
                &network,
                &costs,
                &self.processors,
                self.workshop.peer.as_ref(),
            )?;
            for remark in &plans.remarks {
                progress.warn(remark);
            }
            networks.push(PlannedNetwork { first: place, prepared: network, planned: plans.planned });
            place += networks.last().map_or(0, |network| network.planned.len());
        }
        progress.end(&format!("{} networks on {} processors", networks.len(), self.processors.len()));
        let wanted: Vec<_> =
            networks.iter().map(|network| (&network.prepared, network.planned.as_slice())).collect();
        self.workshop.stages(&wanted, &self.processors)?;
        for network in &networks {
            record_schedules(&mut recorder, before, network)?;
        }
        Ok(networks)
    }

    /// Holds the outputs of a network on each processor against what an independent engine made of the same frame, so that a
    /// wrong lowering is never measured.
    ///
    /// # Errors
    /// Where they differ by more than the experiment's tolerance; as [`prepare::verify`].
    pub(super) fn verify(
        &mut self,
        network: &Prepared,
        processors: &[Processor],
        progress: &Progress,
    ) -> Outcome<()> {
        let tolerance = self.loaded.experiment.tolerance;
        for note in &network.manifest.notes {
            progress.warn(&format!("{}: {note}", network.name));
        }
        for processor in processors {
            progress.doing(&format!("{} on {}: outputs", network.name, processor.name));
            let compared = prepare::verify(&mut self.link, network, processor)?;
            if let Some(output) = compared.outputs.iter().find(|output| !is_within(output, tolerance)) {
                let (name, on, engine) = (&network.name, &processor.name, &network.manifest.reference.engine);
                return Err(Failure::new(
                    Exit::Trial,
                    format!(
                        "failed to verify {name} on {on}: {}. Nothing was measured. Leave {name} out of the experiment, and \
                     report it with its ONNX file",
                        difference(output, engine, tolerance)
                    ),
                ));
            }
        }
        Ok(())
    }

    fn profiles(
        &mut self,
        recorder: &mut Option<&mut RunRecorder<'_>>,
        before: &Before,
        network: &Prepared,
        progress: &Progress,
    ) -> Outcome<Vec<Profiled>> {
        let mut profiles = Vec::new();
        for processor in &self.processors {
            progress.doing(&format!("{} on {}", network.name, processor.name));
            let known = before
                .profiles
                .iter()
                .find(|known| known.network == network.name && known.processor == processor.name.as_str());
            let raw = if let Some(known) = known {
                known.profiled.clone()
            } else {
                let raw = prepare::profile(&mut self.link, &self.loaded.experiment, network, processor)?;
                let profile = ProfileRecord {
                    network: network.name.clone(),
                    processor: processor.name.to_string(),
                    profiled: raw.clone(),
                };
                record(recorder, |recorder| recorder.record_profile(profile))?;
                raw
            };
            self.observed.profiles.push(ProfileRecord {
                network: network.name.clone(),
                processor: processor.name.to_string(),
                profiled: raw.clone(),
            });
            profiles.push(raw.clone());
            if known.is_some() {
                progress.known();
                continue;
            }
            let profile = prepare::unit_costs(&network.network, processor, &raw)?;
            let frame = match profile.frame_ns() {
                ns if ns < 1e5 => format!("{:.2} µs", ns / 1e3),
                ns => format!("{:.2} ms", ns / 1e6),
            };
            progress.step(&format!("{} on {}: {frame} a frame", network.name, processor.name));
        }
        Ok(profiles)
    }

    /// The profiles as they are while all processors work: the same units, scaled to the frames of a processor that
    /// has the others beside it. Shared caches, memory and clocks make these longer than frames of one alone.
    fn company(
        &mut self,
        recorder: &mut Option<&mut RunRecorder<'_>>,
        before: &Before,
        network: &Prepared,
        alone: &[Profiled],
    ) -> Outcome<Vec<Profiled>> {
        if self.processors.len() < 2 {
            return Ok(alone.to_vec());
        }
        let name = |processor: &Processor| format!("{} with all others busy", processor.name);
        let known = |processor: &Processor| {
            let known = before
                .profiles
                .iter()
                .find(|known| known.network == network.name && known.processor == name(processor));
            known.map(|known| known.profiled.frame_ns.clone())
        };
        let frames = match self.processors.iter().map(known).collect::<Option<Vec<_>>>() {
            Some(frames) => frames,
            None => prepare::company(&mut self.link, &self.loaded.experiment, network, &self.processors)?,
        };
        let mut profiles = Vec::new();
        for ((processor, frame_ns), alone) in self.processors.iter().zip(frames).zip(alone) {
            let observed = Profiled {
                id: alone.id,
                calls: Vec::new(),
                frame_ns: frame_ns.clone(),
                instrumented_frame_ns: Vec::new(),
                resident_bytes: alone.resident_bytes,
            };
            let profile = ProfileRecord {
                network: network.name.clone(),
                processor: name(processor),
                profiled: observed,
            };
            if known(processor).is_none() {
                record(recorder, |recorder| recorder.record_profile(profile.clone()))?;
            }
            self.observed.profiles.push(profile);
            profiles.push(Profiled { frame_ns, ..alone.clone() });
        }
        Ok(profiles)
    }

    fn costs(
        &self,
        network: &Prepared,
        profiles: &[Profiled],
        links: &[Vec<domain::Link>],
    ) -> Outcome<domain::Costs> {
        let profiles = self.processors.iter().zip(profiles);
        let profiles = profiles.map(|(processor, raw)| prepare::unit_costs(&network.network, processor, raw));
        prepare::costs(&profiles.collect::<Outcome<Vec<_>>>()?, links.to_vec())
    }

    fn transfers(
        &mut self,
        recorder: &mut Option<&mut RunRecorder<'_>>,
        before: &Before,
    ) -> Outcome<Vec<Vec<domain::Link>>> {
        let mut links = vec![vec![domain::Link::FREE; self.processors.len()]; self.processors.len()];
        for (from, sender) in self.processors.iter().enumerate() {
            for (to, receiver) in self.processors.iter().enumerate().filter(|(to, _)| *to != from) {
                let known = before
                    .transfers
                    .iter()
                    .find(|known| known.from == sender.name.as_str() && known.to == receiver.name.as_str());
                let raw = if let Some(known) = known {
                    known.transferred.clone()
                } else {
                    let raw = prepare::transfer(&mut self.link, sender, receiver)?;
                    let transfer = TransferRecord {
                        from: sender.name.to_string(),
                        to: receiver.name.to_string(),
                        transferred: raw.clone(),
                    };
                    record(recorder, |recorder| recorder.record_transfer(transfer))?;
                    raw
                };
                self.observed.transfers.push(TransferRecord {
                    from: sender.name.to_string(),
                    to: receiver.name.to_string(),
                    transferred: raw.clone(),
                });
                links[from][to] = prepare::transfer_cost(&raw);
            }
        }
        Ok(links)
    }
}

/// How an output differs from that of an independent engine.
fn difference(output: &OutputDifference, engine: &str, tolerance: f64) -> String {
    let OutputDifference { name, elements, non_finite, max_abs, max_reference, .. } = output;
    if *non_finite > 0 {
        return format!(
            "its output {name:?} and that of {engine} for the same frame differ in which of the {elements} elements are \
             infinite or not a number: {non_finite} do"
        );
    }
    format!(
        "its output {name:?} differs from that of {engine} for the same frame by {max_abs:.3e}, where values reach \
         {max_reference:.3e} and `tolerance` allows {tolerance} of that"
    )
}

fn record_schedules(
    recorder: &mut Option<&mut RunRecorder<'_>>,
    before: &Before,
    network: &PlannedNetwork,
) -> Outcome<()> {
    for (position, planned) in network.planned.iter().enumerate() {
        let place = network.place(position);
        match before.schedules.iter().find(|known| known.place == place) {
            Some(known) if known.schedule == planned.schedule => continue,
            Some(known) => {
                return Err(Failure::new(
                    Exit::Usage,
                    format!(
                        "failed to go on: the run measured {} on {}, and this edgepipe would plan {} instead; \
                         begin a new run",
                        network.prepared.name,
                        known.schedule.label(),
                        planned.schedule.label()
                    ),
                ));
            }
            None => {}
        }
        let schedule = ScheduleRecord {
            place,
            network: network.prepared.name.clone(),
            schedule: planned.schedule.clone(),
            prediction: planned.prediction.clone(),
            warnings: Vec::new(),
        };
        record(recorder, |recorder| recorder.record_schedule(schedule))?;
    }
    Ok(())
}

fn network_record(prepared: &Prepared) -> NetworkRecord {
    let mut fallback: Vec<u32> = prepared
        .entries
        .iter()
        .filter_map(|(_, entry)| entry.stage(0, prepared.manifest.units.len(), BoundaryLayout::Plain))
        .flat_map(|stage| stage.fallback_units.into_iter().map(|unit| unit.unit))
        .collect();
    fallback.sort_unstable();
    fallback.dedup();
    NetworkRecord {
        source: prepared.source.describe(),
        sha256: prepared.sha256.clone(),
        network: prepared.network.clone(),
        fallback_units: fallback,
    }
}

fn record<'s>(
    recorder: &mut Option<&mut RunRecorder<'s>>,
    write: impl FnOnce(&mut RunRecorder<'s>) -> Result<(), StoreError>,
) -> Outcome<()> {
    match recorder {
        Some(recorder) => Ok(write(recorder)?),
        None => Ok(()),
    }
}
