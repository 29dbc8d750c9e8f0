//! Damage to files.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Numbers that formats trip over.
const NUMBERS: [u64; 9] = [
    0,
    1,
    0x7f,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    u64::MAX,
];

/// A copy with one to four kinds of damage.
pub fn mutate(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    for _ in 0..rng.random_range(1..=4) {
        damage(&mut damaged, rng);
    }
    damaged
}

fn damage(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    if bytes.is_empty() {
        bytes.push(rng.random());
        return;
    }
    // Structure stands at the start (headers) and at the end (ZIP directories).
    let length = bytes.len();
    let at = match rng.random_range(0..4) {
        0 => rng.random_range(0..length.min(64)),
        1 => length - 1 - rng.random_range(0..length.min(512)),
        2 => rng.random_range(0..length.min(1024)),
        _ => rng.random_range(0..length),
    };
    match rng.random_range(0..8) {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << rng.random_range(0..8),
        2 => bytes[at] = rng.random(),
        3 => {
            let number = NUMBERS[rng.random_range(0..NUMBERS.len())].to_le_bytes();
            let width = [1, 2, 4, 8][rng.random_range(0..4usize)];
            let end = (at + width).min(length);
            bytes[at..end].copy_from_slice(&number[..end - at]);
        }
        4 => {
            let end = (at + rng.random_range(1..64)).min(length);
            bytes.drain(at..end);
        }
        5 => {
            let end = (at + rng.random_range(1..64)).min(length);
            let copy = bytes[at..end].to_vec();
            let to = rng.random_range(0..=length);
            bytes.splice(to..to, copy);
        }
        6 => {
            // A digit of a text header.
            let digits: Vec<usize> = (0..length.min(4096))
                .filter(|&i| bytes[i].is_ascii_digit())
                .collect();
            if let Some(&digit) = digits.get(rng.random_range(0..digits.len().max(1))) {
                bytes[digit] = b'0' + rng.random_range(0..10u8);
            }
        }
        _ => {
            let extra = rng.random_range(1..256);
            bytes.extend((0..extra).map(|_| rng.random::<u8>()));
        }
    }
}
