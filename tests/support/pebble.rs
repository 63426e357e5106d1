//! Pebble, Let's Encrypt's CA for tests, as a process of its own. `tests/run` installs it.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use super::certificates::Authority;
use super::client::{Client, Reply, trusting};
use super::eventually;
use super::folder::Folder;

/// A CA that runs until it is dropped.
pub(crate) struct Pebble {
    child: Child,
    folder: Folder,
    directory: SocketAddr,
    management: SocketAddr,
}

/// How the CA is to be.
pub(crate) struct Setup {
    /// The name server that it asks.
    pub(crate) dns: SocketAddr,
    /// Where it looks for the proofs of HTTP-01 and TLS-ALPN-01.
    pub(crate) http: u16,
    pub(crate) tls: u16,
    /// Accounts must be bound to one of its own, with [`KEY_ID`] and [`MAC_KEY`].
    pub(crate) binds_accounts: bool,
    /// Seconds.
    pub(crate) validity: u64,
    pub(crate) variables: Vec<(&'static str, &'static str)>,
}

pub(crate) const KEY_ID: &str = "kid-1";
pub(crate) const MAC_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

impl Setup {
    pub(crate) fn asking(dns: SocketAddr) -> Self {
        Self { dns, http: 1, tls: 1, binds_accounts: false, validity: 90 * 86_400, variables: Vec::new() }
    }
}

impl Pebble {
    pub(crate) async fn start(setup: Setup) -> Self {
        // Its ports are free when they are chosen, and perhaps not any more when it listens.
        for _ in 0..5 {
            if let Some(pebble) = Self::try_start(&setup).await {
                return pebble;
            }
        }
        panic!("Pebble does not start");
    }

    async fn try_start(setup: &Setup) -> Option<Self> {
        let folder = Folder::new();
        let authority = Authority::new("Pebble's own authority");
        authority.sign(&["localhost", "127.0.0.1"]).write(&folder, "server");
        folder.write("ca.pem", &authority.pem);
        let (directory, management) = (free().await, free().await);
        let mut settings = json!({
            "listenAddress": directory.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": folder.path("server.crt"),
            "privateKey": folder.path("server.key"),
            "httpPort": setup.http,
            "tlsPort": setup.tls,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": setup.binds_accounts,
            "domainBlocklist": ["blocked.example"],
            "certificateValidityPeriod": setup.validity,
        });
        if setup.binds_accounts {
            settings["externalAccountMACKeys"] = json!({ KEY_ID: MAC_KEY });
        }
        folder.write("pebble.json", json!({ "pebble": settings }).to_string());
        let mut command = Command::new("pebble");
        command.args(["-strict", "-config"]).arg(folder.path("pebble.json"));
        command.args(["-dnsserver", &setup.dns.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        command.envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "0"), ("PEBBLE_AUTHZREUSE", "0")]);
        command.envs(setup.variables.iter().copied());
        let child = command.spawn().expect("`pebble` is installed (see tests/run)");
        let mut pebble = Self { child, folder, directory, management };
        let mut is_there = false;
        eventually("Pebble's directory, or its end", async || {
            is_there = pebble.ask(directory, "/dir").await.is_some();
            is_there || pebble.child.try_wait().expect("a child can be waited for").is_some()
        })
        .await;
        is_there.then_some(pebble)
    }

    /// The URL of its directory.
    pub(crate) fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.directory.port())
    }

    /// The file with the root that its own server is trusted by.
    pub(crate) fn ca_file(&self) -> String {
        self.folder.path("ca.pem").display().to_string()
    }

    /// The root of the chains that it gives, of those there are.
    pub(crate) async fn root(&self, number: usize) -> String {
        let reply = self.ask(self.management, &format!("/roots/{number}")).await.expect("Pebble answers");
        reply.text().to_owned()
    }

    async fn ask(&self, address: SocketAddr, path: &str) -> Option<Reply> {
        TcpStream::connect(address).await.ok()?;
        let mut client = Client::secure(address, "localhost", trusting()).await.ok()?;
        let reply = client.get(&format!("https://localhost{path}")).await;
        (reply.status == 200).then_some(reply)
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An address that nobody listens on. The system gives its port to nobody who does not ask for it.
pub(crate) async fn free() -> SocketAddr {
    /// Below those that Linux chooses from for connections and for port 0.
    const PORTS: std::ops::Range<u16> = 10_000..32_000;

    loop {
        let mut bytes = [0; 2];
        aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
        let port = u16::from_ne_bytes(bytes);
        if PORTS.contains(&port)
            && let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
        {
            return listener.local_addr().expect("an address");
        }
    }
}
