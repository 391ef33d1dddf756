//! Inside each crate no two source files import each other, directly or through other files.
//!
//! The files are parsed with `syn`. An edge leads from a file to the file that defines what it
//! names; re-exports are followed. A parent module may use its children. A child may use
//! definitions of its ancestors: that is what `super` is for, and does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

use crate::architecture::SOURCES;

/// The names of a module path below the crate root.
type ModulePath = Vec<String>;

/// One source file.
#[derive(Default)]
struct SourceFile {
    path: PathBuf,
    definitions: BTreeSet<String>,
    children: BTreeSet<String>,
    /// Imported names with their absolute paths.
    imports: BTreeMap<String, ModulePath>,
    globs: Vec<ModulePath>,
    /// Absolute paths that the code names.
    references: Vec<ModulePath>,
}

fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && quote_free_text(attribute).is_some_and(|text| text.starts_with("test"))
    })
}

/// The first identifier inside `#[cfg(…)]`.
fn quote_free_text(attribute: &syn::Attribute) -> Option<String> {
    let list = attribute.meta.require_list().ok()?;
    Some(list.tokens.to_string())
}

/// Collects the items of a file.
struct Collector<'a> {
    module: &'a [String],
    file: SourceFile,
    raw_paths: Vec<Vec<String>>,
    re_exports: BTreeSet<String>,
}

impl Collector<'_> {
    /// A path as written, from the crate root; `None` for paths of other crates.
    fn absolute(&self, path: &[String]) -> Option<ModulePath> {
        let mut base: ModulePath = self.module.to_vec();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                base.pop();
            }
            first if self.file.children.contains(first) => {
                return Some([base, path.to_vec()].concat());
            }
            first => {
                let import = self.file.imports.get(first)?;
                return Some([import.clone(), path.get(1..)?.to_vec()].concat());
            }
        }
        rest = rest.get(1..)?;
        while rest.first().is_some_and(|segment| segment == "super") {
            base.pop();
            rest = rest.get(1..)?;
        }
        Some([base, rest.to_vec()].concat())
    }

    fn add_use(&mut self, prefix: &[String], tree: &syn::UseTree, is_public: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                let prefix = [prefix.to_vec(), vec![path.ident.to_string()]].concat();
                self.add_use(&prefix, &path.tree, is_public);
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(prefix, tree, is_public);
                }
            }
            syn::UseTree::Glob(_) => {
                if let Some(path) = self.absolute(prefix) {
                    self.file.globs.push(path);
                }
            }
            syn::UseTree::Name(name) => {
                self.add_import(prefix, &name.ident.to_string(), None, is_public);
            }
            syn::UseTree::Rename(rename) => {
                let alias = rename.rename.to_string();
                self.add_import(prefix, &rename.ident.to_string(), Some(alias), is_public);
            }
        }
    }

    fn add_import(&mut self, prefix: &[String], name: &str, alias: Option<String>, public: bool) {
        let path = if name == "self" {
            prefix.to_vec()
        } else {
            [prefix.to_vec(), vec![name.to_owned()]].concat()
        };
        let alias = alias.unwrap_or_else(|| path.last().cloned().unwrap_or_default());
        if let Some(path) = self.absolute(&path) {
            if public {
                self.re_exports.insert(alias.clone());
            } else {
                self.file.references.push(path.clone());
            }
            self.file.imports.insert(alias, path);
        }
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !is_test_only(attributes) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter();
        self.raw_paths
            .push(segments.map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }
}

fn name_of(item: &syn::Item) -> Option<String> {
    Some(match item {
        syn::Item::Const(item) => item.ident.to_string(),
        syn::Item::Enum(item) => item.ident.to_string(),
        syn::Item::Fn(item) => item.sig.ident.to_string(),
        syn::Item::Macro(item) => item.ident.as_ref()?.to_string(),
        syn::Item::Static(item) => item.ident.to_string(),
        syn::Item::Struct(item) => item.ident.to_string(),
        syn::Item::Trait(item) => item.ident.to_string(),
        syn::Item::Type(item) => item.ident.to_string(),
        _ => return None,
    })
}

