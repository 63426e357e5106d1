//! Proof of control of each name of an order (RFC 8555, section 7.5): all answers are set up, then the CA is told of them
//! all, then they are cleaned up.

use std::time::Duration;

use instant_acme::{
    AuthorizationHandle, AuthorizationStatus, Authorizations, ChallengeStatus, ChallengeType, Identifier, Order,
};
use jiff::{SignedDuration, Timestamp};

use crate::acme::challenge::{Challenge, Presented, Solver};
use crate::acme::failure::{Failure, Kind, Stage, cleaned};
use crate::acme::session::{Patience, Session};

/// Until every name is proved, or some have failed.
pub(super) async fn authorize(session: &Session, order: &mut Order, solver: &Solver) -> Result<(), Failure> {
    let pending = pending(session, order, solver).await?;
    if !solver.is_sequential() {
        return prove(session, order, solver, &pending).await;
    }
    for one in &pending {
        prove(session, order, solver, std::slice::from_ref(one)).await?;
    }
    Ok(())
}

/// How long a CA may take to look. Let's Encrypt takes seconds.
const LOOKS_WITHIN: SignedDuration = SignedDuration::from_mins(5);

/// An authorization whose challenge is not answered yet.
struct Pending {
    /// As it was asked for.
    name: String,
    /// Among the order's authorizations.
    place: usize,
    challenge: Challenge,
}

async fn prove(session: &Session, order: &mut Order, solver: &Solver, pending: &[Pending]) -> Result<(), Failure> {
    let mut presented = Vec::new();
    let proved = async {
        present(solver, pending, &mut presented).await?;
        solver.settle(&presented, session.clock()).await?;
        for one in pending {
            trigger(session, order, solver, one).await?;
        }
        validated(session, order, pending).await
    };
    let proved = proved.await;
    for presented in presented {
        solver.cleanup(presented).await;
    }
    proved
}

async fn present(solver: &Solver, pending: &[Pending], presented: &mut Vec<Presented>) -> Result<(), Failure> {
    for one in pending {
        match solver.present(&one.challenge).await {
            Ok(answer) => presented.push(answer),
            Err(failure) => return Err(of_name(&one.name, failure)),
        }
    }
    Ok(())
}

async fn pending(session: &Session, order: &mut Order, solver: &Solver) -> Result<Vec<Pending>, Failure> {
    load(session, order).await?;
    let mut pending = Vec::new();
    let mut places = 0..;
    let mut authorizations = order.authorizations();
    while let (Some(place), Some(authorization)) = (places.next(), authorizations.next().await) {
        let authorization = authorization.map_err(|error| session.failure(&error, Stage::Order))?;
        let name = authorization.identifier().to_string();
        match authorization.status {
            AuthorizationStatus::Valid => {}
            AuthorizationStatus::Pending => {
                let challenge = challenge(authorization, solver).map_err(|failure| of_name(&name, failure))?;
                pending.push(Pending { name, place, challenge });
            }
            status => {
                let message = format!("the CA's authorization is {status:?} before it was answered");
                return Err(of_name(&name, Failure::new(Kind::Unavailable, message.to_lowercase())));
            }
        }
    }
    Ok(pending)
}

/// Asks for each authorization once, whatever order it takes.
async fn load(session: &Session, order: &mut Order) -> Result<(), Failure> {
    let mut patience = Patience::repeating(session);
    loop {
        let mut authorizations = order.authorizations();
        let failed = loop {
            match authorizations.next().await {
                None => break None,
                Some(Ok(_)) => {}
                Some(Err(error)) => break Some(error),
            }
        };
        match failed {
            None => return Ok(()),
            Some(error) => patience.after(&error, Stage::Order).await?,
        }
    }
}

