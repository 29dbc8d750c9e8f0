//! The limits of the machine, measured in the same run.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Distribution, Tensor};
use serde::Serialize;

use crate::problems::weight_bytes;

/// Sizes of the square products. The fastest is used, which is not always the largest.
const MATMUL_SIZES: [usize; 3] = [512, 1024, 2048];
const MATMUL_CALLS: usize = 4;

const READ_TIME: Duration = Duration::from_millis(30);

/// The fastest matrix product.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Matmul {
    /// Rows and columns of both factors.
    pub size: usize,
    /// Billions of multiplications and additions per second.
    pub gflops: f64,
}

/// The fastest of some large products of Burn on `device`.
///
/// # Arguments
/// * `device` - without autodiff
pub fn matmul(device: &Device) -> Matmul {
    let rates = MATMUL_SIZES.map(|size| {
        let draw = || Tensor::<2>::random([size, size], Distribution::Default, device);
        let (a, b) = (draw(), draw());
        let seconds = (0..MATMUL_CALLS).map(|_| {
            let start = Instant::now();
            let product = a.clone().matmul(b.clone());
            device.sync().expect("the device finishes the product");
            drop(product);
            start.elapsed().as_secs_f64()
        });
        let best = seconds.fold(f64::INFINITY, f64::min);
        Matmul {
            size,
            gflops: 2.0 * (size as f64).powi(3) / best * 1e-9,
        }
    });
    let faster = |a: Matmul, b: Matmul| if b.gflops > a.gflops { b } else { a };
    rates.into_iter().reduce(faster).expect("there are sizes")
}

/// The read bandwidth of all cores together, for as many bytes as an LSTM has recurrent weights.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Read {
    /// Units of that LSTM.
    pub d_hidden: usize,
    /// Bytes of its recurrent weights.
    pub bytes: usize,
    /// Billions of bytes per second.
    pub gbytes_per_s: f64,
}

/// Reads the bytes repeatedly, each core its share. They come from the caches if they fit, as in the steps of an
/// LSTM.
pub fn read(d_hidden: usize) -> Read {
    let bytes = weight_bytes(d_hidden);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let words = bytes / size_of::<u32>() / threads;
    let start = Barrier::new(threads);
    let reader = || {
        let share = vec![1_u32; words];
        black_box(sum(&share));
        start.wait();
        let (begin, mut read) = (Instant::now(), 0);
        while begin.elapsed() < READ_TIME {
            // Many reads per clock reading, so that the clock does not dominate a small share.
            for _ in 0..16 {
                black_box(sum(black_box(&share)));
                read += size_of_val(share.as_slice());
            }
        }
        read as f64 / begin.elapsed().as_secs_f64()
    };
    let rates: Vec<f64> = thread::scope(|scope| {
        let readers: Vec<_> = (0..threads).map(|_| scope.spawn(reader)).collect();
        let results = readers.into_iter().map(|reader| reader.join());
        results
            .map(|rate| rate.expect("a sum does not panic"))
            .collect()
    });
    Read {
        d_hidden,
        bytes,
        gbytes_per_s: rates.iter().sum::<f64>() * 1e-9,
    }
}

/// The sum of all words, the cheapest operation that reads them.
fn sum(words: &[u32]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide(words: &[u32]) -> u32 {
            sum_in_lanes(words)
        }
        // SAFETY: the processor has AVX2.
        return unsafe { wide(words) };
    }
    sum_in_lanes(words)
}

/// Independent sums, which the compiler keeps in vector registers.
#[inline(always)]
fn sum_in_lanes(words: &[u32]) -> u32 {
    let mut lanes = [0_u32; 64];
    let mut chunks = words.chunks_exact(lanes.len());
    for chunk in &mut chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(*word);
        }
    }
    let rest = chunks.remainder().iter();
    rest.chain(&lanes)
        .fold(0, |sum, word| sum.wrapping_add(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_words_are_read() {
        for count in [0, 1, 63, 64, 200] {
            let words: Vec<u32> = (0..count).collect();
            assert_eq!(sum(&words), words.iter().sum::<u32>());
            assert_eq!(sum_in_lanes(&words), sum(&words));
        }
    }

    #[test]
    fn a_rate_is_positive() {
        let _alone = crate::tasks::speed::one_at_a_time();
        let read = read(16);
        assert_eq!(read.bytes, 4 * 16 * 16 * 4);
        assert!(read.gbytes_per_s > 0.0);
    }
}
