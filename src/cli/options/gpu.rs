//! The GPU flags: what they ask for together, what asks for a GPU where there is none (which is refused), and what would have
//! no effect (which is said).

use std::fmt;

use crate::cli::args::GpuArgs;
use crate::cli::exit::Failure;
use crate::engine::GpuLayers;
use crate::quant::Glob;

/// Weights placed by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which ones.
    pub glob: Glob,
    /// Whether they go to the GPU, or stay on the CPU.
    pub gpu: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--place '{}={}'", self.glob, if self.gpu { "gpu" } else { "cpu" })
    }
}

/// What is asked of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuOptions {
    /// How many layers go there.
    pub layers: GpuLayers,
    /// `--device none`: no GPU whatever there is.
    pub none: bool,
    /// The adapter, by a part of its name or its number.
    pub device: Option<String>,
    /// A fallback to the CPU is an error.
    pub strict: bool,
    /// Placements by name; the first that matches a weight holds.
    pub places: Vec<Place>,
    /// Caches go where their layers are.
    pub kv: bool,
    /// Bytes that may be taken, at most.
    pub memory: Option<u64>,
    /// Float activations.
    pub exact: bool,
}

impl GpuOptions {
    /// What the flags mean.
    ///
    /// # Errors
    /// Exit code 2 for a value that makes no sense, or flags that contradict each other.
    pub fn new(args: &GpuArgs) -> Result<GpuOptions, Failure> {
        let typed = args.gpu_layers.as_deref().unwrap_or("auto");
        let layers = match typed {
            "auto" => GpuLayers::Auto,
            "all" => GpuLayers::All,
            number => GpuLayers::Count(number.parse::<u32>().map_err(|_| {
                Failure::usage(format!("--gpu-layers {typed}: not a number of layers, `auto` or `all`"))
            })? as usize),
        };
        let places = args.place.iter().map(|typed| place(typed)).collect::<Result<_, _>>()?;
        let memory = match &args.gpu_memory {
            None => None,
            Some(size) => {
                Some(parse_size(size).map_err(|why| Failure::usage(format!("--gpu-memory {size}: {why}")))?)
            }
        };
        let none = args.device.as_deref() == Some("none");
        let options = GpuOptions {
            layers,
            none,
            device: args.device.clone().filter(|_| !none),
            strict: args.strict_gpu,
            places,
            kv: !args.no_kv_offload,
            memory,
            exact: args.gpu_exact,
        };
        match options.asks() {
            Some(flag) if none => {
                Err(Failure::usage(format!("--device none and {flag} contradict each other")))
            }
            _ => Ok(options),
        }
    }

    /// The flag that asks for a GPU, so that it is an error to have none.
    pub fn asks(&self) -> Option<String> {
        let layers = match self.layers {
            GpuLayers::Auto | GpuLayers::Count(0) => None,
            GpuLayers::Count(n) => Some(format!("--gpu-layers {n}")),
            GpuLayers::All => Some("--gpu-layers all".into()),
        };
        let place = || self.places.iter().find(|place| place.gpu).map(ToString::to_string);
        let device = || self.device.as_ref().map(|name| format!("--device {name}"));
        layers.or_else(place).or_else(device)
    }

    /// Whether nothing is to be offloaded, whatever there is: `-ngl 0` and `--device none` without a word to the contrary.
    pub fn is_off(&self) -> bool {
        self.none || (self.layers == GpuLayers::Count(0) && !self.places.iter().any(|place| place.gpu))
    }

    /// Nothing is offloaded, for this reason: say which flags have no effect.
    ///
    /// # Errors
    /// Exit code 4 where a flag asks for a GPU all the same.
    pub fn without(&self, why: &str) -> Result<(), Failure> {
        if let Some(flag) = self.asks().filter(|_| !self.is_off()) {
            return Err(Failure::does_not_fit(format!("{flag} asks for a GPU, and {why}")));
        }
        for flag in self.idle() {
            tracing::warn!("{flag} has no effect: no layer is offloaded ({why})");
        }
        Ok(())
    }

    /// The flags that say something of offloaded layers only. (Where there are none, none of their ops falls back: the
    /// promise of --strict-gpu is kept, emptily.)
    pub fn idle(&self) -> Vec<String> {
        let device = self.device.as_ref().map(|name| format!("--device {name}"));
        let flags = [
            (self.strict, "--strict-gpu"),
            (!self.kv, "--no-kv-offload"),
            (self.memory.is_some(), "--gpu-memory"),
            (self.exact, "--gpu-exact"),
        ];
        let given = flags.into_iter().filter(|(given, _)| *given).map(|(_, flag)| flag.to_owned());
        let places = self.places.iter().filter(|place| !place.gpu).map(ToString::to_string);
        device.into_iter().chain(given).chain(places).collect()
    }
}

