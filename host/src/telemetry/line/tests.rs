use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use serde_json::{Value, json};

use super::super::access::{Entry, Origin, TlsFacts};
use super::{Field, Kept, Shape, split_port};
use crate::config::install::{AccessLogFields, AccessLogFormat, FieldMode};

#[test]
fn writes_the_common_formats() {
    let referer = headers(&[("referer", "http://ref/\"x"), ("user-agent", "a\\b\tc")]);
    let cases: &[(AccessLogFormat, Entry, &str)] = &[
        (
            AccessLogFormat::Common,
            entry(),
            r#"192.0.2.1 - bob [10/Nov/2009:23:00:00 +0000] "GET /p?a=b HTTP/1.1" 200 100 "-" "-" 7 "web@file" "http://192.0.2.9:80" 12ms"#,
        ),
        (
            AccessLogFormat::GenericClf,
            entry(),
            r#"192.0.2.1 - bob [10/Nov/2009:23:00:00 +0000] "GET /p?a=b HTTP/1.1" 200 100 "-" "-""#,
        ),
        (
            AccessLogFormat::GenericClf,
            Entry { request_headers: referer, user: None, ..entry() },
            r#"192.0.2.1 - - [10/Nov/2009:23:00:00 +0000] "GET /p?a=b HTTP/1.1" 200 100 "http://ref/\"x" "a\\b\x09c""#,
        ),
        (
            AccessLogFormat::GenericClf,
            Entry { user: Some("- [x] \"\r\né".to_owned()), ..entry() },
            r#"192.0.2.1 - -\x20[x]\x20\"\x0d\x0aé [10/Nov/2009:23:00:00 +0000] "GET /p?a=b HTTP/1.1" 200 100 "-" "-""#,
        ),
        (
            AccessLogFormat::Common,
            Entry {
                router: None,
                server: None,
                forwarded_for: Some(HeaderValue::from_bytes(b"198.51.100.7, \xff").expect("a field value")),
                protocol: Version::HTTP_2,
                ..entry()
            },
            "198.51.100.7, \u{fffd} - bob [10/Nov/2009:23:00:00 +0000] \"GET /p?a=b HTTP/2.0\" 200 100 \"-\" \"-\" 7 \"-\" \"-\" 12ms",
        ),
    ];
    for (format, entry, expected) in cases {
        let line = shape(*format, &AccessLogFields::default()).line(entry);
        assert_eq!(String::from_utf8(line).expect("text"), format!("{expected}\n"));
    }
}

#[test]
fn leaves_out_fields_of_the_common_format() {
    let names =
        ["clienthost", "ClientUsername", "StartUTC", "StartLocal", "RequestPath", "DownstreamStatus", "RouterName"];
    let names = names.map(|name| (name.to_owned(), FieldMode::Drop)).into();
    let fields = AccessLogFields { names, ..AccessLogFields::default() };
    let line = shape(AccessLogFormat::Common, &fields).line(&entry());
    assert_eq!(
        String::from_utf8(line).expect("text"),
        "- - - [-] \"GET - HTTP/1.1\" - 100 \"-\" \"-\" 7 \"-\" \"http://192.0.2.9:80\" 12ms\n"
    );
}

