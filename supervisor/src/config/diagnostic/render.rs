//! Draws a report: the line, the caret, the help.
//!
//! Everything that comes from a file is untrusted: control characters (an escape sequence that repaints the terminal, a
//! carriage return that hides the rest of a line) are shown as visible characters, long lines are cut to a window.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::{Class, MAX_SHOWN, Problem, Report, Show};
use crate::config::grant;

/// Whether messages carry colours. The caller decides (terminal, `NO_COLOR`, `TERM=dumb`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Color {
    /// No escape codes at all.
    #[default]
    Never,
    /// ANSI colours.
    Always,
}

impl Color {
    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Color::Never => text.to_owned(),
            Color::Always => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

const RED: &str = "1;31";
const BLUE: &str = "1;34";
const CYAN: &str = "1;36";

/// Characters of a source line that are shown at most.
const WINDOW: usize = 140;

/// Carets under one place at most: more only wraps.
const MAX_CARETS: usize = 80;

pub(super) fn unreadable(path: &Path, source: &io::Error, color: Color) -> String {
    let head = color.paint(RED, "error:");
    let help = color.paint(CYAN, "help:");
    let path = harmless(&path.display().to_string());
    match source.kind() {
        io::ErrorKind::NotFound => {
            format!(
                "{head} {path}: there is no such file\n{help} check the path: it is relative to the folder that the command runs in. nothing was started.\n"
            )
        }
        _ => format!("{head} {path}: can't be read: {source}\nnothing was started.\n"),
    }
}

pub(super) fn report(report: &Report, color: Color) -> String {
    let mut out = String::new();
    let count = report.problems.len();
    for (index, problem) in report.problems.iter().take(MAX_SHOWN).enumerate() {
        if index > 0 {
            out.push('\n');
        }
        one(&mut out, report, problem, color);
        let ending = match (index, count) {
            (0, 1) => format!("{}.", report.consequence),
            (0, 2) => format!("1 more error below; {}.", report.consequence),
            (0, _) => format!("{} more errors below; {}.", count - 1, report.consequence),
            _ => String::new(),
        };
        help(&mut out, problem, &ending, color);
    }
    if count > MAX_SHOWN {
        let _ = writeln!(out, "\n... and {} more errors that are not shown.", count - MAX_SHOWN);
    }
    if let Some(block) = grant::yaml_block(report.problems.iter().filter_map(|problem| problem.grant.as_ref())) {
        let head = color.paint(CYAN, "help:");
        let _ = writeln!(out, "\n{head} {}", clean_lines(&block));
    }
    if count > 1 {
        let _ = writeln!(out, "{count} errors; {}.", report.consequence);
    }
    out
}

fn one(out: &mut String, report: &Report, problem: &Problem, color: Color) {
    let head = match problem.class {
        Class::Refused => "refused:",
        Class::Config | Class::NotExecutable | Class::NotFound => "error:",
    };
    let _ = writeln!(out, "{} {}", color.paint(RED, head), harmless(&problem.message));
    let file = harmless(&report.file.display().to_string());
    let Some(place) = problem.place else {
        if !file.is_empty() {
            let _ = writeln!(out, " {} {file}", color.paint(BLUE, "-->"));
        }
        return;
    };
    let (line, column) = (place.start.line, place.start.column);
    let _ = writeln!(out, " {} {file}:{line}:{column}", color.paint(BLUE, "-->"));
    let Some(text) = report.text.split('\n').nth(line.saturating_sub(1)) else { return };
    let text = text.strip_suffix('\r').unwrap_or(text);
    let from = column.saturating_sub(1);
    let to = if place.end.line == line { place.end.column.saturating_sub(1) } else { usize::MAX };
    let drawn = draw(text, from, to, problem.show);
    let number = line.to_string();
    let bar = color.paint(BLUE, "|");
    let _ = writeln!(out, "{} {bar} {}", color.paint(BLUE, &number), drawn.line);
    let caret = format!("{} {}", "^".repeat(drawn.carets), harmless(&problem.label));
    let _ = writeln!(
        out,
        "{} {bar} {}{}",
        " ".repeat(number.len()),
        " ".repeat(drawn.indent),
        color.paint(RED, caret.trim_end())
    );
}

fn help(out: &mut String, problem: &Problem, ending: &str, color: Color) {
    let head = color.paint(CYAN, "help:");
    // What an operator would have to add comes once, for all problems together, as a block to paste.
    let own = problem.help.as_ref().filter(|_| problem.grant.is_none());
    match (own, ending.is_empty()) {
        (Some(text), true) => {
            let _ = writeln!(out, "{head} {}", clean_lines(text));
        }
        (Some(text), false) => {
            let text = clean_lines(text);
            let stop = if text.ends_with(['.', ':', '!', '?']) { "" } else { "." };
            let _ = writeln!(out, "{head} {text}{stop} {ending}");
        }
        (None, false) => {
            let _ = writeln!(out, "{ending}");
        }
        (None, true) => {}
    }
}

struct Drawn {
    line: String,
    indent: usize,
    carets: usize,
}

/// Cuts a window around the marked characters and measures it in terminal cells.
fn draw(text: &str, from: usize, to: usize, show: Show) -> Drawn {
    let mut characters: Vec<char> = text.chars().collect();
    let from = from.min(characters.len());
    let to = to.clamp(from, characters.len());
    let hidden = show == Show::UpToMark && to < characters.len();
    if hidden {
        characters.truncate(to);
    }
    let left = if from > WINDOW / 2 && characters.len() > WINDOW { from - WINDOW / 2 } else { 0 };
    let right = characters.len().min(left + WINDOW);
    let mut line = String::new();
    if left > 0 {
        line.push_str("...");
    }
    let (mut indent, mut carets) = (line.len(), 0);
    for (index, &character) in characters.iter().enumerate().take(right).skip(left) {
        let shown = visible(character);
        let cells = width(shown);
        if index < from {
            indent += cells;
        } else if index < to {
            carets += cells;
        }
        line.push(shown);
    }
    if right < characters.len() || hidden {
        line.push_str("...");
    }
    let line = line.trim_end().to_owned();
    Drawn { line, indent, carets: carets.clamp(1, MAX_CARETS) }
}

/// A character that can't act on a terminal: tabs become a space, other controls a picture of themselves, characters
/// that turn the direction of text a replacement mark.
fn visible(character: char) -> char {
    match character {
        '\t' => ' ',
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(character)).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        '\u{80}'..='\u{9f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{feff}' => '\u{fffd}',
        other => other,
    }
}

