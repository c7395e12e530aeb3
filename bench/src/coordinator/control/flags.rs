//! `--flag VALUE` command lines of agents, relays and the authority.

use std::collections::BTreeMap;

/// A command line that cannot be meant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct FlagError(pub String);

/// Flags by name, and what stands without one.
#[derive(Debug, Default)]
pub struct Flags {
    values: BTreeMap<String, Vec<String>>,
    operands: Vec<String>,
}

impl Flags {
    /// Takes a command line apart. `valued` flags are followed by a value, `plain` ones are not; others are refused.
    pub fn parse(arguments: &[String], valued: &[&str], plain: &[&str]) -> Result<Self, FlagError> {
        let mut flags = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let value = if valued.contains(&argument.as_str()) {
                let value = arguments.next();
                value.ok_or_else(|| FlagError(format!("{argument} needs a value")))?.clone()
            } else if plain.contains(&argument.as_str()) {
                String::new()
            } else if argument.starts_with("--") {
                return Err(FlagError(format!("{argument} is not known here")));
            } else {
                flags.operands.push(argument.clone());
                continue;
            };
            flags.values.entry(argument.clone()).or_default().push(value);
        }
        Ok(flags)
    }

    /// Whether a flag was given.
    pub fn has(&self, flag: &str) -> bool {
        self.values.contains_key(flag)
    }

    /// All values of a flag.
    pub fn all(&mut self, flag: &str) -> Vec<String> {
        self.values.remove(flag).unwrap_or_default()
    }

    /// The value of a flag that may be given once.
    pub fn one(&mut self, flag: &str) -> Result<Option<String>, FlagError> {
        let mut values = self.all(flag);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(FlagError(format!("{flag} is given twice"))),
        }
    }

    /// The value of a flag that must be given once.
    pub fn needed(&mut self, flag: &str) -> Result<String, FlagError> {
        self.one(flag)?.ok_or_else(|| FlagError(format!("{flag} is missing")))
    }

    /// The value as a number.
    pub fn number(&mut self, flag: &str) -> Result<Option<u64>, FlagError> {
        let parse =
            |value: String| value.parse().map_err(|_| FlagError(format!("{flag}: {value} is no number")));
        self.one(flag)?.map(parse).transpose()
    }

    /// The value as a number with a point.
    pub fn decimal(&mut self, flag: &str) -> Result<Option<f64>, FlagError> {
        let parse = |value: String| {
            let number = value.parse().ok().filter(|number: &f64| number.is_finite());
            number.ok_or_else(|| FlagError(format!("{flag}: {value} is no number")))
        };
        self.one(flag)?.map(parse).transpose()
    }

    /// Everything without a flag.
    pub fn operands(&mut self) -> Vec<String> {
        std::mem::take(&mut self.operands)
    }

    /// The only thing without a flag.
    pub fn only_operand(&mut self, what: &str) -> Result<String, FlagError> {
        match (self.operands.pop(), self.operands.pop()) {
            (Some(operand), None) => Ok(operand),
            (None, _) => Err(FlagError(format!("{what} is missing"))),
            (Some(operand), Some(_)) => Err(FlagError(format!("{operand} is one too many"))),
        }
    }

    /// Nothing without a flag.
    pub fn no_operand(&mut self) -> Result<(), FlagError> {
        match self.operands.pop() {
            None => Ok(()),
            Some(operand) => Err(FlagError(format!("{operand} is not known here"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, FlagError> {
        let arguments: Vec<String> = line.split_whitespace().map(ToOwned::to_owned).collect();
        Flags::parse(&arguments, &["--target", "--cpu"], &["--child"])
    }

    #[test]
    fn flags_repeat_and_values_stay_in_order() {
        let mut flags = parse("--target a:1 --child --target b:2 --cpu 3 rest").expect("known flags");
        assert!(flags.has("--child"));
        assert_eq!(flags.all("--target"), ["a:1", "b:2"]);
        assert_eq!(flags.number("--cpu"), Ok(Some(3)));
        assert_eq!(flags.only_operand("FILE"), Ok("rest".to_owned()));
    }

    #[test]
    fn what_is_unknown_missing_or_double_is_named() {
        let text = |error: FlagError| error.0;
        assert_eq!(parse("--turbo").map_err(text).err(), Some("--turbo is not known here".to_owned()));
        assert_eq!(parse("--cpu").map_err(text).err(), Some("--cpu needs a value".to_owned()));
        let mut flags = parse("--cpu 1 --cpu 2 x").expect("known flags");
        assert_eq!(flags.one("--cpu").map_err(text), Err("--cpu is given twice".to_owned()));
        assert_eq!(flags.needed("--target").map_err(text), Err("--target is missing".to_owned()));
        assert_eq!(flags.no_operand().map_err(text), Err("x is not known here".to_owned()));
        assert!(parse("--cpu one").expect("known").number("--cpu").is_err());
    }
}
