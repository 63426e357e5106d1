//! Configuration files that somebody has damaged: they are refused with a place, or mean what they say; nothing between.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use tempfile::TempDir;
use weir::config::install::FileProvider;
use weir::config::{self, Files, Problem};

use super::{cases, mutated};

const TOKENS: &[&str] = &[
    ":",
    ": ",
    "- ",
    "\n",
    "\n  ",
    "\n    ",
    "\t",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "|",
    ">",
    "#",
    " #",
    "&a ",
    "*a",
    "<<: *a",
    "!!binary ",
    "!x ",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "? ",
    "~",
    "null",
    "true",
    "0x10",
    "1e999",
    "-1",
    "99999999999999999999",
    "\u{feff}",
    "\u{0}",
    "\u{85}",
    "é",
    "{{ ",
    "routers",
    "http:\n",
    "tls: {}\n",
    "a: &a [*a]\n",
];

/// The files of this repository whose names begin so.
fn corpus(prefix: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files: Vec<PathBuf> = ["tests/golden/config", "config/quickstart"]
        .iter()
        .filter_map(|directory| fs::read_dir(root.join(directory)).ok())
        .flatten()
        .map(|entry| entry.expect("the directory can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{prefix}");
    files.iter().map(|file| fs::read(file).expect("the file can be read")).collect()
}

fn damaged(prefix: &str) -> impl Strategy<Value = Vec<u8>> {
    let scraps = proptest::collection::vec(proptest::sample::select(TOKENS), 0..20);
    prop_oneof![
        9 => mutated(corpus(prefix), TOKENS),
        1 => scraps.prop_map(|scraps| scraps.concat().into_bytes()),
    ]
}

/// A file name and a directory for it alone.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("routes.yaml");
    (folder, file)
}

fn files(folder: &TempDir) -> Files {
    Files::new(&FileProvider { directory: Some(folder.path().to_owned()), ..FileProvider::default() })
}

fn is_in(problem: &Problem, text: &[u8]) -> bool {
    let lines = 1 + text.iter().filter(|byte| b"\n\r".contains(byte)).count();
    problem.place.as_ref().is_none_or(|place| (1..=lines).contains(&place.line) && place.column >= 1)
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn routing_files(bytes in damaged("routing")) {
        let (folder, file) = folder();
        let good = "http: {routers: {good: {rule: \"Host(`good.example`)\", service: whoami@internal}}}";
        fs::write(&file, good).expect("a file can be written");
        let mut serving = files(&folder);
        let (before, problems) = serving.read();
        prop_assert!(problems.is_empty());

        fs::write(&file, &bytes).expect("a file can be written");
        let (after, problems) = serving.read();
        let (alone, _) = files(&folder).read();
        let all: Vec<&Problem> = problems.iter().chain(after.problems()).collect();
        prop_assert!(all.iter().all(|problem| is_in(problem, &bytes)), "{:?}", all);
        // A reader that knows nothing of before shows whether the file can be used.
        if after != alone {
            prop_assert_eq!(&after, &before, "neither what was before nor what the file says");
            prop_assert!(!problems.is_empty(), "nobody is told that the file is not used");
        }
        let (again, once_more) = serving.read();
        prop_assert_eq!((&again, &once_more), (&after, &problems), "it is read again and means something else");
    }

    #[test]
    fn install_files(bytes in damaged("install")) {
        let (_folder, file) = folder();
        fs::write(&file, &bytes).expect("a file can be written");
        match config::install(&file) {
            Ok((install, warnings)) => {
                prop_assert!(warnings.iter().all(|problem| !problem.is_error() && is_in(problem, &bytes)));
                prop_assert!(!install.entry_points.is_empty());
            }
            Err(problems) => {
                prop_assert!(problems.iter().any(Problem::is_error), "refused without an error");
                prop_assert!(problems.iter().all(|problem| is_in(problem, &bytes)), "{:?}", problems);
            }
        }
    }
}
