//! A team of threads that runs a list of phases.
//!
//! The work of a phase is divided into *shares*, one or a few per worker. A phase begins when all shares
//! of the previous one are done. That is a barrier per time step, and a time step of a small layer takes
//! a microsecond; so workers spin at the barrier, and no task is spawned per step. With several shares
//! per worker there is work stealing: a worker that has finished its own shares takes shares that other
//! workers have not started. This balances the load if cores differ in speed, for instance because other
//! programs use them too.
//!
//! Work that consists of independent *chains* needs no barrier ([`run_chains`]): an idle worker takes
//! the next link of the chain that is furthest behind.
//!
//! No worker waits for a thread that has not started. Helpers are jobs in the caller's rayon pool, and
//! the caller begins at once; a share whose worker is absent is taken by a worker that waits for it. So
//! there is no deadlock with a busy pool, with more workers than cores, or with several teams at the
//! same time, and a worker that the system preempts between two phases does not block the others. The
//! result of a share does not depend on the worker that runs it: results do not depend on the number of
//! threads.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Iterations of a waiting loop before a share is taken from its worker: about 20 µs.
const PATIENCE: usize = 400;

/// Progress of a share.
#[derive(Default)]
struct Share {
    /// The next phase of this share that is not claimed yet. It is nearly always accessed by one worker
    /// only, so it has a cache line separate from `done`, which the others poll: otherwise each claim
    /// would wait for the line.
    claimed: Line<AtomicUsize>,
    /// Number of phases of this share that are done.
    done: Line<AtomicUsize>,
}

/// A value with cache lines of its own, to avoid false sharing (processors fetch lines in pairs).
#[repr(align(128))]
#[derive(Default)]
struct Line<T>(T);

/// `work(phase, share)`, borrowed from the caller's stack.
type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// `work(phase, share, worker)`: also gets the worker that runs it.
type Link<'a> = dyn Fn(usize, usize, usize) + Sync + 'a;

struct Team<'a> {
    shares: Vec<Share>,
    /// Whether each worker is currently running.
    present: Vec<Line<AtomicBool>>,
    phases: usize,
    work: &'a Link<'a>,
    panicked: AtomicBool,
}

/// Number of threads that a call from this thread may use: those of the pool (`RAYON_NUM_THREADS`, or the
/// caller's own pool), at most one per core; half of them within [`side_by_side`].
pub fn available_threads() -> usize {
    #[cfg(feature = "rayon")]
    {
        static CORES: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
        let cores =
            CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, Into::into));
        let threads = rayon::current_num_threads().min(*cores);
        threads.min(LIMIT.get())
    }
    #[cfg(not(feature = "rayon"))]
    1
}

#[cfg(feature = "rayon")]
std::thread_local! {
    /// Maximum number of threads for calls from this thread.
    static LIMIT: core::cell::Cell<usize> = const { core::cell::Cell::new(usize::MAX) };
}

/// Runs two closures concurrently, each with half of the threads, or one after the other if only one
/// thread is available.
pub fn side_by_side<A: Send, B: Send>(
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B + Send,
) -> (A, B) {
    #[cfg(feature = "rayon")]
    if available_threads() > 1 {
        let threads = available_threads() / 2;
        return rayon::join(
            || with_limit(threads, first),
            || with_limit(threads, second),
        );
    }
    (first(), second())
}

/// Runs a closure with a limit on the number of threads.
#[cfg(feature = "rayon")]
fn with_limit<R>(threads: usize, run: impl FnOnce() -> R) -> R {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            LIMIT.set(self.0);
        }
    }
    let _restore = Restore(LIMIT.replace(threads));
    run()
}

/// Runs `work(phase, share)` for each phase in order and each share below `shares`.
///
/// # Arguments
/// * `shares` - the number of workers, or a multiple of it, which enables work stealing
///
/// # Panics
/// If `work` panics on any thread.
pub fn run(workers: usize, shares: usize, phases: usize, work: &Work<'_>) {
    debug_assert!(workers <= 1 || shares.is_multiple_of(workers));
    if workers <= 1 || phases == 0 {
        for phase in 0..phases {
            for share in 0..shares {
                work(phase, share);
            }
        }
        return;
    }
    let team = Team {
        shares: (0..shares).map(|_| Share::default()).collect(),
        present: (0..workers).map(|_| Line::default()).collect(),
        phases,
        work: &|phase, share, _| work(phase, share),
        panicked: AtomicBool::new(false),
    };
    with_helpers(workers, &|worker| team.attend(worker));
    team.check();
}

