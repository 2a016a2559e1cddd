//! One key that tokens are checked with, and the algorithms it may be used for. Those come from the
//! key alone: a token that could choose would choose to be signed with the public key as a secret.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Shortest secret, in bytes: as many as the shortest digest has, as RFC 7518 wants.
pub const SECRET_MIN: usize = 32;

/// Shortest RSA modulus, in bytes. `ring` takes no shorter one.
const RSA_MIN: usize = 2048 / 8;

const HMAC: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: [Algorithm; 3] = [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512];

/// Why a key can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Could be guessed.
    #[error(
        "the secret has only {0} bytes, which can be guessed; write at least {SECRET_MIN}, as `openssl rand -hex 32` makes them"
    )]
    ShortSecret(usize),
    /// The wrong half.
    #[error(
        "this is a private key; write its public half, as `openssl pkey -in FILE -pubout` makes it"
    )]
    Private,
    /// A public key where the other half is needed.
    #[error("this is no private key; write one in PEM form that starts with BEGIN PRIVATE KEY")]
    Public,
    /// A certificate.
    #[error(
        "this is a certificate; write its public key, as `openssl x509 -in FILE -noout -pubkey` makes it"
    )]
    Certificate,
    /// Not a key at all.
    #[error(
        "this is no key that can be used; write an RSA, P-256, P-384 or Ed25519 key in PEM form that starts with BEGIN PUBLIC KEY"
    )]
    Unusable,
    /// Could be factored.
    #[error("the RSA key is too short; use one with 2048 bits or more")]
    ShortRsa,
    /// A secret among public keys.
    #[error("a shared secret has no place in a JWKS; write it to --jwt-secret")]
    Symmetric,
    /// A key for something else.
    #[error("it is not for signatures with RS256, RS384, RS512, ES256, ES384 or EdDSA")]
    Other,
}

/// A key to check tokens with.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) decoding: DecodingKey,
    /// All of one family.
    pub(super) algorithms: Vec<Algorithm>,
}

impl Key {
    /// A secret shared with whoever makes the tokens.
    pub(super) fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < SECRET_MIN {
            return Err(KeyError::ShortSecret(secret.len()));
        }
        Ok(Key {
            decoding: DecodingKey::from_secret(secret),
            algorithms: HMAC.to_vec(),
        })
    }

    /// A public key in PEM form.
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(pem).map_err(|_| KeyError::Unusable)?;
        if text.contains("PRIVATE KEY-----") {
            return Err(KeyError::Private);
        }
        if text.contains("BEGIN CERTIFICATE-----") {
            return Err(KeyError::Certificate);
        }
        let decoding = DecodingKey::from_rsa_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_ed_pem(pem))
            .map_err(|_| KeyError::Unusable)?;
        let bytes = decoding
            .try_get_as_bytes()
            .map_err(|_| KeyError::Unusable)?;
        let algorithms = match decoding.family() {
            // The modulus and a few bytes around it.
            AlgorithmFamily::Rsa if bytes.len() < RSA_MIN => return Err(KeyError::ShortRsa),
            AlgorithmFamily::Rsa => RSA.to_vec(),
            AlgorithmFamily::Ec => vec![curve(bytes).ok_or(KeyError::Unusable)?],
            AlgorithmFamily::Ed if bytes.len() == 32 => vec![Algorithm::EdDSA],
            _ => return Err(KeyError::Unusable),
        };
        Ok(Key {
            decoding,
            algorithms,
        })
    }

    /// A public key of a JWKS; its `alg`, if it has one, is the only algorithm.
    pub(super) fn from_jwk(jwk: &Jwk) -> Result<Self, KeyError> {
        let purpose = jwk.common.public_key_use.as_ref();
        if purpose.is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
            return Err(KeyError::Other);
        }
        let possible = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA.to_vec(),
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return Err(KeyError::Other),
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                vec![Algorithm::EdDSA]
            }
            AlgorithmParameters::OctetKey(_) => return Err(KeyError::Symmetric),
            _ => return Err(KeyError::Other),
        };
        let algorithms: Vec<Algorithm> = match jwk.common.key_algorithm {
            None => possible,
            Some(own) => possible
                .into_iter()
                .filter(|algorithm| KeyAlgorithm::from(*algorithm) == own)
                .collect(),
        };
        if algorithms.is_empty() {
            return Err(KeyError::Other);
        }
        let decoding = match &jwk.algorithm {
            AlgorithmParameters::RSA(key) => {
                let number = |text: &str| {
                    let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
                    // Some write the sign byte of DER, which ring does not take.
                    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                    bytes[zeros..].to_vec()
                };
                let (n, e) = (number(&key.n), number(&key.e));
                if n.len() < RSA_MIN {
                    return Err(KeyError::ShortRsa);
                }
                DecodingKey::from_rsa_raw_components(&n, &e)
            }
            _ => DecodingKey::from_jwk(jwk).map_err(|_| KeyError::Unusable)?,
        };
        let fits = match decoding.kind() {
            DecodingKeyKind::RsaModulusExponent { e, .. } => !e.is_empty(),
            DecodingKeyKind::SecretOrDer(bytes) if algorithms == [Algorithm::EdDSA] => {
                bytes.len() == 32
            }
            DecodingKeyKind::SecretOrDer(bytes) => {
                curve(bytes).is_some_and(|algorithm| algorithms == [algorithm])
            }
        };
        if !fits {
            return Err(KeyError::Unusable);
        }
        Ok(Key {
            decoding,
            algorithms,
        })
    }
}

/// The algorithm of an uncompressed point, by its length.
fn curve(point: &[u8]) -> Option<Algorithm> {
    match (point.first(), point.len()) {
        (Some(4), 65) => Some(Algorithm::ES256),
        (Some(4), 97) => Some(Algorithm::ES384),
        _ => None,
    }
}

/// A private key in PEM form, and the algorithm to sign with.
pub(super) fn private_key(pem: &[u8]) -> Result<(EncodingKey, Algorithm), KeyError> {
    let text = std::str::from_utf8(pem).map_err(|_| KeyError::Public)?;
    if !text.contains("PRIVATE KEY-----") {
        return Err(KeyError::Public);
    }
    // The curve stands in the file only as an object's name; the one that ring can read is it.
    let ec = EncodingKey::from_ec_pem(pem).ok().and_then(|key| {
        let curve = [Algorithm::ES256, Algorithm::ES384];
        let algorithm = curve
            .into_iter()
            .find(|algorithm| super::crypto::can_sign(*algorithm, &key))?;
        Some((key, algorithm))
    });
    ec.or_else(|| Some((EncodingKey::from_ed_pem(pem).ok()?, Algorithm::EdDSA)))
        .or_else(|| Some((EncodingKey::from_rsa_pem(pem).ok()?, Algorithm::RS256)))
        .ok_or(KeyError::Unusable)
}
