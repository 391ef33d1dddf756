//! Text that is as hard for an index and a compressor as that of language models:
//! words of a vocabulary drawn by Zipf's law.
//!
//! A long tape of words is drawn once, and every text is a part of it. A text costs one copy,
//! and its word counts follow from its position on the tape.

use rand::Rng;
use rand::distr::Distribution as _;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;

/// Different words on the tape.
const VOCABULARY: usize = 20_000;
/// Words on the tape.
const TAPE: usize = 2_000_000;

/// Rank of the word that nine of ten spans contain.
const COMMON_RANK: usize = 8;
/// Ranks of the words of the phrase: each is frequent, the sequence is not.
const PHRASE_RANKS: [usize; 3] = [40, 300, 120];

/// A word that is only in chosen spans: its letters are in no other word.
pub const RARE: &str = "xyloquartz";

/// The tape.
pub struct Words {
    /// The words and their separators, escaped as in a JSON string.
    text: String,
    /// The offset of each word.
    starts: Vec<usize>,
    /// Indexes of words at which the phrase occurs by chance.
    phrases: Vec<usize>,
    /// A word that nine of ten spans contain.
    pub common: String,
    /// Three consecutive words.
    pub phrase: String,
}

impl Words {
    pub fn new(rng: &mut StdRng) -> Self {
        let vocabulary = vocabulary(rng);
        let weights = (1..=VOCABULARY).map(|rank| 1.0 / rank as f64);
        let by_rank = WeightedIndex::new(weights).unwrap();
        let ranks: Vec<usize> = (0..TAPE).map(|_| by_rank.sample(rng)).collect();
        let mut words = Self {
            text: String::new(),
            starts: Vec::with_capacity(TAPE),
            phrases: (0..TAPE - 2)
                .filter(|at| ranks[*at..at + 3] == PHRASE_RANKS)
                .collect(),
            common: vocabulary[COMMON_RANK].clone(),
            phrase: PHRASE_RANKS.map(|rank| vocabulary[rank].clone()).join(" "),
        };
        for rank in ranks {
            words.starts.push(words.text.len());
            words.text.push_str(&vocabulary[rank]);
            words.text.push_str(match rng.random_range(0..60) {
                0 => ".\\n",
                1..=4 => ". ",
                5..=8 => ", ",
                9 => " \\\"",
                _ => " ",
            });
        }
        words
    }

    /// A text of at most `bytes` bytes but at least one word, and whether it contains the phrase.
    pub fn piece(&self, rng: &mut StdRng, bytes: usize) -> (&str, bool) {
        // No word with its separator is longer than 16 bytes.
        let first = rng.random_range(0..TAPE - bytes - 16);
        let start = self.starts[first];
        let end = self.starts.partition_point(|at| *at <= start + bytes) - 1;
        let end = end.max(first + 1);
        let next = self.phrases.partition_point(|at| *at < first);
        let holds_phrase = self.phrases.get(next).is_some_and(|at| at + 3 <= end);
        (&self.text[start..self.starts[end]], holds_phrase)
    }
}

/// Words of one to four syllables, the frequent ones short.
fn vocabulary(rng: &mut StdRng) -> Vec<String> {
    const CONSONANTS: &[u8] = b"bcdfghjklmnprstvw";
    const VOWELS: &[u8] = b"aeiou";
    let mut known = std::collections::HashSet::new();
    let mut words = Vec::with_capacity(VOCABULARY);
    while words.len() < VOCABULARY {
        let syllables = match words.len() {
            0..40 => 1,
            40..2_000 => 2,
            2_000..12_000 => 3,
            _ => 4,
        };
        let mut word = String::new();
        for _ in 0..syllables {
            word.push(char::from(
                CONSONANTS[rng.random_range(0..CONSONANTS.len())],
            ));
            word.push(char::from(VOWELS[rng.random_range(0..VOWELS.len())]));
        }
        if rng.random_bool(0.4) {
            word.push(char::from(
                CONSONANTS[rng.random_range(0..CONSONANTS.len())],
            ));
        }
        if known.insert(word.clone()) {
            words.push(word);
        }
    }
    words
}
