//! The keys of `[deploy]`: how a candidate takes over.

use super::super::DeployStrategy;
use super::super::show;
use super::super::values::{Input, Parsed};
use super::Key;

pub(super) const DEPLOY: &[Key] = &[row!(
    app,
    "deploy.strategy",
    strategy,
    |strategy: &DeployStrategy| show::string(strategy.as_str()),
    deploy.strategy
)];

fn strategy(input: Input<'_>) -> Parsed<DeployStrategy> {
    DeployStrategy::named(input.text().unwrap_or_default())
}
