//! The README's table of portok's own answers is what the code gives.

use std::collections::BTreeSet;
use std::io;

use super::*;
use crate::proxy::fault::Fault;
use crate::proxy::tiers::Quota;

/// One of each kind. A kind that is not here does not compile.
fn all() -> Vec<Fault> {
    let error = || io::Error::other("x");
    let maintenance = Arc::new(Maintenance { status: 503, page: None });
    let all = vec![
        Fault::NoRoute(404),
        Fault::Misdirected,
        Fault::NoLiveTarget,
        Fault::Refused(error()),
        Fault::Want(error()),
        Fault::Reset(error()),
        Fault::Invalid("x"),
        Fault::Timeout("x"),
        Fault::Method,
        Fault::BodyTooLarge,
        Fault::BodyTimeout,
        Fault::TooManyAtOnce,
        Fault::TierLimit(Box::new(Quota::of_a_refusal())),
        Fault::TooManyTunnels,
        Fault::UpstreamFull,
        Fault::HoldFull,
        Fault::HeldTooLong,
        Fault::Maintenance(maintenance),
    ];
    for fault in &all {
        match fault {
            Fault::NoRoute(_)
            | Fault::Misdirected
            | Fault::NoLiveTarget
            | Fault::Refused(_)
            | Fault::Want(_)
            | Fault::Reset(_)
            | Fault::Invalid(_)
            | Fault::Timeout(_)
            | Fault::Method
            | Fault::BodyTooLarge
            | Fault::BodyTimeout
            | Fault::TooManyAtOnce
            | Fault::TierLimit(_)
            | Fault::TooManyTunnels
            | Fault::UpstreamFull
            | Fault::HoldFull
            | Fault::HeldTooLong
            | Fault::Maintenance(_) => {}
        }
    }
    all
}

#[test]
fn every_answer_of_portoks_own_is_in_the_readme_with_its_status_and_no_other_is() {
    let readme = include_str!("../../../README.md");
    let table = readme.lines().skip_while(|line| !line.starts_with("| status | `portok-error` |")).skip(2);
    let mut told = BTreeSet::new();
    for line in table.take_while(|line| line.starts_with('|')) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        for code in cells[2].split(", ") {
            told.insert((cells[1].to_owned(), code.trim_matches('`').to_owned()));
        }
    }
    let given: BTreeSet<_> = all()
        .iter()
        .map(|fault| {
            let answer = fault.answer(false, false, 504, None);
            let code = answer.headers()["portok-error"].to_str().unwrap().to_owned();
            let comes_again = matches!(answer.status().as_u16(), 429 | 503);
            assert_eq!(answer.headers().contains_key("retry-after"), comes_again, "{code}");
            assert_eq!(answer.headers()["cache-control"], "no-store", "{code}");
            (answer.status().as_u16().to_string(), code)
        })
        .collect();
    assert_eq!(told, given);
}
