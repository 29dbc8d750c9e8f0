//! Which module uses which: no circles, and the arrows of `docs/architecture.md`.
//!
//! Every path in the sources of the three crates that leads into its own crate is followed to the file that
//! defines its end, through re-exports. A `mod.rs` that only names its children and re-exports from them
//! uses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{File, Item, ItemUse, UseTree, Visibility};

/// A module by its path below the crate.
type Name = Vec<String>;

/// What of a crate may be used from where: nothing else below the first may use anything outside of itself.
const ARROWS: [(&str, &[&str]); 9] = [
    ("equations", &["gates"]),
    ("fused::problem", &["equations", "gates", "mixed_types"]),
    ("fused::cpu", &["fused::problem", "equations"]),
    // No family of kernels.
    (
        "fused::cpu::driver",
        &[
            "fused::cpu::layout",
            "fused::cpu::product",
            "fused::cpu::rows",
            "fused::cpu::simd",
            "fused::cpu::team",
            "fused::cpu::transpose",
            "fused::cpu::view",
        ],
    ),
    ("fused::cube", &["fused::problem", "equations"]),
    ("fused::device", &["fused::problem", "fused::cube"]),
    (
        "fused::op",
        &[
            "fused::problem",
            "fused::cpu",
            "fused::cube",
            "fused::device",
            "equations",
            "gates",
        ],
    ),
    (
        "cell",
        &[
            "equations",
            "fused::problem",
            "gates",
            "mixed_types",
            "state",
        ],
    ),
    (
        "sequence",
        &[
            "cell",
            "dims",
            "equations",
            "fused::device",
            "fused::op",
            "fused::problem",
            "mixed_types",
            "state",
        ],
    ),
];

/// The modules of a crate.
struct Modules(BTreeMap<Name, Module>);

/// A file.
#[derive(Default)]
struct Module {
    /// What each name that it brings in stands for.
    names: BTreeMap<String, Name>,
    /// The paths that it follows.
    paths: BTreeSet<Name>,
}

impl Modules {
    fn of(krate: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(krate)
            .join("src");
        let mut files = vec![];
        list(&source, &source, &mut files);
        let names: BTreeSet<Name> = files.iter().map(|(name, _)| name.clone()).collect();
        let read = |(name, path): (Name, PathBuf)| {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let module = Reader::read(&name, &names, &file);
            (name, module)
        };
        Self(files.into_iter().map(read).collect())
    }

    /// The module that defines what is at the end of a path.
    fn defining(&self, path: &[String]) -> Name {
        let mut path = path.to_vec();
        for _ in 0..16 {
            let length = (0..=path.len())
                .rev()
                .find(|&length| self.0.contains_key(&path[..length]))
                .expect("the crate itself");
            let (module, rest) = path.split_at(length);
            let Some(next) = rest.first().and_then(|name| self.0[module].names.get(name)) else {
                return module.to_vec();
            };
            let mut next = next.clone();
            next.extend_from_slice(&rest[1..]);
            if next == path {
                return module.to_vec();
            }
            path = next;
        }
        panic!("a name that leads nowhere: {path:?}")
    }

    /// Which file uses which other one.
    fn edges(&self) -> BTreeSet<(Name, Name)> {
        let mut edges = BTreeSet::new();
        for (from, module) in &self.0 {
            for path in &module.paths {
                let to = self.defining(path);
                if to != *from {
                    edges.insert((from.clone(), to));
                }
            }
        }
        edges
    }
}

/// The source files below a folder with the names of their modules.
fn list(root: &Path, folder: &Path, files: &mut Vec<(Name, PathBuf)>) {
    let entries = std::fs::read_dir(folder).expect("a folder of sources");
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            list(root, &path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let inside = path.strip_prefix(root).expect("inside").with_extension("");
            let mut name: Name = (inside.iter())
                .map(|part| part.to_string_lossy().into_owned())
                .collect();
            if matches!(name.last().map(String::as_str), Some("mod" | "lib")) {
                name.pop();
            }
            files.push((name, path));
        }
    }
}

/// Collects what a file uses.
struct Reader<'a> {
    here: &'a Name,
    all: &'a BTreeSet<Name>,
    module: Module,
}

impl<'a> Reader<'a> {
    fn read(here: &'a Name, all: &'a BTreeSet<Name>, file: &File) -> Module {
        let mut reader = Self {
            here,
            all,
            module: Module::default(),
        };
        reader.visit_file(file);
        reader.module
    }

