//! Imports between the files of a Rust crate.
//!
//! What counts: each path that leads to an item of another file counts as an import of the file that *defines* the
//! item, also if the path goes through a re-export of a parent module. A `mod` declaration and a re-export (`pub use`)
//! do not count, unless the file uses the re-exported name itself. Code for tests (`#[cfg(test)]`) does not count.

use crate::circles::Import;
use proc_macro2::{Span, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};

/// Re-exports followed for one path. Globs may re-export each other in a circle.
const DEEPEST: usize = 16;

type Path = Vec<String>;

/// A `use` of one name, or of all names of a module.
#[derive(Debug)]
struct Use {
    /// Name in the importing module; `*` for all.
    name: String,
    path: Path,
    is_reexport: bool,
    line: usize,
}

#[derive(Debug, Default)]
struct Module {
    file: String,
    items: BTreeSet<String>,
    uses: Vec<Use>,
    /// Paths in the code, other than in `use`.
    mentions: Vec<(Path, usize)>,
}

/// The modules of a crate by their paths; the root's is empty.
type Modules = BTreeMap<Path, Module>;

/// Imports between the files of the crate whose root file is `root`. `read` returns the text of a file by its path.
///
/// # Errors
/// With path and message of a file that is not valid Rust.
pub(crate) fn of_crate<'a>(
    root: &str,
    read: impl Fn(&str) -> Option<&'a str>,
) -> Result<Vec<Import>, (String, String)> {
    let mut modules = Modules::new();
    let mut waiting = vec![(Path::new(), root.to_owned())];
    while let Some((path, file)) = waiting.pop() {
        let Some(text) = read(&file) else { continue };
        let syntax = syn::parse_file(text).map_err(|error| (file.clone(), error.to_string()))?;
        let (folder, name) = file.rsplit_once('/').unwrap_or(("", &file));
        let folder = match name {
            "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
            _ => file.trim_end_matches(".rs").to_owned(),
        };
        let mut reader = Reader { file: &file, folder, path, modules: &mut modules, declared: Vec::new() };
        reader.open();
        reader.visit_file(&syntax);
        for (path, base) in reader.declared {
            let candidates = [format!("{base}.rs"), format!("{base}/mod.rs")];
            if let Some(found) = candidates.into_iter().find(|name| read(name).is_some()) {
                waiting.push((path, found));
            }
        }
    }
    Ok(imports(&modules))
}

/// Reads the modules of one file.
struct Reader<'a> {
    file: &'a str,
    /// Where files of child modules are.
    folder: String,
    /// The module that is being read.
    path: Path,
    modules: &'a mut Modules,
    /// Modules in files of their own, with the path of the file without its ending.
    declared: Vec<(Path, String)>,
}

