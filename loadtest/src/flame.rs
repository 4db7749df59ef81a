//! Flame graphs, from what `perf script` prints or from collapsed stacks, as one SVG that loads
//! nothing.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::BufRead;

/// One frame: how often it was seen, itself and all that it called.
#[derive(Debug, Default)]
pub struct Frame {
    samples: u64,
    callees: BTreeMap<String, Frame>,
}

/// Width of the picture and height of a frame, in pixels.
const WIDTH: f64 = 1_400.0;
const ROW: f64 = 17.0;
/// Frames that are narrower are left out.
const NARROW: f64 = 0.4;
/// Deeper frames are left out.
const DEPTH_MAX: usize = 120;

impl Frame {
    /// Reads samples: a line with the thread's name, then a line for each frame, innermost first,
    /// then an empty line.
    ///
    /// # Errors
    /// When the input cannot be read.
    pub fn read(input: impl BufRead) -> std::io::Result<Self> {
        let (mut root, mut stack) = (Self::default(), Vec::new());
        for line in input.lines() {
            let line = line?;
            if line.trim().is_empty() {
                root.add(&stack);
                stack.clear();
            } else if line.starts_with([' ', '\t']) {
                let name = line.trim().split_once(' ').map_or("[unknown]", |(_, name)| name);
                stack.push(shortened(name));
            } else {
                stack.clear();
                stack.push(line.trim().to_owned());
            }
        }
        root.add(&stack);
        Ok(root)
    }

    /// Reads collapsed stacks, one a line: `outermost;…;innermost COUNT`.
    ///
    /// # Errors
    /// When the input cannot be read.
    pub fn collapsed(input: impl BufRead) -> std::io::Result<Self> {
        let mut root = Self::default();
        for line in input.lines() {
            let line = line?;
            let Some((stack, count)) = line.rsplit_once(' ') else { continue };
            let Ok(count) = count.parse() else { continue };
            let frames = stack.split(';').map(shortened);
            root.count(frames, count);
        }
        Ok(root)
    }

    /// Adds a sample: the thread, then frames from the innermost outwards.
    fn add(&mut self, stack: &[String]) {
        let Some((thread, frames)) = stack.split_first() else { return };
        self.count(std::iter::once(thread).chain(frames.iter().rev()).cloned(), 1);
    }

    /// Adds what a stack, from the outermost frame inwards, was counted for.
    fn count(&mut self, stack: impl Iterator<Item = String>, count: u64) {
        self.samples += count;
        let mut at = self;
        for name in stack.take(DEPTH_MAX) {
            at = at.callees.entry(name).or_default();
            at.samples += count;
        }
    }

    /// Shares of all samples by function, itself and what it called, the largest first.
    pub fn inclusive(&self) -> Vec<(String, f64)> {
        let mut sums = BTreeMap::new();
        for (name, frame) in &self.callees {
            frame.sum(name, &mut Vec::new(), &mut sums);
        }
        let all = self.samples.max(1) as f64;
        let mut sums: Vec<_> = sums.into_iter().map(|(n, s)| (n, s as f64 / all)).collect();
        sums.sort_by(|a, b| b.1.total_cmp(&a.1));
        sums
    }

    fn sum<'a>(
        &'a self,
        name: &'a str,
        above: &mut Vec<&'a str>,
        sums: &mut BTreeMap<String, u64>,
    ) {
        // A function that calls itself counts once.
        if !above.contains(&name) {
            *sums.entry(name.to_owned()).or_default() += self.samples;
        }
        above.push(name);
        for (name, frame) in &self.callees {
            frame.sum(name, above, sums);
        }
        above.pop();
    }

    fn depth(&self) -> usize {
        self.callees.values().map(|frame| 1 + frame.depth()).max().unwrap_or(0)
    }

    /// The picture.
    pub fn svg(&self, title: &str) -> String {
        let height = ROW * (self.depth() as f64 + 2.0);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" font-family=\"monospace\" font-size=\"11\"><text x=\"4\" y=\"13\">{} ({} samples)</text>\n",
            escaped(title),
            self.samples
        );
        let scale = WIDTH / self.samples.max(1) as f64;
        self.draw(&mut out, (0.0, height - ROW), scale);
        out.push_str("</svg>\n");
        out
    }

    fn draw(&self, out: &mut String, (mut x, y): (f64, f64), scale: f64) {
        for (name, frame) in &self.callees {
            let width = frame.samples as f64 * scale;
            if width >= NARROW {
                let share = frame.samples as f64 * scale / WIDTH * 100.0;
                let fits = (width / 6.7) as usize;
                let label: String = name.chars().take(fits).collect();
                writeln!(
                    out,
                    "<g><title>{} {share:.1} %</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\" stroke=\"#fff\" stroke-width=\".4\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
                    escaped(name),
                    ROW - 1.0,
                    colour(name),
                    x + 2.0,
                    y + 12.0,
                    escaped(&label)
                )
                .expect("writing to a string cannot fail");
                frame.draw(out, (x, y - ROW), scale);
            }
            x += width;
        }
    }
}

/// Kernel, the gateway's own code, and libraries apart.
fn colour(name: &str) -> &'static str {
    let ours = ["data_plane::", "weir_"];
    match name {
        _ if ours.iter().any(|part| name.contains(part)) => "#f4a259",
        _ if name.contains("::") => "#f7d488",
        _ => "#a9c5d8",
    }
}

fn shortened(name: &str) -> String {
    name.replace("::{{closure}}", "").replace("{{vtable.shim}}", "")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "traffic \n\t ff b\n\t ff a\n\ntraffic \n\t ff a\n\t ff a\n\n";

    #[test]
    fn stacks_are_summed_from_the_outermost_frame() {
        let root = Frame::read(SCRIPT.as_bytes()).expect("samples");
        assert_eq!(root.samples, 2);
        let sums = root.inclusive();
        let share = |name: &str| sums.iter().find(|(n, _)| n == name).map(|(_, share)| *share);
        assert_eq!(share("traffic"), Some(1.0));
        assert_eq!(share("a"), Some(1.0), "a function within itself counts once");
        assert_eq!(share("b"), Some(0.5));
        assert!(root.svg("t").contains("b 50.0 %"));
    }

    #[test]
    fn collapsed_stacks_count_for_what_they_say() {
        let root = Frame::collapsed("main;a;b 3\nmain;a 1\n\n".as_bytes()).expect("stacks");
        assert_eq!(root.samples, 4);
        assert!(root.inclusive().contains(&("b".to_owned(), 0.75)));
    }
}
