//! The CUDA driver: `libcuda`, opened when a request first needs it. A board without it never runs any of this.

use super::super::loader::loader_message;
use super::api::{Api, CallError, Code, GraphApi};
use libloading::Library;
use std::ffi::{CStr, OsStr, c_char};
use std::sync::OnceLock;

/// The name under which every version of the driver is installed.
const LIBRARY: &str = "libcuda.so.1";
/// Names the library to open instead, for tests and virtual boards.
const LIBRARY_VARIABLE: &str = "EDGEPIPE_LIBCUDA";
/// Exported by edgepipe's stand-in only.
const STANDIN_SYMBOL: &str = "edgepipe_cuda_standin";

/// The driver of this process. It is never unloaded.
pub(super) struct Driver {
    /// Where it was found.
    pub(super) path: String,
    /// As 1000 × major + 10 × minor.
    pub(super) version: u32,
    pub(super) emulated: bool,
    pub(super) api: Api,
    /// Absent before CUDA 10.1.
    pub(super) graphs: Option<GraphApi>,
}

/// Why there is no driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoDriver {
    pub(super) path: String,
    /// 0 if the library did not answer.
    pub(super) version: u32,
    pub(super) emulated: bool,
    /// Whether there is no such library at all, which is usual on boards without an NVIDIA GPU.
    pub(super) is_absent: bool,
    /// The part of a message after the colon, with what to do.
    pub(super) reason: String,
}

impl Driver {
    /// The driver, opened and initialized by the first call.
    pub(super) fn get() -> Result<&'static Self, &'static NoDriver> {
        static DRIVER: OnceLock<Result<Driver, NoDriver>> = OnceLock::new();
        DRIVER.get_or_init(|| Self::open(std::env::var_os(LIBRARY_VARIABLE).as_deref())).as_ref()
    }

    fn open(requested: Option<&OsStr>) -> Result<Self, NoDriver> {
        let name = requested.unwrap_or(OsStr::new(LIBRARY));
        let shown = name.to_string_lossy().into_owned();
        // SAFETY: the initializers of the driver may run at any time.
        let library = unsafe { Library::new(name) }.map_err(|error| {
            let text = loader_message(&error);
            let is_absent = requested.is_none()
                && text.starts_with(&format!("{LIBRARY}: cannot open shared object file: No such file"));
            let reason = if is_absent {
                format!("this board has no {LIBRARY}; install NVIDIA's driver, or use CPUs only")
            } else if requested.is_some() {
                format!("{text}; correct {LIBRARY_VARIABLE}, which names it, or unset it")
            } else {
                format!("{text}; reinstall NVIDIA's driver")
            };
            NoDriver { path: shown.clone(), version: 0, emulated: false, is_absent, reason }
        })?;
        // It is never unloaded: the driver's own threads run its code until the process exits.
        let library: &'static Library = Box::leak(Box::new(library));
        let path = if requested.is_some() { shown } else { loaded_path().unwrap_or(shown) };
        // SAFETY: the symbol is looked up and not used.
        let emulated = unsafe { library.get::<*const ()>(STANDIN_SYMBOL.as_bytes()) }.is_ok();
        let fail = |version: u32, reason: String| NoDriver {
            path: path.clone(),
            version,
            emulated,
            is_absent: false,
            reason,
        };
        let api = Api::look_up(library).map_err(|symbol| {
            let reason = format!(
                "the driver has no function {symbol}; edgepipe needs a driver for CUDA 10.0 or later"
            );
            fail(0, reason)
        })?;
        let mut version = 0;
        // SAFETY: `version` is valid to write to. The function may be called before `cuInit`.
        let asked = unsafe { api.driver_version(&raw mut version) };
        asked.map_err(|error| fail(0, error.describe(&api)))?;
        let version = u32::try_from(version).unwrap_or(0);
        // SAFETY: it has no preconditions.
        unsafe { api.init(0) }
            .map_err(|error| fail(version, format!("{}; {}", error.describe(&api), advice(error.code))))?;
        Ok(Self { path, version, emulated, api, graphs: GraphApi::look_up(library, version) })
    }

