//! The figures as tables, on standard output and in `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::measure::Times;

/// Upper bound of the 95th percentile of searches during ingest, in milliseconds.
const BUSY_TARGET_MS: f64 = 250.0;
/// Upper bound of the growth of search and look-up times from 200,000 to 1,000,000 spans.
const GROWTH_TARGET: f64 = 3.0;

/// Times of one search.
pub struct Timed {
    pub name: &'static str,
    pub target_ms: Option<f64>,
    pub quiet: Times,
    pub busy: Times,
    /// What was wrong with the response.
    pub verdict: Result<(), String>,
}

/// One figure that is not the time of a search.
pub struct Figure {
    pub name: &'static str,
    pub value: String,
    pub target: String,
    /// Whether the target is met; `None` without a target.
    pub met: Option<bool>,
}

/// All of one run.
pub struct Report {
    pub spans: usize,
    pub figures: Vec<Figure>,
    pub timed: Vec<Timed>,
    /// Cores used by other programs during the run.
    pub other_load: f64,
}

impl Report {
    /// The section of the document, without its heading.
    fn body(&self) -> String {
        let mut text = format!(
            "{}, {} cores, {}. The client that sends and asks ran on the same cores; other programs used {:.1} of them on average.\n\n",
            processor(),
            std::thread::available_parallelism().map_or(0, usize::from),
            jiff::Zoned::now().date(),
            self.other_load,
        );
        text.push_str("| what | measured | target | |\n|---|---:|---:|---|\n");
        for figure in &self.figures {
            let Figure {
                name,
                value,
                target,
                met,
            } = figure;
            let _ = writeln!(text, "| {name} | {value} | {target} | {} |", mark(*met));
        }
        text.push_str("\nTimes in milliseconds, from the request to the last byte of the answer; the median of an idle store, and p50 / p95 / max while four connections send at full speed.\n\n");
        text.push_str("| search | median | target | | during ingest | p95 < 250 |\n|---|---:|---:|---|---:|---|\n");
        for row in &self.timed {
            text.push_str(&row.line());
        }
        text
    }

    fn heading(&self) -> String {
        heading(self.spans)
    }

    pub fn print(&self) {
        println!("\n{}\n\n{}", self.heading(), self.body());
    }

    /// Writes the section into the document and updates the growth table.
    pub fn write(&self) {
        let file = document();
        let mut text = std::fs::read_to_string(&file).unwrap();
        replace_section(&mut text, &self.heading(), &self.body());
        if let Some(growth) = growth(&text) {
            replace_section(&mut text, GROWTH_HEADING, &growth);
        }
        std::fs::write(file, text).unwrap();
    }
}

fn heading(spans: usize) -> String {
    format!("## Local store, {} spans", grouped(spans))
}

const GROWTH_HEADING: &str = "## From 200,000 to 1,000,000 spans";

impl Timed {
    fn line(&self) -> String {
        let median = self.quiet.median();
        let met = match (&self.verdict, self.target_ms) {
            (Err(_), _) => Some(false),
            (Ok(()), target) => target.map(|target| median < target),
        };
        let busy = &self.busy;
        let slow = busy.percentile(95);
        let mut name = self.name.to_owned();
        if let Err(wrong) = &self.verdict {
            let _ = write!(name, " ({wrong})");
        }
        format!(
            "| {name} | {median:.2} | {} | {} | {:.0} / {slow:.0} / {:.0} | {} |\n",
            self.target_ms
                .map_or_else(String::new, |ms| format!("{ms:.0}")),
            mark(met),
            busy.median(),
            busy.percentile(100),
            mark((busy.count() > 0).then_some(slow < BUSY_TARGET_MS)),
        )
    }
}

fn mark(met: Option<bool>) -> &'static str {
    match met {
        None => "",
        Some(true) => "met",
        Some(false) => "**missed**",
    }
}

/// `1,000,000`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn document() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md")
}

/// The text between a heading and the next one.
fn section<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    let rest = &text[text.find(&format!("{heading}\n"))? + heading.len()..];
    Some(rest.find("\n## ").map_or(rest, |end| &rest[..end]))
}

/// Replaces the section with the same heading, or appends it.
fn replace_section(text: &mut String, heading: &str, body: &str) {
    let body = format!("\n\n{}\n", body.trim());
    match section(text, heading) {
        Some(old) => {
            let old = format!("{heading}{old}");
            *text = text.replace(&old, &format!("{heading}{body}"));
        }
        None => {
            let _ = write!(text, "\n{heading}{body}");
        }
    }
}

/// The growth of the searches with five times the spans, if both sizes were measured.
fn growth(text: &str) -> Option<String> {
    let small = medians(section(text, &heading(200_000))?);
    let large = medians(section(text, &heading(1_000_000))?);
    let mut table = String::from(
        "Medians of the two sections above. The target is for searches and look-ups.\n\n| search | 200,000 | 1,000,000 | ratio | < 3 |\n|---|---:|---:|---:|---|\n",
    );
    for (name, before) in small {
        let Some((_, after)) = large.iter().find(|(other, _)| *other == name) else {
            continue;
        };
        let ratio = after / before;
        let bounded = !name.starts_with("p95");
        let met = mark(bounded.then_some(ratio < GROWTH_TARGET));
        let _ = writeln!(
            table,
            "| {name} | {before:.2} | {after:.2} | {ratio:.1} | {met} |"
        );
    }
    Some(table)
}

/// The searches of a section with their medians.
fn medians(section: &str) -> Vec<(String, f64)> {
    let table = section.split("| search |").nth(1).unwrap_or_default();
    let rows = table.lines().skip(2).filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        Some((cells.next()?.to_owned(), cells.next()?.parse().ok()?))
    });
    rows.collect()
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    name.map_or("an unknown processor", |name| {
        name.trim_start_matches([' ', '\t', ':'])
    })
    .to_owned()
}
