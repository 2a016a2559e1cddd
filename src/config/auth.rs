//! Reads the settings of who may come in: secrets, keys, roles and grants, and what of them does not
//! go together.

use std::collections::BTreeSet;
use std::fs;

use super::value;
use super::{Config, ConfigErrors, Reader, Sources};
use crate::auth::key::SECRET_MIN;
use crate::auth::{API_KEY_MIN, Grants, Mode, Roles, Secret, UserName};

/// What shows instead of a secret.
const MASK: &str = "***";

/// Who may come in without a token where `--accounts` alone says how people come in: anybody, to read.
pub(super) const READERS: &str = "*=viewer";

/// Settings that only mean something with `--auth jwt`; the last one with `--auth cookie` as well.
const OF_JWT: [&str; 6] = [
    "jwt-secret",
    "jwt-public-key",
    "jwks",
    "audience",
    "issuer",
    "anonymous-role",
];

/// What `tailcast token` needs to know of the settings.
#[derive(Debug, Clone, Default)]
pub struct TokenSettings {
    /// The secret to sign with.
    pub secret: Option<Secret>,
    /// Whom tokens are for.
    pub audience: Option<String>,
    /// Who makes them.
    pub issuer: Option<String>,
}

/// Reads only these, so that a token can be made where no node could run.
pub fn load_for_token(sources: &Sources<'_>) -> Result<TokenSettings, ConfigErrors> {
    let (found, errors) = sources.read();
    let mut reader = Reader {
        found: &found,
        errors,
    };
    let settings = TokenSettings {
        secret: reader.read("jwt-secret", |text, _| secret(text)),
        audience: reader.read("audience", |text, _| optional(text)),
        issuer: reader.read("issuer", |text, _| optional(text)),
    };
    match reader.errors.is_empty() {
        true => Ok(settings),
        false => Err(ConfigErrors(reader.errors)),
    }
}

/// Nothing for an empty text.
pub(super) fn optional(text: &str) -> Result<Option<String>, String> {
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

/// A secret, or `@` and a file with one; the newline at the file's end is not part of it.
pub(super) fn secret(text: &str) -> Result<Option<Secret>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let secret = match text.strip_prefix('@') {
        None => Secret::from(text),
        Some(path) => {
            let bytes = fs::read(path);
            let mut bytes = bytes.map_err(|error| format!("can't be read: {error}"))?;
            for end in *b"\n\r" {
                if bytes.last() == Some(&end) {
                    bytes.pop();
                }
            }
            Secret::new(bytes)
        }
    };
    match secret.expose().len() {
        short if short < SECRET_MIN => Err(format!(
            "has only {short} bytes, which can be guessed; write at least {SECRET_MIN}, as `openssl rand -hex 32` makes them"
        )),
        _ => Ok(Some(secret)),
    }
}

/// A secret as it may be printed; the name of its file is none.
pub(super) fn mask_secret(text: &str) -> String {
    match text {
        "" => String::new(),
        text if text.starts_with('@') => text.to_owned(),
        _ => MASK.to_owned(),
    }
}

/// A file or an address of a JWKS.
pub(super) fn jwks(text: &str) -> Result<Option<String>, String> {
    let http = text.starts_with("https://") || text.starts_with("http://");
    if !http && text.contains("://") {
        return Err("is no address of a JWKS; write one with https://, or a file".to_owned());
    }
    optional(text)
}

/// A name as cookies may have.
pub(super) fn cookie_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte);
    if text.is_empty() || !text.bytes().all(plain) {
        return Err("is no cookie's name; write one, as in token".to_owned());
    }
    Ok(text.to_owned())
}

/// API keys as `NAME:KEY`.
pub(super) fn api_keys(text: &str) -> Result<Vec<(String, Secret)>, String> {
    const HOW: &str =
        "write each as NAME:KEY, as in billing:…, with a key from `openssl rand -hex 16`";
    let mut names = BTreeSet::new();
    let mut values = BTreeSet::new();
    let keys = value::list(text).map(|part| {
        let (name, key) = part
            .split_once(':')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| format!("has a key without a name; {HOW}"))?;
        if key.len() < API_KEY_MIN {
            return Err(format!(
                "has a key for {name} that is shorter than {API_KEY_MIN} bytes; {HOW}"
            ));
        }
        if !names.insert(name) || !values.insert(key) {
            return Err(format!(
                "has the name or the key of {name} twice; leave one out"
            ));
        }
        Ok((name.to_owned(), Secret::from(key)))
    });
    keys.collect()
}

/// API keys as they may be printed.
pub(super) fn mask_api_keys(text: &str) -> String {
    let names = value::list(text).map(|part| match part.split_once(':') {
        Some((name, _)) => format!("{name}:{MASK}"),
        None => MASK.to_owned(),
    });
    names.collect::<Vec<_>>().join(",")
}

/// What roles may, where it is not the default.
pub(super) fn roles(text: &str) -> Result<Roles, String> {
    const HOW: &str = "write each as ROLE=RIGHT+RIGHT, as in viewer=subscribe+history";
    let mut roles = Roles::default();
    let mut seen = BTreeSet::new();
    for part in value::list(text) {
        let (role, rights) = part
            .split_once('=')
            .ok_or_else(|| format!("has {part}; {HOW}"))?;
        let role = role
            .trim()
            .parse()
            .map_err(|error| format!("is wrong: {error}"))?;
        let rights = rights.trim().parse();
        roles.set(role, rights.map_err(|error| format!("is wrong: {error}"))?);
        if !seen.insert(role) {
            return Err(format!("has {role} twice; leave one out"));
        }
    }
    Ok(roles)
}

/// Roles by room pattern.
pub(super) fn grants(text: &str) -> Result<Grants, String> {
    text.parse().map_err(|error| format!("is wrong: {error}"))
}

