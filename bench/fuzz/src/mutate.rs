//! Inputs changed at random, from a seed: what `cargo test` does without coverage to guide it.

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to choose changes.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`; 0 for 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.number().checked_rem(end as u64).unwrap_or(0) as usize
    }
}

/// Longest input that is made.
const INPUT_BYTES_MAX: usize = 16 * 1024;
/// Changes of one input.
const CHANGES_MAX: usize = 4;
/// Numbers at which off-by-one mistakes sit.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xfe, 0xff, 0x10, 0x40];

/// An input, changed a little: bits, bytes, lengths, pieces left out, doubled, or taken from another input.
pub fn mutate(random: &mut Random, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(CHANGES_MAX) {
        let place = random.below(bytes.len() + 1);
        let length = 1 + random.below(16).min(bytes.len().saturating_sub(place));
        match random.below(8) {
            0 | 1 if place < bytes.len() => bytes[place] ^= 1 << random.below(8),
            2 if place < bytes.len() => bytes[place] = EDGES[random.below(EDGES.len())],
            3 if place < bytes.len() => {
                bytes[place] = bytes[place].wrapping_add(random.below(5) as u8).wrapping_sub(2)
            }
            4 => drop(bytes.drain(place..(place + length).min(bytes.len()))),
            5 => {
                let piece: Vec<u8> = bytes[place..(place + length).min(bytes.len())].to_vec();
                bytes.splice(place..place, piece);
            }
            6 => {
                let from = random.below(other.len());
                let to = (from + 1 + random.below(64)).min(other.len());
                bytes.splice(place..place, other[from..to].iter().copied());
            }
            7 => bytes.truncate(place),
            _ => bytes.insert(place, random.number() as u8),
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}
