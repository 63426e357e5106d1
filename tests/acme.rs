//! Certificates from Pebble, by each of the challenges, with the whole proxy in between.

mod canary;

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use http::Request;
use serde_json::{Value, json};
use weir::plugin::built_in;

use crate::support::client::{Client, trusting};
use crate::support::digitalocean::{DigitalOcean, TOKEN};
use crate::support::dns::{DnsServer, How, On};
use crate::support::folder::Folder;
use crate::support::guests::guest;
use crate::support::pebble::{KEY_ID, MAC_KEY, Pebble, Setup, free};
use crate::support::program::{Program, run_with};
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, eventually, eventually_within};

const INSTALL: &str = include_str!("seed/traefik.yaml");
const DASHBOARD: &str = include_str!("seed/config_dynamic/traefik_dynamic.yaml");
const QLIK_SENSE: &str = include_str!("seed/config_dynamic/qliksense_dynamic.yaml");
const HOSTS: [&str; 3] = ["qliksense.ptarmiganlabs.net", "qliksensedev.ptarmiganlabs.net", "traefik.ptarmiganlabs.net"];

/// The world that the article lives in: a zone, its provider, and a CA.
struct Article {
    folder: Folder,
    dns: Arc<DnsServer>,
    provider: DigitalOcean,
    ca: Pebble,
}

/// How long the proxy waits before it looks for a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delay {
    /// `delayBeforeCheck: 10`
    OfTheArticle,
    None,
}

impl Article {
    async fn new(delay: Delay) -> Self {
        let dns = Arc::new(name_server().await);
        dns.add_zone("ptarmiganlabs.net.", &[("ns1.ptarmiganlabs.net.", dns.address().ip())]);
        let provider = DigitalOcean::start("ptarmiganlabs.net", Arc::clone(&dns)).await;
        let ca = Pebble::start(Setup::asking(dns.address())).await;
        let folder = Folder::new();
        let this = Self { folder, dns, provider, ca };
        this.write(delay);
        this
    }

    /// The three files, with the CA, the resolver, the paths of Windows and the ports replaced.
    fn write(&self, delay: Delay) {
        let ca = format!("caServer: {}\n      caCertificates: {}", self.ca.directory(), self.ca.ca_file());
        let seconds = if delay == Delay::None { "0" } else { "10" };
        let mut checks = format!("delayBeforeCheck: {seconds} ");
        if self.dns.address().port() != DNS_PORT {
            checks = format!("propagation: {{disableANSChecks: true, requireAllRNS: true}}\n        {checks}");
        }
        let places = [
            (r"filepath: C:\tool\traefik\log\traefik.log", "noColor: true"),
            (r"C:\tool\traefik\config_dynamic", "$DIR/routing"),
            ("\":80\"", "\"127.0.0.1:0\""),
            ("\":443\"", "\"127.0.0.1:0\""),
            ("# caserver: https://acme-staging-v02.api.letsencrypt.org/directory", ca.as_str()),
            ("resolvers: ns1.digitalocean.com:53", &format!("resolvers: {}", self.dns.address())),
            ("delayBeforeCheck: 10 ", &checks),
        ];
        let install = places.iter().fold(INSTALL.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "the seed has `{from}`");
            text.replace(from, to)
        });
        self.folder.write("traefik.yaml", install);
        self.folder.write("routing/traefik_dynamic.yaml", DASHBOARD);
        self.folder.write("routing/qliksense_dynamic.yaml", QLIK_SENSE);
    }

    fn start(&self) -> Program {
        let url = self.provider.url.as_str();
        let variables = [("DO_AUTH_TOKEN", TOKEN), ("DO_API_URL", url), ("DO_POLLING_INTERVAL", "1")];
        Program::start_with(self.folder.root(), &["--configFile=traefik.yaml"], &variables)
    }

    /// A line for each certificate, as `weir check` has it.
    fn check(&self) -> Vec<String> {
        let checked = run_with(self.folder.root(), &["check", "--configFile=traefik.yaml"], &[]);
        assert_eq!(checked.code, Some(0), "{checked:?}");
        let (_, certificates) = checked.stdout.split_once("\ncertificates\n").expect("there are certificates");
        let mut lines: Vec<_> = certificates.lines().map(|line| line.trim_start().to_owned()).collect();
        lines.sort();
        assert_eq!(lines.len(), HOSTS.len(), "{lines:?}");
        assert!(HOSTS.iter().zip(&lines).all(|(host, line)| line.starts_with(host)), "{lines:?}");
        lines
    }

    fn stored(&self) -> Value {
        serde_json::from_str(&self.folder.read("acme.json")).unwrap_or_default()
    }

    fn certificates(&self) -> Vec<Value> {
        self.stored()["myDnsChallengeResolver"]["Certificates"].as_array().cloned().unwrap_or_default()
    }
}

