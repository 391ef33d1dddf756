//! A source of lines: a file, plain or gzip, or standard input; and how far it has been read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use flate2::bufread::MultiGzDecoder;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Longest line that is taken in. A span is far smaller; what has no line breaks at all must not
/// fill the memory.
const MAX_LINE: u64 = 32 << 20;

/// How far a source was imported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Imported {
    /// Bytes of lines, once decompressed.
    pub(super) bytes: u64,
    /// Lines.
    pub(super) lines: u64,
    pub(super) spans: u64,
    pub(super) evaluations: u64,
    /// Lines that could not be taken in.
    pub(super) refused: u64,
}

/// Which source a note is about: changed, it is another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    path: PathBuf,
    length: u64,
    modified_ms: u64,
}

/// Where it is noted how far a source was imported into a data folder.
pub(super) struct Note {
    file: PathBuf,
    identity: Identity,
}

#[derive(Serialize, Deserialize)]
struct Noted {
    source: Identity,
    done: Imported,
}

impl Note {
    /// The note of a source; `None` for standard input, which cannot be read again.
    pub(super) fn of(source: &Path, data_dir: &Path) -> io::Result<Option<Self>> {
        if source.as_os_str() == "-" {
            return Ok(None);
        }
        let found = std::fs::metadata(source)?;
        let modified = found.modified()?.duration_since(UNIX_EPOCH);
        let identity = Identity {
            path: source.canonicalize()?,
            length: found.len(),
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

    /// How far the source was imported when it was broken off.
    pub(super) fn read(&self) -> Option<Imported> {
        let text = std::fs::read(&self.file).ok()?;
        let noted: Noted = serde_json::from_slice(&text).ok()?;
        (noted.source == self.identity).then_some(noted.done)
    }

    pub(super) fn write(&self, done: &Imported) -> io::Result<()> {
        if let Some(folder) = self.file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let noted = Noted {
            source: self.identity.clone(),
            done: done.clone(),
        };
        let aside = self.file.with_extension("new");
        std::fs::write(&aside, serde_json::to_vec(&noted)?)?;
        std::fs::rename(aside, &self.file)
    }

    /// The source is done, or begun anew.
    pub(super) fn remove(&self) {
        // A note that stays is about a source that is wholly imported: reading it again is no harm.
        let _ = std::fs::remove_file(&self.file);
    }
}

/// A line, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text(Vec<u8>),
    /// Longer than is taken in; it was skipped.
    TooLong,
}

/// Reads lines.
pub(super) struct Lines {
    reader: Box<dyn BufRead>,
    /// Bytes read so far.
    pub(super) bytes: u64,
}

impl Lines {
    /// Opens a source; `bar` is moved by the bytes read of it.
    pub(super) fn open(source: &Path, bar: &ProgressBar) -> io::Result<Self> {
        let raw: Box<dyn Read> = if source.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            let file = File::open(source)?;
            bar.set_length(file.metadata()?.len());
            Box::new(file)
        };
        Self::of(bar.wrap_read(raw))
    }

    fn of(raw: impl Read + 'static) -> io::Result<Self> {
        const GZIP: [u8; 2] = [0x1f, 0x8b];
        let mut raw = BufReader::with_capacity(1 << 18, raw);
        // By its first bytes: a name can lie, and standard input has none.
        let reader: Box<dyn BufRead> = if raw.fill_buf()?.starts_with(&GZIP) {
            Box::new(BufReader::new(MultiGzDecoder::new(raw)))
        } else {
            Box::new(raw)
        };
        Ok(Self { reader, bytes: 0 })
    }

    /// Passes over what was imported before.
    pub(super) fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let mut before = (&mut self.reader).take(bytes);
        self.bytes += io::copy(&mut before, &mut io::sink())?;
        Ok(())
    }

    /// The next line without its break; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        let mut line = Vec::new();
        let read = (&mut self.reader)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)? as u64;
        self.bytes += read;
        if read == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            return Ok(Some(Line::Text(line)));
        }
        if read < MAX_LINE {
            return Ok(Some(Line::Text(line)));
        }
        self.pass_line()?;
        Ok(Some(Line::TooLong))
    }

    /// Reads to the end of the line without keeping it.
    fn pass_line(&mut self) -> io::Result<()> {
        loop {
            let held = self.reader.fill_buf()?;
            let end = held.iter().position(|byte| *byte == b'\n');
            let passed = end.map_or(held.len(), |at| at + 1);
            let done = end.is_some() || held.is_empty();
            self.reader.consume(passed);
            self.bytes += passed as u64;
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
        Lines::of(Cursor::new(bytes)).expect("opens")
    }

    fn text(line: &str) -> Option<Line> {
        Some(Line::Text(line.as_bytes().to_vec()))
    }

    #[test]
    fn plain_and_gzip_of_several_members_give_the_same_lines() {
        let packed = |text: &str| {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text.as_bytes()).expect("written");
            encoder.finish().expect("whole")
        };
        let members = [packed("one\ntw"), packed("o\n\nthree")].concat();
        for source in [b"one\ntwo\n\nthree".to_vec(), members] {
            let mut lines = lines(source);
            for expected in [text("one"), text("two"), text(""), text("three"), None] {
                assert_eq!(lines.next().expect("reads"), expected);
            }
            assert_eq!(lines.bytes, 14);
        }
    }

    #[test]
    fn what_was_imported_is_passed_over() {
        let mut lines = lines(b"one\ntwo\nthree".to_vec());
        lines.skip(4).expect("skips");
        assert_eq!(lines.next().expect("reads"), text("two"));
        assert_eq!(lines.bytes, 8);
    }

    #[test]
    fn a_line_without_end_is_skipped_and_the_next_one_is_read() {
        let mut long = vec![b'x'; usize::try_from(MAX_LINE).expect("fits") + 5];
        long.extend_from_slice(b"\nnext\n");
        let mut lines = lines(long);
        assert_eq!(lines.next().expect("reads"), Some(Line::TooLong));
        assert_eq!(lines.next().expect("reads"), text("next"));
    }

    #[test]
    fn a_note_is_about_one_state_of_one_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("x.ndjson");
        std::fs::write(&source, "{}\n").expect("written");
        let note = || {
            Note::of(&source, folder.path())
                .expect("there")
                .expect("a file")
        };
        assert_eq!(note().read(), None);
        let done = Imported {
            lines: 1,
            ..Imported::default()
        };
        note().write(&done).expect("noted");
        assert_eq!(note().read(), Some(done));
        std::fs::write(&source, "{}\n{}\n").expect("changed");
        assert_eq!(note().read(), None);
        note().remove();
        assert!(
            Note::of(Path::new("-"), folder.path())
                .expect("stdin")
                .is_none()
        );
    }
}
