//! Streams: queues of work, each with a thread that does it in order. Events, and what a capture records.

use crate::execute::Work;
use crate::fault::Fault;
use crate::program::Program;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A kernel with its arguments, as a launch gave them.
#[derive(Debug)]
pub struct KernelLaunch {
    /// The kernel.
    pub program: Arc<Program>,
    /// Blocks by axis.
    pub grid: [u32; 3],
    /// Threads of a block by axis.
    pub block: [u32; 3],
    /// Bytes of the parameters.
    pub parameters: Vec<u8>,
}

impl KernelLaunch {
    /// The launch, with the memory that it can access.
    pub fn work<'a>(&'a self, memory: &'a crate::memory::Snapshot) -> Work<'a> {
        Work {
            program: &self.program,
            grid: self.grid,
            block: self.block,
            parameters: &self.parameters,
            memory,
        }
    }
}

/// A piece of work. Addresses of the host are read and written when its turn comes.
#[derive(Debug, Clone)]
pub enum Task {
    /// Copies bytes between any two addresses.
    Copy {
        /// To this address of device or host.
        to: u64,
        /// From this address of device or host.
        from: u64,
        /// How many.
        bytes: u64,
    },
    /// Writes a pattern of 1, 2 or 4 bytes again and again.
    Fill {
        /// From this address on.
        to: u64,
        /// The pattern, in the low bytes.
        pattern: u32,
        /// Size of the pattern.
        size: usize,
        /// How often.
        count: u64,
    },
    /// Runs a kernel.
    Kernel(Arc<KernelLaunch>),
    /// Records an event, as its Nth record.
    Record(Arc<Event>, u64),
    /// Waits for the Nth record of an event.
    WaitForEvent(Arc<Event>, u64),
    /// Waits until a stream has done so many tasks.
    WaitForStream(Arc<Stream>, u64),
}

/// What a stream needs of the device.
pub trait Worker: Send + Sync {
    /// Executes a task that is not an event.
    fn run(&self, task: &Task, is_abandoned: &dyn Fn() -> bool) -> Result<(), Fault>;
    /// Whether work is dropped, because the context is lost.
    fn is_lost(&self) -> bool;
    /// Takes note of a fault.
    fn lose(&self, fault: Fault);
}

/// A stream.
#[derive(Debug)]
pub struct Stream {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Whether it is ordered with the default stream.
    pub is_blocking: bool,
}

#[derive(Debug, Default)]
struct Queue {
    tasks: VecDeque<Task>,
    /// Tasks so far.
    enqueued: u64,
    /// Of them done.
    done: u64,
    /// Tasks of the capture under way.
    capture: Option<Vec<Task>>,
    /// No more tasks come.
    is_closed: bool,
    /// Nobody waits for it any more.
    is_abandoned: bool,
}

