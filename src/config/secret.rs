//! Which values are never shown: in no log, no error, no status.

/// What stands in the place of a secret.
pub(super) const MASK: &str = "***";

/// Whether a variable of this name probably holds a secret.
pub fn looks_secret(name: &str) -> bool {
    const WORDS: &[&str] = &[
        "TOKEN",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "KEY",
        "CREDENTIAL",
        "AUTH",
        "COOKIE",
        "DSN",
        "DATABASE_URL",
        "REDIS_URL",
        "CONNECTION_STRING",
        "WEBHOOK",
        "PRIVATE",
        "CERT",
    ];
    let name = name.to_ascii_uppercase();
    WORDS.iter().any(|word| name.contains(word))
        || ["PASS", "PW", "PWD"].iter().any(|word| name == *word || name.ends_with(&format!("_{word}")))
}

/// Whether the value of `name` (a key, a table or an entry of `app.env`) is a secret, even a bad
/// value.
pub(super) fn is_secret(name: &str) -> bool {
    match name.strip_prefix("app.env.") {
        Some(variable) => looks_secret(variable),
        None => ["admin", "admin.token", "app.env", "app.processes", "redis", "redis.url"].contains(&name),
    }
}

#[cfg(test)]
mod tests {
    use super::looks_secret;

    #[test]
    fn names_of_secrets_are_recognised() {
        for name in ["API_TOKEN", "DATABASE_URL", "SMTP_PASSWORD", "aws_secret_access_key", "DB_PASS"] {
            assert!(looks_secret(name), "{name}");
        }
        for name in ["NODE_ENV", "PORT", "LOG_LEVEL", "COMPASS"] {
            assert!(!looks_secret(name), "{name}");
        }
    }
}
