//! Tokens: the signature is checked with a key of ours, then what is said can be read.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Header, crypto, decode_header};

use super::AuthError;
use super::claims::{RawClaims, plain};
use super::key::Key;

/// Longest token, in bytes. Servers in front of us take no longer header, and what it takes to
/// check one must stay small.
pub(super) const TOKEN_MAX: usize = 8 * 1024;

/// A token's header, which nobody has signed for yet: good to look a key up by its `kid`, no more.
/// Keys and addresses of keys in it are not looked at.
pub(super) fn header(token: &str) -> Result<Header, AuthError> {
    if token.len() > TOKEN_MAX {
        return Err(AuthError::token("it has more than 8 KiB"));
    }
    let header = decode_header(token).map_err(|error| refused(&error))?;
    // RFC 7515: an extension that must be understood, and is not.
    if header.crit.is_some() {
        let why = "its header has crit, and no extension is known here";
        return Err(AuthError::token(why));
    }
    Ok(header)
}

/// The claims of a token that this key signed. `jsonwebtoken` would read them, too, but by looser
/// rules: to it, an audience that is asked for may be missing, and so may an `exp` that is null.
pub(super) fn verify(token: &str, header: &Header, key: &Key) -> Result<RawClaims, AuthError> {
    if !key.algorithms.contains(&header.alg) {
        let algorithm = header.alg;
        return Err(AuthError::token(format_args!(
            "its algorithm, {algorithm:?}, is not the key's"
        )));
    }
    let shape = || AuthError::token("it is not three parts with dots between");
    let (message, signature) = token.rsplit_once('.').ok_or_else(shape)?;
    let (_, payload) = message.rsplit_once('.').ok_or_else(shape)?;
    let good = crypto::verify(signature, message.as_bytes(), &key.decoding, header.alg);
    if !good.map_err(|error| refused(&error))? {
        return Err(AuthError::token("its signature is not by the key"));
    }
    let payload = URL_SAFE_NO_PAD.decode(payload);
    let payload = payload.map_err(|_| AuthError::token("it is not base64url"))?;
    // To serde, a list is good enough for a struct.
    if payload.trim_ascii_start().first() != Some(&b'{') {
        return Err(AuthError::token("its payload is no JSON object"));
    }
    serde_json::from_slice(&payload).map_err(|error| unusable(&error))
}

fn refused(error: &Error) -> AuthError {
    AuthError::token(match error.kind() {
        ErrorKind::InvalidToken => "it is not three parts with dots between",
        ErrorKind::Base64(_) => "it is not base64url",
        ErrorKind::Json(error) if error.to_string().starts_with("unknown variant") => {
            "its algorithm is none that is taken here"
        }
        ErrorKind::Json(error) => return unusable(error),
        _ => "it can't be checked with the key",
    })
}

fn unusable(error: &serde_json::Error) -> AuthError {
    AuthError::token(format_args!("its JSON can't be used: {}", plain(error)))
}
