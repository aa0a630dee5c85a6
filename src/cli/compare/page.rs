//! The report: one HTML file with everything in it, made of the facts alone.

use std::fmt::Write as _;

use super::facts::{CacheQuality, Entry, Facts};
use super::plot::{Axis, Plot, Point, Series, escape};
use super::{all, percent, size, speed};

const STYLE: &str = include_str!("page.css");
/// Tensors of each file that the report shows: those that lost most.
const WORST: usize = 8;
/// Losses that the report names the smallest file for.
const LOSSES: [f64; 3] = [0.001, 0.01, 0.05];

/// The page.
pub(super) fn page(facts: &Facts) -> String {
    let title = format!("{} in {} formats", facts.model, facts.entries.len());
    let mut body = format!("<h1>{}</h1>", escape(&title));
    body += &about(facts);
    body += &choices(facts);
    body += &section("Figures", &figures(facts));
    body += &section("Plots", &plots(facts));
    body += &activations(facts);
    body += &cache(facts);
    body += &section("Tensors", &tensors(facts));
    body += &section("What the figures mean", DEFINITIONS);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         {body}\n</main>\n</body>\n</html>\n",
        escape(&title)
    )
}

fn section(title: &str, content: &str) -> String {
    format!("\n<section><h2>{title}</h2>\n{content}</section>")
}

fn about(facts: &Facts) -> String {
    let (t, m) = (&facts.text, &facts.machine);
    let exact = if m.cpu_exact { ", float activations" } else { "" };
    let calibrated = facts.calibration.as_ref().map_or_else(String::new, |c| {
        let same = "; <strong>it is the text that they are scored by, so their figures flatter them</strong>";
        let same = if c.scored_too { same } else { "" };
        let name = escape(&c.name);
        format!(
            "<p class=\"soft\">Calibrated files were calibrated on {name} ({} windows of {} tokens){same}.</p>",
            c.windows, c.ctx
        )
    });
    let [k, v] = &facts.cache;
    let cache = if k == v { k.clone() } else { format!("K {k}, V {v}") };
    format!(
        "<p class=\"soft\">Scored by {} ({} windows of {} tokens, {} tokens scored); cache {cache}{exact}; {} kernels, {} threads \
         ({} for prompts); chaski {}, {}. The raw figures are in the JSON file beside this one.</p>{calibrated}",
        escape(&t.name),
        t.windows,
        t.ctx,
        t.scored_tokens,
        escape(&m.isa),
        m.threads,
        m.threads_batch,
        facts.chaski,
        escape(&facts.made)
    )
}

/// The smallest file for each of some losses.
fn choices(facts: &Facts) -> String {
    let mut items = String::new();
    for loss in LOSSES {
        let good = facts.entries.iter().filter(|e| e.loss(&facts.source) <= loss);
        if let Some(e) = good.min_by_key(|e| e.bytes) {
            let _ = write!(
                items,
                "<li>At most {} % of perplexity lost: <strong>{}</strong>, {} ({}).</li>",
                loss * 100.0,
                escape(&e.label),
                size(e.bytes),
                percent(e.loss(&facts.source))
            );
        }
    }
    if items.is_empty() { items } else { format!("<p>The smallest of these files with</p><ul>{items}</ul>") }
}

/// A table: heads, then rows whose first cell is a head. Cells are HTML.
fn rows(caption: &str, heads: &[&str], rows: &[Vec<String>]) -> String {
    let heads: Vec<String> = heads.iter().map(|h| format!("<th scope=\"col\">{h}</th>")).collect();
    let heads = heads.concat();
    let row = |cells: &Vec<String>| {
        let cell = |(i, cell): (usize, &String)| match i {
            0 => format!("<th scope=\"row\">{cell}</th>"),
            _ if cell.starts_with("<td") => cell.clone(),
            _ => format!("<td>{cell}</td>"),
        };
        format!("<tr>{}</tr>", cells.iter().enumerate().map(cell).collect::<String>())
    };
    let body: String = rows.iter().map(row).collect();
    let caption = if caption.is_empty() { String::new() } else { format!("<caption>{caption}</caption>") };
    format!(
        "<div class=\"wide\"><table>{caption}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>\n"
    )
}

