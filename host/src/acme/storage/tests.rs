use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::acme::name::Name;

/// As Traefik 3.7.9 writes it, with an account and two entries.
fn traefik(first: &Stored, second: &Stored) -> String {
    let base64 = |text: &str| STANDARD.encode(text);
    format!(
        r#"{{
  "le": {{
    "Account": {{
      "Email": "a\u0026b@example.com",
      "Registration": {{
        "body": {{
          "status": "valid",
          "contact": [
            "mailto:a\u0026b@example.com"
          ],
          "termsOfServiceAgreed": true
        }},
        "uri": "https://acme.example/acct/1"
      }},
      "PrivateKey": "MIIJKAIBAAKCAgEA"
    }},
    "Certificates": [
      {{
        "domain": {{
          "main": "example.com",
          "sans": [
            "www.example.com"
          ]
        }},
        "certificate": "{}",
        "key": "{}",
        "Store": "default"
      }},
      {{
        "domain": {{
          "main": "example.org"
        }},
        "certificate": "{}",
        "key": "{}",
        "Store": "default"
      }}
    ]
  }},
  "other": {{
    "Account": null,
    "Certificates": null
  }}
}}"#,
        base64(&first.chain),
        base64(&first.key),
        base64(&second.chain),
        base64(&second.key),
    )
}

fn certificate(names: &[&str]) -> Stored {
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let parameters = CertificateParams::new(names.clone()).expect("they are names");
    let chain = parameters.self_signed(&key).expect("a certificate").pem();
    Stored::parse(names[0].clone(), names[1..].to_vec(), chain, key.serialize_pem()).expect("it can be read")
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("acme.json")
    }

    fn write(&self, content: &str) {
        file::replace(&self.path(), content.as_bytes()).expect("it can be written");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).expect("it is there")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("it can be read");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("it can be read").file_name().into_string();
        let mut names: Vec<String> = entries.map(|entry| name(entry).expect("it is UTF-8")).collect();
        names.sort_unstable();
        names
    }

    fn open(&self) -> Storage {
        let (storage, warnings) = Storage::open(&self.path()).expect("it can be opened");
        assert!(warnings.is_empty(), "{warnings:?}");
        storage
    }
}

fn mains(storage: &Storage, resolver: &str) -> Vec<String> {
    storage.certificates(resolver).into_iter().map(|certificate| certificate.main).collect()
}

#[test]
fn a_file_of_traefik_goes_back_byte_for_byte() {
    let text = traefik(&certificate(&["example.com", "www.example.com"]), &certificate(&["example.org"]));
    let (document, left_out) = Document::parse(text.as_bytes()).expect("it can be read");
    assert!(left_out.is_empty(), "{left_out:?}");
    assert_eq!(document.to_text(), text);
}

#[test]
fn a_renewed_certificate_changes_its_own_entry_alone() {
    let folder = Folder::new();
    let (first, second) = (certificate(&["example.com", "www.example.com"]), certificate(&["example.org"]));
    folder.write(&traefik(&first, &second));
    let storage = folder.open();
    let renewed = certificate(&["example.com", "www.example.com"]);
    storage.put("le", &renewed).expect("it is kept");
    assert_eq!(folder.read("acme.json"), traefik(&renewed, &second));
    assert_eq!(folder.read("acme.json.bak"), traefik(&first, &second));
    assert_eq!(folder.names(), ["acme.json", "acme.json.bak"]);
}

#[test]
fn a_new_file_is_made_as_traefik_would() {
    let folder = Folder::new();
    let storage = folder.open();
    assert_eq!(folder.read("acme.json"), "");
    let stored = certificate(&["example.com"]);
    storage.put("le", &stored).expect("it is kept");
    let expected = format!(
        r#"{{
  "le": {{
    "Account": null,
    "Certificates": [
      {{
        "domain": {{
          "main": "example.com"
        }},
        "certificate": "{}",
        "key": "{}",
        "Store": "default"
      }}
    ]
  }}
}}"#,
        STANDARD.encode(&stored.chain),
        STANDARD.encode(&stored.key),
    );
    assert_eq!(folder.read("acme.json"), expected);
    assert_eq!(folder.names(), ["acme.json"], "there was nothing to back up");
    #[cfg(unix)]
    assert_eq!(mode(&folder.path()), 0o600);
}

