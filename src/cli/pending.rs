//! A file that takes its name when it is whole: until then it lies under another one, and goes away if it never gets there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::exit::Failure;

/// A file under way.
#[derive(Debug)]
pub(super) struct Pending {
    path: PathBuf,
    growing: PathBuf,
    out: Option<BufWriter<File>>,
}

impl Pending {
    /// Begin a file. `not` are the inputs, none of which it may replace.
    ///
    /// # Errors
    /// No file can be there, or it would replace an input.
    pub(super) fn create(path: &Path, not: &[&Path]) -> Result<Pending, Failure> {
        let refused = |why: &str| Err(Failure::usage(format!("{}: {why}", path.display())));
        let Some(name) = path.file_name() else { return refused("is no name of a file") };
        if let Ok(own) = fs::canonicalize(path) {
            if own.is_dir() {
                return refused("is a folder; name the file in it");
            }
            if not.iter().filter_map(|p| fs::canonicalize(p).ok()).any(|p| p == own) {
                return refused("is an input of this command; the output needs another name");
            }
        }
        if path.parent().is_some_and(|folder| folder != Path::new("") && !folder.is_dir()) {
            return refused("its folder is not there");
        }
        let mut partial = OsString::from(name);
        partial.push(".partial");
        let growing = path.with_file_name(partial);
        let file = File::create(&growing).map_err(|error| cannot_write(path).because(error))?;
        Ok(Pending { path: path.to_owned(), growing, out: Some(BufWriter::with_capacity(1 << 18, file)) })
    }

    /// Everything is written: give it its name. What was there under it is replaced.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn keep(mut self) -> Result<(), Failure> {
        let whole = self.out.take().map_or(Ok(()), |mut out| {
            out.flush()
                .and_then(|()| out.get_ref().sync_all())
                .and_then(|()| fs::rename(&self.growing, &self.path))
        });
        if whole.is_err() {
            let _ = fs::remove_file(&self.growing);
        }
        whole.map_err(|error| cannot_write(&self.path).because(error))
    }
}

fn cannot_write(path: &Path) -> Failure {
    Failure::failed(format!("cannot write {}", path.display()))
}

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.as_mut().map_or(Err(io::ErrorKind::NotConnected.into()), |out| out.write(bytes))
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.out.take().is_some() {
            let _ = fs::remove_file(&self.growing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_when_it_is_whole_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let names = || fs::read_dir(folder.path()).unwrap().count();
        let mut dropped = Pending::create(&path, &[]).unwrap();
        dropped.write_all(b"half").unwrap();
        assert_eq!((path.exists(), names()), (false, 1));
        drop(dropped);
        assert_eq!(names(), 0);
        let mut kept = Pending::create(&path, &[]).unwrap();
        kept.write_all(b"whole").unwrap();
        kept.keep().unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names()), ("whole", 1));
    }

    #[test]
    fn folders_and_inputs_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (input, nowhere) = (folder.path().join("in"), folder.path().join("no/out"));
        fs::write(&input, "x").unwrap();
        for (path, not) in [(folder.path(), None), (&*input, Some(&*input)), (&*nowhere, None)] {
            let not: Vec<&Path> = not.into_iter().collect();
            let refused = Pending::create(path, &not).unwrap_err();
            assert_eq!(super::super::exit::exit_of(&refused.into()), super::super::exit::Exit::Usage);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