    /// A path from the crate's root; none where it leads elsewhere.
    fn absolute(&self, segments: &[String]) -> Option<Name> {
        let mut base = self.here.clone();
        let mut rest = segments;
        match segments.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            first => {
                let mut child = base.clone();
                child.push(first.to_string());
                if !self.all.contains(&child) {
                    return None;
                }
            }
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    fn follow(&mut self, segments: &[String]) {
        if let Some(path) = self.absolute(segments)
            && path != *self.here
        {
            self.module.paths.insert(path);
        }
    }

    fn brings_in(&mut self, tree: &UseTree, prefix: &mut Vec<String>, public: bool) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.brings_in(&path.tree, prefix, public);
                prefix.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.brings_in(tree, prefix, public);
                }
            }
            UseTree::Glob(_) => self.follow(&prefix.clone()),
            UseTree::Name(name) => {
                let ident = name.ident.to_string();
                let as_name = match ident.as_str() {
                    "self" => prefix.last().cloned().unwrap_or_default(),
                    _ => ident.clone(),
                };
                self.bring_in(prefix, &ident, as_name, public);
            }
            UseTree::Rename(rename) => {
                let ident = rename.ident.to_string();
                self.bring_in(prefix, &ident, rename.rename.to_string(), public);
            }
        }
    }

    fn bring_in(&mut self, prefix: &[String], ident: &str, as_name: String, public: bool) {
        let mut segments = prefix.to_vec();
        if ident != "self" {
            segments.push(ident.to_string());
        }
        let Some(path) = self.absolute(&segments) else {
            return;
        };
        let inside = path.starts_with(self.here);
        // A module of that name is found without.
        if path != [self.here.clone(), vec![as_name.clone()]].concat() {
            self.module.names.insert(as_name, path.clone());
        }
        // What a module shows of its own children it does not use.
        if !(public && inside) {
            self.module.paths.insert(path);
        }
    }

    /// Paths in the arguments of a macro, which are tokens only.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = vec![];
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.follow_tokens(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.follow_tokens(&mut path);
                    self.tokens(group.stream());
                    colons = 0;
                }
                _ => {
                    self.follow_tokens(&mut path);
                    colons = 0;
                }
            }
        }
        self.follow_tokens(&mut path);
    }

    /// A single name is a variable as likely as a module.
    fn follow_tokens(&mut self, path: &mut Vec<String>) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.follow(&path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        // Tests inside a file, which may use what they like.
        if let Item::Mod(module) = item
            && module.ident == "tests"
        {
            return;
        }
        visit::visit_item(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let public = !matches!(item.vis, Visibility::Inherited);
        self.brings_in(&item.tree, &mut vec![], public);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if segments.len() > 1 {
            self.follow(&segments);
        }
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {
        // `pub(in path)` uses nothing.
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.tokens(item.tokens.clone());
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

/// One circle of a graph, if there is one.
fn circle(edges: &BTreeSet<(Name, Name)>) -> Option<Vec<Name>> {
    fn search(
        at: &Name,
        edges: &BTreeSet<(Name, Name)>,
        done: &mut BTreeSet<Name>,
        way: &mut Vec<Name>,
    ) -> Option<Vec<Name>> {
        if let Some(start) = way.iter().position(|name| name == at) {
            return Some(way[start..].to_vec());
        }
        if !done.insert(at.clone()) {
            return None;
        }
        way.push(at.clone());
        for (_, to) in edges.iter().filter(|(from, _)| from == at) {
            if let Some(found) = search(to, edges, done, way) {
                return Some(found);
            }
        }
        way.pop();
        None
    }
    let mut done = BTreeSet::new();
    edges
        .iter()
        .find_map(|(from, _)| search(from, edges, &mut done, &mut vec![]))
}

fn text(name: &[String]) -> String {
    name.join("::")
}

/// `a → b → a`
fn text_of_circle(circle: &[Name]) -> String {
    let names: Vec<_> = circle
        .iter()
        .chain(circle.first())
        .map(|n| text(n))
        .collect();
    names.join(" → ")
}

const CRATES: [&str; 3] = ["recurrent-core", "recurrent-modules", "recurrent-bench"];

/// Among the modules beside each other, at every level.
#[test]
fn no_circle_between_modules() {
    let mut circles = vec![];
    for krate in CRATES {
        let modules = Modules::of(krate);
        let edges = modules.edges();
        assert!(edges.len() > 10, "{krate}: nothing was read");
        for parent in modules.0.keys() {
            let depth = parent.len();
            let inside = |name: &Name| name.len() > depth && name.starts_with(parent);
            let among: BTreeSet<_> = (edges.iter())
                .filter(|(from, to)| inside(from) && inside(to))
                .map(|(from, to)| (from[..=depth].to_vec(), to[..=depth].to_vec()))
                .filter(|(from, to)| from != to)
                .collect();
            if let Some(found) = circle(&among) {
                circles.push(format!("{krate}: {}", text_of_circle(&found)));
            }
        }
    }
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

/// Not even between a file and those below it.
#[test]
fn no_circle_between_files_of_the_cpu_kernels() {
    let modules = Modules::of("recurrent-core");
    let cpu = ["fused", "cpu"].map(String::from);
    let edges: BTreeSet<_> = (modules.edges().into_iter())
        .filter(|(from, to)| from.starts_with(&cpu) && to.starts_with(&cpu))
        .collect();
    assert!(edges.len() > 10, "nothing was read");
    let found = circle(&edges);
    assert!(
        found.is_none(),
        "{}",
        text_of_circle(&found.unwrap_or_default())
    );
}

#[test]
fn arrows_lead_one_way() {
    let modules = Modules::of("recurrent-core");
    let within = |name: &Name, prefix: &str| {
        let prefix: Name = prefix.split("::").map(String::from).collect();
        name.starts_with(&prefix)
    };
    let mut wrong = vec![];
    for (from, to) in modules.edges() {
        let Some((prefix, allowed)) = ARROWS.iter().find(|(prefix, _)| within(&from, prefix))
        else {
            continue;
        };
        if !within(&to, prefix) && !allowed.iter().any(|prefix| within(&to, prefix)) {
            wrong.push(format!("{} uses {}", text(&from), text(&to)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
