//! `weir plugin run`: what a component makes of a request and of the response to it, phase by phase.
//!
//! Of a request that is made several times the last one is shown, since what is `shared` may have changed meanwhile.
//! The order is that of `middleware`: fixed edits first, then the call if the plan asks for it.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::arguments::Run;
use super::head::{Line, Shown, Template};
use super::log::{self, Log};
use super::subject::{Subject, unsuited};
use super::table::{row, time};
use super::{line, refusal, report};
use crate::command;
use crate::command::check::Report;
use crate::http::Failure;
use crate::plugin::{Exchange, Instances, RequestVerdict, Step};

#[derive(Serialize)]
struct Ran {
    start_nanoseconds: u128,
    requests: u32,
    /// To so many of them it replied by itself.
    replies: u32,
    #[serde(flatten)]
    last: Last,
    /// What it has counted in all of them, as Prometheus would read it.
    metrics: Vec<String>,
}

/// The last request.
#[derive(Serialize)]
struct Last {
    request: Phase,
    /// `None` where it replied by itself.
    response: Option<Phase>,
    log: Vec<log::Line>,
}

/// What became of a message.
#[derive(Serialize)]
struct Phase {
    verdict: Verdict,
    /// `None`: the plan does not ask for the call.
    nanoseconds: Option<u128>,
    delay_milliseconds: u128,
    state: String,
    message: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Pass,
    Edit,
    Reply,
}

/// What the request phase leaves for the response phase.
struct Left {
    phase: Phase,
    state: Vec<u8>,
    exchange: Exchange,
}

/// What the guest was called for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    OnRequest,
    RequestFilter,
    OnResponse,
    ResponseFilter,
}

pub(super) async fn run(asked: &Run) -> anyhow::Result<Report> {
    let log = Log::listen();
    let subject = match Subject::load(&asked.file, command::cache_directory()).await? {
        Ok(subject) => subject,
        Err(refused) => return Ok(refused),
    };
    let step = match subject.configure(asked.config.as_ref()).await {
        Ok(step) => step,
        Err(problems) => return Ok(unsuited(&problems, &log)),
    };
    match requests(&subject, &step, asked, &log).await {
        Ok(ran) => report(&ran, text, asked.json),
        Err(refused) => Ok(refused),
    }
}

async fn requests(subject: &Subject, step: &Step, asked: &Run, log: &Log) -> Result<Ran, Report> {
    let template = Template::new(&asked.message)?;
    // The lines of the `init` that gave the plan: the instance that is called says them again.
    log.take();
    let instances = Instances::of_worker(0);
    let began = Instant::now();
    instances.start(step).await.map_err(|error| refusal(format!("error: {error:#}\n")))?;
    let start_nanoseconds = began.elapsed().as_nanos();
    let mut last = phases(&instances, step, &template, log).await?;
    let mut replies = u32::from(last.replied());
    for _ in 1..asked.times {
        last = phases(&instances, step, &template, log).await?;
        replies += u32::from(last.replied());
    }
    Ok(Ran { start_nanoseconds, requests: asked.times, replies, last, metrics: subject.host.metrics().samples() })
}

async fn phases(instances: &Instances, step: &Step, template: &Template<'_>, log: &Log) -> Result<Last, Report> {
    let left = on_request(instances, step, template).await;
    let left = left.map_err(|failure| failed(String::new(), &failure, &log.take()))?;
    if left.phase.verdict == Verdict::Reply {
        return Ok(Last { request: left.phase, response: None, log: log.take() });
    }
    let response = on_response(instances, step, template, &left).await;
    let response = response.map_err(|failure| failed(requested(&left.phase), &failure, &log.take()))?;
    Ok(Last { request: left.phase, response: Some(response), log: log.take() })
}

async fn on_request(instances: &Instances, step: &Step, template: &Template<'_>) -> Result<Left, (Call, Failure)> {
    let mut request = template.request();
    let before = Shown::request(&mut request).await.map_err(|broken| (Call::OnRequest, broken.of_request()))?;
    let exchange = Exchange::of(&request);
    let plan = &step.configured.plan;
    let headers = &mut request.head.headers;
    plan.request_edits.iter().for_each(|edit| edit.apply_to_request(headers, template.is_tls()));
    let mut called = None;
    let mut state = Vec::new();
    let mut delay = Duration::ZERO;
    if plan.on_request {
        let began = Instant::now();
        let verdict = instances.on_request(step, &mut request).await;
        called = Some(began.elapsed().as_nanos());
        match verdict.map_err(|failure| (Call::OnRequest, failure))? {
            RequestVerdict::Continue(left) => state = left,
            RequestVerdict::Delay(wanted, left) => (delay, state) = (wanted, left),
            RequestVerdict::Reply(mut response) => {
                let reply = Shown::response(&mut response).await;
                let reply = reply.map_err(|broken| (Call::OnRequest, broken.of_response()))?;
                let message = reply.whole();
                return Ok(Left { phase: phase(Verdict::Reply, called, message), state, exchange });
            }
        }
    }
    // Filters run now, as they do when a server takes the body.
    let after = Shown::request(&mut request).await.map_err(|broken| (Call::RequestFilter, broken.of_request()))?;
    let message = before.become_of(&after);
    let phase = Phase {
        delay_milliseconds: delay.as_millis(),
        state: String::from_utf8_lossy(&state).into_owned(),
        ..phase(verdict(&message), called, message)
    };
    Ok(Left { phase, state, exchange })
}