fn place(typed: &str) -> Result<Place, Failure> {
    let (glob, device) = typed
        .rsplit_once('=')
        .filter(|(glob, _)| !glob.is_empty())
        .ok_or_else(|| Failure::usage(format!("--place {typed}: not of the form GLOB=cpu or GLOB=gpu")))?;
    let gpu = match device {
        "cpu" => false,
        "gpu" => true,
        other => return Err(Failure::usage(format!("--place {typed}: '{other}' is neither cpu nor gpu"))),
    };
    Ok(Place { glob: Glob::new(glob), gpu })
}

/// Read a size such as `512MiB`, `3GiB`, `5.5G` or `1000000` in bytes.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const UNITS: &[(&str, u32)] =
        &[("", 0), ("b", 0), ("k", 10), ("kib", 10), ("m", 20), ("mib", 20), ("g", 30), ("gib", 30)];
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, shift) =
        UNITS.iter().find(|(name, _)| *name == unit).ok_or("the unit is none of KiB, MiB, GiB")?;
    let number: f64 = number.parse().map_err(|_| "not a size such as 3GiB")?;
    let bytes = number * f64::from(1u32 << shift);
    if bytes.is_finite() && bytes < 2f64.powi(63) { Ok(bytes as u64) } else { Err("too large".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::{Exit, exit_of};

    /// What comes of flags on a machine without a GPU.
    fn exit(change: impl FnOnce(&mut GpuArgs)) -> Exit {
        let mut args = GpuArgs::default();
        change(&mut args);
        let without = GpuOptions::new(&args).and_then(|options| options.without("there is none"));
        without.map_or_else(|e| exit_of(&e.into()), |()| Exit::Done)
    }

    #[test]
    fn only_what_asks_for_a_gpu_is_refused_where_there_is_none() {
        for (layers, wanted) in
            [("0", Exit::Done), ("auto", Exit::Done), ("1", Exit::DoesNotFit), ("all", Exit::DoesNotFit)]
        {
            assert_eq!(exit(|a| a.gpu_layers = Some(layers.into())), wanted, "{layers}");
        }
        assert_eq!(exit(|a| a.device = Some("llvmpipe".into())), Exit::DoesNotFit);
        assert_eq!(exit(|a| a.device = Some("none".into())), Exit::Done);
        assert_eq!(exit(|a| a.strict_gpu = true), Exit::Done);
        assert_eq!(exit(|a| a.place = vec!["blk.*=cpu".into()]), Exit::Done);
        assert_eq!(exit(|a| a.place = vec!["blk.*=gpu".into()]), Exit::DoesNotFit);
    }

    #[test]
    fn what_makes_no_sense_is_wrong_usage() {
        for layers in ["-1", "many", "", "1.5", "99999999999"] {
            assert_eq!(exit(|a| a.gpu_layers = Some(layers.into())), Exit::Usage, "{layers}");
        }
        for place in ["", "=cpu", "blk", "blk.*=npu"] {
            assert_eq!(exit(|a| a.place = vec![place.into()]), Exit::Usage, "{place}");
        }
        assert_eq!(exit(|a| a.gpu_memory = Some("3 bananas".into())), Exit::Usage);
        let contradiction = |a: &mut GpuArgs| {
            a.device = Some("none".into());
            a.place = vec!["blk.*=gpu".into()];
        };
        assert_eq!(exit(contradiction), Exit::Usage);
    }

    #[test]
    fn flags_of_offloaded_layers_are_named_where_there_are_none() {
        let options = GpuOptions::new(&GpuArgs {
            gpu_layers: Some("0".into()),
            device: Some("radeon".into()),
            strict_gpu: true,
            place: vec!["blk.1.*=cpu".into()],
            no_kv_offload: true,
            gpu_memory: Some("1GiB".into()),
            gpu_exact: true,
        })
        .unwrap();
        assert!(options.is_off());
        let flags = ["--device radeon", "--strict-gpu", "--no-kv-offload", "--gpu-memory", "--gpu-exact"];
        assert_eq!(options.idle(), [&flags[..], &["--place 'blk.1.*=cpu'"]].concat());
    }

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        assert_eq!(parse_size("3GiB"), Ok(3 << 30));
        assert_eq!(parse_size("5.5G"), Ok(11 << 29));
        assert_eq!(parse_size("512 MiB"), Ok(512 << 20));
        assert_eq!(parse_size("1000"), Ok(1000));
        for bad in ["", "GiB", "-1", "1.2.3", "9999999999999GiB", "1TB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
