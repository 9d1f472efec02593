//! Makes completions and man pages from the clap trees. `contrib/` holds copies, and a test
//! compares them.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::aot;
use clap_mangen::Man;

use super::args::{Shell, Typed};
use super::daemon_args::DaemonArguments;
use crate::host::files::{self, Existing, Readers};
use crate::host::{HostFailure, HostReport};

/// The completions of `portok` for a shell.
pub(crate) fn completions(shell: Shell) -> Vec<u8> {
    let shell = match shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Zsh => aot::Shell::Zsh,
        Shell::Fish => aot::Shell::Fish,
    };
    let mut text = Vec::new();
    aot::generate(shell, &mut Typed::command(), "portok", &mut text);
    text
}

/// Writes `portok.1` and `portokd.8` into `folder`.
///
/// # Errors
/// They cannot be written.
pub(crate) fn man(folder: &Path) -> Result<HostReport, HostFailure> {
    let mut report = HostReport::default();
    for (name, page) in [("portok.1", portok_page()), ("portokd.8", portokd_page())] {
        let path = folder.join(name);
        let page = page.map_err(|error| files::failed("make", &path, &error))?;
        files::write(&path, &String::from_utf8_lossy(&page), Readers::Everybody, Existing::Replace)?;
        report.step("created", path.display());
    }
    Ok(report)
}

/// One page with all commands: it can be searched as a whole.
fn portok_page() -> io::Result<Vec<u8>> {
    let tree = Typed::command();
    let man = man_of(tree.clone(), "1");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    page.extend(b".SH COMMANDS\n");
    for command in tree.get_subcommands().filter(|command| !command.is_hide_set()) {
        render_command(command, &mut page)?;
    }
    man.render_options_section(&mut page)?;
    render_text("NOTES", tree.get_after_help().map(ToString::to_string), &mut page);
    page.extend(b".SH SEE ALSO\n.BR portokd (8),\n.BR systemctl (1),\n.BR journalctl (1)\n");
    Ok(page)
}

/// A command as a part of the page. Its sections become paragraphs.
fn render_command(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let name = format!("portok {}", command.get_name());
    page.extend(format!(".SS \"{name}\"\n").as_bytes());
    // Every command has --help; the page mentions it once.
    let man = man_of(command.clone().bin_name(name).disable_help_flag(true), "1");
    let mut part = Vec::new();
    man.render_synopsis_section(&mut part)?;
    man.render_description_section(&mut part)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut part)?;
    }
    for line in String::from_utf8_lossy(&part).lines() {
        if line.starts_with(".SH") {
            page.extend(b".PP\n");
        } else if !line.starts_with(".ie") && !line.starts_with(".el") {
            page.extend(line.as_bytes());
            page.push(b'\n');
        }
    }
    if let Some(help) = command.get_after_help() {
        page.extend(b".PP\n");
        render_lines(&help.to_string(), page);
    }
    Ok(())
}

fn portokd_page() -> io::Result<Vec<u8>> {
    let tree = DaemonArguments::command();
    let man = man_of(tree.clone(), "8");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    render_text("NOTES", tree.get_after_help().map(ToString::to_string), &mut page);
    page.extend(FILES.as_bytes());
    page.extend(b".SH SEE ALSO\n.BR portok (1),\n.BR systemd.exec (5)\n");
    Ok(page)
}

const FILES: &str = "\
.SH SIGNALS
.TP
SIGTERM, SIGINT
finish the requests, stop the app, end; a second one does not wait
.TP
SIGHUP
load the configuration again
.TP
SIGUSR1
open the access log anew
.TP
SIGUSR2
finish the requests, leave the app as it is, end: the next portokd goes on with it
.SH FILES
.TP
.I /etc/portok/NAME.toml
the configuration of the instance NAME
.TP
.I /etc/portok/NAME.env
its environment variables, which win over the former
.TP
.I /etc/portok/NAME.token
its admin token, as `portok add` makes it
.TP
.I /etc/portok/NAME.d/APP.toml
one of its apps, where it has several
.TP
.I /var/lib/portok/NAME/NAME.json
its durable record under systemd
.TP
.I /var/lib/portok/NAME/NAME.d/APP.json
that of one of several apps; APP.json.removed... those of apps that are gone
.TP
.I /var/lib/portok/NAME/NAME.apps.json
what the files of its apps said when they were last good
.TP
.I /var/lib/portok/NAME/NAME.redis.json
what Redis said last
.TP
.I /run/portok/NAME/admin.sock
its admin socket
";

fn man_of(command: Command, section: &str) -> Man {
    Man::new(command).section(section).manual("portok manual")
}

fn render_text(title: &str, text: Option<String>, page: &mut Vec<u8>) {
    if let Some(text) = text {
        page.extend(format!(".SH {title}\n").as_bytes());
        render_lines(&text, page);
    }
}

/// Text with its line breaks kept.
fn render_lines(text: &str, page: &mut Vec<u8>) {
    page.extend(b".nf\n");
    for line in text.lines() {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        // roff reads a line that begins with one of these as a request.
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        page.extend(format!("{guard}{line}\n").as_bytes());
    }
    page.extend(b".fi\n");
}
