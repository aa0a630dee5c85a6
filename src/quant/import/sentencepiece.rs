//! `tokenizer.model`: SentencePiece's protobuf, as far as a vocabulary is concerned.
//!
//! A message is a list of fields: a varint `number << 3 | wire type`, then a varint (0), 8 bytes (1), a length and as many bytes
//! (2), or 4 bytes (5). Of `ModelProto` (<https://github.com/google/sentencepiece>, `sentencepiece_model.proto`): 1 the pieces
//! (1 text, 2 score, 3 kind), 2 the trainer (3 the algorithm), 3 the normalizer (3 a space before a text).

use std::path::Path;

use super::ImportError;
use super::json::{Json, read_bytes};
use super::vocab::{Kind, Tokens, Vocabulary, looks_special};

/// Trained as byte-pair encoding (`TrainerSpec.ModelType`).
const BPE: u64 = 2;
/// The score of a token that was added later, and that of one that only fills up the vocabulary: llama.cpp's.
const ADDED_SCORE: f32 = -1000.0;
const UNUSED_SCORE: f32 = -10000.0;

/// A reader of one message.
struct Message<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A field's value.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
    Fixed64,
}

impl<'a> Message<'a> {
    fn new(bytes: &'a [u8]) -> Message<'a> {
        Message { bytes, at: 0 }
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(n)?;
        let bytes = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else { return None };
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Some(value);
            }
        }
        None
    }

    /// The next field; `Ok(None)` at the end, the place of the fault where the bytes are none.
    fn next(&mut self) -> Result<Option<(u64, Wire<'a>)>, usize> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let at = self.at;
        self.field().map(Some).ok_or(at)
    }

    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Wire::Fixed64
            }
            2 => {
                let n = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(n)?)
            }
            5 => Wire::Fixed32(self.take(4)?.try_into().ok()?),
            _ => return None,
        };
        Some((tag >> 3, wire))
    }
}

/// A piece of the vocabulary.
#[derive(Debug, PartialEq)]
struct Piece {
    text: String,
    score: f32,
    kind: Kind,
}

/// What is read of the file.
#[derive(Debug, Default, PartialEq)]
struct Model {
    pieces: Vec<Piece>,
    /// 1 where the file does not say: unigram.
    algorithm: u64,
    space_before: bool,
}

/// Parse the file; what is wrong, and at which byte.
fn parse(bytes: &[u8]) -> Result<Model, (String, usize)> {
    let broken = |at: usize| ("is no message of protobuf".to_owned(), at);
    let mut model = Model { pieces: Vec::new(), algorithm: 1, space_before: true };
    let mut file = Message::new(bytes);
    while let Some((number, wire)) = file.next().map_err(broken)? {
        let Wire::Bytes(inner) = wire else { continue };
        let start = file.at - inner.len();
        let mut message = Message::new(inner);
        let mut piece = Piece { text: String::new(), score: 0.0, kind: Kind::Normal };
        while let Some((field, wire)) = message.next().map_err(|at| broken(start + at))? {
            match (number, field, wire) {
                (1, 1, Wire::Bytes(text)) => {
                    let text = std::str::from_utf8(text);
                    let why = format!("piece {} is not UTF-8", model.pieces.len());
                    text.map_err(|_| (why, start))?.clone_into(&mut piece.text);
                }
                (1, 2, Wire::Fixed32(score)) => piece.score = f32::from_le_bytes(score),
                (1, 3, Wire::Number(kind)) => {
                    let why = format!("piece {} is of kind {kind}", model.pieces.len());
                    piece.kind = Kind::from_id(kind).ok_or((why, start))?;
                }
                (2, 3, Wire::Number(algorithm)) => model.algorithm = algorithm,
                (3, 3, Wire::Number(yes)) => model.space_before = yes != 0,
                _ => {}
            }
        }
        if number == 1 {
            if !piece.score.is_finite() {
                return Err((format!("piece {} has the score {}", model.pieces.len(), piece.score), start));
            }
            model.pieces.push(piece);
        }
    }
    Ok(model)
}

