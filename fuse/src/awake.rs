//! Keeps idle processors from sleeping while requests follow each other closely.
//!
//! A small file is answered in some microseconds, but two sleepers are woken for each answer: ours, and the program's. On a virtual
//! machine each of these wakes costs more than the answer, because an idle processor is given back to the host. The kernel lets a
//! process ask for short wakes (`/dev/cpu_dma_latency`, its PM QoS interface; root only), which this does for as long as requests come
//! fast, and for [`CALM`] longer. The price is power, or on a virtual machine the host's time, during that time.

use parking_lot::{Condvar, Mutex};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const DEVICE: &str = "/dev/cpu_dma_latency";
const DRIVER: &str = "/sys/devices/system/cpu/cpuidle/current_driver";
/// Longest wake on a processor of our own, µs: the lightest sleep, which is left as fast as it is entered.
const WAKE_MICROS: i32 = 5;
/// The same on a virtual machine, whose lightest sleep is the host's affair: none.
const WAKE_MICROS_GUEST: i32 = 0;
/// The kernel's own default: any.
const ANY_WAKE_MICROS: i32 = 2_000_000_000;
/// So many requests within [`BURST_TIME`] come fast.
const BURST: u64 = 64;
const BURST_TIME: Duration = Duration::from_millis(16);
/// Requests that must come within this for processors to be kept awake on.
const CALM: Duration = Duration::from_millis(4);
const CALM_REQUESTS: u64 = 8;

/// One for the process: all mounts share it.
static AWAKE: OnceLock<Option<Arc<Awake>>> = OnceLock::new();

/// Counts requests, and knows whether they come fast.
#[derive(Debug)]
pub(crate) struct Awake {
    requests: AtomicU64,
    fast: AtomicBool,
    /// When the present burst began.
    began: Mutex<Instant>,
    wanted: Mutex<bool>,
    changed: Condvar,
}

impl Awake {
    /// `None` where the kernel has no such interface, or not for us.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        let start = || {
            Self::start()
                .map_err(|error| tracing::debug!(%error, "processors sleep as they like"))
                .ok()
        };
        AWAKE.get_or_init(start).clone()
    }

    fn start() -> io::Result<Arc<Self>> {
        let mut device = OpenOptions::new().write(true).open(DEVICE)?;
        ask(&mut device, ANY_WAKE_MICROS)?;
        let awake = Arc::new(Self::new());
        let shared = Arc::clone(&awake);
        // It ends with the process.
        thread::Builder::new()
            .name("fuse-awake".into())
            .spawn(move || shared.run(&mut device))?;
        Ok(awake)
    }

    fn new() -> Self {
        Self {
            requests: AtomicU64::new(0),
            fast: AtomicBool::new(false),
            began: Mutex::new(Instant::now()),
            wanted: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    /// A request has come.
    pub(crate) fn request(&self) {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        if count.is_multiple_of(BURST) && !self.fast.load(Ordering::Relaxed) && self.is_burst() {
            self.fast.store(true, Ordering::Relaxed);
            *self.wanted.lock() = true;
            self.changed.notify_one();
        }
    }

    fn is_burst(&self) -> bool {
        let (now, mut began) = (Instant::now(), self.began.lock());
        let took = now - std::mem::replace(&mut *began, now);
        took < BURST_TIME
    }

    fn run(&self, device: &mut File) {
        loop {
            let mut wanted = self.wanted.lock();
            while !std::mem::take(&mut *wanted) {
                self.changed.wait(&mut wanted);
            }
            drop(wanted);
            let asked = ask(device, wake_micros());
            self.wait_for_calm();
            if let Err(error) = asked.and_then(|()| ask(device, ANY_WAKE_MICROS)) {
                tracing::debug!(%error, "processors sleep as they like");
            }
            *self.began.lock() = Instant::now();
            self.fast.store(false, Ordering::Relaxed);
        }
    }

    fn wait_for_calm(&self) {
        let mut before = self.requests.load(Ordering::Relaxed);
        loop {
            thread::sleep(CALM);
            let now = self.requests.load(Ordering::Relaxed);
            if now - before < CALM_REQUESTS {
                return;
            }
            before = now;
        }
    }
}

fn wake_micros() -> i32 {
    let guest = fs::read_to_string(DRIVER).is_ok_and(|driver| driver.trim() == "haltpoll");
    if guest { WAKE_MICROS_GUEST } else { WAKE_MICROS }
}

fn ask(device: &mut File, micros: i32) -> io::Result<()> {
    device.write_all(&micros.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_burst_is_fast() {
        let awake = Awake::new();
        *awake.began.lock() -= BURST_TIME;
        (0..BURST).for_each(|_| awake.request());
        assert!(
            !awake.fast.load(Ordering::Relaxed),
            "the first of them came long after what was before"
        );
        awake.request();
        assert!(awake.fast.load(Ordering::Relaxed) && *awake.wanted.lock());
    }

    #[test]
    fn requests_that_end_are_noticed() {
        let awake = Awake::new();
        let began = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                while began.elapsed() < CALM * 5 {
                    (0..CALM_REQUESTS).for_each(|_| awake.request());
                    thread::sleep(CALM / 8);
                }
            });
            awake.wait_for_calm();
        });
        assert!(began.elapsed() >= CALM * 4);
    }
}
