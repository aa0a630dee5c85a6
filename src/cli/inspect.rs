//! `chaski inspect`: what a file says, without running it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use chaski_gguf::{Format, Gguf};
use serde_json::{Map, json};

use super::args::InspectArgs;
use super::{options, output, show};

pub(super) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let path = args.model.path()?;
    options::check_no_gpu(&args.gpu)?;
    let gguf = Gguf::open(&path)?;
    let totals = Totals::of(&gguf);
    if args.json {
        let value = as_json(&gguf, &totals);
        return Ok(output::stdout(|out| {
            serde_json::to_writer_pretty(&mut *out, &value)?;
            writeln!(out)
        })?);
    }
    Ok(output::stdout(|out| as_text(out, &path, &gguf, &totals, args.placement))?)
}

/// Sums over the tensors.
struct Totals {
    elements: u64,
    bytes: u64,
    /// For every format: how many tensors, and their bytes.
    formats: BTreeMap<Format, (u64, u64)>,
}

impl Totals {
    fn of(gguf: &Gguf) -> Totals {
        let mut totals = Totals { elements: 0, bytes: 0, formats: BTreeMap::new() };
        for tensor in gguf.tensors() {
            totals.elements =
                totals.elements.saturating_add(tensor.shape.iter().copied().fold(1, u64::saturating_mul));
            totals.bytes = totals.bytes.saturating_add(tensor.bytes);
            let (n, bytes) = totals.formats.entry(tensor.format).or_default();
            *n += 1;
            *bytes += tensor.bytes;
        }
        totals
    }
    /// None where there is no weight.
    fn bits_per_weight(&self) -> Option<f64> {
        (self.elements > 0).then(|| self.bytes as f64 * 8.0 / self.elements as f64)
    }
}

fn as_json(gguf: &Gguf, totals: &Totals) -> serde_json::Value {
    let metadata: Map<String, _> =
        gguf.metadata().map(|(key, value)| (key.to_owned(), show::json(value))).collect();
    let tensors: Vec<_> = gguf
        .tensors()
        .iter()
        .map(|t| {
            json!({
                "name": t.name, "format": t.format.to_string(), "shape": t.shape.get(..t.n_dims),
                "offset": t.offset, "bytes": t.bytes, "shard": t.shard,
            })
        })
        .collect();
    let formats: Map<String, _> = totals
        .formats
        .iter()
        .map(|(format, (n, bytes))| (format.to_string(), json!({ "tensors": n, "bytes": bytes })))
        .collect();
    json!({
        "arch": gguf.get("general.architecture").and_then(|v| v.as_str()),
        "version": gguf.version(),
        "metadata": metadata,
        "tensors": tensors,
        "parameters": totals.elements,
        "bytes": totals.bytes,
        "formats": formats,
        "bits_per_weight": totals.bits_per_weight(),
    })
}

fn as_text(
    out: &mut dyn Write,
    path: &Path,
    gguf: &Gguf,
    totals: &Totals,
    placement: bool,
) -> io::Result<()> {
    let arch = gguf.get("general.architecture").and_then(|v| v.as_str()).unwrap_or("not said");
    writeln!(out, "file           {}", path.display())?;
    writeln!(out, "GGUF version   {}", gguf.version())?;
    writeln!(out, "architecture   {arch}")?;
    write!(
        out,
        "weights        {} parameters in {} tensors",
        show::count(totals.elements),
        gguf.tensors().len()
    )?;
    if let Some(bits) = totals.bits_per_weight() {
        write!(out, ", {}, {bits:.2} bits per weight", show::size(totals.bytes))?;
    }
    writeln!(out)?;
    for (format, (n, bytes)) in &totals.formats {
        writeln!(out, "  {:<8} {n:>5} tensors, {}", format.to_string(), show::size(*bytes))?;
    }
    writeln!(out, "\nmetadata")?;
    for (key, value) in gguf.metadata() {
        writeln!(out, "  {key} ({}) = {}", show::type_name(value), show::value(value))?;
    }
    if !gguf.tensors().is_empty() {
        writeln!(out, "\ntensors")?;
    }
    let width = gguf.tensors().iter().map(|t| t.name.chars().count()).max().unwrap_or(0).min(64);
    for tensor in gguf.tensors() {
        let dims: Vec<String> = tensor.shape.iter().take(tensor.n_dims).map(u64::to_string).collect();
        let device = if placement { "  CPU" } else { "" };
        writeln!(
            out,
            "  {:<width$}  {:<7} {:>10}{device}  [{}]",
            tensor.name.escape_debug().to_string(),
            tensor.format.to_string(),
            show::size(tensor.bytes),
            dims.join(", ")
        )?;
    }
    Ok(())
}
