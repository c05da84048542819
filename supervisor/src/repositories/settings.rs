//! Reads a git configuration for the settings by which git runs a command, or reads settings from elsewhere.
//!
//! A small reader of the ini form of git-config(1). It is more lenient than git's own: what git refuses as a syntax error is skipped
//! here up to the end of its line, so that nothing is missed that another version of git would take.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use agt_rings::notice::escaped;

use super::NAME_BYTES_MAX;

/// When a setting counts.
#[derive(Clone, Copy, PartialEq)]
enum When {
    Always,
    /// Unless its value is a boolean: `core.fsmonitor=true` is git's own watcher.
    Command,
    /// When it begins so.
    Begins(&'static str),
}

/// Section, name (`*`: any), and when it counts. A subsection between them does not matter: filter.X.clean, diff.X.command. From
/// git-config(1); what git only obeys in the user's own files is left out.
const RUN: &[(&str, &str, When)] = &[
    ("alias", "*", When::Begins("!")),
    ("browser", "*", When::Always),
    ("core", "alternaterefscommand", When::Always),
    ("core", "askpass", When::Always),
    ("core", "editor", When::Always),
    ("core", "fsmonitor", When::Command),
    ("core", "gitproxy", When::Always),
    ("core", "hookspath", When::Always),
    ("core", "pager", When::Always),
    ("core", "sshcommand", When::Always),
    ("credential", "helper", When::Always),
    ("diff", "command", When::Always),
    ("diff", "external", When::Always),
    ("diff", "textconv", When::Always),
    ("difftool", "cmd", When::Always),
    ("difftool", "path", When::Always),
    ("filter", "clean", When::Always),
    ("filter", "process", When::Always),
    ("filter", "smudge", When::Always),
    ("gpg", "defaultkeycommand", When::Always),
    ("gpg", "program", When::Always),
    ("guitool", "cmd", When::Always),
    ("hook", "command", When::Always),
    ("imap", "tunnel", When::Always),
    ("include", "path", When::Always),
    ("includeif", "path", When::Always),
    ("init", "templatedir", When::Always),
    ("interactive", "difffilter", When::Always),
    ("lfs", "*", When::Always),
    ("man", "*", When::Always),
    ("merge", "driver", When::Always),
    ("mergetool", "cmd", When::Always),
    ("mergetool", "path", When::Always),
    ("pager", "*", When::Command),
    ("protocol", "allow", When::Always),
    ("remote", "pushurl", When::Begins("ext::")),
    ("remote", "receivepack", When::Always),
    ("remote", "uploadpack", When::Always),
    ("remote", "url", When::Begins("ext::")),
    ("remote", "vcs", When::Always),
    ("sendemail", "*", When::Always),
    ("sequence", "editor", When::Always),
    ("submodule", "update", When::Begins("!")),
    ("tar", "command", When::Always),
    ("trailer", "cmd", When::Always),
    ("trailer", "command", When::Always),
    ("uploadpack", "packobjectshook", When::Always),
    ("url", "insteadof", When::Always),
    ("url", "pushinsteadof", When::Always),
    ("web", "browser", When::Always),
];

const BOOLEANS: [&str; 9] = ["", "true", "false", "yes", "no", "on", "off", "0", "1"];

/// The names of the settings that count, as git spells them: `filter.x.clean`.
pub(super) fn that_run(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut reader = Reader { rest: text.trim_start_matches('\u{feff}').chars().peekable() };
    let mut section = Section::default();
    while let Some(c) = reader.rest.peek().copied() {
        match c {
            '[' => section = reader.section(),
            '#' | ';' => reader.skip_line(),
            c if c.is_ascii_alphabetic() => {
                let (name, value) = reader.setting();
                if counts(&section.name, &name, &value) {
                    let sub = section.sub.as_ref().map(|sub| format!(".{sub}")).unwrap_or_default();
                    names.insert(escaped(format!("{}{sub}.{name}", section.name).as_bytes(), NAME_BYTES_MAX));
                }
            }
            c if c.is_whitespace() => drop(reader.rest.next()),
            _ => reader.skip_line(),
        }
    }
    names
}

fn counts(section: &str, name: &str, value: &str) -> bool {
    RUN.iter().filter(|(in_section, named, _)| *in_section == section && (*named == name || *named == "*")).any(
        |(_, _, when)| match when {
            When::Always => true,
            When::Command => !BOOLEANS.contains(&value.trim().to_lowercase().as_str()),
            When::Begins(start) => value.trim_start().starts_with(start),
        },
    )
}

#[derive(Default)]
struct Section {
    name: String,
    sub: Option<String>,
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    fn skip_line(&mut self) {
        for c in self.rest.by_ref() {
            if c == '\n' {
                return;
            }
        }
    }

