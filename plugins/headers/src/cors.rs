//! Cross-origin resource sharing, as the Fetch standard has it: answers preflights, and tells browsers which origins
//! may read a response. Never refuses a request: that is the browser's part.

use regex_lite::Regex;
use weir_sdk::{Error, HeaderEdit, Plan, Reply, Request, Response, header};

use crate::config::Config;

const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const REQUEST_METHOD: &str = "access-control-request-method";
const REQUEST_HEADERS: &str = "access-control-request-headers";

/// The CORS options of one configuration.
pub(crate) struct Cors {
    origins: Origins,
    allow_headers: Allowed,
    allow_methods: Allowed,
    /// Headers of every response, preflight or not.
    always: Vec<(&'static str, String)>,
    /// Seconds.
    max_age: Option<String>,
    add_vary: bool,
}

/// Which origins may read responses.
enum Origins {
    /// None is named: the service may do so itself.
    Unset,
    /// Whoever asks, and even who does not: `*`.
    All,
    Some {
        listed: Vec<Origin>,
        patterns: Vec<Regex>,
    },
}

enum Origin {
    Exactly(String),
    /// `*` behind others: the answer is `*`.
    Any,
    /// `*` with credentials, where the standard wants the origin itself.
    AnyByName,
}

/// What a preflight allows.
enum Allowed {
    /// The list as it goes into the header; empty for no header.
    List(String),
    /// What was asked for: `*` does not count where credentials are allowed.
    Requested,
}

/// Adds what every response gets. None if no CORS option is set.
pub(crate) fn plan(config: &Config, mut plan: Plan) -> Result<(Option<Cors>, Plan), Error> {
    let credentials = config.access_control_allow_credentials;
    let allow_headers = list("accessControlAllowHeaders", &config.access_control_allow_headers)?;
    let allow_methods = list("accessControlAllowMethods", &config.access_control_allow_methods)?;
    let expose_headers = list("accessControlExposeHeaders", &config.access_control_expose_headers)?;
    let cors = Cors {
        origins: Origins::new(config)?,
        allow_headers: Allowed::new(allow_headers, credentials),
        allow_methods: Allowed::new(allow_methods, credentials),
        always: always(credentials, expose_headers),
        max_age: config.access_control_max_age.map(|seconds| seconds.to_string()),
        add_vary: config.add_vary_header,
    };
    if cors.is_unset() {
        return Ok((None, plan));
    }

    for (name, value) in &cors.always {
        plan = plan.edit_response(HeaderEdit::set(name, value.as_str()));
    }
    if let Origins::All = cors.origins {
        plan = plan.edit_response(HeaderEdit::set(ALLOW_ORIGIN, "*"));
    }
    Ok((Some(cors), plan))
}

impl Cors {
    /// The answer if this is a preflight: OPTIONS with an origin and the method that is to follow.
    pub(crate) fn preflight(&self, request: &Request<'_>) -> Option<Reply> {
        if request.method() != "OPTIONS" {
            return None;
        }
        let method = request.header(REQUEST_METHOD).filter(|method| !method.is_empty())?;
        request.header("origin").filter(|origin| !origin.is_empty())?;

        let requested = request.header(REQUEST_HEADERS);
        let optional = [
            ("access-control-allow-headers", self.allow_headers.answer(requested.as_deref())),
            ("access-control-allow-methods", self.allow_methods.answer(Some(&method))),
            ("access-control-max-age", self.max_age.clone().map(String::into_bytes)),
            (ALLOW_ORIGIN, self.origin(request).map(String::into_bytes)),
        ];
        let mut reply = Reply::new(200);
        for (name, value) in &self.always {
            reply = reply.header(name, value.as_str());
        }
        for (name, value) in optional {
            reply.headers.extend(value.map(|value| (name.to_owned(), value)));
        }
        Some(reply)
    }

    /// What `on_response` will set; none where the plan sets it, or where the origin is not allowed.
    pub(crate) fn allowed_origin(&self, request: &Request<'_>) -> Option<String> {
        match self.origins {
            Origins::Unset | Origins::All => None,
            Origins::Some { .. } => self.origin(request),
        }
    }

    pub(crate) fn response_edits(&self, origin: Option<String>, response: &Response<'_>) -> Vec<HeaderEdit> {
        let origin = origin.map(|origin| HeaderEdit::set(ALLOW_ORIGIN, origin));
        let vary = self.add_vary.then(|| vary(&response.header_all("vary"))).flatten();
        origin.into_iter().chain(vary).collect()
    }

