//! `docket schema`: the JSON Schema of the pipeline file, for editors.

use serde_json::Value;

use super::CommandResult;
use crate::pipeline::check;

/// Print the JSON Schema of the pipeline file, for editors.
#[derive(clap::Args)]
#[command(
    long_about = "Print the JSON Schema of the pipeline file, for editors: they complete settings, show what each means, and mark what is wrong \
while it is typed. The schema is that of this docket; `docket check` holds files to it, and to what a schema can't say.",
    after_help = "Examples:
  docket schema > docket.schema.json
  docket schema | jq '.\"$defs\".Loki.properties | map_values(.description)'

In VS Code, with the YAML extension, and in other editors with its language server, this line at the top of a pipeline file is enough:
  # yaml-language-server: $schema=./docket.schema.json"
)]
pub struct Args {}

pub fn run(_: &Args) -> CommandResult {
    let mut schema = check::schema();
    describe(&mut schema);
    anstream::println!("{}", serde_json::to_string_pretty(&schema)?);
    Ok(())
}

/// Says of the member that tells kinds apart which it is.
fn describe(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if let Some(kind) = members.get_mut("properties").and_then(|p| p.get_mut("type"))
                && let Some(of) = kind.get("const").and_then(Value::as_str)
                && kind.get("description").is_none()
            {
                kind["description"] = format!("Kind: {of}.").into();
            }
            members.values_mut().for_each(describe);
        }
        Value::Array(elements) => elements.iter_mut().for_each(describe),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Properties without a description of their own, or of what they refer to.
    fn undescribed(schema: &Value, root: &Value, path: &str, out: &mut Vec<String>) {
        let described = |property: &Value| {
            let mut property = property;
            loop {
                if property["description"].as_str().is_some_and(|d| d.len() > 5) {
                    return true;
                }
                // `anyOf: [{$ref}, {type: null}]` is how an option is written.
                let reference = property["$ref"].as_str().or(property["anyOf"][0]["$ref"].as_str());
                match reference.and_then(|r| root.pointer(r.strip_prefix('#')?)) {
                    Some(target) => property = target,
                    None => return false,
                }
            }
        };
        match schema {
            Value::Object(members) => {
                for (name, inner) in members {
                    let path = format!("{path}/{name}");
                    // The names in it are settings, which may have names like those of a schema.
                    if let ("properties", Value::Object(properties)) = (name.as_str(), inner) {
                        for (name, property) in properties {
                            if !described(property) {
                                out.push(format!("{path}/{name}"));
                            }
                            undescribed(property, root, &format!("{path}/{name}"), out);
                        }
                    } else {
                        undescribed(inner, root, &path, out);
                    }
                }
            }
            Value::Array(elements) => {
                for (i, inner) in elements.iter().enumerate() {
                    undescribed(inner, root, &format!("{path}/{i}"), out);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn every_property_has_a_description() {
        let mut schema = check::schema();
        describe(&mut schema);
        let mut missing = Vec::new();
        undescribed(&schema, &schema, "", &mut missing);
        assert_eq!(missing, Vec::<String>::new());
        // It can fail.
        schema["properties"]["planted"] = serde_json::json!({ "type": "string" });
        undescribed(&schema, &schema, "", &mut missing);
        assert_eq!(missing, ["/properties/planted"]);
    }
}
