//! How a candidate takes over from the live release.

/// `deploy.strategy`: how a candidate takes over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeployStrategy {
    /// It is started beside the live release, and traffic moves to it once it is healthy.
    #[default]
    Switch,
    /// The live release is stopped first. Requests wait meanwhile.
    Recreate,
}

/// Names that have a meaning and are not built yet.
const LATER: [&str; 2] = ["canary", "rolling"];

impl DeployStrategy {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Switch => "switch",
            Self::Recreate => "recreate",
        }
    }

    /// The strategy of this name.
    ///
    /// # Errors
    /// What was expected.
    pub fn named(name: &str) -> Result<Self, String> {
        const EXPECTED: &str = "\"switch\" or \"recreate\"";
        match name {
            "switch" => Ok(Self::Switch),
            "recreate" => Ok(Self::Recreate),
            later if LATER.contains(&later) => Err(format!("{EXPECTED}: \"{later}\" is not built yet")),
            _ => Err(EXPECTED.to_owned()),
        }
    }
}
