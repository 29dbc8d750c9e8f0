//! Names on a command line: comparison, and suggestions for misspelt ones.

/// The form in which names are compared.
pub fn plain(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// The candidate with the smallest edit distance, if at least half of the letters stay.
pub fn nearest<'a>(got: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let got = plain(got);
    candidates
        .iter()
        .map(|candidate| {
            let likeness = strsim::normalized_damerau_levenshtein(&got, &plain(candidate));
            (likeness, *candidate)
        })
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}
