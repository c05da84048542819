//! When two names count as one: as the most lenient file system would have it.
//!
//! A directory can fold case (ext4 and f2fs with `casefold`, shares of other systems), and such file systems also ignore code
//! points that show nothing. There `.ENVRC` and `.env<zero width joiner>rc` *are* `.envrc`. A pattern here only ever refuses, so
//! it compares the lenient way everywhere: what it refuses too much is a name that nobody types.

/// A name as it is compared. Not UTF-8: each bad byte counts as the replacement character.
pub(super) fn folded(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().filter(|c| !is_ignorable(*c)).flat_map(fold).collect()
}

fn fold(c: char) -> impl Iterator<Item = char> {
    let plain = match c {
        // These fold to ASCII without being the upper case of it.
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        other => other,
    };
    plain.to_lowercase()
}

/// Default_Ignorable_Code_Point of Unicode 15: what casefolding file systems (and HFS+) leave out of a comparison.
fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_folding_file_system_takes_for_one_name_is_one() {
        for other in [".ENVRC", ".env\u{200d}rc", "\u{feff}.envrc", ".Env\u{ad}RC"] {
            assert_eq!(folded(other.as_bytes()), ".envrc", "{other:?}");
        }
        assert_eq!(folded(".v\u{17f}code".as_bytes()), ".vscode");
        assert_eq!(folded(".z\u{17f}hrc \u{212a}".as_bytes()), ".zshrc k");
        assert_ne!(folded(b".envrc "), ".envrc");
        assert_ne!(folded(b".env\xffrc"), ".envrc");
    }
}
