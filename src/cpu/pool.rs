//! The team of threads that runs a plan's steps.
//!
//! One `rayon::broadcast` carries the team through all steps of a plan: a fork and join for every
//! op would cost more than most ops of a single token. Steps are cut into chunks, which threads take
//! from a counter. The team goes from [`Stage`] to stage: steps that need nothing of each other are
//! one, and so are small steps in a row. A stage is over when all its *chunks* are done, not when all
//! threads have arrived: a thread that the system has put aside holds up nobody unless it holds a
//! chunk, and catches up when it returns. Who waits spins briefly, then sleeps.
//!
//! A chunk computes the same values whoever runs it, so results do not depend on the team's size.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use super::ops::{Scratch, Step};
use crate::backend::Inputs;

/// Turns of the waiting loop before a thread goes to sleep: about a quarter of a millisecond where a turn was measured
/// (13 ns on a Sapphire Rapids server).
const SPINS: u32 = 20_000;

/// Steps between two meetings of the team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stage {
    steps: Range<usize>,
    /// All steps are small, and one thread runs them one after the other.
    in_a_row: bool,
}

impl Stage {
    /// The stages of one run: `groups` are neighbouring steps whose chunks may run in any order, `chunks[i]` is the number
    /// of chunks of step `i`.
    pub(crate) fn plan(groups: &[Range<usize>], chunks: &[usize], stages: &mut Vec<Stage>) {
        stages.clear();
        for group in groups {
            let small = chunks[group.clone()].iter().all(|n| *n <= 1);
            match stages.last_mut() {
                Some(last) if small && last.in_a_row => last.steps.end = group.end,
                _ => stages.push(Stage { steps: group.clone(), in_a_row: small }),
            }
        }
    }

    fn chunks(&self, job: &Job) -> usize {
        if self.in_a_row { 1 } else { job.chunks[self.steps.clone()].iter().sum() }
    }

    fn run(&self, mut chunk: usize, job: &Job, scratch: &mut Scratch) {
        for step in self.steps.clone() {
            let n = job.chunks[step];
            if self.in_a_row {
                (0..n).for_each(|chunk| job.steps[step].run(chunk, job.inputs, scratch));
            } else if chunk < n {
                return job.steps[step].run(chunk, job.inputs, scratch);
            } else {
                chunk -= n;
            }
        }
    }
}