impl Stream {
    /// Starts the thread of a stream.
    pub fn start(worker: &Arc<dyn Worker>, is_blocking: bool) -> std::io::Result<Arc<Self>> {
        let stream = Arc::new(Self { queue: Mutex::default(), changed: Condvar::new(), is_blocking });
        let (own, worker) = (Arc::clone(&stream), Arc::clone(worker));
        std::thread::Builder::new()
            .name("cuda-standin".to_owned())
            .spawn(move || own.serve(worker.as_ref()))?;
        Ok(stream)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'q>(&self, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    /// Does tasks until the stream is closed.
    fn serve(&self, worker: &dyn Worker) {
        let mut queue = self.queue();
        loop {
            let Some(task) = queue.tasks.pop_front() else {
                if queue.is_closed {
                    return;
                }
                queue = self.wait(queue);
                continue;
            };
            if queue.is_abandoned {
                return;
            }
            drop(queue);
            self.run(&task, worker);
            queue = self.queue();
            queue.done += 1;
            self.changed.notify_all();
        }
    }

    fn run(&self, task: &Task, worker: &dyn Worker) {
        match task {
            // A lost context completes its events, so that nobody waits for ever.
            Task::Record(event, number) => event.complete(*number),
            Task::WaitForEvent(event, number) => event.wait(*number),
            Task::WaitForStream(stream, count) => stream.wait_for(*count),
            _ if worker.is_lost() => {}
            _ => {
                if let Err(fault) = worker.run(task, &|| self.queue().is_abandoned) {
                    worker.lose(fault);
                }
            }
        }
    }

    /// Adds tasks: to the capture under way, else to the queue.
    pub fn add(&self, tasks: impl IntoIterator<Item = Task>) {
        let mut queue = self.queue();
        if let Some(capture) = &mut queue.capture {
            capture.extend(tasks);
            return;
        }
        for task in tasks {
            queue.tasks.push_back(task);
            queue.enqueued += 1;
        }
        self.changed.notify_all();
    }

    /// Tasks so far.
    pub fn enqueued(&self) -> u64 {
        self.queue().enqueued
    }

    /// Whether all tasks are done.
    pub fn is_idle(&self) -> bool {
        let queue = self.queue();
        queue.done == queue.enqueued || queue.is_abandoned
    }

    /// Waits for all tasks so far.
    pub fn synchronize(&self) {
        let enqueued = self.enqueued();
        self.wait_for(enqueued);
    }

    fn wait_for(&self, count: u64) {
        let mut queue = self.queue();
        while queue.done < count && !queue.is_abandoned {
            queue = self.wait(queue);
        }
    }

    /// Ends the thread once its tasks are done.
    pub fn close(&self) {
        self.queue().is_closed = true;
        self.changed.notify_all();
    }

    /// Drops all tasks, and leaves the one at work alone.
    pub fn abandon(&self) {
        let mut queue = self.queue();
        queue.tasks.clear();
        queue.is_closed = true;
        queue.is_abandoned = true;
        self.changed.notify_all();
    }

    /// Begins a capture; `false` if one is under way.
    pub fn begin_capture(&self) -> bool {
        let mut queue = self.queue();
        let begins = queue.capture.is_none();
        if begins {
            queue.capture = Some(Vec::new());
        }
        begins
    }

    /// Ends the capture and returns its tasks.
    pub fn end_capture(&self) -> Option<Vec<Task>> {
        self.queue().capture.take()
    }

    /// Whether a capture is under way.
    pub fn is_capturing(&self) -> bool {
        self.queue().capture.is_some()
    }
}

/// An event.
#[derive(Debug)]
pub struct Event {
    state: Mutex<Recorded>,
    changed: Condvar,
    /// Whether it has a time.
    pub has_time: bool,
}

#[derive(Debug, Default)]
struct Recorded {
    /// Records that were asked for.
    asked: u64,
    /// The last of them that has happened.
    completed: u64,
    /// When.
    time: Option<Instant>,
}

impl Event {
    /// An event without a record.
    pub fn new(has_time: bool) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), has_time }
    }

    fn state(&self) -> MutexGuard<'_, Recorded> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a record and returns its number.
    pub fn ask(&self) -> u64 {
        let mut state = self.state();
        state.asked += 1;
        state.asked
    }

    /// The number of the last record that was asked for.
    pub fn asked(&self) -> u64 {
        self.state().asked
    }

    fn complete(&self, number: u64) {
        let mut state = self.state();
        state.completed = state.completed.max(number);
        state.time = Some(Instant::now());
        self.changed.notify_all();
    }

    fn wait(&self, number: u64) {
        let mut state = self.state();
        while state.completed < number {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for the last record.
    pub fn synchronize(&self) {
        let asked = self.asked();
        self.wait(asked);
    }

    /// Whether all records have happened.
    pub fn is_complete(&self) -> bool {
        let state = self.state();
        state.completed == state.asked
    }

    /// Completes all records, of a stream that is abandoned.
    pub fn give_up(&self) {
        let asked = self.asked();
        self.complete(asked);
    }

    /// When the last record happened.
    pub fn time(&self) -> Option<Instant> {
        self.state().time
    }
}
