//! `tailcast token`: makes a token, as a login service would for one of its users.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::auth::mint::{NewToken, SigningKey};
use crate::auth::{Grants, Role, RoomPattern, UserName};
use crate::config::auth::TokenSettings;
use crate::config::value;

/// `tailcast token`.
#[derive(Debug, Clone, clap::Args)]
pub struct TokenArgs {
    /// Whose it is
    #[arg(long, value_parser = UserName::parse, required_unless_present = "server")]
    pub user: Option<UserName>,

    /// Their name as others see it
    #[arg(long, requires = "user")]
    pub name: Option<String>,

    /// A role in the rooms of a pattern, as in live-42=host or 'lobby-*=viewer'; may be given several times
    #[arg(long, value_name = "PATTERN=ROLE", value_parser = grant)]
    pub room: Vec<(RoomPattern, Role)>,

    /// How long it holds
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = ttl)]
    pub ttl: Duration,

    /// For a back end, which may do anything
    #[arg(long)]
    pub server: bool,

    /// Sign with this private key (PEM: RSA, P-256, P-384 or Ed25519) instead of the secret
    #[arg(long, value_name = "FILE")]
    pub jwt_private_key: Option<PathBuf>,

    /// Name the key of a JWKS that it's signed with
    #[arg(long)]
    pub kid: Option<String>,
}

fn grant(text: &str) -> Result<(RoomPattern, Role), String> {
    let grants: Grants = text
        .parse()
        .map_err(|error: crate::auth::grants::GrantsError| error.to_string())?;
    let mut all = grants.iter();
    match (all.next(), all.next()) {
        (Some((pattern, role)), None) => Ok((pattern.clone(), role)),
        _ => Err("write one PATTERN=ROLE, and --room again for another".to_owned()),
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    let time = value::time(text)?;
    match time < Duration::from_secs(1) {
        true => Err("is too short; write 1s or more".to_owned()),
        false => Ok(time),
    }
}

/// Prints the token, alone on its line.
pub fn run(args: TokenArgs, settings: TokenSettings) -> Result<()> {
    let key = match (&args.jwt_private_key, &settings.secret) {
        (Some(path), _) => {
            let shown = path.display();
            let pem = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
            SigningKey::from_pem(&pem).with_context(|| format!("cannot use {shown}"))?
        }
        (None, Some(secret)) => SigningKey::from_secret(secret)?,
        (None, None) => bail!(
            "there is nothing to sign with: give the node's secret as --jwt-secret, TAILCAST_JWT_SECRET \
             or jwt-secret in the file of --config, or a private key as --jwt-private-key"
        ),
    };
    let token = NewToken {
        user: args.user,
        name: args.name,
        rooms: Grants::new(args.room)?,
        server: args.server,
        audience: settings.audience,
        issuer: settings.issuer,
        kid: args.kid,
    };
    let text = token.sign(&key, SystemTime::now(), args.ttl)?;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
