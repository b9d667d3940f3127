use super::*;
use forebay_runtime::clock::RealClock;
use http::HeaderValue;

/// argon2id of "open sesame".
fn hash_of(password: &str) -> String {
    use argon2::{PasswordHasher, password_hash::SaltString};
    let salt = SaltString::encode_b64(b"sixteen bytes ok").unwrap();
    let quick = argon2::Params::new(64, 1, 1, None).unwrap();
    let argon = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, quick);
    argon.hash_password(password.as_bytes(), &salt).unwrap().to_string()
}

fn file() -> String {
    format!(
        r#"
[[user]]
name = "ada"
password_hash = "{}"
token_sha256 = "{}"
allow = ["r:/features", "rw:/scratch"]

[[user]]
name = "root"
token_sha256 = "{}"
admin = true
"#,
        hash_of("open sesame"),
        hex::encode(Sha256::digest("ada's token")),
        hex::encode(Sha256::digest("root's token")),
    )
}

fn auth() -> Auth {
    Auth::new(Some(file().parse().unwrap()), false, RealClock::shared())
}

fn office() -> Office {
    Office::new([7; 32], RealClock::shared())
}

fn headers(name: &'static str, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(
        http::HeaderName::from_static(name),
        HeaderValue::from_str(value).unwrap(),
    )])
}

fn by_token(auth: &Auth, token: &str) -> Result<Principal, Status> {
    auth.identify(&office(), &headers("authorization", &format!("Bearer {token}")), None)
}

fn path(text: &str) -> WirePath {
    WirePath::parse(text).unwrap()
}

#[test]
fn a_token_says_who_asks() {
    assert_eq!(by_token(&auth(), "ada's token").unwrap().name(), "ada");
    assert_eq!(by_token(&auth(), "root's token").unwrap().name(), "root");
    for wrong in ["", "ada", "Ada's token", "ada's token "] {
        let got = by_token(&auth(), wrong);
        assert!(
            wrong.ends_with(' ') || got.unwrap_err().code() == Code::Unauthenticated,
            "{wrong:?}"
        );
    }
    let nothing = auth().identify(&office(), &HeaderMap::new(), None).unwrap_err();
    assert_eq!(nothing.code(), Code::Unauthenticated);
}

#[test]
fn a_certificate_says_who_asks() {
    let known = |auth: &Auth, name: Option<&str>| {
        auth.identify(&office(), &HeaderMap::new(), name)
            .map(|p| p.name().to_owned())
    };
    assert_eq!(known(&auth(), Some("ada")).unwrap(), "ada");
    assert!(known(&auth(), Some("eve")).is_err());
    let only_certificates = Auth::new(None, true, RealClock::shared());
    assert_eq!(known(&only_certificates, Some("eve")).unwrap(), "eve");
    assert!(known(&only_certificates, None).is_err());
}

#[test]
fn without_users_everybody_may_do_all() {
    let open = Auth::new(None, false, RealClock::shared());
    let nobody = open.identify(&office(), &HeaderMap::new(), None).unwrap();
    assert_eq!(nobody.name(), "");
    assert!(nobody.may(Right::Write, &path("/x")).is_ok() && nobody.must_be_admin("x").is_ok());
}

#[test]
fn permissions_are_by_prefix_and_whole_names() {
    let ada = by_token(&auth(), "ada's token").unwrap();
    for (right, at, fine) in [
        (Right::Read, "/features", true),
        (Right::Read, "/features/day=1", true),
        (Right::Write, "/features/day=1", false),
        (Right::Read, "/features2", false),
        (Right::Read, "/", false),
        (Right::Write, "/scratch/x", true),
        (Right::Read, "/scratch/x", true),
        (Right::Read, "/secret", false),
    ] {
        assert_eq!(ada.may(right, &path(at)).is_ok(), fine, "{right:?} {at}");
    }
    assert_eq!(
        ada.may(Right::Read, &path("/secret")).unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(ada.must_be_admin("x").unwrap_err().code(), Code::PermissionDenied);
    let root = by_token(&auth(), "root's token").unwrap();
    assert!(root.may(Right::Write, &path("/secret")).is_ok() && root.must_be_admin("x").is_ok());
}

#[tokio::test]
async fn a_password_gives_a_token_until_it_changes() {
    let (auth, office) = (auth(), office());
    let token = auth.login(&office, "ada", "open sesame").await.unwrap();
    let bearer = headers("authorization", &format!("Bearer {token}"));
    assert_eq!(auth.identify(&office, &bearer, None).unwrap().name(), "ada");
    let older = headers("auth-token-bin", &BASE64.encode(&token));
    assert_eq!(auth.identify(&office, &older, None).unwrap().name(), "ada");
    let changed = file().replace(&hash_of("open sesame"), &hash_of("another"));
    let changed = Auth::new(Some(changed.parse().unwrap()), false, RealClock::shared());
    assert_eq!(
        changed.identify(&office, &bearer, None).unwrap_err().code(),
        Code::Unauthenticated
    );
    let other_key = Office::new([8; 32], RealClock::shared());
    assert!(auth.identify(&other_key, &bearer, None).is_err());
}

#[tokio::test]
async fn wrong_names_and_passwords_are_refused_alike() {
    let (auth, office) = (auth(), office());
    let long = "x".repeat(2000);
    let mut texts = std::collections::HashSet::new();
    for (name, password) in [
        ("ada", "wrong"),
        ("eve", "open sesame"),
        ("root", ""),
        ("", ""),
        ("ada", &long),
    ] {
        let refused = auth.login(&office, name, password).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        texts.insert(refused.message().to_owned());
    }
    assert_eq!(texts.len(), 1);
    assert!(auth.remembered.lock().is_empty());
}

#[tokio::test]
async fn basic_credentials_in_headers_are_understood() {
    let (auth, office) = (auth(), office());
    for encoded in [
        BASE64.encode("ada:open sesame"),
        base64::engine::general_purpose::STANDARD.encode("ada:open sesame"),
    ] {
        let basic = headers("authorization", &format!("Basic {encoded}"));
        assert!(auth.login_by_header(&office, &basic).await.unwrap().is_some());
        assert_eq!(auth.identify_page(&office, &basic, None).await.unwrap().name(), "ada");
    }
    assert!(
        auth.login_by_header(&office, &HeaderMap::new())
            .await
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_file_that_says_something_else_is_refused_with_the_reason() {
    for (text, reason) in [
        ("", "no user"),
        ("[[user]]\nname = \"\"", "no name"),
        ("[[user]]\nname = \"a\"\n[[user]]\nname = \"a\"", "two users"),
        ("[[user]]\nname = \"a\"\ncolour = 1", "colour"),
        ("[[user]]\nname = \"a\"\npassword_hash = \"$2b$12$x\"", "argon2id"),
        ("[[user]]\nname = \"a\"\ntoken_sha256 = \"abc\"", "64 hex"),
        ("[[user]]\nname = \"a\"\nallow = [\"x:/a\"]", "r, w and rw"),
        ("[[user]]\nname = \"a\"\nallow = [\"r:a\"]", "relative"),
    ] {
        let error = text.parse::<Users>().unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn nobodys_hash_is_one() {
    assert!(PasswordHash::new(NOBODYS_HASH).is_ok());
}