#[test]
fn writes_json_with_traefiks_names() {
    let entry = Entry {
        request_headers: headers(&[("x-test", "1"), ("x-test", "\u{e9}")]),
        response_headers: headers(&[("x-backend", "b")]),
        tls: Some(TlsFacts { version: "1.3", cipher: "TLS_AES_128_GCM_SHA256" }),
        origin: Some(Origin {
            status: 201,
            size: 50,
            duration: Duration::from_millis(10),
            headers: headers(&[("etag", "\"e\"")]),
        }),
        ..entry()
    };
    let line = shape(AccessLogFormat::Json, &AccessLogFields::default()).line(&entry);
    let mut object: Value = serde_json::from_slice(&line).expect("JSON");
    for local in ["StartLocal", "time"] {
        assert!(object.as_object_mut().expect("an object").remove(local).is_some(), "{local}");
    }
    let expected = json!({
        "ClientAddr": "192.0.2.1:4711", "ClientHost": "192.0.2.1", "ClientPort": "4711", "ClientUsername": "bob",
        "DownstreamContentSize": 100, "DownstreamStatus": 200, "Duration": 12_345_678, "GzipRatio": 0.5,
        "OriginContentSize": 50, "OriginDuration": 10_000_000, "OriginStatus": 201, "Overhead": 2_345_678,
        "RequestAddr": "example.com:8080", "RequestContentSize": 5, "RequestCount": 7, "RequestHost": "example.com",
        "RequestMethod": "GET", "RequestPath": "/p?a=b", "RequestPort": "8080", "RequestProtocol": "HTTP/1.1",
        "RequestScheme": "https", "RetryAttempts": 0, "RouterName": "web@file", "ServiceAddr": "192.0.2.9:80",
        "ServiceName": "app@file", "ServiceURL": "http://192.0.2.9:80", "StartUTC": "2009-11-10T23:00:00.000000001Z",
        "TLSCipher": "TLS_AES_128_GCM_SHA256", "TLSVersion": "1.3", "downstream_X-Backend": "b",
        "entryPointName": "web", "level": "info", "msg": "", "origin_Etag": "\"e\"", "request_X-Test": "1,\u{e9}",
    });
    assert_eq!(object, expected);
}

#[test]
fn json_keys_are_in_order_and_on_one_line() {
    let line = shape(AccessLogFormat::Json, &AccessLogFields::default()).line(&entry());
    let text = String::from_utf8(line).expect("text");
    assert_eq!(text.matches('\n').count(), 1);
    let places: Vec<_> = Field::ALL.iter().filter_map(|field| text.find(&format!("\"{}\":", field.name()))).collect();
    let (uppercase, entry_point): (Vec<_>, Vec<_>) =
        places.into_iter().partition(|place| text.as_bytes()[place + 1].is_ascii_uppercase());
    assert!(uppercase.is_sorted() && uppercase.iter().max() < entry_point.first());
}

#[test]
fn keeps_only_what_is_named() {
    let names = [("RequestPath".to_owned(), FieldMode::Keep), ("ClientHost".to_owned(), FieldMode::Redact)].into();
    let fields = AccessLogFields { default_mode: FieldMode::Drop, names, ..AccessLogFields::default() };
    let line = shape(AccessLogFormat::Json, &fields).line(&entry());
    let object: Value = serde_json::from_slice(&line).expect("JSON");
    let keys: Vec<_> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["RequestPath", "level", "msg", "time"]);
}

#[test]
fn splits_host_and_port_as_go_does() {
    for (address, expected) in [
        ("example.com", ("example.com", "-")),
        ("example.com:80", ("example.com", "80")),
        ("[::1]:80", ("::1", "80")),
        ("::1", ("::1", "-")),
        ("[::1]", ("[::1]", "-")),
    ] {
        assert_eq!(split_port(address), expected, "{address}");
    }
}

fn shape(format: AccessLogFormat, fields: &AccessLogFields) -> Shape {
    Shape { format, kept: Kept::new(fields) }
}

fn entry() -> Entry {
    Entry {
        time: "2009-11-10T23:00:00.000000001Z".parse().expect("a time"),
        count: 7,
        client: "192.0.2.1:4711".parse().expect("an address"),
        forwarded_for: None,
        user: Some("bob".to_owned()),
        entry_point: Arc::from("web"),
        method: Method::GET,
        target: PathAndQuery::from_static("/p?a=b"),
        protocol: Version::HTTP_11,
        host: Some(HeaderValue::from_static("example.com:8080")),
        tls: None,
        request_headers: HeaderMap::new(),
        request_size: 5,
        router: Some(Arc::from("web@file")),
        service: Some(Arc::from("app@file")),
        server: Some(Arc::from("http://192.0.2.9:80")),
        retries: 0,
        origin: None,
        status: 200,
        size: 100,
        response_headers: HeaderMap::new(),
        duration: Duration::from_nanos(12_345_678),
    }
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let fields = fields.iter().map(|(name, value)| {
        (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).expect("a field value"))
    });
    fields.collect()
}