    /// Whether responses need a call.
    pub(crate) const fn wants_response(&self) -> bool {
        self.add_vary || matches!(self.origins, Origins::Some { .. })
    }

    /// What is read of every request. The others are read of preflights only.
    pub(crate) fn request_headers(&self) -> impl Iterator<Item = &str> {
        matches!(self.origins, Origins::Some { .. }).then_some("origin").into_iter()
    }

    fn is_unset(&self) -> bool {
        matches!(self.origins, Origins::Unset)
            && self.allow_headers.is_unset()
            && self.allow_methods.is_unset()
            && self.always.is_empty()
            && self.max_age.is_none()
            && !self.add_vary
    }

    fn origin(&self, request: &Request<'_>) -> Option<String> {
        let origin = request.header("origin");
        let asking =
            origin.as_deref().and_then(|origin| str::from_utf8(origin).ok()).filter(|origin| !origin.is_empty());
        self.origins.answer(asking).map(str::to_owned)
    }
}

impl Origins {
    fn new(config: &Config) -> Result<Self, Error> {
        let listed = &config.access_control_allow_origin_list;
        let patterns = &config.access_control_allow_origin_list_regex;
        if listed.is_empty() && patterns.is_empty() {
            return Ok(Self::Unset);
        }
        let credentials = config.access_control_allow_credentials;
        if listed.first().is_some_and(|first| first == "*") && !credentials {
            return Ok(Self::All);
        }
        let origin = |text: &String| match text.as_str() {
            "*" if credentials => Ok(Origin::AnyByName),
            "*" => Ok(Origin::Any),
            text => header::value("accessControlAllowOriginList", text).map(|_| Origin::Exactly(text.to_owned())),
        };
        let listed = listed.iter().map(origin).collect::<Result<_, _>>()?;
        let patterns = patterns.iter().map(|text| pattern(text)).collect::<Result<_, _>>()?;
        Ok(Self::Some { listed, patterns })
    }

    /// The first that matches, in the order of the configuration. Without an origin only `*` does.
    fn answer<'a>(&self, asking: Option<&'a str>) -> Option<&'a str> {
        let (listed, patterns) = match self {
            Self::Unset => return None,
            Self::All => return Some("*"),
            Self::Some { listed, patterns } => (listed, patterns),
        };
        for origin in listed {
            match origin {
                Origin::Exactly(name) if asking == Some(name) => return asking,
                Origin::Any => return Some("*"),
                Origin::AnyByName if asking.is_some() => return asking,
                Origin::Exactly(_) | Origin::AnyByName => {}
            }
        }
        asking.filter(|asking| patterns.iter().any(|pattern| pattern.is_match(asking)))
    }
}

impl Allowed {
    fn new(list: String, credentials: bool) -> Self {
        if credentials && has_star(&list) { Self::Requested } else { Self::List(list) }
    }

    fn answer(&self, requested: Option<&[u8]>) -> Option<Vec<u8>> {
        match self {
            Self::List(list) => (!list.is_empty()).then(|| list.clone().into_bytes()),
            Self::Requested => requested.filter(|requested| !requested.is_empty()).map(<[u8]>::to_vec),
        }
    }

    fn is_unset(&self) -> bool {
        matches!(self, Self::List(list) if list.is_empty())
    }
}

fn always(credentials: bool, expose_headers: String) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    if credentials {
        headers.push(("access-control-allow-credentials", "true".to_owned()));
    }
    let star_without_meaning = credentials && has_star(&expose_headers);
    if !expose_headers.is_empty() && !star_without_meaning {
        headers.push(("access-control-expose-headers", expose_headers));
    }
    headers
}

/// `Vary` with `Origin` in it, if it is not there yet.
fn vary(lines: &[Vec<u8>]) -> Option<HeaderEdit> {
    let mut members = lines.iter().flat_map(|line| line.split(|&byte| byte == b','));
    if members.any(|member| member.trim_ascii().eq_ignore_ascii_case(b"origin")) {
        return None;
    }
    let mut value = lines.join(&b',');
    if !value.is_empty() {
        value.push(b',');
    }
    value.extend(b"Origin");
    Some(HeaderEdit::set("vary", value))
}

fn list(option: &str, items: &[String]) -> Result<String, Error> {
    let list = items.join(",");
    header::value(option, &list)?;
    Ok(list)
}

fn has_star(list: &str) -> bool {
    list.split(',').any(|item| item == "*")
}

fn pattern(text: &str) -> Result<Regex, Error> {
    Regex::new(text).map_err(|problem| {
        Error::invalid_config(format!("read `{text}` of `accessControlAllowOriginListRegex`: {problem}"))
    })
}
