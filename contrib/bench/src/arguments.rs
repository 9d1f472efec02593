//! The words that the program was called with.

use std::str::FromStr;

/// What stands behind the program's name.
pub struct Arguments(Vec<String>);

impl Arguments {
    pub fn of_this_process() -> Self {
        Self(std::env::args().skip(1).collect())
    }

    /// The first word: what is to be done.
    pub fn verb(&self) -> Option<&str> {
        self.0.first().map(String::as_str)
    }

    /// Whether the option `name` was given.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|word| word == name)
    }

    /// What follows the option `name`, if it is no option itself.
    pub fn value(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|word| word == name)?;
        self.0.get(at + 1).map(String::as_str).filter(|value| !value.starts_with("--"))
    }

    /// The same as a number, or `default`.
    pub fn number<N: FromStr>(&self, name: &str, default: N) -> Result<N, N::Err> {
        self.value(name).map_or(Ok(default), str::parse)
    }

    /// The same as a list, without one empty.
    pub fn list(&self, name: &str) -> Vec<String> {
        self.value(name).map_or(Vec::new(), |text| text.split(',').map(str::to_owned).collect())
    }

    /// All of them in a line.
    pub fn line(&self) -> String {
        self.0.join(" ")
    }
}
