//! The commands that ask one daemon, and how a hint that proposes one of them names that daemon.

/// The commands that ask a daemon.
const ASKING: [Asking; 22] = [
    Asking { name: "deploy", takes_instance: false, of_one_app: true },
    Asking { name: "switch", takes_instance: false, of_one_app: true },
    Asking { name: "rollback", takes_instance: false, of_one_app: true },
    Asking { name: "cancel", takes_instance: false, of_one_app: true },
    Asking { name: "pause", takes_instance: false, of_one_app: true },
    Asking { name: "resume", takes_instance: false, of_one_app: true },
    Asking { name: "maintenance", takes_instance: false, of_one_app: true },
    Asking { name: "freeze", takes_instance: false, of_one_app: true },
    Asking { name: "thaw", takes_instance: false, of_one_app: true },
    Asking { name: "scale", takes_instance: false, of_one_app: true },
    Asking { name: "drain", takes_instance: false, of_one_app: true },
    Asking { name: "status", takes_instance: true, of_one_app: true },
    Asking { name: "apps", takes_instance: true, of_one_app: false },
    Asking { name: "ps", takes_instance: true, of_one_app: true },
    Asking { name: "certs", takes_instance: true, of_one_app: false },
    Asking { name: "metrics", takes_instance: true, of_one_app: true },
    Asking { name: "health", takes_instance: true, of_one_app: true },
    Asking { name: "releases", takes_instance: false, of_one_app: true },
    Asking { name: "logs", takes_instance: true, of_one_app: true },
    Asking { name: "reload", takes_instance: false, of_one_app: false },
    Asking { name: "upgrade", takes_instance: false, of_one_app: false },
    Asking { name: "shutdown", takes_instance: false, of_one_app: false },
];

struct Asking {
    name: &'static str,
    /// Whether it takes an instance's name as a word, and not only after `--instance`.
    takes_instance: bool,
    /// Whether it is about one app, where the instance has several.
    of_one_app: bool,
}

/// How a daemon was named, and the app: options for the commands that a hint proposes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Address {
    /// `--instance api`; empty: the daemon that is asked by default.
    pub(crate) way: String,
    /// `--app shop`; empty: none was named.
    pub(crate) app: String,
}

/// Whether `command` asks a daemon and takes an instance's name only after `--instance`.
pub(crate) fn needs_instance_option(command: &str) -> bool {
    ASKING.iter().any(|asking| asking.name == command && !asking.takes_instance)
}

/// `hint` with `address` in each command that asks a daemon: typed as they stand, the commands
/// would ask the default instance. A daemon that names itself in its hint may be known by another
/// name here.
pub(crate) fn addressed(hint: &str, address: &Address) -> String {
    let mut parts = hint.split("portok ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("portok ");
        let named = part.strip_prefix("--instance ").and_then(|rest| Some(rest.split_once(' ')?.1));
        let unnamed = if address.way.is_empty() { part } else { named.unwrap_or(part) };
        let word = unnamed.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default();
        if let Some(asking) = ASKING.iter().find(|asking| asking.name == word) {
            let app = Some(&address.app).filter(|_| asking.of_one_app);
            for option in [Some(&address.way), app].into_iter().flatten().filter(|option| !option.is_empty())
            {
                text.push_str(&format!("{option} "));
            }
        }
        text.push_str(unnamed);
    }
    text
}

/// `text` as one word of a command for a shell.
pub(crate) fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,@%+=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::args::{HostCommand, Typed};
    use super::*;

    #[test]
    fn the_table_is_that_of_the_commands_that_are_neither_the_hosts_nor_run() {
        let tree = Typed::command();
        let host = <HostCommand as clap::Subcommand>::augment_subcommands(clap::Command::new("host"));
        let is_hosts = |name: &str| host.get_subcommands().any(|command| command.get_name() == name);
        let typed: Vec<_> = tree
            .get_subcommands()
            .filter(|command| command.get_name() != "run" && !is_hosts(command.get_name()))
            .map(|command| {
                (command.get_name(), command.get_positionals().any(|word| word.get_id() == "name"))
            })
            .collect();
        assert_eq!(typed, ASKING.map(|asking| (asking.name, asking.takes_instance)));
    }

    #[test]
    fn only_commands_that_ask_are_addressed() {
        let hint = "wait (portok status), or: portok cancel; portok list shows all";
        let address = Address { way: "--instance b".into(), app: String::new() };
        let expected =
            "wait (portok --instance b status), or: portok --instance b cancel; portok list shows all";
        assert_eq!(addressed(hint, &address), expected);
        assert_eq!(addressed(hint, &Address::default()), hint);
    }

    #[test]
    fn a_command_of_all_apps_gets_no_app() {
        let address = Address { way: "--socket /s".into(), app: "--app api".into() };
        for (hint, typed) in [
            ("portok apps shows all", "portok --socket /s apps shows all"),
            ("portok --instance edge apps shows all", "portok --socket /s apps shows all"),
            (
                "portok status; portok reload",
                "portok --socket /s --app api status; portok --socket /s reload",
            ),
        ] {
            assert_eq!(addressed(hint, &address), typed);
        }
        let hint = "portok --instance edge apps shows all";
        assert_eq!(addressed(hint, &Address::default()), hint);
    }

    #[test]
    fn a_shell_reads_a_word_back() {
        assert_eq!(shell_word("/run/portok/api/admin.sock"), "/run/portok/api/admin.sock");
        assert_eq!(shell_word("/tmp/it's here"), r"'/tmp/it'\''s here'");
        assert_eq!(shell_word(""), "''");
    }
}