#[test]
fn what_is_read_again_is_what_was_kept() {
    let folder = Folder::new();
    let storage = folder.open();
    let kept = certificate(&["example.com", "*.example.com", "192.0.2.1"]);
    storage.put("le", &kept).expect("it is kept");
    let [read] = folder.open().certificates("le").try_into().expect("there is one");
    assert_eq!((&read.main, &read.sans), (&kept.main, &kept.sans));
    assert_eq!((&read.chain, &read.key), (&kept.chain, &kept.key));
    assert_eq!((read.not_before, read.not_after), (kept.not_before, kept.not_after));
    assert!(read.not_before < read.not_after);
    assert_eq!(read.issuer, "CN=rcgen self signed cert");
    assert_eq!(read.key_pem(), kept.key_pem());
    assert_eq!(read.identity().to_string(), "*.example.com,192.0.2.1,example.com");
    for (name, expected) in
        [("example.com", true), ("a.example.com", true), ("192.0.2.1", true), ("a.b.example.com", false)]
    {
        assert_eq!(read.covers([&Name::parse(name).expect("a name")]), expected, "{name}");
    }
}

#[test]
fn keys_in_any_case_are_read_and_unknown_ones_stay_at_every_level() {
    let folder = Folder::new();
    let stored = certificate(&["example.com"]);
    let (chain, key) = (STANDARD.encode(&stored.chain), STANDARD.encode(&stored.key));
    folder.write(&format!(
        r#"{{"$comment":"mine","LE":null,"le":{{"x":[1,{{"y":2}}],"CERTIFICATES":[{{"note":"n","STORE":"s","Key":"{key}",
        "Certificate":"{chain}","Domain":{{"SANs":[],"MAIN":"Example.com","z":0}}}}],"account":{{"email":"e","q":1}}}}}}"#
    ));
    let storage = folder.open();
    assert_eq!(mains(&storage, "le"), ["Example.com"]);
    let renewed = certificate(&["example.com"]);
    storage.put("le", &renewed).expect("it is kept");
    let expected = format!(
        r#"{{
  "$comment": "mine",
  "LE": null,
  "le": {{
    "Account": {{
      "email": "e",
      "q": 1
    }},
    "Certificates": [
      {{
        "domain": {{
          "main": "example.com",
          "z": 0
        }},
        "certificate": "{}",
        "key": "{}",
        "Store": "s",
        "note": "n"
      }}
    ],
    "x": [
      1,
      {{
        "y": 2
      }}
    ]
  }}
}}"#,
        STANDARD.encode(&renewed.chain),
        STANDARD.encode(&renewed.key),
    );
    assert_eq!(folder.read("acme.json"), expected);
}

#[test]
fn private_keys_of_all_three_kinds_are_read() {
    let chain = certificate(&["example.com"]).chain;
    for kind in ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"] {
        let key = format!("-----BEGIN {kind}-----\nMAA=\n-----END {kind}-----\n");
        Stored::parse("example.com".to_owned(), Vec::new(), chain.clone(), key).expect(kind);
    }
    let key = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n".to_owned();
    let problem = Stored::parse("example.com".to_owned(), Vec::new(), chain, key).expect_err("it is encrypted");
    assert_eq!(problem, "its key cannot be read");
}

