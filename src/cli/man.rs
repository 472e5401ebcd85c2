//! `docket man`: a manual page for each command.

use std::path::Path;

use super::{CommandResult, commands};

pub fn write(folder: &Path) -> CommandResult {
    std::fs::create_dir_all(folder)
        .map_err(|e| format!("{} can't be made: {e}", folder.display()))?;
    let wrong =
        |path: &Path, e: std::io::Error| format!("{} can't be written: {e}", path.display());
    clap_mangen::generate_to(commands(), folder).map_err(|e| wrong(folder, e))?;
    for entry in std::fs::read_dir(folder).map_err(|e| wrong(folder, e))? {
        let path = entry.map_err(|e| wrong(folder, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("docket") && name.ends_with(".1") {
            let page = std::fs::read_to_string(&path).map_err(|e| wrong(&path, e))?;
            std::fs::write(&path, with_examples(&page)).map_err(|e| wrong(&path, e))?;
        }
    }
    Ok(())
}

/// A manual page whose examples stand as they are, to be copied: neither filled nor hyphenated.
fn with_examples(page: &str) -> String {
    let (mut out, mut inside, mut verbatim) = (String::new(), false, false);
    for line in page.lines() {
        if let Some(section) = line.strip_prefix(".SH ") {
            inside = section.trim_matches('"') == "EXTRA";
        }
        let example = inside && line.starts_with("  ");
        if example != verbatim {
            out.push_str(if example { ".nh\n.nf\n" } else { ".fi\n" });
            verbatim = example;
        }
        let heading = inside && line.starts_with(".SH ");
        out.push_str(if heading { ".SH EXAMPLES AND MORE" } else { line });
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_manual_pages_stand_as_they_are() {
        let page = ".SH NAME\n  x\n.SH EXTRA\nExamples:\n  docket a   b\n  docket c\n\nMore.\n.SH VERSION\n1\n";
        let told = ".SH NAME\n  x\n.SH EXAMPLES AND MORE\nExamples:\n.nh\n.nf\n  docket a   b\n  docket c\n.fi\n\nMore.\n.SH VERSION\n1\n";
        assert_eq!(with_examples(page), told);
    }
}
