//! ARCHITECTURE.md says which module may know which, and the code keeps to it: read from the `use` lines.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Who knows whom, among the modules of `host/src/lib.rs`.
type Edges = BTreeSet<(String, String)>;

#[test]
fn the_document_and_the_code_agree() {
    let host = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(host.join("../ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let documented = documented(&document);
    let (mut used, mut wrong) = (Edges::new(), Vec::new());
    for file in sources(&host.join("src")) {
        let text = fs::read_to_string(&file).expect("a source file can be read");
        let file = file.strip_prefix(host).expect("it is below the host");
        let Some(module) = module_of(file) else { continue };
        for (number, line) in text.lines().enumerate() {
            for target in targets(line) {
                if target == module {
                    continue;
                }
                let edge = (module.clone(), target.clone());
                if !documented.contains(&edge) {
                    wrong.push(format!("{}:{}: `{module}` must not use `{target}`", file.display(), number + 1));
                }
                used.insert(edge);
            }
        }
    }
    for (module, target) in documented.difference(&used) {
        wrong.push(format!("ARCHITECTURE.md: `{module}` may use `{target}`, and does not"));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    assert!(used.len() > 10, "the `use` lines have been found: {used:?}");
}

#[test]
fn no_module_knows_itself_through_others() {
    let host = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(host.join("../ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let mut edges = documented(&document);
    // Whoever uses nothing that is left can be put below all others; what is left in the end goes round in circles.
    loop {
        let with_uses: BTreeSet<String> = edges.iter().map(|(module, _)| module.clone()).collect();
        let before = edges.len();
        edges.retain(|(_, target)| with_uses.contains(target));
        if edges.len() == before {
            break;
        }
    }
    assert!(edges.is_empty(), "these modules use each other in circles: {edges:?}");
}

/// The rows of the table `| module | may use |`.
fn documented(document: &str) -> Edges {
    let table = document.lines().skip_while(|line| *line != "| module | may use |").skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    let edges: Edges = rows
        .flat_map(|row| {
            let cells: Vec<String> = row.split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect();
            let (module, targets) = (cells[1].clone(), cells[2].clone());
            let targets = targets.split(',').map(|target| target.trim().to_owned()).collect::<Vec<_>>();
            targets.into_iter().filter(|target| !target.is_empty()).map(move |target| (module.clone(), target))
        })
        .collect();
    assert!(!edges.is_empty(), "ARCHITECTURE.md has a table with the header `| module | may use |`");
    edges
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a source directory can be read") {
        let path = entry.expect("a source directory can be read").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// `src/forward/dial.rs` and `src/forward.rs` are `forward`. `main.rs` and `lib.rs` are above all modules.
fn module_of(file: &Path) -> Option<String> {
    let first = file.components().nth(1)?.as_os_str().to_str()?;
    let module = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(module, "main" | "lib")).then(|| module.to_owned())
}

/// The modules that a line names: `crate::a`, and both of `crate::{a::B, c}`.
fn targets(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let mut targets = Vec::new();
    for path in code.split("crate::").skip(1) {
        match path.strip_prefix('{') {
            None => targets.push(identifier(path)),
            Some(group) => {
                let mut depth = 0;
                let top_level = group.split_inclusive([',', '{', '}']).filter_map(|part| {
                    let is_top_level = depth == 0;
                    depth += part.matches('{').count();
                    depth = depth.saturating_sub(part.matches('}').count());
                    is_top_level.then(|| identifier(part.trim()))
                });
                targets.extend(top_level.collect::<Vec<_>>());
            }
        }
    }
    targets.retain(|target| !target.is_empty() && target.starts_with(|first: char| first.is_ascii_lowercase()));
    targets
}

fn identifier(path: &str) -> String {
    path.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}
