//! A source of lines (a plain or gzip file, or standard input), and the progress of its import.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use flate2::bufread::MultiGzDecoder;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The longest line, in bytes. A span is far smaller; a file without line breaks must not fill the
/// memory.
const MAX_LINE_BYTES: u64 = 32 << 20;

/// The progress of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImportProgress {
    /// Decompressed bytes.
    pub(super) bytes: u64,
    /// Lines.
    pub(super) lines: u64,
    pub(super) spans: u64,
    pub(super) evaluations: u64,
    /// Malformed lines.
    pub(super) refused: u64,
}

/// The identity of a source. A changed file is another source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SourceIdentity {
    path: PathBuf,
    length: u64,
    modified_ms: u64,
}

/// The file in the data directory that records the progress of an import.
pub(super) struct ProgressFile {
    file: PathBuf,
    identity: SourceIdentity,
}

#[derive(Serialize, Deserialize)]
struct ProgressRecord {
    source: SourceIdentity,
    done: ImportProgress,
}

impl ProgressFile {
    /// The progress file of a source; `None` for standard input, which cannot be read twice.
    pub(super) fn for_source(source: &Path, data_dir: &Path) -> io::Result<Option<Self>> {
        if source.as_os_str() == "-" {
            return Ok(None);
        }
        let metadata = std::fs::metadata(source)?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH);
        let identity = SourceIdentity {
            path: source.canonicalize()?,
            length: metadata.len(),
            modified_ms: modified
                .ok()
                .and_then(|since| u64::try_from(since.as_millis()).ok())
                .unwrap_or_default(),
        };
        let digest = Sha256::digest(identity.path.as_os_str().as_encoded_bytes());
        let name: String = digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let file = data_dir.join("imports").join(format!("{name}.json"));
        Ok(Some(Self { file, identity }))
    }

    /// The progress of the interrupted import of this source, if there is one.
    pub(super) fn read(&self) -> Option<ImportProgress> {
        let text = std::fs::read(&self.file).ok()?;
        let record: ProgressRecord = serde_json::from_slice(&text).ok()?;
        (record.source == self.identity).then_some(record.done)
    }

    pub(super) fn write(&self, done: &ImportProgress) -> io::Result<()> {
        if let Some(directory) = self.file.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let record = ProgressRecord {
            source: self.identity.clone(),
            done: done.clone(),
        };
        let temporary = self.file.with_extension("new");
        std::fs::write(&temporary, serde_json::to_vec(&record)?)?;
        std::fs::rename(temporary, &self.file)
    }

    /// Removes the file after a complete import.
    pub(super) fn remove(&self) {
        // A file that cannot be removed is harmless: it records a complete import.
        let _ = std::fs::remove_file(&self.file);
    }
}

/// A line, or a skipped one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text(Vec<u8>),
    /// Longer than the maximum; skipped.
    TooLong,
}

/// Reads lines.
pub(super) struct Lines {
    reader: Box<dyn BufRead>,
    /// Bytes read so far.
    pub(super) bytes: u64,
}

impl Lines {
    /// Opens a source. `bar` advances by the bytes read.
    pub(super) fn open(source: &Path, bar: &ProgressBar) -> io::Result<Self> {
        let raw: Box<dyn Read> = if source.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            let file = File::open(source)?;
            bar.set_length(file.metadata()?.len());
            Box::new(file)
        };
        Self::from_reader(bar.wrap_read(raw))
    }

    fn from_reader(raw: impl Read + 'static) -> io::Result<Self> {
        const GZIP: [u8; 2] = [0x1f, 0x8b];
        let mut raw = BufReader::with_capacity(1 << 18, raw);
        // The first bytes decide: a file name can be wrong, and standard input has none.
        let reader: Box<dyn BufRead> = if raw.fill_buf()?.starts_with(&GZIP) {
            Box::new(BufReader::new(MultiGzDecoder::new(raw)))
        } else {
            Box::new(raw)
        };
        Ok(Self { reader, bytes: 0 })
    }

    /// Skips the bytes that are already imported.
    pub(super) fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let mut imported = (&mut self.reader).take(bytes);
        self.bytes += io::copy(&mut imported, &mut io::sink())?;
        Ok(())
    }

    /// The next line without its break; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        let mut line = Vec::new();
        let read = (&mut self.reader)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)? as u64;
        self.bytes += read;
        if read == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            return Ok(Some(Line::Text(line)));
        }
        if read < MAX_LINE_BYTES {
            return Ok(Some(Line::Text(line)));
        }
        self.skip_line()?;
        Ok(Some(Line::TooLong))
    }

    /// Skips to the end of the line.
    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.reader.fill_buf()?;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let skipped = end.map_or(buffer.len(), |at| at + 1);
            let done = end.is_some() || buffer.is_empty();
            self.reader.consume(skipped);
            self.bytes += skipped as u64;
            if done {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write as _};

    fn lines(bytes: Vec<u8>) -> Lines {
        Lines::from_reader(Cursor::new(bytes)).expect("opens")
    }

    fn text(line: &str) -> Option<Line> {
        Some(Line::Text(line.as_bytes().to_vec()))
    }

    #[test]
    fn plain_and_multi_member_gzip_give_same_lines() {
        let compress = |text: &str| {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text.as_bytes()).expect("written");
            encoder.finish().expect("complete")
        };
        let members = [compress("one\ntw"), compress("o\n\nthree")].concat();
        for source in [b"one\ntwo\n\nthree".to_vec(), members] {
            let mut lines = lines(source);
            for expected in [text("one"), text("two"), text(""), text("three"), None] {
                assert_eq!(lines.next().expect("reads"), expected);
            }
            assert_eq!(lines.bytes, 14);
        }
    }

    #[test]
    fn skips_imported_bytes() {
        let mut lines = lines(b"one\ntwo\nthree".to_vec());
        lines.skip(4).expect("skips");
        assert_eq!(lines.next().expect("reads"), text("two"));
        assert_eq!(lines.bytes, 8);
    }

    #[test]
    fn skips_overlong_line() {
        let mut long = vec![b'x'; usize::try_from(MAX_LINE_BYTES).expect("fits") + 5];
        long.extend_from_slice(b"\nnext\n");
        let mut lines = lines(long);
        assert_eq!(lines.next().expect("reads"), Some(Line::TooLong));
        assert_eq!(lines.next().expect("reads"), text("next"));
    }

    #[test]
    fn progress_is_valid_for_unchanged_file_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let source = directory.path().join("x.ndjson");
        std::fs::write(&source, "{}\n").expect("written");
        let progress_file = || {
            ProgressFile::for_source(&source, directory.path())
                .expect("exists")
                .expect("a file")
        };
        assert_eq!(progress_file().read(), None);
        let done = ImportProgress {
            lines: 1,
            ..ImportProgress::default()
        };
        progress_file().write(&done).expect("recorded");
        assert_eq!(progress_file().read(), Some(done));
        std::fs::write(&source, "{}\n{}\n").expect("changed");
        assert_eq!(progress_file().read(), None);
        progress_file().remove();
        assert!(
            ProgressFile::for_source(Path::new("-"), directory.path())
                .expect("stdin")
                .is_none()
        );
    }
}
