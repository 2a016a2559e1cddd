//! The arithmetic behind tokens, done by `ring`, which TLS brings along anyway. `jsonwebtoken` has
//! the formats and leaves this part to whoever uses it.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{self as verification, UnparsedPublicKey, VerificationAlgorithm};
use ring::signature::{
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RsaEncoding, RsaKeyPair, RsaParameters,
    RsaPublicKeyComponents,
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(Signing::new(*algorithm, key)?)),
    verifier_factory: |algorithm, key| Ok(Box::new(Verifying::new(*algorithm, key)?)),
    // Only for thumbprints and for making JWKs of keys, which nobody here does.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes `jsonwebtoken` use this. Without it, it panics on the first token.
pub(super) fn install() {
    // An error says that it's installed already.
    let _ = PROVIDER.install_default();
}

/// One key with one algorithm, to verify.
struct Verifying {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Verifying {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self> {
        if algorithm.family() != key.family() {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        Ok(Verifying {
            algorithm,
            key: key.clone(),
        })
    }
}

impl JwtVerifier for Verifying {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Verifying {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let good = match (self.key.kind(), self.algorithm.family()) {
            (DecodingKeyKind::SecretOrDer(secret), AlgorithmFamily::Hmac) => {
                let algorithm = hmac_algorithm(self.algorithm).ok_or_else(Error::new)?;
                hmac::verify(&hmac::Key::new(algorithm, secret), message, signature)
            }
            (DecodingKeyKind::SecretOrDer(key), AlgorithmFamily::Rsa) => {
                let algorithm = rsa_algorithm(self.algorithm).ok_or_else(Error::new)?;
                UnparsedPublicKey::new(algorithm, key).verify(message, signature)
            }
            (DecodingKeyKind::RsaModulusExponent { n, e }, _) => {
                let algorithm = rsa_algorithm(self.algorithm).ok_or_else(Error::new)?;
                RsaPublicKeyComponents { n, e }.verify(algorithm, message, signature)
            }
            (DecodingKeyKind::SecretOrDer(key), _) => {
                let algorithm: &dyn VerificationAlgorithm = match self.algorithm {
                    Algorithm::ES256 => &verification::ECDSA_P256_SHA256_FIXED,
                    Algorithm::ES384 => &verification::ECDSA_P384_SHA384_FIXED,
                    Algorithm::EdDSA => &verification::ED25519,
                    _ => return Err(Error::new()),
                };
                UnparsedPublicKey::new(algorithm, key).verify(message, signature)
            }
        };
        good.map_err(|_| Error::new())
    }
}

fn hmac_algorithm(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn rsa_algorithm(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&verification::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&verification::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&verification::RSA_PKCS1_2048_8192_SHA512),
        _ => None,
    }
}

/// One key with one algorithm, to sign.
struct Signing {
    algorithm: Algorithm,
    key: SigningKey,
}

enum SigningKey {
    Hmac(hmac::Key),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signing {
    fn new(algorithm: Algorithm, key: &EncodingKey) -> Result<Self> {
        if algorithm.family() != key.family() {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        let bytes = key.as_bytes();
        let rsa = |encoding| {
            let pair = RsaKeyPair::from_der(bytes);
            pair.map(|pair| SigningKey::Rsa(pair, encoding))
                .map_err(|error| ErrorKind::InvalidRsaKey(error.to_string()))
        };
        let ecdsa = |curve: &'static EcdsaSigningAlgorithm| {
            EcdsaKeyPair::from_pkcs8(curve, bytes, &SystemRandom::new())
                .map(SigningKey::Ecdsa)
                .map_err(|_| ErrorKind::InvalidEcdsaKey)
        };
        let key = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => hmac_algorithm(algorithm)
                .map(|algorithm| SigningKey::Hmac(hmac::Key::new(algorithm, bytes)))
                .ok_or(ErrorKind::UnsupportedAlgorithm)?,
            Algorithm::RS256 => rsa(&verification::RSA_PKCS1_SHA256)?,
            Algorithm::RS384 => rsa(&verification::RSA_PKCS1_SHA384)?,
            Algorithm::RS512 => rsa(&verification::RSA_PKCS1_SHA512)?,
            Algorithm::ES256 => ecdsa(&verification::ECDSA_P256_SHA256_FIXED_SIGNING)?,
            Algorithm::ES384 => ecdsa(&verification::ECDSA_P384_SHA384_FIXED_SIGNING)?,
            // OpenSSL leaves the public half out of the file.
            Algorithm::EdDSA => Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes)
                .map(SigningKey::Ed25519)
                .map_err(|_| ErrorKind::InvalidEddsaKey)?,
            _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
        };
        Ok(Signing { algorithm, key })
    }
}

impl JwtSigner for Signing {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Signer<Vec<u8>> for Signing {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        let random = SystemRandom::new();
        match &self.key {
            SigningKey::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            SigningKey::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature)
                    .map(|()| signature)
                    .map_err(|_| Error::new())
            }
            SigningKey::Ecdsa(pair) => pair
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| Error::new()),
            SigningKey::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

/// Whether the key is one for this algorithm.
pub(super) fn can_sign(algorithm: Algorithm, key: &EncodingKey) -> bool {
    Signing::new(algorithm, key).is_ok()
}
