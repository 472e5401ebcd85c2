//! Files that a pipeline file names: a change of what they hold is one of the pipeline.

use std::borrow::Cow;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use ring::digest;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A file's path, equal to another if what the file held when it was named is equal, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackedFile {
    path: PathBuf,
    /// Its SHA-256; who needs what is in it says why it can't be read.
    content: Option<Vec<u8>>,
}

impl Deref for TrackedFile {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl<'de> Deserialize<'de> for TrackedFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TrackedFile, D::Error> {
        let path = PathBuf::deserialize(deserializer)?;
        let content = std::fs::read(&path).ok().map(Zeroizing::new);
        let content =
            content.map(|bytes| digest::digest(&digest::SHA256, &bytes).as_ref().to_vec());
        Ok(TrackedFile { path, content })
    }
}

impl JsonSchema for TrackedFile {
    fn schema_name() -> Cow<'static, str> {
        "Path".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "Path of a file. When its content changes, docket reloads it as it does the pipeline file." })
    }
}
