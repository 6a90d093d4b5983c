//! Names like the one somebody asked for in vain.

/// At most this many names are offered.
const OFFERED: usize = 3;

/// The names nearest to `asked`, nearest first, in the order given where equally near. A name is offered where it
/// contains `asked`, or at most half of the longer of the two (and one letter) would have to change.
pub(crate) fn nearest<'a>(asked: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let asked_lower = asked.to_lowercase();
    let mut scored: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let distance = distance(&asked_lower, &lower);
            let longer = asked.chars().count().max(name.chars().count());
            let near = distance <= longer / 2 + 1 || (!asked.is_empty() && lower.contains(&asked_lower));
            near.then_some((distance, name))
        })
        .collect();
    scored.sort_by_key(|&(distance, _)| distance);
    scored.into_iter().take(OFFERED).map(|(_, name)| name.to_owned()).collect()
}

/// Fewest insertions, deletions and substitutions of characters (Levenshtein 1966), by the two-row method of
/// Wagner & Fischer 1974.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, letter) in left.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let change = above[column] + usize::from(letter != *other);
            current.push(change.min(above[column + 1] + 1).min(current[column] + 1));
        }
        above = current;
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let check = |left, right, wanted| assert_eq!(distance(left, right), wanted, "{left} {right}");
        check("", "", 0);
        check("abc", "", 3);
        check("", "abc", 3);
        check("kitten", "sitting", 3);
        check("layer3", "layer4", 1);
    }

    #[test]
    fn nearest_first_then_in_the_order_given() {
        let names = ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"];
        assert_eq!(nearest("layer9", names), ["layer1", "layer2", "layer3"]);
        assert_eq!(nearest("Layer3", names), ["layer3", "layer1", "layer2"]);
        assert!(nearest("something else", names).is_empty());
    }
}
