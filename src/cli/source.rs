//! Where a command's model comes from: a file, or the one that is part of the program.

use std::fmt;
use std::path::{Path, PathBuf};

use chaski_gguf::{Gguf, OpenOptions, OwnedValue};

use super::exit::Failure;
use super::options::EngineOptions;
use crate::demo;

/// What a command takes for MODEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A file, or any shard of a split set.
    File(PathBuf),
    /// The embedded model.
    Embedded(&'static [u8]),
}

impl ModelSource {
    /// What was typed for MODEL: `demo` is the embedded model (a file of that name is `./demo`), all else a path.
    ///
    /// # Errors
    /// Nothing was typed, or `demo` in a build that has no embedded model.
    pub fn new(typed: Option<PathBuf>) -> Result<ModelSource, Failure> {
        ModelSource::among(typed, demo::bytes())
    }

    /// As [`ModelSource::new`], where nothing typed means the embedded model.
    ///
    /// # Errors
    /// The embedded model is meant, and this build has none.
    pub fn or_embedded(typed: Option<PathBuf>) -> Result<ModelSource, Failure> {
        match (typed, demo::bytes()) {
            (None, Some(bytes)) => Ok(ModelSource::Embedded(bytes)),
            (typed, embedded) => ModelSource::among(typed, embedded),
        }
    }

    fn among(typed: Option<PathBuf>, embedded: Option<&'static [u8]>) -> Result<ModelSource, Failure> {
        const LACKS: &str = "this build has no embedded model (it was built without the feature `demo`)";
        let name = demo::NAME;
        match (typed, embedded) {
            (Some(path), Some(bytes)) if path.as_os_str() == name => Ok(ModelSource::Embedded(bytes)),
            (Some(path), None) if path.as_os_str() == name => {
                Err(Failure::usage(format!("{name}: {LACKS}; a file of that name is ./{name}")))
            }
            (Some(path), _) => Ok(ModelSource::File(path)),
            (None, Some(_)) => Err(Failure::usage(format!(
                "which model? Name a GGUF file (MODEL, or -m MODEL), or `{name}` for the embedded model"
            ))),
            (None, None) => {
                Err(Failure::usage(format!("which model? Name a GGUF file (MODEL, or -m MODEL); {LACKS}")))
            }
        }
    }

    /// The path of the file; none for the embedded model.
    pub fn path(&self) -> Option<&Path> {
        match self {
            ModelSource::File(path) => Some(path),
            ModelSource::Embedded(_) => None,
        }
    }

    /// Open it and put the overrides of the command line above what it says. Without `mmap` a file is read into memory;
    /// the embedded model is there already.
    ///
    /// # Errors
    /// It cannot be read or is no GGUF file, or an override cannot be made.
    pub fn open(&self, mmap: bool, overrides: &[(String, OwnedValue)]) -> anyhow::Result<Gguf> {
        let opened = match self {
            ModelSource::File(path) => Gguf::open_with(path, &OpenOptions { mmap }),
            ModelSource::Embedded(bytes) => Gguf::from_static(bytes),
        };
        let mut gguf = opened.map_err(|error| self.named(error))?;
        for (key, value) in overrides {
            if gguf.get(key).is_none() {
                tracing::warn!("--override-kv {key}: the file has no such key; it is added");
            }
            gguf.override_value(key, value.clone())
                .map_err(|error| Failure::usage(format!("--override-kv {key}")).because(error))?;
        }
        Ok(gguf)
    }

    /// Say of which model an error tells, where it does not do so itself.
    pub fn named<E>(&self, error: E) -> anyhow::Error
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let name = self.to_string();
        if error.to_string().contains(&name) { error.into() } else { anyhow::Error::new(error).context(name) }
    }

    /// The options that hold for this model. The embedded one is part of the program, which the system has mapped: what the
    /// flags say of files is told to have no effect.
    pub fn suited(&self, options: &EngineOptions) -> EngineOptions {
        let mut suited = options.clone();
        if matches!(self, ModelSource::Embedded(_)) {
            for (flag, given) in [("--no-mmap", !options.mmap), ("--mlock", options.mlock)] {
                if given {
                    tracing::warn!("{flag} has no effect: {self} is part of the program, there is no file");
                }
            }
            (suited.mmap, suited.mlock) = (true, false);
        }
        suited
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelSource::File(path) => write!(f, "{}", path.display()),
            ModelSource::Embedded(_) => write!(f, "{} (embedded)", demo::NAME),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Option<&[u8]> = Some(b"GGUF");

    fn typed(word: &str, embedded: Option<&'static [u8]>) -> Result<ModelSource, String> {
        ModelSource::among(Some(word.into()), embedded).map_err(|failure| failure.to_string())
    }

    #[test]
    fn demo_is_the_embedded_model_and_nothing_else_is() {
        assert_eq!(typed("demo", SOME).unwrap().to_string(), "demo (embedded)");
        for file in ["./demo", "demo.gguf", "folder/demo", "Demo", ""] {
            assert_eq!(typed(file, SOME), Ok(ModelSource::File(file.into())));
        }
    }

    #[test]
    fn a_build_without_it_says_so() {
        let said = typed("demo", None).unwrap_err();
        assert!(said.contains("no embedded model") && said.contains("./demo"), "{said}");
        assert_eq!(typed("./demo", None), Ok(ModelSource::File("./demo".into())));
        let said = ModelSource::among(None, None).unwrap_err().to_string();
        assert!(said.starts_with("which model?") && said.contains("no embedded model"), "{said}");
    }

    #[test]
    fn who_names_no_model_hears_of_the_embedded_one() {
        let said = ModelSource::among(None, SOME).unwrap_err().to_string();
        assert!(said.starts_with("which model?") && said.contains("`demo`"), "{said}");
    }
}
