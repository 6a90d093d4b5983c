//! The environment variables of the user that programs started by edgepipe receive.
//!
//! Variables decide which library a program loads, where pip installs, how many threads a kernel uses, and which
//! repository git reads. A list of the dangerous ones is never complete, so [`command`] passes on a short list of
//! harmless ones and nothing else. xtask and the harness start every Python, pip, git and runner through this crate.

use std::ffi::{OsStr, OsString};
use std::process::Command;

/// Variables that every program may need: where to find programs and the user's files, and how to print.
const BASE: [&str; 20] = [
    "COLUMNS",
    "HOME",
    "LANG",
    "LANGUAGE",
    "LINES",
    "LOGNAME",
    "NO_COLOR",
    "PATH",
    "RUST_BACKTRACE",
    "SHELL",
    "TEMP",
    "TERM",
    "TMP",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
];

/// Beginnings of such names. `EDGEPIPE_` variables are edgepipe's own, `CUDA_STANDIN_` variables those of its emulated GPU.
const BASE_PREFIXES: [&str; 3] = ["CUDA_STANDIN_", "EDGEPIPE_", "LC_"];

/// Variables that decide how a download reaches its server. `*_proxy` is kept as well, in both spellings.
const NETWORK: [&str; 6] =
    ["CURL_CA_BUNDLE", "NETRC", "NIX_SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE"];

/// Options of pip, as environment variables, that decide where packages come from and how they are fetched. pip reads
/// every option from `PIP_*`; the others decide what is installed and where, which is edgepipe's to decide.
pub const PIP_SOURCES: [&str; 17] = [
    "PIP_CACHE_DIR",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONFIG_FILE",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_KEYRING_PROVIDER",
    "PIP_NO_CACHE_DIR",
    "PIP_NO_INDEX",
    "PIP_PROXY",
    "PIP_RESUME_RETRIES",
    "PIP_RETRIES",
    "PIP_TIMEOUT",
    "PIP_TRUSTED_HOST",
    "PIP_USE_FEATURE",
];

/// Variables that change what a Python interpreter, or the dynamic linker, loads. [`host_python`] removes these.
const LOADING_PREFIXES: [&str; 6] = ["DYLD_", "GLIBC_TUNABLES", "LD_", "PYTHON", "TVM_", "__PYVENV"];

/// A program that gets the base variables alone: runners, compilers, git.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    limited(program, is_base)
}

/// An interpreter of edgepipe's private Python environment. It uses UTF-8 whatever the locale is, writes no
/// `__pycache__`, and does not look for modules in the current directory (Python 3.11 or newer).
pub fn python(program: impl AsRef<OsStr>) -> Command {
    with_python_settings(command(program))
}

/// A program that downloads: also gets proxies and certificates.
pub fn download(program: impl AsRef<OsStr>) -> Command {
    limited(program, |name| is_base(name) || is_network(name))
}

/// The same as [`python`] for pip: also gets what decides where packages come from.
pub fn pip(program: impl AsRef<OsStr>) -> Command {
    let keep = |name: &str| is_base(name) || is_network(name) || PIP_SOURCES.contains(&name);
    with_python_settings(limited(program, keep))
}

