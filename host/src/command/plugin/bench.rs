//! `weir plugin bench`: what calls and instances of a component cost.
//!
//! Calls go through [`Instances`] on one thread, as a worker's do, each with a message of its own that is made just before.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use serde::Serialize;

use super::arguments::Bench;
use super::head::Template;
use super::log::Log;
use super::subject::{Outcome, Subject, unsuited};
use super::table::{row, size, thousands, time};
use super::{line, refusal, report};
use crate::command;
use crate::command::check::Report;
use crate::http::{Body, Broken, Failure, Request, Response};
use crate::plugin::{Exchange, Instances, RequestVerdict, Step};

/// What a batch should take: long beside the clock's own time, and short beside the scheduler's.
const BATCH: Duration = Duration::from_millis(1);
const CALLS_AT_MOST: u32 = 1000;
/// Messages that are made ahead: few, since a proxy has just read what it hands over, and has it in the processor's cache.
const AHEAD: u32 = 16;
/// Bytes of the pieces that a filter gets.
const CHUNK: usize = 64 << 10;
/// Instances that are there at a time while their making or their memory is measured.
const INSTANCES: u32 = 50;

#[derive(Serialize)]
struct Benched {
    calls: Vec<Measured>,
    instance_memory_bytes: usize,
    /// Of pages that are the instance's own, with the host's books of it; `None` where the system does not say.
    instance_resident_bytes: Option<usize>,
    /// How many of the calls of `on-request` the plugin answered itself, by status: what limits or refuses does so here too.
    replies: BTreeMap<u16, u64>,
    seconds: f64,
    request_fields: usize,
}

/// Times of one call, from batches.
#[derive(Serialize)]
struct Measured {
    what: String,
    median_nanoseconds: u128,
    /// 99 of 100 batches took less for each call.
    p99_nanoseconds: u128,
    per_second: u64,
    calls: u64,
    batches: usize,
}

pub(super) async fn bench(asked: &Bench) -> anyhow::Result<Report> {
    // Lines of the guest cost what they cost in a proxy at its usual level, but are not shown: there may be millions.
    let log = Log::listen();
    let subject = match Subject::load(&asked.file, command::cache_directory()).await? {
        Ok(subject) => subject,
        Err(refused) => return Ok(refused),
    };
    let step = match subject.configure(asked.config.as_ref()).await {
        Ok(step) => step,
        Err(problems) => return Ok(unsuited(&problems, &log)),
    };
    match measure(&step, asked).await {
        Ok(benched) => report(&benched, text, asked.json),
        Err(refused) => Ok(refused),
    }
}

async fn measure(step: &Step, asked: &Bench) -> Outcome<Benched> {
    let template = Template::new(&asked.message)?;
    // Before anything else: what has been used once stays with the engine.
    let (instance_memory_bytes, instance_resident_bytes) = memory(step).await?;
    let plan = &step.configured.plan;
    let mut calls = Vec::new();
    let mut replies = BTreeMap::new();
    if plan.on_request {
        let instances = Instances::of_worker(0);
        let batch = async |count| on_request(&instances, step, &template, &mut replies, count).await;
        calls.push(measured("on-request", asked.time, batch).await?);
    }
    if plan.on_response {
        let instances = Instances::of_worker(0);
        let (state, exchange) = left(&instances, step, &template).await?;
        let batch = async |count| on_response(&instances, step, &template, &state, exchange.as_ref(), count).await;
        calls.push(measured("on-response", asked.time, batch).await?);
    }
    if step.configured.plugin.filters_bodies() {
        let instances = Instances::of_worker(0);
        let batch = async |count| chunks(&instances, step, count).await;
        calls.push(measured("64 KiB chunk", asked.time, batch).await?);
    }
    let batch = async |count: u32| new_instances(step, count.min(INSTANCES)).await;
    calls.push(measured("new instance", asked.time, batch).await?);
    Ok(Benched {
        calls,
        instance_memory_bytes,
        instance_resident_bytes,
        replies,
        seconds: asked.time.as_secs_f64(),
        request_fields: template.fields(),
    })
}

