//! A CA for tests, in this process: it speaks ACME over TLS, holds its clients to the letter, and misbehaves on demand.
//!
//! ```ignore
//! let ca = MockCa::with_clock(clock).await;
//! ca.fails(Step::NewOrder, 2, Answer::html(503).retry_after("120"));
//! ca.rules(|rules| rules.validity = Duration::from_secs(6 * 86_400));
//! // … orders from `ca.directory()`, which `ca.root_pem()` lets trust …
//! assert_eq!(ca.count(Step::NewOrder), 3);
//! ```

mod book;
mod issuer;
mod server;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use self::book::Book;
pub(crate) use self::book::Ordered;
use self::issuer::Issuer;
use super::Clock;

pub(crate) struct MockCa {
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// What a client can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Directory,
    NewNonce,
    NewAccount,
    NewOrder,
    /// A look at an authorization.
    Authorization,
    /// The word that a challenge may be looked at.
    Challenge,
    /// A look at an order.
    Order,
    Finalize,
    /// A chain, or one of its alternates.
    Certificate,
    RenewalInfo,
}

/// What is answered instead.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A problem document whose type is this, after `urn:ietf:params:acme:error:`.
    Problem { status: u16, kind: &'static str, detail: &'static str, retry_after: Option<&'static str> },
    /// What a proxy in front of the CA says.
    Html { status: u16, retry_after: Option<&'static str> },
    /// 200, and nothing that means anything.
    Garbage,
    /// The connection ends before anything is done.
    Drop,
    /// It is done, and the connection ends without an answer.
    DropAfter,
    /// It is done and answered, but not soon.
    Slow(Duration),
    /// To a new order alone: one that is in this state from the start.
    Status(&'static str),
}

/// How the CA behaves when it behaves.
pub(crate) struct Rules {
    /// Of certificates whose order has no profile.
    pub validity: Duration,
    /// And of those that do.
    pub profiles: BTreeMap<&'static str, Duration>,
    /// How many chains there are besides the first; each ends below `mock root <number>`.
    pub alternates: usize,
    /// Whether there is renewal information at all (RFC 9773), and with which window, counted from now.
    pub renewal_window: Option<(Duration, Duration)>,
    /// The `Retry-After` of renewal information and of orders and authorizations that are not done.
    pub retry_after: Option<&'static str>,
    /// Whether `replaces` is said back.
    pub says_replaces: bool,
    /// Who may register: the key identifier, and the key in base64.
    pub binding: Option<(&'static str, &'static str)>,
    /// Names that are known to be the client's.
    pub are_names_known: bool,
    /// How often an authorization, and an order after it was finalized, is looked at until it is done.
    pub looks: u32,
    /// The challenges that are offered.
    pub challenges: Vec<&'static str>,
    /// What is found at names that fail: type and detail of a problem.
    pub rejected: HashMap<&'static str, (&'static str, &'static str)>,
    /// Looks for the answer to a challenge; without it, all is well.
    pub looks_for: Option<Looking>,
    /// Issues for a key of its own, and not for that of the request.
    pub issues_for_another_key: bool,
    /// Leaves the last name out of certificates.
    pub forgets_a_name: bool,
}

type Looking = Box<dyn Fn(&Look) -> bool + Send>;

/// What is looked for at a name.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// `http-01` and so on.
    pub kind: String,
    pub name: String,
    pub token: String,
    pub key_authorization: String,
}

impl MockCa {
    /// Certificates begin at the time of `clock`.
    pub(crate) async fn with_clock(clock: Clock) -> Self {
        let (listener, issuer, tls) = server::prepare().await;
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            base: format!("https://localhost:{port}"),
            clock,
            issuer,
            book: Mutex::default(),
            rules: Mutex::default(),
            script: Mutex::default(),
            asked: Mutex::default(),
        });
        let server = tokio::spawn(server::serve(listener, tls, Arc::clone(&shared)));
        Self { shared, server }
    }

    pub(crate) fn directory(&self) -> String {
        format!("{}/dir", self.shared.base)
    }

    /// The authority of the CA's own TLS certificate, for `caCertificates`.
    pub(crate) fn root_pem(&self) -> &str {
        self.shared.issuer.root_pem()
    }

    /// The next `times` of `step` are answered so. Several such scripts follow one another.
    pub(crate) fn fails(&self, step: Step, times: usize, answer: Answer) {
        lock(&self.shared.script).entry(step).or_default().push_back((times, answer));
    }

    /// What was scripted and has not happened is forgotten.
    pub(crate) fn recovers(&self) {
        lock(&self.shared.script).clear();
    }

    pub(crate) fn rules(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut lock(&self.shared.rules));
    }

    /// All orders so far.
    pub(crate) fn orders(&self) -> Vec<Ordered> {
        lock(&self.shared.book).orders()
    }

    /// How often a step was asked for, with whatever result.
    pub(crate) fn count(&self, step: Step) -> usize {
        lock(&self.shared.asked).iter().filter(|asked| **asked == step).count()
    }

    /// Contacts of the accounts that there are.
    pub(crate) fn accounts(&self) -> Vec<Vec<String>> {
        lock(&self.shared.book).accounts()
    }

    /// As after a CA's database was lost.
    pub(crate) fn forget_accounts(&self) {
        lock(&self.shared.book).forget_accounts();
    }
}

impl Drop for MockCa {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Answer {
    pub(crate) fn problem(status: u16, kind: &'static str) -> Self {
        Self::Problem { status, kind, detail: "as scripted", retry_after: None }
    }

    pub(crate) fn html(status: u16) -> Self {
        Self::Html { status, retry_after: None }
    }

    pub(crate) fn bad_nonce() -> Self {
        Self::problem(400, "badNonce")
    }

    /// Seconds or a date.
    pub(crate) fn retry_after(mut self, value: &'static str) -> Self {
        if let Self::Problem { retry_after, .. } | Self::Html { retry_after, .. } = &mut self {
            *retry_after = Some(value);
        }
        self
    }

    pub(crate) fn detail(mut self, text: &'static str) -> Self {
        if let Self::Problem { detail, .. } = &mut self {
            *detail = text;
        }
        self
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            validity: Duration::from_secs(90 * 86_400),
            profiles: BTreeMap::new(),
            alternates: 0,
            renewal_window: None,
            retry_after: None,
            says_replaces: true,
            binding: None,
            are_names_known: false,
            looks: 0,
            challenges: vec!["http-01", "tls-alpn-01", "dns-01"],
            rejected: HashMap::new(),
            looks_for: None,
            issues_for_another_key: false,
            forgets_a_name: false,
        }
    }
}

struct Shared {
    base: String,
    clock: Clock,
    issuer: Issuer,
    book: Mutex<Book>,
    rules: Mutex<Rules>,
    script: Mutex<HashMap<Step, VecDeque<(usize, Answer)>>>,
    asked: Mutex<Vec<Step>>,
}

impl Shared {
    /// Counts a step, and says what is scripted for it.
    fn asked(&self, step: Step) -> Option<Answer> {
        lock(&self.asked).push(step);
        let mut script = lock(&self.script);
        let scripted = script.get_mut(&step)?;
        while scripted.front().is_some_and(|(times, _)| *times == 0) {
            scripted.pop_front();
        }
        let (times, answer) = scripted.front_mut()?;
        *times -= 1;
        Some(answer.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
