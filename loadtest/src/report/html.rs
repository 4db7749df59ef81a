//! The report as one HTML page: tables, and plots drawn as SVG. It loads nothing from anywhere.

use std::fmt::Write;

use super::{Report, Row, Table, figure, goal_line};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1c2733}\
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}\
td,th{border-bottom:1px solid #d5dce3;padding:.25rem .6rem;text-align:right}\
td:first-child,th:first-child{text-align:left}\
svg{max-width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:#1c2733}\
.missed{color:#b3261e;font-weight:600}.met{color:#1b6e3c}\
@media(prefers-color-scheme:dark){body{background:#12181f;color:#dde5ec}svg text{fill:#dde5ec}td,th{border-color:#33404c}}";

const COLOURS: [&str; 8] =
    ["#6b7785", "#9aa5b1", "#0b6bcb", "#c2571a", "#1b7f4d", "#8a3ffc", "#b3261e", "#8c6d1f"];

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut out = String::new();
    write(report, &mut out).expect("writing to a string cannot fail");
    out
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let (name, machine) = (escaped(&report.name), &report.machine);
    writeln!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>{name}</title><style>{STYLE}</style><h1>{name}</h1>"
    )?;
    let (before, after) = machine.load;
    writeln!(
        out,
        "<p>{} cores, {}, load {before:.1} before and {after:.1} after, {:.0} s. Medians of interleaved rounds; thin lines span the lowest and highest round.</p>",
        machine.cores,
        escaped(&machine.kernel),
        machine.seconds
    )?;
    if !report.verdicts.is_empty() {
        writeln!(out, "<table><tr><th>goal<th>others<th>wanted<th>measured<th></tr>")?;
        for verdict in &report.verdicts {
            let class = if verdict.met { "met" } else { "missed" };
            let cells = goal_line(verdict).replace("**", "");
            let cells: Vec<_> = cells.trim_matches('|').split('|').map(str::trim).collect();
            let cells: String = cells.iter().map(|c| format!("<td>{}", escaped(c))).collect();
            writeln!(out, "<tr class=\"{class}\">{cells}</tr>")?;
        }
        writeln!(out, "</table>")?;
    }
    for table in &report.tables {
        write_table(table, out)?;
    }
    Ok(())
}

fn write_table(table: &Table, out: &mut String) -> std::fmt::Result {
    writeln!(out, "<h2>{}</h2>", escaped(&table.scenario))?;
    writeln!(
        out,
        "<table><tr><th>target<th>answers/s<th>× first<th>p50 µs<th>added µs<th>p99 µs<th>CPU s/10k<th>RSS MiB<th>KiB each<th>failed</tr>"
    )?;
    for row in &table.rows {
        writeln!(
            out,
            "<tr><td>{}<td>{:.0}<td>{:.2}<td>{:.0}<td>{:+.0}<td>{:.0}<td>{:.2}<td>{:.1}<td>{}<td>{}</tr>",
            escaped(&row.name),
            row.rate,
            row.share,
            row.p50_us,
            row.added_p50_us,
            row.p99_us,
            row.cpu_secs_per_10k,
            row.resident_mib,
            row.held_kib.map_or_else(String::new, figure),
            row.failed
        )?;
    }
    writeln!(out, "</table>")?;
    bars(out, "CPU seconds per 10,000 answers", &table.rows, |r| {
        (r.cpu_secs_per_10k, r.cpu_range)
    })?;
    bars(out, "Answers per second", &table.rows, |r| (r.rate, r.rate_range))?;
    curves(out, &table.rows)
}

/// Horizontal bars, with a thin line from the lowest to the highest round.
fn bars(
    out: &mut String,
    title: &str,
    rows: &[Row],
    value: impl Fn(&Row) -> (f64, (f64, f64)),
) -> std::fmt::Result {
    let most = rows.iter().map(|r| value(r).1.1).fold(0.0, f64::max);
    if most <= 0.0 {
        return Ok(());
    }
    let (left, width) = (220.0, 560.0);
    let height = 30 + 24 * rows.len();
    writeln!(
        out,
        "<svg viewBox=\"0 0 880 {height}\" width=\"880\" role=\"img\" aria-label=\"{title}\"><text x=\"0\" y=\"14\" font-weight=\"600\">{title}</text>"
    )?;
    for (at, row) in rows.iter().enumerate() {
        let (middle, (low, high)) = value(row);
        let y = 26 + 24 * at;
        let scale = |v: f64| v / most * width;
        let colour = COLOURS[at % COLOURS.len()];
        writeln!(
            out,
            "<text x=\"0\" y=\"{}\">{}</text><rect x=\"{left}\" y=\"{y}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\"/><line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{}\" y2=\"{}\" stroke=\"#888\"/><text x=\"{:.1}\" y=\"{}\">{}</text>",
            y + 12,
            escaped(&row.name),
            scale(middle),
            left + scale(low),
            left + scale(high),
            y + 7,
            y + 7,
            left + scale(high.max(middle)) + 8.0,
            y + 12,
            figure(middle)
        )?;
    }
    writeln!(out, "</svg>")
}

/// Latency by quantile: each step to the right is ten times as rare.
fn curves(out: &mut String, rows: &[Row]) -> std::fmt::Result {
    let (left, top, width, height) = (70.0, 30.0, 600.0, 240.0);
    let all = || rows.iter().flat_map(|row| row.curve.iter().map(|(_, us)| (*us).max(1) as f64));
    let (low, high) = all().fold((f64::INFINITY, 1.0), |(l, h), v| (l.min(v), f64::max(h, v)));
    if !low.is_finite() {
        return Ok(());
    }
    let (low, high) = (low.log10().floor(), high.log10().ceil().max(low.log10().floor() + 1.0));
    let x = |q: f64| left + (-(1.0 - q).max(1e-5).log10() / 5.0) * width;
    let y = |us: f64| top + height - (us.max(1.0).log10() - low) / (high - low) * height;
    writeln!(
        out,
        "<svg viewBox=\"0 0 880 310\" width=\"880\" role=\"img\" aria-label=\"Latency by quantile\"><text x=\"0\" y=\"14\" font-weight=\"600\">Latency by quantile, µs</text>"
    )?;
    for (q, label) in [(0.0, "0"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")] {
        writeln!(
            out,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{top}\" y2=\"{1}\" stroke=\"#8884\"/><text x=\"{0:.1}\" y=\"{2}\" text-anchor=\"middle\">{label} %</text>",
            x(q),
            top + height,
            top + height + 18.0
        )?;
    }
    let mut decade = low;
    while decade <= high {
        let at = y(10f64.powf(decade));
        writeln!(
            out,
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#8884\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{:.0}</text>",
            left + width,
            left - 8.0,
            at + 4.0,
            10f64.powf(decade)
        )?;
        decade += 1.0;
    }
    for (at, row) in rows.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let points: String = row
            .curve
            .iter()
            .map(|(q, us)| format!("{:.1},{:.1} ", x(*q), y((*us).max(1) as f64)))
            .collect();
        let legend = top + 16.0 * at as f64;
        writeln!(
            out,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/><rect x=\"690\" y=\"{legend}\" width=\"10\" height=\"10\" fill=\"{colour}\"/><text x=\"706\" y=\"{}\">{}</text>",
            legend + 10.0,
            escaped(&row.name)
        )?;
    }
    writeln!(out, "</svg>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