    /// A failed call in words: the function, the driver's description, its name and number.
    pub(super) fn describe(&self, error: CallError) -> String {
        error.describe(&self.api)
    }

    /// Latest version of PTX that the driver reads, as (major, minor); `None` if it is not known here, because it reads
    /// all that the compiler writes. Source: PTX ISA, release notes.
    pub(super) fn latest_ptx(&self) -> Option<(u32, u32)> {
        let (major, minor) = (self.version / 1000, self.version % 1000 / 10);
        match major {
            0..=7 => Some((4, 3)),
            8 => Some((5, 0)),
            9 => Some((6, minor)),
            10 => Some((6, 3 + minor)),
            11 => Some((7, minor)),
            _ => None,
        }
    }
}

impl CallError {
    fn describe(self, api: &Api) -> String {
        let Self { symbol, code } = self;
        let text = |ask: &dyn Fn(*mut *const c_char) -> Result<(), CallError>| {
            let mut text: *const c_char = std::ptr::null();
            if ask(&raw mut text).is_err() || text.is_null() {
                return None;
            }
            // SAFETY: the driver returned a static string.
            let text = unsafe { CStr::from_ptr(text) };
            Some(text.to_string_lossy().into_owned())
        };
        // SAFETY: `to` is valid to write to.
        let name = text(&|to| unsafe { api.error_name(code, to) });
        // SAFETY: as above.
        let meaning = text(&|to| unsafe { api.error_text(code, to) });
        match (meaning, name) {
            (Some(meaning), Some(name)) => format!("{symbol} failed: {meaning} ({name}, {code})"),
            (None, Some(name)) => format!("{symbol} failed: {name} ({code})"),
            _ => format!("{symbol} failed with the unknown code {code}"),
        }
    }
}

/// What to do about an error that concerns the device or the driver.
pub(super) fn advice(code: Code) -> &'static str {
    match code {
        2 => "end other programs that use the GPU's memory",
        46 => {
            "another program holds the GPU in exclusive mode, or its compute mode prohibits use; end the program or \
               set the mode with `nvidia-smi --compute-mode 0`"
        }
        100 => {
            "check that a GPU is installed, that its kernel module is loaded, and that the user may open its device \
                files (on a Jetson: group `video`)"
        }
        803 | 804 => {
            "the driver's library and its kernel module have different versions; reboot, or reinstall the driver"
        }
        _ => "run `dmesg` for the kernel's messages, and reboot the board if the error stays",
    }
}

/// Whether the context is unusable after this error, so that all further calls fail. Source: CUDA Driver API,
/// descriptions of `CUresult`.
pub(super) fn is_fatal(code: Code) -> bool {
    matches!(code, 214 | 219 | 220 | 700 | 702 | 709 | 710 | 714..=719 | 721 | 999)
}

/// `10.2` of 10020.
pub(super) fn version_text(version: u32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Path of the driver's library, from the memory map.
fn loaded_path() -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let paths = maps.lines().filter_map(|line| line.find('/').map(|start| &line[start..]));
    let is_driver = |path: &&str| path.rsplit('/').next().is_some_and(|name| name.starts_with("libcuda.so"));
    paths.filter(is_driver).map(str::to_owned).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_without_the_library_has_no_driver_and_a_named_library_is_required() {
        let absent = Driver::open(Some("/nowhere/libcuda.so.1".as_ref())).err().unwrap();
        assert!(!absent.is_absent && absent.reason.contains("EDGEPIPE_LIBCUDA"), "{absent:?}");
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("libcuda.so.1");
        std::fs::write(&text, "text").unwrap();
        let invalid = Driver::open(Some(text.as_ref())).err().unwrap();
        assert!(!invalid.is_absent && invalid.reason.contains("libcuda.so.1"), "{invalid:?}");
    }

    #[test]
    fn a_library_without_the_driver_s_functions_is_refused() {
        let other = Driver::open(Some("libm.so.6".as_ref())).err().unwrap();
        assert_eq!(
            other.reason,
            "the driver has no function cuInit; edgepipe needs a driver for CUDA 10.0 or later"
        );
    }
}
