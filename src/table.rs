//! Columns for people.

/// Rows under a header, each column as wide as its widest cell, two spaces between.
pub fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let header = header.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += cell;
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A span of milliseconds, short: `350 ms`, `12 s`, `5 min`, `3 h`, `2 d`.
pub fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".into(), "long cell".into()], vec!["bcd".into(), "x".into()]];
        assert_eq!(columns(&["K", "V"], &rows), "K    V\na    long cell\nbcd  x\n");
        assert_eq!(columns(&["K"], &[]), "K\n");
    }

    #[test]
    fn spans_are_short() {
        for (ms, text) in [(0, "0 ms"), (1_500, "1 s"), (180_000, "3 min"), (172_800_000, "2 d")] {
            assert_eq!(span(ms), text);
        }
    }
}
