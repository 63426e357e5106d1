//! Variables as lego's users know them: an empty one is not set, several names may mean the same, and what is missing is
//! said in lego's words. Called in `init`. The values are secrets, and stand in no error.

use crate::log::{self, Level};
use crate::{Error, secrets};

/// The values of variables that are all needed.
///
/// # Errors
/// Names those that are not set.
pub fn required<const N: usize>(names: [&str; N]) -> Result<[String; N], Error> {
    let values = names.map(|name| optional(&[name]));
    let unset: Vec<&str> =
        names.iter().zip(&values).filter(|(_, value)| value.is_none()).map(|(&name, _)| name).collect();
    if unset.is_empty() { Ok(values.map(Option::unwrap_or_default)) } else { Err(missing(&unset)) }
}

/// The value of the first of these names that is set.
#[must_use]
pub fn optional(names: &[&str]) -> Option<String> {
    set(names).map(|(_, value)| value)
}

/// The error for variables that are needed and not set.
#[must_use]
pub fn missing(names: &[&str]) -> Error {
    Error::invalid_config(format!("some credentials information are missing: {}", names.join(",")))
}

/// The address that a variable has, or else this one. It may not be written with a user: there are headers for that.
///
/// # Errors
/// Names the variable whose value is no address of `http` or `https`.
pub fn url(name: &str, default: &str) -> Result<String, Error> {
    let url = optional(&[name]).unwrap_or_else(|| default.to_owned());
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    if rest.is_none_or(|rest| rest.trim_matches('/').is_empty() || rest.contains(['?', '#', '@', ' '])) {
        return Err(Error::invalid_config(format!(
            "use the value of {name}: write it as `https://host`, with a path where there is one"
        )));
    }
    Ok(url)
}

/// A whole number, of seconds in most cases. What is none is the default, as in lego, and a warning in the log.
#[must_use]
pub fn number(names: &[&str], default: u32) -> u32 {
    let Some((name, value)) = set(names) else {
        return default;
    };
    value.parse().unwrap_or_else(|_| {
        log::write(Level::Warn, &format!("`{name}` is no number of seconds, so that {default} is used"), &[]);
        default
    })
}

/// Yes or no, as Go reads it. What is neither is the default, as in lego, and a warning in the log.
#[must_use]
pub fn flag(name: &str, default: bool) -> bool {
    let Some(value) = optional(&[name]) else {
        return default;
    };
    match value.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        _ => {
            log::write(Level::Warn, &format!("`{name}` is neither `true` nor `false`, so that {default} is used"), &[]);
            default
        }
    }
}

/// Name and value of the first that is set. Files often end with a line break that no value means.
fn set<'a>(names: &[&'a str]) -> Option<(&'a str, String)> {
    names.iter().find_map(|&name| {
        let value = secrets::get(name)?.trim_end_matches(['\r', '\n']).to_owned();
        (!value.is_empty()).then_some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Host;

    use super::*;

    #[test]
    fn what_is_missing_is_named_in_the_words_of_lego() {
        let _host = Host::new().variables(&[("B", "b"), ("C", "")]);
        let error = required(["A", "B", "C"]).expect_err("two are not set");
        assert_eq!(error.message, "some credentials information are missing: A,C");
    }

    #[test]
    fn values_come_in_the_order_of_their_names() {
        let _host = Host::new().variables(&[("B", "b"), ("A", "a\n")]);
        assert_eq!(required(["A", "B"]), Ok(["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn an_empty_variable_does_not_hide_its_alias() {
        let _host = Host::new().variables(&[("A", ""), ("B", "b")]);
        assert_eq!(optional(&["A", "B"]).as_deref(), Some("b"));
        assert_eq!(optional(&["A"]), None);
    }

    #[test]
    fn an_address_is_one_of_http() {
        for good in ["https://api.test", "http://127.0.0.1:8080/a/"] {
            let _host = Host::new().variables(&[("A", good)]);
            assert_eq!(url("A", "").as_deref(), Ok(good));
        }
        for bad in ["api.test", "ftp://api.test", "https://", "https://user:password@api.test", "https://api.test?a=b"]
        {
            let _host = Host::new().variables(&[("A", bad)]);
            let error = url("A", "https://api.test").expect_err("it is no address of an API");
            assert_eq!(error.message, "use the value of A: write it as `https://host`, with a path where there is one");
        }
        let _host = Host::new();
        assert_eq!(url("A", "https://api.test").as_deref(), Ok("https://api.test"));
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        let host = Host::new().variables(&[("A", "True"), ("B", "0"), ("C", "yes")]);
        assert!(flag("A", false));
        assert!(!flag("B", true));
        assert!(flag("C", true));
        assert!(flag("D", true));
        assert_eq!(host.logged(), ["`C` is neither `true` nor `false`, so that true is used"]);
    }
}
