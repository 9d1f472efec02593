//! `portok certs`: the certificates, what each is for and how long it holds.

use std::fmt::Write as _;

use anstyle::Style;

use super::tables::columns;
use super::words::{BAD, BUSY, DIM, GOOD, cut, paint, plain};
use crate::wire::{CertificateRow, CertificateState};

/// The widest list of hosts, in characters. `--json` has it in full.
const HOSTS: usize = 32;

/// Fewer days than this are shown as a warning: there is still time to renew by hand.
const FEW_DAYS: i64 = 14;

/// The table, with what is wrong or odd below it.
pub(crate) fn certs(rows: &[CertificateRow]) -> String {
    if rows.is_empty() {
        return "no certificates\n".to_owned();
    }
    let head = ["NAME", "STATE", "DAYS", "UNTIL", "HOSTS"];
    let lines = columns(head, rows.iter().map(row));
    let mut text = lines.join("\n");
    text.push('\n');
    for row in rows {
        let said =
            row.error.iter().map(|said| (BAD, said)).chain(row.warning.iter().map(|said| (BUSY, said)));
        for (style, said) in said {
            _ = writeln!(text, "{}: {}", paint(style, plain(&row.name)), plain(said));
        }
    }
    text
}

fn row(row: &CertificateRow) -> [(Style, String); 5] {
    let hosts = row.names.join(" ");
    let until = row.not_after.as_deref().and_then(|at| at.get(..10));
    let default = if row.default { " (default)" } else { "" };
    [
        (Style::new(), format!("{}{default}", plain(&row.name))),
        (state_style(row.state), row.state.as_str().to_owned()),
        (days_style(row.days), row.days.map_or_else(|| "-".to_owned(), |days| days.to_string())),
        (DIM, until.map_or_else(|| "-".to_owned(), plain)),
        (Style::new(), if hosts.is_empty() { "-".to_owned() } else { cut(&plain(&hosts), HOSTS) }),
    ]
}

fn state_style(state: CertificateState) -> Style {
    match state {
        CertificateState::Serving => GOOD,
        CertificateState::Kept | CertificateState::NotYetValid | CertificateState::Ordered => BUSY,
        CertificateState::Expired | CertificateState::Bad => BAD,
    }
}

fn days_style(days: Option<i64>) -> Style {
    match days {
        Some(..0) => BAD,
        Some(days) if days < FEW_DAYS => BUSY,
        _ => Style::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::CertificateSource;

    #[test]
    fn what_is_wrong_stands_below_the_table() {
        let row = |name: &str, state, days, error: Option<&str>| CertificateRow {
            name: name.to_owned(),
            app: None,
            source: CertificateSource::File,
            file: format!("/etc/portok/certs/{name}.crt"),
            key: Some(format!("/etc/portok/certs/{name}.key")),
            names: vec![format!("{name}.example.com")],
            issuer: Some("CN=test".to_owned()),
            not_before: Some("2026-11-01T00:00:00.000Z".to_owned()),
            not_after: Some("2027-01-30T00:00:00.000Z".to_owned()),
            days: Some(days),
            state,
            default: name == "main",
            error: error.map(str::to_owned),
            warning: None,
            renew_at: None,
        };
        let rows = [
            row("main", CertificateState::Serving, 61, None),
            row(
                "shop",
                CertificateState::Kept,
                3,
                Some("/x.key: the private key belongs to another certificate"),
            ),
        ];
        let text = anstream::adapter::strip_str(&certs(&rows)).to_string();
        let expected = "\
NAME            STATE    DAYS  UNTIL       HOSTS
main (default)  serving  61    2027-01-30  main.example.com
shop            kept     3     2027-01-30  shop.example.com
shop: /x.key: the private key belongs to another certificate
";
        assert_eq!(text, expected);
        assert_eq!(certs(&[]), "no certificates\n");
    }
}
