//! Guessing what a mistyped name was meant to be.
//!
//! Called where the configuration and the catalogue report unknown keys. Pure.

/// Returns `` (did you mean `x`?)`` for the candidate nearest to `name`, or nothing when none is near.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let nearest = candidates.into_iter().map(|candidate| (distance(name, candidate), candidate)).min();
    match nearest {
        Some((distance, candidate)) if distance <= 1 + name.len() / 6 => format!(" (did you mean `{candidate}`?)"),
        _ => String::new(),
    }
}

/// Returns the number of single-character edits between `a` and `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        for (name, expected) in [
            ("broker.prefetsch", " (did you mean `broker.prefetch`?)"),
            ("brokr.url", " (did you mean `broker.url`?)"),
            ("ably.kee", " (did you mean `ably.key`?)"),
            ("colour", ""),
        ] {
            assert_eq!(did_you_mean(name, ["broker.url", "broker.prefetch", "ably.key"]), expected);
        }
    }
}
