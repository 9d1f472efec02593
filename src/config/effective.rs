//! The whole configuration as `--check` shows it.

use std::fmt::Write as _;

use super::Config;
use super::keys::{keys, split};
use super::show::Secrets;

impl Config {
    /// The whole configuration as TOML that loads again: every key with its value, secrets as
    /// `***`. Keys without a value are comments.
    pub fn effective_toml(&self) -> String {
        let mut text = String::new();
        let mut last = "";
        for key in keys() {
            let (table, word) = split(key.name);
            if table != last {
                let _ = write!(text, "\n[{table}]\n");
                last = table;
            }
            let _ = match key.show(self, Secrets::Masked) {
                Some(value) => writeln!(text, "{word} = {value}"),
                None if key.name == "admin.token_file" && self.admin.token.is_some() => {
                    writeln!(text, "# {word}: what is in it shows as token")
                }
                None => writeln!(text, "# {word} is not set"),
            };
        }
        text
    }
}