impl Reader<'_> {
    fn open(&mut self) {
        let module = self.module();
        if module.file.is_empty() {
            self.file.clone_into(&mut self.modules.entry(self.path.clone()).or_default().file);
        }
    }

    fn module(&mut self) -> &mut Module {
        self.modules.entry(self.path.clone()).or_default()
    }

    fn mention(&mut self, path: Path, span: Span) {
        self.module().mentions.push((path, span.start().line));
    }

    fn add_uses(&mut self, tree: &UseTree, before: &Path, is_reexport: bool) {
        let mut path = before.clone();
        let mut add = |name: String, path: Path, span: Span| {
            self.module().uses.push(Use { name, path, is_reexport, line: span.start().line });
        };
        match tree {
            UseTree::Path(tree) => {
                path.push(tree.ident.to_string());
                self.add_uses(&tree.tree, &path, is_reexport);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_uses(tree, before, is_reexport);
                }
            }
            UseTree::Name(name) if name.ident == "self" => {
                add(path.last().cloned().unwrap_or_default(), path, name.ident.span());
            }
            UseTree::Name(name) => {
                path.push(name.ident.to_string());
                add(name.ident.to_string(), path, name.ident.span());
            }
            UseTree::Rename(rename) => {
                if rename.ident != "self" {
                    path.push(rename.ident.to_string());
                }
                add(rename.rename.to_string(), path, rename.ident.span());
            }
            UseTree::Glob(glob) => add("*".to_owned(), path, glob.star_token.spans[0]),
        }
    }

    /// Paths among the tokens of a macro, which have no syntax of their own: `a::b::c`, or a name alone.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Option<(Path, Span)> = None;
        let mut colons = 0;
        let mut after_dot = false;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons == 2
                        && let Some((path, _)) = &mut path
                    {
                        path.push(ident.to_string());
                    } else {
                        if let Some((path, span)) = path.take() {
                            self.mention(path, span);
                        }
                        path = (!after_dot).then(|| (vec![ident.to_string()], ident.span()));
                    }
                    (colons, after_dot) = (0, false);
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    if let Some((path, span)) = path.take() {
                        self.mention(path, span);
                    }
                    colons = 0;
                    after_dot = matches!(&other, TokenTree::Punct(punct) if punct.as_char() == '.');
                    if let TokenTree::Group(group) = other {
                        self.scan(group.stream());
                    }
                }
            }
        }
        if let Some((path, span)) = path {
            self.mention(path, span);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_for_tests(attributes(item)) {
            return;
        }
        if let Some(name) = name(item) {
            self.module().items.insert(name);
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        let child: Path = self.path.iter().cloned().chain([name.clone()]).collect();
        let folder = format!("{}/{name}", self.folder);
        let Some((_, items)) = &item.content else {
            self.declared.push((child, folder));
            return;
        };
        let around = (std::mem::replace(&mut self.path, child), std::mem::replace(&mut self.folder, folder));
        self.open();
        for item in items {
            self.visit_item(item);
        }
        (self.path, self.folder) = around;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_reexport = !matches!(item.vis, Visibility::Inherited);
        self.add_uses(&item.tree, &Path::new(), is_reexport);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Path = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(first) = path.segments.first() {
            self.mention(words, first.ident.span());
        }
        visit::visit_path(self, path);
    }

    // The path of `pub(in path)` is no import.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.scan(call.tokens.clone());
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Ident>().is_ok_and(|word| word == "test")
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The name that an item defines in its module.
fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn imports(modules: &Modules) -> Vec<Import> {
    let mut found = Vec::new();
    for (path, module) in modules {
        let mut add = |to: Option<&str>, line: usize| {
            if let Some(to) = to.filter(|to| *to != module.file) {
                found.push(Import { from: module.file.clone(), to: to.to_owned(), line });
            }
        };
        for used in module.uses.iter().filter(|used| !used.is_reexport) {
            add(resolve(modules, path, &used.path, DEEPEST), used.line);
        }
        for (mention, line) in &module.mentions {
            let reexported =
                module.uses.iter().find(|used| used.is_reexport && Some(&used.name) == mention.first());
            if let Some(reexported) = reexported {
                let whole: Path = reexported.path.iter().chain(mention.iter().skip(1)).cloned().collect();
                add(resolve(modules, path, &whole, DEEPEST), *line);
            } else if mention.len() > 1 {
                add(resolve(modules, path, mention, DEEPEST), *line);
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The file that defines what `path` leads to from the module `from`; nothing if that is another crate.
fn resolve<'m>(modules: &'m Modules, from: &Path, path: &[String], depth: usize) -> Option<&'m str> {
    let depth = depth.checked_sub(1)?;
    let (first, mut rest) = path.split_first()?;
    let mut current = match first.as_str() {
        "crate" => Path::new(),
        "self" => from.clone(),
        "super" => parent(from)?,
        child => {
            let module: Path = from.iter().cloned().chain([child.to_owned()]).collect();
            modules.get(&module)?;
            module
        }
    };
    while let Some((word, after)) = rest.split_first() {
        if word == "super" {
            current = parent(&current)?;
        } else {
            let child: Path = current.iter().cloned().chain([word.clone()]).collect();
            if !modules.contains_key(&child) {
                return Some(definer(modules, &current, word, after, depth));
            }
            current = child;
        }
        rest = after;
    }
    modules.get(&current).map(|module| module.file.as_str())
}

/// The file that defines `name` of the module `path`, which may re-export it.
fn definer<'m>(modules: &'m Modules, path: &Path, name: &str, after: &[String], depth: usize) -> &'m str {
    let module = &modules[path];
    if !module.items.contains(name) {
        for used in module.uses.iter().filter(|used| used.name == name) {
            let whole: Path = used.path.iter().chain(after).cloned().collect();
            if let Some(file) = resolve(modules, path, &whole, depth) {
                return file;
            }
        }
        for used in module.uses.iter().filter(|used| used.name == "*") {
            let whole: Path = used.path.iter().cloned().chain([name.to_owned()]).collect();
            let from = resolve(modules, path, &used.path, depth);
            let to = resolve(modules, path, &whole, depth);
            // A name that a glob does not have resolves to the module itself.
            let has = |file: &str| {
                modules.values().any(|module| module.file == file && module.items.contains(name))
            };
            if let (Some(_), Some(file)) = (from, to)
                && has(file)
            {
                return file;
            }
        }
    }
    &module.file
}

fn parent(path: &Path) -> Option<Path> {
    path.split_last().map(|(_, before)| before.to_vec())
}

#[cfg(test)]
mod tests {
    use super::of_crate;
    use crate::circles::find;

    /// Pairs "importer imported" of files of a crate.
    fn pairs(files: &[(&str, &str)]) -> Vec<String> {
        let read = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| *text);
        let imports = of_crate("src/lib.rs", read).expect("it is Rust");
        imports.iter().map(|import| format!("{} {}", &import.from[4..], &import.to[4..])).collect()
    }

    #[test]
    fn each_kind_of_path_leads_to_the_file_that_defines_the_item() {
        let lib = "mod a; mod b; pub mod c;";
        let table = [
            ("use crate::b::B;", vec!["a.rs b.rs"]),
            ("use super::b::{self, B as C};", vec!["a.rs b.rs"]),
            ("use crate::c::D;", vec!["a.rs c/d.rs"]),
            ("use crate::c::*;", vec!["a.rs c/mod.rs"]),
            ("fn f() -> crate::c::d::D { crate::b::g() }", vec!["a.rs b.rs", "a.rs c/d.rs"]),
            ("fn f() { println!(\"{}\", crate::b::g()); }", vec!["a.rs b.rs"]),
            ("fn f() { use crate::b::g; g() }", vec!["a.rs b.rs"]),
            ("use std::fs; use b::B; fn f() { fs::read(x) }", vec![]),
            ("mod inner { use super::super::b::B; }", vec!["a.rs b.rs"]),
            ("#[cfg(test)] mod tests { use crate::b::B; }", vec![]),
            ("pub use crate::b::B;", vec![]),
            ("pub use crate::b::B; fn f(x: B) {}", vec!["a.rs b.rs"]),
        ];
        for (text, expected) in table {
            let files = [
                ("src/lib.rs", lib),
                ("src/a.rs", text),
                ("src/b.rs", "pub struct B; pub fn g() {}"),
                ("src/c/mod.rs", "mod d; pub use d::*;"),
                ("src/c/d.rs", "pub struct D;"),
            ];
            assert_eq!(pairs(&files), expected, "{text}");
        }
    }

    #[test]
    fn a_parent_that_only_declares_and_reexports_is_in_no_circle() {
        let child = ("src/a.rs", "use crate::b::B;");
        let other = ("src/b.rs", "pub struct B;");
        assert_eq!(pairs(&[("src/lib.rs", "mod a; mod b; pub use b::B;"), child, other]), ["a.rs b.rs"]);
        let parent = ("src/lib.rs", "mod a; mod b; use a::A; pub struct C;");
        let files = [parent, ("src/a.rs", "pub struct A(super::C);"), other];
        assert_eq!(pairs(&files), ["a.rs lib.rs", "lib.rs a.rs"]);
    }

    #[test]
    fn a_planted_circle_is_found_through_a_reexport() {
        let files = [
            ("src/lib.rs", "mod a; mod b; mod c; pub use a::A;"),
            ("src/a.rs", "use crate::b::B; pub struct A;"),
            ("src/b.rs", "use crate::c; pub struct B;"),
            ("src/c.rs", "use crate::A;"),
        ];
        let read = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| *text);
        let circles = find(&of_crate("src/lib.rs", read).expect("it is Rust"));
        assert_eq!(circles.len(), 1);
        assert_eq!(circles[0].files, ["src/a.rs", "src/b.rs", "src/c.rs"]);
    }
}
