//! Read a file (or a split set) and write it again: `cargo run --release -p chaski-gguf --example rewrite IN OUT`.

use chaski_gguf::{Error, Gguf, Writer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, target] = arguments.as_slice() else { return Err("usage: rewrite IN OUT".into()) };
    let bytes = rewrite(source, target)?;
    println!("{target}: {bytes} bytes");
    Ok(())
}

fn rewrite(source: &str, target: &str) -> Result<u64, Error> {
    Writer::copy_of(&Gguf::open(source)?)?.save(target)
}