/// The vocabulary of `tokenizer.model`, with the tokens that were added to it later.
pub(super) fn read(folder: &Path, n_vocab: u64) -> Result<Vocabulary, ImportError> {
    let path = folder.join("tokenizer.model");
    let bytes = read_bytes(&path)?.unwrap_or_default();
    let bad = |why: String| ImportError::bad(&path, "the file", why);
    let model = parse(&bytes).map_err(|(why, at)| bad(format!("{why} (byte offset {at})")))?;
    if model.pieces.is_empty() {
        return Err(bad("holds no pieces: it is no SentencePiece model".into()));
    }
    if model.algorithm != BPE {
        let why = format!(
            "its algorithm is number {} (2 is byte-pair encoding): unigrams cannot be imported",
            model.algorithm
        );
        return Err(bad(why));
    }
    let mut tokens = Tokens::new(n_vocab);
    let mut scores = vec![UNUSED_SCORE; n_vocab as usize];
    for (id, piece) in (0..).zip(model.pieces) {
        tokens.set(id, &piece.text, piece.kind).map_err(&bad)?;
        if let Some(score) = scores.get_mut(id as usize) {
            *score = piece.score;
        }
    }
    let mut add = |path: &Path, name: &str, id: u64, text: &str, special: bool| -> Result<(), ImportError> {
        if id >= n_vocab {
            tracing::warn!(
                "token {text:?} was added with the id {id}, for which the embedding has no row: left out"
            );
            return Ok(());
        }
        // What the model steers by keeps its kind.
        if tokens.text(id) == Some(text) && !matches!(tokens.kind(id), Some(Kind::Normal | Kind::Unused)) {
            return Ok(());
        }
        let control = special || looks_special(text);
        // Such a token is matched as it is written, not with visible spaces.
        let text = if control { text.to_owned() } else { text.replace('\u{2581}', " ") };
        let kind = if control { Kind::Control } else { Kind::UserDefined };
        tokens
            .replace(id, &text, kind)
            .map_err(|why| ImportError::bad(path, format!("field {name}"), why))?;
        if let Some(score) = scores.get_mut(id as usize) {
            *score = ADDED_SCORE;
        }
        Ok(())
    };
    if let Some(added) = Json::read_if_there(&folder.join("added_tokens.json"))? {
        for text in added
            .root()
            .value()
            .and_then(serde_json::Value::as_object)
            .into_iter()
            .flat_map(serde_json::Map::keys)
        {
            let id = added.get(text).need_count()?.into();
            add(&folder.join("added_tokens.json"), text, id, text, false)?;
        }
    }
    let path = folder.join("tokenizer_config.json");
    if let Some(config) = Json::read_if_there(&path)? {
        let decoder = config.get("added_tokens_decoder");
        for id in
            decoder.value().and_then(serde_json::Value::as_object).into_iter().flat_map(serde_json::Map::keys)
        {
            let entry = decoder.get(id);
            let number = id.parse::<u64>().map_err(|_| entry.bad("is no token id"))?;
            let special = entry.get("special").flag()?.unwrap_or(false);
            add(
                &path,
                &format!("added_tokens_decoder.{id}"),
                number,
                entry.get("content").need_text()?,
                special,
            )?;
        }
    }
    Ok(Vocabulary {
        scores: Some(scores),
        add_space_prefix: Some(model.space_before),
        ..Vocabulary::new("llama", "default", tokens)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_and_damage_is_told_with_its_place() {
        let piece = |text: &[u8], score: f32, kind: u8| {
            let mut inner = vec![0x0A, text.len() as u8];
            inner.extend(text);
            inner.push(0x15);
            inner.extend(score.to_le_bytes());
            inner.extend([0x18, kind]);
            [&[0x0A, inner.len() as u8][..], &inner].concat()
        };
        let mut bytes = [piece(b"<unk>", 0.0, 2), piece("\u{2581}a".as_bytes(), -1.5, 1)].concat();
        bytes.extend([0x12, 2, 0x18, 2]);
        bytes.extend([0x1A, 2, 0x18, 0]);
        let model = parse(&bytes).unwrap();
        assert_eq!((model.algorithm, model.space_before), (BPE, false));
        assert_eq!(model.pieces[1], Piece { text: "\u{2581}a".into(), score: -1.5, kind: Kind::Normal });
        assert_eq!(model.pieces[0].kind, Kind::Unknown);
        for (bytes, says) in [
            (bytes[..bytes.len() - 1].to_vec(), "no message"),
            (vec![0x0A, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255], "no message"),
            (piece(b"\xFF", 0.0, 1), "not UTF-8"),
            (piece(b"a", f32::NAN, 1), "NaN"),
            (piece(b"a", 0.0, 9), "kind 9"),
        ] {
            let (why, _) = parse(&bytes).unwrap_err();
            assert!(why.contains(says), "{why} should say {says}");
        }
    }
}
