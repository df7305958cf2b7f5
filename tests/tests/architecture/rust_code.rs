//! Reading Rust source well enough to search it: comments, strings and test modules blanked out.

/// The code of a file, line for line and column for column; what is not code is blank.
pub(crate) fn code_of(source: &str) -> String {
    let blanked = blank_text(source);
    blank_test_modules(blanked)
}

/// Blanks comments and the insides of string and character literals.
fn blank_text(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = text_end(bytes, at);
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn text_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let in_word = at > 0 && is_word(bytes[at - 1]);
    if rest.starts_with(b"//") {
        at + find(rest, b"\n").unwrap_or(rest.len())
    } else if rest.starts_with(b"/*") {
        at + block_comment(rest)
    } else if rest[0] == b'"' {
        at + quoted(rest)
    } else if rest[0] == b'\'' {
        at + character(rest)
    } else if !in_word && (rest.starts_with(b"r\"") || rest.starts_with(b"r#")) {
        at + raw_string(rest)
    } else if !in_word && (rest.starts_with(b"br\"") || rest.starts_with(b"br#")) {
        at + 1 + raw_string(&rest[1..])
    } else {
        at
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at.min(rest.len())
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// A character literal; 0 for a lifetime.
fn character(rest: &[u8]) -> usize {
    let close = match rest.get(1) {
        Some(b'\\') => find(&rest[3.min(rest.len())..], b"'").map(|i| i + 3),
        // One character of up to four bytes, then the quote.
        Some(_) => (2..=5).find(|&i| rest.get(i) == Some(&b'\'')),
        None => None,
    };
    let one_character = |end: &usize| {
        let inside = std::str::from_utf8(&rest[1..*end]);
        rest[1] == b'\\' || inside.is_ok_and(|s| s.chars().count() == 1)
    };
    close.filter(one_character).map_or(0, |end| end + 1)
}

/// A raw string; 0 for a raw identifier.
fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|&&b| b == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let inside = &rest[2 + hashes..];
    find(inside, &close).map_or(rest.len(), |i| 2 + hashes + i + close.len())
}

/// Blanks every `#[cfg(test)]` item that has a body.
fn blank_test_modules(code: String) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.clone().into_bytes();
    let mut from = 0;
    while let Some(start) = code[from..].find(MARK).map(|i| from + i) {
        let end = item_end(code.as_bytes(), start + MARK.len());
        for byte in &mut out[start..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        from = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The end of the item that begins at `at`: its closing brace, or a semicolon before any brace.
pub(crate) fn item_end(code: &[u8], at: usize) -> usize {
    let mut depth = 0;
    for (i, byte) in code.iter().enumerate().skip(at) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return i + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return i + 1,
            _ => {}
        }
    }
    code.len()
}

/// Positions of `word`, not as a part of a longer word.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| {
            let before = at == 0 || !is_word(bytes[at - 1]);
            let ends_in_word = word.bytes().last().is_some_and(is_word);
            let after = bytes.get(at + word.len()).is_none_or(|&b| !is_word(b));
            before && (after || !ends_in_word)
        })
}

/// 1-based number of the line at a position.
pub(crate) fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

#[test]
fn text_and_tests_are_blanked_and_code_is_kept() {
    let source = r####"
        // unsafe in a comment
        /* unsafe /* nested */ unsafe */
        const A: &str = "unsafe \" unsafe"; const B: &str = r#"unsafe " unsafe"#;
        const C: char = '"'; fn f<'a>(x: &'a str) { g('\''); kept() }
        #[cfg(test)]
        mod tests { fn t() { unsafe {} } }
        fn after() { r#kept(); }
    "####;
    let code = code_of(source);
    assert_eq!(code.len(), source.len());
    assert_eq!(words(&code, "unsafe").count(), 0, "{code}");
    assert_eq!(words(&code, "kept").count(), 2, "{code}");
    assert_eq!(
        words(&code, "after")
            .map(|at| line_of(&code, at))
            .collect::<Vec<_>>(),
        [8]
    );
}

#[test]
fn words_are_whole() {
    let found: Vec<usize> = words("unsafe unsafe_code not_unsafe unsafe{", "unsafe").collect();
    assert_eq!(found, [0, 30]);
}
