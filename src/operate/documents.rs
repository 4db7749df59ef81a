//! Files of documents on their way to the control plane.
//!
//! Every file is read here by the very function that the control plane uses, so that an error
//! comes with the name of its file and the line in it. What is sent are the texts as written.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use weir_model::bounds;
use weir_model::resource::{FieldError, parse_documents};

use crate::exit::{Ended, Exit};
use crate::table;

/// The texts of all files as one stream of documents.
#[derive(Debug)]
pub struct Documents {
    /// To send.
    pub text: String,
    /// How many documents.
    pub count: usize,
}

impl Documents {
    /// Reads files and folders; `-` is standard input.
    ///
    /// # Errors
    /// When a file cannot be read, or with every error of every document.
    pub fn read(paths: &[PathBuf]) -> anyhow::Result<Self> {
        Self::check(&texts(paths)?)
    }

    pub(super) fn check(texts: &[(String, String)]) -> anyhow::Result<Self> {
        let mut errors = Vec::new();
        let mut count = 0;
        for (file, text) in texts {
            // What is read here is thrown away; the control plane makes the ids that stay.
            let mut next_id = || "unsent".to_owned();
            match parse_documents(text, &mut next_id) {
                Ok(documents) => count += documents.len(),
                Err(found) => errors.extend(found.into_iter().map(|error| (file, error))),
            }
        }
        if !errors.is_empty() {
            return Err(Ended::new(Exit::Refused, tell(&errors)).into());
        }
        if count > bounds::APPLY_DOCUMENTS_MAX {
            let max = bounds::APPLY_DOCUMENTS_MAX;
            let message = format!("{count} documents; at most {max} are taken at a time");
            return Err(Ended::new(Exit::Refused, message).into());
        }
        Ok(Self { text: join(texts.iter().map(|(_, text)| text.as_str())), count })
    }
}

/// What files and folders say, with their names; `-` is standard input.
pub(super) fn texts(paths: &[PathBuf]) -> anyhow::Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let text = std::io::read_to_string(std::io::stdin()).context("standard input")?;
            texts.push(("standard input".to_owned(), text));
            continue;
        }
        for file in files_of(path)? {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("read {}", file.display()))?;
            texts.push((file.display().to_string(), text));
        }
    }
    Ok(texts)
}

/// The file itself, or the documents directly in the folder, by name.
fn files_of(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let place = || format!("read {}", path.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).with_context(place)? {
        let file = entry.with_context(place)?.path();
        let known =
            file.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        if known && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        let message = format!("there is no *.yaml, *.yml or *.json in {}", path.display());
        return Err(Ended::new(Exit::Usage, message).into());
    }
    files.sort();
    Ok(files)
}

/// One YAML stream. JSON is written compactly, because as YAML it may not hold tabs.
pub(super) fn join<'a>(texts: impl ExactSizeIterator<Item = &'a str>) -> String {
    let alone = texts.len() == 1;
    let mut stream = String::new();
    for text in texts {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if alone {
            return text.to_owned();
        }
        let said = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        if text.lines().find(said).is_none_or(|line| line.trim_end() != "---") {
            stream += "---\n";
        }
        match serde_json::from_str::<Box<serde_json::value::RawValue>>(text) {
            Ok(_) => stream.extend(text.chars().map(|c| if c == '\t' { ' ' } else { c })),
            Err(_) => stream += text,
        }
        if !stream.ends_with('\n') {
            stream.push('\n');
        }
    }
    stream
}

pub(super) fn tell(errors: &[(&String, FieldError)]) -> String {
    let row = |(file, error): &(&String, FieldError)| {
        vec![(*file).clone(), error.document.clone(), error.path.clone(), error.message.clone()]
    };
    let rows = errors.iter().map(row).collect::<Vec<_>>();
    let header = ["FILE", "DOCUMENT", "PATH", "WHAT TO MEND"];
    let table = table::columns(&header, &rows);
    format!("the documents have errors; nothing was sent\n\n{}", table.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "apiVersion: weir/v1\nkind: Group\nmetadata: {name: NAME}\nspec: {}\n";

    fn group(name: &str) -> String {
        GROUP.replace("NAME", name)
    }

    #[test]
    fn several_files_become_one_stream() {
        let json = "{\n\t\"apiVersion\": \"weir/v1\", \"kind\": \"Group\", \"metadata\": {\"name\": \"c\"}, \"spec\": {}}";
        let texts = [
            ("a".to_owned(), group("a")),
            ("b".to_owned(), format!("# first\n---\n{}", group("b"))),
            ("c".to_owned(), json.to_owned()),
        ];
        let documents = Documents::check(&texts).unwrap();
        assert_eq!(documents.count, 3);
        let again = parse_documents(&documents.text, &mut || "unsent".to_owned()).unwrap();
        let names = again.iter().map(|d| d.resource.key.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn every_error_of_every_file_comes_back_with_its_file() {
        let texts = [
            ("good.yaml".to_owned(), group("a")),
            (
                "kind.yaml".to_owned(),
                "apiVersion: weir/v1\nkind: Pod\nmetadata: {name: x}\nspec: {}\n".to_owned(),
            ),
            ("broken.yaml".to_owned(), "kind: [\n".to_owned()),
        ];
        let error = Documents::check(&texts).unwrap_err();
        assert_eq!(crate::exit::code(&error), Exit::Refused as u8);
        let text = error.to_string();
        assert!(text.contains("kind.yaml") && text.contains("broken.yaml"), "{text}");
        assert!(!text.contains("good.yaml"), "{text}");
    }

    #[test]
    fn a_folder_is_its_documents_by_name_and_an_empty_one_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = Documents::read(&[folder.path().to_owned()]).unwrap_err();
        assert_eq!(crate::exit::code(&error), Exit::Usage as u8);
        for (file, text) in
            [("b.yml", group("b")), ("a.yaml", group("a")), ("notes.txt", "x".into())]
        {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        let documents = Documents::read(&[folder.path().to_owned()]).unwrap();
        assert_eq!(documents.count, 2);
        assert!(documents.text.find("name: a") < documents.text.find("name: b"));
    }
}