/// An interpreter of this machine, possibly a version manager's script that needs variables of its own. It gets
/// everything but what changes which modules and libraries it loads.
pub fn host_python(program: impl AsRef<OsStr>) -> Command {
    limited(program, |name| !LOADING_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// git, which answers in English for the repository that it finds itself. `GIT_DIR`, `GIT_WORK_TREE`, `GIT_CONFIG_*` and
/// the rest do not reach it.
pub fn git() -> Command {
    let mut git = command("git");
    git.env("LC_ALL", "C");
    git
}

fn limited(program: impl AsRef<OsStr>, keep: impl Fn(&str) -> bool) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(kept(std::env::vars_os(), keep));
    command
}

/// The variables that pass. A name that is not UTF-8 is never passed on.
fn kept(
    variables: impl Iterator<Item = (OsString, OsString)>,
    keep: impl Fn(&str) -> bool,
) -> impl Iterator<Item = (OsString, OsString)> {
    variables.filter(move |(name, _)| name.to_str().is_some_and(&keep))
}

fn is_base(name: &str) -> bool {
    BASE.contains(&name) || BASE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn is_network(name: &str) -> bool {
    NETWORK.contains(&name) || name.to_ascii_lowercase().ends_with("_proxy")
}

fn with_python_settings(mut python: Command) -> Command {
    python.env("PYTHONUTF8", "1").env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONSAFEPATH", "1");
    python
}

#[cfg(test)]
mod tests {
    use super::{PIP_SOURCES, is_base, is_network, kept};
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    /// Variables that decide what is loaded, installed, linked or measured.
    const DECIDING: [&str; 44] = [
        "CFLAGS",
        "COMPILER_PATH",
        "CONDA_PREFIX",
        "CPATH",
        "DYLD_INSERT_LIBRARIES",
        "GCC_EXEC_PREFIX",
        "GIT_CEILING_DIRECTORIES",
        "GIT_CONFIG_GLOBAL",
        "GIT_DIR",
        "GIT_INDEX_FILE",
        "GIT_WORK_TREE",
        "GLIBC_TUNABLES",
        "GOMP_CPU_AFFINITY",
        "LDFLAGS",
        "LD_AUDIT",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "LIBRARY_PATH",
        "MALLOC_ARENA_MAX",
        "MALLOC_PERTURB_",
        "MKL_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "ORT_DYLIB_PATH",
        "PIP_CONSTRAINT",
        "PIP_DRY_RUN",
        "PIP_NO_DEPS",
        "PIP_PREFIX",
        "PIP_PYTHON",
        "PIP_REQUIRE_VIRTUALENV",
        "PIP_ROOT",
        "PIP_TARGET",
        "PIP_USER",
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION",
        "PYTHONHOME",
        "PYTHONINSPECT",
        "PYTHONOPTIMIZE",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PYTHONUSERBASE",
        "TVM_BIND_THREADS",
        "TVM_FFI_DISABLE_TORCH_C_DLPACK",
        "TVM_LIBRARY_PATH",
        "VIRTUAL_ENV",
    ];

    #[test]
    fn what_decides_is_dropped_and_what_serves_is_kept() {
        for name in DECIDING {
            assert!(!is_base(name) && !is_network(name) && !PIP_SOURCES.contains(&name), "{name}");
        }
        for name in ["PATH", "HOME", "TMPDIR", "LC_ALL", "EDGEPIPE_LOG", "XDG_STATE_HOME"] {
            assert!(is_base(name), "{name}");
        }
        for name in ["https_proxy", "NO_PROXY", "SSL_CERT_FILE"] {
            assert!(is_network(name) && !is_base(name), "{name}");
        }
        for name in ["PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_INDEX_URL"] {
            assert!(PIP_SOURCES.contains(&name), "{name}");
        }
    }

    #[test]
    fn values_that_are_not_utf_8_pass_and_such_names_do_not() {
        let odd = || OsString::from_vec(b"/tmp/\xff".to_vec());
        let variables = [("HOME".into(), odd()), (odd(), "x".into()), ("LD_PRELOAD".into(), "x".into())];
        let found: Vec<_> = kept(variables.into_iter(), is_base).collect();
        assert_eq!(found, [(OsString::from("HOME"), odd())]);
    }

    #[test]
    fn a_program_that_is_started_sees_no_other_variable() {
        // Cargo sets variables of its own for tests, CARGO_MANIFEST_DIR among them.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        let output = super::command("env").output().expect("env starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("PATH="), "{text}");
        let names = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
        for name in names {
            assert!(is_base(name) || ["PWD", "SHLVL", "_"].contains(&name), "{name}");
        }
        let output = super::git().arg("--version").output().expect("git starts");
        assert!(output.status.success());
    }
}
