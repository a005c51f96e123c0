//! What was done, counted and shown.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};

use super::Wanted;

/// Failures that are printed; the others are counted.
const PRINTED_MAX: u64 = 20;
/// How often the bar is drawn anew.
const TICK: Duration = Duration::from_millis(250);
/// How often a line says how far it is, where there is no terminal for a bar.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// What was done, as far as it is done.
#[derive(Debug)]
pub(super) struct Warmed {
    began_at: Instant,
    /// Objects that were named.
    named: AtomicU64,
    objects: AtomicU64,
    bytes: AtomicU64,
    /// Bytes of all objects that were asked for, and those of them that are there.
    total: AtomicU64,
    present: AtomicU64,
    /// Bytes that came meanwhile.
    came: AtomicU64,
    /// Objects that were there before anything was asked for.
    already: AtomicU64,
    /// Objects that are to come, and nobody waits for.
    queued: AtomicU64,
    /// Objects that are not there, or not wholly.
    missing: AtomicU64,
    /// Bytes of these that are not there.
    missing_bytes: AtomicU64,
    bar: ProgressBar,
    json: bool,
    waits: bool,
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// So many in so long, for a second.
fn rate(count: u64, took: Duration) -> u64 {
    let rate = u128::from(count) * 1000 / took.as_millis().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

impl Warmed {
    /// Nothing is done yet.
    pub(super) fn new(json: bool, waits: bool) -> Self {
        let bar = if json || !io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            let template = "{bar:30} {bytes}/{total_bytes}  {msg}";
            let style = ProgressStyle::with_template(template).expect("the template is right");
            ProgressBar::new(0).with_style(style)
        };
        let zero = || AtomicU64::new(0);
        Self {
            began_at: Instant::now(),
            named: zero(),
            objects: zero(),
            bytes: zero(),
            total: zero(),
            present: zero(),
            came: zero(),
            already: zero(),
            queued: zero(),
            missing: zero(),
            missing_bytes: zero(),
            bar,
            json,
            waits,
        }
    }

    /// Whether nothing is missing.
    pub(super) fn is_all_there(&self) -> bool {
        read(&self.missing) == 0
    }

    /// Whether there was no object.
    pub(super) fn is_empty(&self) -> bool {
        read(&self.objects) == 0
    }

    /// An object was named.
    pub(super) fn named(&self) {
        add(&self.named, 1);
    }

    /// An object is of this size, of which so much is there.
    pub(super) fn sized(&self, size: u64, cached: u64) {
        add(&self.total, size);
        add(&self.present, cached);
    }

    /// Bytes have come.
    pub(super) fn came(&self, bytes: u64) {
        add(&self.came, bytes);
        add(&self.present, bytes);
    }

    /// All of an object is there.
    pub(super) fn there(&self, wanted: &Wanted, size: u64, already: bool) {
        add(&self.objects, 1);
        add(&self.bytes, size);
        add(&self.already, already.into());
        self.line(wanted, (size, size), None);
    }

    /// An object will be there.
    pub(super) fn queued(&self, wanted: &Wanted, size: u64) {
        add(&self.objects, 1);
        add(&self.queued, 1);
        self.line(wanted, (size, 0), None);
    }

    /// An object of this size is there only so far.
    pub(super) fn missing(
        &self,
        wanted: &Wanted,
        (size, cached): (u64, u64),
        why: Option<&anyhow::Error>,
    ) {
        add(&self.objects, 1);
        add(&self.bytes, cached);
        add(&self.missing_bytes, size - cached);
        let before = self.missing.fetch_add(1, Ordering::Relaxed);
        if let Some(why) = why
            && !self.json
            && before < PRINTED_MAX
        {
            let Wanted { bucket, key, .. } = wanted;
            self.bar
                .suspend(|| eprintln!("forebay: s3://{bucket}/{key}: {why:#}"));
        }
        self.line(wanted, (size, cached), why);
    }

    fn line(&self, wanted: &Wanted, (size, cached): (u64, u64), why: Option<&anyhow::Error>) {
        if !self.json {
            return;
        }
        let line = serde_json::json!({
            "bucket": &*wanted.bucket,
            "key": wanted.key,
            "size": size,
            "cached_bytes": cached,
            "error": why.map(|why| format!("{why:#}")),
        });
        println!("{line}");
    }

    /// How far it is, with rates of what came.
    fn progress(&self) -> String {
        let took = self.began_at.elapsed();
        let objects = read(&self.objects);
        format!(
            "{objects} of {} objects, {} objects/s, {}/s",
            read(&self.named),
            rate(objects, took),
            ByteSize(rate(read(&self.came), took)),
        )
    }

    fn draw(&self) {
        self.bar.set_length(read(&self.total));
        self.bar.set_position(read(&self.present));
        self.bar.set_message(self.progress());
    }

    fn say(&self) {
        let (present, total) = (read(&self.present), read(&self.total));
        let (present, total) = (ByteSize(present), ByteSize(total));
        eprintln!("forebay: {present} of {total}, {}", self.progress());
    }

    /// The last line.
    pub(super) fn end(&self, took: Duration, dry_run: bool) {
        let (objects, bytes) = (read(&self.objects), read(&self.bytes));
        let (missing, missing_bytes) = (read(&self.missing), read(&self.missing_bytes));
        let (already, queued) = (read(&self.already), read(&self.queued));
        self.bar.finish_and_clear();
        if self.json {
            let line = serde_json::json!({
                "objects": objects, "cached_bytes": bytes, "already": already,
                "queued": queued, "brought_bytes": read(&self.came),
                "missing": missing, "missing_bytes": missing_bytes,
                "seconds": took.as_secs_f64(), "dry_run": dry_run,
            });
            println!("{line}");
            return;
        }
        println!(
            "{objects} objects, {} in the cache ({already} objects were there before), in {:.1} s",
            ByteSize(bytes),
            took.as_secs_f64()
        );
        if !self.waits {
            println!("{queued} objects are being brought in");
        }
        if missing > 0 {
            println!("{missing} objects are missing, {}", ByteSize(missing_bytes));
        }
    }
}

/// Shows how far it is, until it is ended.
pub(super) async fn tick(warmed: Arc<Warmed>) {
    let mut said_at = Instant::now();
    loop {
        tokio::time::sleep(TICK).await;
        warmed.draw();
        if warmed.bar.is_hidden() && !warmed.json && said_at.elapsed() >= LINE_EVERY {
            said_at = Instant::now();
            warmed.say();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_for_a_second() {
        assert_eq!(rate(10, Duration::from_secs(5)), 2);
        assert_eq!(rate(10, Duration::ZERO), 10_000);
        assert_eq!(rate(u64::MAX, Duration::from_millis(1)), u64::MAX);
    }
}