/// Runs `work(link, chain, worker)` for each link of each chain. The links of a chain run in order; the
/// chains are independent of each other. `worker`, below `workers`, is the worker that runs the link; each
/// worker is one thread throughout.
///
/// With a few more chains than workers, all workers stay busy even if they differ in speed.
///
/// # Panics
/// If `work` panics on any thread.
pub fn run_chains(workers: usize, chains: usize, links: usize, work: &Link<'_>) {
    if workers <= 1 || chains <= 1 {
        for chain in 0..chains {
            for link in 0..links {
                work(link, chain, 0);
            }
        }
        return;
    }
    let team = Team {
        shares: (0..chains).map(|_| Share::default()).collect(),
        present: Vec::new(),
        phases: links,
        work,
        panicked: AtomicBool::new(false),
    };
    with_helpers(workers.min(chains), &|worker| team.follow(worker));
    team.check();
}

/// Calls `attend` with each worker number, on the caller's thread and on the pool threads that start in
/// time.
fn with_helpers(workers: usize, attend: &(dyn Fn(usize) + Sync)) {
    let callback = Callback { attend };
    let door = Arc::new(Door::default());
    for worker in 1..workers {
        call_helper(&callback, &door, worker);
    }
    // If the caller's own share panics, the helpers must also leave before the stack is unwound.
    let close = CloseOnDrop(&door);
    attend(0);
    drop(close);
}

/// The work that helpers share.
struct Callback<'a> {
    attend: &'a (dyn Fn(usize) + Sync),
}

/// Admits helpers until it is closed; then waits for those that have entered.
#[derive(Default)]
struct Door(AtomicUsize);

/// The bit that marks the door as closed; the other bits count the helpers inside.
const CLOSED: usize = 1 << (usize::BITS - 1);

