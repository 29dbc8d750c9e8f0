//! A few threads that go through the same list of phases together.
//!
//! The work of a phase is cut into *shares*, one or a few per worker; a phase begins when all shares
//! of the one before are done. This is a barrier per time step, and a time step of a small layer
//! takes a microsecond: waiting is spinning, and no task is spawned per step. With several shares per
//! worker, one that is done with its own takes those that others have not begun: cores are not
//! equally fast where others use them too.
//!
//! Work that falls into independent *chains* needs no barrier at all ([`run_chains`]): whoever is free takes
//! the next link of the chain that is furthest behind.
//!
//! Nothing waits for a thread that has not come. Helpers are jobs in the caller's rayon pool, and
//! the caller begins at once: a share whose worker is absent is taken by whoever waits for it. So
//! there is no deadlock with a busy pool, with more workers than cores, or with many teams at a
//! time, and a worker that the system has put to sleep between two phases holds nobody up. Who takes
//! a share does not change what is computed in it: results do not depend on the number of threads.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Turns of a waiting loop before a share is taken from its worker: about 20 µs.
const PATIENCE: usize = 400;

/// How far a share is.
#[derive(Default)]
struct Share {
    /// The next phase that nobody has begun for this share. Nearly always one worker alone touches
    /// it, so it must not lie beside what the others watch: claiming would wait for their copies.
    claimed: Line<AtomicUsize>,
    /// Phases of this share that are done.
    done: Line<AtomicUsize>,
}

/// Something on cache lines of its own (processors fetch them in pairs).
#[repr(align(128))]
#[derive(Default)]
struct Line<T>(T);

/// `work(phase, share)`, borrowed from the caller's stack.
type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The same with the worker that does it.
type Link<'a> = dyn Fn(usize, usize, usize) + Sync + 'a;

struct Team<'a> {
    shares: Vec<Share>,
    /// Whether a worker itself is at work.
    present: Vec<Line<AtomicBool>>,
    phases: usize,
    work: &'a Link<'a>,
    panicked: AtomicBool,
}

/// Threads that may work on one call from here: those of the pool (`RAYON_NUM_THREADS`, or the
/// caller's own), at most one per core; half of them within [`side_by_side`].
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
    /// Most threads that calls from this thread may use.
    static LIMIT: core::cell::Cell<usize> = const { core::cell::Cell::new(usize::MAX) };
}

/// Runs two things at the same time, each with half of the threads; one after the other where there
/// is but one.
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

/// Runs something with at most so many threads.
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
/// * `shares` - as many as workers, or a multiple: then they are also taken by whoever is free
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

/// Runs `work(link, chain, worker)` for each link of each chain, the links of a chain in order, the chains
/// independently of each other. The third argument, below `workers`, is who does it: each worker is one
/// thread throughout.
///
/// A few more chains than workers keep all workers at work whatever their speed.
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

/// Calls `attend` with each worker, on the caller's thread and on those of the pool that come in time.
fn with_helpers(workers: usize, attend: &(dyn Fn(usize) + Sync)) {
    let crew = Crew { attend };
    let door = Arc::new(Door::default());
    for worker in 1..workers {
        call_helper(&crew, &door, worker);
    }
    // Also when the caller's own share panics, the helpers must be gone before the stack is.
    let close = CloseOnDrop(&door);
    attend(0);
    drop(close);
}

/// What helpers are called for.
struct Crew<'a> {
    attend: &'a (dyn Fn(usize) + Sync),
}

/// Lets helpers in until it is closed; then waits for those inside.
#[derive(Default)]
struct Door(AtomicUsize);

/// The bit of a closed door; the others count who is inside.
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

/// One turn of a waiting loop: spins at first, then lets others have the core.
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

/// Asks the pool for a thread that attends as `worker`.
fn call_helper(crew: &Crew<'_>, door: &Arc<Door>, worker: usize) {
    struct Pointer(*const Crew<'static>);
    // SAFETY: what the crew borrows is `Sync`; the pointer is followed only between `enter` and `leave`,
    // and the crew lives until the door is closed.
    unsafe impl Send for Pointer {}

    let pointer = Pointer(core::ptr::from_ref(crew).cast());
    let door = Arc::clone(door);
    let job = move || {
        // The whole struct, not its field: only the struct may go to another thread.
        let pointer = pointer;
        if !door.enter() {
            return; // the call is over
        }
        // SAFETY: `with_helpers` waits at the closed door until this thread has left, so the crew and
        // all that it borrows are alive.
        let attend = unsafe { (*pointer.0).attend };
        attend_guarded(attend, worker);
        door.leave();
    };
    spawn(Box::new(job));
}

/// A worker on a thread of the pool, which a panic must not take down while others wait for it.
fn attend_guarded(attend: &(dyn Fn(usize) + Sync), worker: usize) {
    #[cfg(feature = "std")]
    {
        // The message has been printed; the caller panics too.
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
    /// Passes on a panic of any worker.
    fn check(&self) {
        assert!(
            !self.panicked.load(Ordering::Acquire),
            "a thread of the recurrent kernel panicked"
        );
    }

    /// The shares of a worker.
    fn own(&self, worker: usize) -> Range<usize> {
        let each = self.shares.len() / self.present.len();
        worker * each..(worker + 1) * each
    }

    /// Works on the own shares of each phase that nobody else has taken, and on what others leave.
    fn attend(&self, worker: usize) {
        let own = self.own(worker);
        let present = &self.present[worker].0;
        loop {
            // Not written again where it is set: the line would have to come back from the others.
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
                // What others would begin last.
                for share in (0..self.shares.len()).rev() {
                    self.take(share, phase, worker);
                }
            }
        }
    }

    /// Takes links of the chains, which are the shares, until all are done: of the chain that is
    /// furthest behind and that nobody is at, its last one where there are several.
    fn follow(&self, worker: usize) {
        let chains = self.shares.len();
        let (mut own, mut turns) = (worker, 0);
        while !self.panicked.load(Ordering::Relaxed) {
            let mut next: Option<(usize, usize)> = None;
            let mut finished = 0;
            for chain in (0..chains).map(|i| (own + i) % chains) {
                let Share { claimed, done } = &self.shares[chain];
                // Also what the chain's last link wrote is seen from here on.
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

    /// Does a share of a phase unless it is taken already.
    fn take(&self, share: usize, phase: usize, worker: usize) -> bool {
        let Share { claimed, done } = &self.shares[share];
        // Asked first: a claim that fails would still take the line from its worker.
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
        // A share that panics is never done: those who wait for it must learn of it.
        let alarm = AlarmOnDrop(&self.panicked);
        (self.work)(phase, share, worker);
        core::mem::forget(alarm);
        done.0.store(phase + 1, Ordering::Release);
        true
    }

    /// Waits until all shares of the phases before `phase` are done, taking those that their workers
    /// do not come for. False if a thread has panicked.
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
                        // Asleep: not waited for again until it is seen.
                        present.0.store(false, Ordering::Relaxed);
                    }
                    relax(&mut turns);
                }
            }
        }
        true
    }
}
