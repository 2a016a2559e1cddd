//! Tokens: the signature is checked with a key of ours, then what is said.

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Header, Validation, decode, decode_header};

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
    let header = decode_header(token).map_err(|error| why(&error))?;
    // RFC 7515: an extension that must be understood, and is not.
    if header.crit.is_some() {
        let why = "its header has crit, and no extension is known here";
        return Err(AuthError::token(why));
    }
    Ok(header)
}

/// The claims of a token that this key signed.
pub(super) fn verify(token: &str, header: &Header, key: &Key) -> Result<RawClaims, AuthError> {
    if !key.algorithms.contains(&header.alg) {
        let why = format!("its algorithm, {:?}, is not the key's", header.alg);
        return Err(AuthError::token(why));
    }
    let mut validation = Validation::default();
    validation.algorithms.clone_from(&key.algorithms);
    // The claims are read by our own, stricter rules.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    decode::<RawClaims>(token, &key.decoding, &validation)
        .map(|data| data.claims)
        .map_err(|error| why(&error))
}

fn why(error: &Error) -> AuthError {
    AuthError::token(match error.kind() {
        ErrorKind::InvalidSignature => "its signature is not by the key",
        ErrorKind::InvalidToken => "it is not three parts with dots between",
        ErrorKind::Base64(_) => "it is not base64url",
        ErrorKind::Utf8(_) => "it is not UTF-8",
        ErrorKind::Json(error) if error.to_string().starts_with("unknown variant") => {
            "its algorithm is none that is taken here"
        }
        ErrorKind::Json(error) => {
            return AuthError::token(format_args!("its JSON can't be used: {}", plain(error)));
        }
        _ => "it can't be checked with the key",
    })
}