fn pm(value: f64, stderr: Option<f64>, digits: usize) -> String {
    let error = stderr.map_or_else(String::new, |s| format!(" <small>&plusmn; {s:.digits$}</small>"));
    format!("{value:.digits$}{error}")
}

fn figures(facts: &Facts) -> String {
    let row = |e: &Entry| {
        let d = e.divergence.as_ref();
        let or = |f: Option<String>| f.unwrap_or_else(|| "&ndash;".to_owned());
        let rate = |kind| or(speed(e, kind).map(|s| pm(s.mean, Some(s.stddev), 1)));
        vec![
            escape(&e.label),
            size(e.bytes),
            format!("{:.2}", e.bits_per_weight),
            pm(e.perplexity, Some(e.stderr), 3),
            or(d.map(|d| {
                let ratio = &d.ln_perplexity_ratio;
                let stderr = ratio
                    .stderr
                    .map_or_else(String::new, |s| format!(" <small>&plusmn; {:.2}</small>", s * 100.0));
                format!("{}{stderr}", percent(e.loss(&facts.source)))
            })),
            or(d.map(|d| pm(d.kl.mean.value, d.kl.mean.stderr, 5))),
            or(d.map(|d| format!("{:.5}", d.kl.median))),
            or(d.map(|d| format!("{:.4}", d.kl.p90))),
            or(d.map(|d| format!("{:.4}", d.kl.p99))),
            or(d.map(|d| format!("{:.4}", d.kl.p999))),
            or(d.map(|d| format!("{:.3}", d.kl.max))),
            or(d.map(|d| {
                let scaled = d.top_agreement.stderr.map(|s| s * 100.0);
                format!("{} %", pm(d.top_agreement.value * 100.0, scaled, 2))
            })),
            or(d.map(|d| format!("{:.2} %", d.top_probability_rms.value * 100.0))),
            rate("pp"),
            rate("tg"),
            or(e.quantize_seconds.map(|s| format!("{s:.1} s"))),
        ]
    };
    let test = |kind: &str| speed(&facts.source, kind).map_or_else(|| kind.to_owned(), |s| s.test.clone());
    let (pp, tg) = (format!("{} t/s", test("pp")), format!("{} t/s", test("tg")));
    let heads = [
        "",
        "Size",
        "Bits a weight",
        "Perplexity",
        "Loss",
        "KL mean",
        "median",
        "90 %",
        "99 %",
        "99.9 %",
        "max",
        "Same top token",
        "&Delta;p top",
        pp.as_str(),
        tg.as_str(),
        "Made in",
    ];
    rows("", &heads, &all(facts).map(row).collect::<Vec<_>>())
}

fn figure(title: &str, hint: &str, plot: &Plot) -> String {
    let hint = if hint.is_empty() { String::new() } else { format!("<small>{hint}</small>") };
    format!("<figure><figcaption>{title}{hint}</figcaption>{}{}</figure>\n", plot.legend(), plot.svg())
}

/// Bytes in a unit that all of them suit: the unit and its size.
fn unit(bytes: impl Iterator<Item = u64>) -> (&'static str, f64) {
    match bytes.max().unwrap_or(0) {
        0..1_048_576 => ("KiB", 1024.0),
        1_048_576..1_073_741_824 => ("MiB", 1_048_576.0),
        _ => ("GiB", 1_073_741_824.0),
    }
}

