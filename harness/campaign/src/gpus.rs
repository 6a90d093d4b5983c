//! Finds a board's GPUs, and the CPUs of the threads that feed them.

use domain::{CudaArch, cuda_release};
use host::exit::{Exit, Failure, Outcome};
use protocol::{Cpu, CudaDevice, CudaSystem, MachineState};
use store::GpuRecord;

/// A device that a board's file requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestedGpu<'a> {
    pub(crate) board: &'a str,
    pub(crate) processor: &'a str,
    pub(crate) device: u32,
    /// `None`: the newest that the device runs.
    pub(crate) arch: Option<CudaArch>,
}

impl RequestedGpu<'_> {
    /// Finds the device and the architecture to compile for.
    ///
    /// # Errors
    /// If the board has no such device, or its driver cannot load what the compiler writes for it.
    pub(crate) fn find(self, machine: &MachineState) -> Outcome<(CudaArch, GpuRecord)> {
        self.lookup(machine).map_err(|why| {
            let Self { board, processor, .. } = self;
            let message = format!("failed to use the GPU {processor} of the board {board}: {why}");
            Failure::new(Exit::Board, message)
        })
    }

    fn lookup(self, machine: &MachineState) -> Result<(CudaArch, GpuRecord), String> {
        let Self { processor, device, .. } = self;
        let remove = format!("or remove {processor} from the board's file");
        let Some(system) = &machine.cuda else {
            return Err(format!(
                "the board has no NVIDIA driver (libcuda.so.1); install the driver (on a Jetson: the packages of JetPack), {remove}"
            ));
        };
        let found = system.devices.iter().find(|found| found.index == device);
        let Some(found) = found else {
            let devices = match (&system.problem, system.devices.len()) {
                (Some(problem), _) => format!("{problem}; fix this, "),
                (None, 0) => "it finds no device; check the driver's installation, ".to_owned(),
                (None, 1) => "its only device is 0; correct `device`, ".to_owned(),
                (None, count) => format!("its devices are 0 to {}; correct `device`, ", count - 1),
            };
            return Err(format!(
                "the driver {} has no device {device}: {devices}{remove}",
                system.driver_path
            ));
        };
        let Some(newest) = CudaArch::for_device(&found.arch) else {
            let least = CudaArch::known().next().map_or_else(String::new, |arch| arch.to_string());
            return Err(format!(
                "{} is {}, and the compiler supports {least} and later; remove {processor} from the board's file",
                found.name, found.arch
            ));
        };
        let arch = self.arch.unwrap_or(newest);
        if !arch.runs_on(&found.arch) {
            return Err(format!(
                "{} is {} and does not run code for {arch}; write `arch: {newest}`, or leave `arch` out",
                found.name, found.arch
            ));
        }
        if system.driver_version < arch.least_driver() {
            return Err(format!(
                "code for {arch} is PTX {}, which drivers since CUDA {} load, and the driver {} supports CUDA {}; update the \
                 driver (on a Jetson: JetPack), {remove}",
                arch.ptx(),
                cuda_release(arch.least_driver()),
                system.driver_path,
                cuda_release(system.driver_version)
            ));
        }
        Ok((arch, record(system, found)))
    }
}

fn record(system: &CudaSystem, device: &CudaDevice) -> GpuRecord {
    GpuRecord {
        device: device.clone(),
        driver_path: system.driver_path.clone(),
        driver_version: system.driver_version,
        emulated: system.emulated,
    }
}

