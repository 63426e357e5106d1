//! The content of TXT records as zone files write it (RFC 1035, section 5.1), for providers whose API wants it so.

/// The value as one quoted string.
#[must_use]
pub fn quote(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The value of quoted strings, which belong together where there are several. What is not quoted stays as it is.
#[must_use]
pub fn unquote(content: &str) -> String {
    if !content.starts_with('"') {
        return content.to_owned();
    }
    let mut value = String::new();
    let mut quoted = false;
    let mut letters = content.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => quoted = !quoted,
            '\\' => value.extend(letters.next()),
            letter if quoted => value.push(letter),
            _ => {}
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_quoted_is_unquoted() {
        for value in ["", "abc", r#"a "b" c"#, r"a\b"] {
            assert_eq!(unquote(&quote(value)), value);
        }
        assert_eq!(quote(r#"a"b\"#), r#""a\"b\\""#);
    }

    #[test]
    fn strings_of_one_record_belong_together() {
        assert_eq!(unquote(r#""abc" "def""#), "abcdef");
        assert_eq!(unquote("abc def"), "abc def");
    }
}
