//! Split sets: a model in several files, named `NAME-00001-of-00003.gguf` and so on. Any of them opens all.

use std::path::Path;

use crate::read::Shard;
use crate::{Error, Gguf, OpenOptions, Result, keys};

/// Which file of how many this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// From 0.
    no: usize,
    count: usize,
    /// Tensors of the whole set, where the file says it.
    n_tensors: Option<u64>,
}

impl Place {
    /// The place that a file gives itself; none if it stands alone.
    pub fn of(file: &Gguf) -> Result<Option<Self>> {
        let Some(count) = file.u16_at(keys::SPLIT_COUNT)? else { return Ok(None) };
        let no = file.u16_at(keys::SPLIT_NO)?;
        if count <= 1 && no.unwrap_or(0) == 0 {
            return Ok(None);
        }
        let Some(no) = no else { return Err(Error::MissingKey { key: keys::SPLIT_NO.to_owned() }) };
        if no >= count {
            let why = format!("is {no}, but {} is {count}, and the numbers begin at 0", keys::SPLIT_COUNT);
            return Err(file.bad_key(keys::SPLIT_NO, why));
        }
        Ok(Some(Self { no: no.into(), count: count.into(), n_tensors: file.u64(keys::SPLIT_TENSORS_COUNT)? }))
    }

    /// Open the files beside `path` and put the set together. Only names in the same folder are formed.
    pub fn open_set(self, file: Gguf, path: &Path, options: OpenOptions) -> Result<Gguf> {
        let prefix = self.prefix(&file, path)?;
        let sibling = |no: usize| path.with_file_name(format!("{prefix}{}", suffix(no, self.count)));
        let mut missing = (0..self.count).filter(|no| *no != self.no).map(sibling).filter(|p| !p.exists());
        let listed: Vec<String> = missing.by_ref().take(LISTED).map(|p| file_name(&p).into()).collect();
        if !listed.is_empty() {
            let more = match missing.count() {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            let why = format!(
                "is file {} of a split set of {}; missing beside it: {}{more}",
                self.no + 1,
                self.count,
                listed.join(", ")
            );
            return Err(Error::unsupported(path.display().to_string(), why));
        }
        let mut given = Some(file.into_first());
        let mut first = None;
        let mut others = Vec::new();
        for no in 0..self.count {
            let taken = if no == self.no { given.take() } else { None };
            let shard = match taken {
                Some(mut shard) => {
                    shard.header.tensors.iter_mut().for_each(|t| t.shard = no);
                    shard
                }
                None => self
                    .open_sibling(no, &sibling(no), options)
                    .map_err(|source| Error::Shard { path: sibling(no), source: Box::new(source) })?,
            };
            if first.is_none() { first = Some(shard) } else { others.push(shard) }
        }
        let Some(first) = first else {
            return Err(Error::unsupported(path.display().to_string(), "is a split set without files"));
        };
        let set = Gguf::assemble(first, others)?;
        let found = set.tensors().len() as u64;
        match set.u64(keys::SPLIT_TENSORS_COUNT)?.or(self.n_tensors) {
            Some(n) if n != found => Err(set.bad_key(
                keys::SPLIT_TENSORS_COUNT,
                format!("is {n}, but the {} files of the set have {found} tensors", self.count),
            )),
            _ => Ok(set),
        }
    }

    fn open_sibling(self, no: usize, path: &Path, options: OpenOptions) -> Result<Shard> {
        let file = Gguf::assemble(Shard::open(path, options, no)?, Vec::new())?;
        match Place::of(&file)? {
            Some(place) if place.no == no && place.count == self.count => Ok(file.into_first()),
            Some(place) => Err(file.bad_key(
                keys::SPLIT_NO,
                format!(
                    "and {} say {} of {}; by its name it should be {no} of {}",
                    keys::SPLIT_COUNT,
                    place.no,
                    place.count,
                    self.count
                ),
            )),
            None => Err(Error::MissingKey { key: keys::SPLIT_COUNT.to_owned() }),
        }
    }

    /// What the names of all files of the set begin with, from the name of this one.
    fn prefix(self, file: &Gguf, path: &Path) -> Result<String> {
        let own = suffix(self.no, self.count);
        match file_name(path).strip_suffix(own.as_str()) {
            Some(prefix) => Ok(prefix.to_owned()),
            None => Err(file.bad_key(
                keys::SPLIT_NO,
                format!(
                    "says that this is file {} of a set of {}, but the name of {} does not end in {own}, by which \
                     the others are found",
                    self.no + 1,
                    self.count,
                    path.display()
                ),
            )),
        }
    }
}

/// The end of the name of file `no` (from 0): in names they are numbered from 1.
fn suffix(no: usize, count: usize) -> String {
    format!("-{:05}-of-{count:05}.gguf", no + 1)
}

/// The last part of a path; empty if it is not UTF-8, which then matches no pattern.
fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|n| n.to_str()).unwrap_or_default()
}

/// At most this many missing files are listed by name.
const LISTED: usize = 16;

impl Gguf {
    fn u16_at(&self, key: &str) -> Result<Option<u16>> {
        match self.u64(key)? {
            None => Ok(None),
            Some(n) => n
                .try_into()
                .map(Some)
                .map_err(|_| self.bad_key(key, format!("is {n}, more files than a set can have"))),
        }
    }
}
