//! Builds the middlewares and DNS providers of `plugins/` into WebAssembly components and lists them in
//! `$OUT_DIR/builtins.rs`, which the host includes: a slice of name and bytes. A nested cargo does the work, in a target
//! directory of its own that all profiles of the host share.
//!
//! Besides it lists what `weir plugin new` writes: the files of `plugins/templates`, and of the Rust library.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What building or testing a template leaves behind.
const NOT_OF_TEMPLATES: [&str; 4] = ["target", "node_modules", "__pycache__", ".venv"];

const TARGET: &str = "wasm32-wasip2";

/// An instance of a plugin then starts with 128 KiB of memory and not 17 times 64.
const RUSTFLAGS: &str = "-Clink-arg=-zstack-size=65536";

/// What an outer cargo, clippy or coverage run sets for the host, and would make the plugins differ with.
const NOT_FOR_PLUGINS: [&str; 8] = [
    "CARGO_BUILD_",
    "CARGO_CFG_",
    "CARGO_ENCODED_",
    "CARGO_FEATURE_",
    "CARGO_PROFILE_",
    "RUSTC",
    "RUSTDOC",
    "RUSTFLAGS",
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("cargo::error=failed to build the plugins: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let manifest_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest_dir.parent().ok_or("the host is not inside its workspace")?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);

    for path in ["plugins", "wit", "Cargo.toml", "Cargo.lock", "host/build.rs"] {
        watch(&workspace.join(path))?;
    }
    require_target()?;

    let plugins = find_plugins(&workspace.join("plugins"))?;
    let target_dir = target_dir(workspace, &out_dir).join("guests");
    compile(workspace, &target_dir, &plugins)?;

    let mut builtins = "&[\n".to_owned();
    for plugin in &plugins {
        // A copy, since another build may replace the file while rustc reads it.
        let built = target_dir.join(TARGET).join("guest").join(format!("weir_{}.wasm", plugin.replace('-', "_")));
        let component = out_dir.join(format!("{plugin}.wasm"));
        fs::copy(&built, &component).map_err(|problem| format!("copy {}: {problem}", built.display()))?;
        writeln!(builtins, "    ({:?}, include_bytes!({component:?}) as &[u8]),", camel_case(plugin))?;
    }
    builtins.push_str("]\n");
    fs::write(out_dir.join("builtins.rs"), builtins)?;
    fs::write(out_dir.join("templates.rs"), templates(&workspace.join("plugins/templates"))?)?;
    fs::write(out_dir.join("sdk.rs"), sdk(workspace)?)?;
    Ok(())
}

/// Rebuilds when one of the files changes. Folders are not named: their time changes whenever an editor saves beside.
fn watch(path: &Path) -> Result<(), Box<dyn Error>> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?.path();
            if !entry.ends_with("target") && !entry.ends_with("examples") {
                watch(&entry)?;
            }
        }
        return Ok(());
    }
    if path.extension().is_none_or(|extension| extension != "md") {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    Ok(())
}

/// A slice of language, path and text.
fn templates(folder: &Path) -> Result<String, Box<dyn Error>> {
    let mut list = "&[\n".to_owned();
    for file in files(folder)? {
        println!("cargo::rerun-if-changed={}", file.display());
        let path = file.strip_prefix(folder)?.to_str().ok_or("a template's path is no UTF-8")?.to_owned();
        let (language, path) = path.split_once('/').ok_or("a template is in the folder of its language")?;
        writeln!(list, "    ({language:?}, {path:?}, include_str!({file:?})),")?;
    }
    list.push_str("]\n");
    Ok(list)
}

/// A slice of path and text: the Rust library as a package that needs no workspace around it.
fn sdk(workspace: &Path) -> Result<String, Box<dyn Error>> {
    let folder = workspace.join("plugins/sdk");
    let manifest = fs::read_to_string(folder.join("Cargo.toml"))?;
    let manifest = alone(&manifest, &fs::read_to_string(workspace.join("Cargo.toml"))?)?;
    let mut list = format!("&[\n    (\"Cargo.toml\", {manifest:?}),\n");
    for file in files(&folder.join("src"))? {
        // One level nearer to the interface than in this repository.
        let text = fs::read_to_string(&file)?.replace("\"../../wit\"", "\"../wit\"");
        writeln!(list, "    ({:?}, {text:?}),", file.strip_prefix(&folder)?)?;
    }
    list.push_str("]\n");
    Ok(list)
}

/// A manifest with what it inherits written out, but for lints.
fn alone(manifest: &str, workspace: &str) -> Result<String, Box<dyn Error>> {
    let mut alone = String::new();
    for line in manifest.lines().filter(|line| !matches!(*line, "[lints]" | "workspace = true")) {
        match line.strip_suffix(".workspace = true") {
            None => writeln!(alone, "{line}")?,
            Some(key) => {
                let inherited = workspace.lines().find(|line| line.starts_with(&format!("{key} = ")));
                writeln!(alone, "{}", inherited.ok_or_else(|| format!("the workspace has no `{key}`"))?)?;
            }
        }
    }
    Ok(alone)
}

/// All files in a folder and below, in order of name.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if NOT_OF_TEMPLATES.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    found.sort_unstable();
    Ok(found)
}

/// Without the target's standard library rustc says "can't find crate for `core`" some hundred times.
fn require_target() -> Result<(), Box<dyn Error>> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output()?;
    if Path::new(str::from_utf8(&output.stdout)?.trim()).is_dir() {
        return Ok(());
    }
    Err(format!("the Rust target {TARGET} is missing: install it with `rustup target add {TARGET}`").into())
}

/// Folders that make a component, in order of name. The package of `plugins/basic-auth` is `weir-basic-auth`.
fn find_plugins(folder: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut plugins = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(manifest) = fs::read_to_string(entry.path().join("Cargo.toml")) else {
            continue;
        };
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if manifest.contains("\"cdylib\"") {
            plugins.push(name);
        }
    }
    plugins.sort_unstable();
    Ok(plugins)
}

fn compile(workspace: &Path, target_dir: &Path, plugins: &[String]) -> Result<(), Box<dyn Error>> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--profile", "guest", "--target", TARGET]).current_dir(workspace);
    cargo.arg("--target-dir").arg(target_dir);
    for plugin in plugins {
        cargo.arg("--package").arg(format!("weir-{plugin}"));
    }
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| NOT_FOR_PLUGINS.iter().any(|prefix| name.starts_with(prefix))) {
            cargo.env_remove(name);
        }
    }
    cargo.env("CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS", RUSTFLAGS);

    if cargo.status()?.success() { Ok(()) } else { Err("see what cargo wrote above".into()) }
}

/// The directory that `cargo clean` would delete. `OUT_DIR` is inside, at a depth that depends on `--target`; cargo
/// marks the top with a tag.
fn target_dir(workspace: &Path, out_dir: &Path) -> PathBuf {
    let tagged = out_dir.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    tagged.map_or_else(|| workspace.join("target"), Path::to_path_buf)
}

/// `redirect-scheme` is `redirectScheme` in configuration files.
fn camel_case(folder: &str) -> String {
    let mut name = String::new();
    for (index, word) in folder.split('-').enumerate() {
        match word.split_at_checked(1) {
            Some((first, rest)) if index > 0 => name.extend([&*first.to_ascii_uppercase(), rest]),
            _ => name.push_str(word),
        }
    }
    name
}
