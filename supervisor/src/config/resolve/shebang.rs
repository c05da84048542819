//! What a file is by its first bytes: a program, or a script and its interpreter, as the kernel decides it (execve(2)).

use std::io::Read;
use std::path::Path;

use super::program::NoProgram;
use crate::config::source::regular;

/// Bytes of a file that the kernel reads to see what it is (BINPRM_BUF_SIZE).
const HEAD: usize = 256;

/// The interpreter that a file's ending calls for.
pub(super) fn interpreter_for(name: &str) -> Option<&'static str> {
    let ending = Path::new(name).extension()?.to_str()?;
    match ending {
        "py" => Some("python3"),
        "js" | "mjs" | "cjs" => Some("node"),
        "sh" => Some("sh"),
        "rb" => Some("ruby"),
        "pl" => Some("perl"),
        _ => None,
    }
}

/// What a file is.
pub(super) enum Head {
    Elf,
    Script { interpreter: String, argument: Option<String> },
}

/// What a file is, by its first bytes, as the kernel decides it.
pub(super) fn head(program: &Path) -> Result<Head, NoProgram> {
    let refuse =
        |why: String, instead: String| Err(NoProgram::NotExecutable { path: program.to_path_buf(), why, instead });
    let mut bytes = Vec::with_capacity(HEAD);
    let read = regular(program).and_then(|file| file.take(HEAD as u64).read_to_end(&mut bytes));
    if let Err(error) = read {
        // Executable but not readable is legal for a program; it can't be told from a script.
        return refuse(
            format!("it can't be read, so what it starts can't be known: {error}"),
            "make it readable for the user that runs the supervisor".to_owned(),
        );
    }
    if bytes.starts_with(b"\x7fELF") {
        return Ok(Head::Elf);
    }
    let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(rest) = bytes.strip_prefix(b"#!") else {
        let interpreter = interpreter_for(&name).unwrap_or("sh");
        return refuse(
            "it is neither a program of this system nor a script with a `#!` line".to_owned(),
            format!("name what reads it: `command: [{interpreter}, {}]`", program.display()),
        );
    };
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_cut = !rest.contains(&b'\n') && bytes.len() == HEAD;
    let Ok(line) = std::str::from_utf8(line) else {
        return refuse("its `#!` line is not text".to_owned(), "name the interpreter in the command".to_owned());
    };
    if is_cut {
        return refuse(
            "its `#!` line is longer than the kernel reads".to_owned(),
            "name the interpreter in the command".to_owned(),
        );
    }
    // Only spaces and tabs: a carriage return stays part of the name, and is reported.
    let line = line.trim_matches([' ', '\t']);
    let (interpreter, argument) = match line.split_once([' ', '\t']) {
        Some((interpreter, argument)) => (interpreter, Some(argument.trim_matches([' ', '\t']).to_owned())),
        None => (line, None),
    };
    if interpreter.is_empty() {
        return refuse(
            "its `#!` line names no interpreter".to_owned(),
            "name the interpreter in the command".to_owned(),
        );
    }
    if interpreter.starts_with('/') {
        return Ok(Head::Script { interpreter: interpreter.to_owned(), argument });
    }
    refuse(
        format!("its interpreter `{interpreter}` is a relative path"),
        "write an absolute path in the `#!` line, or name the interpreter in the command".to_owned(),
    )
}
