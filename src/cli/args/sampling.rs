use clap::Args;

/// When an answer ends, and the seed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Generation")]
pub struct GenerationArgs {
    /// Tokens to generate; -1 = until the model ends its turn or the context is full
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", default_value_t = -1,
          allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..=i64::from(u32::MAX)))]
    pub predict: i64,
    /// Seed of the sampler; -1 = a new one each time [default: -1]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-1..))]
    pub seed: Option<i64>,
    /// End the answer at this text, which is not printed (may be repeated)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,
    /// Never sample an end-of-generation token
    #[arg(long)]
    pub ignore_eos: bool,
}

/// The sampler chain, with llama.cpp's names and defaults. Absent means the default.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Temperature; 0 = always the likeliest token [default: 0.8]
    #[arg(long, visible_alias = "temperature", value_name = "F", value_parser = finite, allow_negative_numbers = true)]
    pub temp: Option<f32>,
    /// Keep the K likeliest tokens; 0 = all [default: 40]
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub top_k: Option<i32>,
    /// Keep the likeliest tokens that make up this probability; 1 = off [default: 0.95]
    #[arg(long, value_name = "P", value_parser = finite, allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Drop tokens less likely than this share of the likeliest; 0 = off [default: 0.05]
    #[arg(long, value_name = "P", value_parser = finite, allow_negative_numbers = true)]
    pub min_p: Option<f32>,
    /// Locally typical sampling; 1 = off [default: 1]
    #[arg(long, visible_alias = "typical-p", value_name = "P", value_parser = finite, allow_negative_numbers = true)]
    pub typical: Option<f32>,
    /// Keep tokens within N standard deviations of the best logit; negative = off [default: -1]
    #[arg(long, visible_alias = "top-n-sigma", value_name = "N", value_parser = finite, allow_negative_numbers = true)]
    pub top_nsigma: Option<f32>,
    /// Tokens that the penalties look back on; 0 = off, -1 = the context [default: 64]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub repeat_last_n: Option<i32>,
    /// Penalty for repeated tokens; 1 = off [default: 1]
    #[arg(long, value_name = "F", value_parser = finite, allow_negative_numbers = true)]
    pub repeat_penalty: Option<f32>,
    /// Penalty for tokens already present; 0 = off [default: 0]
    #[arg(long, value_name = "F", value_parser = finite, allow_negative_numbers = true)]
    pub presence_penalty: Option<f32>,
    /// Penalty for each time a token is already present; 0 = off [default: 0]
    #[arg(long, value_name = "F", value_parser = finite, allow_negative_numbers = true)]
    pub frequency_penalty: Option<f32>,
    /// DRY: strength of the penalty for repeated sequences; 0 = off [default: 0]
    #[arg(long, value_name = "F", value_parser = finite, allow_negative_numbers = true)]
    pub dry_multiplier: Option<f32>,
    /// DRY: base of the penalty [default: 1.75]
    #[arg(long, value_name = "F", value_parser = finite, allow_negative_numbers = true)]
    pub dry_base: Option<f32>,
    /// DRY: a repetition of this length costs nothing yet [default: 2]
    #[arg(long, value_name = "N")]
    pub dry_allowed_length: Option<u32>,
    /// DRY: tokens to look back on; 0 = off, -1 = the context [default: 64]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub dry_penalty_last_n: Option<i32>,
    /// DRY: text that a repeated sequence may not cross, `\n` for a new line; `none` clears the list (may be repeated)
    /// [default: \n : " *]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub dry_sequence_breaker: Vec<String>,
    /// XTC: chance to drop the likeliest tokens; 0 = off [default: 0]
    #[arg(long, value_name = "P", value_parser = finite, allow_negative_numbers = true)]
    pub xtc_probability: Option<f32>,
    /// XTC: only tokens at least this likely are dropped; above 0.5 = off [default: 0.1]
    #[arg(long, value_name = "P", value_parser = finite, allow_negative_numbers = true)]
    pub xtc_threshold: Option<f32>,
    /// Width of the range in which the temperature follows the entropy; 0 = off [default: 0]
    #[arg(long, value_name = "F", value_parser = finite, allow_negative_numbers = true)]
    pub dynatemp_range: Option<f32>,
    /// Exponent of the same [default: 1]
    #[arg(long, value_name = "F", value_parser = finite, allow_negative_numbers = true)]
    pub dynatemp_exp: Option<f32>,
    /// Mirostat instead of the chain: 0 = off, 1 or 2 = its version [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub mirostat: Option<u8>,
    /// Mirostat: learning rate, eta [default: 0.1]
    #[arg(long, value_name = "F", value_parser = finite, allow_negative_numbers = true)]
    pub mirostat_lr: Option<f32>,
    /// Mirostat: target entropy, tau [default: 5]
    #[arg(long, value_name = "F", value_parser = finite, allow_negative_numbers = true)]
    pub mirostat_ent: Option<f32>,
    /// Add to a token's logit: ID+BIAS or ID-BIAS, such as 15043+1 (may be repeated)
    #[arg(short = 'l', long, value_name = "ID(+/-)BIAS")]
    pub logit_bias: Vec<String>,
    /// The stages and their order, separated by `;`
    /// [default: penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature]
    #[arg(long, value_name = "ORDER")]
    pub samplers: Option<String>,
}

/// A number that is neither NaN nor infinite.
pub(super) fn finite(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| "not a number".to_owned())?;
    if value.is_finite() { Ok(value) } else { Err("not a finite number".into()) }
}
