//! The team of threads that runs a plan's steps.
//!
//! One `rayon::broadcast` carries the team through all steps of a plan: a fork and join for every
//! op would cost more than most ops of a single token. A step is cut into chunks, which threads take
//! from a counter. A step is over when all its *chunks* are done, not when all threads have arrived:
//! a thread that the system has put aside holds up nobody unless it holds a chunk, and catches up
//! when it returns. Who waits spins briefly, then sleeps.
//!
//! A chunk computes the same values whoever runs it, so results do not depend on the team's size.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use super::ops::{Scratch, Step};
use crate::backend::Inputs;

/// Turns of the waiting loop before a thread goes to sleep: some tens of microseconds.
const SPINS: u32 = 20_000;

/// Progress of one step.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Progress {
    next: AtomicUsize,
    done: AtomicUsize,
}

/// One run of a plan.
struct Job<'a> {
    steps: &'a [Box<dyn Step>],
    chunks: &'a [usize],
    progress: &'a [Progress],
    inputs: &'a Inputs,
    panicked: AtomicBool,
}

/// A pool of threads with one scratch memory each.
pub(crate) struct Team {
    pool: Option<rayon::ThreadPool>,
    scratch: Vec<Mutex<Scratch>>,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Team {
    /// A team of `threads` (at least one; one runs on the caller's thread).
    pub(crate) fn new(threads: usize) -> Result<Team, rayon::ThreadPoolBuildError> {
        let threads = threads.max(1);
        let pool = if threads == 1 {
            None
        } else {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|i| format!("chaski-{i}"))
                .build()?;
            Some(pool)
        };
        Ok(Team {
            pool,
            scratch: (0..threads).map(|_| Mutex::default()).collect(),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        })
    }

    /// Run `steps` in order with up to `threads` threads; `chunks[i]` is the number of chunks of
    /// step `i`. `progress` holds one entry a step.
    pub(crate) fn run(
        &self,
        threads: usize,
        steps: &[Box<dyn Step>],
        chunks: &[usize],
        progress: &[Progress],
        inputs: &Inputs,
    ) {
        let job = Job { steps, chunks, progress, inputs, panicked: AtomicBool::new(false) };
        for p in progress {
            p.next.store(0, Ordering::Relaxed);
            p.done.store(0, Ordering::Relaxed);
        }
        match &self.pool {
            Some(pool) if threads > 1 => {
                pool.broadcast(|cx| {
                    if cx.index() < threads {
                        self.work(cx.index(), &job);
                    }
                });
            }
            _ => {
                let mut scratch = self.scratch[0].lock().unwrap_or_else(PoisonError::into_inner);
                for (step, n) in steps.iter().zip(chunks) {
                    for chunk in 0..*n {
                        step.run(chunk, inputs, &mut scratch);
                    }
                }
            }
        }
    }

    fn work(&self, index: usize, job: &Job) {
        // A panic in a chunk (a bug) must not leave the others waiting for it for ever.
        struct Alarm<'a>(&'a AtomicBool, &'a Team);
        impl Drop for Alarm<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.store(true, Ordering::Release);
                    self.1.wake_all();
                }
            }
        }
        let _alarm = Alarm(&job.panicked, self);
        let mut scratch = self.scratch[index].lock().unwrap_or_else(PoisonError::into_inner);
        for ((step, &n), p) in job.steps.iter().zip(job.chunks).zip(job.progress) {
            loop {
                let chunk = p.next.fetch_add(1, Ordering::Relaxed);
                if chunk >= n {
                    break;
                }
                step.run(chunk, job.inputs, &mut scratch);
                // Release: whoever sees the last chunk done sees what all of them wrote.
                if p.done.fetch_add(1, Ordering::AcqRel) + 1 == n {
                    self.wake_all();
                }
            }
            let over = || p.done.load(Ordering::Acquire) >= n || job.panicked.load(Ordering::Acquire);
            self.wait(over);
            if job.panicked.load(Ordering::Acquire) {
                return;
            }
        }
    }

    /// Wait until `over`: spin briefly, then sleep.
    fn wait(&self, over: impl Fn() -> bool) {
        for _ in 0..SPINS {
            if over() {
                return;
            }
            std::hint::spin_loop();
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while !over() {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake_all(&self) {
        // A sleeper counts itself before it looks at the condition a last time under the lock, so
        // either it sees the step over or it is seen here.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_all();
        }
    }
}
