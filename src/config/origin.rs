//! Finds each setting's text: the flag, else the environment, else the file, else the default.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::table::{Kind, PREFIX, SETTINGS, Setting, nearest, setting};

/// Where a setting's text came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The command line.
    Flag,
    /// An environment variable.
    Environment,
    /// The file.
    File(PathBuf),
}

/// One setting, as it came.
#[derive(Debug, Clone)]
pub struct Found {
    /// Which.
    pub setting: &'static Setting,
    /// Its text.
    pub text: String,
    /// Where from.
    pub origin: Origin,
}

impl Found {
    /// Whether somebody asked for it.
    pub fn given(&self) -> bool {
        self.origin != Origin::Default
    }

    /// One line about what is wrong with it, as its author wrote it.
    pub fn complaint(&self, what: &str) -> String {
        let name = self.setting.name;
        let text = self.setting.printable(&self.text);
        match &self.origin {
            Origin::Default | Origin::Flag => format!("--{name} {text:?} {what}"),
            Origin::Environment => format!("{}={text:?} {what}", self.setting.variable()),
            Origin::File(path) => format!("{}: {name} = {text:?} {what}", path.display()),
        }
    }
}

impl fmt::Display for Found {
    /// A line of TOML, with the origin behind it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.setting.printable(&self.text);
        let value = match self.setting.kind {
            Kind::Switch | Kind::Count(_) => text,
            _ => toml::Value::String(text).to_string(),
        };
        let line = format!("{} = {value}", self.setting.name);
        write!(f, "{line:<48} # ")?;
        match &self.origin {
            Origin::Default => f.write_str("default"),
            Origin::Flag => write!(f, "flag --{}", self.setting.name),
            Origin::Environment => write!(f, "environment {}", self.setting.variable()),
            Origin::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// What settings are looked up in.
pub struct Sources<'a> {
    /// The command line, by flag name.
    pub flags: &'a dyn Fn(&str) -> Option<String>,
    /// The environment, by variable.
    pub environment: &'a dyn Fn(&str) -> Option<OsString>,
    /// The names of all its variables.
    pub variables: &'a dyn Fn() -> Vec<OsString>,
    /// The file.
    pub file: Option<&'a Path>,
}

impl Sources<'_> {
    /// Every setting's text, in the table's order, and what is wrong with the sources themselves.
    pub fn read(&self) -> (Vec<Found>, Vec<String>) {
        let mut errors = Vec::new();
        let file = self
            .file
            .map(|path| read_file(path, &mut errors))
            .unwrap_or_default();
        let found = SETTINGS
            .iter()
            .map(|setting| {
                let (text, origin) = if let Some(text) = (self.flags)(setting.name) {
                    (text, Origin::Flag)
                } else if let Some(text) = self.variable(setting, &mut errors) {
                    (text, Origin::Environment)
                } else if let Some((_, text)) = file.iter().find(|(name, _)| *name == setting.name)
                {
                    let path = self.file.unwrap_or(Path::new("")).to_owned();
                    (text.clone(), Origin::File(path))
                } else {
                    (self.default(setting), Origin::Default)
                };
                Found {
                    setting,
                    text,
                    origin,
                }
            })
            .collect();
        (found, errors)
    }

    /// A line for each variable of ours that nobody reads, as it's most likely a setting's name
    /// misspelt.
    pub fn unknown_variables(&self) -> Vec<String> {
        let is_set = |name: &str| (self.environment)(name).is_some_and(|text| !text.is_empty());
        let mut lines: Vec<String> = (self.variables)()
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .filter(|name| is_unknown(name) && is_set(name))
            .map(|name| match nearest_variable(&name) {
                Some(near) => format!("{name} is no setting; did you mean {near}?"),
                None => format!(
                    "{name} is no setting; leave it out, `tailcast config` prints all there are"
                ),
            })
            .collect();
        lines.sort();
        lines
    }

    /// A variable's text. An empty one counts as not set, as compose files can't leave one out.
    fn variable(&self, setting: &Setting, errors: &mut Vec<String>) -> Option<String> {
        let name = setting.variable();
        match (self.environment)(&name)?.into_string() {
            Ok(text) if text.is_empty() => None,
            Ok(text) => Some(text),
            Err(_) => {
                errors.push(format!(
                    "{name} is not UTF-8; write it in UTF-8 or unset it"
                ));
                None
            }
        }
    }

    fn default(&self, setting: &Setting) -> String {
        if setting.name == "data-dir" {
            // The base directory specification has relative paths ignored.
            let base = (self.environment)("XDG_DATA_HOME")
                .and_then(|base| base.into_string().ok())
                .filter(|base| base.starts_with('/'));
            if let Some(base) = base {
                return format!("{}/tailcast", base.trim_end_matches('/'));
            }
        }
        setting.default.to_owned()
    }
}

/// What the commands read beside settings.
const OTHER_VARIABLES: [&str; 2] = ["TAILCAST_CONFIG", "TAILCAST_TOKEN"];

/// Whether a variable is named like one of ours and isn't.
fn is_unknown(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return false;
    };
    // Kubernetes gives them to every container beside a service that is called tailcast.
    let is_of_service = rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_");
    let is_setting = SETTINGS.iter().any(|setting| setting.variable() == name);
    !is_setting && !is_of_service && !OTHER_VARIABLES.contains(&name)
}

/// The variable that was most likely meant.
fn nearest_variable(name: &str) -> Option<String> {
    let near = nearest(name.strip_prefix(PREFIX)?)?;
    Some(setting(near)?.variable())
}

/// The settings a file gives.
fn read_file(path: &Path, errors: &mut Vec<String>) -> Vec<(&'static str, String)> {
    let shown = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            errors.push(format!(
                "{shown}: {error}; point --config to a file that can be read"
            ));
            return Vec::new();
        }
    };
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            let line = error
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(1, |before| before.matches('\n').count() + 1);
            let what = error.message().replace('\n', ", ");
            errors.push(format!("{shown}: line {line} is not TOML: {what}; write lines such as listen = \"127.0.0.1:8080\""));
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for (key, value) in table {
        let Some(setting) = setting(&key) else {
            errors.push(match nearest(&key) {
                Some(near) => format!("{shown}: unknown key {key}; did you mean {near}?"),
                None => format!(
                    "{shown}: unknown key {key}; leave it out, `tailcast config` prints all there are"
                ),
            });
            continue;
        };
        match plain(&value, setting.kind) {
            Some(text) => found.push((setting.name, text)),
            None => errors.push(format!(
                "{shown}: {key} is a TOML {}; write {key} = {}",
                value.type_str(),
                example(setting)
            )),
        }
    }
    found
}

/// A TOML value as the flag's text.
fn plain(value: &toml::Value, kind: Kind) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(on) => Some(on.to_string()),
        toml::Value::Array(items) if matches!(kind, Kind::List(_)) => {
            let items: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            items.map(|items| items.join(","))
        }
        _ => None,
    }
}

fn example(setting: &Setting) -> String {
    match setting.kind {
        Kind::Switch | Kind::Count(_) => setting.default.to_owned(),
        _ => format!("{:?}", setting.default),
    }
}