/// One line of untrusted text that can't act on a terminal.
pub(in crate::config) fn harmless(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// Our own text of several lines with untrusted parts in it.
fn clean_lines(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { c } else { visible(c) }).collect()
}

/// Terminal cells of a character: two for the wide scripts and emoji (Unicode East Asian Width W and F, by block).
fn width(character: char) -> usize {
    match u32::from(character) {
        0x0300..=0x036f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::tree::{Mark, Place};
    use std::path::PathBuf;
    use std::sync::Arc;

    fn place(line: usize, from: usize, to: usize) -> Place {
        Place { start: Mark { line, column: from }, end: Mark { line, column: to } }
    }

    fn made(text: &str, problems: Vec<Problem>) -> String {
        report(&Report::new(&PathBuf::from("agent.yaml"), Arc::from(text), problems), Color::Never)
    }

    #[test]
    fn message_has_the_form_of_the_conventions() {
        let problem = Problem::config("unknown key `limits.memroy`")
            .at(place(2, 5, 11))
            .label("did you mean `memory`?")
            .help("keys under `limits`: cpu, memory");
        assert_eq!(
            made("limits:\n    memroy: 64MiB\n", vec![problem]),
            "error: unknown key `limits.memroy`\n --> agent.yaml:2:5\n2 |     memroy: 64MiB\n  |     ^^^^^^ did you mean `memory`?\n\
             help: keys under `limits`: cpu, memory. nothing was started.\n"
        );
    }

    #[test]
    fn control_characters_of_a_file_never_reach_the_terminal() {
        let problem = Problem::config("bad \x1b[2J").at(place(1, 1, 3));
        let out = made("a\x1b]0;x\x07: \u{202e}b\n", vec![problem]);
        assert!(out.chars().all(|c| c == '\n' || !c.is_control()) && !out.contains('\u{202e}'), "{out:?}");
    }

    #[test]
    fn many_problems_are_counted_and_the_last_line_says_what_happened() {
        let problems = (0..30).map(|n| Problem::config(format!("problem {n}"))).collect();
        let out = made("", problems);
        assert!(out.contains("29 more errors below; nothing was started.") && out.contains("and 10 more errors"));
        assert!(out.ends_with("30 errors; nothing was started.\n"));
    }

    #[test]
    fn what_may_be_secret_is_not_shown() {
        let problem = Problem::config("no").at(place(1, 1, 4)).show(Show::UpToMark);
        let out = made("KEY: hunter2\n", vec![problem]);
        assert!(!out.contains("hunter2") && out.contains("KEY..."), "{out}");
    }

    #[test]
    fn long_and_wide_lines_keep_the_caret_under_the_word() {
        let text = format!("{}wrong", "x".repeat(10_000));
        let drawn = draw(&text, 10_000, 10_005, Show::Line);
        assert!(drawn.line.len() < 200 && drawn.line[drawn.indent..].starts_with("wrong"), "{}", drawn.line);
        let drawn = draw("名前: x", 4, 5, Show::Line);
        assert_eq!((drawn.indent, drawn.carets), (6, 1));
    }
}
