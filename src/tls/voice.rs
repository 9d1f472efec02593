//! What is logged of certificates: each change once.

use crate::wire::{CertificateRow, CertificateState};

/// Says what has changed from `before` to `after`; `is_used`: anybody is shown any.
pub(super) fn tell(before: &[CertificateRow], after: &[CertificateRow], is_used: bool) {
    let of = |rows: &[CertificateRow], row: &CertificateRow| {
        rows.iter().position(|other| (&other.name, &other.app) == (&row.name, &row.app))
    };
    for row in after {
        let was = of(before, row).map(|place| &before[place]);
        if was.is_none_or(|was| told_of(was) != told_of(row)) {
            tell_of(row);
        }
    }
    for gone in before.iter().filter(|row| of(after, row).is_none()) {
        tracing::info!(certificate = gone.name, "certificate: it is not shown any more");
    }
    let serve = |rows: &[CertificateRow]| rows.iter().any(|row| row.state.serves());
    if is_used && !serve(after) && (before.is_empty() || serve(before)) {
        tracing::warn!("there is no certificate to show: whoever speaks TLS with portok itself is refused");
    }
}

/// What is said of a certificate.
fn told_of(row: &CertificateRow) -> impl PartialEq + '_ {
    (row.state, &row.error, &row.warning, &row.not_after, &row.names)
}

fn tell_of(row: &CertificateRow) {
    let CertificateRow { name: certificate, file, .. } = row;
    let error = row.error.as_deref().unwrap_or_default();
    let until = row.not_after.as_deref().unwrap_or("it expires");
    match row.state {
        CertificateState::Serving if error.is_empty() => {
            tracing::info!(certificate, names = row.names.join(", "), until, "certificate: it serves");
        }
        CertificateState::Serving => tracing::warn!(certificate, file, "certificate: {error}"),
        CertificateState::NotYetValid => {
            let from = row.not_before.as_deref().unwrap_or_default();
            tracing::warn!(certificate, from, "certificate: it serves, and clients refuse it until then");
        }
        CertificateState::Kept => {
            tracing::warn!(certificate, "certificate: {error}; the former one serves until {until}");
        }
        // Of what has not come the one who ordered it tells.
        CertificateState::Ordered => {}
        CertificateState::Expired | CertificateState::Bad => {
            tracing::error!(certificate, "certificate: left out: {error}");
        }
    }
    if let Some(warning) = &row.warning {
        tracing::warn!(certificate, "certificate: {warning}");
    }
}
