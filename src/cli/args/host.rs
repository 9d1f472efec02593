//! What may be typed to administer this machine.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::super::values::{
    health_path, host, instance_name, instance_or_app, prefix, service, shell_text, target, user_name,
};

/// The commands that administer this machine and do not ask one particular daemon.
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Prepare this host: folders and systemd units; may be repeated
    #[command(after_help = "\
Examples:
  portok init --dry-run          only tell what would be done
  portok init
  portok init --user deploy      portokd runs as this user, and may still use ports below 1024")]
    Init(InitArgs),
    /// Write the configuration of a new instance, with a token and free ports; with --to, of a new
    /// app
    #[command(after_help = "\
Examples:
  portok add api --cmd \"node server.js\" --dir /srv/api     portok starts the app
  portok add web --port 80 --target 8080                   somebody else starts it on port 8080
  portok add web                                           as before, with free ports
  portok add shop --to edge --host shop.example.com --cmd \"node shop.js\" --dir /srv/shop
  portok add docs --to edge --host www.example.com --path /docs --target 192.168.0.42:80
  portok add old --to edge --host old.example.com --redirect https://www.example.com

--to writes NAME.toml into the folder INSTANCE.d and has the daemon of that instance, which has several apps, load it;
exit code 1: it refused the app.
--cmd writes NAME.toml and its token to NAME.token, otherwise NAME.env is written, as npm portok does it;
--toml and --env choose the other one.")]
    Add(Box<AddArgs>),
    /// Stop an instance and remove its configuration, token and state; of INSTANCE/APP, the app's
    /// file
    #[command(after_help = "\
Examples:
  portok remove api
  portok remove edge/shop            one app of an instance: its file in edge.d; the daemon stops it
  portok remove api --force          stop it first if it runs
  portok remove api --keep-state     a later instance of that name goes on where it was")]
    Remove(RemoveArgs),
    /// Remove everything that portok made on this host; without --force only tell what that is
    #[command(after_help = "\
Examples:
  portok clean
  portok clean --force")]
    Clean {
        /// Do it
        #[arg(long)]
        force: bool,
    },
    /// Show every instance with what is live
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  portok list
  portok list --json | jq -r '.[].name'"
    )]
    List,
    /// Start an instance's daemon, and with it the app
    #[command(after_help = "\
Examples:
  portok start api")]
    Start(InstanceArgs),
    /// Stop an instance: requests finish, the app is stopped, then the daemon ends
    #[command(after_help = "\
Examples:
  portok stop api")]
    Stop(InstanceArgs),
    /// Restart an instance's daemon
    #[command(after_help = "\
Examples:
  portok restart api")]
    Restart(InstanceArgs),
    /// Start an instance at every boot
    #[command(after_help = "\
Examples:
  portok enable api
  portok enable api --now")]
    Enable(ToggleArgs),
    /// No longer start an instance at boot
    #[command(after_help = "\
Examples:
  portok disable api
  portok disable api --now")]
    Disable(ToggleArgs),
    /// Check this host and every instance, and say what to do; exit code 1 when something is wrong
    #[command(after_help = "\
Examples:
  portok doctor
  portok doctor --json | jq '.checks[] | select(.verdict == \"bad\")'")]
    Doctor,
    /// Print another tool's configuration in portok's terms, and say what has no counterpart
    #[command(after_help = "\
Examples:
  portok import procfile Procfile > /etc/portok/web.toml
  portok import hipache /etc/hipache.json
  node -p 'JSON.stringify(require(\"./ecosystem.config.js\"))' | portok import pm2 -

The TOML goes to standard output. Nothing is changed; `portokd --check --config FILE` tells whether a file is valid.")]
    Import {
        /// Whose configuration it is
        #[arg(value_enum)]
        format: ImportFormat,
        /// The file, at most 1 MiB; `-` is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the completions of a shell
    #[command(after_help = "\
Examples:
  portok completions bash > /etc/bash_completion.d/portok
  portok completions zsh > ~/.zfunc/_portok
  portok completions fish > ~/.config/fish/completions/portok.fish")]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the man pages portok.1 and portokd.8 into a folder
    #[command(
        hide = true,
        after_help = "\
Examples:
  portok man contrib/man"
    )]
    Man {
        /// Where to, a folder that exists
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}

