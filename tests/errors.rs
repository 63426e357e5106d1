//! What people read who have made a mistake: one folder of `tests/golden/errors` for each, with what `weir check` says.
//! `UPDATE=1` writes what it says now.

use std::fs;
use std::path::Path;

use crate::support::program::{Ended, run};

#[test]
fn golden_files() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/errors");
    let update = std::env::var_os("UPDATE").is_some();
    let mut differing = Vec::new();
    let mut folders: Vec<_> = fs::read_dir(golden)
        .expect("the golden files are there")
        .map(|entry| entry.expect("the directory can be read").path())
        .collect();
    folders.sort();
    assert!(folders.len() > 10, "{folders:?}");
    for folder in folders {
        let Ended { code, stdout, stderr } = run(&folder, &["check", "--configFile=install.yaml"]);
        let said = format!("{stdout}{stderr}");
        assert!(said.contains("error: ") == (code == Some(1)), "{}: {code:?}: {said}", folder.display());
        assert!(said.contains("warning: ") || code == Some(1), "{} has a mistake: {said}", folder.display());
        let expected = folder.join("expected.txt");
        if update {
            fs::write(&expected, said).expect("the golden files can be written");
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            differing.push(format!("{}:\n{said}", folder.display()));
        }
    }
    assert!(differing.is_empty(), "run with UPDATE=1 and look at the difference:\n{}", differing.join("\n"));
}
