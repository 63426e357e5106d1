//! The users of one configuration: read from `name:hash` entries in `init`, asked when credentials are not remembered.

use std::collections::BTreeMap;
use std::rc::Rc;

use weir_sdk::Error;

use crate::credentials::Credentials;
use crate::hash::PasswordHash;

/// Hashes by user name.
pub(crate) struct Users {
    by_name: BTreeMap<Rc<[u8]>, PasswordHash>,
    /// One hash of each cost that there is. Every check makes one of each, so that neither whether a user is known nor
    /// what kind of hash they have can be told by the time.
    decoys: Vec<PasswordHash>,
}

impl Users {
    /// Reads the text of a users file, whose comments and blank lines are left out, then the entries of `users`. The
    /// last entry of a name wins.
    ///
    /// # Errors
    /// Names the entry and what to do. Nothing of a hash is in the message: what looks like one may be a password.
    pub(crate) fn parse(file: &str, entries: &[String]) -> Result<Self, Error> {
        let lines = file.lines().map(str::trim).enumerate();
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let lines = lines.map(|(index, line)| (format!("line {} of `usersFile`", index + 1), line));
        let entries =
            entries.iter().enumerate().map(|(index, entry)| (format!("entry {} of `users`", index + 1), &**entry));

        let mut by_name = BTreeMap::new();
        for (place, entry) in lines.chain(entries) {
            let (name, hash) = parse_entry(&place, entry)?;
            by_name.insert(Rc::from(name.as_bytes()), hash);
        }
        let by_cost: BTreeMap<u32, &PasswordHash> = by_name.values().map(|hash| (hash.cost(), hash)).collect();
        let decoys: Vec<PasswordHash> = by_cost.into_values().cloned().collect();
        if decoys.is_empty() {
            return Err(Error::invalid_config("find a user: fill `users` or `usersFile` with `name:hash` entries"));
        }
        Ok(Self { by_name, decoys })
    }

    /// The name of the user if the password is theirs.
    pub(crate) fn verify(&self, credentials: &Credentials) -> Option<Rc<[u8]>> {
        let known = self.by_name.get_key_value(credentials.user.as_slice());
        let own = known.map(|(_, hash)| hash);
        let mut matches = false;
        for hash in self.checks(own) {
            let fits = hash.verify(&credentials.password);
            matches |= fits && own.is_some_and(|own| std::ptr::eq(own, hash));
        }
        let (name, _) = known?;
        matches.then(|| Rc::clone(name))
    }

    /// The hashes to check a password against: that of the user, and decoys in place of those that others have.
    fn checks<'a>(&'a self, own: Option<&'a PasswordHash>) -> impl Iterator<Item = &'a PasswordHash> {
        self.decoys.iter().map(move |decoy| own.filter(|own| own.cost() == decoy.cost()).unwrap_or(decoy))
    }
}

fn parse_entry<'a>(place: &str, entry: &'a str) -> Result<(&'a str, PasswordHash), Error> {
    let Some((name, hash)) = entry.split_once(':').filter(|(_, hash)| !hash.contains(':')) else {
        return Err(Error::invalid_config(format!(
            "read {place}: write `name:hash`, as `htpasswd -nB name` prints it"
        )));
    };
    if name.contains(|letter: char| letter.is_ascii_control()) {
        return Err(Error::invalid_config(format!("read {place}: the name has a control character")));
    }
    match PasswordHash::parse(hash) {
        Ok(hash) => Ok((name, hash)),
        Err(problem) => Err(Error::invalid_config(format!(
            "use the password hash of user `{name}`: {problem}; make a new one with `htpasswd -nB {name}`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
    const OTHER: &str = "{SHA}3OptnM09ILoVSfbZtd3mB0IViII=";

    fn verify(users: &Users, user: &str, password: &str) -> bool {
        users.verify(&Credentials { user: user.into(), password: password.into() }).is_some()
    }

    fn problem(file: &str, entries: &[&str]) -> String {
        let entries: Vec<_> = entries.iter().map(|&entry| entry.to_owned()).collect();
        Users::parse(file, &entries).err().expect("the configuration is wrong").message
    }

    #[test]
    fn reads_the_file_and_the_entries() {
        let file = format!("# people\r\n\r\n  bob:{OTHER}  \r\nbob:{SECRET}\r\nmia:{SECRET}\r\n");
        let users = Users::parse(&file, &[format!("mia:{OTHER}")]).expect("the file is right");
        assert!(verify(&users, "bob", "secret"), "the last line wins");
        assert!(!verify(&users, "bob", "a:b"));
        assert!(verify(&users, "mia", "a:b"), "an entry wins over a line");
        assert!(!verify(&users, "# people", "secret"));
        assert!(!verify(&users, "nobody", "secret"), "the decoy lets nobody in");
    }

    #[test]
    fn every_check_is_the_same_work() {
        let entries = [
            format!("sha:{SECRET}"),
            "apr:$apr1$Mi1J0p.B$E8fnKqMgqAX263OlViQmq/".to_owned(),
            "bcrypt:$2y$05$/IRNub/zEczxTCXdiQ3wSuQxJ./2DIRJ8WsuOFzL2iobSSSAoecb2".to_owned(),
            "two:$2y$05$/IRNub/zEczxTCXdiQ3wSuQxJ./2DIRJ8WsuOFzL2iobSSSAoecb2".to_owned(),
        ];
        for count in 1..=entries.len() {
            let users = Users::parse("", &entries[..count]).expect("good entries");
            let work = |user: &str| -> Vec<u32> {
                users.checks(users.by_name.get(user.as_bytes())).map(PasswordHash::cost).collect()
            };
            let expected = [&[0][..], &[0, 1], &[0, 1, 5], &[0, 1, 5]][count - 1];
            for user in ["nobody", "", "sha", "apr", "bcrypt", "two"] {
                assert_eq!(work(user), expected, "{user} of {count}");
            }
            for entry in &entries[..count] {
                let (user, _) = entry.split_once(':').expect("an entry");
                assert!(verify(&users, user, "secret") && !verify(&users, user, "wrong"), "{user} of {count}");
            }
            assert!(!verify(&users, "nobody", "secret"));
        }
    }

    #[test]
    fn says_which_entry_is_wrong_and_keeps_secrets() {
        assert!(problem("", &[]).starts_with("find a user"));
        assert!(problem("# nobody", &[]).starts_with("find a user"));
        let text = problem(&format!("bob:{SECRET}\nhunter2"), &[]);
        assert!(text.starts_with("read line 2 of `usersFile`") && !text.contains("hunter2"), "{text}");
        let text = problem("", &[&format!("bob:{SECRET}"), &format!("a:b:{SECRET}")]);
        assert!(text.starts_with("read entry 2 of `users`"), "{text}");
        let text = problem("", &["bob:hunter2"]);
        assert!(
            text.contains("user `bob`") && text.contains("htpasswd -nB bob") && !text.contains("hunter2"),
            "{text}"
        );
    }
}
