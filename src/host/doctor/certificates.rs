//! The check of instances' certificates, by their files.

use super::super::instances::Instance;
use super::{Check, bad, good, warning};
use crate::config::Config;
use crate::tls;
use crate::wire::{CertificateRow, CertificateSource};

/// Fewer days than this are a warning: there is still time to renew by hand.
const FEW_DAYS: i64 = 14;

/// Each certificate of an instance is good, and is so for a while.
pub(super) fn certificates(instance: &Instance) -> Vec<Check> {
    let Ok(config) = &instance.config else { return Vec::new() };
    if config.tls.is_none() {
        return Vec::new();
    }
    let name = &instance.name;
    match tls::survey(config) {
        Ok(rows) if rows.is_empty() && config.tls.as_ref().is_some_and(|tls| tls.acme.is_some()) => {
            let text = format!("`{name}`: no certificate has come yet");
            vec![warning(
                "certificates",
                text,
                "they come by themselves; portok certs says what holds them up",
            )]
        }
        // Whoever asks for another name is refused, and that may be meant.
        Ok(rows) if rows.is_empty() && has_names(config) => Vec::new(),
        Ok(rows) if rows.is_empty() => {
            let text = format!("`{name}`: tls.listen is set, and there is no certificate");
            vec![bad("certificates", text, "put NAME.crt and NAME.key into tls.cert_dir")]
        }
        Ok(rows) => rows.iter().flat_map(|row| of(name, row)).collect(),
        Err(error) => {
            let text = format!("`{name}`: the certificates cannot be checked: {error}");
            vec![bad("certificates", text, "try again")]
        }
    }
}

/// Whether an app speaks TLS itself.
fn has_names(config: &Config) -> bool {
    config.apps.iter().flat_map(|several| several.apps.values()).any(|app| app.routes.passthrough)
}

fn of(instance: &str, row: &CertificateRow) -> Vec<Check> {
    let called = format!("`{instance}`: certificate {}", row.name);
    let mut checks = Vec::new();
    match (&row.error, row.days) {
        (Some(error), _) => {
            let hint = "mend the files; a daemon that runs takes them up by itself";
            checks.push(bad("certificates", format!("{called}: {error}"), hint));
        }
        (None, Some(days)) if days < FEW_DAYS => {
            let hint = match row.source {
                CertificateSource::File => "renew it, and put the new files in their place",
                CertificateSource::Acme => "it is renewed by itself; portok certs says what holds that up",
            };
            checks.push(warning("certificates", format!("{called} expires in {days} days"), hint));
        }
        (None, days) => {
            let days = days.unwrap_or_default();
            checks.push(good("certificates", format!("{called} is good for {days} days")));
        }
    }
    if let Some(warned) = &row.warning {
        let (text, hint) = warned.split_once("; run: ").unwrap_or((warned, "see the file's rights"));
        checks.push(warning("certificates", format!("{called}: {text}"), hint));
    }
    checks
}
