//! The operating points of a search: found on the board before anything is measured.

use crate::processors::Processor;
use crate::runner_client::RunnerClient;
use boards::{RemoteError, SessionError};
use config::{Board, ModeName, PowerModes};
use domain::operating_point::{MOST_POINTS, mhz};
use domain::{ModeOffer, OperatingPoint, PowerMode, ProcessorKind, ProcessorName};
use host::exit::{Exit, Failure, Outcome};
use protocol::{Clocks, CpuLimit, Settings, StateRequest};
use std::collections::{BTreeMap, BTreeSet};

/// An operating point that the board offers.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub(crate) settings: OperatingPoint,
    /// What sets it.
    pub(crate) request: StateRequest,
    /// Processors whose CPUs are online.
    pub(crate) processors: Vec<ProcessorName>,
}

/// The operating points of a board; the first one is that of its file.
#[derive(Debug)]
pub(crate) struct Points {
    pub(crate) all: Vec<Point>,
    /// Places of the points that are profiled; the first one is 0.
    pub(crate) corners: Vec<usize>,
    /// The point at which the board is.
    pub(crate) present: usize,
    /// Points that were recorded since the harness started.
    pub(crate) recorded: BTreeSet<usize>,
}

impl Points {
    /// The point of the board's file alone.
    pub(crate) fn one(board: &Board, processors: &[Processor]) -> Self {
        let processors = processors.iter().map(|processor| processor.name.clone()).collect();
        let settings = OperatingPoint::default();
        let point = Point { settings, request: board.state.asked(), processors };
        Self { all: vec![point], corners: vec![0], present: 0, recorded: BTreeSet::new() }
    }

    /// Whether there are several.
    pub(crate) fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// What distinguishes a schedule at a point from the same one at other points, such as ` @ a57 1114 MHz`; empty if there
    /// is one point.
    pub(crate) fn suffix(&self, number: usize) -> String {
        let point = self.all.get(number).filter(|_| self.are_several());
        point.map(|point| format!(" @ {}", point.settings)).unwrap_or_default()
    }
}

/// Finds the operating points that a board offers, and leaves it at the one of its file. `set` are its settings.
///
/// # Errors
/// If the board's file names a mode, a frequency or a processor that the board does not have.
pub(crate) fn find(
    runner: &mut RunnerClient,
    board: &Board,
    processors: &[Processor],
    set: &Settings,
) -> Outcome<Points> {
    let Some(wanted) = &board.operating_points else { return Ok(Points::one(board, processors)) };
    let base = board.state.asked();
    let memory = wanted.memory().is_some();
    let clocks = runner.clocks(memory)?;
    let modes = modes(board, &wanted.power_modes(), &clocks)?;
    let default = OfferedMode::new(board, processors, None, base.clone(), set, &clocks)?;
    let mut found = Points::one(board, processors);
    found.all[0] = default.default_point();
    let mut offers = Vec::new();
    for mode in modes {
        let is_present =
            mode.as_ref().is_none_or(|mode| set.power_mode.as_ref().map(|set| set.id) == Some(mode.id));
        if is_present {
            offers.push(default.clone());
            continue;
        }
        let request = StateRequest { nvpmodel: mode.as_ref().map(|mode| mode.id), ..base.clone() };
        let applied =
            runner.bring_to(request.clone()).map_err(|error| refused(board, mode.as_ref(), error))?;
        let clocks = runner.clocks(memory)?;
        offers.push(OfferedMode::new(board, processors, mode, request, &applied.set, &clocks)?);
    }
    if offers.iter().any(|offer| offer.request != base) {
        runner
            .bring_to(base)
            .map_err(|error| refused(board, offers.last().and_then(|last| last.mode.as_ref()), error))?;
    }
    let count = offers.iter().map(|mode| mode.offer.len()).fold(0, usize::saturating_add);
    if count > MOST_POINTS {
        return Err(usage(
            board,
            &format!(
                "there are {count}, and the limit is {MOST_POINTS}; use fewer of the frequencies, such as `{{ every: 3 }}`"
            ),
        ));
    }
    for (place, mode) in offers.iter().enumerate() {
        // The first mode tells how times and power depend on the clocks; of the others the ends are enough.
        let corners = if place == 0 { mode.offer.corners() } else { mode.offer.ends() };
        let (mut new, mut places) = (Vec::new(), Vec::new());
        for point in mode.offer.points() {
            if point == found.all[0].settings {
                continue;
            }
            if corners.contains(&point) {
                places.push(found.all.len() + new.len());
            }
            new.push(mode.point(point));
        }
        found.all.extend(new);
        found.corners.extend(places);
    }
    // A board that does not allow its clocks to be limited is found out before anything is measured.
    if let Some(corner) = found.corners.last().map(|corner| &found.all[*corner].request)
        && *corner != board.state.asked()
    {
        runner.bring_to(corner.clone())?;
        runner.bring_to(board.state.asked())?;
    }
    Ok(found)
}