/// The settings that name an address by which other machines can come in.
pub(crate) fn public_listeners(config: &Config) -> impl Iterator<Item = &'static str> {
    let reachable = |address: &std::net::SocketAddr| !address.ip().to_canonical().is_loopback();
    let listeners = [
        ("listen", &config.listen),
        ("stomp-listen", &config.stomp_listen),
    ];
    let open = listeners.map(|(name, addresses)| addresses.iter().any(reachable).then_some(name));
    open.into_iter().flatten()
}

/// User names.
pub(super) fn users(text: &str) -> Result<Vec<UserName>, String> {
    let users = value::list(text).map(UserName::parse);
    let users: Result<_, _> = users.collect();
    users.map_err(|error| format!("is wrong: {error}"))
}

/// What does not go together: the setting to blame, and why.
pub(super) fn together(
    config: &Config,
    given: impl Fn(&str) -> bool,
) -> Vec<(&'static str, &'static str)> {
    let keys = [
        ("jwt-secret", config.jwt_secret.is_some()),
        ("jwt-public-key", config.jwt_public_key.is_some()),
        ("jwks", config.jwks.is_some()),
    ];
    let mut keys = keys.into_iter().filter(|(_, there)| *there);
    let (first, second) = (keys.next(), keys.next());
    let mut wrong = Vec::new();
    if config.accounts {
        const BOTH: &str = "needs --auth jwt with --jwt-secret, as nodes make the tokens; write both, or neither, and nodes share a secret of their own";
        // With neither, nodes find a secret in Redis.
        let is_alone = !given("auth") && first.is_none();
        if config.jwt_secret.is_none() && !is_alone || config.auth != Mode::Jwt {
            wrong.push(("accounts", BOTH));
            return wrong;
        }
        if is_alone {
            return wrong;
        }
    } else if !config.account_hosts.is_empty() {
        wrong.push((
            "account-host",
            "is of no use without --accounts; write that, too, or leave it out",
        ));
    }
    match config.auth {
        Mode::Jwt => {
            if first.is_none() {
                wrong.push((
                    "auth",
                    "needs a key to check tokens with; write one of --jwt-secret, --jwt-public-key and --jwks",
                ));
            }
            if let Some((name, _)) = second {
                wrong.push((
                    name,
                    "is a second key to check tokens with; write only one of --jwt-secret, --jwt-public-key and --jwks",
                ));
            }
        }
        Mode::None | Mode::Cookie => {
            // Whoever has written one of these believes that tokens are checked.
            let by_cookie = config.auth == Mode::Cookie;
            let means_something = |name: &str| by_cookie && name == "anonymous-role";
            let unused = OF_JWT
                .into_iter()
                .filter(|name| given(name) && !means_something(name));
            wrong.extend(unused.map(|name| {
                (
                    name,
                    "is of no use while nobody is checked; write --auth jwt, or leave it out",
                )
            }));
            let why = match by_cookie {
                false => {
                    "lets others in, and nobody is checked: write --auth jwt and a key, or --insecure if anybody may do anything"
                }
                true => {
                    "lets others in, and a cookie is believed whatever it says: write --auth jwt and a key, or --insecure if only a proxy gets here that sets the cookie itself"
                }
            };
            let open = public_listeners(config).filter(|_| !config.insecure);
            wrong.extend(open.map(|name| (name, why)));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_keys_and_their_masks() {
        let keys = api_keys("a:0123456789abcdef, b:with:colons:in:it").expect("keys");
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[1].1.expose(), b"with:colons:in:it");
        assert_eq!(mask_api_keys("a:hush, b:hu:sh,hush"), "a:***,b:***,***");
        for bad in [
            "0123456789abcdef",
            ":0123456789abcdef",
            "a:0123456789abcde",
            "a:0123456789abcdef,a:fedcba9876543210",
            "a:0123456789abcdef,b:0123456789abcdef",
        ] {
            let error = api_keys(bad).expect_err("refused");
            assert!(!error.contains("0123456789"), "{error}");
        }
    }

    #[test]
    fn secrets_from_files() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("secret");
        let text = format!("@{}", path.display());
        assert!(secret(&text).is_err());
        let check = |written: &str, want: Option<&str>| {
            fs::write(&path, written).expect("written");
            let read = secret(&text).ok().flatten();
            assert_eq!(read, want.map(Secret::from), "{written:?}");
        };
        let long = "0123456789abcdef0123456789abcdef";
        check(long, Some(long));
        check(&format!("{long}\n"), Some(long));
        check(&format!("{long}\r\n"), Some(long));
        check(&format!("{long} \n"), Some(&format!("{long} ")));
        check("short\n", None);
        assert_eq!(mask_secret(&text), text);
        assert_eq!(
            (mask_secret("hush"), mask_secret("")),
            ("***".into(), "".into())
        );
    }

    #[test]
    fn role_bundles() {
        use crate::auth::{Rights, Role};
        let read = roles("viewer=none, member=subscribe+publish").expect("roles");
        assert_eq!(read.rights(Role::Viewer), Rights::NONE);
        assert_eq!(read.rights(Role::Member).to_string(), "subscribe+publish");
        assert_eq!(read.rights(Role::Host), Rights::ALL);
        for bad in [
            "viewer",
            "king=publish",
            "viewer=see",
            "viewer=none,viewer=none",
        ] {
            assert!(roles(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cookie_names() {
        for (name, good) in [
            ("token", true),
            ("__Host-token", true),
            ("", false),
            ("a b", false),
            ("a=b", false),
            ("a;b", false),
        ] {
            assert_eq!(cookie_name(name).is_ok(), good, "{name}");
        }
    }
}
