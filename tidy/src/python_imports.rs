//! Imports between the files of a Python package.
//!
//! Imports inside functions and below `if TYPE_CHECKING:` count. An import of a name that a package's `__init__.py`
//! imports from a module counts as an import of that module. Imports of an `__init__.py` itself count only if it uses
//! the name.

use crate::circles::Import;
use std::collections::BTreeMap;

/// An import statement's one name.
#[derive(Debug, Clone)]
struct Name {
    /// Dotted module, absolute.
    module: String,
    /// Name taken from the module; absent for `import module`.
    item: Option<String>,
    /// Name in the importing file.
    local: String,
    line: usize,
}

struct Module<'a> {
    file: &'a str,
    is_package: bool,
    names: Vec<Name>,
    /// The file without import statements, strings and comments.
    code: String,
}

/// Imports between the files of the package in the folder `package`, given as paths and texts.
pub(crate) fn of_package<'a>(package: &str, files: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Import> {
    let above = package.rsplit_once('/').map_or(String::new(), |(above, _)| format!("{above}/"));
    let mut modules: BTreeMap<String, Module<'_>> = BTreeMap::new();
    for (file, text) in files {
        let inside = format!("{package}/");
        let Some(base) = file.strip_suffix(".py").filter(|_| file.starts_with(&inside)) else { continue };
        let base = base.strip_prefix(&above).unwrap_or(base);
        let is_package = base.ends_with("/__init__");
        let dotted = base.strip_suffix("/__init__").unwrap_or(base).replace('/', ".");
        let (names, code) = read(text, &dotted, is_package);
        modules.insert(dotted, Module { file, is_package, names, code });
    }
    let mut found = Vec::new();
    for module in modules.values() {
        for name in &module.names {
            if module.is_package && !uses(&module.code, &name.local) {
                continue;
            }
            if let Some(to) = definer(&modules, &name.module, name.item.as_deref(), 8)
                && to != module.file
            {
                found.push(Import { from: module.file.to_owned(), to: to.to_owned(), line: name.line });
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn definer<'a>(
    modules: &BTreeMap<String, Module<'a>>,
    module: &str,
    item: Option<&str>,
    depth: usize,
) -> Option<&'a str> {
    let depth = depth.checked_sub(1)?;
    let Some(item) = item else { return modules.get(module).map(|module| module.file) };
    if let Some(found) = modules.get(&format!("{module}.{item}")) {
        return Some(found.file);
    }
    let holder = modules.get(module)?;
    let further = holder.names.iter().find(|name| holder.is_package && name.local == item);
    further.and_then(|name| definer(modules, &name.module, name.item.as_deref(), depth)).or(Some(holder.file))
}

/// Whether `name` is a word of `code`.
fn uses(code: &str, name: &str) -> bool {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|word| word == name)
}

/// The imports of a file, and its other code.
fn read(text: &str, module: &str, is_package: bool) -> (Vec<Name>, String) {
    let (mut names, mut code) = (Vec::new(), String::new());
    let text = without_strings(text);
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let mut statement = first.trim().to_owned();
        if !statement.starts_with("import ") && !statement.starts_with("from ") {
            code.push_str(first);
            code.push('\n');
            continue;
        }
        while (statement.contains('(') && !statement.contains(')')) || statement.ends_with('\\') {
            let Some((_, next)) = lines.next() else { break };
            statement = format!("{} {}", statement.trim_end_matches('\\'), next.trim());
        }
        names.extend(of_statement(&statement, module, is_package, index + 1));
    }
    (names, code)
}

