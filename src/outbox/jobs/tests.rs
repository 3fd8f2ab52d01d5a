//! Jobs on a store in memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;
use crate::store::OutboxRow;

/// A queue in memory, which like the store identifies a claim by its number.
#[derive(Default)]
struct Queue {
    jobs: Mutex<Vec<Waiting>>,
    added: tokio::sync::Notify,
    failed: Mutex<Vec<String>>,
}

struct Waiting {
    row: OutboxRow,
    due: Instant,
    lease: Instant,
}

impl Queue {
    fn add(&self, id: i64, payload: &str) {
        let now = Instant::now();
        let row = OutboxRow {
            id,
            room: None,
            kind: "test".to_owned(),
            payload: payload.to_owned(),
            attempts: 0,
            tried_for: Duration::ZERO,
            first_claimed: 0,
        };
        let (due, lease) = (now, now);
        self.jobs.lock().push(Waiting { row, due, lease });
        self.added.notify_one();
    }

    fn of_claim<T>(&self, job: &OutboxRow, change: impl Fn(&mut Waiting) -> T) -> Option<T> {
        let mut jobs = self.jobs.lock();
        let is_claimed =
            |found: &&mut Waiting| (found.row.id, found.row.attempts) == (job.id, job.attempts);
        jobs.iter_mut().find(is_claimed).map(change)
    }

    fn remove(&self, job: &OutboxRow) {
        self.jobs.lock().retain(|found| found.row.id != job.id);
    }
}

#[async_trait]
impl JobQueue for Queue {
    async fn job_added(&self) {
        self.added.notified().await;
    }

    async fn claim_jobs(
        &self,
        _: &[&'static str],
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let now = Instant::now();
        let mut jobs = self.jobs.lock();
        let due = jobs.iter_mut().filter(|job| job.due.max(job.lease) <= now);
        let claimed = due.take(limit).map(|job| {
            job.row.attempts += 1;
            job.lease = now + lease;
            job.row.clone()
        });
        Ok(claimed.collect())
    }

    async fn next_job_due(&self, _: &[&'static str]) -> Result<Option<Duration>, StoreError> {
        let now = Instant::now();
        let jobs = self.jobs.lock();
        let due = jobs.iter().map(|job| job.due.max(job.lease));
        Ok(due.min().map(|due| due.saturating_duration_since(now)))
    }

    async fn renew_job(&self, job: &OutboxRow, lease: Duration) -> Result<bool, StoreError> {
        let until = Instant::now() + lease;
        Ok(self.of_claim(job, |job| job.lease = until).is_some())
    }

    async fn end_job(&self, job: &OutboxRow, end: JobEnd) -> Result<bool, StoreError> {
        let now = Instant::now();
        if self.of_claim(job, |_| ()).is_none() {
            return Ok(false);
        }
        match end {
            JobEnd::Done => self.remove(job),
            JobEnd::Failed { reason } => {
                self.remove(job);
                self.failed.lock().push(reason);
            }
            JobEnd::Retry { delay, .. } => {
                self.of_claim(job, |job| (job.due, job.lease) = (now + delay, now));
            }
        }
        Ok(true)
    }
}

/// Jobs that do as their payload says, each with a permit of the test.
struct Scripted {
    permits: Semaphore,
    starts: Mutex<Vec<(String, Instant)>>,
    running: AtomicUsize,
    most_running: AtomicUsize,
}

impl Scripted {
    fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            permits: Semaphore::new(permits),
            starts: Mutex::default(),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
        })
    }

    fn starts(&self) -> usize {
        self.starts.lock().len()
    }
}

#[async_trait]
impl Job for Scripted {
    fn kind(&self) -> &'static str {
        "test"
    }

    async fn run(&self, payload: &str) -> Result<(), JobError> {
        self.starts
            .lock()
            .push((payload.to_owned(), Instant::now()));
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        let permit = self.permits.acquire().await.unwrap();
        permit.forget();
        self.running.fetch_sub(1, Ordering::SeqCst);
        match payload {
            "fail" => Err(JobError::Failed("never".to_owned())),
            "retry" => Err(JobError::Retry("not yet".to_owned())),
            "panic" => panic!("as the test wants"),
            _ => Ok(()),
        }
    }
}

