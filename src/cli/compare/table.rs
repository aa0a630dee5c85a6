//! The comparison as a table of text.

use super::facts::Facts;
use super::{all, percent, size, speed};

/// A row a file, then a row a format of the cache.
pub(super) fn table(facts: &Facts) -> String {
    let mut rows = vec![
        ["", "size", "bits", "perplexity", "loss", "KL mean", "KL 99%", "same top", "pp t/s", "tg t/s"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for e in all(facts) {
        let d = e.divergence.as_ref();
        let figure = |f: Option<String>| f.unwrap_or_else(|| "-".to_owned());
        let rate = |kind| figure(speed(e, kind).map(|s| format!("{:.1}", s.mean)));
        rows.push(vec![
            e.label.clone(),
            size(e.bytes),
            format!("{:.2}", e.bits_per_weight),
            format!("{:.4}", e.perplexity),
            figure(d.map(|_| percent(e.loss(&facts.source)))),
            figure(d.map(|d| format!("{:.5}", d.kl.mean.value))),
            figure(d.map(|d| format!("{:.4}", d.kl.p99))),
            figure(d.map(|d| format!("{:.2} %", d.top_agreement.value * 100.0))),
            rate("pp"),
            rate("tg"),
        ]);
    }
    let mut text = aligned(&rows);
    let exact: Vec<Vec<String>> = all(facts)
        .filter_map(|e| {
            let a = e.activations.as_ref()?;
            Some(vec![
                e.label.clone(),
                format!("{:.4}", a.exact_perplexity),
                percent(e.perplexity / a.exact_perplexity - 1.0),
                format!("{:.5}", a.divergence.kl.mean.value),
            ])
        })
        .collect();
    if !exact.is_empty() {
        let head = ["8-bit activations", "exact", "loss", "KL mean"].map(str::to_owned).to_vec();
        text += "\n\n";
        text += &aligned(&[vec![head], exact].concat());
    }
    if !facts.cache_quality.is_empty() {
        let mut rows =
            vec![["KV cache", "bytes a token", "perplexity", "loss", "KL mean"].map(str::to_owned).to_vec()];
        for q in &facts.cache_quality {
            rows.push(vec![
                if q.k == q.v { q.k.to_owned() } else { format!("K {} V {}", q.k, q.v) },
                q.bytes_per_token.to_string(),
                format!("{:.4}", q.perplexity),
                percent(q.perplexity / facts.source.perplexity - 1.0),
                format!("{:.5}", q.divergence.kl.mean.value),
            ]);
        }
        text += "\n\n";
        text += &aligned(&rows);
    }
    text
}

/// The first column to the left, all others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(i, cell)| match i {
            0 => format!("{cell:<w$}", w = width(0)),
            _ => format!("{cell:>w$}", w = width(i)),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        assert_eq!(
            aligned(&[row("", "size"), row("Q4_K", "1"), row("é", "22")]),
            "      size\nQ4_K     1\né       22"
        );
    }
}
