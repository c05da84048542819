//! `man`: the manual page, made from the command line's own definition.

use clap::CommandFactory;

use super::{Failure, Outcome, print};
use crate::cli::Cli;
use crate::exit;

/// Prints the page.
///
/// # Errors
/// When it can't be rendered, which would be a bug.
pub fn man() -> Outcome {
    let mut page = Vec::new();
    let command = Cli::command();
    let bug = |e: std::io::Error| Failure::of(exit::BUG, &e);
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(bug)?;
    let mut text = String::from_utf8_lossy(&page).into_owned();
    text.push_str(".SH \"EXIT STATUS\"\n");
    for row in exit::TABLE {
        text.push_str(&format!(".TP\n{}\n{}\n", row.code, row.meaning.replace('\\', "\\\\")));
    }
    print(&text);
    Ok(0)
}