/// Progress of one stage.
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
    stages: &'a [Stage],
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

    /// Run the `stages` of `steps` in order with up to `threads` threads; `chunks[i]` is the number of chunks of
    /// step `i`. `progress` holds one entry a stage, or more.
    pub(crate) fn run(
        &self,
        threads: usize,
        steps: &[Box<dyn Step>],
        chunks: &[usize],
        stages: &[Stage],
        progress: &[Progress],
        inputs: &Inputs,
    ) {
        let job = Job { steps, chunks, stages, progress, inputs, panicked: AtomicBool::new(false) };
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
                for stage in stages {
                    for chunk in 0..stage.chunks(&job) {
                        stage.run(chunk, &job, &mut scratch);
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
        for (stage, p) in job.stages.iter().zip(job.progress) {
            let n = stage.chunks(job);
            loop {
                let chunk = p.next.fetch_add(1, Ordering::Relaxed);
                if chunk >= n {
                    break;
                }
                stage.run(chunk, job, &mut scratch);
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

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicU64;
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use super::*;

    /// A value for each chunk, made from all values of the step before: a chunk that starts too early, runs twice or not
    /// at all changes everything after it.
    struct Mix {
        before: Arc<Vec<AtomicU64>>,
        mine: Arc<Vec<AtomicU64>>,
        fails_at: Option<usize>,
    }

    impl Step for Mix {
        fn chunks(&mut self, _: &Inputs) -> usize {
            self.mine.len()
        }
        fn run(&self, chunk: usize, _: &Inputs, _: &mut Scratch) {
            assert!(self.fails_at != Some(chunk), "a chunk that is meant to panic");
            let mut sum = self.mine[chunk].load(Ordering::Relaxed) ^ chunk as u64;
            for v in self.before.iter() {
                sum = (sum ^ v.load(Ordering::Relaxed)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
            }
            self.mine[chunk].store(sum, Ordering::Relaxed);
        }
    }

    struct Steps {
        all: Vec<Box<dyn Step>>,
        chunks: Vec<usize>,
        progress: Vec<Progress>,
        values: Vec<Arc<Vec<AtomicU64>>>,
    }

    /// As many steps as `lengths`, of so many chunks each (0 among them).
    fn steps(lengths: &[usize], fails_at: Option<(usize, usize)>) -> Steps {
        let new = |n: &usize| Arc::new((0..*n).map(|i| AtomicU64::new(i as u64)).collect::<Vec<_>>());
        let values: Vec<_> = lengths.iter().map(new).collect();
        let of_step = |i: usize| -> Box<dyn Step> {
            let fails_at = fails_at.filter(|(step, _)| *step == i).map(|(_, chunk)| chunk);
            // Chunks of one step run side by side: none reads what another of its step writes.
            let before = if i == 0 { Arc::default() } else { values[i - 1].clone() };
            Box::new(Mix { before, mine: values[i].clone(), fails_at })
        };
        let steps = (0..lengths.len()).map(of_step).collect();
        let progress = lengths.iter().map(|_| Progress::default()).collect();
        Steps { all: steps, chunks: lengths.to_vec(), progress, values }
    }

    impl Steps {
        fn run(&self, team: &Team, threads: usize) {
            let groups: Vec<_> = (0..self.all.len()).map(|i| i..i + 1).collect();
            let mut stages = Vec::new();
            Stage::plan(&groups, &self.chunks, &mut stages);
            team.run(threads, &self.all, &self.chunks, &stages, &self.progress, &Inputs::default());
        }
        fn bytes(&self) -> Vec<u64> {
            self.values.iter().flat_map(|v| v.iter().map(|x| x.load(Ordering::Relaxed))).collect()
        }
    }

    /// The result of `f`, or a failed test where it hangs.
    fn in_time<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, wait) = mpsc::channel();
        std::thread::spawn(move || done.send(f()));
        wait.recv_timeout(Duration::from_mins(2)).expect("the team hangs, or a panic came through")
    }

    #[test]
    fn tiny_steps_give_the_same_with_any_number_of_threads() {
        let lengths: Vec<usize> = (0..120).map(|i| i * 7 % 13).collect();
        let run = |threads| {
            in_time({
                let lengths = lengths.clone();
                move || {
                    let (team, steps) = (Team::new(threads).unwrap(), steps(&lengths, None));
                    (0..3).for_each(|_| steps.run(&team, threads));
                    steps.bytes()
                }
            })
        };
        let one = run(1);
        for threads in [2, 3, 8] {
            assert!(run(threads) == one, "{threads} threads");
        }
    }

    #[test]
    fn groups_are_stages_and_small_ones_in_a_row_are_one() {
        let mut stages = Vec::new();
        Stage::plan(&[0..1, 1..3, 3..5, 5..6, 6..7, 7..8], &[1, 4, 0, 1, 1, 1, 9, 1], &mut stages);
        let stage = |steps, in_a_row| Stage { steps, in_a_row };
        assert_eq!(
            stages,
            [stage(0..1, true), stage(1..3, false), stage(3..6, true), stage(6..7, false), stage(7..8, true)]
        );
    }

    #[test]
    fn a_group_runs_every_chunk_of_its_steps_once() {
        struct Count(Arc<Vec<AtomicU64>>);
        impl Step for Count {
            fn chunks(&mut self, _: &Inputs) -> usize {
                self.0.len()
            }
            fn run(&self, chunk: usize, _: &Inputs, _: &mut Scratch) {
                self.0[chunk].fetch_add(1, Ordering::Relaxed);
            }
        }
        let lengths = [5, 0, 9, 1, 40, 1, 0, 1];
        for threads in [1, 3] {
            let counts: Vec<Arc<Vec<_>>> =
                lengths.iter().map(|n| Arc::new((0..*n).map(|_| AtomicU64::new(0)).collect())).collect();
            let all: Vec<Box<dyn Step>> =
                counts.iter().map(|c| -> Box<dyn Step> { Box::new(Count(c.clone())) }).collect();
            let mut stages = Vec::new();
            Stage::plan(&[0..3, 3..5, 5..6, 6..8], &lengths, &mut stages);
            let progress: Vec<_> = stages.iter().map(|_| Progress::default()).collect();
            Team::new(threads).unwrap().run(threads, &all, &lengths, &stages, &progress, &Inputs::default());
            assert!(counts.iter().flat_map(|c| c.iter()).all(|n| n.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn a_team_runs_with_fewer_threads_than_it_has() {
        let team = Team::new(3).unwrap();
        let run = |threads| {
            let steps = steps(&[5, 1, 9], None);
            steps.run(&team, threads);
            steps.bytes()
        };
        assert_eq!(run(1), run(3));
        assert_eq!(run(2), run(3));
    }

    #[test]
    fn a_panic_in_a_chunk_comes_through_and_the_team_works_on() {
        for threads in [1, 2, 3, 8] {
            in_time(move || {
                let team = Team::new(threads).unwrap();
                for chunk in [0, 4, 8] {
                    let bad = steps(&[4, 9, 3, 9], Some((1, chunk)));
                    let run = catch_unwind(AssertUnwindSafe(|| bad.run(&team, threads)));
                    assert!(run.is_err(), "{threads} threads: the panic was lost");
                    assert_eq!(bad.bytes()[13..16], [0, 1, 2], "what follows did not run");
                    let (good, want) = (steps(&[4, 9, 3], None), steps(&[4, 9, 3], None));
                    good.run(&team, threads);
                    want.run(&Team::new(1).unwrap(), 1);
                    assert_eq!(good.bytes(), want.bytes());
                }
            });
        }
    }

    #[test]
    fn two_thousand_plans_in_a_row_and_from_two_callers_at_once_all_end() {
        in_time(|| {
            let team = Team::new(4).unwrap();
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        let steps = steps(&[3, 0, 1, 8], None);
                        for _ in 0..1000 {
                            steps.run(&team, 4);
                        }
                    });
                }
            });
        });
    }
}