struct Running {
    queue: Arc<Queue>,
    runner: Arc<JobRunner>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(queue: &Arc<Queue>, job: &Arc<Scripted>) -> Self {
        let jobs: [Arc<dyn Job>; 1] = [job.clone()];
        let settings = JobSettings {
            concurrency: 2,
            attempts: 3,
            ..JobSettings::default()
        };
        let runner = JobRunner::new(queue.clone(), jobs, settings);
        let (stop, stopped) = watch::channel(false);
        Self {
            queue: queue.clone(),
            task: tokio::spawn(runner.clone().run(stopped)),
            runner,
            stop,
        }
    }

    async fn until(&self, mut is_reached: impl FnMut() -> bool) {
        for _ in 0..100_000 {
            if is_reached() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it is never reached");
    }

    async fn until_empty(&self) {
        self.until(|| self.queue.jobs.lock().is_empty()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_few_jobs_run_at_once_and_each_is_done_once() {
    let (queue, job) = (Arc::new(Queue::default()), Scripted::new(0));
    for id in 0..10 {
        queue.add(id, &id.to_string());
    }
    let running = Running::start(&queue, &job);
    running.until(|| job.starts() == 2).await;
    job.permits.add_permits(10);
    running.until_empty().await;
    let mut payloads: Vec<String> = job.starts.lock().iter().map(|(it, _)| it.clone()).collect();
    payloads.sort();
    payloads.dedup();
    assert_eq!((payloads.len(), job.starts()), (10, 10));
    assert_eq!(job.most_running.load(Ordering::SeqCst), 2);
    assert_eq!(running.runner.completed.get(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_job_is_tried_again_after_growing_pauses_and_then_given_up() {
    for payload in ["retry", "panic"] {
        let (queue, job) = (Arc::new(Queue::default()), Scripted::new(100));
        queue.add(1, payload);
        let running = Running::start(&queue, &job);
        running.until_empty().await;
        let starts: Vec<Instant> = job.starts.lock().iter().map(|(_, at)| *at).collect();
        let pauses: Vec<f64> = starts
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect();
        assert_eq!(pauses.len(), 2, "{payload}");
        for (pause, expected) in pauses.iter().zip([1.0, 2.0]) {
            let is_near = (expected * 0.8..=expected * 1.2 + 0.01).contains(pause);
            assert!(is_near, "{payload}: {pauses:?}");
        }
        let failed = queue.failed.lock().clone();
        let reason = if payload == "panic" {
            "the job panicked"
        } else {
            "not yet"
        };
        assert_eq!(failed, [reason]);
        assert_eq!(
            (running.runner.retried.get(), running.runner.failed.get()),
            (2, 1)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_can_never_succeed_is_given_up_at_once() {
    let (queue, job) = (Arc::new(Queue::default()), Scripted::new(100));
    queue.add(1, "fail");
    Running::start(&queue, &job).until_empty().await;
    assert_eq!(job.starts(), 1);
    assert_eq!(*queue.failed.lock(), ["never"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_nodes_all_end_is_given_up_without_another_attempt() {
    let (queue, job) = (Arc::new(Queue::default()), Scripted::new(100));
    queue.add(1, "x");
    queue.jobs.lock()[0].row.attempts = 3;
    Running::start(&queue, &job).until_empty().await;
    assert_eq!(job.starts(), 0);
    assert_eq!(*queue.failed.lock(), ["its attempts never ended"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_job_keeps_its_claim_and_a_job_of_a_node_that_has_ended_is_run_by_another() {
    let (queue, slow) = (Arc::new(Queue::default()), Scripted::new(0));
    queue.add(1, "x");
    let first = Running::start(&queue, &slow);
    first.until(|| slow.starts() == 1).await;
    let other = Scripted::new(100);
    let second = Running::start(&queue, &other);
    // Twenty leases.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(other.starts(), 0);
    first.task.abort();
    let ended = Instant::now();
    second.until_empty().await;
    assert_eq!(other.starts(), 1);
    assert!(ended.elapsed() <= Duration::from_secs(32));
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_stops_starts_nothing_and_waits_for_what_runs() {
    let (queue, job) = (Arc::new(Queue::default()), Scripted::new(0));
    queue.add(1, "x");
    let running = Running::start(&queue, &job);
    running.until(|| job.starts() == 1).await;
    running.stop.send(true).unwrap();
    queue.add(2, "y");
    let mut task = running.task;
    let waited = tokio::time::timeout(Duration::from_secs(60), &mut task).await;
    assert!(waited.is_err(), "it waits for the job");
    job.permits.add_permits(10);
    task.await.unwrap();
    assert_eq!(job.starts(), 1);
    assert_eq!(queue.jobs.lock()[0].row.payload, "y");
}
