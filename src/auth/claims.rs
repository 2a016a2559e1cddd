//! What a token says, once its signature was found good: each claim read strictly, with a reason
//! that its maker can act on.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::AuthError;
use super::grants::Grants;
use super::identity::{USER_NAME_MAX, UserName};

/// The word in `rights` that makes a back end.
pub(super) const SERVER: &str = "server";

/// A token's payload. Each claim is kept as text at first, so that an error can name it; a claim
/// that stands twice is an error already.
#[derive(Deserialize)]
pub(super) struct RawClaims {
    sub: Option<Box<RawValue>>,
    name: Option<Box<RawValue>>,
    rooms: Option<Box<RawValue>>,
    exp: Option<Box<RawValue>>,
    nbf: Option<Box<RawValue>>,
    aud: Option<Box<RawValue>>,
    iss: Option<Box<RawValue>>,
    server: Option<Box<RawValue>>,
    rights: Option<Box<RawValue>>,
}

/// What a token must say.
pub(super) struct Expected<'a> {
    pub(super) audience: Option<&'a str>,
    pub(super) issuer: Option<&'a str>,
    /// How far the clock of the token's maker may be off.
    pub(super) leeway: Duration,
}

/// Who the token is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subject {
    User(UserName),
    Server(Option<UserName>),
}

/// What a token says.
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) subject: Subject,
    pub(super) name: Option<Box<str>>,
    pub(super) rooms: Grants,
    /// How long it still holds, with the leeway.
    pub(super) remaining: Duration,
}

/// One or several, as the audience is.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl RawClaims {
    /// Reads and checks all of them, at this time since the Unix epoch.
    pub(super) fn check(
        &self,
        expected: &Expected<'_>,
        now: Duration,
    ) -> Result<Claims, AuthError> {
        let exp = moment("exp", self.exp.as_deref())?
            .ok_or_else(|| AuthError::token("it has no exp; give it one, as a time in seconds"))?;
        let remaining = exp
            .saturating_add(expected.leeway)
            .checked_sub(now)
            .filter(|remaining| !remaining.is_zero())
            .ok_or(AuthError::Expired)?;
        let nbf = moment("nbf", self.nbf.as_deref())?;
        if nbf.is_some_and(|nbf| nbf > now.saturating_add(expected.leeway)) {
            return Err(AuthError::token("it is not valid yet, by its nbf"));
        }
        self.check_audience(expected.audience)?;
        let issuer: Option<String> = read("iss", "a text", self.iss.as_deref())?;
        if expected.issuer.is_some() && issuer.as_deref() != expected.issuer {
            return Err(AuthError::token(
                "it is from another issuer, or its iss is missing",
            ));
        }
        Ok(Claims {
            subject: self.subject()?,
            name: self.name()?,
            rooms: self.rooms()?,
            remaining,
        })
    }

    fn check_audience(&self, expected: Option<&str>) -> Result<(), AuthError> {
        let audience = read("aud", "a text or a list of texts", self.aud.as_deref())?;
        let names = match audience {
            None => Vec::new(),
            Some(OneOrMany::One(name)) => vec![name],
            Some(OneOrMany::Many(names)) => names,
        };
        match expected {
            // RFC 7519: who is not named in an audience must refuse.
            None if self.aud.is_some() => Err(AuthError::token(
                "it is for an audience, and this node was given none; see --audience",
            )),
            Some(own) if !names.iter().any(|name| name == own) => Err(AuthError::token(
                "it is for another audience, or its aud is missing",
            )),
            _ => Ok(()),
        }
    }

    fn subject(&self) -> Result<Subject, AuthError> {
        let server: Option<bool> = read(SERVER, "true or false", self.server.as_deref())?;
        let rights: Option<Vec<String>> =
            read("rights", "a list of texts", self.rights.as_deref())?;
        let rights = rights.unwrap_or_default();
        if rights.iter().any(|right| right != SERVER) {
            return Err(AuthError::token(
                "its rights are unknown; `server` is the only one",
            ));
        }
        let sub: Option<String> = read("sub", "a text", self.sub.as_deref())?;
        let user = sub
            .map(|sub| UserName::parse(&sub))
            .transpose()
            .map_err(|error| AuthError::token(format!("its sub is no user: {error}")))?;
        match user {
            user if server == Some(true) || !rights.is_empty() => Ok(Subject::Server(user)),
            Some(user) => Ok(Subject::User(user)),
            None => Err(AuthError::token(
                "it has no sub; give it the name of its user",
            )),
        }
    }

    fn name(&self) -> Result<Option<Box<str>>, AuthError> {
        let name: Option<Box<str>> = read("name", "a text", self.name.as_deref())?;
        if name.as_deref().is_some_and(|name| !may_be_shown(name)) {
            return Err(AuthError::token(format!(
                "its name has more than {USER_NAME_MAX} bytes or control characters"
            )));
        }
        Ok(name.filter(|name| !name.is_empty()))
    }

    fn rooms(&self) -> Result<Grants, AuthError> {
        let Some(rooms) = self.rooms.as_deref() else {
            return Ok(Grants::default());
        };
        serde_json::from_str(rooms.get()).map_err(|error| {
            AuthError::token(format!("its rooms can't be used: {}", plain(&error)))
        })
    }
}

/// Whether a name may be shown to others as it is.
pub(super) fn may_be_shown(name: &str) -> bool {
    name.len() <= USER_NAME_MAX && !name.chars().any(char::is_control)
}

/// An error's text without its position, which is that in a part of the payload.
pub(super) fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text
        .rsplit_once(" at line ")
        .map_or(&*text, |(what, _)| what);
    text.chars().take(100).collect()
}

fn read<T: DeserializeOwned>(
    claim: &str,
    what: &str,
    value: Option<&RawValue>,
) -> Result<Option<T>, AuthError> {
    let parsed = value.map(|value| serde_json::from_str(value.get()));
    parsed
        .transpose()
        .map_err(|_| AuthError::token(format!("its {claim} is not {what}")))
}

/// A time in seconds since the Unix epoch, fractions allowed.
fn moment(claim: &str, value: Option<&RawValue>) -> Result<Option<Duration>, AuthError> {
    let Some(value) = value else {
        return Ok(None);
    };
    let text = value.get();
    let whole = text.parse::<u64>().map(Duration::from_secs).ok();
    // Of what JSON can say, only a number parses.
    let moment = whole.or_else(|| Duration::try_from_secs_f64(text.parse().ok()?).ok());
    moment
        .map(Some)
        .ok_or_else(|| AuthError::token(format!("its {claim} is not a number of seconds")))
}
