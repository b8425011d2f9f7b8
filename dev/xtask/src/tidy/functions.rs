//! The functions of a source text and how many lines each takes, from its `fn` to its closing brace.

use super::source::code_only;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) lines: usize,
}

/// All functions with a body, in their order.
pub(super) fn functions(text: &str) -> Vec<Function> {
    let code = code_only(text);
    let starts = code.match_indices("fn ").map(|(at, _)| at);
    let starts = starts.filter(|at| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
    starts.filter_map(|at| function(&code, at)).collect()
}

fn function(code: &str, at: usize) -> Option<Function> {
    let tail = code[at + 3..].trim_start();
    let name: String = tail.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if name.is_empty() {
        // A function pointer's type.
        return None;
    }
    let end = at + body_end(&code[at..])?;
    let lines = code[at..end].matches('\n').count() + 1;
    Some(Function { name, line: code[..at].matches('\n').count() + 1, lines })
}

/// Where the body ends; `None` for a declaration without one.
fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0, 0);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if braces == 0 && brackets == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 && brackets == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_go_from_fn_to_the_closing_brace() {
        let text = "/// fn no() {\nimpl A {\n    pub fn a(x: [u8; 2]) -> u8 {\n        let s = \"}\";\n        1\n    }\n    \
                    fn b();\n    const F: fn(u8) -> u8 = x;\n}\nfn c() { fn d() {} }\n";
        let found: Vec<_> = functions(text).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        let expected = [("a", 3, 4), ("c", 10, 1), ("d", 10, 1)];
        assert_eq!(found, expected.map(|(name, line, lines)| (name.to_owned(), line, lines)));
    }
}