/// A plot of something against the size of the files, a series a method.
fn by_size(
    facts: &Facts,
    title: &str,
    y: Axis,
    level: Option<(f64, String)>,
    with_source: bool,
    value: impl Fn(&Entry) -> Option<f64>,
) -> Plot {
    let shown = || all(facts).filter(|e| with_source || e.divergence.is_some());
    let (name, scale) = unit(shown().map(|e| e.bytes));
    let sizes: Vec<f64> = shown().map(|e| e.bytes as f64 / scale).collect();
    let mut series: Vec<Series> = Vec::new();
    for e in shown() {
        let Some(y) = value(e) else { continue };
        let label = if e.method == "source" { e.format.clone() } else { e.label.clone() };
        let tip = format!("{}: {}, {y:.5}", e.label, size(e.bytes));
        let point = Point { x: e.bytes as f64 / scale, y, label, tip };
        let method = match e.method.as_str() {
            "source" => "source".to_owned(),
            "nearest" => "rounded".to_owned(),
            "imatrix" => "rounded with an importance matrix".to_owned(),
            "file" => "a file that was there".to_owned(),
            other => format!("rounded by {}", other.replace('+', ", ")),
        };
        if let Some(s) = series.iter_mut().find(|s| s.name == method) {
            s.points.push(point);
        } else {
            let number = series.len();
            series.push(Series { name: method, number, points: vec![point], line: true });
        }
    }
    for s in &mut series {
        s.points.sort_by(|a, b| a.x.total_cmp(&b.x));
    }
    let x = Axis::linear(&format!("Size ({name})"), &sizes, true);
    Plot { title: title.to_owned(), x, y, series, names: false, level }
}

fn plots(facts: &Facts) -> String {
    let values = |f: &dyn Fn(&Entry) -> Option<f64>| -> Vec<f64> { all(facts).filter_map(f).collect() };
    let mut html = String::from("<div class=\"plots\">\n");
    let perplexity = |e: &Entry| Some(e.perplexity);
    let y = Axis::linear("Perplexity", &values(&perplexity), false);
    let level = Some((facts.source.perplexity, facts.source.label.clone()));
    html += &figure(
        "Perplexity against size",
        "Lower and further to the left is better.",
        &by_size(facts, "Perplexity against size", y, level, false, perplexity),
    );
    let kl = |e: &Entry| e.divergence.as_ref().map(|d| d.kl.mean.value);
    let y = Axis::log("Mean KL divergence (nats)", &values(&kl));
    html += &figure(
        "KL divergence from the source against size",
        "Lower and further to the left is better; each step of the axis is a factor.",
        &by_size(facts, "KL divergence against size", y, None, false, kl),
    );
    for (kind, title) in
        [("tg", "Speed of generation against size"), ("pp", "Speed of reading a prompt against size")]
    {
        let rate = |e: &Entry| speed(e, kind).map(|s| s.mean);
        let rates = values(&rate);
        if !rates.is_empty() {
            let y = Axis::linear("Tokens a second", &rates, true);
            html += &figure(title, "Higher is better.", &by_size(facts, title, y, None, true, rate));
        }
    }
    html += &per_layer(facts);
    html += &cache_memory(facts);
    html + "</div>\n"
}

/// The error of the weights, layer by layer.
fn per_layer(facts: &Facts) -> String {
    let lossy = facts.entries.iter().filter(|e| e.layers.iter().any(|l| l.noise_to_signal > 0.0));
    let series: Vec<Series> = lossy
        .enumerate()
        .map(|(number, e)| {
            let points = e.layers.iter().filter(|l| l.noise_to_signal > 0.0).map(|l| {
                let y = l.noise_to_signal.sqrt() * 100.0;
                let tip = format!("{}, layer {}: {y:.3} %", e.label, l.layer);
                Point { x: l.layer as f64, y, label: String::new(), tip }
            });
            Series { name: e.label.clone(), number, points: points.collect(), line: true }
        })
        .collect();
    if series.is_empty() {
        return String::new();
    }
    let of =
        |f: fn(&Point) -> f64| -> Vec<f64> { series.iter().flat_map(|s| s.points.iter().map(f)).collect() };
    let (x, y) = (whole("Layer", &of(|p| p.x)), Axis::log("Error (% of the weights' size)", &of(|p| p.y)));
    let title = "Error of the weights, layer by layer";
    let plot = Plot { title: title.to_owned(), x, y, series, names: true, level: None };
    figure(title, "Root of the mean square of the error over that of the weights; lower is better.", &plot)
}

