//! Requests that proxies and servers have understood in two ways: each is refused, or reaches the server as exactly one
//! request that can be understood in one way only.
//!
//! The rows are in `hostile/*.txt`, whose form `table` reads. What no row can say is a test here.

mod http2;
mod lessons;
mod table;

use crate::support::proxy::Proxy;
use crate::support::strict::Strict;

const INSTALL: &str = r#"
providers:
  providersThrottleDuration: 0s
  file: {directory: $DIR/routing}
entryPoints:
  web: {address: "127.0.0.1:0"}
  strict:
    address: "127.0.0.1:0"
    http:
      encodedCharacters:
        allowEncodedSlash: false
        allowEncodedBackSlash: false
        allowEncodedNullCharacter: false
        allowEncodedSemicolon: false
        allowEncodedPercent: false
        allowEncodedQuestionMark: false
        allowEncodedHash: false
  semicolons: {address: "127.0.0.1:0", http: {encodeQuerySemicolons: true}}
  delete: {address: "127.0.0.1:0", http: {aliasHeadersStrategy: delete}}
  reject: {address: "127.0.0.1:0", http: {aliasHeadersStrategy: reject}}
  underscores: {address: "127.0.0.1:0", http: {underscoreHeadersStrategy: delete}}
  trusted: {address: "127.0.0.1:0", forwardedHeaders: {insecure: true}}
"#;

async fn before(strict: &Strict) -> Proxy {
    let routing = format!(
        "
http:
  routers:
    all: {{rule: \"PathPrefix(`/`)\", service: strict}}
  services:
    strict: {{loadBalancer: {{servers: [{{url: \"{}\"}}]}}}}
",
        strict.url()
    );
    Proxy::start(INSTALL, &[("a.yaml", &routing)]).await
}

macro_rules! tables {
    ($($name:ident: $least:literal rows,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                table::check(stringify!($name), $least).await;
            }
        )*
    };
}

tables! {
    request_lines: 82 rows,
    targets: 73 rows,
    hosts: 73 rows,
    fields: 63 rows,
    framing: 86 rows,
    chunks: 71 rows,
    hops: 66 rows,
    paths: 63 rows,
    http2: 91 rows,
}