fn usage(board: &Board, why: &str) -> Failure {
    let name = &board.name;
    let message = format!(
        "failed to use the operating points of the board {name}: {why} (`operating_points` in configs/boards/{name}.yaml)"
    );
    Failure::new(Exit::Usage, message)
}

/// A power mode that cannot be set or left.
fn refused(board: &Board, mode: Option<&PowerMode>, error: SessionError) -> Failure {
    match (error, mode) {
        (SessionError::Board(RemoteError::State { message, .. }), Some(mode)) => usage(
            board,
            &format!(
                "the power mode {} ({}) cannot be set and reverted ({message}); remove it from `power_modes`",
                mode.id, mode.name
            ),
        ),
        (error, _) => error.into(),
    }
}

/// The power modes to use; `None` is the present one.
fn modes(board: &Board, wanted: &PowerModes, clocks: &Clocks) -> Outcome<Vec<Option<PowerMode>>> {
    let offered = || clocks.power_modes.iter().map(|mode| PowerMode { id: mode.id, name: mode.name.clone() });
    if *wanted != PowerModes::Present && clocks.power_modes.is_empty() {
        return Err(usage(
            board,
            "the board lists no power modes in /etc/nvpmodel.conf; remove `power_modes`",
        ));
    }
    match wanted {
        PowerModes::Present => Ok(vec![None]),
        PowerModes::All => Ok(offered().map(Some).collect()),
        PowerModes::Listed(listed) => {
            let find = |name: &ModeName| {
                let is_named = |mode: &PowerMode| match name {
                    ModeName::Number(id) => mode.id == *id,
                    ModeName::Name(name) => mode.name == *name,
                };
                offered().find(is_named).map(Some).ok_or_else(|| {
                    let all: Vec<String> =
                        offered().map(|mode| format!("{} ({})", mode.id, mode.name)).collect();
                    usage(board, &format!("there is no power mode {name}; the board has {}", all.join(", ")))
                })
            };
            let mut found: Vec<Option<PowerMode>> = Vec::new();
            for mode in listed.iter().map(find) {
                let mode = mode?;
                if !found.contains(&mode) {
                    found.push(mode);
                }
            }
            Ok(found)
        }
    }
}

/// A power mode with the settings that were read in it.
#[derive(Debug, Clone)]
struct OfferedMode {
    mode: Option<PowerMode>,
    /// What sets it.
    request: StateRequest,
    offer: ModeOffer,
    /// The limit of each processor's clock, in kHz.
    limits: BTreeMap<String, u64>,
    /// The governor of all CPUs, if it is varied and the same.
    governor: Option<String>,
    /// Where the memory clock is locked, in Hz, if it is varied and locked.
    memory_hz: Option<u64>,
    processors: Vec<ProcessorName>,
    /// CPUs of the clock of each varied processor; absent for a GPU.
    cpus: BTreeMap<String, Vec<u32>>,
    gpu_hz: Vec<u64>,
    memory_steps_hz: Vec<u64>,
}

