//! Suggestions for unknown names.

/// Most suggestions.
const MOST: usize = 3;

/// The names nearest to `wanted` by Levenshtein distance, nearest first, ties in the given order. A name is suggested if
/// it contains `wanted`, or if at most half of the longer name plus one letter differ.
pub(crate) fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let wanted_lower = wanted.to_lowercase();
    let mut scored: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let distance = strsim::levenshtein(&wanted_lower, &lower);
            let longer = wanted.chars().count().max(name.chars().count());
            let near = distance <= longer / 2 + 1 || (!wanted.is_empty() && lower.contains(&wanted_lower));
            near.then_some((distance, name))
        })
        .collect();
    scored.sort_by_key(|&(distance, _)| distance);
    scored.into_iter().take(MOST).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_first_then_in_the_order_given() {
        let names = ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"];
        assert_eq!(nearest("layer9", names), ["layer1", "layer2", "layer3"]);
        assert_eq!(nearest("Layer3", names), ["layer3", "layer1", "layer2"]);
        assert!(nearest("something else", names).is_empty());
    }
}
