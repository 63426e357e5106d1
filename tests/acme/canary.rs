//! What is secret stays so at the most talkative level of the log, and in all that the API shows.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;

use super::*;

/// The shortest piece of a secret that gives something away.
const PIECE: usize = 24;
const PATHS: [&str; 11] = [
    "/api/certificates",
    "/api/entrypoints",
    "/api/http/middlewares",
    "/api/http/routers",
    "/api/http/services",
    "/api/overview",
    "/api/plugins",
    "/api/plugins?search=digitalocean",
    "/api/rawdata",
    "/api/version",
    "/dashboard/",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_an_order_is_logged_or_shown() {
    let site = Site::new(|setup| setup.binds_accounts = true).await;
    let provider = DigitalOcean::start("example.org", Arc::clone(&site.dns)).await;
    let folder = Folder::new();
    folder.write("token", format!("{TOKEN}\n"));
    folder.write("install.yaml", install(&site, &provider));
    let mut said = String::new();
    // The second run takes the account from the file.
    for (place, host) in ["a.example.org", "b.example.org"].into_iter().enumerate() {
        folder.write(&format!("routing/{host}.yaml"), routes(host));
        let mut weir = Program::start(folder.root(), &["--configFile=install.yaml"]);
        eventually_within(2 * PATIENCE, host, async || certificates(&folder).len() > place).await;
        eventually("no record left", async || provider.records() == 0).await;
        let (web, secure) = (weir.address("web").await, weir.address("websecure").await);
        eventually(host, async || issuer(secure, host).await.contains("Pebble Intermediate CA")).await;
        let mut client = Client::plain(web).await;
        for path in PATHS {
            let reply = client.get(&format!("http://api.example.org{path}")).await;
            assert_eq!(reply.status, 200, "{path}");
            said.push_str(reply.text());
        }
        weir.signal("TERM");
        weir.ends().await;
        said.push_str(&weir.printed());
    }
    assert!(said.contains(" TRC "), "the log is at its most talkative level");
    let secrets = secrets(&folder);
    assert_eq!(secrets.len(), 6);
    for (name, secret) in secrets {
        let leaked = pieces(&secret).into_iter().find(|piece| said.contains(piece));
        let line = leaked.as_ref().and_then(|leaked| said.lines().find(|line| line.contains(leaked)));
        assert_eq!(line, None, "{name} is shown, of which {leaked:?}");
    }
    // What a CA is sent is signed: header, payload and signature are for its eyes.
    for signed in [
        BASE64_URL_SAFE_NO_PAD.encode("{\"alg\":"),
        "\"protected\"".to_owned(),
        "Bearer ".to_owned(),
        "PRIVATE KEY".to_owned(),
    ] {
        assert!(!said.contains(&signed), "{signed}");
    }
    for entry in fs::read_dir(folder.root()).expect("the folder can be read") {
        let entry = entry.expect("the folder can be read");
        let mode = entry.metadata().expect("it is there").permissions().mode();
        let is_ours = entry.file_name().to_string_lossy().starts_with("acme.json");
        assert!(!is_ours || mode & 0o777 == 0o600, "{mode:o} of {}", entry.path().display());
    }
}

fn install(site: &Site, provider: &DigitalOcean) -> String {
    format!(
        "
log: {{level: TRACE, noColor: true}}
api: {{dashboard: true, debug: true}}
providers: {{providersThrottleDuration: 0s, file: {{directory: $DIR/routing}}}}
entryPoints:
  web: {{address: \"127.0.0.1:0\"}}
  websecure: {{address: \"127.0.0.1:0\"}}
certificatesResolvers:
  le:
    acme:
      storage: $DIR/acme.json
      caServer: {}
      caCertificates: {}
      keyType: EC256
      eab: {{kid: {KEY_ID}, hmacEncoded: {MAC_KEY}}}
      dnsChallenge:
        provider: digitalocean
        resolvers: {}
        propagation: {{disableANSChecks: true}}
        env: {{DO_AUTH_TOKEN: {{file: $DIR/token}}, DO_API_URL: {}}}
",
        site.ca.directory(),
        site.ca.ca_file(),
        site.dns.address(),
        provider.url,
    )
}

fn routes(host: &str) -> String {
    let name = host.split('.').next().expect("a label");
    format!(
        "http:
  routers:
    {name}: {{rule: \"Host(`{host}`)\", service: whoami@internal, entryPoints: [websecure], tls: {{certResolver: le}}}}
    {name}-api: {{rule: \"Host(`api.example.org`)\", service: api@internal, entryPoints: [web]}}
"
    )
}

fn stored(folder: &Folder) -> Value {
    serde_json::from_str(&folder.read("acme.json")).unwrap_or_default()
}

fn certificates(folder: &Folder) -> Vec<Value> {
    stored(folder)["le"]["Certificates"].as_array().cloned().unwrap_or_default()
}

/// By what they are.
fn secrets(folder: &Folder) -> Vec<(String, Vec<u8>)> {
    let binding = BASE64_URL_SAFE_NO_PAD.decode(MAC_KEY).expect("base64");
    let account = stored(folder)["le"]["WeirAccount"]["credentials"]["key_pkcs8"].as_str().expect("text").to_owned();
    let account = BASE64_URL_SAFE_NO_PAD.decode(account).expect("base64");
    let mut secrets = vec![
        ("the provider's token".to_owned(), TOKEN.into()),
        ("the key that binds accounts, as it is written".to_owned(), MAC_KEY.into()),
        ("the key that binds accounts".to_owned(), binding),
        ("the account's key".to_owned(), scalar(&account)),
    ];
    for certificate in certificates(folder) {
        let pem = BASE64_STANDARD.decode(certificate["key"].as_str().expect("text")).expect("base64");
        let key = PrivatePkcs8KeyDer::from_pem_slice(&pem).expect("a key in PEM");
        secrets.push((format!("the key of {}", certificate["domain"]), scalar(key.secret_pkcs8_der())));
    }
    secrets
}

/// The secret part of a key of P-256: around it is what all such keys have in common, and the public key.
fn scalar(pkcs8: &[u8]) -> Vec<u8> {
    const BEFORE: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];
    let start = pkcs8.windows(BEFORE.len()).position(|window| window == BEFORE).expect("a key of P-256");
    pkcs8[start + BEFORE.len()..][..32].to_vec()
}

/// All that would show a good part of a secret, in each of the forms in which bytes are printed.
fn pieces(secret: &[u8]) -> BTreeSet<String> {
    let hexadecimal = secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let list = format!("{secret:?}");
    let mut forms = vec![
        hexadecimal.to_uppercase(),
        hexadecimal,
        list.trim_matches(['[', ']']).to_owned(),
        secret.escape_ascii().to_string(),
    ];
    for before in 0..3 {
        let bytes = [&[0; 2][..before], secret].concat();
        // Characters that others have a part in are left out.
        let (start, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
        for text in [BASE64_STANDARD_NO_PAD.encode(&bytes), BASE64_URL_SAFE_NO_PAD.encode(&bytes)] {
            forms.push(text[start..end].to_owned());
        }
    }
    let windows = |form: &String| -> Vec<String> {
        let length = PIECE.min(form.len());
        form.as_bytes().windows(length).map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
    };
    forms.iter().flat_map(windows).collect()
}

/// Without which the test above says nothing.
#[test]
fn a_secret_is_found_in_all_its_forms() {
    let secret: Vec<u8> = (0..32).map(|number: u8| number.wrapping_mul(37) ^ 0xa5).collect();
    let is_found = |text: &str| pieces(&secret).iter().any(|piece| text.contains(piece));
    let pem = format!("MHcCAQEE{}", BASE64_STANDARD.encode(&secret));
    let shown = [
        format!("{secret:?}"),
        format!("key={}", BASE64_URL_SAFE_NO_PAD.encode(&secret)),
        BASE64_STANDARD.encode([&b"in"[..], &secret, b"side"].concat()),
        BASE64_STANDARD.encode([&b"i"[..], &secret, b"nside"].concat()),
        format!("{:?}", bytes::Bytes::from(secret.clone())),
        secret.iter().map(|byte| format!("{byte:02X}")).collect(),
        pem,
    ];
    for text in shown {
        assert!(is_found(&text), "{text}");
    }
    assert!(!is_found("all is well"));
}
