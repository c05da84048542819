//! `man`: the manual pages, made from the command line's own definition.

use clap::CommandFactory;

use super::{Failure, Outcome, print};
use crate::cli::Cli;
use crate::driver::streams::escaped;
use crate::exit;

/// Prints the page of the program, or of the verb at the end of `verb` (`saga run`).
///
/// # Errors
/// No such verb.
pub fn man(verb: &[String]) -> Outcome {
    let mut program = Cli::command();
    // Gives each verb its full name and the options of every command.
    program.build();
    let mut command = &program;
    let mut name = program.get_name().to_owned();
    for word in verb {
        let Some(next) = command.find_subcommand(word) else {
            let known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
            let help = match known.is_empty() {
                true => format!("`{name}` has no verbs of its own"),
                false => format!("pages below `{name}`: {}", known.join(", ")),
            };
            return Err(Failure::usage(format!("there is no page `{name} {}`", escaped(word))).help(help));
        };
        command = next;
        name = format!("{name} {word}");
    }
    let mut page = Vec::new();
    // The page's name is how other pages refer to it: agt-supervise-saga-run(1).
    let page_name = name.replace(' ', "-");
    clap_mangen::Man::new(command.clone())
        .title(page_name)
        .render(&mut page)
        .map_err(|e| Failure::of(exit::BUG, &e))?;
    let mut text = String::from_utf8_lossy(&page).into_owned();
    text.push_str(".SH \"EXIT STATUS\"\n");
    for row in exit::TABLE {
        push_row(&mut text, row);
    }
    text.push_str(".PP\n`saga run` and `saga resume` end with (`saga show` ends with 0 and has the number as `exit_code` in its JSON):\n");
    for row in exit::SAGA_TABLE {
        push_row(&mut text, row);
    }
    print(&text);
    Ok(0)
}

fn push_row(text: &mut String, row: exit::Row) {
    text.push_str(&format!(".TP\n{}\n{}\n", row.code, row.meaning.replace('\\', "\\\\")));
}
