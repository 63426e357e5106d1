//! Arguments and environment variables → [`Arguments`].
//!
//! As in Traefik, flags are written in any case, with `=` or a space. Traefik's own flags are recognised, so that they can
//! be named as ignored.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PathBufValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches};

use super::plugin::{self, Asked};
use crate::plugin::COMPILE;

/// The sections of Traefik's install configuration: what its flags and variables begin with.
const TRAEFIK_SECTIONS: [&str; 17] = [
    "accesslog",
    "api",
    "certificatesresolvers",
    "core",
    "entrypoints",
    "experimental",
    "global",
    "hostresolver",
    "log",
    "metrics",
    "ocsp",
    "ping",
    "providers",
    "serverstransport",
    "spiffe",
    "tcpserverstransport",
    "tracing",
];

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Arguments {
    pub command: Command,
    /// As named with `--configFile`.
    pub config_file: Option<PathBuf>,
    /// Flags and variables of Traefik's that no file is looked up for.
    pub ignored: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Serve,
    Check,
    Plugins,
    Plugin(Asked),
    /// A component from the standard input into this file. For the proxy itself.
    Compile(PathBuf),
    Version,
}

/// Why there are no arguments to act on.
#[derive(Debug, PartialEq, Eq)]
pub enum Unusable {
    /// They ask for help, which is this text.
    Help(String),
    /// They are wrong, as this text says.
    Wrong(String),
}

impl Arguments {
    /// `arguments` without the program's name; `variables` are those of the environment.
    ///
    /// # Errors
    ///
    /// [`Unusable`], with a text for the terminal.
    pub fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Unusable> {
        let (ours, mut ignored) = separate(arguments);
        let matches = grammar().try_get_matches_from(ours).map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Unusable::Help(error.to_string())
            }
            _ => Unusable::Wrong(error.to_string()),
        })?;
        let traefiks = variables.into_iter().filter_map(|(name, _)| name.into_string().ok());
        let mut traefiks: Vec<String> = traefiks.filter(|name| is_traefik_variable(name)).collect();
        traefiks.sort();
        ignored.extend(traefiks.into_iter().map(|name| format!("the variable {name}")));
        let (command, below) = match matches.subcommand() {
            Some(("check", below)) => (Command::Check, Some(below)),
            Some(("plugin", below)) => (plugin::asked(below).map_or(Command::Serve, Command::Plugin), None),
            Some((COMPILE, below)) => (into(below).map_or(Command::Serve, Command::Compile), None),
            Some(("plugins", below)) => (Command::Plugins, Some(below)),
            Some(("version", below)) => (Command::Version, Some(below)),
            _ => (Command::Serve, None),
        };
        let config_file = below.and_then(config_file).or_else(|| config_file(&matches));
        let command = if matches.get_flag("version") { Command::Version } else { command };
        Ok(Self { command, config_file, ignored })
    }
}

fn grammar() -> clap::Command {
    let file = || {
        let flag = Arg::new("configfile").long("configfile").value_name("FILE");
        flag.value_parser(PathBufValueParser::new()).help("The install file: Traefik's static configuration, in YAML")
    };
    clap::Command::new("weir")
        .about("A reverse proxy that reads Traefik's configuration and is extended by WebAssembly components.")
        .after_help(
            "Flags are written in any case. Without --configFile, the file is looked up as Traefik does \
             (traefik.yaml in /etc/traefik, $XDG_CONFIG_HOME, $HOME/.config and .), then /etc/weir/weir.yaml; \
             without any file a quick start is served.",
        )
        .no_binary_name(true)
        .bin_name("weir")
        .arg(file())
        .arg(Arg::new("version").long("version").action(clap::ArgAction::SetTrue).help("Print the version"))
        .subcommand(
            clap::Command::new("check").about("Say everything that is wrong, or what would be served").arg(file()),
        )
        .subcommand(clap::Command::new("plugins").about("List the plugins and what each may use").arg(file()))
        .subcommand(plugin::grammar())
        .subcommand(
            clap::Command::new(COMPILE)
                .hide(true)
                .arg(Arg::new("into").required(true).value_parser(PathBufValueParser::new())),
        )
        .subcommand(clap::Command::new("version").about("Print the version"))
}

fn into(matches: &ArgMatches) -> Option<PathBuf> {
    matches.get_one::<PathBuf>("into").cloned()
}

fn config_file(matches: &ArgMatches) -> Option<PathBuf> {
    matches.get_one::<PathBuf>("configfile").cloned()
}

/// Folds the case of flags, and takes out those of Traefik with their values.
fn separate(arguments: impl IntoIterator<Item = OsString>) -> (Vec<OsString>, Vec<String>) {
    let (mut ours, mut ignored) = (Vec::new(), Vec::new());
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.to_str().and_then(|text| text.strip_prefix("--")) else {
            ours.push(argument);
            continue;
        };
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        let name = name.to_lowercase();
        if TRAEFIK_SECTIONS.contains(&name.split('.').next().unwrap_or_default()) {
            ignored.push(format!("the flag --{flag}"));
            let is_value = |next: &OsString| next.to_str().is_some_and(|next| !next.starts_with('-'));
            if value.is_none() && name.contains('.') && arguments.peek().is_some_and(is_value) {
                arguments.next();
            }
            continue;
        }
        ours.push(match value {
            Some(value) => format!("--{name}={value}").into(),
            None => format!("--{name}").into(),
        });
    }
    (ours, ignored)
}

fn is_traefik_variable(name: &str) -> bool {
    let name = name.to_lowercase();
    let Some(option) = name.strip_prefix("traefik_") else {
        return false;
    };
    TRAEFIK_SECTIONS.contains(&option.split('_').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str], variables: &[&str]) -> Result<Arguments, Unusable> {
        let variables = variables.iter().map(|name| (OsString::from(name), OsString::from("x")));
        Arguments::parse(arguments.iter().map(OsString::from), variables)
    }

    #[test]
    fn the_file_is_named_in_any_case_with_a_space_or_not() {
        for arguments in [
            &["--configFile=a.yaml"][..],
            &["--configfile", "a.yaml"],
            &["--CONFIGFILE=a.yaml"],
            &["check", "--configFile=a.yaml"],
            &["--configFile=a.yaml", "check"],
        ] {
            let parsed = parse(arguments, &[]).expect("good arguments");
            assert_eq!(parsed.config_file, Some(PathBuf::from("a.yaml")), "{arguments:?}");
        }
    }

    #[test]
    fn flags_and_variables_of_traefik_are_named_as_ignored() {
        let arguments = ["--configFile=a.yaml", "--entryPoints.web.address=:80", "--log.level", "DEBUG", "--api"];
        let parsed = parse(&arguments, &["TRAEFIK_LOG_LEVEL", "TRAEFIK_OTHER", "PATH"]).expect("good arguments");
        let expected = [
            "the flag --entryPoints.web.address=:80",
            "the flag --log.level",
            "the flag --api",
            "the variable TRAEFIK_LOG_LEVEL",
        ];
        assert_eq!(parsed.ignored, expected);
        assert_eq!(parsed.command, Command::Serve);
    }

    #[test]
    fn what_nobody_knows_is_wrong() {
        for arguments in [&["--confgFile=a"][..], &["serve"], &["--configFile"]] {
            assert!(matches!(parse(arguments, &[]), Err(Unusable::Wrong(_))), "{arguments:?}");
        }
        assert!(matches!(parse(&["--help"], &[]), Err(Unusable::Help(_))));
    }
}