fn challenge(authorization: AuthorizationHandle<'_>, solver: &Solver) -> Result<Challenge, Failure> {
    let domain = match authorization.identifier().identifier {
        Identifier::Dns(name) => name.to_ascii_lowercase(),
        Identifier::Ip(address) => address.to_string(),
        _ => return Err(Failure::new(Kind::Unavailable, "the CA asks for an identifier that was not ordered")),
    };
    let offered = authorization.challenges.iter().map(|challenge| name(&challenge.r#type));
    let offered = offered.collect::<Vec<_>>().join(", ");
    // Moved, so that it may be lent for as long as it lives.
    let mut authorization = authorization;
    let Some(challenge) = authorization.challenge(solver.kind()) else {
        let message = format!("the CA does not offer {} for it, but {offered}", name(&solver.kind()));
        return Err(Failure::new(Kind::Settings, message).help("wildcards need DNS-01, IP addresses one of the others"));
    };
    if !is_token(&challenge.token) {
        return Err(Failure::new(Kind::Unavailable, "the CA's challenge has no proper token"));
    }
    let key_authorization = challenge.key_authorization();
    Ok(Challenge {
        domain,
        token: challenge.token.clone(),
        key_authorization: key_authorization.as_str().to_owned(),
        digest: key_authorization.digest().as_ref().to_vec(),
        value: key_authorization.dns_value(),
    })
}

fn name(kind: &ChallengeType) -> String {
    match kind {
        ChallengeType::Dns01 => "DNS-01".to_owned(),
        ChallengeType::Http01 => "HTTP-01".to_owned(),
        ChallengeType::TlsAlpn01 => "TLS-ALPN-01".to_owned(),
        ChallengeType::Unknown(kind) => cleaned(kind),
        kind => format!("{kind:?}"),
    }
}

/// Characters of base64 for URLs (RFC 8555, section 8.1): it goes into paths, certificates and zones.
fn is_token(token: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !token.is_empty() && token.len() <= 256 && token.bytes().all(is_plain)
}

/// Tells the CA to look.
async fn trigger(session: &Session, order: &mut Order, solver: &Solver, pending: &Pending) -> Result<(), Failure> {
    let mut patience = Patience::repeating(session);
    loop {
        let mut authorizations = order.authorizations();
        skip(&mut authorizations, pending.place).await;
        let Some(Ok(mut authorization)) = authorizations.next().await else {
            return Err(lost());
        };
        let Some(mut challenge) = authorization.challenge(solver.kind()) else {
            return Err(lost());
        };
        // An error in a good answer is that it has looked already. What it found is read next.
        match challenge.set_ready().await {
            Err(error) if !session.last().is_success() => match patience.after(&error, Stage::Order).await {
                // The answer to an earlier try may have been lost, and a challenge is answered only once.
                Err(failure) if is_pending(order, pending).await => return Err(failure),
                Err(_) => return Ok(()),
                Ok(()) => {}
            },
            _ => return Ok(()),
        }
    }
}

async fn is_pending(order: &mut Order, pending: &Pending) -> bool {
    let mut authorizations = order.authorizations();
    skip(&mut authorizations, pending.place).await;
    let Some(Ok(mut authorization)) = authorizations.next().await else {
        return true;
    };
    // While the CA looks, the authorization is pending, and the challenge is not.
    authorization.refresh().await.is_ok_and(|authorization| {
        let mut challenges = authorization.challenges.iter();
        authorization.status == AuthorizationStatus::Pending
            && challenges.all(|challenge| challenge.status == ChallengeStatus::Pending)
    })
}

/// Waits until the CA has looked at each of them.
async fn validated(session: &Session, order: &mut Order, pending: &[Pending]) -> Result<(), Failure> {
    let deadline = session.clock().now().saturating_add(LOOKS_WITHIN).unwrap_or(Timestamp::MAX);
    let mut failures = Vec::new();
    for one in pending {
        if let Err(failure) = verdict(session, order, one, deadline).await {
            failures.push((one.name.clone(), failure));
        }
    }
    Failure::of_names(failures).map_or(Ok(()), Err)
}

async fn verdict(session: &Session, order: &mut Order, pending: &Pending, deadline: Timestamp) -> Result<(), Failure> {
    let mut patience = Patience::repeating(session);
    let mut pace = Pace::new();
    loop {
        let mut authorizations = order.authorizations();
        skip(&mut authorizations, pending.place).await;
        let Some(Ok(mut authorization)) = authorizations.next().await else {
            return Err(lost());
        };
        if let Err(error) = authorization.refresh().await {
            patience.after(&error, Stage::Order).await?;
            continue;
        }
        let problem = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        match authorization.status {
            AuthorizationStatus::Valid => return Ok(()),
            AuthorizationStatus::Pending => {}
            status => {
                let unsaid =
                    || Failure::new(Kind::Validation, format!("the CA's authorization is {status:?}").to_lowercase());
                return Err(problem.map_or_else(unsaid, |problem| Failure::of_problem(problem, Stage::Challenge)));
            }
        }
        if !pace.wait(session, deadline).await {
            let message = format!("the CA has not looked within {} minutes", LOOKS_WITHIN.as_mins());
            return Err(Failure::new(Kind::Unavailable, message));
        }
    }
}

/// They are lent one after the other. Nothing is asked for: all of them are loaded.
async fn skip(authorizations: &mut Authorizations<'_>, count: usize) {
    for _ in 0..count {
        let _ = authorizations.next().await;
    }
}

fn lost() -> Failure {
    Failure::new(Kind::Unavailable, "the CA's order has lost an authorization or its challenge")
}

fn of_name(name: &str, failure: Failure) -> Failure {
    Failure { message: format!("`{name}`: {}", failure.message), names: vec![name.to_owned()], ..failure }
}

/// How often a CA is asked whether it is done: as it says, else ever more seldom.
pub(super) struct Pace(Duration);

impl Pace {
    const FIRST: Duration = Duration::from_millis(250);
    const LAST: Duration = Duration::from_secs(5);

    pub(super) fn new() -> Self {
        Self(Self::FIRST)
    }

    /// Whether there is time for another question.
    pub(super) async fn wait(&mut self, session: &Session, deadline: Timestamp) -> bool {
        let clock = session.clock();
        let now = clock.now();
        if now >= deadline {
            return false;
        }
        let said =
            session.last().retry_after.map(|time| time.duration_since(now)).and_then(|wait| wait.try_into().ok());
        let until = now.saturating_add(said.unwrap_or(self.0)).unwrap_or(Timestamp::MAX);
        clock.sleep_until(until.min(deadline)).await;
        self.0 = (self.0 * 2).min(Self::LAST);
        true
    }
}