#[test]
fn entries_without_use_are_left_out_of_their_own_resolver_alone() {
    let folder = Folder::new();
    let stored = certificate(&["example.com"]);
    let (chain, key) = (STANDARD.encode(&stored.chain), STANDARD.encode(&stored.key));
    let good =
        format!(r#"{{"domain":{{"main":"example.com"}},"certificate":"{chain}","key":"{key}","Store":"default"}}"#);
    let unreadable = STANDARD.encode("no PEM");
    folder.write(&format!(
        r#"{{"a":{{"Certificates":[{{"domain":{{"main":"empty.example"}},"certificate":"","key":""}},{good},7,
        {{"domain":{{"main":"null.example"}},"certificate":"{chain}","key":null}},
        {{"domain":{{"main":"bad.example"}},"certificate":"!","key":"{key}"}},
        {{"domain":{{"main":"pem.example"}},"certificate":"{unreadable}","key":"{key}"}},
        {{"certificate":"{chain}","key":"{key}"}}]}},"b":{{"Certificates":[{good}]}},"c":{{"Certificates":null}}}}"#
    ));
    let (storage, warnings) = Storage::open(&folder.path()).expect("it can be opened");
    assert_eq!(
        warnings,
        [
            "an entry of resolver `a` is left out: that of `empty.example` has no certificate",
            "an entry of resolver `a` is left out: it is no object",
            "an entry of resolver `a` is left out: that of `null.example` has no key",
            "an entry of resolver `a` is left out: the certificate of `bad.example` is no base64",
            "an entry of resolver `a` is left out: it has no domain",
            "the certificate of `pem.example` of resolver `a` is ordered anew: its chain holds no certificate in PEM",
        ]
    );
    assert_eq!(mains(&storage, "a"), ["example.com"]);
    assert_eq!(mains(&storage, "b"), ["example.com"]);
    assert!(mains(&storage, "c").is_empty());
}

#[test]
fn certificates_of_a_set_of_names_are_replaced_and_removed_together() {
    let folder = Folder::new();
    let storage = folder.open();
    let names = ["a.example", "b.example"];
    storage.put("le", &certificate(&["c.example"])).expect("it is kept");
    storage.put("le", &certificate(&names)).expect("it is kept");
    // Traefik may have kept another one under the same names.
    let text = folder.read("acme.json");
    folder.write(&text.replacen("\"c.example\"", "\"B.example.\", \"sans\": [\"a.example\"]", 1));
    assert!(storage.refresh().expect("it can be read"));
    assert_eq!(mains(&storage, "le"), ["B.example.", "a.example"]);
    storage.put("le", &certificate(&names)).expect("it is kept");
    assert_eq!(mains(&storage, "le"), ["a.example"]);
    storage.put("other", &certificate(&names)).expect("it is kept");
    storage.remove("le", &Identity::of_texts(["b.example", "a.example"])).expect("it is removed");
    assert!(mains(&storage, "le").is_empty());
    assert_eq!(mains(&storage, "other"), ["a.example"]);
    assert!(folder.read("acme.json").contains("\"Certificates\": null"));
}

#[test]
fn our_account_is_kept_beside_that_of_traefik() {
    let folder = Folder::new();
    folder.write(&traefik(&certificate(&["example.com", "www.example.com"]), &certificate(&["example.org"])));
    let before = folder.read("acme.json");
    let storage = folder.open();
    assert_eq!(storage.account("le"), None);
    let account = Account {
        directory: "https://acme.example/directory".to_owned(),
        credentials:
            r#"{"id":"https://acme.example/acct/2","key_pkcs8":"c2VjcmV0","directory":"https://acme.example"}"#
                .to_owned(),
    };
    storage.set_account("le", Some(&account)).expect("it is kept");
    assert_eq!(folder.open().account("le"), Some(account.clone()));
    assert_eq!(folder.open().account("other"), None);
    assert!(!format!("{account:?}").contains("c2VjcmV0"));
    assert!(folder.read("acme.json").contains("MIIJKAIBAAKCAgEA"), "Traefik's key is still there");
    storage.set_account("le", None).expect("it is forgotten");
    assert_eq!(folder.read("acme.json"), before);
}

#[test]
fn what_others_have_written_in_the_meantime_stays() {
    let folder = Folder::new();
    let (one, other) = (folder.open(), folder.open());
    one.put("le", &certificate(&["a.example"])).expect("it is kept");
    other.put("le", &certificate(&["b.example"])).expect("it is kept");
    one.put("le", &certificate(&["c.example"])).expect("it is kept");
    assert_eq!(mains(&one, "le"), ["a.example", "b.example", "c.example"]);
    assert!(other.refresh().expect("it can be read"));
    assert!(!other.refresh().expect("it can be read"), "nothing has happened since");
    assert_eq!(mains(&other, "le"), ["a.example", "b.example", "c.example"]);
    other.remove("le", &Identity::of_texts(["a.example"])).expect("it is removed");
    one.refresh().expect("it can be read");
    assert_eq!(mains(&one, "le"), ["b.example", "c.example"]);
}