impl OfferedMode {
    fn new(
        board: &Board,
        processors: &[Processor],
        power_mode: Option<PowerMode>,
        request: StateRequest,
        set: &Settings,
        clocks: &Clocks,
    ) -> Outcome<Self> {
        let set_mode = set.power_mode.as_ref().map(|mode| PowerMode { id: mode.id, name: mode.name.clone() });
        let power_mode = power_mode.or(set_mode);
        let own = processors.iter().filter(|processor| !processor.name.is_merged());
        let names: Vec<&str> = own.map(|processor| processor.name.as_str()).collect();
        let wanted: BTreeMap<&str, domain::Steps> =
            board.operating_points.iter().flat_map(config::OperatingPoints::frequencies).collect();
        if let Some(name) = wanted.keys().find(|name| !names.contains(*name)) {
            return Err(usage(
                board,
                &format!("there is no processor {name}; the board has {}", names.join(", ")),
            ));
        }
        let is_online = |cpu: &u32| set.cpus.iter().any(|known| known.id == *cpu && known.online);
        let mut mode = Self {
            offer: ModeOffer {
                power_mode: power_mode.clone(),
                governors: governors(board, clocks)?,
                ..ModeOffer::default()
            },
            mode: power_mode,
            request,
            limits: BTreeMap::new(),
            governor: None,
            memory_hz: None,
            processors: Vec::new(),
            cpus: BTreeMap::new(),
            gpu_hz: clocks.gpu_hz.clone(),
            memory_steps_hz: Vec::new(),
        };
        if !mode.offer.governors.is_empty() {
            let mut set = set.cpus.iter().filter(|cpu| cpu.online).filter_map(|cpu| cpu.governor.as_ref());
            let first = set.next();
            mode.governor = first.filter(|first| set.all(|other| other == *first)).cloned();
        }
        if let Some(steps) = board.operating_points.as_ref().and_then(config::OperatingPoints::memory) {
            mode.add_memory(board, &steps, clocks)?;
        }
        let mut taken: Vec<(u32, &str)> = Vec::new();
        for processor in processors {
            let (name, steps) = (processor.name.as_str(), wanted.get(processor.name.as_str()));
            if !processor.kind.thread_cpus().iter().all(is_online) {
                continue;
            }
            mode.processors.push(processor.name.clone());
            // A merged processor has the clocks of its parts.
            if processor.name.is_merged() {
                continue;
            }
            let (limit, mut offered) = match &processor.kind {
                ProcessorKind::Cpu { cpus, .. } => {
                    let limit = cpus.iter().filter_map(|cpu| {
                        set.cpus.iter().find(|known| known.id == *cpu).and_then(|known| known.max_khz)
                    });
                    let own: Vec<_> = clocks
                        .cpus
                        .iter()
                        .filter(|clock| clock.cpus.iter().any(|cpu| cpus.contains(cpu)))
                        .collect();
                    let shared: Vec<u32> = own.iter().flat_map(|clock| clock.cpus.iter().copied()).collect();
                    if let Some((cpu, other)) =
                        taken.iter().find(|(cpu, _)| steps.is_some() && shared.contains(cpu))
                    {
                        return Err(usage(
                            board,
                            &format!("{name} and {other} share the clock of CPU {cpu}; remove one of them"),
                        ));
                    }
                    if steps.is_some() {
                        taken.extend(shared.iter().map(|cpu| (*cpu, name)));
                        mode.cpus.insert(name.to_owned(), shared);
                    }
                    (limit.min(), own.first().map(|clock| steps_of(clock)).unwrap_or_default())
                }
                ProcessorKind::Cuda { .. } => {
                    let limit = set.gpu.map(|gpu| gpu.max_hz / 1000);
                    (limit, clocks.gpu_hz.iter().map(|hz| hz / 1000).collect())
                }
            };
            let Some(limit) = limit else {
                if steps.is_some() {
                    return Err(usage(
                        board,
                        &format!("the board's kernel does not control the clock of {name}; remove it"),
                    ));
                }
                continue;
            };
            mode.limits.insert(name.to_owned(), limit);
            let Some(steps) = steps else {
                mode.offer.fixed.insert(name.to_owned(), limit);
                continue;
            };
            // The limit of a power mode need not be a step of the clock.
            offered.push(limit);
            if !matches!(steps, domain::Steps::Listed(_)) {
                offered.retain(|khz| *khz <= limit);
            }
            let mut chosen = steps.of(&offered).map_err(|error| usage(board, &format!("{name}: {error}")))?;
            chosen.retain(|khz| *khz <= limit);
            if chosen.is_empty() {
                chosen.push(limit);
            }
            mode.offer.varied.insert(name.to_owned(), chosen);
        }
        Ok(mode)
    }

