//! Every configuration below `config/` loads as it stands.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::program::run_with;

#[test]
fn every_example_is_good() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let installs = installs(&config);
    assert!(installs.iter().any(|file| file.ends_with("quickstart/install.yaml")), "{installs:?}");
    assert!(installs.len() > 2, "{installs:?}");
    for file in installs {
        let folder = file.parent().expect("a file is in a directory");
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
        let token = ("DO_AUTH_TOKEN", "some token");
        let ended = run_with(folder, &["check", &format!("--configFile={name}")], &[token]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", file.display());
        let good = format!("`{name}` is good. It would serve:\n");
        assert!(ended.stdout.starts_with(&good), "{}: {}", file.display(), ended.stdout);
        assert!(ended.stdout.contains("    → "), "{} serves something: {}", file.display(), ended.stdout);
    }
}

fn installs(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("the directory can be read") {
        let path = entry.expect("the directory can be read").path();
        if path.is_dir() {
            files.extend(installs(&path));
        } else if path.ends_with("traefik.yaml") || path.ends_with("install.yaml") {
            files.push(path);
        }
    }
    files.sort();
    files
}
