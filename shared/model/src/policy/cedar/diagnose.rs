//! What Cedar's parser and type-checker say, for operators.

use miette::Diagnostic;

use super::super::guard;

/// Every message of a diagnostic with its place in the text, without quoting the text.
pub(super) fn diagnose(text: &str, error: &dyn Diagnostic) -> String {
    let mut all = vec![one_message(text, error)];
    for related in error.related().into_iter().flatten().take(9) {
        all.push(one_message(text, related));
    }
    all.dedup();
    all.join("; ")
}

fn one_message(text: &str, error: &dyn Diagnostic) -> String {
    let place = error.labels().and_then(|mut labels| labels.next());
    let place = place.map(|label| guard::position(text, label.offset()));
    let mut message: String = error.to_string();
    if message.len() > 400 {
        let cut = (0..=400).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(cut);
        message.push('…');
    }
    let help = error.help().map(|help| format!(" ({help})")).unwrap_or_default();
    match place {
        Some(place) => format!("{place}: {message}{help}"),
        None => format!("{message}{help}"),
    }
}