async fn on_response(
    instances: &Instances,
    step: &Step,
    template: &Template<'_>,
    left: &Left,
) -> Result<Phase, (Call, Failure)> {
    let mut response = template.response();
    let before = Shown::response(&mut response).await.map_err(|broken| (Call::OnResponse, broken.of_response()))?;
    let plan = &step.configured.plan;
    let headers = response.headers_mut();
    plan.response_edits.iter().for_each(|edit| edit.apply(headers, template.is_tls()));
    let mut called = None;
    if plan.on_response {
        let exchange = step.configured.asks_for_connection().then(|| left.exchange.clone());
        let began = Instant::now();
        let answer = instances.on_response(step, &left.state, exchange, 0, response).await;
        called = Some(began.elapsed().as_nanos());
        response = answer.map_err(|failure| (Call::OnResponse, failure))?;
    }
    let after = Shown::response(&mut response).await;
    let after = after.map_err(|broken| (Call::ResponseFilter, broken.of_response()))?;
    let message = before.become_of(&after);
    Ok(phase(verdict(&message), called, message))
}

const fn phase(verdict: Verdict, nanoseconds: Option<u128>, message: Vec<Line>) -> Phase {
    Phase { verdict, nanoseconds, delay_milliseconds: 0, state: String::new(), message }
}

fn verdict(message: &[Line]) -> Verdict {
    if message.iter().any(Line::is_change) { Verdict::Edit } else { Verdict::Pass }
}

/// After what went well before.
fn failed(mut text: String, (call, failure): &(Call, Failure), log: &[log::Line]) -> Report {
    line(&mut text, format!("error: {call}: {failure}"));
    // The head may have gone out before the body fails.
    let gets =
        if *call == Call::ResponseFilter { "a body that is cut".to_owned() } else { failure.status().to_string() };
    line(&mut text, format!("  the client would get {gets}"));
    row(&mut text, "log", log);
    refusal(text)
}

impl fmt::Display for Call {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::OnRequest => "on-request",
            Self::RequestFilter => "the filter of the request's body",
            Self::OnResponse => "on-response",
            Self::ResponseFilter => "the filter of the response's body",
        })
    }
}

impl Last {
    fn replied(&self) -> bool {
        self.response.is_none()
    }
}

fn text(ran: &Ran) -> String {
    let Ran { requests, replies, last, .. } = ran;
    let mut text = requested(&last.request);
    match &last.response {
        Some(response) => describe(&mut text, "on-response", "goes back", response),
        None => line(&mut text, "on-response: not called for its own reply"),
    }
    if *requests > 1 {
        line(&mut text, format!("That was the last of {requests} requests. It replied to {replies} of them."));
    }
    line(&mut text, format!("The instance started in {}.", time_of(ran.start_nanoseconds)));
    row(&mut text, "metrics", &ran.metrics);
    row(&mut text, "log", &last.log);
    text
}

fn requested(phase: &Phase) -> String {
    let mut text = String::new();
    describe(&mut text, "on-request", "goes on", phase);
    text
}

fn describe(text: &mut String, call: &str, goes: &str, phase: &Phase) {
    let verdict = match phase.verdict {
        Verdict::Pass => format!("{goes} as it is"),
        Verdict::Edit => format!("{goes} with changes"),
        Verdict::Reply => "replies".to_owned(),
    };
    let delay = match phase.delay_milliseconds {
        0 => String::new(),
        milliseconds => format!(", after {milliseconds} ms"),
    };
    let remembers = match phase.state.as_str() {
        "" => String::new(),
        state => format!(", remembers {state:?}"),
    };
    let took = match phase.nanoseconds {
        Some(nanoseconds) => format!("in {}", time_of(nanoseconds)),
        None => "the plan asks for no call".to_owned(),
    };
    line(text, format!("{call}: {verdict}{delay}{remembers} ({took})"));
    phase.message.iter().for_each(|message| line(text, message.shown()));
}

fn time_of(nanoseconds: u128) -> String {
    time(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
}