    /// Adds the frequencies of the memory clock. One above the limit of the power mode is left out.
    fn add_memory(&mut self, board: &Board, steps: &domain::Steps, clocks: &Clocks) -> Outcome<()> {
        let absent = || Err("the runner did not read the memory clock".to_owned());
        let memory = clocks
            .memory
            .clone()
            .unwrap_or_else(absent)
            .map_err(|why| usage(board, &format!("{why}; remove `memory_mhz`")))?;
        let limit = memory.max_hz / 1000;
        let mut offered: Vec<u64> = memory.steps_hz.iter().map(|hz| hz / 1000).collect();
        if !matches!(steps, domain::Steps::Listed(_)) {
            offered.retain(|khz| *khz <= limit);
        }
        let chosen = steps.of(&offered).map_err(|error| usage(board, &format!("memory clock: {error}")))?;
        self.offer.memory_khz = chosen.into_iter().filter(|khz| *khz <= limit).collect();
        if self.offer.memory_khz.is_empty() {
            let mode = self.mode.as_ref().map_or_else(|| "the board".to_owned(), |mode| mode.name.clone());
            return Err(usage(
                board,
                &format!(
                    "{mode} limits the memory clock to {} MHz; add a lower frequency to `memory_mhz`",
                    mhz(limit)
                ),
            ));
        }
        self.memory_hz = memory.locked_hz;
        self.memory_steps_hz = memory.steps_hz;
        Ok(())
    }

    /// The point of the board's file: every clock may run at its limit.
    fn default_point(&self) -> Point {
        let settings = OperatingPoint {
            power_mode: self.mode.clone(),
            governor: self.governor.clone(),
            max_khz: self.limits.clone(),
            memory_khz: self.memory_hz.map(|hz| hz / 1000),
        };
        Point { settings, request: self.request.clone(), processors: self.processors.clone() }
    }

    fn point(&self, point: OperatingPoint) -> Point {
        let mut request = self.request.clone();
        for name in self.offer.varied.keys() {
            let Some(khz) = point.max_khz.get(name) else { continue };
            if let Some(cpus) = self.cpus.get(name) {
                request.cpu_limits.push(CpuLimit { cpus: cpus.clone(), max_khz: *khz });
            } else {
                let exact = self.gpu_hz.iter().copied().find(|hz| hz / 1000 == *khz);
                request.gpu_max_hz = Some(exact.unwrap_or(khz * 1000));
            }
        }
        if point.governor.is_some() {
            request.governor.clone_from(&point.governor);
        }
        if let Some(khz) = point.memory_khz {
            let exact = self.memory_steps_hz.iter().copied().find(|hz| hz / 1000 == khz);
            request.memory_hz = Some(exact.unwrap_or(khz * 1000));
        }
        Point { settings: point, request, processors: self.processors.clone() }
    }
}

/// The governors to use; empty if they are not varied.
fn governors(board: &Board, clocks: &Clocks) -> Outcome<Vec<String>> {
    let Some(wanted) = board.operating_points.as_ref().filter(|wanted| wanted.vary_governors()) else {
        return Ok(Vec::new());
    };
    if clocks.governors.is_empty() {
        return Err(usage(board, "the board's kernel has no frequency governors; remove `governors`"));
    }
    wanted.governors(&clocks.governors).map_err(|unknown| {
        usage(
            board,
            &format!("there is no governor {unknown}; the board has {}", clocks.governors.join(", ")),
        )
    })
}

/// The frequencies of a clock in kHz. If its driver accepts any, these are 100 MHz apart.
fn steps_of(clock: &protocol::CpuClock) -> Vec<u64> {
    if !clock.steps_khz.is_empty() {
        return clock.steps_khz.clone();
    }
    let steps = (clock.min_khz.div_ceil(100_000)..=clock.max_khz / 100_000).map(|step| step * 100_000);
    [clock.min_khz].into_iter().chain(steps).chain([clock.max_khz]).collect()
}
