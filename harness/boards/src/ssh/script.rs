//! Commands for a shell we do not choose. The login shell of a board's user may be bash, csh or fish, may print a banner,
//! and may stop at unset variables. So it gets one constant line that means the same in all of them
//! and starts `/bin/sh`; the real script follows on standard input.

/// The line for the login shell. Nothing in it is special to csh or fish: no quote within the quotes, no backslash,
/// no exclamation mark.
pub(super) const ENTRY: &str = "exec /bin/sh -c 'IFS= read -r script && eval \"$script\"'";

/// Printed by every script before anything else; what comes before it was printed by the shell's own start files.
pub(super) const MARK: &str = "edgepipe: begin";

/// A script as the first line of standard input.
pub(super) fn first_line(script: &str) -> String {
    debug_assert!(!script.contains('\n'), "a script is one line");
    format!("LC_ALL=C; export LC_ALL; set +eu; unset IFS; printf '%s\\n' '{MARK}'; {script}\n")
}

/// Text as one word of `/bin/sh`.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn quoted_text_reaches_a_program_unchanged() {
        for text in
            ["", "plain", "a b", "it's", "$(touch x)", "`id`", "a\"b", "\\", "!", "*", "-n", "é\t;&|<>#~"]
        {
            let output = Command::new("/bin/sh")
                .args(["-c", &format!("printf %s {}", quoted(text))])
                .output()
                .expect("a shell");
            assert_eq!(String::from_utf8_lossy(&output.stdout), text);
        }
    }
}
