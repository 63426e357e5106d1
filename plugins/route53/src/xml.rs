//! As much of XML as the answers of Route 53 have: elements without attributes whose names tell what they are, and text.

/// What is between the tags of each element of that name. None of them is in another one of the same name.
pub(crate) fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let (_, behind) = rest.split_once(&open)?;
        let (inner, behind) = behind.split_once(&close)?;
        rest = behind;
        Some(inner)
    })
}

/// The text of the first element of that name.
pub(crate) fn text(xml: &str, name: &str) -> Option<String> {
    elements(xml, name).next().map(unescape)
}

pub(crate) fn unescape(text: &str) -> String {
    let text = text.trim().replace("&quot;", "\"").replace("&#34;", "\"").replace("&#x22;", "\"");
    text.replace("&apos;", "'").replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_elements_by_name() {
        let xml = "<A xmlns=\"x\"><B><C>1</C></B>\n<BB>2</BB><B><C> 3 </C></B></A>";
        let texts: Vec<Option<String>> = elements(xml, "B").map(|inner| text(inner, "C")).collect();
        assert_eq!(texts, [Some("1".to_owned()), Some("3".to_owned())]);
        assert_eq!(text(xml, "D"), None);
        assert_eq!(text("<C>never closed", "C"), None);
    }

    #[test]
    fn what_was_escaped_is_unescaped() {
        for value in ["\"a & b\"", "<&lt;>", "&amp;quot;"] {
            assert_eq!(unescape(&escape(value)), value);
        }
    }
}
