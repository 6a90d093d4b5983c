//! Checks that a program or library can run on a board, before it is copied there.

use config::{Target, Triple};
use object::Endianness;
use object::elf;
use object::read::elf::{ElfFile64, FileHeader as _, Sym as _};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A version of a library's interface, such as 2.27 or 3.4.25.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(Vec<u32>);

impl Version {
    /// Parses numbers separated by dots.
    pub fn parse(text: &str) -> Option<Self> {
        text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>().map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(u32::to_string).collect();
        out.write_str(&parts.join("."))
    }
}

/// The newest version of a library that a file needs, and a symbol that needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The version.
    pub version: Version,
    /// The first symbol that needs it, as named by the linker.
    pub symbol: String,
}

/// The requirements of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    /// Its path.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its architecture, as Rust names it if known.
    pub machine: String,
    /// Newest version of the C library; `None`: any version.
    pub glibc: Option<Need>,
    /// Newest version of the C++ library.
    pub glibcxx: Option<Need>,
}

/// A file cannot be used on a board.
#[derive(Debug, Error)]
pub enum BinaryError {
    /// It cannot be read.
    #[error("failed to read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// It is not a valid 64-bit ELF file.
    #[error("failed to read {} as a program or library: {reason}; build it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The error.
        reason: String,
    },
    /// It is for another processor.
    #[error(
        "failed to use {} on the board: it was built for {found}, but target.triple in the board file is for {wanted}",
        path.display()
    )]
    Machine {
        /// The file.
        path: PathBuf,
        /// Its architecture.
        found: String,
        /// The architecture of the board.
        wanted: &'static str,
    },
    /// It needs a newer library than the board has.
    #[error(transparent)]
    TooNew(Box<TooNew>),
}

/// A symbol that the board's library does not have.
#[derive(Debug, Error)]
#[error(
    "failed to use {} on the board: symbol {symbol} needs {library}_{needed}, but the board has at most \
     {library}_{limit} ({reason}); build it for that version, or fix target.glibc in the board file",
    path.display()
)]
pub struct TooNew {
    /// The file.
    pub path: PathBuf,
    /// The symbol that needs it.
    pub symbol: String,
    /// `GLIBC` or `GLIBCXX`.
    pub library: &'static str,
    /// The version that it needs.
    pub needed: Version,
    /// The version of the board.
    pub limit: Version,
    /// The source of that version.
    pub reason: String,
}

/// The C++ library that systems with a given C library have at least: the oldest long-lived release of a
/// distribution with that glibc. From the package lists of `CentOS` 7 (GCC 4.8), Ubuntu 16.04 (GCC 5), 18.04 (GCC 8),
/// 20.04 (GCC 10), 22.04 (GCC 12) and 24.04 (GCC 14), and GCC's table of versions (libstdc++ manual, "ABI Policy and
/// Guidelines").
const CXX_BY_GLIBC: [(&str, &str); 6] = [
    ("2.17", "3.4.19"),
    ("2.23", "3.4.21"),
    ("2.27", "3.4.25"),
    ("2.31", "3.4.28"),
    ("2.35", "3.4.30"),
    ("2.39", "3.4.33"),
];

/// The newest GLIBCXX that every board with this glibc has; `None` if the glibc is older than all in the table.
fn glibcxx_of(glibc: &Version) -> Option<Version> {
    let known = CXX_BY_GLIBC.iter().rev();
    known
        .filter_map(|(c, cxx)| Some((Version::parse(c)?, Version::parse(cxx)?)))
        .find(|(c, _)| c <= glibc)
        .map(|(_, cxx)| cxx)
}

impl Binary {
    /// Reads the requirements of a file.
    ///
    /// # Errors
    /// If it cannot be read or is not a 64-bit ELF file.
    pub fn read(path: &Path) -> Result<Self, BinaryError> {
        let data = fs::read(path).map_err(|error| BinaryError::Read { path: path.to_path_buf(), error })?;
        let damaged = |reason: String| BinaryError::Damaged { path: path.to_path_buf(), reason };
        let file = ElfFile64::<Endianness>::parse(&*data).map_err(|error| damaged(error.to_string()))?;
        let (glibc, glibcxx) = needs(&file, &data).map_err(|error| damaged(error.to_string()))?;
        let machine = file.elf_header().e_machine(file.endian());
        Ok(Self {
            path: path.to_path_buf(),
            bytes: data.len() as u64,
            machine: match machine {
                elf::EM_AARCH64 => "aarch64".to_owned(),
                elf::EM_X86_64 => "x86_64".to_owned(),
                other => format!("ELF machine {}", other.0),
            },
            glibc,
            glibcxx,
        })
    }

    /// Checks that the file can run on a board with this target.
    ///
    /// # Errors
    /// If it is for another architecture, or needs newer libraries than the target has.
    pub fn check(&self, target: &Target) -> Result<(), BinaryError> {
        let wanted = Triple::architecture(target.triple);
        if self.machine != wanted {
            let (path, found) = (self.path.clone(), self.machine.clone());
            return Err(BinaryError::Machine { path, found, wanted });
        }
        let Some(limit) = target.glibc.as_deref().and_then(Version::parse) else { return Ok(()) };
        let named = "target.glibc in the board file".to_owned();
        self.compare("GLIBC", self.glibc.as_ref(), &limit, named)?;
        let Some(limit_cxx) = glibcxx_of(&limit) else { return Ok(()) };
        let inferred = format!("usual for systems with glibc {limit}");
        self.compare("GLIBCXX", self.glibcxx.as_ref(), &limit_cxx, inferred)
    }