impl Door {
    fn enter(&self) -> bool {
        let mut state = self.0.load(Ordering::Acquire);
        while state & CLOSED == 0 {
            match self.0.compare_exchange_weak(
                state,
                state + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    fn leave(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    fn close(&self) {
        self.0.fetch_or(CLOSED, Ordering::AcqRel);
        let mut turns = 0;
        while self.0.load(Ordering::Acquire) != CLOSED {
            relax(&mut turns);
        }
    }
}

struct CloseOnDrop<'a>(&'a Door);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct AlarmOnDrop<'a>(&'a AtomicBool);

impl Drop for AlarmOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// One iteration of a waiting loop: spins at first, then yields the core.
fn relax(turns: &mut usize) {
    *turns += 1;
    if *turns < PATIENCE {
        core::hint::spin_loop();
    } else {
        yield_now();
    }
}

fn yield_now() {
    #[cfg(feature = "std")]
    std::thread::yield_now();
    #[cfg(not(feature = "std"))]
    core::hint::spin_loop();
}

/// Requests a thread of the pool that runs `attend` as `worker`.
fn call_helper(callback: &Callback<'_>, door: &Arc<Door>, worker: usize) {
    struct Pointer(*const Callback<'static>);
    // SAFETY: what the callback borrows is `Sync`; the pointer is dereferenced only between `enter` and
    // `leave`, and the callback lives until the door is closed.
    unsafe impl Send for Pointer {}

    let pointer = Pointer(core::ptr::from_ref(callback).cast());
    let door = Arc::clone(door);
    let job = move || {
        // Captures the whole struct, not its field: only the struct is `Send`.
        let pointer = pointer;
        if !door.enter() {
            return; // the call is over
        }
        // SAFETY: `with_helpers` waits at the closed door until this thread has left, so the callback and
        // all that it borrows are alive.
        let attend = unsafe { (*pointer.0).attend };
        attend_guarded(attend, worker);
        door.leave();
    };
    spawn(Box::new(job));
}

/// Runs a worker on a pool thread and catches a panic, since other workers wait for it.
fn attend_guarded(attend: &(dyn Fn(usize) + Sync), worker: usize) {
    #[cfg(feature = "std")]
    {
        // The panic message has been printed; the caller panics too.
        let attend = std::panic::AssertUnwindSafe(|| attend(worker));
        drop(std::panic::catch_unwind(attend));
    }
    #[cfg(not(feature = "std"))]
    attend(worker);
}

fn spawn(job: Box<dyn FnOnce() + Send>) {
    #[cfg(feature = "rayon")]
    rayon::spawn(job);
    #[cfg(not(feature = "rayon"))]
    drop(job);
}

impl Team<'_> {
    /// Propagates a panic of any worker.
    fn check(&self) {
        assert!(
            !self.panicked.load(Ordering::Acquire),
            "a thread of the recurrent kernel panicked"
        );
    }

    /// The shares assigned to a worker.
    fn own(&self, worker: usize) -> Range<usize> {
        let each = self.shares.len() / self.present.len();
        worker * each..(worker + 1) * each
    }

    /// Runs the worker's own shares of each phase, if they are not taken, and steals shares of other
    /// workers.
    fn attend(&self, worker: usize) {
        let own = self.own(worker);
        let present = &self.present[worker].0;
        loop {
            // Written only if it changes: a store would invalidate the line in the other cores' caches.
            if !present.load(Ordering::Relaxed) {
                present.store(true, Ordering::Relaxed);
            }
            let phase = self.shares[own.start].claimed.0.load(Ordering::Acquire);
            if !self.wait_until_done(worker, phase) || phase == self.phases {
                return;
            }
            for share in own.clone() {
                self.take(share, phase, worker);
            }
            if own.len() > 1 {
                // Starts with the share that its owner would begin last.
                for share in (0..self.shares.len()).rev() {
                    self.take(share, phase, worker);
                }
            }
        }
    }

    /// Runs links of the chains, which are the shares, until all are done. It picks the chain that is
    /// furthest behind and not claimed; among equals, the chain that this worker ran last.
    fn follow(&self, worker: usize) {
        let chains = self.shares.len();
        let (mut own, mut turns) = (worker, 0);
        while !self.panicked.load(Ordering::Relaxed) {
            let mut next: Option<(usize, usize)> = None;
            let mut finished = 0;
            for chain in (0..chains).map(|i| (own + i) % chains) {
                let Share { claimed, done } = &self.shares[chain];
                // Acquire: makes the writes of the chain's previous link visible.
                let link = done.0.load(Ordering::Acquire);
                if link == self.phases {
                    finished += 1;
                } else if claimed.0.load(Ordering::Relaxed) == link
                    && next.is_none_or(|(least, _)| link < least)
                {
                    next = Some((link, chain));
                }
            }
            match next {
                Some((link, chain)) => {
                    if self.take(chain, link, worker) {
                        (own, turns) = (chain, 0);
                    }
                }
                None if finished == chains => return,
                None => relax(&mut turns),
            }
        }
    }

    /// Runs a share of a phase unless it is already claimed. Returns whether it did.
    fn take(&self, share: usize, phase: usize, worker: usize) -> bool {
        let Share { claimed, done } = &self.shares[share];
        // A plain load first: a failed compare-exchange would still take the cache line from its owner.
        if claimed.0.load(Ordering::Relaxed) != phase {
            return false;
        }
        let claim =
            claimed
                .0
                .compare_exchange(phase, phase + 1, Ordering::AcqRel, Ordering::Relaxed);
        if claim.is_err() {
            return false;
        }
        // A share that panics is never marked as done, so the workers that wait for it need this flag.
        let alarm = AlarmOnDrop(&self.panicked);
        (self.work)(phase, share, worker);
        core::mem::forget(alarm);
        done.0.store(phase + 1, Ordering::Release);
        true
    }

    /// Waits until all shares of the phases before `phase` are done, and runs those whose workers are
    /// absent. Returns false if a thread has panicked.
    fn wait_until_done(&self, worker: usize, phase: usize) -> bool {
        for (owner, present) in self.present.iter().enumerate() {
            for share in self.own(owner) {
                let mut turns = 0;
                while self.shares[share].done.0.load(Ordering::Acquire) < phase {
                    if self.panicked.load(Ordering::Relaxed) {
                        return false;
                    }
                    let absent = owner == worker || !present.0.load(Ordering::Relaxed);
                    if (absent || turns >= PATIENCE)
                        && self.take(share, phase - 1, worker)
                        && owner != worker
                    {
                        // Probably preempted: treated as absent until it runs again.
                        present.0.store(false, Ordering::Relaxed);
                    }
                    relax(&mut turns);
                }
            }
        }
        true
    }
}
