//! What a runner is built for.

/// Platform of a board, from its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Rust's name of it.
    pub(crate) triple: String,
    /// Version of the board's C library; `None`: whatever zig takes by default.
    pub(crate) glibc: Option<String>,
}

impl Target {
    /// Reads `TRIPLE [GLIBC]`; an empty line is this machine.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let triple = words.next()?.to_owned();
        Some(Self { triple, glibc: words.next().map(str::to_owned) })
    }

    /// As the folder and zig's users call it: `aarch64-unknown-linux-gnu.2.27`.
    pub(crate) fn name(&self) -> String {
        match &self.glibc {
            Some(glibc) => format!("{}.{glibc}", self.triple),
            None => self.triple.clone(),
        }
    }

    /// The architecture, such as `aarch64`.
    pub(crate) fn architecture(&self) -> &str {
        self.triple.split('-').next().unwrap_or(&self.triple)
    }

    /// zig's name of it: `aarch64-linux-gnu.2.27`.
    pub(crate) fn zig_name(&self) -> String {
        let version = self.glibc.as_ref().map(|version| format!(".{version}")).unwrap_or_default();
        format!("{}-linux-gnu{version}", self.architecture())
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn targets_are_read_as_the_harness_prints_them() {
        let target = Target::parse("aarch64-unknown-linux-gnu 2.27\n").unwrap();
        assert_eq!(target.name(), "aarch64-unknown-linux-gnu.2.27");
        assert_eq!(target.architecture(), "aarch64");
        assert_eq!(Target::parse("x86_64-unknown-linux-gnu\n").unwrap().glibc, None);
        assert_eq!(Target::parse("\n"), None);
    }

    #[test]
    fn zig_is_told_the_version_of_the_c_library() {
        let name = |text: &str| Target::parse(text).unwrap().zig_name();
        assert_eq!(name("aarch64-unknown-linux-gnu 2.27"), "aarch64-linux-gnu.2.27");
        assert_eq!(name("aarch64-unknown-linux-gnu"), "aarch64-linux-gnu");
    }
}
