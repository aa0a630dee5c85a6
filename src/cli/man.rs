//! `chaski man [COMMAND]`

use clap::CommandFactory;

use super::args::{Cli, ManArgs};
use super::exit::Failure;
use super::output;

pub(super) fn run(args: &ManArgs) -> anyhow::Result<()> {
    let mut chaski = Cli::command();
    chaski.build();
    let command = match &args.command {
        None => chaski,
        Some(name) => {
            let found = chaski.find_subcommand(name).cloned();
            found.ok_or_else(|| Failure::usage(format!("no command is named '{name}'")))?
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .source(concat!("chaski ", env!("CARGO_PKG_VERSION")))
        .manual("chaski manual")
        .render(&mut page)?;
    Ok(output::stdout(|out| out.write_all(&page))?)
}
