//! What `weir` can be told on its command line, and the configuration that it finds.
//!
//! `main` parses with it, prints what it answers and starts the server. Nothing here opens a port or prints.

mod arguments;
mod check;
mod plugin;

use std::env;
use std::path::{Path, PathBuf};

pub use self::arguments::{Arguments, Command, Unusable};
pub use self::check::{Report, check, plugins};
pub use self::plugin::{Asked, plugin};
use crate::config::{self, Files, Install, Problem};
use crate::server::Settings;

/// The quick start's files, so that the program alone can serve it.
const QUICK_START_INSTALL: &str = include_str!("../../config/quickstart/install.yaml");
const QUICK_START_ROUTING: &str = include_str!("../../config/quickstart/routing.yaml");

/// A configuration that has been found and read.
pub struct Found {
    pub settings: Settings,
    /// `None`: the quick start.
    pub file: Option<PathBuf>,
    pub warnings: Vec<Problem>,
}

/// Reads the file that was named, or the first of Traefik's and Weir's places, or the quick start.
///
/// # Errors
///
/// Everything that is wrong with the file; a file that was named and does not exist is wrong too.
pub fn find(arguments: &Arguments) -> Result<Found, Vec<Problem>> {
    let file = arguments.config_file.clone().or_else(|| places().into_iter().find(|place| place.is_file()));
    let Some(file) = file else {
        return quick_start(arguments);
    };
    let (install, mut warnings) = config::install(&file)?;
    warnings.extend(arguments.ignored.iter().map(|ignored| {
        let message = format!("{ignored} is ignored, since the configuration comes from `{}`", file.display());
        Problem::warning("", message)
    }));
    let beside = file.parent().unwrap_or_else(|| Path::new(""));
    let settings = settings(install, None, beside.join("plugins"));
    Ok(Found { settings, file: Some(file), warnings })
}

fn quick_start(arguments: &Arguments) -> Result<Found, Vec<Problem>> {
    if let Some(ignored) = arguments.ignored.first() {
        let message = format!("{ignored} alone cannot configure weir yet: options are read from a file");
        let help = "write the options to traefik.yaml, and name it with --configFile=traefik.yaml".to_owned();
        return Err(vec![Problem::error("", message).help(help)]);
    }
    let (install, warnings) = config::install_text(Path::new("config/quickstart/install.yaml"), QUICK_START_INSTALL)?;
    let files = Files::of_text(Path::new("config/quickstart/routing.yaml"), QUICK_START_ROUTING);
    let settings = settings(install, Some(files), PathBuf::from("plugins"));
    Ok(Found { settings, file: None, warnings })
}

fn settings(install: Install, files: Option<Files>, plugin_directory: PathBuf) -> Settings {
    Settings { install, files, plugin_directory, plugin_cache: cache_directory(), compiler: env::current_exe().ok() }
}

/// Traefik's search order, then Weir's own directory.
fn places() -> Vec<PathBuf> {
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let user = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let directories = [Some(PathBuf::from("/etc/traefik")), user, home, Some(PathBuf::from("."))];
    let of_traefik = directories
        .into_iter()
        .flatten()
        .flat_map(|directory| ["traefik.yaml", "traefik.yml"].map(|name| directory.join(name)));
    of_traefik.chain(["weir.yaml", "weir.yml"].map(|name| Path::new("/etc/weir").join(name))).collect()
}

/// Where the platform keeps what can be made again.
fn cache_directory() -> Option<PathBuf> {
    let under = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = if cfg!(windows) {
        under("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        under("HOME").map(|home| home.join("Library/Caches"))
    } else {
        under("XDG_CACHE_HOME").or_else(|| under("HOME").map(|home| home.join(".cache")))
    };
    directory.map(|directory| directory.join("weir"))
}
