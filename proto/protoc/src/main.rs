//! A stand-in for `protoc` that needs no C++: the compiler is the `protox` crate.
//!
//! `etcd-client` compiles its protos in its build script and calls `$PROTOC`. The wrapper script
//! beside this crate (named in `.cargo/config.toml`) builds and runs this program, so that
//! building Weir asks nobody to install a protoc. It understands just what `prost-build` passes:
//! `-I DIR`, `-o FILE`, `--include_imports`, `--include_source_info` and the files.

use std::path::PathBuf;

use anyhow::{Context, bail};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (mut includes, mut files, mut out) = (Vec::new(), Vec::new(), None);
    let (mut imports, mut source_info) = (false, false);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--include_imports" => imports = true,
            "--include_source_info" => source_info = true,
            "-I" => includes.push(PathBuf::from(args.next().context("-I needs a folder")?)),
            "-o" => out = Some(PathBuf::from(args.next().context("-o needs a file")?)),
            other if other.starts_with("-I") => includes.push(PathBuf::from(&other[2..])),
            other if other.starts_with("--descriptor_set_out=") => {
                out = Some(PathBuf::from(&other["--descriptor_set_out=".len()..]));
            }
            other if other.starts_with('-') => bail!("{other} is not supported by this protoc"),
            file => files.push(PathBuf::from(file)),
        }
    }
    let set = protox::Compiler::new(includes)?
        .include_imports(imports)
        .include_source_info(source_info)
        .open_files(files)?
        .encode_file_descriptor_set();
    std::fs::write(out.context("-o is missing")?, set)?;
    Ok(())
}