#[test]
fn a_file_that_goes_away_while_we_run_comes_back_whole() {
    for empty in [true, false] {
        let folder = Folder::new();
        let storage = folder.open();
        storage.put("le", &certificate(&["a.example"])).expect("it is kept");
        match empty {
            true => fs::write(folder.path(), "").expect("it can be emptied"),
            false => fs::remove_file(folder.path()).expect("it can be removed"),
        }
        assert!(!storage.refresh().expect("nothing is lost"));
        storage.put("le", &certificate(&["b.example"])).expect("it is kept");
        assert_eq!(mains(&folder.open(), "le"), ["a.example", "b.example"]);
    }
}

#[test]
fn a_broken_file_is_set_aside_and_the_backup_used() {
    for broken in ["{\"le\": {\"Certif", "[]", "7", "{\"le\":{\"Certificates\":{}}}", "\0\0\0\0"] {
        let folder = Folder::new();
        let storage = folder.open();
        storage.put("le", &certificate(&["a.example"])).expect("it is kept");
        storage.put("le", &certificate(&["b.example"])).expect("it is kept");
        folder.write(broken);
        let (storage, warnings) = Storage::open(&folder.path()).expect("it can be opened");
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(warning.contains("acme.json.corrupt-") && warning.contains("its backup"), "{warning}");
        assert_eq!(mains(&storage, "le"), ["a.example"], "the backup is one change behind");
        let names = folder.names();
        let [main, backup, aside] = names.as_slice() else { panic!("{names:?}") };
        assert_eq!((main.as_str(), backup.as_str()), ("acme.json", "acme.json.bak"));
        assert_eq!(folder.read(aside), broken);
        let written = aside.strip_prefix("acme.json.corrupt-").expect("that is its name");
        assert!(written.starts_with("20") && written.len() == "20260102T030405Z".len(), "{written}");
        assert_eq!(mains(&folder.open(), "le"), ["a.example"], "the next start has nothing to say");
    }
}

#[test]
fn a_look_says_what_a_start_would_do_and_does_nothing() {
    let broken = "{\"le\": {\"Certif";
    let folder = Folder::new();
    let storage = folder.open();
    storage.put("le", &certificate(&["a.example"])).expect("it is kept");
    storage.put("le", &certificate(&["b.example"])).expect("it is kept");
    for (backup, rest) in [(true, "its backup `"), (false, "there is no usable backup, so that all certificates")] {
        if !backup {
            fs::remove_file(file::beside(&folder.path(), BACKUP)).expect("the backup is there");
        }
        folder.write(broken);
        let before = folder.names();
        let (looked, said) = Storage::look(&folder.path()).expect("it can be looked at");
        assert_eq!((folder.names(), folder.read("acme.json").as_str()), (before, broken), "nothing is changed");
        let (opened, done) = Storage::open(&folder.path()).expect("it can be opened");
        let [said, done] = [&said, &done].map(|warnings| match warnings.as_slice() {
            [warning] => warning.clone(),
            warnings => panic!("{warnings:?}"),
        });
        assert_eq!(said.replace(": a start would set it aside", " and has been set aside"), done);
        assert!(said.contains(rest), "{said}");
        assert_eq!(mains(&looked, "le"), mains(&opened, "le"));
    }
}

