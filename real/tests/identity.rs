//! What is wrong with a certificate is said when it is loaded, with the file's name.

use std::{fs, path::PathBuf};
use worldline_proto::NodeId;
use worldline_real::network::tls::{Authority, AuthorityError, Holder, Identity, Wrong};
use worldline_system::time::UnixTime;

/// A fresh folder for one test.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("worldline-identity-{name}-{}", std::process::id()));
    drop(fs::remove_dir_all(&folder));
    folder
}

fn node(number: u32) -> Holder {
    Holder::Node(NodeId(number))
}

#[test]
fn an_authority_that_was_saved_issues_what_can_be_loaded() {
    let folder = folder("issue");
    Authority::create().expect("entropy").save(&folder).expect("writes");
    let authority = Authority::load(&folder.join("ca.pem"), &folder.join("ca.key")).expect("reads back");
    let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    authority.issue(&node(7), &hosts).expect("issues").save(&folder).expect("writes");
    authority.issue(&Holder::Stranger("tool".into()), &[]).expect("issues").save(&folder).expect("writes");
    let load = |stem: &str| {
        let file = |extension| folder.join(format!("{stem}.{extension}"));
        Identity::load(&folder.join("ca.pem"), &file("pem"), &file("key")).expect("loads")
    };
    assert_eq!(load("n7").node(), Some(NodeId(7)));
    assert_eq!(load("tool").node(), None);
    assert_eq!(Identity::stranger(&folder.join("ca.pem")).expect("loads").node(), None);
    let mode =
        |name| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(folder.join(name)).expect("there").permissions());
    assert_eq!((mode("ca.key") & 0o777, mode("n7.key") & 0o777), (0o600, 0o600), "keys are their user's only");
    fs::remove_dir_all(&folder).expect("removes");
}

#[test]
fn nothing_is_written_over_and_no_host_is_made_up() {
    let folder = folder("over");
    let authority = Authority::create().expect("entropy");
    authority.save(&folder).expect("writes");
    let error = authority.save(&folder).expect_err("there is one").to_string();
    assert!(error.contains("ca.key"), "{error}");
    let error = authority.issue(&node(1), &["no host".to_owned()]).err().expect("a blank is in no name");
    assert!(matches!(error, AuthorityError::Host(host) if host == "no host"));
    fs::write(folder.join("ca.key"), "no key").expect("writes");
    let error = Authority::load(&folder.join("ca.pem"), &folder.join("ca.key")).err().expect("no key").to_string();
    assert!(error.contains("ca.key") && error.contains("private key"), "{error}");
    fs::remove_dir_all(&folder).expect("removes");
}

#[test]
fn each_way_in_which_a_file_is_wrong_has_its_own_message() {
    let folder = folder("wrong");
    let (authority, foreign) = (Authority::create().expect("entropy"), Authority::create().expect("entropy"));
    authority.save(&folder).expect("writes");
    let day = |n: u64| UnixTime::from_nanos(n * 24 * 60 * 60 * 1_000_000_000);
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).expect("writes");
        folder.join(name)
    };
    let (good, other) =
        (authority.issue(&node(1), &[]).expect("issues"), authority.issue(&node(2), &[]).expect("issues"));
    let past = authority.issue_for(&node(1), &[], day(1), day(2)).expect("issues");
    let future = authority.issue_for(&node(1), &[], day(60_000), day(60_001)).expect("issues");
    let strange = foreign.issue(&node(1), &[]).expect("issues");
    let ca = folder.join("ca.pem");
    let (pem, key) = (write("good.pem", &good.certificate_pem), write("good.key", &good.key_pem));
    let wrong = |pem: &PathBuf, key: &PathBuf| {
        let error = Identity::load(&ca, pem, key).expect_err("wrong");
        (error.path.clone(), error.to_string(), error.wrong)
    };

    let (path, text, what) = wrong(&folder.join("none.pem"), &key);
    assert!(matches!(what, Wrong::Io(_)) && path.ends_with("none.pem"), "{text}");
    let (path, text, what) = wrong(&write("text.pem", "no PEM at all"), &key);
    assert!(matches!(what, Wrong::NotPem { .. }) && path.ends_with("text.pem"), "{text}");
    let (path, text, what) = wrong(&pem, &pem);
    assert!(matches!(what, Wrong::NotPem { expected: "private key", .. }) && path.ends_with("good.pem"), "{text}");
    let (path, text, what) = wrong(&pem, &write("other.key", &other.key_pem));
    assert!(matches!(what, Wrong::AnotherKey { .. }) && path.ends_with("other.key"), "{text}");
    let (path, text, what) = wrong(&write("past.pem", &past.certificate_pem), &write("past.key", &past.key_pem));
    assert!(matches!(what, Wrong::Expired) && path.ends_with("past.pem") && text.contains("expired"), "{text}");
    let (_, text, what) = wrong(&write("future.pem", &future.certificate_pem), &write("future.key", &future.key_pem));
    assert!(matches!(what, Wrong::NotValidYet), "{text}");
    let (path, text, what) =
        wrong(&write("strange.pem", &strange.certificate_pem), &write("strange.key", &strange.key_pem));
    assert!(matches!(what, Wrong::AnotherAuthority { .. }) && path.ends_with("strange.pem"), "{text}");
    assert!(text.contains("ca.pem"), "whose authority it should be: {text}");
    let (_, text, what) =
        wrong(&write("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), &key);
    assert!(matches!(what, Wrong::NotACertificate(_)), "{text}");
    fs::remove_dir_all(&folder).expect("removes");
}