const DNS_PORT: u16 = 53;

/// On the port at which a zone's own servers are asked, or on another one where the system does not permit it.
async fn name_server() -> DnsServer {
    let mut why = String::new();
    for _ in 0..10 {
        let mut bytes = [0; 3];
        aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
        // Somebody's resolver may be at 127.0.0.53.
        let address = Ipv4Addr::new(127, bytes[0].max(1), bytes[1], bytes[2].clamp(1, 254));
        match DnsServer::start_at((address, DNS_PORT).into()).await {
            Ok(server) => return server,
            Err(error) => why = format!("port {DNS_PORT} of {address}: {error}"),
        }
    }
    // Past the test's own output, which is not shown when it passes.
    let _ = writeln!(io::stderr(), "the article's zone is checked by its resolver alone: {why}");
    DnsServer::start().await
}

async fn issuer(address: SocketAddr, host: &str) -> String {
    let client = Client::secure(address, host, trusting()).await.expect("a TLS handshake");
    let (_, certificate) = x509_parser::parse_x509_certificate(&client.session().certificate).expect("a certificate");
    certificate.issuer().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_article_gets_its_certificates_and_keeps_them() {
    let article = Article::new(Delay::OfTheArticle).await;
    // Whom the CA asks as well: each order that does not wait for its record fails.
    article.dns.misbehave(On::Type(RecordType::TXT), How::Lacks, HOSTS.len());
    for line in article.check() {
        assert!(line.ends_with(" by myDnsChallengeResolver: would be ordered"), "{line}");
    }
    assert!(!article.folder.path("acme.json").exists(), "to look writes nothing");
    let begun = Instant::now();
    let mut weir = article.start();
    eventually_within(2 * PATIENCE, "three certificates", async || article.certificates().len() == HOSTS.len()).await;
    assert!(begun.elapsed() >= Duration::from_secs(10), "`delayBeforeCheck: 10`");
    let name_servers_were_asked = article.dns.asked().contains(&("ptarmiganlabs.net.".to_owned(), RecordType::NS));
    assert_eq!(name_servers_were_asked, article.dns.address().port() == DNS_PORT);
    let address = weir.address("websecure").await;
    for host in HOSTS {
        eventually(host, async || issuer(address, host).await.contains("Pebble Intermediate CA")).await;
    }
    let stored = article.stored();
    let mut names: Vec<_> = article.certificates().iter().map(|one| one["domain"]["main"].to_string()).collect();
    names.sort();
    assert_eq!(names, HOSTS.map(|host| format!("\"{host}\"")));
    assert_eq!(article.certificates()[0]["Store"], "default");
    let mode = fs::metadata(article.folder.path("acme.json")).expect("acme.json").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    eventually("no record left", async || article.provider.records() == 0).await;
    for host in HOSTS {
        assert_eq!(article.dns.txt(&format!("_acme-challenge.{host}.")), [""; 0]);
    }
    let asked = article.provider.asked();
    assert_eq!(asked.iter().filter(|line| line.starts_with("POST") && line.ends_with("201")).count(), 3, "{asked:?}");
    weir.signal("TERM");
    weir.ends().await;
    assert!(!weir.printed().contains(TOKEN), "{}", weir.printed());
    for line in article.check() {
        assert!(line.contains(" by myDnsChallengeResolver: until 20") && line.contains("Z, renewed at 20"), "{line}");
    }

    let again = article.start();
    let address = again.address("websecure").await;
    for host in HOSTS {
        assert!(issuer(address, host).await.contains("Pebble Intermediate CA"), "{host} is served from the start");
    }
    assert_eq!(article.stored(), stored);
    assert_eq!(article.provider.asked(), asked, "a restart orders nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_refuses_the_resolver() {
    let article = Article::new(Delay::None).await;
    article.folder.write("acme.json", "{}");
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(article.folder.path("acme.json"), open).expect("permissions can be set");
    let words = "permissions 644 for acme.json are too open, please use 600";
    let weir = article.start();
    weir.prints(words).await;
    let address = weir.address("websecure").await;
    assert!(issuer(address, HOSTS[0]).await.contains("WEIR DEFAULT CERT"));
    assert_eq!(article.provider.asked(), [""; 0]);
    drop(weir);
    let checked = run_with(article.folder.root(), &["check", "--configFile=traefik.yaml"], &[]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.stderr.contains(words), "{checked:?}");
}

/// With nothing to order yet: a certificate that is there must not be the last one.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_without_its_token_is_told_of_at_the_start() {
    let folder = Folder::new();
    folder.write(
        "install.yaml",
        "providers: {file: {directory: $DIR/routing}}
entryPoints: {websecure: {address: \"127.0.0.1:0\"}}
certificatesResolvers: {le: {acme: {storage: $DIR/acme.json, dnsChallenge: {provider: digitalocean}}}}
",
    );
    let weir = Program::start(folder.root(), &["--configFile=install.yaml"]);
    weir.prints("no certificate can be ordered as things are").await;
    let printed = weir.printed();
    let line = printed.lines().find(|line| line.contains("as things are")).expect("it has just been seen");
    assert!(
        line.contains("DO_AUTH_TOKEN") && line.contains("certificatesResolvers.le.acme.dnsChallenge.provider"),
        "{line}"
    );
}

/// Routers `a`, `b` … for hosts below `example.org`, which is this machine.
struct Site {
    ca: Pebble,
    dns: Arc<DnsServer>,
    web: u16,
    secure: u16,
}

impl Site {
    async fn new(change: impl FnOnce(&mut Setup)) -> Self {
        let dns = Arc::new(DnsServer::start().await);
        dns.add_zone("example.org.", &[("ns1.example.org.", Ipv4Addr::LOCALHOST.into())]);
        for host in ["a", "b", "c", "blocked"] {
            dns.add_address(&format!("{host}.example.org."), IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        let (web, secure) = (free().await.port(), free().await.port());
        let mut setup = Setup { http: web, tls: secure, ..Setup::asking(dns.address()) };
        change(&mut setup);
        Self { ca: Pebble::start(setup).await, dns, web, secure }
    }

    /// With a resolver that has these options.
    async fn proxy(&self, options: &str, routers: &str) -> Proxy {
        self.proxy_in(Folder::new(), options, routers).await
    }

    async fn proxy_in(&self, folder: Folder, options: &str, routers: &str) -> Proxy {
        folder.write("routing/routes.yaml", routers);
        let install = format!(
            "
api: {{}}
providers: {{providersThrottleDuration: 0s, file: {{directory: $DIR/routing}}}}
entryPoints:
  web:
    address: \"127.0.0.1:{}\"
    http: {{redirections: {{entryPoint: {{to: websecure}}}}}}
  websecure: {{address: \"127.0.0.1:{}\"}}
certificatesResolvers:
  le:
    acme:
      storage: $DIR/acme.json
      caServer: {}
      caCertificates: {}
      keyType: EC256
      {options}
",
            self.web,
            self.secure,
            self.ca.directory(),
            self.ca.ca_file(),
        );
        Proxy::start_in(folder, &install).await
    }
}

fn router(rule: &str, tls: &str) -> String {
    format!(
        "http:\n  routers:\n    a: {{rule: \"{rule}\", service: whoami@internal, entryPoints: [websecure], tls: {{certResolver: le{tls}}}}}
    api: {{rule: \"Host(`api.example.org`)\", service: api@internal, entryPoints: [websecure], tls: {{}}}}\n"
    )
}

/// The names of the certificate that is served for a host.
async fn names(proxy: &Proxy, host: &str) -> Vec<String> {
    let client = Client::secure(proxy.address("websecure"), host, trusting()).await.expect("a TLS handshake");
    let (_, certificate) = x509_parser::parse_x509_certificate(&client.session().certificate).expect("a certificate");
    let names = certificate.subject_alternative_name().ok().flatten().map(|names| names.value.general_names.clone());
    let mut names: Vec<_> = names.into_iter().flatten().map(|name| name.to_string()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn http_01_comes_before_the_redirect() {
    let site = Site::new(|_| {}).await;
    let proxy = site
        .proxy("httpChallenge: {entryPoint: web}", &router("Host(`a.example.org`) || Host(`b.example.org`)", ""))
        .await;
    let expected = ["DNSName(a.example.org)", "DNSName(b.example.org)"];
    eventually("a certificate", async || names(&proxy, "b.example.org").await == expected).await;
    let stranger = proxy.get("http://a.example.org/.well-known/acme-challenge/unknown").await;
    assert_eq!(stranger.status, 404);
    assert_eq!(proxy.get("http://a.example.org/elsewhere").await.status, 301);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_alpn_01_is_answered_beside_requests() {
    let site = Site::new(|_| {}).await;
    let proxy = site.proxy("tlsChallenge: {}", &router("Host(`c.example.org`)", "")).await;
    eventually("a certificate", async || names(&proxy, "c.example.org").await == ["DNSName(c.example.org)"]).await;
    let reply = proxy.send(Request::get("https://c.example.org/")).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_bound_and_bad_nonces_are_borne() {
    let site = Site::new(|setup| {
        setup.binds_accounts = true;
        setup.variables = vec![("PEBBLE_WFE_NONCEREJECT", "30"), ("PEBBLE_ALTERNATE_ROOTS", "2")];
    })
    .await;
    let unbound = site.proxy("tlsChallenge: {}", &router("Host(`a.example.org`)", "")).await;
    eventually("an error that says what is missing", async || {
        unbound.get("https://api.example.org/api/certificates").await.text().contains("eab.kid")
    })
    .await;
    // It listens until then, at the ports of the next one.
    unbound.shut_down().await;
    let options = format!("tlsChallenge: {{}}\n      eab: {{kid: {KEY_ID}, hmacEncoded: {MAC_KEY}}}");
    let proxy = site.proxy(&options, &router("Host(`a.example.org`)", "")).await;
    eventually("a certificate", async || names(&proxy, "a.example.org").await == ["DNSName(a.example.org)"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_preferred_chain_is_chosen() {
    let site = Site::new(|setup| setup.variables = vec![("PEBBLE_ALTERNATE_ROOTS", "2")]).await;
    let root = site.ca.root(2).await;
    let (_, root) = x509_parser::pem::parse_x509_pem(root.as_bytes()).expect("PEM");
    let root = root.parse_x509().expect("a certificate");
    let name = root.subject().iter_common_name().next().expect("a name").as_str().expect("text").to_owned();
    let options = format!("tlsChallenge: {{}}\n      preferredChain: {name}");
    let proxy = site.proxy(&options, &router("Host(`a.example.org`)", "")).await;
    eventually("a certificate", async || names(&proxy, "a.example.org").await == ["DNSName(a.example.org)"]).await;
    let stored: Value = serde_json::from_str(&proxy.folder.read("acme.json")).expect("JSON");
    let chain = stored["le"]["Certificates"][0]["certificate"].as_str().expect("text").to_owned();
    let chain = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, chain).expect("base64");
    let last = x509_parser::pem::Pem::iter_from_buffer(&chain).last().expect("a certificate").expect("PEM");
    assert_eq!(last.parse_x509().expect("a certificate").issuer().to_string(), format!("CN={name}"));
}

/// With the token in a file of the folder.
fn by_dns(site: &Site, provider: &DigitalOcean) -> String {
    format!(
        "dnsChallenge:
        provider: digitalocean
        resolvers: {}
        propagation: {{disableANSChecks: true}}
        env: {{DO_AUTH_TOKEN: {{file: $DIR/token}}, DO_API_URL: {}}}",
        site.dns.address(),
        provider.url
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_serves_the_routers_it_covers() {
    let site = Site::new(|_| {}).await;
    let provider = DigitalOcean::start("example.org", Arc::clone(&site.dns)).await;
    let folder = Folder::new();
    folder.write("token", format!("{TOKEN}\n"));
    let routers = "
http:
  routers:
    wide:
      rule: HostRegexp(`.+`)
      service: whoami@internal
      entryPoints: [websecure]
      tls: {certResolver: le, domains: [{main: \"*.example.org\", sans: [example.org]}]}
    narrow: {rule: \"Host(`b.example.org`)\", service: whoami@internal, entryPoints: [websecure], tls: {certResolver: le}}
    api: {rule: \"Host(`api.example.org`)\", service: api@internal, entryPoints: [websecure], tls: {}}
";
    let proxy = site.proxy_in(folder, &by_dns(&site, &provider), routers).await;
    let expected = ["DNSName(*.example.org)", "DNSName(example.org)"];
    eventually("a certificate", async || names(&proxy, "b.example.org").await == expected).await;
    let stored: Value = serde_json::from_str(&proxy.folder.read("acme.json")).expect("JSON");
    assert_eq!(stored["le"]["Certificates"].as_array().map(Vec::len), Some(1));
    eventually("no record left", async || provider.records() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_s_plugin_is_replaced_by_one_that_can_do_its_work() {
    let site = Site::new(|_| {}).await;
    let provider = DigitalOcean::start("example.org", Arc::clone(&site.dns)).await;
    let folder = Folder::new();
    folder.write("token", format!("{TOKEN}\n"));
    let proxy = site.proxy_in(folder, &by_dns(&site, &provider), &router("Host(`a.example.org`)", "")).await;
    eventually("a certificate", async || names(&proxy, "a.example.org").await == ["DNSName(a.example.org)"]).await;
    eventually("no record left", async || provider.records() == 0).await;
    let listed = proxy.get("https://api.example.org/api/plugins").await.json();
    let listed = listed.as_array().and_then(|list| list.iter().find(|plugin| plugin["name"] == "digitalocean"));
    let listed = listed.expect("it is listed");
    assert_eq!((&listed["kind"], &listed["usedBy"]), (&json!("dns-provider"), &json!(["le"])));
    assert_eq!((&listed["calls"], &listed["failures"]), (&json!(2), &json!(0)), "a record was added and deleted");

    let also = |host: &str| {
        let tls = "entryPoints: [websecure], tls: {certResolver: le}";
        format!(
            "http: {{routers: {{{host}: {{rule: \"Host(`{host}.example.org`)\", service: whoami@internal, {tls}}}}}}}\n"
        )
    };
    // One that takes other variables.
    proxy.folder.write("plugins/digitalocean.wasm", guest("oversteps").await);
    eventually("a refusal", async || !proxy.problems().is_empty()).await;
    let refused = "it would not serve `certificatesResolvers.le.acme.dnsChallenge`: digitalocean: there is no variable \
        `DO_API_URL`; it knows OVERSTEPS_TOKEN";
    assert!(proxy.problems()[0].contains(refused), "{:?}", proxy.problems());
    proxy.write("b.yaml", &also("b"));
    proxy.reload().await;
    eventually("a certificate", async || names(&proxy, "b.example.org").await == ["DNSName(b.example.org)"]).await;

    // The same with a name at its end that nobody reads.
    let custom_section = [0, 2, 1, b'x'];
    let newer = [built_in("digitalocean").expect("it is built in"), &custom_section].concat();
    proxy.folder.write("plugins/digitalocean.wasm", newer);
    let replaced = "digitalocean.wasm` takes the place of the built-in plugin `digitalocean`";
    let is_taken = async || matches!(&proxy.problems()[..], [problem] if problem.contains(replaced));
    eventually("the newer one", is_taken).await;
    proxy.write("c.yaml", &also("c"));
    proxy.reload().await;
    eventually("a certificate", async || names(&proxy, "c.example.org").await == ["DNSName(c.example.org)"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_comes_after_an_order_has_failed_is_tried_at_once() {
    let site = Site::new(|_| {}).await;
    let provider = DigitalOcean::start("example.org", Arc::clone(&site.dns)).await;
    let folder = Folder::new();
    folder.write("token", format!("{TOKEN}\n"));
    let options = by_dns(&site, &provider).replace("provider: digitalocean", "provider: ours");
    let proxy = site.proxy_in(folder, &options, &router("Host(`a.example.org`)", "")).await;
    let words = "there is no DNS provider `ours`";
    assert!(proxy.problems()[0].contains(words), "{:?}", proxy.problems());
    let failed = async || proxy.get("https://api.example.org/api/certificates").await.text().contains(words);
    eventually("an order that fails", failed).await;

    proxy.folder.write("plugins/ours.wasm", built_in("digitalocean").expect("it is built in"));
    eventually("a certificate", async || names(&proxy, "a.example.org").await == ["DNSName(a.example.org)"]).await;
    assert_eq!(proxy.problems(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_it_leaves_a_whole_file_and_no_record() {
    let rounds: u64 = std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(8);
    let article = Article::new(Delay::None).await;
    for round in 0..rounds {
        // Spread over the time that three orders take, in steps that no round repeats.
        let pause = Duration::from_millis(round * 7919 % 1500);
        let mut weir = article.start();
        tokio::time::sleep(pause).await;
        weir.signal("KILL");
        weir.ends().await;
        let text = article.folder.read("acme.json");
        assert!(text.is_empty() || serde_json::from_str::<Value>(&text).is_ok(), "round {round}: {text}");
    }
    let _weir = article.start();
    // Keys of RSA with 4096 bits take their time.
    eventually_within(2 * PATIENCE, "three certificates", async || article.certificates().len() == HOSTS.len()).await;
    eventually("no record left", async || article.provider.records() == 0).await;
}
