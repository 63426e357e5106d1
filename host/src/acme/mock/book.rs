//! What the mock CA remembers: accounts, orders, authorizations, certificates.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{Look, Rules};

#[derive(Default)]
pub(super) struct Book {
    nonces: HashSet<String>,
    serial: u64,
    /// Gone ones are `None`, so that no number is given twice.
    accounts: Vec<Option<Account>>,
    orders: Vec<Order>,
    authorizations: Vec<Authorization>,
    replaced: HashSet<String>,
}

pub(super) struct Account {
    pub(super) contact: Vec<String>,
    /// The point of P-256, uncompressed.
    pub(super) key: Vec<u8>,
    pub(super) thumbprint: String,
}

/// An order as the CA saw it.
#[derive(Clone, Debug)]
pub(crate) struct Ordered {
    pub names: Vec<String>,
    pub profile: Option<String>,
    pub replaces: Option<String>,
    pub status: String,
    /// Of the certificate's request.
    pub common_name: Option<String>,
}

pub(super) struct Order {
    pub(super) ordered: Ordered,
    identifiers: Value,
    authorizations: Vec<usize>,
    /// Whatever its authorizations say.
    pub(super) forced: Option<&'static str>,
    looks: u32,
    /// One for each root.
    pub(super) chains: Option<Vec<String>>,
}

pub(super) struct Authorization {
    identifier: Value,
    is_wildcard: bool,
    token: String,
    status: &'static str,
    looks: u32,
    /// The challenge that was looked at, and what became of it.
    tried: Option<(String, Option<Value>)>,
    /// What it becomes after some looks.
    verdict: Option<&'static str>,
}

impl Book {
    pub(super) fn nonce(&mut self) -> String {
        let nonce = format!("nonce-{}", self.serial());
        self.nonces.insert(nonce.clone());
        nonce
    }

    pub(super) fn spend(&mut self, nonce: &str) -> bool {
        self.nonces.remove(nonce)
    }

    pub(super) fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn register(&mut self, account: Account) -> usize {
        self.accounts.push(Some(account));
        self.accounts.len() - 1
    }

    pub(super) fn account(&self, number: usize) -> Option<&Account> {
        self.accounts.get(number)?.as_ref()
    }

    pub(super) fn accounts(&self) -> Vec<Vec<String>> {
        self.accounts.iter().flatten().map(|account| account.contact.clone()).collect()
    }

    pub(super) fn forget_accounts(&mut self) {
        self.accounts.iter_mut().for_each(|account| *account = None);
    }

    pub(super) fn orders(&self) -> Vec<Ordered> {
        (0..self.orders.len())
            .map(|n| Ordered { status: self.status(n).to_owned(), ..self.orders[n].ordered.clone() })
            .collect()
    }

    pub(super) fn order(&mut self, number: usize) -> Option<&mut Order> {
        self.orders.get_mut(number)
    }

    /// Whether a certificate may still be replaced. From now on it may not.
    pub(super) fn replace(&mut self, id: &str) -> bool {
        self.replaced.insert(id.to_owned())
    }

    pub(super) fn begin(&mut self, wanted: &Value, forced: Option<&'static str>, rules: &Rules) -> usize {
        let identifiers = wanted["identifiers"].clone();
        let mut authorizations = Vec::new();
        let mut names = Vec::new();
        for identifier in identifiers.as_array().into_iter().flatten() {
            let name = identifier["value"].as_str().unwrap_or_default();
            names.push(name.to_owned());
            let base = name.strip_prefix("*.").unwrap_or(name);
            let status = if rules.are_names_known { "valid" } else { "pending" };
            let token = format!("token_{}", self.serial());
            self.authorizations.push(Authorization {
                identifier: json!({"type": identifier["type"], "value": base}),
                is_wildcard: base != name,
                token,
                status,
                looks: 0,
                tried: None,
                verdict: None,
            });
            authorizations.push(self.authorizations.len() - 1);
        }
        let text = |field: &str| wanted[field].as_str().map(str::to_owned);
        let ordered = Ordered {
            names,
            profile: text("profile"),
            replaces: text("replaces"),
            status: String::new(),
            common_name: None,
        };
        self.orders.push(Order { ordered, identifiers, authorizations, forced, looks: 0, chains: None });
        self.orders.len() - 1
    }