/// An axis over whole numbers.
fn whole(title: &str, values: &[f64]) -> Axis {
    // Steps of a half where there are few would be marked by the same number twice.
    let most = values.iter().copied().fold(0.0, f64::max);
    Axis::linear(title, &[0.0, most.max(4.0)], true).until(most.max(1.0))
}

/// What the cache takes at each length of the context.
fn cache_memory(facts: &Facts) -> String {
    let n_ctx = facts.n_ctx_train.max(1) as f64;
    let all = |f: &super::facts::CacheMemory| (f.bytes_per_token as f64 * n_ctx) as u64;
    let (name, scale) = unit(facts.cache_memory.iter().map(all));
    // Formats that take the same are one line.
    let mut kinds: Vec<(u64, String)> = Vec::new();
    for c in &facts.cache_memory {
        match kinds.iter_mut().find(|(bytes, _)| *bytes == c.bytes_per_token) {
            Some((_, names)) => *names = format!("{names}, {}", c.format),
            None => kinds.push((c.bytes_per_token, c.format.to_owned())),
        }
    }
    let series: Vec<Series> = kinds
        .into_iter()
        .enumerate()
        .map(|(number, (bytes, name))| {
            let at = |x: f64| {
                let y = bytes as f64 * x / scale;
                Point { x, y, label: String::new(), tip: String::new() }
            };
            Series { name, number, points: [0.0, n_ctx].map(at).to_vec(), line: true }
        })
        .collect();
    let of =
        |f: fn(&Point) -> f64| -> Vec<f64> { series.iter().flat_map(|s| s.points.iter().map(f)).collect() };
    let x = Axis::linear("Context (tokens)", &of(|p| p.x), true).until(n_ctx);
    let y = Axis::linear(&format!("KV cache ({name})"), &of(|p| p.y), true);
    let title = "Memory of the KV cache against context";
    let plot = Plot { title: title.to_owned(), x, y, series, names: true, level: None };
    figure(
        title,
        "K and V in the same format, all layers, up to the context that the model was trained for.",
        &plot,
    )
}

fn activations(facts: &Facts) -> String {
    let row = |e: &Entry| {
        let a = e.activations.as_ref()?;
        let d = &a.divergence;
        Some(vec![
            escape(&e.label),
            format!("{:.4}", a.exact_perplexity),
            format!("{:.4}", e.perplexity),
            percent(e.perplexity / a.exact_perplexity - 1.0),
            pm(d.kl.mean.value, d.kl.mean.stderr, 6),
            format!("{:.5}", d.kl.p99),
            format!("{:.2} %", d.top_agreement.value * 100.0),
        ])
    };
    let found: Vec<Vec<String>> = all(facts).filter_map(row).collect();
    if found.is_empty() {
        return String::new();
    }
    let heads = ["", "Float activations", "8 bits", "Loss", "KL mean", "99 %", "Same top token"];
    let caption = "The same file with activations left alone (<code>--cpu-exact</code>) and, as by default, rounded to 8 bits before \
                   they meet quantized weights.";
    section("Activations rounded to 8 bits", &rows(caption, &heads, &found))
}

