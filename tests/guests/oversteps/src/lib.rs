//! What a DNS provider must not do, one way for each value of `OVERSTEPS_HOW`. Handles tell what came of it.

use std::env;
use std::fs;
use std::hint::black_box;
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use weir_sdk::dns::timer;
use weir_sdk::dns::{Challenge, DnsProvider, Timing};
use weir_sdk::fetch::{self, ClientTls, Request};
use weir_sdk::log::{self, Level};
use weir_sdk::{About, Error, ErrorKind, Secret, secrets};

pub struct Oversteps {
    how: String,
}

impl DnsProvider for Oversteps {
    const ABOUT: About = weir_sdk::about!("oversteps")
        .secrets(&[
            Secret::required("OVERSTEPS_TOKEN"),
            Secret::optional("OVERSTEPS_HOW"),
            Secret::url("OVERSTEPS_URL"),
        ])
        .origins(&["https://api.example", "http://localhost:1", "http://127.0.0.1:1", "http://169.254.169.254"]);

    fn init() -> Result<(Self, Timing), Error> {
        let how = secrets::get("OVERSTEPS_HOW").unwrap_or_default();
        match how.as_str() {
            "refusesInInit" => Err(Error::invalid_config(format!("use the token {}", token()))),
            "trapsInInit" => panic!("on purpose"),
            "loopsInInit" => loops(),
            "neverRests" => {
                Ok((Self { how }, Timing { propagation_timeout_s: u32::MAX, polling_interval_s: 0, sequential: true }))
            }
            _ => Ok((Self { how }, Timing { propagation_timeout_s: 60, polling_interval_s: 2, sequential: false })),
        }
    }

    fn present(&self, challenge: &Challenge) -> Result<String, Error> {
        match self.how.as_str() {
            "handsOver" => Ok(format!("{} {} {}", challenge.fqdn, challenge.zone, challenge.value)),
            "loops" => loops(),
            "traps" => panic!("on purpose"),
            "growsMemory" => grows(),
            "hugeHandle" => Ok("h".repeat(5000)),
            "hugeError" => Err(Error::new(ErrorKind::NotFound, "e".repeat(1 << 20))),
            "controlCharacters" => {
                let message = format!("say\r\n2026-01-01 INF all is well\u{1b}[31m \u{202e}{}", token());
                Err(Error { retry_after_ms: Some(u64::MAX), ..Error::new(ErrorKind::RateLimited, message) })
            }
            "logsSecrets" => {
                log::write(Level::Error, &format!("the token\nis {}", token()), &[("token".to_owned(), token())]);
                Ok(String::new())
            }
            "floodsLog" => {
                (0..10_000).for_each(|_| log::write(Level::Error, "again and again", &[]));
                Ok(String::new())
            }
            how => tries(how),
        }
    }

    fn cleanup(&self, _: &Challenge, handle: &str) -> Result<(), Error> {
        Err(Error::new(ErrorKind::Conflict, format!("forget {handle}")))
    }
}

weir_sdk::export_dns_provider!(Oversteps);

/// What the host has to refuse or to bound.
fn tries(how: &str) -> Result<String, Error> {
    match how {
        "sleepsForEver" => {
            timer::sleep(u32::MAX);
            Ok("awake".to_owned())
        }
        "sleepsAgainAndAgain" => loop {
            timer::sleep(10);
        },
        "sleepsByItself" => {
            #[expect(clippy::disallowed_methods, reason = "a sleep that the host's timer knows nothing of")]
            thread::sleep(Duration::from_secs(3600));
            Ok("awake".to_owned())
        }
        "readsVariables" => {
            let names = ["PATH", "HOME", "OTHER_TOKEN", "OVERSTEPS_TOKEN_FILE"];
            let found: Vec<&str> =
                names.into_iter().filter(|name| secrets::get(name).is_some() || env::var(name).is_ok()).collect();
            Ok(format!("{found:?} of {}", env::vars().count()))
        }
        "readsFiles" => Ok(format!("{} {}", fs::read("/etc/passwd").is_ok(), fs::read_dir("/").is_ok())),
        "runsPrograms" => Ok(Command::new("/bin/true").spawn().is_ok().to_string()),
        "dialsByItself" => {
            let address = address();
            Ok(TcpStream::connect(address.trim_start_matches("http://")).is_ok().to_string())
        }
        how => reaches(how),
    }
}

fn reaches(how: &str) -> Result<String, Error> {
    let own = address();
    let request = match how {
        "undeclaredHost" => get("https://evil.example/"),
        "undeclaredPort" => get("https://api.example:8443/"),
        "undeclaredScheme" => get("http://api.example:443/"),
        "privateName" => get("http://localhost:1/"),
        "privateAddress" => get("http://127.0.0.1:1/"),
        "metadata" => get("http://169.254.169.254/latest/meta-data/"),
        "userBeforeHost" => get("https://api.example@evil.example/"),
        "otherScheme" => get("file:///etc/passwd"),
        "noUrl" => get("https://api.example/ /"),
        "framing" => Request { headers: vec![header("transfer-encoding", "chunked")], ..get(&own) },
        "otherHost" => Request { headers: vec![header("host", "evil.example")], ..get(&own) },
        "splits" => Request { headers: vec![header("x-a", &format!("{}\r\nx-b: 1", token()))], ..get(&own) },
        "tunnels" => Request { method: "CONNECT".to_owned(), ..get(&own) },
        "hugeRequest" => Request { body: vec![b'x'; 2 << 20], ..get(&own) },
        "fileInPlaceOfPem" => {
            let tls = ClientTls {
                ca: Some("/etc/passwd".to_owned()),
                certificate: None,
                key: None,
                server_name: None,
                insecure_skip_verify: false,
            };
            Request { tls: Some(tls), ..get(&own) }
        }
        _ => Request { headers: vec![header("x-token", &token())], ..get(&own) },
    };
    let response = fetch::send(&request)?;
    Ok(format!("{} {}", response.status, response.body.len()))
}

fn get(url: &str) -> Request {
    Request {
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout_ms: 1000,
        max_body: u32::MAX,
        tls: None,
    }
}

fn header(name: &str, value: &str) -> (String, Vec<u8>) {
    (name.to_owned(), value.as_bytes().to_vec())
}

fn token() -> String {
    secrets::get("OVERSTEPS_TOKEN").unwrap_or_default()
}

fn address() -> String {
    secrets::get("OVERSTEPS_URL").unwrap_or_default()
}

fn loops() -> ! {
    let mut count = 0_u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

fn grows() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1_u8; 1 << 20]));
    }
}