    /// `[section]`, `[section "sub"]`, or the old `[section.sub]`.
    fn section(&mut self) -> Section {
        let (mut name, mut sub) = (String::new(), None);
        let mut in_quotes = false;
        self.rest.next();
        while let Some(c) = self.rest.next_if(|c| *c != '\n') {
            match (c, in_quotes, &mut sub) {
                (']', false, _) => break,
                ('"', false, _) => (in_quotes, sub) = (true, Some(String::new())),
                ('"', true, _) => in_quotes = false,
                ('\\', true, Some(sub)) => sub.extend(self.rest.next_if(|c| *c != '\n')),
                (c, true, Some(sub)) => sub.push(c),
                (c, false, None) if !c.is_whitespace() => name.push(c.to_ascii_lowercase()),
                _ => {}
            }
        }
        if let (Some((section, old)), None) = (name.split_once('.'), &sub) {
            return Section { name: section.to_owned(), sub: Some(old.to_owned()) };
        }
        Section { name, sub }
    }

    /// `name = value`, or a name alone.
    fn setting(&mut self) -> (String, String) {
        let mut name = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '-') {
            name.push(c.to_ascii_lowercase());
        }
        while self.rest.next_if(|c| matches!(c, ' ' | '\t' | '\r')).is_some() {}
        let value = if self.rest.next_if(|c| *c == '=').is_some() { self.value() } else { String::new() };
        (name, value)
    }

    fn value(&mut self) -> String {
        let (mut value, mut in_quotes) = (String::new(), false);
        while let Some(c) = self.rest.next() {
            match c {
                '\n' => break,
                '"' => in_quotes = !in_quotes,
                '#' | ';' if !in_quotes => {
                    self.skip_line();
                    break;
                }
                '\\' => {
                    // At the end of a line it goes on, with or without a carriage return.
                    let next = self.rest.next();
                    match next {
                        Some('\n') | None => {}
                        Some('\r') => drop(self.rest.next_if(|c| *c == '\n')),
                        Some(c) => value.push(c),
                    }
                }
                c => value.push(c),
            }
        }
        value.trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn listed(text: &str) -> Vec<String> {
        that_run(text).into_iter().collect()
    }

    #[test]
    fn what_runs_a_command_is_listed_in_every_spelling() {
        for (text, name) in [
            ("[core]\n\tfsmonitor = ./x\n", "core.fsmonitor"),
            ("\u{feff}[CORE] HooksPath=../h", "core.hookspath"),
            ("[core]sshCommand=\"a b\" # c", "core.sshcommand"),
            ("[credential \"https://x\"]\n helper = !x", "credential.https://x.helper"),
            ("[alias]\n st = \\\n !sh", "alias.st"),
            ("[alias]\n st = \"!sh\"", "alias.st"),
            ("[filter \"a\\\"b\"]\r\n\tclean = x\r\n", "filter.a\"b.clean"),
            ("[diff.png]\ntextconv = x", "diff.png.textconv"),
            ("; c\n# [core]\n[diff]\nexternal=x", "diff.external"),
            ("[x]\n=bad\n[include]\npath = ../y", "include.path"),
            ("[x \"core]\n[core]\neditor=e", "core.editor"),
        ] {
            assert_eq!(listed(text), [name], "{text}");
        }
        for text in [
            "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n",
            "[core]\nfsmonitor = true\n[alias]\nst = status\n[remote \"origin\"]\nurl = /w/x\nfetch = +refs/*:refs/*\n",
            "[user]\nname = \"[core] fsmonitor = x\"\n",
            "# [core] fsmonitor = x\n[core]\n; pager = x\n",
            "[branch \"main\"]\nremote = origin\nmerge = refs/heads/main\n",
        ] {
            assert_eq!(listed(text), Vec::<String>::new(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_holds_the_reader(text in "[\\[\\]\"\\\\=#;!a-c \\n\\r\\t.]{0,80}") {
            let _ = that_run(&text);
        }
    }

    /// Whatever git itself reads as a setting of ours is listed.
    #[test]
    fn nothing_is_missed_that_git_reads() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("config");
        let texts = [
            "[core]\tpager=\\\"x",
            "[core]\npager\n",
            "[a][core]pager=x",
            "[core]\n\n  pager  =  \"a;b\" ;c\n[b]\nc=d",
        ];
        for text in texts {
            std::fs::write(&file, text).unwrap();
            let Ok(output) =
                Command::new("git").args(["config", "--list", "--name-only", "--file"]).arg(&file).output()
            else {
                eprintln!("SKIPPED: there is no git here");
                return;
            };
            let theirs = String::from_utf8(output.stdout).unwrap().contains("core.pager");
            let boolean = text == "[core]\npager\n";
            assert!(!theirs || boolean || listed(text) == ["core.pager"], "{text}");
        }
    }
}