fn cache(facts: &Facts) -> String {
    let found = &facts.cache_quality;
    if found.is_empty() {
        return String::new();
    }
    let loss = |q: &CacheQuality| percent(q.perplexity / facts.source.perplexity - 1.0);
    let row = |q: &CacheQuality| {
        vec![
            if q.k == q.v { q.k.to_owned() } else { format!("K {}, V {}", q.k, q.v) },
            q.bytes_per_token.to_string(),
            format!("{:.4}", q.perplexity),
            loss(q),
            pm(q.divergence.kl.mean.value, q.divergence.kl.mean.stderr, 6),
            format!("{:.5}", q.divergence.kl.p99),
            format!("{:.2} %", q.divergence.top_agreement.value * 100.0),
        ]
    };
    let heads = ["", "Bytes a token", "Perplexity", "Loss", "KL mean", "99 %", "Same top token"];
    let caption = format!("{} with a cache of these formats.", escape(&facts.source.label));
    let list = rows(&caption, &heads, &found.iter().map(row).collect::<Vec<_>>());
    let mut content = pairs(facts).unwrap_or_default();
    let series = Series {
        name: String::new(),
        number: 0,
        points: found
            .iter()
            .map(|q| {
                let name = if q.k == q.v { q.k.to_owned() } else { format!("K {} V {}", q.k, q.v) };
                let (x, y) = (q.bytes_per_token as f64, q.divergence.kl.mean.value);
                let label = if q.k == q.v { name.clone() } else { String::new() };
                Point { x, y, label, tip: format!("{name}: {x} bytes a token, KL {y:.6}") }
            })
            .filter(|p| p.y > 0.0)
            .collect(),
        line: false,
    };
    if !series.points.is_empty() {
        let of = |f: fn(&Point) -> f64| -> Vec<f64> { series.points.iter().map(f).collect() };
        let x = Axis::linear("Bytes a token", &of(|p| p.x), true);
        let y = Axis::log("Mean KL divergence (nats)", &of(|p| p.y));
        let title = "What a smaller cache costs";
        let plot = Plot { title: title.to_owned(), x, y, series: vec![series], names: false, level: None };
        let _ = write!(
            content,
            "<div class=\"plots\">{}</div>",
            figure(title, "Lower and further to the left is better.", &plot)
        );
    }
    let list = if content.contains("heat") {
        format!("<details><summary>All figures</summary>{list}</details>")
    } else {
        list
    };
    section("Formats of the KV cache", &(content + &list))
}

/// The table of pairs: a row a format of K, a column a format of V; none where there are no pairs.
fn pairs(facts: &Facts) -> Option<String> {
    let found = &facts.cache_quality;
    found.iter().find(|q| q.k != q.v)?;
    let mut formats: Vec<&str> = Vec::new();
    for q in found {
        if !formats.contains(&q.k) {
            formats.push(q.k);
        }
    }
    let worst = found.iter().map(|q| q.divergence.kl.mean.value).fold(0.0, f64::max);
    let cell = |k: &&str, v: &&str| match found.iter().find(|q| q.k == *k && q.v == *v) {
        None => "<td></td>".to_owned(),
        Some(q) => {
            let kl = q.divergence.kl.mean.value;
            // The root, so that small ones differ too.
            let heat = if worst > 0.0 { (kl / worst).sqrt() * 60.0 } else { 0.0 };
            let loss = percent(q.perplexity / facts.source.perplexity - 1.0);
            format!("<td class=\"heat\" style=\"--heat:{heat:.0}%\">{loss}<br><small>{kl:.5}</small></td>")
        }
    };
    let row = |k: &&str| -> Vec<String> {
        std::iter::once(format!("K {k}")).chain(formats.iter().map(|v| cell(k, v))).collect()
    };
    let heads: Vec<String> =
        std::iter::once(String::new()).chain(formats.iter().map(|v| format!("V {v}"))).collect();
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let caption = "Perplexity lost, and below it the mean KL divergence, for every pair: a row a format of K, a column a format of V.";
    Some(rows(caption, &heads, &formats.iter().map(row).collect::<Vec<_>>()))
}