#[test]
fn a_look_names_certificates_that_cannot_be_read_as_a_start_does() {
    let folder = Folder::new();
    let entry =
        r#"{"domain": {"main": "a.example"}, "certificate": "Y2VydGlmaWNhdGU=", "key": "a2V5", "Store": "default"}"#;
    folder.write(&format!(r#"{{"le": {{"Account": null, "Certificates": [{entry}]}}}}"#));
    let (_, said) = Storage::look(&folder.path()).expect("it can be looked at");
    let words =
        "the certificate of `a.example` of resolver `le` is ordered anew: its chain holds no certificate in PEM";
    assert_eq!(said, [words]);
    let (_, done) = Storage::open(&folder.path()).expect("it can be opened");
    assert_eq!(said, done);
}

#[test]
fn a_broken_file_without_a_backup_starts_anew() {
    let folder = Folder::new();
    folder.write("{");
    let (storage, warnings) = Storage::open(&folder.path()).expect("it can be opened");
    assert!(warnings[0].ends_with("there is no usable backup, so that all certificates are ordered anew"));
    assert!(storage.certificates("le").is_empty());
    assert_eq!(folder.names().len(), 2);
    folder.open();
}

#[test]
fn a_file_that_breaks_while_we_run_is_written_anew() {
    let folder = Folder::new();
    let storage = folder.open();
    storage.put("le", &certificate(&["a.example"])).expect("it is kept");
    folder.write("{\"le\": {\"Acc");
    storage.put("le", &certificate(&["b.example"])).expect("it is kept");
    assert_eq!(mains(&folder.open(), "le"), ["a.example", "b.example"]);
    let aside = folder.names().into_iter().find(|name| name.contains(".corrupt-")).expect("it is set aside");
    assert_eq!(folder.read(&aside), "{\"le\": {\"Acc");
}

#[test]
fn empty_files_and_empty_json_are_fine() {
    for content in ["", " \n", "{}", "null", "{\"le\":null}", "{\"le\":{}}"] {
        let folder = Folder::new();
        folder.write(content);
        let storage = folder.open();
        assert!(storage.certificates("le").is_empty());
        assert_eq!(folder.read("acme.json"), content, "nothing is written before there is something to keep");
        storage.put("le", &certificate(&["a.example"])).expect("it is kept");
        assert_eq!(mains(&folder.open(), "le"), ["a.example"]);
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_others_can_read_is_refused_in_the_words_of_traefik() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new();
    folder.write("{}");
    for (mode, expected) in
        [(0o600, None), (0o400, None), (0o700, None), (0o644, Some("644")), (0o604, Some("604")), (0o610, Some("610"))]
    {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).expect("it is ours");
        let opened = Storage::open(&folder.path());
        let Some(shown) = expected else {
            opened.expect("nobody else can read it");
            continue;
        };
        let path = folder.path();
        assert_eq!(
            opened.expect_err("others can read it").to_string(),
            format!("permissions {shown} for {} are too open, please use 600", path.display())
        );
    }
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_stays_one() {
    let folder = Folder::new();
    let target = tempfile::tempdir().expect("a folder");
    let target = target.path().join("data.json");
    std::os::unix::fs::symlink(&target, folder.path()).expect("a link");
    let storage = folder.open();
    storage.put("le", &certificate(&["a.example"])).expect("it is kept");
    assert!(fs::symlink_metadata(folder.path()).expect("it is there").is_symlink());
    assert_eq!(mode(&target), 0o600);
    assert_eq!(storage.beside(".state"), target.with_file_name("data.json.state"));
    assert_eq!(mains(&folder.open(), "le"), ["a.example"]);
}

#[test]
fn places_where_no_file_can_be_are_refused_at_once() {
    let folder = Folder::new();
    let missing = folder.0.path().join("missing/acme.json");
    let error = format!("{:#}", Storage::open(&missing).expect_err("there is no such directory"));
    assert!(error.starts_with(&format!("`{}` cannot be made: ", missing.display())), "{error}");
    let error = Storage::open(folder.0.path()).expect_err("it is a directory").to_string();
    assert!(error.ends_with("is no regular file"), "{error}");
}

#[test]
fn a_directory_that_goes_away_is_noticed_before_an_order_is_spent() {
    let folder = Folder::new();
    let storage = folder.open();
    storage.probe().expect("it can be written");
    assert_eq!(folder.names(), ["acme.json"]);
    fs::remove_dir_all(folder.0.path()).expect("it can be removed");
    assert!(storage.probe().is_err());
    assert!(storage.put("le", &certificate(&["a.example"])).is_err());
}

#[test]
fn nothing_secret_is_shown() {
    let folder = Folder::new();
    let storage = folder.open();
    let stored = certificate(&["a.example"]);
    storage.put("le", &stored).expect("it is kept");
    let shown = format!("{storage:?} {stored:?}");
    assert!(shown.contains("acme.json") && shown.contains("a.example"));
    assert!(!shown.contains("KEY") && !shown.contains(&STANDARD.encode(&stored.key)[..40]), "{shown}");
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).expect("it is there").permissions()) & 0o777
}