/// CPUs for the thread that feeds a GPU: usable ones that are in none of `taken`; if there are none, those of the set in
/// `taken` with the slowest CPUs. The thread sleeps while the GPU computes, so it takes little from a slow processor.
pub(crate) fn feeding_cpus(machine: &MachineState, taken: &[&[u32]]) -> Vec<u32> {
    let usable = |cpu: &&Cpu| cpu.online && (cpu.isolated || machine.allowed_cpus.contains(&cpu.id));
    let is_free = |cpu: &&Cpu| !taken.iter().any(|cpus| cpus.contains(&cpu.id));
    let free: Vec<u32> = machine.cpus.iter().filter(usable).filter(is_free).map(|cpu| cpu.id).collect();
    if !free.is_empty() {
        return free;
    }
    let speed = |cpus: &&&[u32]| {
        let first = machine.cpus.iter().find(|cpu| cpus.contains(&cpu.id));
        // Among equally fast ones, the largest loses the least.
        let size = std::cmp::Reverse(cpus.len());
        first.map_or((0, 0, size), |cpu| (cpu.capacity.unwrap_or(0), cpu.hardware_max_khz.unwrap_or(0), size))
    };
    taken.iter().min_by_key(speed).map(|cpus| cpus.to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::fixture;

    fn machine(devices: &[&str], driver_version: u32) -> MachineState {
        let device = |(index, arch): (u32, &&str)| CudaDevice {
            index,
            name: format!("GPU of {arch}"),
            arch: (*arch).to_owned(),
            memory_bytes: 8 << 30,
            multiprocessors: 2,
            max_khz: None,
            l2_bytes: None,
            integrated: true,
        };
        let devices = (0..).zip(devices).map(device).collect();
        let driver_path = "libcuda.so.1".to_owned();
        let cuda = CudaSystem { driver_path, driver_version, emulated: false, devices, problem: None };
        MachineState { cuda: Some(cuda), ..fixture::machine() }
    }

    fn find(machine: &MachineState, device: u32, arch: Option<&str>) -> Result<String, String> {
        let arch = arch.map(|arch| arch.parse().unwrap());
        let requested = RequestedGpu { board: "shelf", processor: "gpu", device, arch };
        let found = requested.find(machine).map(|(arch, gpu)| format!("{arch} on {}", gpu.device.arch));
        found.map_err(|failure| {
            assert_eq!(failure.exit, Exit::Board);
            failure.to_string()
        })
    }

    #[test]
    fn the_architecture_is_that_of_the_device_or_an_older_one() {
        let board = machine(&["sm_62", "sm_86"], 11_040);
        assert_eq!(find(&board, 0, None).as_deref(), Ok("sm_62 on sm_62"));
        assert_eq!(find(&board, 1, None).as_deref(), Ok("sm_75 on sm_86"));
        assert_eq!(find(&board, 1, Some("sm_53")).as_deref(), Ok("sm_53 on sm_86"));
    }

    #[test]
    fn an_unusable_gpu_is_an_error_with_a_remedy() {
        let no_driver = fixture::machine();
        let mut broken = machine(&[], 10_020);
        if let Some(cuda) = &mut broken.cuda {
            cuda.problem = Some("cuInit failed: CUDA_ERROR_UNKNOWN".to_owned());
        }
        let table = [
            (&no_driver, 0, None, "the board has no NVIDIA driver (libcuda.so.1); install"),
            (&broken, 0, None, "has no device 0: cuInit failed: CUDA_ERROR_UNKNOWN; fix this, or remove gpu"),
            (&machine(&["sm_62"], 10_020), 1, None, "has no device 1: its only device is 0"),
            (
                &machine(&["sm_62"], 10_020),
                0,
                Some("sm_72"),
                "does not run code for sm_72; write `arch: sm_62`",
            ),
            (&machine(&["sm_50"], 10_020), 0, None, "is sm_50, and the compiler supports sm_53 and later"),
            (
                &machine(&["sm_87"], 10_020),
                0,
                None,
                "code for sm_87 is PTX 7.4, which drivers since CUDA 11.4 load, and the driver libcuda.so.1 supports CUDA 10.2",
            ),
        ];
        for (machine, device, arch, said) in table {
            let error = find(machine, device, arch).unwrap_err();
            assert!(error.starts_with("failed to use the GPU gpu of the board shelf: "), "{error}");
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_gpu_is_fed_by_free_cpus_or_by_the_slowest() {
        let mut board = fixture::machine();
        let cpu = board.cpus[0].clone();
        let make = |id: u32| Cpu { id, capacity: Some(if id < 2 { 1024 } else { 512 }), ..cpu.clone() };
        (board.cpus, board.allowed_cpus) = ((0..6).map(make).collect(), (0..6).collect());
        for (taken, expected) in [
            (&[&[0, 1][..], &[2, 3]][..], &[4, 5][..]),
            (&[&[0, 1], &[2, 3, 4, 5]], &[2, 3, 4, 5]),
            (&[&[0, 1], &[2, 3], &[4, 5]], &[2, 3]),
            (&[], &[0, 1, 2, 3, 4, 5]),
        ] {
            assert_eq!(feeding_cpus(&board, taken), expected, "{taken:?}");
        }
        board.cpus[5].online = false;
        assert_eq!(feeding_cpus(&board, &[&[0, 1], &[2, 3, 4]]), [2, 3, 4]);
    }
}
