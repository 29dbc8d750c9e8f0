//! Several threads on one call: shares and phases of a team, results that do not depend on the number
//! of workers, panics, nested and busy pools, many calls at a time.
//!
//! No test measures time. A watchdog ends the process where a test hangs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;
use recurrent_core::cell::lstm::LstmStep;
use recurrent_core::cell::{Preactivation, Transition};
use recurrent_core::eval::compare::values;
use recurrent_core::fused::cpu::simd::Isa;
use recurrent_core::fused::cpu::team;
use recurrent_core::{SequenceOptions, Strategy, sequence};

#[allow(dead_code)] // not all of it is needed here
#[path = "common/mod.rs"]
mod common;
#[allow(dead_code)]
#[path = "kernels/problems.rs"]
mod problems;

use common::Random;
use problems::{Call, calls};

fn draw(random: &mut Random, count: usize) -> Vec<f32> {
    let list = random.values(count, 1.0);
    list.into_iter().map(|v| v as f32).collect()
}

/// Runs `test`, and aborts the process if it takes two minutes.
fn guarded<T>(name: &'static str, test: impl FnOnce() -> T) -> T {
    let (finished, wait) = mpsc::channel::<()>();
    thread::spawn(move || {
        if wait.recv_timeout(Duration::from_secs(120)) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs");
            std::process::abort();
        }
    });
    let result = test();
    drop(finished); // also where the test panics
    result
}

fn pool(threads: usize) -> rayon::ThreadPool {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().expect("a pool")
}

const MEMBERS: [usize; 6] = [1, 2, 3, 8, 33, 0];

/// Each share of each phase once, and no share before all of the phase before are done.
fn check_gang(workers: usize, phases: usize) {
    for each in [1, 3] {
        check_shares(workers, each * workers.max(1), phases);
    }
}

fn check_shares(workers: usize, shares: usize, phases: usize) {
    let done: Vec<AtomicUsize> = (0..phases).map(|_| AtomicUsize::new(0)).collect();
    let visits: Vec<AtomicUsize> = (0..phases * shares).map(|_| AtomicUsize::new(0)).collect();
    team::run(workers, shares, phases, &|phase, share| {
        if phase > 0 {
            let before = done[phase - 1].load(Ordering::Acquire);
            assert_eq!(before, shares, "phase {phase} began too early");
        }
        if phase + 1 < phases {
            assert_eq!(done[phase + 1].load(Ordering::Acquire), 0);
        }
        if (phase + share).is_multiple_of(13) {
            thread::yield_now();
        }
        visits[phase * shares + share].fetch_add(1, Ordering::Relaxed);
        done[phase].fetch_add(1, Ordering::AcqRel);
    });
    let once = visits
        .iter()
        .all(|count| count.load(Ordering::Relaxed) == 1);
    assert!(once, "{workers} workers, {shares} shares, {phases} phases");
}

/// Each link of each chain once, after the one before it, and a worker is one thread.
fn check_chains(workers: usize, chains: usize, links: usize) {
    let done: Vec<AtomicUsize> = (0..chains).map(|_| AtomicUsize::new(0)).collect();
    let at_work: Vec<AtomicUsize> = (0..workers.max(1)).map(|_| AtomicUsize::new(0)).collect();
    team::run_chains(workers, chains, links, &|link, chain, worker| {
        assert_eq!(
            at_work[worker].fetch_add(1, Ordering::AcqRel),
            0,
            "{worker}"
        );
        if (link + chain).is_multiple_of(13) {
            thread::yield_now();
        }
        let before = done[chain].fetch_add(1, Ordering::AcqRel);
        assert_eq!(before, link, "chain {chain}");
        at_work[worker].fetch_sub(1, Ordering::AcqRel);
    });
    for chain in done {
        assert_eq!(
            chain.into_inner(),
            links,
            "{workers} workers, {chains} chains"
        );
    }
}