/// Calls `batch`, which does so many calls and says what they took and how many it did, for about `time`.
async fn measured(
    what: &str,
    time: Duration,
    mut batch: impl AsyncFnMut(u32) -> Outcome<(Duration, u32)>,
) -> Outcome<Measured> {
    batch(1).await?;
    let (took, count) = batch(10).await?;
    let each = (took / count).max(Duration::from_nanos(1));
    let size = u32::try_from(BATCH.as_nanos() / each.as_nanos()).unwrap_or(CALLS_AT_MOST).clamp(1, CALLS_AT_MOST);
    let began = Instant::now();
    let (mut times, mut total, mut calls) = (Vec::new(), Duration::ZERO, 0_u64);
    while times.is_empty() || began.elapsed() < time {
        let (took, count) = batch(size).await?;
        times.push(took / count);
        total += took;
        calls += u64::from(count);
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_nanos();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number of calls is meant")]
    let per_second = (calls as f64 / total.as_secs_f64()) as u64;
    Ok(Measured {
        what: what.to_owned(),
        median_nanoseconds: at(50),
        p99_nanoseconds: at(99),
        per_second,
        calls,
        batches: times.len(),
    })
}

async fn on_request(
    instances: &Instances,
    step: &Step,
    template: &Template<'_>,
    replies: &mut BTreeMap<u16, u64>,
    count: u32,
) -> Outcome<(Duration, u32)> {
    let mut took = Duration::ZERO;
    for ahead in portions(count) {
        let mut requests: Vec<Request> = (0..ahead).map(|_| template.request()).collect();
        let began = Instant::now();
        for request in &mut requests {
            let verdict =
                instances.on_request(step, request).await.map_err(|failure| failed("on-request", &failure))?;
            if let RequestVerdict::Reply(reply) = verdict {
                *replies.entry(reply.status().as_u16()).or_default() += 1;
            }
        }
        took += began.elapsed();
    }
    Ok((took, count))
}

async fn on_response(
    instances: &Instances,
    step: &Step,
    template: &Template<'_>,
    state: &[u8],
    exchange: Option<&Exchange>,
    count: u32,
) -> Outcome<(Duration, u32)> {
    let mut took = Duration::ZERO;
    for ahead in portions(count) {
        let responses: Vec<Response> = (0..ahead).map(|_| template.response()).collect();
        let mut answers = Vec::with_capacity(responses.len());
        let began = Instant::now();
        for response in responses {
            let answer = instances.on_response(step, state, exchange.cloned(), 0, response).await;
            answers.push(answer.map_err(|failure| failed("on-response", &failure))?);
        }
        took += began.elapsed();
    }
    Ok((took, count))
}

/// How many messages to make at a time, for so many calls.
fn portions(calls: u32) -> impl Iterator<Item = u32> {
    (0..calls).step_by(AHEAD as usize).map(move |done| AHEAD.min(calls - done))
}

/// Pieces of a body through the filter, one for each call and a last one for its end.
async fn chunks(instances: &Instances, step: &Step, count: u32) -> Outcome<(Duration, u32)> {
    let body = Body::made(Pieces { piece: Bytes::from(vec![b'a'; CHUNK]), left: count });
    let refused = |failure: Failure| failed("body-filter", &failure);
    let began = Instant::now();
    let mut body = instances.filter(step, body).await.map_err(refused)?;
    while let Some(frame) = body.frame().await {
        frame.map_err(|error| failed("body-filter", &Failure::BadAnswer(error.into())))?;
    }
    Ok((began.elapsed(), count))
}

/// A body of the same piece again and again, which is as warm as one that was just read.
struct Pieces {
    piece: Bytes,
    left: u32,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(left) = self.left.checked_sub(1) else { return Poll::Ready(None) };
        self.left = left;
        Poll::Ready(Some(Ok(Frame::data(self.piece.clone()))))
    }
}

/// What the response phase gets of the request phase.
async fn left(instances: &Instances, step: &Step, template: &Template<'_>) -> Outcome<(Vec<u8>, Option<Exchange>)> {
    let mut request = template.request();
    let exchange = step.configured.asks_for_connection().then(|| Exchange::of(&request));
    if !step.configured.plan.on_request {
        return Ok((Vec::new(), exchange));
    }
    match instances.on_request(step, &mut request).await.map_err(|failure| failed("on-request", &failure))? {
        RequestVerdict::Continue(state) | RequestVerdict::Delay(_, state) => Ok((state, exchange)),
        RequestVerdict::Reply(_) => Ok((Vec::new(), exchange)),
    }
}

async fn new_instances(step: &Step, count: u32) -> Outcome<(Duration, u32)> {
    let instances = Instances::of_worker(0);
    let began = Instant::now();
    for _ in 0..count {
        instances.start(step).await.map_err(|error| refusal(format!("error: {error:#}\n")))?;
    }
    Ok((began.elapsed(), count))
}

/// Of one idle instance: its linear memory, and what many of them took of the machine's.
async fn memory(step: &Step) -> Outcome<(usize, Option<usize>)> {
    let instances = Instances::of_worker(0);
    let before = resident();
    let mut linear = 0;
    for _ in 0..INSTANCES {
        linear = instances.start(step).await.map_err(|error| refusal(format!("error: {error:#}\n")))?;
    }
    let each = |(before, after): (usize, usize)| after.saturating_sub(before) / INSTANCES as usize;
    Ok((linear, before.zip(resident()).map(each)))
}

/// Bytes of this process that are in memory and nobody else's.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

fn failed(phase: &str, failure: &Failure) -> Report {
    refusal(format!("error: {phase}: {failure}\n"))
}

fn text(benched: &Benched) -> String {
    let nanoseconds = |count: u128| time(Duration::from_nanos(u64::try_from(count).unwrap_or(u64::MAX)));
    let mut text = String::new();
    line(&mut text, format!("{:<13} {:>9} {:>9} {:>12}", "", "median", "p99", "per second"));
    for measured in &benched.calls {
        let (median, p99) = (nanoseconds(measured.median_nanoseconds), nanoseconds(measured.p99_nanoseconds));
        let rate = thousands(measured.per_second);
        line(&mut text, format!("{:<13} {median:>9} {p99:>9} {rate:>12}", measured.what));
    }
    let resident = benched.instance_resident_bytes.map(|bytes| format!(", {} of them in use", size(bytes)));
    let memory = format!("{} of memory{}", size(benched.instance_memory_bytes), resident.unwrap_or_default());
    row(&mut text, "idle instance", [memory]);
    let replies = benched.replies.iter();
    let replies =
        replies.map(|(status, count)| format!("{status} to {} requests, by the plugin itself", thousands(*count)));
    row(&mut text, "replies", replies);
    line(
        &mut text,
        format!(
            "Measured on one thread, as a worker calls: each for {} s, in batches of about 1 ms, a request with {} fields.",
            benched.seconds, benched.request_fields
        ),
    );
    text
}
