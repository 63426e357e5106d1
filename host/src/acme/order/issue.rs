//! From an order whose names are proved to its certificate (RFC 8555, sections 7.4 and 7.4.2).

use std::time::Duration;

use instant_acme::{Order, OrderStatus};
use jiff::{SignedDuration, Timestamp};

use super::authorize::Pace;
use crate::acme::failure::{Failure, Kind, Stage};
use crate::acme::session::{Patience, Session};

/// The chain in PEM, and the URLs of other ones.
pub(super) async fn issue(
    session: &Session,
    order: &mut Order,
    csr: &[u8],
    timeout: Duration,
) -> Result<(String, Vec<String>), Failure> {
    let timeout = SignedDuration::try_from(timeout).unwrap_or(SignedDuration::MAX);
    let deadline = session.clock().now().saturating_add(timeout).unwrap_or(Timestamp::MAX);
    finalize(session, order, csr, deadline).await?;
    download(session, order).await
}

/// Until the order is valid.
async fn finalize(session: &Session, order: &mut Order, csr: &[u8], deadline: Timestamp) -> Result<(), Failure> {
    let mut asking = Patience::careful(session);
    let mut looking = Patience::repeating(session);
    let mut pace = Pace::new();
    let mut lost = None;
    let mut is_asked = false;
    loop {
        match order.state().status {
            OrderStatus::Valid => return Ok(()),
            OrderStatus::Invalid => return Err(invalid(order)),
            OrderStatus::Ready if !is_asked => match order.finalize_csr(csr).await {
                Ok(()) => {
                    is_asked = true;
                    continue;
                }
                Err(error) => match asking.after(&error, Stage::Order).await {
                    Ok(()) => continue,
                    // The answer may be lost, and not the request: the order itself knows. Once.
                    Err(failure) if failure.kind == Kind::Unavailable && lost.is_none() => lost = Some(failure),
                    Err(failure) => return Err(failure),
                },
            },
            OrderStatus::Ready | OrderStatus::Pending | OrderStatus::Processing => {}
        }
        if !pace.wait(session, deadline).await {
            let late = || {
                let message = "the CA has not issued the certificate within `certificateTimeout`";
                Failure::new(Kind::Unavailable, message)
            };
            return Err(lost.unwrap_or_else(late));
        }
        if let Err(error) = order.refresh().await {
            looking.after(&error, Stage::Order).await?;
        }
    }
}

fn invalid(order: &mut Order) -> Failure {
    let problem = order.state().error.as_ref();
    let unsaid = || Failure::new(Kind::Unavailable, "the CA has given the order up and does not say why");
    problem.map_or_else(unsaid, |problem| Failure::of_problem(problem, Stage::Order))
}

async fn download(session: &Session, order: &mut Order) -> Result<(String, Vec<String>), Failure> {
    let mut patience = Patience::repeating(session);
    loop {
        match order.certificate().await {
            Ok(Some(pem)) => return Ok((pem, session.last().alternates())),
            Ok(None) => return Err(Failure::new(Kind::Unavailable, "the CA has taken the certificate back")),
            Err(error) => patience.after(&error, Stage::Order).await?,
        }
    }
}
