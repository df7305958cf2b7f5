//! What a shared library says about itself, as `readelf` prints it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// Parts of an ELF file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Elf {
    /// As `AArch64`.
    pub(crate) machine: String,
    /// Alignment of each loaded segment, in bytes.
    pub(crate) alignments: Vec<u64>,
    /// Names of defined dynamic symbols, with versions, as `OrtGetApiBase@@VERS_1.31.1`.
    pub(crate) exported: Vec<String>,
}

impl Elf {
    /// Reads a library.
    ///
    /// # Errors
    /// No `readelf`, or no ELF file.
    pub(crate) fn read(library: &Path) -> Result<Self> {
        let readelf = |options: &[&str]| {
            process::stdout_of(Command::new("readelf").args(options).arg(library))
        };
        let header = readelf(&["--wide", "--file-header", "--program-headers"])?;
        let symbols = readelf(&["--wide", "--dyn-syms"])?;
        parse(&header, &symbols).with_context(|| library.display().to_string())
    }

    /// The version of an exported symbol; empty where it has none.
    pub(crate) fn version_of(&self, symbol: &str) -> Option<&str> {
        let of = |name: &String| name.split('@').next() == Some(symbol);
        let name = self.exported.iter().find(|name| of(name))?;
        Some(name.rsplit_once('@').map_or("", |(_, version)| version))
    }
}

fn parse(header: &str, symbols: &str) -> Result<Elf> {
    let machine = header
        .lines()
        .find_map(|line| line.trim().strip_prefix("Machine:"));
    let loads = header
        .lines()
        .map(str::trim)
        .filter(|l| l.starts_with("LOAD "));
    let alignments = loads.map(|line| {
        let last = line.split_whitespace().last().unwrap_or_default();
        u64::from_str_radix(last.trim_start_matches("0x"), 16)
            .with_context(|| format!("no alignment in {line:?}"))
    });
    let exported = symbols.lines().filter_map(|line| {
        // Num: Value Size Type Bind Vis Ndx Name
        let fields: Vec<&str> = line.split_whitespace().collect();
        let defined = fields.len() >= 8 && fields[6] != "UND" && fields[4] != "LOCAL";
        defined.then(|| fields[7].to_owned())
    });
    Ok(Elf {
        machine: machine
            .context("no machine in the header")?
            .trim()
            .to_owned(),
        alignments: alignments.collect::<Result<_>>()?,
        exported: exported.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readelf_prints_is_read() {
        let header = "ELF Header:\n  Machine:                           AArch64\n\
            Program Headers:\n  Type  Offset VirtAddr PhysAddr FileSiz MemSiz Flg Align\n  \
            LOAD           0x000000 0x0000000000000000 0x0000000000000000 0x12e4 0x12e4 R   0x4000\n  \
            LOAD           0x0012e8 0x00000000000052e8 0x00000000000052e8 0x22 0x22 R E 0x1000\n  \
            DYNAMIC        0x0012e8 0x00000000000052e8 0x00000000000052e8 0x22 0x22 RW  0x8\n";
        let symbols = "   Num:    Value          Size Type    Bind   Vis      Ndx Name\n     \
            0: 0000000000000000     0 NOTYPE  LOCAL  DEFAULT  UND \n     \
            1: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND malloc@LIBC (2)\n     \
            2: 0000000000012340    12 FUNC    GLOBAL DEFAULT   14 OrtGetApiBase@@VERS_1.26.0\n     \
            3: 0000000000012350    12 FUNC    GLOBAL DEFAULT   14 plain\n";
        let elf = parse(header, symbols).expect("parses");
        assert_eq!(elf.machine, "AArch64");
        assert_eq!(elf.alignments, [0x4000, 0x1000]);
        assert_eq!(elf.version_of("OrtGetApiBase"), Some("VERS_1.26.0"));
        assert_eq!(elf.version_of("plain"), Some(""));
        assert_eq!(elf.version_of("malloc"), None);
        assert!(parse("", "").is_err());
    }
}
