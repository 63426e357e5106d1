//! `weir plugin`: what writers of plugins are told. A file of `tests/golden/plugin` for each, with times and sizes left
//! out; `UPDATE=1` writes what it says now.

use std::fs;
use std::path::Path;

use regex::Regex;
use serde_json::{Value, json};

use crate::support::folder::Folder;
use crate::support::guests::guest;
use crate::support::program::{Ended, run};

/// Nothing is in it, not even an export.
const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const EMPTY_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// The name of the golden file, the exit code, and the arguments behind `weir plugin`.
const GOLDEN: &[(&str, i32, &[&str])] = &[
    ("help", 0, &[]),
    ("check-good", 0, &["check", "stamps.wasm"]),
    ("check-provider", 0, &["check", "oversteps.wasm"]),
    ("check-needs-options", 0, &["check", "misbehaves.wasm"]),
    ("check-options", 0, &["check", "misbehaves.wasm", "--config", "{how: loops}"]),
    ("run-options-in-a-file", 0, &["run", "misbehaves.wasm", "--config", "@options.yaml"]),
    ("check-schema-error", 1, &["check", "misbehaves.wasm", "--config", r#"{"how": ["loops"], "why": 1}"#]),
    ("run-schema-error-in-a-file", 1, &["run", "misbehaves.wasm", "--config", "@wrong.yaml"]),
    ("run-no-json", 1, &["run", "misbehaves.wasm", "--config", "{how: "]),
    ("run-missing-options", 1, &["run", "misbehaves.wasm", "--config", "@missing.yaml"]),
    ("run-init-refuses", 1, &["run", "misbehaves.wasm", "--config", "{how: refusesInInit}"]),
    ("run-init-traps", 1, &["run", "misbehaves.wasm", "--config", "{how: trapsInInit}"]),
    ("check-missing-file", 1, &["check", "missing.wasm"]),
    ("check-no-wasm", 1, &["check", "options.yaml"]),
    ("check-core-module", 1, &["check", "module.wasm"]),
    ("check-no-export", 1, &["check", "empty.wasm"]),
    ("check-missing-export", 1, &["check", "export.wasm"]),
    ("check-other-version", 1, &["check", "version.wasm"]),
    ("run-unknown-import", 1, &["run", "import.wasm"]),
    ("run-import-of-a-provider", 1, &["run", "timer.wasm"]),
    ("run-url-that-is-none", 1, &["run", "reaches.wasm", "--config", "{url: 'ftp://a.example'}"]),
    ("run-foreign-import", 1, &["run", "foreign.wasm"]),
    ("check-empty-file", 1, &["check", "nothing.wasm"]),
    ("check-directory", 1, &["check", "full"]),
    ("check-provider-with-options", 1, &["check", "oversteps.wasm", "--config", "{a: b}"]),
    ("check-urls", 0, &["check", "reaches.wasm"]),
    ("check-bodies", 0, &["check", "bodies.wasm", "--config", "{requestPeek: 512, responseBuffered: 65536, mark: a}"]),
    ("check-more-than-is-allowed", 0, &["check", "bodies.wasm", "--config", "{requestBuffered: 1048577}"]),
    ("check-filter-without-calls", 0, &["check", "bodies.wasm"]),
    ("check-unknown-argument", 1, &["check", "stamps.wasm", "--confg", "{}"]),
    ("check-nothing", 1, &["check"]),
    ("unknown-command", 1, &["chek", "stamps.wasm"]),
    ("new-unknown-language", 1, &["new", "stamp", "--lang", "cobol"]),
    ("new-no-language", 1, &["new", "stamp"]),
    ("new-bad-name", 1, &["new", "my_plugin", "--lang", "rust"]),
    ("new-name-begins-with-a-digit", 1, &["new", "1st", "--lang", "rust"]),
    ("new-folder-has-something", 1, &["new", "full", "--lang", "rust"]),
    ("run-options-are-text", 1, &["run", "misbehaves.wasm", "--config", "traps"]),
    ("run-options-are-a-file-without-at", 1, &["run", "misbehaves.wasm", "--config", "options.yaml"]),
    ("run-wrong-type", 1, &["run", "bodies.wasm", "--config", "{requestPeek: many}"]),
    ("run-unknown-scheme", 1, &["run", "stamps.wasm", "--request", "GET ftp://a.example/x"]),
    ("run-field-without-colon", 1, &["run", "stamps.wasm", "-H", "accept"]),
    ("run-missing-body", 1, &["run", "stamps.wasm", "--body", "@missing.txt"]),
    ("run-edit", 0, &["run", "stamps.wasm", "--request", "GET /x?y"]),
    (
        "run-pass",
        0,
        &["run", "misbehaves.wasm", "--config", "{how: traps}", "-H", "accept: text/html", "--body", "hello"],
    ),
    (
        "run-reply",
        0,
        &["run", "redirectScheme.wasm", "--config", "{scheme: https}", "--request", "GET http://a.example/x"],
    ),
    ("run-tls", 0, &["run", "redirectScheme.wasm", "--config", "{scheme: https}", "--tls", "--response", "404"]),
    ("run-trap", 1, &["run", "misbehaves.wasm", "--config", "{how: traps}", "-H", "X-Trap: 1"]),
    ("run-trap-on-response", 1, &["run", "misbehaves.wasm", "--config", "{how: trapsOnResponse}"]),
    ("run-too-much", 1, &["run", "burns.wasm", "--config", "{how: longHeader}"]),
    ("run-bad-answer", 1, &["run", "misbehaves.wasm", "--config", "{how: editsContentLength}"]),
    (
        "run-bodies",
        0,
        &[
            "run",
            "bodies.wasm",
            "--config",
            "{requestPeek: 4, responseBuffered: 100, responseReplace: other}",
            "--body",
            "hello",
            "--response-body",
            "world",
        ],
    ),
    (
        "run-filters",
        0,
        &[
            "run",
            "bodies.wasm",
            "--config",
            "{requestFilter: upper, responseFilter: counts}",
            "--body",
            "hello",
            "--response-body",
            "world",
        ],
    ),
    ("run-log", 0, &["run", "answers.wasm", "--config", "{logs: controlCharacters}"]),
    ("run-metrics", 0, &["run", "shares.wasm", "-H", "x-do: add seen 2"]),
    ("run-times", 0, &["run", "shares.wasm", "-H", "x-do: increment plugin seen 1", "--times", "3"]),
    ("run-filter-of-nothing", 0, &["run", "bodies.wasm", "--config", "{requestFilter: upper, responseFilter: upper}"]),
    (
        "run-body-that-is-no-text",
        0,
        &["run", "bodies.wasm", "--config", "{requestFilter: expands}", "--body", "@bytes"],
    ),
    ("run-body-too-long", 1, &["run", "bodies.wasm", "--config", "{requestBuffered: 4}", "--body", "hello"]),
    (
        "run-response-too-long",
        1,
        &["run", "bodies.wasm", "--config", "{responseBuffered: 4}", "--response-body", "world"],
    ),
    ("run-filter-traps", 1, &["run", "bodies.wasm", "--config", "{requestFilter: traps}", "--body", "boom"]),
    (
        "run-filter-fails-on-response",
        1,
        &["run", "bodies.wasm", "--config", "{responseFilter: errs}", "--response-body", "boom"],
    ),
    ("run-needs-options", 1, &["run", "misbehaves.wasm"]),
    ("run-provider", 1, &["run", "oversteps.wasm"]),
];

async fn folder() -> Folder {
    let folder = Folder::new();
    for name in ["answers", "bodies", "burns", "misbehaves", "oversteps", "reaches", "shares", "stamps"] {
        folder.write(&format!("{name}.wasm"), guest(name).await);
    }
    let stamps = guest("stamps").await;
    folder.write("version.wasm", replaced(&stamps, b"@0.1.0", b"@0.2.0"));
    folder.write("export.wasm", replaced(&stamps, b"weir:plugin/description@", b"weir:plugin/descriptors@"));
    folder.write("import.wasm", replaced(&stamps, b"weir:plugin/types@", b"weir:plugin/tapes@"));
    folder.write("timer.wasm", replaced(&stamps, b"weir:plugin/types@", b"weir:plugin/timer@"));
    folder.write("foreign.wasm", replaced(&stamps, b"weir:plugin/types@", b"acme:plugin/types@"));
    folder.write("redirectScheme.wasm", built_in("redirectScheme"));
    folder.write("empty.wasm", EMPTY_COMPONENT);
    folder.write("module.wasm", EMPTY_MODULE);
    folder.write("nothing.wasm", "");
    folder.write("full/notes.txt", "mine");
    folder.write("bytes", [0xff; 8]);
    folder.write("options.yaml", "# comments are fine\nhow: traps\n");
    folder.write("wrong.yaml", "\nhow: loops\nwhy:\n  not: this\n");
    folder
}

fn built_in(name: &str) -> Vec<u8> {
    weir::plugin::built_in(name).expect("a built-in plugin").to_vec()
}

/// Names in components have their lengths in front of them.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from) {
        at += found;
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    assert!(at > 0, "it is in there");
    bytes
}

fn masked(text: &str) -> String {
    let times = Regex::new(r"\d[\d.]* (ns|µs|ms|s)\b").expect("a pattern");
    let sizes = Regex::new(r"\d+ (bytes|KiB|MiB) of memory|\d+ (bytes|KiB|MiB); compiled").expect("a pattern");
    let text = times.replace_all(text, "TIME");
    sizes.replace_all(&text, |found: &regex::Captures<'_>| found[0].replace(char::is_numeric, "#")).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_files() {
    let folder = folder().await;
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/plugin");
    let update = std::env::var_os("UPDATE").is_some();
    let mut differing = Vec::new();
    for &(name, code, arguments) in GOLDEN {
        let ended = run(folder.root(), &[&["plugin"], arguments].concat());
        assert_eq!(ended.code, Some(code), "{name}: {ended:?}");
        let Ended { stdout, stderr, .. } = ended;
        assert!(if code == 0 { stderr.is_empty() } else { stdout.is_empty() }, "{name}: {stdout}{stderr}");
        let said = masked(&format!("{stdout}{stderr}"));
        let expected = golden.join(format!("{name}.txt"));
        if update {
            fs::write(&expected, said).expect("the golden files can be written");
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            differing.push(format!("{name}:\n{said}"));
        }
    }
    assert!(differing.is_empty(), "run with UPDATE=1 and look at the difference:\n{}", differing.join("\n"));
}

fn json_of(folder: &Folder, arguments: &[&str]) -> Value {
    let ended = run(folder.root(), &[&["plugin"], arguments, &["--json"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_get_json() {
    let folder = folder().await;
    let checked = json_of(&folder, &["check", "stamps.wasm"]);
    assert_eq!((&checked["name"], &checked["kind"]), (&json!("stamps"), &json!("middleware")));
    assert_eq!(checked["instance"]["plan"], json!(["calls on-request", "calls on-response"]));
    assert!(checked["instance"]["memory_bytes"].as_u64().is_some_and(|bytes| bytes >= 65_536), "{checked}");
    assert!(checked["size_bytes"].as_u64().is_some_and(|bytes| bytes > 1000), "{checked}");
    let ran = json_of(&folder, &["run", "stamps.wasm", "--request", "GET /x"]);
    assert_eq!((&ran["request"]["verdict"], &ran["request"]["state"]), (&json!("edit"), &json!("/x")));
    let added = json!({"change": "added", "text": "x-stamped-path: /x"});
    assert!(ran["response"]["message"].as_array().is_some_and(|lines| lines.contains(&added)), "{ran}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_instances_are_measured() {
    let folder = folder().await;
    let benched = json_of(&folder, &["bench", "stamps.wasm", "--seconds", "0.05"]);
    let calls = benched["calls"].as_array().expect("a list");
    let names: Vec<&str> = calls.iter().filter_map(|call| call["what"].as_str()).collect();
    assert_eq!(names, ["on-request", "on-response", "new instance"]);
    for call in calls {
        let [median, p99] = ["median_nanoseconds", "p99_nanoseconds"].map(|key| call[key].as_u64().expect("a number"));
        assert!(median > 0 && p99 >= median, "{call}");
        assert!(call["calls"].as_u64() >= call["batches"].as_u64(), "{call}");
    }
    assert!(benched["instance_memory_bytes"].as_u64().is_some_and(|bytes| bytes >= 65_536), "{benched}");
    let ended = run(folder.root(), &["plugin", "bench", "stamps.wasm", "--seconds", "0.05"]);
    assert!(ended.stdout.contains("Measured on one thread"), "{ended:?}");

    let redirect = ["plugin", "bench", "redirectScheme.wasm", "--config", "{scheme: https}", "--seconds", "0.05"];
    let ended = run(folder.root(), &redirect);
    let replies = Regex::new(r"(?m)^replies       302 to [\d,]+ requests, by the plugin itself$").expect("a pattern");
    assert!(replies.is_match(&ended.stdout), "{ended:?}");

    // The response phase alone; a guest that fails is not measured.
    let arguments = ["plugin", "bench", "misbehaves.wasm", "--seconds", "0.05", "--config"];
    for (how, call) in [("trapsOnResponse", "on-response"), ("injectsHeader", "on-request")] {
        let ended = run(folder.root(), &[&arguments[..], &[&format!("{{how: {how}}}")]].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{how}");
        let error = format!("error: {call}: plugin failed: `misbehaves`: ");
        assert!(ended.stderr.starts_with(&error), "{how}: {}", ended.stderr);
    }
}

#[test]
fn a_project_is_written() {
    let folder = Folder::new();
    let ended = run(folder.root(), &["plugin", "new", "twoWords", "--lang", "rust"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let text = &ended.stdout;
    assert!(text.starts_with("`two-words` has a plugin that works. Next:\n  cd two-words\n"), "{text}");
    for command in ["  cargo build --release", "two_words.wasm", "/twoWords.wasm\n"] {
        assert!(text.contains(command), "{command} in {text}");
    }
    for (file, part) in [
        ("Cargo.toml", "name = \"two-words\""),
        ("src/lib.rs", "twoWords"),
        ("README.md", "two_words.wasm"),
        ("weir-sdk/Cargo.toml", "edition = \"20"),
        ("weir-sdk/src/lib.rs", "path: \"../wit\""),
        ("wit/weir-plugin.wit", "package weir:plugin@0.1.0;"),
        (".gitignore", "target"),
    ] {
        let text = folder.read(&format!("two-words/{file}"));
        assert!(text.contains(part), "{part} in {file}: {text}");
        assert!(!text.contains("workspace = true") && !text.contains("../../wit"), "{file}: {text}");
    }
}

#[test]
fn what_is_there_already_is_left_alone() {
    let folder = Folder::new();
    folder.write("a/notes.txt", "mine");
    let ended = run(folder.root(), &["plugin", "new", "a", "--lang", "rust"]);
    let error = "error: `a` is not empty\n  help: name another folder with --into\n";
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), error));
    fs::create_dir(folder.path("empty")).expect("a directory can be made");
    for into in ["b/c", "empty"] {
        let ended = run(folder.root(), &["plugin", "new", "a", "--lang", "rust", "--into", into]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(folder.read(&format!("{into}/Cargo.toml")).contains("name = \"a\""), "{into}");
    }
    assert_eq!((folder.read("a/notes.txt").as_str(), folder.path("a/Cargo.toml").exists()), ("mine", false));
    let ended = run(folder.root(), &["plugin", "new", "a", "--lang", "rust", "--into", "a/notes.txt"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.starts_with("error: `a/notes.txt/"), "{}", ended.stderr);
}

#[test]
fn names_and_languages_are_checked() {
    let folder = Folder::new();
    for (arguments, reason) in [
        (&["new", "1a", "--lang", "rust"][..], "a name starts with a letter"),
        (&["new", "../a", "--lang", "rust"], "a name starts with a letter"),
        (&["new", "a/b", "--lang", "rust"], "and no `/`"),
        (&["new", "a", "--lang", "cobol"], "possible values: "),
        (&["new", "a"], "--lang"),
        (&["run", "a.wasm", "-H", "accept"], "write `name: value`"),
    ] {
        let ended = run(folder.root(), &[&["plugin"], arguments].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains(reason), "{}", ended.stderr);
    }
    assert!(fs::read_dir(folder.root()).expect("it can be read").next().is_none(), "nothing was written");
}