#[test]
fn chains_in_order() {
    guarded("chains_in_order", || {
        for workers in MEMBERS {
            for chains in [0, 1, 2, 3, 9, 40] {
                for links in [0, 1, 30] {
                    check_chains(workers, chains, links);
                }
            }
        }
        for threads in [1, 2, 8] {
            pool(threads).install(|| {
                rayon::join(
                    || check_chains(3, 4, 50),
                    || rayon::join(|| check_chains(2, 3, 50), || check_chains(8, 9, 50)),
                );
                (0..24)
                    .into_par_iter()
                    .for_each(|k| check_chains(1 + k % 5, 2 + k % 7, 30));
            });
        }
    });
}

/// A worker that is slow leaves its links to the others; one that never comes holds nobody up.
#[test]
fn slow_links() {
    guarded("slow_links", || {
        let count = AtomicUsize::new(0);
        for threads in [1, 2] {
            pool(threads).install(|| {
                team::run_chains(3, 4, 20, &|_, _, worker| {
                    if worker == 1 {
                        thread::sleep(Duration::from_millis(2));
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                });
            });
        }
        assert_eq!(count.into_inner(), 160);
    });
}

#[test]
fn every_share_once_and_in_order() {
    guarded("every_share_once_and_in_order", || {
        for workers in MEMBERS {
            for phases in [0, 1, 2, 200] {
                check_gang(workers, phases);
            }
        }
    });
}

/// A worker that sleeps in its share, and ones that never come, do not stop the others for good.
#[test]
fn slow_and_absent_workers() {
    guarded("slow_and_absent_workers", || {
        let count = AtomicUsize::new(0);
        pool(1).install(|| {
            team::run(4, 4, 20, &|phase, share| {
                if share == phase % 4 {
                    thread::sleep(Duration::from_millis(2));
                }
                count.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(count.into_inner(), 80);
    });
}

#[test]
fn in_pools_of_all_sizes() {
    guarded("in_pools_of_all_sizes", || {
        for threads in [1, 2, 8] {
            let pool = pool(threads);
            for workers in MEMBERS {
                pool.install(|| check_gang(workers, 50));
            }
        }
    });
}

/// From inside of `join` and `par_iter`: all threads of the pool are callers at the same time.
#[test]
fn nested_in_a_pool() {
    guarded("nested_in_a_pool", || {
        for threads in [1, 2, 8] {
            pool(threads).install(|| {
                rayon::join(
                    || check_gang(3, 50),
                    || rayon::join(|| check_gang(2, 50), || check_gang(8, 50)),
                );
                (0..24)
                    .into_par_iter()
                    .for_each(|k| check_gang(1 + k % 5, 30));
            });
        }
    });
}

/// A team inside of a team's share.
#[test]
fn nested_in_a_gang() {
    guarded("nested_in_a_gang", || {
        for threads in [1, 2, 8] {
            pool(threads).install(|| team::run(3, 3, 4, &|_, _| check_gang(2, 10)));
        }
    });
}

/// Helpers that have no thread to run on are not waited for.
#[test]
fn in_a_busy_pool() {
    guarded("in_a_busy_pool", || {
        for threads in [1, 2, 8] {
            let pool = pool(threads);
            let (release, started) = (AtomicBool::new(false), AtomicUsize::new(0));
            pool.in_place_scope(|scope| {
                for _ in 1..threads {
                    scope.spawn(|_| {
                        started.fetch_add(1, Ordering::AcqRel);
                        while !release.load(Ordering::Acquire) {
                            thread::yield_now();
                        }
                    });
                }
                while started.load(Ordering::Acquire) < threads - 1 {
                    thread::yield_now();
                }
                // On the last thread of the pool.
                pool.install(|| check_gang(threads + 1, 50));
                release.store(true, Ordering::Release);
            });
        }
    });
}

/// A panic in any share arrives at the caller; the next team works.
#[test]
fn a_panic_reaches_the_caller() {
    guarded("a_panic_reaches_the_caller", || {
        for threads in [1, 2, 8] {
            let pool = pool(threads);
            for workers in [1, 2, 3, 8] {
                for bad in 0..workers {
                    for bad_phase in [0, 7, 19] {
                        let run = || {
                            team::run(workers, workers, 20, &|phase, share| {
                                assert!(phase != bad_phase || share != bad, "on purpose");
                                assert!(phase <= bad_phase, "a phase after the panic");
                            });
                        };
                        let result = pool.install(|| catch_unwind(AssertUnwindSafe(run)));
                        assert!(result.is_err(), "{threads} {workers} {bad} {bad_phase}");
                        let run = || {
                            team::run_chains(workers, workers, 20, &|link, chain, _| {
                                assert!(link != bad_phase || chain != bad, "on purpose");
                            });
                        };
                        let result = pool.install(|| catch_unwind(AssertUnwindSafe(run)));
                        assert!(result.is_err(), "{threads} {workers} {bad} {bad_phase}");
                    }
                }
                pool.install(|| check_gang(workers, 20));
            }
        }
    });
}

/// Batch, steps, input, hidden.
const SIZES: [[usize; 4]; 5] = [
    [5, 6, 7, 33],
    [1, 5, 3, 65],
    [13, 3, 17, 16],
    [2, 4, 5, 1],
    // More groups of sequences than workers.
    [17, 4, 9, 33],
];

/// Values and gradients do not depend on the number of workers, to the bit; nor do the parts of one
/// phase touch each other's results.
#[test]
fn workers_do_not_change_bits() {
    guarded("workers_do_not_change_bits", || {
        for isa in Isa::all() {
            for sizes in SIZES {
                for ragged in [false, true] {
                    for call in calls(sizes, ragged) {
                        let what =
                            |workers| format!("{isa:?}, {}, {sizes:?}, {workers}", call.name);
                        let expected = call.both(isa, 1);
                        let (inference, _) = call.forward(isa, 1, false);
                        for workers in [2, 3, 7] {
                            assert!(call.both(isa, workers) == expected, "{}", what(workers));
                            let (got, _) = call.forward(isa, workers, false);
                            assert!(got == inference, "{}", what(workers));
                        }
                    }
                }
            }
        }
    });
}

/// One sequence with weights too large to be packed, and rows enough for several chunks.
#[test]
fn workers_do_not_change_bits_of_large_calls() {
    guarded("workers_do_not_change_bits_of_large_calls", || {
        for sizes in [[1, 2, 9, 640], [10, 60, 5, 33], [18, 40, 5, 65]] {
            for call in calls(sizes, true) {
                let expected = call.both(Isa::best(), 1);
                let (inference, _) = call.forward(Isa::best(), 1, false);
                for workers in [2, 3] {
                    let what = format!("{}, {sizes:?}, {workers}", call.name);
                    assert!(call.both(Isa::best(), workers) == expected, "{what}");
                    let (got, _) = call.forward(Isa::best(), workers, false);
                    assert!(got == inference, "{what}");
                }
            }
        }
    });
}

/// Many callers at once, each with several workers, in the global pool and in one of their own.
#[test]
fn many_calls_at_once() {
    guarded("many_calls_at_once", || {
        let all: Vec<Call> = calls([5, 6, 7, 33], true);
        let expected: Vec<_> = all.iter().map(|call| call.both(Isa::best(), 1)).collect();
        let (all, expected) = (&all, &expected);
        let shared = &pool(2);
        thread::scope(|scope| {
            for caller in 0..8 {
                scope.spawn(move || {
                    for turn in 0..4 * all.len() {
                        let index = (turn + caller) % all.len();
                        let run = || all[index].both(Isa::best(), 1 + (turn + caller) % 4);
                        let got = match caller % 2 {
                            0 => run(),
                            _ => shared.install(run),
                        };
                        assert!(got == expected[index], "{}", all[index].name);
                    }
                });
            }
        });
    });
}

/// Whole models on threads of their own: output and gradient of one whose work is worth two threads.
#[test]
fn models_on_eight_threads() {
    const SIZE: [usize; 4] = [10, 30, 5, 33]; // B, T, I, H
    fn train(seed: u64) -> Vec<Vec<f64>> {
        let device = Device::flex().autodiff();
        let [b, t, i, h] = SIZE;
        let random = &mut Random::new(seed);
        let mut leaf = |rows: usize, columns: usize| {
            let list = draw(random, rows * columns);
            let flat = Tensor::<1>::from_floats(list.as_slice(), &device);
            flat.reshape([rows, columns])
                .mul_scalar(0.5)
                .detach()
                .require_grad()
        };
        let (x, w, r) = (leaf(t * b, i), leaf(i, 4 * h), leaf(h, 4 * h));
        let cell = LstmStep {
            preact: Preactivation::plain(w.clone(), r.clone(), None),
            transition: Transition::default(),
        };
        let options = SequenceOptions {
            strategy: Strategy::Fused,
            ..SequenceOptions::default()
        };
        let run = sequence::run(&cell, x.clone().reshape([t, b, i]), None, &options);
        let grads = (run.output.clone().square().sum() + run.state.cell.sum()).backward();
        let mut all = vec![values(&run.output)];
        all.extend([&x, &w, &r].map(|leaf| values(&leaf.grad(&grads).expect("a gradient"))));
        all
    }
    guarded("models_on_eight_threads", || {
        let expected: Vec<_> = (0..8).map(|seed| pool(1).install(|| train(seed))).collect();
        let expected = &expected;
        thread::scope(|scope| {
            for seed in 0..8 {
                scope.spawn(move || {
                    for _ in 0..6 {
                        assert!(train(seed) == expected[seed as usize], "model {seed}");
                    }
                });
            }
        });
        pool(8).install(|| {
            (0..16).into_par_iter().for_each(|k| {
                assert!(train(k % 8) == expected[k as usize % 8], "model {k}");
            });
        });
    });
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

#[test]
fn threads_are_those_of_the_pool() {
    assert_eq!(pool(1).install(team::available_threads), 1);
    assert_eq!(pool(2).install(team::available_threads), cores().min(2));
    // At most one per core.
    assert_eq!(
        pool(1000.min(4 * cores())).install(team::available_threads),
        cores()
    );
    let large = &calls([10, 60, 5, 33], false)[0].problem;
    assert_eq!(pool(1).install(|| large.workers()), 1);
    assert_eq!(pool(2).install(|| large.workers()), cores().min(2));
    for call in calls([1, 2, 3, 5], false) {
        assert_eq!(call.problem.workers(), 1, "too small to share");
    }
}

/// Two calls side by side have half of the threads each, also if one of them panics.
#[test]
fn side_by_side_halves_the_threads() {
    guarded("side_by_side_halves_the_threads", || {
        let pool = pool(2);
        pool.install(|| {
            let all = team::available_threads();
            let half = (all / 2).max(1);
            let got = team::side_by_side(team::available_threads, team::available_threads);
            assert_eq!(got, (half, half));
            let caught = catch_unwind(|| {
                team::side_by_side(|| panic!("one of the two"), team::available_threads)
            });
            assert!(caught.is_err());
            assert_eq!(team::available_threads(), all);
        });
    });
}

/// The variable is read once per process: it takes a process of its own.
#[test]
fn threads_of_the_environment() {
    let program = std::env::current_exe().expect("the test binary");
    for threads in [1, 2] {
        let output = Command::new(&program)
            .args(["--ignored", "--exact", "child_with_threads", "--nocapture"])
            .env("RAYON_NUM_THREADS", threads.to_string())
            .output()
            .expect("the test binary runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{threads}: {text}");
        assert!(text.contains("1 passed"), "{threads}: {text}");
    }
}

/// Run by the test above.
#[test]
#[ignore = "run in a process of its own, with RAYON_NUM_THREADS set"]
fn child_with_threads() {
    let threads = std::env::var("RAYON_NUM_THREADS").expect("set by the parent");
    let threads: usize = threads.parse().expect("a number");
    assert_eq!(team::available_threads(), threads.min(cores()));
    check_gang(3, 50);
    let call = &calls([10, 60, 5, 33], false)[0];
    assert_eq!(call.problem.workers(), threads.min(cores()));
}
