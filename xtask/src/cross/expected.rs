//! Guesses the target of a board from its file before the harness exists, so that the runner can be built at the same time.
//! The guess is right for files of the usual shape; the harness checks it once it is built.

use super::target::Target;
use crate::workspace::Workspace;
use std::fs;

/// The target of a board over SSH; `None`: it is another kind of board, a group, or a file of another shape.
pub(crate) fn expected(workspace: &Workspace, board: &str) -> Option<Target> {
    let path = workspace.root.join("configs/boards").join(format!("{board}.yaml"));
    read(&fs::read_to_string(path).ok()?)
}

fn read(text: &str) -> Option<Target> {
    let lines = text.lines().map(|line| match line.split_once(" #") {
        Some((before, _)) => before,
        None if line.starts_with('#') => "",
        None => line,
    });
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let value = |key: &str| {
        let after = text.split_once(key)?.1.trim_start_matches(' ');
        let word = after.split(|sign: char| sign.is_whitespace() || ",}".contains(sign)).next()?;
        let word = word.trim_matches(['"', '\'']);
        (!word.is_empty()).then(|| word.to_owned())
    };
    (text.contains("ssh:") || text.contains("labgrid:")).then_some(())?;
    Some(Target { triple: value("triple:")?, glibc: value("glibc:") })
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn both_spellings_of_a_target_are_read_and_other_boards_are_not() {
        let block = "connect:\n  ssh:\n    host: a  # triple: no\ntarget:\n  triple: aarch64-unknown-linux-gnu\n  \
                     glibc: \"2.27\"   # in quotes\n";
        let inline =
            "connect: { ssh: { host: a } }\ntarget: { glibc: '2.27', triple: aarch64-unknown-linux-gnu }\n";
        for text in [block, inline] {
            let target = read(text).unwrap();
            assert_eq!(
                (target.triple.as_str(), target.glibc.as_deref()),
                ("aarch64-unknown-linux-gnu", Some("2.27"))
            );
        }
        assert_eq!(read("connect: { ssh: { host: a } }\ntarget: { triple: t }\n").unwrap().glibc, None);
        for text in
            ["board: local\nconnect: local\n", "connect: { ssh: { host: a } }\n", "# ssh: triple: t\n", ""]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