/// `init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Tell what would be done and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The user that portokd runs as; `root` takes an earlier choice back
    #[arg(long, value_name = "USER", value_parser = user_name)]
    pub(crate) user: Option<String>,
    /// Replace a unit file that portok did not write
    #[arg(long)]
    pub(crate) force: bool,
}

/// `add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The name of the new instance; with --to, of the new app
    #[arg(value_name = "NAME", value_parser = instance_name)]
    pub(crate) name: String,
    /// The public port [default: the first free one from 3000 on]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "to")]
    pub(crate) port: Option<u16>,
    /// The port on 127.0.0.1 of an app that somebody else starts [default: a free one from 8080
    /// on]; with
    /// --to also an address, and several
    #[arg(long = "target", value_name = "PORT", value_parser = target, conflicts_with = "command")]
    pub(crate) targets: Vec<SocketAddr>,
    /// What portok runs, by `/bin/sh -c`; `{port}` stands for the port, which is in `$PORT` too
    #[arg(long = "cmd", value_name = "CMD", value_parser = shell_text)]
    pub(crate) command: Option<String>,
    /// The directory to run it in
    #[arg(long = "dir", value_name = "DIR", requires = "command", conflicts_with = "env")]
    pub(crate) directory: Option<PathBuf>,
    /// The path that answers 2xx when the app is healthy
    #[arg(long, value_name = "PATH", value_parser = health_path)]
    pub(crate) health: Option<String>,
    /// Write NAME.toml; without --cmd and --target, the first `portok deploy` says what runs
    #[arg(long, conflicts_with_all = ["env", "to"])]
    pub(crate) toml: bool,
    /// Write NAME.env
    #[arg(long, conflicts_with = "to")]
    pub(crate) env: bool,
    /// Overwrite an instance of that name, and take ports that are in use
    #[arg(long, conflicts_with = "to")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) app: AppArgs,
}

/// `add --to`: a new app of an instance that has several.
#[derive(Debug, Args)]
pub(crate) struct AppArgs {
    /// Add an app to this instance, which has several
    #[arg(long, value_name = "INSTANCE", value_parser = instance_name)]
    pub(crate) to: Option<String>,
    /// A host of the app, like api.example.com or *.example.com; may be given several times
    /// [default: every one]
    #[arg(long = "host", value_name = "HOST", value_parser = host, requires = "to")]
    pub(crate) hosts: Vec<String>,
    /// The beginning of the app's paths; may be given several times [default: /]
    #[arg(long = "path", value_name = "PATH", value_parser = prefix, requires = "to")]
    pub(crate) paths: Vec<String>,
    /// Take that beginning off before the app gets the path
    #[arg(long, requires = "to")]
    pub(crate) strip_prefix: bool,
    /// An address or a port on which the app alone answers; may be given several times
    #[arg(long, value_name = "ADDRESS", requires = "to")]
    pub(crate) listen: Vec<String>,
    /// Send clients to this address instead, with the path and query that they asked for
    #[arg(long, value_name = "URL", requires = "to", conflicts_with_all = ["command", "targets"])]
    pub(crate) redirect: Option<String>,
}

/// `remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The instance's name, or INSTANCE/APP
    #[arg(value_name = "NAME", value_parser = instance_or_app)]
    pub(crate) name: String,
    /// Stop it if it runs
    #[arg(long)]
    pub(crate) force: bool,
    /// Leave its state file
    #[arg(long)]
    pub(crate) keep_state: bool,
    /// Only tell what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// A command that takes nothing but an instance.
#[derive(Debug, Args)]
pub(crate) struct InstanceArgs {
    /// The instance's name
    #[arg(value_name = "NAME", value_parser = service)]
    pub(crate) name: String,
}

/// `enable` and `disable`.
#[derive(Debug, Args)]
pub(crate) struct ToggleArgs {
    /// The instance's name
    #[arg(value_name = "NAME", value_parser = service)]
    pub(crate) name: String,
    /// And start (or stop) it now
    #[arg(long)]
    pub(crate) now: bool,
}

/// What `import` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportFormat {
    /// hipache's or Concussion's config.json
    Hipache,
    /// nfork.json
    Nfork,
    /// A Procfile
    Procfile,
    /// A pm2 ecosystem in JSON
    Pm2,
}

/// Shells that get completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}
