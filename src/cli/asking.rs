//! The commands that ask one daemon, and how a hint that proposes one of them names that daemon.

/// The commands that ask a daemon.
const ASKING: [Asking; 12] = [
    Asking { name: "deploy", takes_instance: false },
    Asking { name: "switch", takes_instance: false },
    Asking { name: "rollback", takes_instance: false },
    Asking { name: "cancel", takes_instance: false },
    Asking { name: "status", takes_instance: true },
    Asking { name: "apps", takes_instance: true },
    Asking { name: "metrics", takes_instance: true },
    Asking { name: "health", takes_instance: true },
    Asking { name: "releases", takes_instance: false },
    Asking { name: "logs", takes_instance: true },
    Asking { name: "reload", takes_instance: false },
    Asking { name: "upgrade", takes_instance: false },
];

struct Asking {
    name: &'static str,
    /// Whether it takes an instance's name as a word, and not only after `--instance`.
    takes_instance: bool,
}

/// Whether `command` asks a daemon and takes an instance's name only after `--instance`.
pub(crate) fn needs_instance_option(command: &str) -> bool {
    ASKING.iter().any(|asking| asking.name == command && !asking.takes_instance)
}

/// `hint` with `address` (such as `--instance api`) in each command that asks a daemon: typed as
/// they stand, the commands would ask the default instance.
pub(crate) fn addressed(hint: &str, address: &str) -> String {
    if address.is_empty() {
        return hint.to_owned();
    }
    let mut parts = hint.split("portok ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let word = part.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default();
        text.push_str("portok ");
        if ASKING.iter().any(|asking| asking.name == word) {
            text.push_str(&format!("{address} "));
        }
        text.push_str(part);
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
        let expected =
            "wait (portok --instance b status), or: portok --instance b cancel; portok list shows all";
        assert_eq!(addressed(hint, "--instance b"), expected);
        assert_eq!(addressed(hint, ""), hint);
    }

    #[test]
    fn a_shell_reads_a_word_back() {
        assert_eq!(shell_word("/run/portok/api/admin.sock"), "/run/portok/api/admin.sock");
        assert_eq!(shell_word("/tmp/it's here"), r"'/tmp/it'\''s here'");
        assert_eq!(shell_word(""), "''");
    }
}
