//! A proxy in this process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::request;
use rustls::ClientConfig;
use tokio::sync::Mutex;
use weir::config;
use weir::server::{Load, Server, Settings};
use weir::snapshot::Snapshot;

use super::client::{Client, Reply, trusting};
use super::folder::Folder;
use super::full;

/// Two entry points, and the routing files of `$DIR/routing`. More may be appended.
pub(crate) const INSTALL: &str = r#"
providers:
  providersThrottleDuration: 0s
  file: {directory: $DIR/routing}
entryPoints:
  web: {address: "127.0.0.1:0"}
  websecure: {address: "127.0.0.1:0"}
"#;

/// Runs until it is dropped.
pub(crate) struct Proxy {
    pub(crate) folder: Folder,
    /// Of the install file.
    pub(crate) warnings: Vec<String>,
    server: Server,
}

/// Where compiled plugins stay for the next run, in this process and in others.
pub(crate) fn cache() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("weir")
}

impl Proxy {
    /// Starts with an install file and files in its routing directory.
    pub(crate) async fn start(install: &str, files: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        std::fs::create_dir(folder.path("routing")).expect("a directory can be made");
        for (name, text) in files {
            folder.write(&format!("routing/{name}"), text);
        }
        Self::start_in(folder, install).await
    }

    /// Starts with what a folder has already. Errors in the install file are the test's fault.
    pub(crate) async fn start_in(folder: Folder, install: &str) -> Self {
        // One at a time: all share the directory of compiled plugins.
        static STARTING: Mutex<()> = Mutex::const_new(());

        let file = folder.write("install.yaml", install);
        let (install, warnings) = config::install(&file).expect("a good install file");
        let root = format!("{}/", folder.root().display());
        let warnings = warnings.iter().map(|warning| warning.to_string().replace(&root, "")).collect();
        let plugin_directory = folder.path("plugins");
        let settings = Settings {
            install,
            files: None,
            plugin_directory,
            plugin_cache: Some(cache()),
            compiler: Some(env!("CARGO_BIN_EXE_weir").into()),
        };
        let starting = STARTING.lock().await;
        let server = Server::start(settings).await.expect("a proxy that starts");
        drop(starting);
        Self { folder, warnings, server }
    }

    pub(crate) fn address(&self, entry_point: &str) -> SocketAddr {
        self.server.addresses[entry_point]
    }

    /// Replaces a routing file as a whole.
    pub(crate) fn write(&self, name: &str, text: &str) {
        self.folder.write(&format!("routing/{name}"), text);
    }

    /// Reads the configuration again, and returns when it serves.
    pub(crate) async fn reload(&self) {
        self.server.reload().await;
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.server.live.load_full()
    }

    /// Connections, requests and tasks at the moment.
    pub(crate) fn load(&self) -> Load {
        self.server.load()
    }

    /// Everything that is wrong now, as it is shown to people, with paths below the folder.
    pub(crate) fn problems(&self) -> Vec<String> {
        let root = format!("{}/", self.folder.root().display());
        self.snapshot().items.all_problems().map(|problem| problem.to_string().replace(&root, "")).collect()
    }

    /// What SIGUSR1 asks for.
    pub(crate) fn reopen_access_log(&self) {
        self.server.access_log.as_ref().expect("the install file wants one").reopen();
    }

    /// Lets requests in flight finish.
    pub(crate) async fn shut_down(self) {
        self.server.shut_down().await;
    }

    /// `GET` on a new connection: `http` to the entry point `web`, `https` to `websecure`.
    pub(crate) async fn get(&self, url: &str) -> Reply {
        self.send(http::Request::get(url)).await
    }

    pub(crate) async fn status(&self, url: &str) -> u16 {
        self.get(url).await.status
    }

    pub(crate) async fn send(&self, request: request::Builder) -> Reply {
        self.send_with(request, "").await
    }

    pub(crate) async fn send_with(&self, request: request::Builder, body: impl Into<bytes::Bytes>) -> Reply {
        let request = request.body(full(body)).expect("a good request");
        let uri = request.uri();
        let host = uri.host().expect("a whole URL").to_owned();
        let mut client = match uri.scheme_str() {
            Some("https") => self.secure_client(&host).await,
            _ => self.client("web").await,
        };
        client.send_request(request).await
    }

    /// A connection that speaks HTTP/1.1 in clear text.
    pub(crate) async fn client(&self, entry_point: &str) -> Client {
        Client::plain(self.address(entry_point)).await
    }

    /// A connection to `websecure` that speaks HTTP/1.1.
    pub(crate) async fn secure_client(&self, name: &str) -> Client {
        self.secure_client_with(name, trusting()).await.expect("a TLS handshake")
    }

    pub(crate) async fn secure_client_with(&self, name: &str, config: ClientConfig) -> std::io::Result<Client> {
        Client::secure(self.address("websecure"), name, config).await
    }
}
