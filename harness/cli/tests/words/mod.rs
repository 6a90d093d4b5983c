//! Phrases in text that people read.

/// Whether a text has this phrase. Reports wrap their lines, so a line may end within it.
pub(crate) fn says(text: &str, phrase: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    words(text).contains(&words(phrase))
}