/// The tensors that lost most, file by file.
fn tensors(facts: &Facts) -> String {
    let mut html = String::from(
        "<p>Measures of the difference between weights before and after. The tensors that lost most; all of them are in the JSON \
         file.</p>\n",
    );
    let scaled: Vec<String> =
        facts.entries.iter().filter(|e| e.is_scaled()).map(|e| escape(&e.label)).collect();
    if !scaled.is_empty() {
        let _ = writeln!(
            html,
            "<p>Not of {}: scales of their channels are folded from tensor to tensor, so that these cannot be held against the \
             source's one by one.</p>",
            scaled.join(" and ")
        );
    }
    for e in &facts.entries {
        let mut worst: Vec<_> = e.tensors.iter().filter_map(|t| Some((t.measures.snr_db?, t))).collect();
        worst.sort_by(|a, b| a.0.total_cmp(&b.0));
        let row = |(snr, t): &(f64, &super::facts::TensorFacts)| {
            let m = &t.measures;
            let columns =
                m.worst_columns.iter().take(2).map(|(at, share)| format!("{at} ({:.1} %)", share * 100.0));
            vec![
                format!("<code>{}</code>", escape(&t.name)),
                format!("{} &rarr; {}", t.from, t.to),
                format!("{snr:.2}"),
                format!("{:.2e}", m.mse),
                format!("{:.6}", m.cosine),
                format!("{:.3} %", m.saturated * 100.0),
                columns.collect::<Vec<_>>().join(", "),
            ]
        };
        let found: Vec<Vec<String>> = worst.iter().take(WORST).map(row).collect();
        if found.is_empty() {
            continue;
        }
        let heads = ["", "Format", "SNR dB", "MSE", "Cosine", "Saturated", "Worst columns"];
        let _ = write!(
            html,
            "<details><summary>{}</summary>{}</details>",
            escape(&e.label),
            rows("", &heads, &found)
        );
    }
    html
}

const DEFINITIONS: &str = "<dl>
<dt>Ways of rounding</dt><dd>Without more, the scales of each block are searched for the least error of its weights. imatrix: each squared \
error is weighted by the mean square of the activations that meet its column. gptq: columns are rounded one after another, each error made \
good by those not yet rounded, as second moments of the activations of a calibration text tell. awq: channels that meet strong \
activations are scaled up before they are rounded; smooth: channels are scaled so that activations are even; the scales are folded into \
what comes before.</dd>
<dt>Perplexity</dt><dd>exp of the mean of &minus;ln p(token) over the scored tokens, by llama.cpp's definition: windows of the text, the \
second half of each scored. &plusmn; is the standard error of the mean, times the perplexity.</dd>
<dt>Loss</dt><dd>PPL / PPL(source) &minus; 1. Its &plusmn; is the standard error of the mean of the paired differences of ln p, so it is far \
smaller than that of either perplexity.</dd>
<dt>KL divergence</dt><dd>&Sigma; p ln(p / q) in nats, p the source's distribution over the next token, q the file's; over the source's most \
likely tokens, all others taken as one (which makes it a lower bound). 0 is the same distribution.</dd>
<dt>Same top token</dt><dd>The share of tokens where both find the same token the most likely.</dd>
<dt>&Delta;p top</dt><dd>The root of the mean square of q &minus; p for the source's most likely token.</dd>
<dt>Error</dt><dd>&radic;(&Sigma;(x &minus; y)&sup2; / &Sigma;x&sup2;), x the weights before, y after. SNR is the same in decibels: &minus;20 log10 of \
it. Saturated values lie outside what their group of 32 decodes to by more than half a step.</dd>
<dt>Speed</dt><dd>Tokens a second over a prompt that is read (pp) and tokens that are generated (tg), without sampling; the mean of three \
repetitions &plusmn; standard deviation. Another program on the machine shows in it.</dd>
</dl>\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_suits_the_largest() {
        assert_eq!(unit([5 << 20, 14 << 20].into_iter()).0, "MiB");
        assert_eq!(unit([5 << 30].into_iter()).0, "GiB");
        assert_eq!(unit(std::iter::empty()).0, "KiB");
    }
}