    fn compare(
        &self,
        library: &'static str,
        need: Option<&Need>,
        limit: &Version,
        reason: String,
    ) -> Result<(), BinaryError> {
        match need {
            Some(need) if need.version > *limit => Err(BinaryError::TooNew(Box::new(TooNew {
                path: self.path.clone(),
                symbol: need.symbol.clone(),
                library,
                needed: need.version.clone(),
                limit: limit.clone(),
                reason,
            }))),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            self.path.file_name().map_or_else(|| self.path.display(), |name| Path::new(name).display());
        write!(out, "{name}: {}, {:.1} MB", self.machine, self.bytes as f64 / 1e6)?;
        for (library, need) in [("GLIBC", &self.glibc), ("GLIBCXX", &self.glibcxx)] {
            if let Some(need) = need {
                write!(out, ", needs {library}_{}", need.version)?;
            }
        }
        Ok(())
    }
}

type File<'data> = ElfFile64<'data, Endianness>;

/// The newest GLIBC and GLIBCXX that undefined symbols need.
fn needs(file: &File<'_>, data: &[u8]) -> object::read::Result<(Option<Need>, Option<Need>)> {
    let (mut glibc, mut glibcxx): (Option<Need>, Option<Need>) = (None, None);
    let endian = file.endian();
    let Some(versions) = file.elf_section_table().versions(endian, data)? else {
        return Ok((None, None));
    };
    let symbols = file.elf_dynamic_symbol_table();
    for (index, symbol) in symbols.enumerate() {
        if !symbol.is_undefined(endian) {
            continue;
        }
        let Some(version) = versions.version(versions.version_index(endian, index).index())? else {
            continue;
        };
        let (Ok(version), Ok(name)) = (str::from_utf8(version.name()), symbols.symbol_name(endian, symbol))
        else {
            continue;
        };
        let (slot, number) = match version.split_once('_') {
            Some(("GLIBC", number)) => (&mut glibc, number),
            Some(("GLIBCXX", number)) => (&mut glibcxx, number),
            _ => continue,
        };
        let Some(version) = Version::parse(number) else { continue };
        if slot.as_ref().is_none_or(|known| known.version < version) {
            *slot = Some(Need { version, symbol: String::from_utf8_lossy(name).into_owned() });
        }
    }
    Ok((glibc, glibcxx))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(version("2.9") < version("2.27"));
        assert!(version("2.2.5") < version("2.17"));
        assert_eq!(Version::parse("2.x"), None);
    }

    #[test]
    fn the_c_plus_plus_library_is_that_of_the_same_age() {
        let table =
            [("2.16", None), ("2.27", Some("3.4.25")), ("2.30", Some("3.4.25")), ("2.41", Some("3.4.33"))];
        for (glibc, glibcxx) in table {
            assert_eq!(glibcxx_of(&version(glibc)), glibcxx.map(version), "{glibc}");
        }
    }

    /// This very test program: its C library is at least as new as any symbol in it.
    fn this_program() -> Binary {
        Binary::read(&std::env::current_exe().unwrap()).unwrap()
    }

    fn target(glibc: &str) -> Target {
        let triple = if cfg!(target_arch = "aarch64") { Triple::Arm } else { Triple::X86 };
        Target { triple, glibc: Some(glibc.to_owned()) }
    }

    #[test]
    fn a_program_is_read_with_the_symbol_that_asks_for_most() {
        let program = this_program();
        let need = program.glibc.clone().unwrap();
        assert!(need.version >= version("2.17") && !need.symbol.is_empty(), "{need:?}");
        assert_eq!(program.machine, std::env::consts::ARCH);
        program.check(&target(&need.version.to_string())).unwrap();
        let message = program.check(&target("2.1")).unwrap_err().to_string();
        assert!(message.contains(&need.symbol) && message.contains("at most GLIBC_2.1 "), "{message}");
    }

    #[test]
    fn messages() {
        let path = || PathBuf::from("target/edgepipe/cross/kit/runner");
        let errors = [
            BinaryError::Read { path: path(), error: std::io::Error::other("permission denied") },
            BinaryError::Damaged { path: path(), reason: "Unknown file magic".to_owned() },
            BinaryError::Machine { path: path(), found: "x86_64".to_owned(), wanted: "aarch64" },
            BinaryError::TooNew(Box::new(TooNew {
                path: path(),
                symbol: "pthread_create".to_owned(),
                library: "GLIBC",
                needed: version("2.34"),
                limit: version("2.27"),
                reason: "target.glibc in the board file".to_owned(),
            })),
        ];
        insta::assert_snapshot!(errors.map(|error| error.to_string()).join("\n\n"));
    }

    #[test]
    fn another_machine_and_what_is_no_program_are_refused() {
        let program = this_program();
        let other = if cfg!(target_arch = "aarch64") { Triple::X86 } else { Triple::Arm };
        let message = program.check(&Target { triple: other, glibc: None }).unwrap_err().to_string();
        assert!(message.contains("target.triple"), "{message}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        fs::write(&path, "no program").unwrap();
        assert!(matches!(Binary::read(&path), Err(BinaryError::Damaged { .. })));
        assert!(matches!(Binary::read(&folder.path().join("none")), Err(BinaryError::Read { .. })));
        let whole = fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in [16, 100, 5000, whole.len() / 2] {
            fs::write(&path, &whole[..length]).unwrap();
            // Cut off anywhere it is refused or read in part, but nothing panics.
            let _ = Binary::read(&path);
        }
    }
}