/// Parses a file and, through its `mod` items, the files below it.
fn parse(path: &Path, module: &[String], files: &mut BTreeMap<ModulePath, SourceFile>) {
    let text = fs::read_to_string(path).unwrap();
    let syntax = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut collector = Collector {
        module,
        file: SourceFile {
            path: path.to_owned(),
            ..SourceFile::default()
        },
        raw_paths: Vec::new(),
        re_exports: BTreeSet::new(),
    };
    let directory = match path.file_name().unwrap().to_str().unwrap() {
        "lib.rs" | "main.rs" => path.parent().unwrap().to_owned(),
        _ => path.with_extension(""),
    };
    for item in &syntax.items {
        collector.file.definitions.extend(name_of(item));
        let syn::Item::Mod(item) = item else { continue };
        if is_test_only(&item.attrs) || item.content.is_some() {
            continue;
        }
        let name = item.ident.to_string();
        collector.file.children.insert(name.clone());
        let child = directory.join(format!("{name}.rs"));
        parse(&child, &[module, &[name]].concat(), files);
    }
    for item in &syntax.items {
        if let syn::Item::Use(item) = item
            && !is_test_only(&item.attrs)
        {
            let is_public = !matches!(item.vis, syn::Visibility::Inherited);
            collector.add_use(&[], &item.tree, is_public);
        }
    }
    collector.visit_file(&syntax);
    for path in std::mem::take(&mut collector.raw_paths) {
        let is_import_used = path.len() == 1 && !collector.re_exports.contains(&path[0]);
        if !is_import_used && let Some(path) = collector.absolute(&path) {
            collector.file.references.push(path);
        }
    }
    files.insert(module.to_vec(), collector.file);
}

/// The file that defines what a path names.
fn resolve(
    files: &BTreeMap<ModulePath, SourceFile>,
    path: &[String],
    depth: usize,
) -> Option<ModulePath> {
    let length = (0..=path.len())
        .rev()
        .find(|length| files.contains_key(&path[..*length]))?;
    let module = path[..length].to_vec();
    let file = &files[&module];
    let Some(name) = path.get(length) else {
        // A module as such: what is used of it has a path of its own.
        return None;
    };
    if file.definitions.contains(name) || depth > 16 {
        return Some(module);
    }
    if let Some(import) = file.imports.get(name) {
        let rest = path.get(length + 1..).unwrap_or_default();
        return resolve(files, &[import, rest].concat(), depth + 1);
    }
    file.globs
        .iter()
        .find_map(|glob| {
            resolve(
                files,
                &[glob.clone(), vec![name.clone()]].concat(),
                depth + 1,
            )
        })
        .or(Some(module))
}

/// The circles of a crate: sets of files that reach each other.
fn circles(source: &str) -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let mut files = BTreeMap::new();
    parse(&source.join("lib.rs"), &[], &mut files);
    let mut edges: BTreeMap<&ModulePath, BTreeSet<ModulePath>> = BTreeMap::new();
    for (module, file) in &files {
        let targets = file.references.iter();
        let targets = targets.filter_map(|path| resolve(&files, path, 0));
        edges.insert(
            module,
            targets
                .filter(|target| !module.starts_with(target))
                .collect(),
        );
    }
    let reachable = |start: &ModulePath| {
        let mut reached = BTreeSet::new();
        let mut pending = vec![start.clone()];
        while let Some(module) = pending.pop() {
            for next in &edges[&module] {
                if reached.insert(next.clone()) {
                    pending.push(next.clone());
                }
            }
        }
        reached
    };
    let reached: BTreeMap<&ModulePath, BTreeSet<ModulePath>> = files
        .keys()
        .map(|module| (module, reachable(module)))
        .collect();
    let mut circles = BTreeSet::new();
    for (module, targets) in &reached {
        if targets.contains(*module) {
            let members: Vec<String> = targets
                .iter()
                .filter(|other| reached[other].contains(*module))
                .map(|other| {
                    files[other]
                        .path
                        .strip_prefix(&source)
                        .unwrap()
                        .display()
                        .to_string()
                })
                .collect();
            circles.insert(members.join(", "));
        }
    }
    circles.into_iter().collect()
}

#[test]
fn no_files_of_a_crate_import_each_other_in_a_circle() {
    let found: Vec<String> = SOURCES
        .iter()
        .flat_map(|source| {
            circles(source)
                .into_iter()
                .map(move |circle| format!("{source}: {circle}"))
        })
        .collect();
    assert!(
        found.is_empty(),
        "files that import each other; move what both need into a file of its own:\n{}",
        found.join("\n")
    );
}
