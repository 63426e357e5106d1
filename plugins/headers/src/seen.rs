//! What `on_request` finds out that the response needs: the state that travels through the host in between.

/// Facts of one request.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Whether a header told that the client uses HTTPS.
    pub(crate) https: bool,
    /// The value of `Access-Control-Allow-Origin`, if the origin is allowed.
    pub(crate) origin: Option<String>,
}

impl Seen {
    /// One byte for each fact, then the origin; nothing at all if there is nothing to remember.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        if self == Self::default() {
            return Vec::new();
        }
        let mut bytes = vec![u8::from(self.https), u8::from(self.origin.is_some())];
        bytes.extend(self.origin.unwrap_or_default().into_bytes());
        bytes
    }

    /// Empty if there was no `on_request`.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let [https, has_origin, origin @ ..] = bytes else {
            return Self::default();
        };
        let origin = (*has_origin == 1).then(|| String::from_utf8_lossy(origin).into_owned());
        Self { https: *https == 1, origin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_went() {
        for origin in [None, Some(String::new()), Some("https://example.com".to_owned())] {
            for https in [false, true] {
                let bytes = Seen { https, origin: origin.clone() }.into_bytes();
                assert_eq!(Seen::from_bytes(&bytes), Seen { https, origin: origin.clone() });
            }
        }
        assert_eq!(Seen::from_bytes(&[]), Seen::default());
    }
}
