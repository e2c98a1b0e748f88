//! Names that people give, parsed once at the border.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::error::InvalidInput;
use crate::limits::{KEY_BYTES_MAX, NAME_BYTES_MAX};

fn check_name(kind: &str, text: &str) -> Result<(), InvalidInput> {
    let refuse = |rule: &str| Err(InvalidInput::new(format!("{kind} name {text:?} {rule}")));
    if text.is_empty() {
        return Err(InvalidInput::new(format!("the {kind} name is empty")));
    }
    if text.len() > NAME_BYTES_MAX {
        return refuse(&format!("has {} bytes; at most {NAME_BYTES_MAX} are allowed", text.len()));
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
        return refuse(&format!("has {bad:?} in it; allowed are a to z, 0 to 9, hyphen and dot"));
    }
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if !ends(text.chars().next()) || !ends(text.chars().next_back()) {
        return refuse("must begin and end with a letter or digit");
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidInput;

            fn from_str(text: &str) -> Result<Self, InvalidInput> {
                check_name($kind, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// A tenant: 1 to 63 of `a-z 0-9 - .`, beginning and ending with a letter or digit.
    TenantName, "tenant"
);
name!(
    /// A bucket; the same rule.
    BucketName, "bucket"
);
name!(
    /// A profile; the same rule.
    ProfileName, "profile"
);
name!(
    /// A rack, site or disk; the same rule.
    Label, "rack, site or disk"
);
name!(
    /// An operator, as the certificate names the person; the same rule.
    OperatorName, "operator"
);

/// The key of an object: 1 to 1024 bytes of UTF-8 without NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(Bytes);

impl ObjectKey {
    /// From text or the bytes of a message.
    ///
    /// # Errors
    ///
    /// When it is empty, too long, not UTF-8 or has a NUL in it.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self, InvalidInput> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(InvalidInput::new("the object key is empty; give it at least one byte"));
        }
        if bytes.len() > KEY_BYTES_MAX {
            return Err(InvalidInput::new(format!(
                "the object key has {} bytes; at most {KEY_BYTES_MAX} are allowed: shorten it",
                bytes.len()
            )));
        }
        match std::str::from_utf8(&bytes) {
            Err(error) => Err(InvalidInput::new(format!("the object key is not UTF-8: {error}"))),
            Ok(text) if text.contains('\0') => {
                Err(InvalidInput::new("the object key has a NUL character in it"))
            }
            Ok(_) => Ok(Self(bytes)),
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        // Checked by `parse`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The key as bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl FromStr for ObjectKey {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        Self::parse(text.to_owned())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Good names pass; each rule refuses what breaks it, and says which.
    #[test]
    fn names_are_checked() {
        for good in ["a", "archives-2026", "rs-4-2.small", "0"] {
            assert!(good.parse::<BucketName>().is_ok(), "{good:?} was refused");
        }
        let long = "a".repeat(64);
        for (bad, part) in [
            ("", "empty"),
            ("A", "'A'"),
            ("a b", "' '"),
            ("-a", "begin and end"),
            ("a.", "begin and end"),
            (&long, "at most 63"),
        ] {
            let error = bad.parse::<BucketName>().expect_err(bad).to_string();
            assert!(error.contains(part), "{bad:?}: {error}");
        }
    }

    /// Keys: empty, over-long, not UTF-8 and NUL are refused.
    #[test]
    fn keys_are_checked() {
        assert!("été/1 2".parse::<ObjectKey>().is_ok());
        for bad in [Vec::new(), vec![b'a'; 1025], vec![0xff], vec![b'a', 0]] {
            assert!(ObjectKey::parse(bad).is_err());
        }
    }
}
