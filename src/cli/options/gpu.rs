//! The GPU flags in a build that has no GPU backend: what asks for a GPU is refused, what asks nothing of it is let pass,
//! and what would have no effect is said.

use crate::cli::args::GpuArgs;
use crate::cli::exit::Failure;

/// Check the GPU flags against the fact that there is no GPU backend.
///
/// # Errors
/// Exit code 2 for a value that no build would understand, 4 where a GPU is asked for.
pub fn check_no_gpu(args: &GpuArgs) -> Result<(), Failure> {
    let none = |flag: &str| {
        Failure::does_not_fit(format!("{flag} asks for a GPU, and this build has no GPU backend"))
    };
    let no_effect = |flag: &str| {
        tracing::warn!("{flag} has no effect: this build has no GPU backend, so no layer is offloaded");
    };
    let layers = args.gpu_layers.as_deref().unwrap_or("auto");
    let asks = match layers {
        "auto" => false,
        "all" => true,
        number => {
            let number = number.parse::<u32>();
            number.map_err(|_| {
                Failure::usage(format!("--gpu-layers {layers}: not a number of layers, `auto` or `all`"))
            })? > 0
        }
    };
    for place in &args.place {
        let (_, device) = place
            .rsplit_once('=')
            .filter(|(glob, _)| !glob.is_empty())
            .ok_or_else(|| Failure::usage(format!("--place {place}: not of the form GLOB=cpu")))?;
        match device {
            "cpu" => no_effect(&format!("--place '{place}'")),
            "gpu" => return Err(none(&format!("--place '{place}'"))),
            other => {
                return Err(Failure::usage(format!("--place {place}: '{other}' is neither cpu nor gpu")));
            }
        }
    }
    if let Some(size) = &args.gpu_memory {
        parse_size(size).map_err(|why| Failure::usage(format!("--gpu-memory {size}: {why}")))?;
        no_effect("--gpu-memory");
    }
    match args.device.as_deref() {
        Some("none") if asks => {
            return Err(Failure::usage(format!(
                "--device none and --gpu-layers {layers} contradict each other"
            )));
        }
        Some("none") | None => {}
        Some(name) => return Err(none(&format!("--device {name}"))),
    }
    if asks {
        return Err(none(&format!("--gpu-layers {layers}")));
    }
    // Nothing is offloaded, so nothing in an offloaded layer falls back: the promise of --strict-gpu is kept, emptily.
    let flags = [
        (args.strict_gpu, "--strict-gpu"),
        (args.no_kv_offload, "--no-kv-offload"),
        (args.gpu_exact, "--gpu-exact"),
    ];
    for (given, flag) in flags {
        if given {
            no_effect(flag);
        }
    }
    Ok(())
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

    fn nothing() -> GpuArgs {
        GpuArgs {
            gpu_layers: None,
            device: None,
            strict_gpu: false,
            place: Vec::new(),
            no_kv_offload: false,
            gpu_memory: None,
            gpu_exact: false,
        }
    }

    fn exit(change: impl FnOnce(&mut GpuArgs)) -> Exit {
        let mut args = nothing();
        change(&mut args);
        check_no_gpu(&args).map_or_else(|e| exit_of(&e.into()), |()| Exit::Done)
    }

    #[test]
    fn only_what_asks_for_a_gpu_is_refused() {
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
    fn what_no_build_understands_is_wrong_usage() {
        for layers in ["-1", "many", "", "1.5", "99999999999"] {
            assert_eq!(exit(|a| a.gpu_layers = Some(layers.into())), Exit::Usage, "{layers}");
        }
        for place in ["", "=cpu", "blk", "blk.*=npu"] {
            assert_eq!(exit(|a| a.place = vec![place.into()]), Exit::Usage, "{place}");
        }
        assert_eq!(exit(|a| a.gpu_memory = Some("3 bananas".into())), Exit::Usage);
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
