//! The plugins of `tests/guests`, built once per run as `host/build.rs` builds those of `plugins`.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::sync::OnceCell;
use weir::plugin::{Compiled, Host, Plugins, Wanted};

use super::proxy;

const TARGET: &str = "wasm32-wasip2";
const RUSTFLAGS: &str = "-Clink-arg=-zstack-size=65536";
const NOT_FOR_GUESTS: [&str; 8] = [
    "CARGO_BUILD_",
    "CARGO_CFG_",
    "CARGO_ENCODED_",
    "CARGO_FEATURE_",
    "CARGO_PROFILE_",
    "RUSTC",
    "RUSTDOC",
    "RUSTFLAGS",
];
const GUESTS: [&str; 13] = [
    "answers",
    "bodies",
    "burns",
    "fetches",
    "forges",
    "hoards",
    "misbehaves",
    "oversteps",
    "reaches",
    "shares",
    "stamps",
    "stamps-again",
    "tells",
];

/// The component of a folder of `tests/guests`. All are compiled to machine code too, so that no test waits for it.
pub(crate) async fn guest(name: &str) -> Vec<u8> {
    static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();

    let folder = FOLDER
        .get_or_init(async || {
            let folder = tokio::task::spawn_blocking(build).await.expect("the guests are built");
            let host = Host::new(Some(proxy::cache()), None, 1, &BTreeMap::new()).expect("a WebAssembly engine");
            Plugins::scan(&host, &folder, &Wanted::All, Compiled::All, &Plugins::default()).await;
            folder
        })
        .await;
    fs::read(folder.join(format!("{name}.wasm"))).expect("the guest has been built")
}

fn build() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the host is inside its workspace");
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let target_dir = tmp.parent().expect("it is inside the target directory").join("guests");

    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--profile", "guest", "--target", TARGET]).current_dir(workspace);
    cargo.arg("--target-dir").arg(&target_dir);
    cargo.args(GUESTS.map(|guest| format!("--package=guest-{guest}")));
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| NOT_FOR_GUESTS.iter().any(|prefix| name.starts_with(prefix))) {
            cargo.env_remove(name);
        }
    }
    cargo.env("CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS", RUSTFLAGS);
    assert!(cargo.status().expect("cargo can be run").success(), "the guests do not build");

    let folder = tmp.join("guests");
    fs::create_dir_all(&folder).expect("a directory can be made");
    for guest in GUESTS {
        let built = target_dir.join(TARGET).join("guest").join(format!("guest_{}.wasm", guest.replace('-', "_")));
        fs::copy(&built, folder.join(format!("{guest}.wasm"))).expect("the guest has been built");
    }
    folder
}
