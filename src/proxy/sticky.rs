//! A client that stays with one of several members (`sticky`): what its request wishes for, and
//! what it is told. Pure.
//!
//! A member is known by its [`Place`], which a cookie names and nothing else. Whether the wish can
//! be met is [`balance`](super::balance)'s to say: in a set the sticky member comes first if it is
//! ready. With `sticky = "address"` the client's address and each ready member's place make a
//! number, and the greatest wins (rendezvous hashing): a member that comes takes its share of each
//! of the others, one that goes leaves its own share to them, and nobody else moves.

use std::net::IpAddr;

use self::cookie::Cookie;
use super::address::Scheme;
use super::headers::{self, Context, RequestHead};
use crate::config::{AppConfig, Sticky};

mod cookie;
mod place;

pub use self::place::Place;

/// How clients of an app stay with a member. An app whose clients do not has none.
#[derive(Debug)]
pub(super) enum Rule {
    Cookie(Cookie),
    Address,
}

/// The member that a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// The one that its cookie names. `None`: it names none.
    Place(Option<Place>),
    /// The one that its client's address, as a hash, has.
    Address(u64),
}

impl Rule {
    /// That of `app`.
    pub(super) fn of(app: &AppConfig) -> Option<Self> {
        match app.sticky {
            Sticky::Off => None,
            Sticky::Cookie => Some(Self::Cookie(Cookie::of(&app.name))),
            Sticky::Address => Some(Self::Address),
        }
    }

    /// What a request with these `fields` wishes for, of a client at `client`.
    #[inline(never)]
    pub(super) fn wish<'a>(
        &self,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        client: impl FnOnce() -> IpAddr,
    ) -> Wish {
        match self {
            Self::Cookie(cookie) => Wish::Place(cookie.named(fields)),
            Self::Address => Wish::Address(place::hash_of(client())),
        }
    }

    /// The value of the `Set-Cookie` for a client that speaks `scheme`, had a `wish` and got the
    /// member at `place`. `None`: it knows that already, or it has no cookie.
    #[inline(never)]
    pub(super) fn told(&self, wish: Wish, place: Option<Place>, scheme: Scheme) -> Option<String> {
        match (self, wish) {
            (Self::Cookie(cookie), Wish::Place(named)) if named != place => {
                place.map(|place| cookie.naming(place, scheme))
            }
            _ => None,
        }
    }
}

/// Writes `head` as the app gets it: without the cookie of `rule`, if it has one.
pub(super) fn write_head<'a, F, I>(
    out: &mut Vec<u8>,
    head: RequestHead<'a, F>,
    context: &Context<'_>,
    rule: Option<&Rule>,
) where
    F: Fn() -> I,
    I: Iterator<Item = (&'a [u8], &'a [u8])>,
{
    let Some(Rule::Cookie(cookie)) = rule else {
        return headers::write_head(out, &head, context);
    };
    let others: Vec<_> = cookie.others((head.fields)()).collect();
    let fields = || others.iter().map(|(name, value)| (*name, &**value));
    headers::write_head(out, &head.with(fields), context);
}