    /// An order as a document, after a look at it.
    pub(super) fn look_at_order(&mut self, number: usize, base: &str, rules: &Rules) -> Value {
        let status = self.status(number);
        let order = &mut self.orders[number];
        if status == "processing" {
            order.looks = order.looks.saturating_sub(1);
        }
        let authorizations: Vec<_> = order.authorizations.iter().map(|n| format!("{base}/authz/{n}")).collect();
        let mut document = json!({
            "status": status,
            "identifiers": order.identifiers,
            "authorizations": authorizations,
            "finalize": format!("{base}/finalize/{number}"),
        });
        if status == "valid" {
            document["certificate"] = format!("{base}/cert/{number}/0").into();
        }
        if rules.says_replaces
            && let Some(replaces) = &order.ordered.replaces
        {
            document["replaces"] = replaces.clone().into();
        }
        document
    }

    pub(super) fn finalized(&mut self, number: usize, chains: Vec<String>, looks: u32) {
        let order = &mut self.orders[number];
        order.chains = Some(chains);
        order.looks = looks;
    }

    pub(super) fn status(&self, number: usize) -> &'static str {
        let order = &self.orders[number];
        let statuses: Vec<_> = order.authorizations.iter().map(|n| self.authorizations[*n].status).collect();
        match order {
            Order { forced: Some(forced), .. } => forced,
            Order { chains: Some(_), looks: 0, .. } => "valid",
            Order { chains: Some(_), .. } => "processing",
            _ if statuses.contains(&"invalid") => "invalid",
            _ if statuses.iter().all(|status| *status == "valid") => "ready",
            _ => "pending",
        }
    }

    /// An authorization as a document, after a look at it.
    pub(super) fn look_at_authorization(&mut self, number: usize, base: &str, rules: &Rules) -> Option<Value> {
        let authorization = self.authorizations.get_mut(number)?;
        if let Some(verdict) = authorization.verdict {
            match authorization.looks {
                0 => authorization.status = verdict,
                _ => authorization.looks -= 1,
            }
        }
        let kinds = rules.challenges.iter().filter(|kind| !authorization.is_wildcard || **kind == "dns-01");
        let challenges: Vec<_> = kinds.map(|kind| authorization.challenge(number, kind, base)).collect();
        let mut document = json!({
            "status": authorization.status,
            "identifier": authorization.identifier,
            "challenges": challenges,
        });
        if authorization.is_wildcard {
            document["wildcard"] = true.into();
        }
        Some(document)
    }

    /// The client says that its answer is there: it is looked for.
    pub(super) fn try_challenge(
        &mut self,
        number: usize,
        kind: &str,
        thumbprint: &str,
        base: &str,
        rules: &Rules,
    ) -> Option<Value> {
        let authorization = self.authorizations.get_mut(number)?;
        if authorization.tried.is_some() || authorization.status != "pending" {
            return None;
        }
        let name = authorization.identifier["value"].as_str().unwrap_or_default().to_owned();
        let token = authorization.token.clone();
        let look = Look { kind: kind.to_owned(), name, key_authorization: format!("{token}.{thumbprint}"), token };
        let problem = match rules.rejected.get(look.name.as_str()) {
            Some((kind, detail)) => Some((*kind, *detail)),
            None => match &rules.looks_for {
                Some(finds) if !finds(&look) => Some(("incorrectResponse", "nothing there")),
                _ => None,
            },
        };
        let error = problem.map(|(kind, detail)| {
            json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": 403})
        });
        authorization.verdict = Some(if error.is_some() { "invalid" } else { "valid" });
        authorization.looks = rules.looks;
        authorization.tried = Some((kind.to_owned(), error));
        Some(authorization.challenge(number, kind, base))
    }
}

impl Authorization {
    fn challenge(&self, number: usize, kind: &str, base: &str) -> Value {
        let mut document = json!({
            "type": kind,
            "url": format!("{base}/challenge/{number}/{kind}"),
            "token": self.token,
            "status": "pending",
        });
        if let Some((_, error)) = self.tried.as_ref().filter(|(tried, _)| tried == kind) {
            document["status"] = if self.status == "pending" { "processing" } else { self.status }.into();
            if let Some(error) = error.as_ref().filter(|_| self.status == "invalid") {
                document["error"] = error.clone();
            }
        }
        document
    }
}
