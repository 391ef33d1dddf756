//! Request bodies, generated before the measurement and stored in files: generating them must
//! not compete with the measured program, and a million spans must not count as its memory.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::generator::{Facts, Generator};

/// Spans or evaluations in one request.
pub const BATCH: usize = 500;

/// A file of bodies, each preceded by its length.
#[derive(Debug, Clone)]
pub struct Bodies {
    file: PathBuf,
    /// The path that the bodies are sent to.
    pub path: &'static str,
    /// Spans or evaluations in all of them.
    pub items: usize,
}

/// All bodies of a run.
pub struct Data {
    pub spans: Bodies,
    pub evaluations: Bodies,
    /// Spans that are sent while searches run.
    pub further: Bodies,
    /// The expected counts over `spans`, without `further`.
    pub facts: Facts,
}

impl Data {
    /// Writes the bodies into a directory.
    pub fn make(directory: &Path, spans: usize) -> Self {
        let mut generator = Generator::new(spans);
        let sdk = "/api/v2/llmobs";
        let first = Bodies::write(
            directory.join("spans"),
            sdk,
            spans,
            generator.spans(spans),
            envelopes,
        );
        let evaluations = generator.evaluations();
        let evaluations = Bodies::write(
            directory.join("evaluations"),
            "/api/intake/llm-obs/v2/eval-metric",
            evaluations.len(),
            evaluations.into_iter(),
            metrics,
        );
        let facts = generator.facts.clone();
        let further = (spans / 5).max(10_000);
        let further = Bodies::write(
            directory.join("further"),
            sdk,
            further,
            generator.spans(further),
            envelopes,
        );
        Self {
            spans: first,
            evaluations,
            further,
            facts,
        }
    }
}

/// As the Python SDK sends it: an envelope for each span.
fn envelopes(spans: &[String]) -> String {
    let envelopes: Vec<String> = spans
        .iter()
        .map(|span| {
            format!(r#"{{"_dd.stage":"raw","_dd.tracer_version":"4.16.0","event_type":"span","spans":[{span}]}}"#)
        })
        .collect();
    format!("[{}]", envelopes.join(","))
}

fn metrics(metrics: &[String]) -> String {
    let metrics = metrics.join(",");
    format!(r#"{{"data":{{"type":"evaluation_metric","attributes":{{"metrics":[{metrics}]}}}}}}"#)
}

impl Bodies {
    fn write(
        file: PathBuf,
        path: &'static str,
        items: usize,
        mut all: impl Iterator<Item = String>,
        body: fn(&[String]) -> String,
    ) -> Self {
        let mut out = BufWriter::new(File::create(&file).unwrap());
        loop {
            let batch: Vec<String> = all.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            let body = body(&batch);
            let length = u32::try_from(body.len()).unwrap();
            out.write_all(&length.to_le_bytes()).unwrap();
            out.write_all(body.as_bytes()).unwrap();
        }
        out.flush().unwrap();
        Self { file, path, items }
    }

    /// The bodies in order.
    pub fn read(&self) -> impl Iterator<Item = Bytes> + Send + use<> {
        let mut file = BufReader::with_capacity(1 << 20, File::open(&self.file).unwrap());
        std::iter::from_fn(move || {
            let mut length = [0; 4];
            file.read_exact(&mut length).ok()?;
            let mut body = vec![0; u32::from_le_bytes(length) as usize];
            file.read_exact(&mut body).unwrap();
            Some(Bytes::from(body))
        })
    }
}
