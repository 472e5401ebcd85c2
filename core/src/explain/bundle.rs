//! A bundle as OPA loads it (openpolicyagent.org, "Bundles"): policies, `data.json` and `data.yaml` files below their folders, and a
//! manifest; from the files of a directory or a `bundle.tar.gz`.

use serde_json::{Map, Value};

use super::yaml;
use crate::decision::formats::gunzip;
use crate::rego::SourceFile;

#[derive(Debug, Clone, Default)]
pub struct Bundle {
    pub policies: Vec<SourceFile>,
    pub data: Value,
    /// Of the manifest.
    pub revision: Option<String>,
    /// What is in it that is not read: modules of WebAssembly.
    pub unread: Vec<String>,
}

impl Bundle {
    /// Of files by their paths within it.
    pub fn of(files: Vec<(String, Vec<u8>)>) -> Result<Bundle, String> {
        let mut bundle = Bundle { data: Value::Object(Map::new()), ..Bundle::default() };
        let mut files = files;
        files.sort();
        for (path, bytes) in files {
            let path = path.trim_start_matches("./").trim_start_matches('/').to_owned();
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let text =
                || String::from_utf8(bytes.clone()).map_err(|_| format!("{path} is not UTF-8"));
            let json =
                || serde_json::from_slice::<Value>(&bytes).map_err(|e| format!("{path}: {e}"));
            if name.ends_with("_test.rego") {
                continue;
            } else if name.ends_with(".rego") {
                bundle.policies.push(SourceFile { text: text()?, name: path.clone() });
            } else if name == ".manifest" {
                let manifest = json()?;
                bundle.revision = manifest["revision"].as_str().map(str::to_owned);
            } else if matches!(name, "data.json" | "data.yaml" | "data.yml") {
                let data = match name {
                    "data.json" => json()?,
                    _ => yaml::read(&text()?).map_err(|e| format!("{path}: {e}"))?,
                };
                if !data.is_object() {
                    return Err(format!("{path}: it must hold an object, as OPA has it"));
                }
                let below = folder.split('/').filter(|part| !part.is_empty()).rev();
                let data = below.fold(data, |value, part| {
                    Value::Object(Map::from_iter([(part.to_owned(), value)]))
                });
                merge(&mut bundle.data, data);
            } else if name.ends_with(".wasm") {
                bundle.unread.push(path.clone());
            }
        }
        if bundle.policies.is_empty() {
            return Err("it holds no .rego file".into());
        }
        Ok(bundle)
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Bytes of an archive's files, decompressed.
const LIMIT: usize = 1 << 30;

/// The files of a tar archive (POSIX 1003.1 ustar and pax, GNU's long names), gzipped or not.
pub fn unpack(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let plain;
    let mut rest = match bytes.starts_with(&[0x1f, 0x8b]) {
        true => {
            plain = gunzip(bytes, LIMIT).map_err(|e| e.detail)?.0;
            &plain[..]
        }
        false => bytes,
    };
    let (mut files, mut long) = (Vec::new(), None);
    while !rest.is_empty() {
        let (head, after) = rest.split_at_checked(512).ok_or("it is cut off")?;
        if head.iter().all(|b| *b == 0) {
            break;
        }
        if &head[257..262] != b"ustar" {
            return Err("it is no tar archive".into());
        }
        let text = |range: std::ops::Range<usize>| {
            let field = &head[range];
            let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).trim().to_owned()
        };
        let size = usize::from_str_radix(&text(124..136), 8).map_err(|_| "a size is no number")?;
        let content = after.get(..size).ok_or("it is cut off")?;
        rest = after.get(size.div_ceil(512) * 512..).unwrap_or_default();
        match head[156] {
            b'L' => {
                let name = String::from_utf8_lossy(content);
                long = Some(name.trim_end_matches('\0').to_owned());
            }
            b'x' => long = pax_path(content).or(long),
            b'0' | 0 => {
                let name = long.take().unwrap_or_else(|| match text(345..500) {
                    prefix if prefix.is_empty() => text(0..100),
                    prefix => format!("{prefix}/{}", text(0..100)),
                });
                files.push((name, content.to_vec()));
            }
            _ => long = None,
        }
    }
    Ok(files)
}

/// `path` of a pax header: lines of length, name and value.
fn pax_path(content: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(content).ok()?;
    text.lines().find_map(|line| line.split_once(" path=").map(|(_, path)| path.to_owned()))
}
