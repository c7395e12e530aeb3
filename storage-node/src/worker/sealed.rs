//! The small texts of a data folder, `node.toml` and `founders.toml`. Each ends with a checksum of what is above it, so
//! that a digit in which a bit rots is not taken for another number.
//!
//! ```text
//! format = 1
//! …
//! # checksum 1a2b3c4d      CRC-32 (IEEE) of all bytes above this line
//! ```
//!
//! To TOML, and so to the releases that know of no checksum, this line is a comment: they read these texts, and theirs,
//! which end without it, are read here. Each text is written in one way alone, so one that is not as this program or
//! those releases write it is damaged, whatever it says.
//!
//! It refuses to know what the texts mean: `data_folder.rs` and `founders.rs` do, which read and write them.

/// What the last line begins with.
const CHECKSUM: &str = "# checksum ";

/// What is to be done about a text that is damaged.
const MEND: &str = "It does not change once its node has begun: put a copy of it back. Without one the node is lost, as \
                    one that lost its disk (docs/operations.md, \"Replacing a node\", \"Backup and restore\")";

/// Whether a text bears a checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Seal {
    /// That of its content.
    #[default]
    Whole,
    /// None: an older release wrote it.
    Absent,
}

/// A content with its checksum.
pub(super) fn sealed(content: &str) -> String {
    format!("{content}{CHECKSUM}{:08x}\n", crc32fast::hash(content.as_bytes()))
}

/// The content of a text. An error says what is wrong.
pub(super) fn unsealed(text: &str) -> Result<(&str, Seal), String> {
    let Some(end) = text.rfind(CHECKSUM) else { return Ok((text, Seal::Absent)) };
    let (content, line) = text.split_at(end);
    if sealed(content) == text {
        return Ok((content, Seal::Whole));
    }
    let checksum = crc32fast::hash(content.as_bytes());
    Err(damaged(&format!("the checksum of its content is {checksum:08x}, and it ends with {line:?}")))
}

/// Refuses a content that reads as another one does, which is what would be written.
pub(super) fn check_as_written(content: &str, written: &str) -> Result<(), String> {
    match content == written {
        true => Ok(()),
        false => Err(damaged("it is not as any release writes it")),
    }
}

/// Of a content that does not say what it should.
pub(super) fn unreadable(seal: Seal, what: &str, error: &toml::de::Error) -> String {
    let error = error.to_string();
    let error = error.trim_end();
    match seal {
        // As somebody wrote it: a newer program.
        Seal::Whole => format!("does not say {what}: {error}"),
        Seal::Absent => damaged(&format!("it does not say {what}: {error}")),
    }
}

/// Of a text in which something rotted.
pub(super) fn damaged(why: &str) -> String {
    format!("is damaged: {why}. {MEND}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_stands_in_the_last_line() {
        let text = sealed("format = 1\nnode_id = 2\nshard_count = 4\nshards = [0, 1, 2, 3]\n");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.last(), Some(&"# checksum 04481523"));
        assert_eq!(unsealed(&text), Ok((text.trim_end_matches("# checksum 04481523\n"), Seal::Whole)));
        assert_eq!(unsealed("format = 1\n"), Ok(("format = 1\n", Seal::Absent)));
    }

    #[test]
    fn whatever_is_changed_or_added_is_damage() {
        assert_eq!(sealed("format = 1\n"), "format = 1\n# checksum 068643e1\n");
        for text in [
            "format = 2\n# checksum 068643e1\n",
            "format = 1\n# checksum 068643e0\n",
            "format = 1\n# checksum 068643E1\n",
            "format = 1\n# checksum 068643e1",
            "format = 1\n# checksum 068643e1\n\n",
            "format = 1\n\n# checksum 068643e1\n",
            "format = 1 # checksum 068643e1\n",
            "# checksum ",
        ] {
            let told = unsealed(text).expect_err("it is not what was written");
            assert!(told.contains("is damaged") && told.contains("put a copy of it back"), "{told}");
        }
    }
}
