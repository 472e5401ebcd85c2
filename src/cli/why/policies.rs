//! Policies from where people have them: a directory, a `bundle.tar.gz`, one `.rego` file.

use std::path::Path;

use crate::explain::{Bundle, unpack};

const KINDS: &str = "a bundle is a directory, a .tar.gz or a .rego file";

/// A directory, an archive, or one file.
pub(super) fn bundle(path: &Path) -> Result<Bundle, String> {
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let files = if path.is_dir() {
        let mut files = Vec::new();
        directory(path, path, &mut files).map_err(|e| named(&e))?;
        files
    } else if path.extension().is_some_and(|e| e == "rego") {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        vec![(name, std::fs::read(path).map_err(|e| named(&e))?)]
    } else {
        let unpacked = unpack(&std::fs::read(path).map_err(|e| named(&e))?);
        let known = path.extension().is_some_and(|e| e == "gz" || e == "tgz" || e == "tar");
        unpacked.map_err(|e| match known {
            true => named(&e),
            false => named(&KINDS),
        })?
    };
    Bundle::of(files).map_err(|e| named(&e))
}

fn directory(
    root: &Path,
    folder: &Path,
    files: &mut Vec<(String, Vec<u8>)>,
) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // OPA leaves out hidden ones, too; a manifest is named so.
        if name.starts_with('.') && name != ".manifest" {
            continue;
        }
        if path.is_dir() {
            directory(root, &path, files)?;
        } else if path.is_file() {
            let below = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            let read = [".rego", ".json", ".manifest", ".yaml", ".yml", ".wasm"];
            if read.iter().any(|end| below.ends_with(end)) {
                files.push((below, std::fs::read(&path)?));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn example(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/why").join(path)
    }

    #[test]
    fn a_directory_and_a_file_are_bundles() {
        let directory = bundle(&example("policies")).unwrap();
        assert_eq!(directory.policies.len(), 4);
        assert_eq!(bundle(&example("policies/envoy.rego")).unwrap().policies.len(), 1);
        let error = bundle(&example("decisions.ndjson")).unwrap_err();
        assert!(error.ends_with(KINDS), "{error}");
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data.json");
        std::fs::write(&data, "{}").unwrap();
        let error = bundle(&data).unwrap_err();
        assert!(!error.contains("cut off") && error.ends_with(KINDS), "{error}");
        assert!(bundle(&example("nothing")).is_err());
    }
}
