//! Patterns in OpenSSH's files.

/// `*` matches any text, `?` any character.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        if pattern.get(at) == Some(&'*') {
            star = Some((at, from));
            at += 1;
        } else if pattern.get(at).is_some_and(|wanted| *wanted == '?' || *wanted == name[from]) {
            at += 1;
            from += 1;
        } else if let Some((star_at, star_from)) = star {
            (at, from) = (star_at + 1, star_from + 1);
            star = Some((star_at, star_from + 1));
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}