fn of_statement(statement: &str, module: &str, is_package: bool, line: usize) -> Vec<Name> {
    let words = statement.replace(['(', ')'], " ");
    let split = |item: &str| -> Option<(String, Option<String>)> {
        let mut words = item.split_whitespace();
        let name = words.next()?.to_owned();
        Some((name, words.nth(1).map(str::to_owned)))
    };
    if let Some(rest) = words.strip_prefix("import ") {
        let items = rest.split(',').filter_map(split);
        return items
            .map(|(name, local)| Name {
                local: local.unwrap_or_else(|| name.split('.').next().unwrap_or("").to_owned()),
                module: name,
                item: None,
                line,
            })
            .collect();
    }
    let Some((from, items)) = words.strip_prefix("from ").and_then(|rest| rest.split_once(" import ")) else {
        return Vec::new();
    };
    let from = from.trim();
    let dots = from.len() - from.trim_start_matches('.').len();
    let mut base: Vec<&str> = if dots > 0 { module.split('.').collect() } else { Vec::new() };
    // One dot is the module's own package.
    let drop = if is_package { dots.saturating_sub(1) } else { dots };
    base.truncate(base.len().saturating_sub(drop));
    base.extend(from.trim_start_matches('.').split('.').filter(|word| !word.is_empty()));
    let base = base.join(".");
    items
        .split(',')
        .filter_map(split)
        .map(|(name, local)| Name {
            module: base.clone(),
            local: local.unwrap_or_else(|| name.clone()),
            item: (name != "*").then_some(name),
            line,
        })
        .collect()
}

/// The text with strings and comments left out. Lines keep their numbers.
fn without_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        if letter == '#' {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if letter == '"' || letter == '\'' {
            let triple = letter.to_string().repeat(3);
            let quote = if rest.starts_with(&triple) { triple } else { letter.to_string() };
            let end = end_of_string(&rest[quote.len()..], &quote).map_or(rest.len(), |end| end + quote.len());
            out.extend(rest[..end].chars().filter(|letter| *letter == '\n'));
            rest = &rest[end..];
        } else {
            out.push(letter);
            rest = &rest[letter.len_utf8()..];
        }
    }
    out
}

/// Where a string ends, after its closing quote.
fn end_of_string(text: &str, quote: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if letter == '\\' {
            escaped = true;
        } else if text[at..].starts_with(quote) {
            return Some(at + quote.len());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::of_package;
    use crate::circles::find;

    fn pairs(files: &[(&'static str, &'static str)]) -> Vec<String> {
        let imports = of_package("c/p", files.iter().copied());
        imports.iter().map(|import| format!("{} {}", &import.from[4..], &import.to[4..])).collect()
    }

    #[test]
    fn each_kind_of_import_leads_to_the_file_that_defines_the_name() {
        let table = [
            ("from . import b", vec!["a.py b.py"]),
            ("from .b import f, g", vec!["a.py b.py"]),
            ("import p.b", vec!["a.py b.py"]),
            ("from p.k import d", vec!["a.py k/d.py"]),
            ("from .k import D", vec!["a.py k/d.py"]),
            ("def f():\n    from .b import (\n        f,  # why\n        g,\n    )", vec!["a.py b.py"]),
            ("\"\"\"\nfrom .b import f\n\"\"\"\nimport os # from .b import f", vec![]),
            ("x = 'it\\'s'\nif TYPE_CHECKING:\n    from .b import f as g", vec!["a.py b.py"]),
        ];
        for (text, expected) in table {
            let files = [
                ("c/p/__init__.py", ""),
                ("c/p/a.py", text),
                ("c/p/b.py", ""),
                ("c/p/k/__init__.py", "from .d import D\n__all__ = [\"D\"]"),
                ("c/p/k/d.py", "from .. import b"),
                ("c/tests/t.py", "from p import a"),
            ];
            let mut expected: Vec<&str> = expected;
            expected.push("k/d.py b.py");
            assert_eq!(pairs(&files), expected, "{text}");
        }
    }

    #[test]
    fn a_package_that_uses_what_it_imports_is_an_importer() {
        let files =
            [("c/p/__init__.py", "from .a import f\nx = f()"), ("c/p/a.py", "from . import x\ndef f(): ...")];
        assert_eq!(pairs(&files), ["__init__.py a.py", "a.py __init__.py"]);
    }

    #[test]
    fn a_planted_circle_is_found() {
        let files = [
            ("c/p/__init__.py", ""),
            ("c/p/a.py", "from .b import f"),
            ("c/p/b.py", "def f():\n    import p.c"),
            ("c/p/c.py", "from . import a"),
        ];
        let circles = find(&of_package("c/p", files.into_iter()));
        assert_eq!(circles[0].files, ["c/p/a.py", "c/p/b.py", "c/p/c.py"]);
    }
}
